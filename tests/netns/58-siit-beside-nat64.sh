#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A stateless and a stateful instance in one gateway: the former sees raw fragments, the latter
# whole packets, and neither takes what is the other's.
. "$(dirname "$(readlink -f "$0")")/siit.sh"

both() {
	siit_configure || return
	jool instance add --pool6 64:ff9b::/96 || return
	local protocol
	for protocol in tcp udp icmp; do jool pool4 add --$protocol 192.0.2.1 61001-65535 || return; done
}

received() { # jool|jool_siit PATTERN
	"$1" stats display --all | sed -n "s/^$2: //p"
}

for plan in pool6 eam; do
	addresses $plan
	siit_network_up
	ip -n "$PREFIX-r6" -6 route add 64:ff9b::/96 via "$GW6"
	echo "--- addresses by $plan"
	must "the daemon gets ready" daemon_start
	must "both instances are accepted" both
	for ns in six four; do
		http_server $ns
		udp_echo $ns 7000
	done
	random_file big 20000000
	stateful=64:ff9b::203.0.113.8

	check "stateless: 4000 octets over UDP from IPv6" ask six $FOUR6 4000
	check "stateless: 4000 octets over UDP from IPv4" ask four $SIX4 4000
	check "the stateless instance saw fragments, not whole packets" \
		between "$(received jool_siit JSTAT_SUCCESS)" 12 40
	check "the stateful instance saw none of them" equal "$(received jool JSTAT_SUCCESS)" 0
	before=$(received jool_siit JSTAT_SUCCESS)
	check "stateful: ping" ping_ok six $stateful
	check "stateful: 4000 octets over UDP" ask six $stateful 4000
	check "the stateful instance saw whole packets" equal "$(received jool JSTAT_SUCCESS)" 8
	check "the server sees pool4's address" says '^(::ffff:)?192.0.2.1 ' \
		six curl -gsS -m 10 "$(url $stateful peer)"
	check "the stateless instance took none of them" equal "$(received jool_siit JSTAT_SUCCESS)" "$before"
	check "stateful: download" fetch_equals six $stateful big
	check "stateful: upload" send_equals six $stateful big
	check "stateless: download" fetch_equals six $FOUR6 big
	check "stateless: upload from IPv4" send_equals four $SIX4 big
	check "both are listed" says '64:ff9b::/96' jool global display
	check "each by its own command" not says '64:ff9b::/96' jool_siit global display
	set_mtu r4 inner 1400
	set_mtu four f0 1400
	ip -n "$PREFIX-four" route replace default via 203.0.113.1 advmss 1460
	check "stateless: upload through a small link" send_equals six $FOUR6 big
	check "stateful: upload through a small link" send_equals six $stateful big
	gateway_down
done
