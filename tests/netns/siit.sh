# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# What the end-to-end tests of stateless translation share.
#
#   six --(IPv6)-- r6 --(IPv6)-- gw --(IPv4)-- r4 --(IPv4)-- four
#
# Two plans of addresses. "pool6": the IPv6 addresses are those that 2001:db8:100::/96 makes of IPv4
# addresses. "eam": a table maps 2001:db8:6::/120 to 198.51.100.0/24 and 2001:db8:4::/120 to
# 203.0.113.0/24; the addresses of the routers have no translation.
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib.sh"

PLAN=
SIX6='' SIX4='' FOUR6='' FOUR4='' # each host as it is called on either side
R6_IN4='' R4_IN6=''               # each router as the other side sees it

six() { in_ns six "$@"; }
four() { in_ns four "$@"; }
jool_siit() { timeout "$LIMIT" ip netns exec "$PREFIX-gw" "$BIN/jool_siit" "$@"; }

addresses() { # pool6|eam
	PLAN=$1
	FOUR4=203.0.113.8 SIX4=198.51.100.8
	case $1 in
	pool6)
		SIX6=2001:db8:100::198.51.100.8 FOUR6=2001:db8:100::203.0.113.8
		SIX_NET=2001:db8:100::198.51.100.0/120 R6_INNER=2001:db8:100::198.51.100.1
		R6_OUTER=2001:db8:100::198.51.101.2 GW6=2001:db8:100::198.51.101.1
		TO_FOUR=2001:db8:100::/96
		R6_IN4=198.51.101.2 R4_IN6=2001:db8:100::c000:202
		;;
	eam)
		SIX6=2001:db8:6::8 FOUR6=2001:db8:4::8
		SIX_NET=2001:db8:6::/120 R6_INNER=2001:db8:6::1
		R6_OUTER=2001:db8:e::2 GW6=2001:db8:e::1
		TO_FOUR=2001:db8:4::/120
		# The gateway's own addresses stand for those that have no translation (RFC 6791).
		R6_IN4=192.0.2.1 R4_IN6=2001:db8:e::1
		;;
	esac
}

siit_network_up() {
	local ns
	for ns in six r6 gw r4 four; do add_namespace $ns; done
	add_link six s0 r6 inner
	add_link r6 outer gw g6
	add_link gw g4 r4 outer
	add_link r4 inner four f0
	ip -n "$PREFIX-six" addr add "$SIX6/120" dev s0 nodad
	ip -n "$PREFIX-r6" addr add "$R6_INNER/120" dev inner nodad
	ip -n "$PREFIX-r6" addr add "$R6_OUTER/120" dev outer nodad
	ip -n "$PREFIX-gw" addr add "$GW6/120" dev g6 nodad
	ip -n "$PREFIX-gw" addr add 192.0.2.1/24 dev g4
	ip -n "$PREFIX-r4" addr add 192.0.2.2/24 dev outer
	ip -n "$PREFIX-r4" addr add 203.0.113.1/24 dev inner
	ip -n "$PREFIX-four" addr add $FOUR4/24 dev f0
	for ns in r6 gw r4; do
		in_ns $ns sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
	done
	ip -n "$PREFIX-six" -6 route add default via "$R6_INNER"
	ip -n "$PREFIX-r6" -6 route add "$TO_FOUR" via "$GW6"
	ip -n "$PREFIX-gw" -6 route add "$SIX_NET" via "$R6_OUTER"
	ip -n "$PREFIX-gw" route add 203.0.113.0/24 via 192.0.2.2
	ip -n "$PREFIX-r4" route add 198.51.100.0/23 via 192.0.2.1
	ip -n "$PREFIX-four" route add default via 203.0.113.1
}

siit_configure() {
	case $PLAN in
	pool6) jool_siit instance add --pool6 2001:db8:100::/96 ;;
	eam)
		jool_siit instance add || return
		jool_siit eamt add 2001:db8:6::/120 198.51.100.0/24 || return
		jool_siit eamt add 203.0.113.0/24 2001:db8:4::/120
		;;
	esac
}

siit_up() { # pool6|eam [OPTION of tylod...]
	echo "--- addresses by $1"
	addresses "$1"
	shift
	siit_network_up
	must "the daemon gets ready" daemon_start "$@"
	must "an instance is accepted" siit_configure
}

url() { # HOST NAME
	case $1 in
	*:*) echo "http://[$1]:8080/$2" ;;
	*) echo "http://$1:8080/$2" ;;
	esac
}

fetch_equals() { # NAMESPACE HOST NAME
	local got=$WORK/got.$1
	rm -f "$got"
	in_ns "$1" curl -gsS --fail -m 120 -o "$got" "$(url "$2" "$3")" && cmp "$got" "$WORK/files/$3"
}

send_equals() { # NAMESPACE HOST NAME
	local reply
	reply=$(in_ns "$1" curl -gsS --fail -m 120 -T "$WORK/files/$3" "$(url "$2" upload)") || return
	[ "$reply" = "$(sum "$WORK/files/$3")" ]
}

ask() { # NAMESPACE ADDRESS SIZE
	in_ns "$1" $PYTHON "$HERE/udp.py" ask "$2" 7000 "$3"
}

icmp_error() { # NAMESPACE ADDRESS PORT SIZE [HOPS]
	local ns=$1
	shift
	in_ns "$ns" timeout "$LIMIT" $PYTHON "$HERE/udp.py" error "$@"
}

hops() { # NAMESPACE ADDRESS [OPTION...]: the addresses on the way, or *
	local ns=$1 address=$2
	shift 2
	in_ns "$ns" traceroute -n -q 1 -w 2 -m 8 "$@" "$address" | awk 'NR > 1 { print $2 }' | paste -sd ' '
}

set_mtu() { # NAMESPACE DEVICE MTU
	ip -n "$PREFIX-$1" link set "$2" mtu "$3"
}

# 464XLAT: an IPv4-only host behind a stateless translator, a stateful one beyond.
#
#   phone --(IPv4)-- clat --(IPv6)-- gw --(IPv4)-- server --(IPv4)-- beyond
#   192.168.1.8      .1              the PLAT      203.0.113.2        198.51.100.2
xlat_network_up() {
	local ns
	for ns in phone clat gw server beyond; do add_namespace $ns; done
	add_link phone p0 clat cp
	add_link clat cu gw g6
	add_link gw g4 server s0
	add_link server s1 beyond b0
	ip -n "$PREFIX-phone" addr add 192.168.1.8/24 dev p0
	ip -n "$PREFIX-clat" addr add 192.168.1.1/24 dev cp
	ip -n "$PREFIX-clat" addr add 2001:db8:6::2/64 dev cu nodad
	ip -n "$PREFIX-gw" addr add 2001:db8:6::1/64 dev g6 nodad
	ip -n "$PREFIX-gw" addr add 203.0.113.1/24 dev g4
	ip -n "$PREFIX-server" addr add $SERVER4/24 dev s0
	ip -n "$PREFIX-server" addr add 198.51.100.1/24 dev s1
	ip -n "$PREFIX-beyond" addr add 198.51.100.2/24 dev b0
	for ns in clat gw server; do
		in_ns $ns sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
	done
	ip -n "$PREFIX-phone" route add default via 192.168.1.1
	ip -n "$PREFIX-clat" -6 route add default via 2001:db8:6::1
	ip -n "$PREFIX-gw" -6 route add 2001:db8:464::/120 via 2001:db8:6::2
	ip -n "$PREFIX-gw" route add 198.51.100.0/24 via $SERVER4
	ip -n "$PREFIX-beyond" route add default via 198.51.100.1
}
