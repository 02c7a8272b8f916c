#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# MAP-T: Jool's tutorial, as printed but for one wrong range of ports. Two customer edges, behind
# which the kernel translates ports, a border relay and an IPv4 server.
. "$(dirname "$(readlink -f "$0")")/mapt.sh"

# Names and words are the tutorial's.
configure_ce() { # NODE
	jool_mapt "$1" instance add "${NAME[$1]}" --netfilter --dmr 64:ff9b::/96 || return
	jool_mapt "$1" global update end-user-ipv6-prefix "${EUI[$1]}" || return
	# shellcheck disable=SC2086 # words
	jool_mapt "$1" global update bmr $RULE
}

configure_br() {
	jool_mapt br instance add "BR" --netfilter --dmr 64:ff9b::/96 || return
	# shellcheck disable=SC2086 # words
	jool_mapt br fmrt add $RULE
}

# The kernel translates ports, by rules that tylo prints.
configure_napt() { # NUMBER
	tylo_mapt "ce$1" rules -i "${NAME[ce$1]}" --device out --source 192.168.0.0/24 >"$WORK/napt.$1" || return
	in_ns "napt$1" nft -f "$WORK/napt.$1" || return
	in_ns "napt$1" nft -f - <<-NFT
		table ip services {
			chain prerouting {
				type nat hook prerouting priority dstnat; policy accept;
				iifname "out" tcp dport { 55300, 40970 } dnat to 192.168.0.4:8080
			}
		}
	NFT
}

direct() { # a rule for other customers
	# shellcheck disable=SC2086 # words
	jool_mapt ce1 fmrt add $RULE && jool_mapt ce2 fmrt add $RULE
}

mapt_network_up napt
for node in br ce1 ce2; do
	must "the daemon of $node gets ready" mapt_start $node
done
must "the border relay takes its configuration" configure_br
for n in 1 2; do
	must "customer edge $n takes its configuration" configure_ce ce$n
	must "the kernel translates to the ports of customer edge $n" configure_napt $n
done
check "the customer edge has become one" says 'map-t-type: CE' jool_mapt ce1 global display
check "the border relay is one" says 'map-t-type: BR' jool_mapt br global display
check "the ports are those of PSID 27" grep -q 'snat to 192.0.2.8:55296-57343' "$WORK/napt.1"
check "the ports are those of PSID 20" grep -q 'snat to 192.0.2.59:40960-43007' "$WORK/napt.2"

random_file small 3000
random_file large 3000000
http_server server 80
udp_echo server 7000
for n in 1 2; do
	http_server client$n 8080
	check "client $n pings the server" ping_ok client$n $SERVER
	check "client $n fetches a page" fetch client$n small
	check "client $n asks by UDP" ask client$n 100
	check "client $n asks by UDP in fragments" ask client$n 4000
	check "client $n uploads" send client$n large
done
check "both clients download at once" at_once
check "it came in super-packets" between "$(queued super_packets br)" 50 100000

echo "--- paths"
check "a packet too big for IPv6 is told to the client" \
	equal "$(too_big client1 $SERVER 1472)" "3 4 1480 10.0.0.1"
ip -n "$PREFIX-ce1" link set w0 mtu 1380
check "a narrower link is told, too" equal "$(too_big client1 $SERVER 1400)" "3 4 1360 10.0.0.1"
check "a client uploads over the narrow link" send client1 large
ip -n "$PREFIX-ce1" link set w0 mtu 1500
ip -n "$PREFIX-br" link set w0 mtu 1380
check "a client downloads from behind a narrow link" fetch client2 large
ip -n "$PREFIX-br" link set w0 mtu 1500
# The relay answers by IPv6, from an address that no rule knows.
check "traceroute sees the whole way" \
	equal "$(hops client1 $SERVER)" "192.168.0.1 10.0.0.1 10.0.0.1 $SERVER"
jool_mapt ce1 global update rfc6791v4-prefix 198.51.100.7
check "addresses for routers without one are borrowed" \
	equal "$(hops client1 $SERVER)" "192.168.0.1 10.0.0.1 198.51.100.7 $SERVER"
jool_mapt ce1 global update rfc6791v4-prefix null
check "from the other side, too" \
	equal "$(hops server 192.0.2.8 -T -p 55300)" "203.0.113.1 203.0.113.1 192.0.2.8 192.0.2.8"

echo "--- to the customers"
check "the server reaches a port of customer 1" fetch server small http://192.0.2.8:55300
check "the server reaches a port of customer 2" fetch server small http://192.0.2.59:40970
check "customer to customer by way of the relay" fetch client1 small http://192.0.2.59:40970
must "rules for other customers are accepted" direct
check "customer to customer directly" \
	stays br JSTAT_SUCCESS fetch client1 small http://192.0.2.59:40970
check "the other way round, too" stays br JSTAT_SUCCESS fetch client2 small http://192.0.2.8:55300
check "the server is reached as before" at_once

echo "--- what disagrees with the rule"
watch foreign server b0 'udp and host 192.0.2.8' -Q in
check "a foreign port from behind the customer edge is dropped and counted" \
	grows ce1 JSTAT_MAPT_PSID forge napt1 192.0.2.8 1000 $SERVER 7001
check "a foreign port from the customer is dropped by the relay and counted" \
	grows br JSTAT_MAPT_PSID forge ce1 "${MAP6[ce1]}" 1000 64:ff9b::203.0.113.56 7001
check "a foreign port to the customer is dropped by the customer edge and counted" \
	grows ce1 JSTAT_MAPT_PSID forge br 64:ff9b::203.0.113.56 7000 "${MAP6[ce1]}" 1000
watch_end foreign
check "the server saw none of it" nothing_seen foreign
check "a port of the customer's passes" ask client1 10

# The published tutorial's mistake: the ports of PSID 14.
disagree() {
	local port status=0
	for port in 28672 28900 29500 30719; do forge napt2 192.0.2.59 $port $SERVER 7001; done
	tylo_mapt ce2 check -i "CE 774" --seconds 0 >"$WORK/disagree" 2>&1 || status=$?
	cat "$WORK/disagree"
	[ $status = 1 ] && grep -q 'belong to PSID 14' "$WORK/disagree"
}
wild() { # ports of several customers, from one
	local port status=0
	for port in 1000 20000 30000 47000 62000; do
		forge ce1 "${MAP6[ce1]}" $port 64:ff9b::203.0.113.56 7001
	done
	tylo_mapt br check -i BR --seconds 0 >"$WORK/wild" 2>&1 || status=$?
	cat "$WORK/wild"
	[ $status = 1 ] && grep -q 'customers with a port or address that is not theirs (5 samples)' "$WORK/wild"
}
check "customers with foreign ports are found out at the relay" wild
check "nothing disagrees while nothing is wrong" tylo_mapt ce2 check -i "CE 774" --seconds 1
check "translation to the ports of another customer is found out" disagree
check "a customer is explained" says '^PSID +27 ' tylo_mapt ce1 calc -i "CE 11b"

echo "--- killed and started again"
mapt_kill ce1
must "the daemon of ce1 gets ready" mapt_start ce1
check "the configuration is back" says '^2001:db8:ce::/51,192.0.2.0/24,13,0$' \
	jool_mapt ce1 fmrt display --csv --no-headers
check "client 1 fetches a page" fetch client1 large
mapt_kill br
must "the daemon of br gets ready" mapt_start br
check "both clients download at once" at_once
for node in ce1 ce2 br; do
	check "the instance of $node is removed" jool_mapt $node instance remove "${NAME[$node]}"
done
check "nothing passes any more" not fetch client1 small
