#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Two gateways with Debian's FRR, configured as in docs/examples/frr, and the router that they speak
# BGP with: packets go to the one that it prefers for as long as that is ready, and to the other one
# otherwise; connections survive that.
#
#   n6, n4 --- r 2001:db8::fe, 192.0.2.254 --- j, k
. "$(dirname "$(readlink -f "$0")")/lib.sh"
. "$HERE/cluster.sh"

EXAMPLE=$REPO/docs/examples/frr
DAEMONS=/usr/lib/frr
declare -A BGP_PID=() ROUTE_PID=()

frr_daemon() { # NODE DAEMON [OPTION...]
	local dir=$WORK/frr-$1 node=$1 daemon=$2
	shift 2
	rm -f "$dir/$daemon.vty"
	spawn "$node" "$DAEMONS/$daemon" -u frr -g frr -f "$dir/empty" -i "$dir/$daemon.pid" -z "$dir/zserv.api" \
		--vty_socket "$dir" -P 0 "$@" >>"$dir/log" 2>&1
	within 10 test -S "$dir/$daemon.vty"
}
# vtysh as the example calls it.
vty() { # NODE ARGUMENT...
	local node=$1
	shift
	in_ns "$node" "$WORK/frr-$node/bin/vtysh" "$@"
}
frr_start() { # NODE
	local dir=$WORK/frr-$1
	install -d -o frr -g frr "$dir" "$dir/bin"
	install -o frr -g frr -m 640 /dev/null "$dir/empty"
	printf '#!/bin/sh\nexec %s --vty_socket %s "$@"\n' "$(command -v vtysh)" "$dir" >"$dir/bin/vtysh"
	chmod 755 "$dir/bin/vtysh"
	frr_daemon "$1" zebra && frr_daemon "$1" bfdd --bfdctl "$dir/bfdd.sock" && bgp_start "$1"
}
bgp_start() { # NODE
	frr_daemon "$1" bgpd || return
	BGP_PID[$1]=$SPAWNED
	vty "$1" -f "$WORK/frr-$1/frr.conf"
}
# The example, with what differs between nodes.
gateway_conf() { # NODE
	install -d "$WORK/frr-$1"
	sed "s,gateway-j,gateway-$1,; s,router-id 10\.0\.0\.4,router-id 10.0.0.${NODE_NUMBER[$1]}," "$EXAMPLE/frr.conf" \
		>"$WORK/frr-$1/frr.conf"
}
router_conf() {
	local address
	install -d "$WORK/frr-r"
	cat <<-END >"$WORK/frr-r/frr.conf"
		route-map j permit 10
		 set local-preference 200
		exit
		route-map k permit 10
		 set local-preference 100
		exit
		router bgp 64500
		 bgp router-id 192.0.2.254
		 no bgp ebgp-requires-policy
		$(for address in 192.0.2.4 192.0.2.5 2001:db8::4 2001:db8::5; do
			printf ' neighbor %s %s\n' $address 'remote-as 64512' $address bfd $address 'timers connect 1'
		done)
		 address-family ipv4 unicast
		  neighbor 192.0.2.4 route-map j in
		  neighbor 192.0.2.5 route-map k in
		  no neighbor 2001:db8::4 activate
		  no neighbor 2001:db8::5 activate
		 exit-address-family
		 address-family ipv6 unicast
		  neighbor 2001:db8::4 activate
		  neighbor 2001:db8::4 route-map j in
		  neighbor 2001:db8::5 activate
		  neighbor 2001:db8::5 route-map k in
		 exit-address-family
		exit
		bfd
		 profile gateway
		  detect-multiplier 3
		  receive-interval 100
		  transmit-interval 100
		 exit
		$(for address in 192.0.2.4 192.0.2.5 2001:db8::4 2001:db8::5; do
			printf ' peer %s\n  profile gateway\n exit\n' $address
		done)
		exit
	END
}
# What the unit runs.
route_start() { # NODE
	spawn "$1" env PATH="$WORK/frr-$1/bin:$PATH" sh "$EXAMPLE/tylo-route" >"$WORK/frr-$1/route" 2>&1
	ROUTE_PID[$1]=$SPAWNED
}
route_stop() { # NODE
	end "${ROUTE_PID[$1]}"
	in_ns "$1" env PATH="$WORK/frr-$1/bin:$PATH" sh "$EXAMPLE/tylo-route" stop
}
next_hop6() { ip -n "$PREFIX-r" -6 route show 64:ff9b::/96 | sed -n 's/.* via \([^ ]*\).*/\1/p'; }
leads_to() { # NODE: both routes of the router, and to no other
	local n=${NODE_NUMBER[$1]}
	equal "$(ip -n "$PREFIX-r" route show 192.0.2.1 | grep -o 'via [^ ]*')" "via 192.0.2.$n" &&
		equal "$(ip -n "$PREFIX-r" -6 neigh show "$(next_hop6)" dev eth0 | grep -o 'lladdr [^ ]*')" \
			"lladdr $(in_ns "$1" cat /sys/class/net/eth0/address)"
}
no_routes() {
	equal "$(ip -n "$PREFIX-r" route show 192.0.2.1)" "" && equal "$(next_hop6)" ""
}
routed() { # NODE: asks who has the next hop, as the router does for a packet
	in_ns r ping -q -c 1 -W 1 -I eth0 "$(next_hop6)"
	leads_to "$1"
}
unit_is_fine() {
	mkdir -p "$WORK/units"
	sed "s,/usr/libexec/tylo-route,$EXAMPLE/tylo-route," "$EXAMPLE/tylo-route.service" >"$WORK/units/tylo-route.service"
	printf '[Service]\nExecStart=/bin/true\n' | tee "$WORK/units/tylod.service" >"$WORK/units/frr.service"
	SYSTEMD_UNIT_PATH=$WORK/units: systemd-analyze verify --man=no "$WORK/units/tylo-route.service"
}

cluster_up j k
add_namespace r
plug r eth0 v6
plug r eth1 v4
ip -n "$PREFIX-r" addr add 2001:db8::fe/96 dev eth0 nodad
ip -n "$PREFIX-r" addr add 192.0.2.254/24 dev eth1
in_ns r sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0 \
	net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth1.send_redirects=0
# All are on one link, and the router is not to be gone round.
in_ns n6 sysctl -qw net.ipv6.conf.all.accept_redirects=0 net.ipv6.conf.eth0.accept_redirects=0
ip -n "$PREFIX-n6" -6 route replace 64:ff9b::/96 via 2001:db8::fe
ip -n "$PREFIX-n4" route add 192.0.2.1/32 via 192.0.2.254
nodes_start j k
nodes_join j k
for name in j k; do gateway_conf $name; done
router_conf
for name in r j k; do must "$name: FRR takes its configuration" frr_start $name; done
check "the unit is accepted" unit_is_fine
for name in j k; do must "$name is ready" within 15 ready $name; done

# --- who is ready is routed to

established() { equal "$(vty j -c 'show bgp summary json' | jq -c '[.. | .state? // empty] | unique')" '["Established"]'; }
check "nobody is before the script says so" no_routes
route_start k
must "with it, packets go to k" within 30 routed k
route_start j
must "they go to j, which the router prefers" within 30 routed j
check "all sessions of BGP are there" within 10 established
spawn n4 $PYTHON "$HERE/lasting.py" serve 7000
must "a server listens in n4" within 10 listens n4 7000
ping_start
must "a ping is answered" ping_goes_on
spawn n6 $PYTHON "$HERE/steady.py" $N4 7000 "$WORK/steady" >"$WORK/steady.out" 2>&1
STEADY=$SPAWNED
must "two TCP connections are open" within 10 test -e "$WORK/steady.open"
check "k has the ping" within 5 same_sessions j k icmp
icmp=$(sessions j icmp)

# --- j's daemon dies, its machine does not

node_kill j
check "packets go to k" within 15 routed k
check "the ping goes on" ping_goes_on
check "with the same session" equal "$(sessions k icmp)" "$icmp"
ip -n "$PREFIX-net" link set j-eth2 down
must "j's daemon starts, but cannot hear k" node_start j
check "it is not ready" not ready j
check "packets go to k still" leads_to k
ip -n "$PREFIX-net" link set j-eth2 up
must "j is ready when it has heard k" within 15 ready j
check "then packets go to j" within 30 routed j
check "the ping goes on" ping_goes_on
check "with the same session" equal "$(sessions j icmp)" "$icmp"

# --- BGP starts anew, which begins with silence

kill -KILL "${BGP_PID[j]}"
wait "${BGP_PID[j]}" 2>/dev/null || true
check "packets go to k when j does not speak BGP" within 15 routed k
must "bgpd starts anew" bgp_start j
check "packets go to j again" within 30 routed j

# --- the service is stopped

check "the script ends" route_stop j
check "packets go to k" within 15 routed k
route_start j
check "it begins again, and they go to j" within 30 routed j

# --- j's machine dies, and says nothing

for device in eth0 eth1 eth2; do ip -n "$PREFIX-net" link set j-$device down; done
node_kill j
check "packets go to k at once, not when BGP misses j" within 10 leads_to k
check "the ping goes on" ping_goes_on
check "with the same session" equal "$(sessions k icmp)" "$icmp"
touch "$WORK/steady.end"
check "the connections end in order" exit_status 0 "$STEADY"
echo "longest silence of the busy connection: $(cat "$WORK/steady.out") ms"
end "$PING"
for name in j k; do end "${ROUTE_PID[$name]}"; done
[ "$FAILURES" = 0 ] || { tail -n 20 "$WORK"/frr-*/log "$WORK"/frr-*/route; vty r -c 'show bgp summary' -c 'show bfd peers brief' -c 'show ip route' -c 'show ipv6 route'; }
