#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Hops and ICMP errors: the gateway is one router on the path, no more and no less.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

hops() { # NAMESPACE ADDRESS: one line a hop, the address or *
	in_ns "$1" traceroute -n -q 1 -w 2 -m 8 "$2" | awk 'NR > 1 { print $2 }'
}

icmp_error() { client timeout "$LIMIT" $PYTHON "$HERE/udp.py" error "$@"; }

hop_counts() {
	local path
	path=$(hops client $BEYOND6 | paste -sd ' ')
	check "traceroute: gateway, router, host" \
		equal "$path" "2001:db8:6::1 64:ff9b::cb00:7102 64:ff9b::c633:6402"

	watch hops-six-four server s0 "icmp[icmptype] == icmp-echo" -Q in -v
	check "ping with hop limit 10" ping_ok client $SERVER6 -t 10
	check "ping with the hop limit that just suffices" ping_ok client $BEYOND6 -t 3
	check "one hop less does not" not ping_ok client $BEYOND6 -t 2
	watch_end hops-six-four
	check "exactly one hop is taken, 6 to 4" \
		equal "$(grep -o 'ttl [0-9]*' "$WORK/hops-six-four.seen" | sort | uniq | paste -sd,)" \
		"ttl 1,ttl 2,ttl 9"
	check "exactly one hop is taken, 4 to 6" says 'ttl=63' client ping -n -c 1 -W 2 $SERVER6
	check "hop limit 1: the gateway's error" \
		says '^3 0 0 2001:db8:6::1$' icmp_error $SERVER6 9 40 1

	jool bib add $CLIENT6#61033 "$POOL4#61033" --udp
	path=$(server traceroute -n -q 1 -w 2 -m 5 -U -p 61033 "$POOL4" | awk 'NR > 1 { print $2 }' | paste -sd ' ')
	check "traceroute from the IPv4 side: gateway, host" equal "$path" "203.0.113.1 $POOL4"
}

refused() { # curl says 7 when it could not connect, 28 when nothing answered
	local status=0
	client curl -gsS -m 3 "http://[$SERVER6]:81/" || status=$?
	equal $status 7
}

translated_errors() {
	check "port unreachable" says '^1 4 0 64:ff9b::cb00:7102$' icmp_error $SERVER6 9 40
	ip -n "$PREFIX-server" route add unreachable 198.51.100.99
	check "host unreachable" says '^1 0 0 64:ff9b::cb00:7102$' icmp_error 64:ff9b::198.51.100.99 9 40
	ip -n "$PREFIX-server" route add prohibit 198.51.100.98
	check "administratively prohibited" says '^1 1 0 64:ff9b::cb00:7102$' icmp_error 64:ff9b::198.51.100.98 9 40
	check "time exceeded at a router beyond" says '^3 0 0 64:ff9b::cb00:7102$' icmp_error $BEYOND6 9 40 2
	check "fragmentation needed becomes packet too big, 20 octets more" \
		says '^2 0 1420 64:ff9b::cb00:7102$' icmp_error $BEYOND6 9 1452
	check "a TCP connection to a closed port is refused at once" \
		refused
}

# Each with a fresh network, for the kernels remember path MTUs.  The receiving ends offer an MSS as
# if the small link were further away, or TCP would not notice it.
small_link_beyond() {
	ip -n "$PREFIX-beyond" route replace default via 198.51.100.1 advmss 1460
	random_file data 5000000
	http_server beyond
	check "upload through a 1400 octet link of another router" upload_equals data $BEYOND6
	check "the client has learnt the MTU" \
		says 'mtu 1420' client ip -6 route get 64:ff9b::198.51.100.2
	check "download through it" download_equals data $BEYOND6
}

small_link_v4() {
	ip -n "$PREFIX-gw" link set g4 mtu 1400
	ip -n "$PREFIX-server" link set s0 mtu 1400
	ip -n "$PREFIX-server" route replace 203.0.113.0/24 dev s0 src $SERVER4 advmss 1460
	ip -n "$PREFIX-server" route replace default via 203.0.113.1 advmss 1460
	random_file data 5000000
	http_server server
	check "upload through the gateway's own 1400 octet link" upload_equals data
	check "the client has learnt the MTU" \
		says 'mtu 1420' client ip -6 route get 64:ff9b::203.0.113.2
	check "packet too big from the gateway itself, about what it reinjected" \
		says '^2 0 1420 ' icmp_error $SERVER6 9 1452
}

small_link_v6() {
	ip -n "$PREFIX-gw" link set g6 mtu 1280
	ip -n "$PREFIX-client" link set c0 mtu 1280
	ip -n "$PREFIX-client" -6 route replace default via 2001:db8:6::1 advmss 1440
	random_file data 5000000
	http_server server
	watch too-big server s0 'icmp[icmptype] == icmp-unreach and icmp[icmpcode] == 4' -Q in
	check "download through a 1280 octet link" download_equals data
	watch_end too-big
	check "the IPv4 server was told 1260" seen too-big "$SERVER4.*need to frag \(mtu 1260\)"
	check "and remembers it" says 'mtu 1260' server ip route get "$POOL4"
	check "UDP of 3000 octets both ways" bulk_udp
	check "upload" upload_equals data
}

bulk_udp() {
	udp_echo server 7000
	client $PYTHON "$HERE/udp.py" ask $SERVER6 7000 3000
}

for variant in own foreign; do
	for part in hop_counts translated_errors small_link_beyond small_link_v4 small_link_v6; do
		echo "--- $part"
		gateway_up $variant
		$part
		gateway_down
	done
done
