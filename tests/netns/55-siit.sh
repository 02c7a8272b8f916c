#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Stateless translation: ping, TCP, UDP, fragments and traceroute from both sides.
. "$(dirname "$(readlink -f "$0")")/siit.sh"

services() {
	local ns
	for ns in six four; do
		http_server $ns
		udp_echo $ns 7000
	done
	random_file big 50000000
}

both_ways() {
	check "ping from IPv6" ping_ok six $FOUR6
	check "ping from IPv4" ping_ok four $SIX4
	check "ping with 1400 octets" ping_ok six $FOUR6 -s 1400
	check "download from IPv6" fetch_equals six $FOUR6 big
	check "upload from IPv6" send_equals six $FOUR6 big
	check "download from IPv4" fetch_equals four $SIX4 big
	check "upload from IPv4" send_equals four $SIX4 big
	check "it came in super-packets" between "$(queued super_packets)" 1000 1000000
	check "each is called by its other name in IPv4" \
		says "^(::ffff:)?$SIX4 " six curl -gsS -m 10 "$(url $FOUR6 peer)"
	check "and in IPv6" says "^$(six $PYTHON -c "import ipaddress; print(ipaddress.ip_address('$FOUR6'))") " \
		four curl -gsS -m 10 "$(url $SIX4 peer)"
	check "4000 octets over UDP from IPv6" ask six $FOUR6 4000
	check "4000 octets over UDP from IPv4" ask four $SIX4 4000
	check "60000 octets over UDP from IPv6" ask six $FOUR6 60000
	check "60000 octets over UDP from IPv4" ask four $SIX4 60000
}

errors() {
	check "traceroute from IPv6" equal "$(hops six $FOUR6)" "$R6_INNER_SHOWN $GW6_SHOWN $R4_IN6 $FOUR6_SHOWN"
	check "traceroute from IPv4" equal "$(hops four $SIX4)" "203.0.113.1 192.0.2.1 $R6_IN4 $SIX4"
	check "port unreachable, to IPv6" says "^1 4 0 $FOUR6_SHOWN\$" icmp_error six $FOUR6 9 40
	check "port unreachable, to IPv4" says "^3 3 0 $SIX4\$" icmp_error four $SIX4 9 40
	check "hop limit 2: the gateway's error" says "^3 0 0 $GW6_SHOWN\$" icmp_error six $FOUR6 9 40 2
	check "time to live 2: the gateway's error" says '^11 0 0 192.0.2.1$' icmp_error four $SIX4 9 40 2
	check "exactly one hop is taken, 6 to 4" says 'ttl=61' six ping -n -c 1 -W 2 $FOUR6
	check "exactly one hop is taken, 4 to 6" says 'ttl=61' four ping -n -c 1 -W 2 $SIX4
}

left_alone() {
	check "the gateway's own IPv4 address answers" ping_ok four 192.0.2.1
	check "its own IPv6 address answers" ping_ok r6 "$GW6"
	check "the host behind the router reaches it, too" ping_ok six "$GW6"
	udp_echo gw 7000
	check "and its programs, over IPv4" ask four 192.0.2.1 4000
	check "and over IPv6" ask six "$GW6" 4000
	check "to no service: port unreachable, as it is" says '^3 3 0 192.0.2.1$' icmp_error four 192.0.2.1 9 40
}

pools_of_sources() {
	jool_siit global update rfc6791v4-prefix 198.18.64.0/24
	jool_siit global update rfc6791v6-prefix 2001:db8:6791::/64
	check "errors of IPv6 routers come from rfc6791v4-prefix" \
		says '^203.0.113.1 192.0.2.1 198.18.64.[0-9]+ ' hops four $SIX4
	check "errors of IPv4 routers come from rfc6791v6-prefix" \
		says " 2001:db8:6791:[0-9a-f:]+ $FOUR6_SHOWN\$" hops six $FOUR6
}

survives() {
	ip netns exec "$PREFIX-six" ping -n -i 0.2 -c 50 -W 1 $FOUR6 >"$WORK/pings" 2>&1 &
	local ping=$!
	sleep 1
	daemon_kill
	check "without the daemon nothing is translated" not ping_ok six $FOUR6
	check "the gateway itself can be reached over IPv4" ping_ok four 192.0.2.1
	check "and over IPv6" ping_ok six "$GW6"
	check "it says that a port is closed, over IPv4" \
		says '^3 3 0 192.0.2.1$' icmp_error four 192.0.2.1 9 40
	check "and over IPv6" says "^1 4 0 $GW6_SHOWN\$" icmp_error six "$GW6" 9 40
	must "the daemon starts again" daemon_start
	check "pings go on after a restart" wait "$ping"
	check "from the other side, too" ping_ok four $SIX4
}

shown() { $PYTHON -c "import ipaddress, sys; print(ipaddress.ip_address(sys.argv[1]))" "$1"; }

for plan in pool6 eam; do
	addresses $plan
	siit_network_up
	network_state >"$WORK/before"
	must "the daemon gets ready" daemon_start
	must "an instance is accepted" siit_configure
	R6_INNER_SHOWN=$(shown "$R6_INNER") GW6_SHOWN=$(shown "$GW6") FOUR6_SHOWN=$(shown $FOUR6)
	echo "--- addresses by $plan"
	services
	both_ways
	errors
	left_alone
	if [ $plan = eam ]; then pools_of_sources; fi
	survives
	must "the daemon stops" daemon_stop
	check "it leaves nothing behind" unchanged "$WORK/before" network_state
	gateway_down
done
