#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Stateless translation on Debian's own kernel, with nftables' own `queue`: the most important cases.
if [ -z "${TYLO_GUEST:-}" ]; then
	here=$(dirname "$(readlink -f "$0")")
	exec "$here/../../tools/guest" "$here/92-siit-native.sh"
fi

. "$(dirname "$(readlink -f "$0")")/siit.sh"

for plan in pool6 eam; do
	siit_up $plan
	check "the log says native" grep -q native "$WORK/daemon.$STARTS.log"
	# The kernel's own complaints about what was reinjected have to be translated, too.
	set_mtu gw g4 1400
	set_mtu r4 outer 1400
	ip -n "$PREFIX-six" -6 route replace default via "$R6_INNER" advmss 1440
	ip -n "$PREFIX-four" route replace default via 203.0.113.1 advmss 1460
	for ns in six four; do
		http_server $ns
		udp_echo $ns 7000
	done
	random_file data 3000000
	check "ping from IPv6" ping_ok six $FOUR6
	check "ping from IPv4" ping_ok four $SIX4
	check "upload from IPv6 through a small link" send_equals six $FOUR6 data
	check "upload from IPv4" send_equals four $SIX4 data
	check "4000 octets over UDP from IPv6" ask six $FOUR6 4000
	check "4000 octets over UDP from IPv4" ask four $SIX4 4000
	check "traceroute from IPv4" equal "$(hops four $SIX4)" "203.0.113.1 192.0.2.1 $R6_IN4 $SIX4"
	check "the gateway's own address answers" ping_ok four 192.0.2.1
	gateway_down
done
