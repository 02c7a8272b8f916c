#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A clean stop takes away what the daemon put into the kernel; a start brings everything back.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

configuration() {
	local protocol
	jool instance display --csv --no-headers | cut -d , -f 2- || return
	for protocol in tcp udp icmp; do
		jool pool4 display --csv --$protocol || return
		jool bib display --csv --numeric --$protocol || return
	done
	jool global display --csv
}

sessions() { jool session display --csv --numeric --tcp | cut -d , -f 2-9 | sort; }

no_traces() { ! gw nft list tables | grep -w tylo && ! gw ip link show tylo0 2>/dev/null; }

network_up
network_state >"$WORK/before"
must "the daemon gets ready" daemon_start
must "an instance and pool4 are accepted" configure
jool pool4 add --udp 192.0.2.0/30 62000-63000
jool pool4 add --tcp 192.0.2.9 62000-62100 --mark=7 --max-iterations=99
jool bib add $CLIENT6#80 203.0.113.1#61080 --tcp
jool bib add 2001:db8:6::53#53 192.0.2.1#62053 --udp
jool global update tcp-est-timeout 3:00:00
jool global update logging-session true
check "ready, says tylo health" gw tylo health
check "and as JSON" says '"ready": *true' gw tylo health --json

# An idle connection: nothing of it is on the way while the daemon is down.
http_server server
spawn client $PYTHON "$HERE/idle.py" "$SERVER6" "$WORK" 2>>"$WORK/idle.log" >&2
idle=$SPAWNED
must "a connection is open" within 10 test -e "$WORK/idle.open"
configuration >"$WORK/configuration"
sessions >"$WORK/sessions"
check "its session is shown" grep -q ",8080$" "$WORK/sessions"

must "the daemon stops with status 0" daemon_stop
check "nothing of it is left in the kernel" unchanged "$WORK/before" network_state

must "it starts again" daemon_start
check "instances, pool4, mappings and globals are back" unchanged "$WORK/configuration" configuration
check "sessions are back" unchanged "$WORK/sessions" sessions
touch "$WORK/idle.go"
check "the idle connection goes on" ends_within 15 "$idle"
check "with the same port" wait "$idle"
check "new connections work" client_fetch -o /dev/null "http://[$SERVER6]:8080/peer"

echo "--- somebody flushes all rules, as reloading a firewall does"
gw nft flush ruleset
check "they are there again at once, or still" within 2 gw tylo health
check "and translate" client_fetch -o /dev/null "http://[$SERVER6]:8080/peer"

echo "--- told to keep the rules"
must "the daemon stops" daemon_stop
must "it starts with --keep-rules" daemon_start --keep-rules
must "it stops" daemon_stop
check "the rules are still there" says '^table .* tylo$' gw nft list tables
check "and so is the device" gw ip link show tylo0
watch_leaks
check "nothing gets through" not client_fetch -m 1 -o /dev/null "http://[$SERVER6]:8080/peer"
no_leaks
must "it starts over the rules that are there" daemon_start
check "it translates" client_fetch -o /dev/null "http://[$SERVER6]:8080/peer"
must "it stops" daemon_stop
check "nothing is left" no_traces

echo "--- removed"
must "it starts" daemon_start
jool instance remove
check "without an instance, nothing is translated" \
	not client_fetch -m 1 -o /dev/null "http://[$SERVER6]:8080/peer"
must "it stops" daemon_stop
must "it starts" daemon_start
check "a removed instance stays removed" equal "$(jool instance display --csv --no-headers)" ""
