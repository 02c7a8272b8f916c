#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A campus: two NAT64 instances that share the IPv4 Internet by halves, each with its own pool4, and
# a stateless one that shows an inside server to IPv4; the administrator's rules choose.
#
#   client --(IPv6)-- gw --(IPv4)-- server --(IPv4)-- beyond     203.0.113.2, 198.51.100.2: upper half
#   inside --(IPv6)--/                    \--(IPv4)-- low        100.64.1.2: lower half
. "$(dirname "$(readlink -f "$0")")/lib.sh"

LOWER6=64:ff9b::100.64.1.2
LOWER_POOL4=192.0.2.1 UPPER_POOL4=192.0.2.2
INSIDE6=2001:db8:7::80 INSIDE4=192.0.2.80
TO_INSIDE=2001:db8:46:: # what stands before the addresses of hosts outside

jool_siit() { timeout "$LIMIT" ip netns exec "$PREFIX-gw" "$BIN/jool_siit" "$@"; }
nft_rules() { gw "$REPO/tools/nft-rules" "$@"; }

campus_up() {
	network_up
	add_namespace low
	add_namespace inside
	add_link server s2 low l0
	add_link gw gi inside i0
	ip -n "$PREFIX-server" addr add 100.64.1.1/24 dev s2
	ip -n "$PREFIX-low" addr add 100.64.1.2/24 dev l0
	ip -n "$PREFIX-low" route add default via 100.64.1.1
	ip -n "$PREFIX-gw" route add 100.64.0.0/16 via $SERVER4
	ip -n "$PREFIX-gw" addr add 2001:db8:7::1/64 dev gi nodad
	ip -n "$PREFIX-inside" addr add $INSIDE6/64 dev i0 nodad
	ip -n "$PREFIX-inside" -6 route add default via 2001:db8:7::1
	must "the daemon gets ready" daemon_start
	must "three instances are accepted" instances
}

instances() {
	local protocol
	jool -i lower instance add --iptables --pool6 64:ff9b::/96 || return
	jool -i upper instance add --iptables --pool6 64:ff9b::/96 || return
	for protocol in tcp udp icmp; do
		jool -i lower pool4 add --$protocol $LOWER_POOL4 $LOW-65535 || return
		jool -i upper pool4 add --$protocol $UPPER_POOL4 $LOW-65535 || return
	done
	jool_siit -i campus instance add --iptables --pool6 $TO_INSIDE/96 || return
	jool_siit -i campus eamt add $INSIDE6/128 $INSIDE4/32
}

success() { # jool|jool_siit INSTANCE
	"$1" -i "$2" stats display --all | sed -n 's/^JSTAT_SUCCESS: //p'
}

peer() { # NAMESPACE HOST
	in_ns "$1" curl -gsS --fail -m 10 "http://$2:8080/peer"
}

ask() { # NAMESPACE HOST SIZE
	in_ns "$1" $PYTHON "$HERE/udp.py" ask "$2" 7000 "$3"
}

halves() { # NAMESPACE
	check "$1: ping into the lower half" ping_ok "$1" $LOWER6
	check "$1: ping into the upper half" ping_ok "$1" $SERVER6
	check "$1: the lower half sees the lower pool4" says "^(::ffff:)?$LOWER_POOL4 6[1-5]" peer "$1" "[$LOWER6]"
	check "$1: the upper half sees the upper pool4" says "^(::ffff:)?$UPPER_POOL4 6[1-5]" peer "$1" "[$SERVER6]"
	check "$1: UDP into the lower half" ask "$1" $LOWER6 1000
	check "$1: UDP into the upper half" ask "$1" $SERVER6 1000
}

echo "--- without rules"
campus_up
for ns in client inside low server beyond; do
	http_server $ns
	udp_echo $ns 7000
done
random_file big 20000000
watch leaks uplink u0 'net 64:ff9b::/96 or net 2001:db8:46::/96' -Q in
watch foreign server s0 "not arp and not (ip6 and (src net fe80::/10 or src host ::)) and not \
(ip and (src host $INSIDE4 or (src host $LOWER_POOL4 and dst net 0.0.0.0/1) or \
(src host $UPPER_POOL4 and dst net 128.0.0.0/1) or src host 203.0.113.1))" -Q in
check "nothing is translated from IPv4" not ping_ok server $INSIDE4
check "and nothing to IPv4" not ping_ok client $SERVER6
check "no instance has seen anything" equal \
	"$(success jool lower) $(success jool upper) $(success jool_siit campus)" "0 0 0"

echo "--- with rules"
must "the halves' rules are accepted" nft_rules install halves
must "the stateless ones are" nft_rules install siit --instance campus
check "the queues are those of the instances" says "^halves: .*nat64 'upper'" nft_rules status
for ns in client gw; do halves $ns; done
check "UDP in fragments, lower half" ask client $LOWER6 4000
check "UDP in fragments, upper half" ask client $SERVER6 4000
check "download, lower half" download_equals big $LOWER6
check "upload, lower half" upload_equals big $LOWER6
check "download, upper half" download_equals big $SERVER6
check "upload through a small link, upper half" upload_equals big "$BEYOND6"

echo "--- the stateless instance"
before="$(success jool lower) $(success jool upper)"
check "ping from outside" ping_ok server $INSIDE4
check "the inside server sees who it is" says "^2001:db8:46::cb00:7102 " peer server $INSIDE4
at=$(success jool_siit campus)
check "4000 octets over UDP from outside" ask beyond $INSIDE4 4000
check "in fragments that nobody put together" between "$(($(success jool_siit campus) - at))" 6 20
check "the others took nothing of it" equal "$(success jool lower) $(success jool upper)" "$before"
jool -i upper bib add $CLIENT6#8080 $UPPER_POOL4#62080 --tcp
check "a static mapping of the upper half" server curl -gsS --fail -m 10 -o /dev/null "http://$UPPER_POOL4:62080/peer"

echo "--- complaints of the gateway's kernel"
ip -n "$PREFIX-gw" link set g6 mtu 1400
ip -n "$PREFIX-client" -6 route replace default via 2001:db8:6::1 advmss 1440
check "download through a small link, upper half" download_equals big $SERVER6
check "download through a small link, lower half" download_equals big $LOWER6

echo "--- killed and back"
daemon_kill
check "nothing is translated" not ping_ok client $SERVER6
must "the daemon starts again" daemon_start
halves client
check "ping from outside" ping_ok server $INSIDE4

watch_end leaks
watch_end foreign
check "nothing untranslated left" nothing_seen leaks
check "nothing came with a foreign address" nothing_seen foreign
gateway_down
