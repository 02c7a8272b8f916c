#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# TCP goes through in super-packets and leaves in segments of the right size: whatever the MTUs on
# both sides are, when they change, with a session that nothing is known about.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

link_mtu() { # NS1 DEVICE1 NS2 DEVICE2 MTU
	ip -n "$PREFIX-$1" link set "$2" mtu "$5"
	ip -n "$PREFIX-$3" link set "$4" mtu "$5"
}

# What leaves the gateway by these devices is cut there, as by a network card, and not put together
# again: what is seen on the other side is what travels.
real_wires() {
	gw ethtool -K g4 tso off gso off >/dev/null
	gw ethtool -K g6 tso off gso off >/dev/null
	server ethtool -K s0 gro off >/dev/null
	client ethtool -K c0 gro off >/dev/null
}

# TCP with data in IP packets of at least so many bytes.
watch_wires() { # LENGTH4 LENGTH6
	watch four server s0 "tcp and ip and ip[2:2] >= $1" -Q in
	watch six client c0 "ip6 and ip6[6] == 6 and ip6[4:2] >= $2 - 40" -Q in
}

# The same file up and down; most of it in super-packets.
both_ways() { # [HOST]
	local before between
	before=$(queued super_packets)
	check "upload" upload_equals data "${1:-$SERVER6}"
	between=$(queued super_packets)
	check "most of it went in super-packets" between $((between - before)) 100 100000
	check "download" download_equals data "${1:-$SERVER6}"
	check "most of it went in super-packets" between $(($(queued super_packets) - between)) 100 100000
}

# Segments of exactly this length, which are the longest, were seen in both directions.
segments_are() { # LENGTH4 LENGTH6
	watch_wires "$1" "$2"
	both_ways
	watch_end four
	watch_end six
	check "segments of $1 octets to IPv4" seen four "length $(($1 - 40 - TIMES))\b"
	check "segments of $2 octets to IPv6" seen six "length $(($2 - 60 - TIMES))\b"
	check "and none longer" longest four $(($1 - 40 - TIMES))
	check "and none longer" longest six $(($2 - 60 - TIMES))
}

longest() { # NAME DATA
	local most
	most=$(sed -n 's/.* length \([0-9]*\).*/\1/p' "$WORK/$1.seen" | sort -n | tail -n 1)
	equal "$most" "$2"
}

mostly() { # NAME DATA
	local size
	size=$(sed -n 's/.* length \([0-9]*\).*/\1/p' "$WORK/$1.seen" | sort | uniq -c | sort -n |
		sed -n '$s/.* //p')
	equal "$size" "$2"
}

nothing_lost() {
	check "no queue was ever full" equal "$(queued queue_full) $(queued socket_full) $(queued overruns)" "0 0 0"
}

timestamps() { # 0|1
	client sysctl -qw net.ipv4.tcp_timestamps="$1"
	server sysctl -qw net.ipv4.tcp_timestamps="$1"
	beyond sysctl -qw net.ipv4.tcp_timestamps="$1"
	TIMES=$(($1 * 12))
}

random_file data 20000000

# --- MTUs -----------------------------------------------------------------------------------------

gateway_up foreign
real_wires
http_server server
http_server beyond
for on in 1 0; do
	timestamps $on
	echo "--- timestamps: $on"
	segments_are 1480 1500
	echo "--- IPv6: 1280 octets"
	link_mtu client c0 gw g6 1280
	segments_are 1260 1280
	echo "--- IPv6: 9000 octets"
	link_mtu client c0 gw g6 9000
	segments_are 1500 1520
	echo "--- IPv4: 1400 octets"
	link_mtu client c0 gw g6 1500
	link_mtu gw g4 server s0 1400
	segments_are 1400 1420
	link_mtu gw g4 server s0 1500
done
echo "--- a small link far away"
timestamps 1
both_ways 64:ff9b::198.51.100.2
nothing_lost

# --- MTUs that change -----------------------------------------------------------------------------

has_received() { # NAMESPACE DEVICE BYTES
	[ "$(in_ns "$1" cat "/sys/class/net/$2/statistics/rx_bytes")" -ge "$3" ]
}

# Transfers a file slowly enough for something to happen meanwhile.
begin() { # up|down
	rm -f "$WORK/got"
	case $1 in
	up) spawn client curl -gsS --fail -m 120 --limit-rate 8M -T "$WORK/files/data" \
		"http://[$BEYOND6]:8080/upload" -o "$WORK/got" ;;
	down) spawn client curl -gsS --fail -m 120 --limit-rate 8M -o "$WORK/got" "http://[$BEYOND6]:8080/data" ;;
	esac
	TRANSFER=$SPAWNED
}

ends_well() { # up|down
	wait "$TRANSFER" || return
	case $1 in
	up) equal "$(cat "$WORK/got")" "$(sum "$WORK/files/data")" ;;
	down) cmp "$WORK/got" "$WORK/files/data" ;;
	esac
}

echo "--- the far link gets smaller meanwhile"
count=$(beyond cat /sys/class/net/b0/statistics/rx_bytes)
begin up
must "it has begun" within 20 has_received beyond b0 $((count + 3000000))
link_mtu server s1 beyond b0 1300
check "the upload goes on" ends_well up
echo "--- the near link gets smaller meanwhile"
count=$(client cat /sys/class/net/c0/statistics/rx_bytes)
begin down
must "it has begun" within 20 has_received client c0 $((count + 3000000))
link_mtu client c0 gw g6 1290
check "the download goes on" ends_well down
link_mtu client c0 gw g6 1500
link_mtu server s1 beyond b0 1500
nothing_lost

# --- no SYN seen ----------------------------------------------------------------------------------

forget() {
	$PYTHON -c 'import sqlite3, sys
db = sqlite3.connect(sys.argv[1] + "/state.db")
print(db.execute("UPDATE session SET segment = 0 WHERE segment != 0").rowcount)
db.commit()' "$STATE"
}

for memory in kept lost; do
	echo "--- the daemon is restarted meanwhile, what it knew of segments is $memory"
	# The kernels remember what they have just learnt.
	client ip -6 route flush cache
	beyond ip route flush cache
	count=$(server cat /sys/class/net/s0/statistics/rx_bytes)
	begin up
	must "it has begun" within 20 has_received server s0 $((count + 3000000))
	daemon_kill
	if [ $memory = lost ]; then check "it was known" says '^[1-9]' forget; fi
	watch four server s0 "tcp and ip and src host $POOL4 and ip[2:2] >= 1000" -Q in
	must "the daemon starts again" daemon_start
	check "the upload goes on" ends_well up
	watch_end four
	check "in super-packets" between "$(queued super_packets)" 50 100000
	case $memory in
	kept) check "segments are as before" longest four 1428 ;;
	lost) check "segments are safe, but for what comes singly" mostly four 1208 ;;
	esac
done
gateway_down

# --- offloads -------------------------------------------------------------------------------------

echo "--- devices without offloads"
gateway_up own
for each in client:c0 gw:g6 gw:g4 server:s0; do
	in_ns "${each%:*}" ethtool -K "${each#*:}" tso off gso off gro off tx off >/dev/null
done
http_server server
check "upload" upload_equals data
check "download" download_equals data
check "nothing came in super-packets" equal "$(queued super_packets)" 0
gateway_down

echo "--- a tylod that is told not to"
gateway_up own --no-super-packets
http_server server
check "upload" upload_equals data
check "download" download_equals data
check "nothing came in super-packets" equal "$(queued super_packets)" 0
gateway_down

# --- many at once ---------------------------------------------------------------------------------

echo "--- eight streams"
gateway_up own
http_server server
streams=()
for stream in 1 2 3 4 5 6 7 8; do
	spawn client curl -gsS --fail -m 120 -o "$WORK/got.$stream" "http://[$SERVER6]:8080/data"
	streams+=("$SPAWNED")
done
for stream in 1 2 3 4 5 6 7 8; do
	check "stream $stream ends" wait "${streams[stream - 1]}"
	check "and is whole" cmp "$WORK/got.$stream" "$WORK/files/data"
done
nothing_lost
gateway_down
