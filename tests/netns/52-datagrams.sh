#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# UDP datagrams of one flow that come together go back to the kernel together, where it can cut them
# apart again; what arrives is what was sent.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

PORT=9700 CARS=20

trains() { # SIZE NUMBER
	client $PYTHON "$HERE/trains.py" ask $SERVER6 $PORT "$1" "$2"
}

# Datagrams of at most SIZE octets, of which so many were seen one by one, all of them good.
all_single() { # NAME SIZE NUMBER
	equal "$(lengths "$1" | wc -l)" "$3" && ! lengths "$1" | awk "\$1 > $2" | grep . &&
		! grep -E 'bad|incorrect' "$WORK/$1.seen"
}
lengths() { sed -n 's/.*UDP, length \([0-9]*\).*/\1/p' "$WORK/$1.seen"; }

longer_than() { # NAME SIZE
	lengths "$1" | awk "\$1 > $2 { found = 1 } END { exit !found }"
}

different_identifications() { # NAME NUMBER
	equal "$(grep -o ' id [0-9]*' "$WORK/$1.seen" | sort -u | wc -l)" "$2"
}

# 1252 and 1352 octets leave IPv4 packets above 1260, which are not to be fragmented, 1200 ones below.
gateway_up foreign
spawn server $PYTHON "$HERE/trains.py" serve $PORT
must "there is a server" within 20 listens server $PORT
for size in 24 64 1200 1252 1352; do
	echo "--- trains of $size octets"
	watch four server s0 "udp and dst port $PORT" -Q in
	watch six client c0 "udp and src port $PORT" -Q in
	check "come and are answered" trains $size 20
	check "some are together on their way to IPv4" within 5 longer_than four $size
	check "and on their way to IPv6" within 5 longer_than six $size
	watch_end four
	watch_end six
done
check "nothing was left out" equal "$(queued queue_full) $(queued socket_full) $(queued overruns)" "0 0 0"

echo "--- the device was down for a while"
gw ip link set tylo0 down
check "nothing passes" not trains 64 1
gw ip link set tylo0 up
must "then it does again" within 10 trains 64 1
watch four server s0 "udp and dst port $PORT" -Q in
check "trains come and are answered" trains 64 20
check "some are together, as before" within 5 longer_than four 64
watch_end four

echo "--- devices that have them cut before"
gw ethtool -K g4 tx-udp-segmentation off tx off >/dev/null
gw ethtool -K g6 tx-udp-segmentation off tx off >/dev/null
for size in 64 1200 1352; do
	watch four server s0 "udp and dst port $PORT" -Q in -v -s 2000 -B 16384
	watch six client c0 "udp and src port $PORT" -Q in -v -s 2000 -B 16384
	check "trains of $size octets come and are answered" trains $size 10
	check "one by one, whole, to IPv4" within 5 all_single four $size $((10 * 3 * CARS))
	check "and to IPv6" within 5 all_single six $size $((10 * 3 * CARS))
	watch_end four
	watch_end six
	[ $size = 1352 ] ||
		check "each with an identification of its own" different_identifications four $((10 * 3 * CARS))
done
gateway_down
