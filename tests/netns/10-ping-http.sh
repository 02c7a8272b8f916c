#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# An IPv6-only client uses an IPv4-only server: ping, HTTP both ways, DNS, many connections at once.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

dns_answer() { client dig +short +time=2 +tries=2 "@$SERVER6" host.test.example A; }

dns_works() { equal "$(dns_answer)" 198.51.100.7; }

together() { # N: answered only when all of them are open at the same time
	local n=$1 i urls=()
	rm -f "$WORK"/together.*
	for ((i = 0; i < n; i++)); do
		urls+=(-o "$WORK/together.$i" "http://[$SERVER6]:8080/together/$n")
	done
	client_fetch --parallel --parallel-immediate --parallel-max "$n" "${urls[@]}" || return
	equal "$(cat "$WORK"/together.* | grep -c '^together$')" "$n"
}

run() { # own|foreign
	gateway_up "$1"
	http_server server
	spawn server dnsmasq -k --conf-file=/dev/null --no-resolv --no-hosts --pid-file= --user=root \
		--bind-interfaces --listen-address=$SERVER4 --address=/test.example/198.51.100.7 \
		2>>"$WORK/dns.log" >&2
	must "a DNS server listens" within 5 listens server 53
	random_file big 200000000
	random_file small 1000000

	watch_leaks
	check "ping" ping_ok client $SERVER6
	check "ping with 1400 octets" ping_ok client $SERVER6 -s 1400
	check "download of 200 MB is what was sent" download_equals big
	check "upload of 200 MB is what was sent" upload_equals big
	check "bulk data comes in super-packets" between "$(queued super_packets)" 2000 1000000
	check "the server sees pool4's address" \
		says "^(::ffff:)?$POOL4 " client_fetch "http://[$SERVER6]:8080/peer"
	check "DNS over UDP" dns_works
	check "64 connections at the same time" together 64
	no_leaks

	check "sessions are shown" says "$POOL4" jool session display --numeric --tcp
	gateway_down
}

run own
run foreign
