#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Three gateways of which one is behind a router: without multicast, each is told where the others
# are; in Jool's way, multicast goes over the router when its TTL allows that.
#
#   j, k  10.0.0.4, 10.0.0.5 --sync-- 10.0.0.1 r 10.0.1.1 --far-- 10.0.1.6  l
. "$(dirname "$(readlink -f "$0")")/lib.sh"
. "$HERE/cluster.sh"

CONNECTIONS=${CONNECTIONS:-20}
PORT=6500
declare -A ADDRESS=([j]=10.0.0.4 [k]=10.0.0.5 [l]=10.0.1.6)

join_peers() { # NODE
	local other peers=()
	for other in j k l; do [ $other = "$1" ] || peers+=(--peer "${ADDRESS[$other]}:$PORT"); done
	tylo_in "$1" sync set --node "${NODE_NUMBER[$1]}" --key "$KEY" --bind "${ADDRESS[$1]}:$PORT" "${peers[@]}"
}
proxy4() { # NODE TTL
	proxy_start "$1" "$BIN/jool" session proxy --net.mcast.port=6464 --net.dev.in="${ADDRESS[$1]}" \
		--net.dev.out="${ADDRESS[$1]}" --net.ttl="$2" $GROUP4
}
know_each_other() { peers j 5,6 && peers k 4,6 && peers l 4,5; }

cluster_up j k l
ip -n "$PREFIX-net" link add far type bridge mcast_snooping 0
ip -n "$PREFIX-net" link set far up
ip -n "$PREFIX-net" link set l-eth2 master far
add_namespace r
plug r near sync
plug r far far
ip -n "$PREFIX-r" addr add 10.0.0.1/24 dev near
ip -n "$PREFIX-r" addr add 10.0.1.1/24 dev far
in_ns r sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0
ip -n "$PREFIX-l" addr flush dev eth2
ip -n "$PREFIX-l" addr add 10.0.1.6/24 dev eth2
for name in j k; do ip -n "$PREFIX-$name" route add 10.0.1.0/24 via 10.0.0.1; done
ip -n "$PREFIX-l" route add 10.0.0.0/24 via 10.0.1.1
touch "$WORK/kills"
nodes_start j k l

# --- each is told where the others are

check "an address that is not j's" rejects j "$BIN/tylo" sync set --node 4 --key "$KEY" --bind 10.0.0.99:$PORT --peer 10.0.0.5:$PORT
check "is named" grep -q "10\.0\.0\.99" "$WORK/reject.out"
must "j becomes a node" join_peers j
must "and, as it is alone, ready" within 10 ready j
for name in k l; do must "$name becomes a node" join_peers $name; done
for name in k l; do must "$name is ready" within 15 ready $name; done
check "all know each other" within 10 know_each_other
check "and by which addresses" equal "$(status j '[.peers[].address]|sort')" "[\"10.0.0.5:$PORT\",\"10.0.1.6:$PORT\"]"
activate j
lasting_server
lasting_open "$CONNECTIONS"
udp_from 5000 5009
check "what begins at j is told to all" within 10 all_have 5000 5009
icmp=$(sessions j icmp)
must "j deletes a mapping" node j bib remove --udp 2001:db8::8#5000
check "it goes everywhere" within 10 eval 'lacks_udp k 5000 && lacks_udp l 5000'
fail_over j l
check "the ping goes on through l, behind the router" ping_goes_on
check "with the same session" equal "$(sessions l icmp)" "$icmp"
check "l misses j" within 10 peers l 5
udp_from 5010 5019
must "l deletes what j has on disk" node l bib remove --udp 2001:db8::8#5001
must "j starts with an old database, and as a node" node_start j
must "it is ready when it has all" within 30 ready j
check "it has what came meanwhile" within 10 all_have 5010 5019
check "and nothing that was deleted" eval 'lacks_udp j 5000 && lacks_udp j 5001'
check "all know each other again" within 10 know_each_other
fail_over l k
check "the ping goes on through k" ping_goes_on
check "with the same session" equal "$(sessions k icmp)" "$icmp"
must "l comes back" node_start l
must "it is ready when it has all" within 30 ready l
ip -n "$PREFIX-r" link set far down
check "without the router, l is alone" within 10 peers l ""
udp_from 5020 5029
ip -n "$PREFIX-r" link set far up
check "with it, all have everything" within 45 all_have 5010 5029
check "no address has two clients" nothing_shared j k l
touch "$WORK/lasting.end"
check "all connections kept their transport addresses" exit_status 0 "$HOLD"
cat "$WORK/hold.out"
end "$PING"
for name in j k l; do must "$name leaves the cluster" tylo_in $name sync off; done

# --- multicast over a router, in Jool's way

spawn r $PYTHON "$HERE/multicast_router.py" $GROUP4 near "${ADDRESS[j]},${ADDRESS[k]}" far "${ADDRESS[l]}" >"$WORK/router"
must "the router passes multicast on" within 5 grep -q ready "$WORK/router"
must "l exchanges sessions" proxy4 l 2
must "k, too" proxy4 k 2
must "j, too, with a TTL of 1" proxy4 j 1
activate j
udp_from 5100 5109
check "k hears j" within 10 has_udp k 5109
check "l does not" lacks_udp l 5109
end "${PROXY_PID[j]}"
must "j goes on with a TTL of 2" proxy4 j 2
udp_from 5110 5119
check "l hears j" within 10 has_udp l 5119
activate l
udp_from 5120 5129
check "and all hear l" within 10 all_have 5120 5129
