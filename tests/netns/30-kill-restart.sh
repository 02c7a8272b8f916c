#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kill -9 in the middle of a download, and a start two seconds later: the same connection goes on.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

# The addresses and ports of the one session, without expiry and state.
session() { jool session display --tcp --numeric --csv | grep ',8080,' | cut -d , -f 2-9; }

run() { # own|foreign
	gateway_up "$1"
	http_server server
	random_file big 30000000

	watch_leaks
	watch syns server s0 'tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn' -Q in
	watch resets-v4 server s0 'tcp[tcpflags] & tcp-rst != 0'
	watch resets-v6 client c0 'ip6[6] == 6 and ip6[53] & 4 != 0'
	watch errors client c0 'icmp6 and ip6[40] < 128' -Q in

	rm -f "$WORK/got"
	# An unlimited read would be over before the daemon is killed.
	spawn client curl -gsS --fail -m 90 --limit-rate 3M -o "$WORK/got" "http://[$SERVER6]:8080/big"
	local curl=$SPAWNED before after
	sleep 2
	before=$(session)
	must "one session is there" equal "$(grep -c . <<<"$before")" 1

	daemon_kill
	check "while the daemon is down, nothing new gets through" \
		not client_fetch -m 1 -o /dev/null "http://[$SERVER6]:8080/peer"
	sleep 0.5
	must "the download was really interrupted" kill -0 "$curl"
	must "the daemon starts again" daemon_start
	after=$(session | head -n 1)
	check "the session has the same addresses and ports" equal "$after" "$before"

	check "the download ends in time" ends_within 60 "$curl"
	check "curl is content" wait "$curl"
	check "what came is what was sent" cmp "$WORK/got" "$WORK/files/big"
	check "a new connection works" \
		client_fetch -o /dev/null "http://[$SERVER6]:8080/peer"

	watch_end syns
	local first
	first=$(grep -o "$POOL4\.[0-9]* >" "$WORK/syns.seen" | head -n 1)
	check "the download was one connection" \
		equal "$(grep -o "$POOL4\.[0-9]* >" "$WORK/syns.seen" | grep -cFx "$first")" 1
	check "and there was no third one" \
		equal "$(grep -o "$POOL4\.[0-9]* >" "$WORK/syns.seen" | sort -u | wc -l)" 2
	watch_end resets-v4
	watch_end resets-v6
	watch_end errors
	check "no reset on the IPv4 side" nothing_seen resets-v4
	check "no reset on the IPv6 side" nothing_seen resets-v6
	check "no ICMPv6 error" nothing_seen errors
	no_leaks
	gateway_down
}

run own
run foreign
