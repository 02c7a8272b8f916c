#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# On Debian's own kernel, rules use nftables' own `queue`: a short run of the most important cases.
if [ -z "${TYLO_GUEST:-}" ]; then
	here=$(dirname "$(readlink -f "$0")")
	# Two workers, where the others have one.
	exec env GUEST_CPUS="${GUEST_CPUS:-2}" "$here/../../tools/guest" "$here/90-native.sh"
fi

. "$(dirname "$(readlink -f "$0")")/lib.sh"

session() { jool session display --tcp --numeric --csv | grep "$1" | cut -d , -f 2-9; }

run() { # own|foreign
	gateway_up "$1"
	check "the log says native" grep -q native "$WORK/daemon.1.log"
	check "the rules use the queue expression" says 'queue' gw nft list table inet tylo
	http_server server
	udp_echo server 7000
	random_file ten 10000000
	check "ping" ping_ok client $SERVER6
	check "download of 10 MB is what was sent" download_equals ten
	check "upload of 10 MB is what was sent" upload_equals ten
	check "in super-packets" between "$(queued super_packets)" 50 100000
	check "4000 octets over UDP, in fragments both ways" \
		client $PYTHON "$HERE/udp.py" ask $SERVER6 7000 4000
	# This kernel takes no super-packets of UDP.
	spawn server $PYTHON "$HERE/trains.py" serve 9700
	must "there is a server of trains" within 20 listens server 9700
	check "trains of datagrams come and are answered" client $PYTHON "$HERE/trains.py" ask $SERVER6 9700 64 10
	check "one by one, as the log says" grep -q 'no super-packets of UDP' "$WORK/daemon.1.log"

	watch resets server s0 'tcp[tcpflags] & tcp-rst != 0'
	# More than all buffers on the way hold, or the server would be done when the daemon is killed.
	random_file more 24000000
	spawn client curl -gsS --fail -m 90 --limit-rate 2400k -o "$WORK/got" "http://[$SERVER6]:8080/more"
	local curl=$SPAWNED before
	sleep 2
	before=$(session ',8080,.*,ESTABLISHED$')
	must "the download has its session" equal "$(grep -c . <<<"$before")" 1
	daemon_kill
	sleep 1
	must "the daemon starts again" daemon_start
	check "the session has the same addresses and ports" says "^$before$" session ,8080,
	check "the download ends in time" ends_within 60 "$curl"
	check "curl is content" wait "$curl"
	check "what came is what was sent" cmp "$WORK/got" "$WORK/files/more"
	watch_end resets
	check "no reset" nothing_seen resets
	# This kernel cannot protect a table from others.
	gw nft flush ruleset
	check "flushed rules are back at once" within 5 gw tylo health
	check "as the log says" grep -q 'somebody removed the rules' "$WORK/daemon.$STARTS.log"
	check "and translate" ping_ok client $SERVER6
	must "the daemon stops" daemon_stop
	check "its table is gone" equal "$(gw nft list tables)" ""
	gateway_down
}

run own
run foreign
