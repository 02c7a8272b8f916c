#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Stateless translation: the MTU of a path is found in either domain, wherever the small link is.
. "$(dirname "$(readlink -f "$0")")/siit.sh"

# Each with a fresh network, for the kernels remember path MTUs. The hosts offer an MSS as if the
# small link were far away, or TCP would not notice it.
small_link() { # NS1 DEVICE1 NS2 DEVICE2 MTU
	echo "--- $PLAN: $5 octets between $1 and $3"
	set_mtu "$1" "$2" "$5"
	set_mtu "$3" "$4" "$5"
	ip -n "$PREFIX-six" -6 route replace default via "$R6_INNER" advmss 1440
	ip -n "$PREFIX-four" route replace default via 203.0.113.1 advmss 1460
	http_server six
	http_server four
	udp_echo six 7000
	udp_echo four 7000
	random_file data 3000000
	check "upload from IPv6" send_equals six $FOUR6 data
	check "upload from IPv4" send_equals four $SIX4 data
	check "3000 octets over UDP from IPv6" ask six $FOUR6 3000
	check "3000 octets over UDP from IPv4" ask four $SIX4 3000
}

learnt() { # NAMESPACE ADDRESS MTU
	check "$1 has learnt the MTU" says "mtu $3" in_ns "$1" ip route get "$2"
}

for plan in pool6 eam; do
	for mtu in 1280 1400; do
		siit_up $plan
		small_link r4 inner four f0 $mtu
		learnt six $FOUR6 $((mtu + 20))
		gateway_down

		siit_up $plan
		small_link six s0 r6 inner $mtu
		learnt four $SIX4 $((mtu - 20))
		gateway_down

		# The gateway's own kernel complains about what it forwards.
		siit_up $plan
		small_link gw g4 r4 outer $mtu
		learnt six $FOUR6 $((mtu + 20))
		gateway_down

		siit_up $plan
		small_link gw g6 r6 outer $mtu
		learnt four $SIX4 $((mtu - 20))
		gateway_down
	done
done
