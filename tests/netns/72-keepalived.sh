#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Two gateways with Debian's keepalived, configured as in docs/examples/keepalived: whoever is ready
# becomes active; a connection survives the death of the active one; who comes back waits until it
# has all sessions.
. "$(dirname "$(readlink -f "$0")")/lib.sh"
. "$HERE/cluster.sh"

EXAMPLE=$REPO/docs/examples/keepalived
declare -A VRRP_PID=()

# The example, with what differs between nodes and paths of this test.
vrrp_start() { # NODE PRIORITY
	local dir=$WORK/keepalived-$1
	mkdir -p "$dir"
	printf '#!/bin/sh\necho "$@" >>%s/states\n' "$dir" >"$dir/notify"
	chmod 755 "$dir/notify"
	sed -e "s,gateway-j,gateway-$1,; s,priority 200,priority $2,; s,/usr/bin/tylo ,$BIN/tylo ,
		s,/etc/keepalived/tylo-notify,$dir/notify," "$EXAMPLE/keepalived.conf" >"$dir/keepalived.conf"
	in_ns "$1" keepalived -t -f "$dir/keepalived.conf" || return
	spawn "$1" keepalived --dont-fork --log-console --log-detail --vrrp -f "$dir/keepalived.conf" \
		-p "$dir/pid" -r "$dir/vrrp.pid" >"$dir/log" 2>&1
	VRRP_PID[$1]=$SPAWNED
}
# Not `grep -q`: it would leave before all is written.
active() { # NODE: has both virtual addresses
	ip -n "$PREFIX-$1" addr show dev eth0 | grep 'inet6 2001:db8::1/' >/dev/null &&
		ip -n "$PREFIX-$1" addr show dev eth1 | grep 'inet 192.0.2.1/' >/dev/null
}
passive() { # NODE: has none of them
	! ip -n "$PREFIX-$1" addr | grep -E 'inet6 2001:db8::1/|inet 192.0.2.1/' >/dev/null
}

cluster_up j k
nodes_start j k
nodes_join j k
must "the example is accepted" vrrp_start j 200
must "in k, too" vrrp_start k 100
must "j becomes active" within 20 active j
check "k does not" passive k
check "j was told" within 5 grep -q 'GROUP.*gateway.*MASTER' "$WORK/keepalived-j/states"
spawn n4 $PYTHON "$HERE/lasting.py" serve 7000
must "a server listens in n4" within 10 listens n4 7000
spawn n6 $PYTHON "$HERE/steady.py" $N4 7000 "$WORK/steady" >"$WORK/steady.out" 2>&1
STEADY=$SPAWNED
must "two TCP connections are open" within 20 test -e "$WORK/steady.open"
must "both appear in k" within 5 same_sessions j k tcp
tcp=$(sessions j tcp)

# --- the daemon of the active node dies; its machine does not

node_kill j
check "k becomes active" within 15 active k
check "j gives up its addresses" within 5 passive j
check "k was told" within 5 grep -q 'GROUP.*gateway.*MASTER' "$WORK/keepalived-k/states"
sleep 1
check "the connections have the same transport addresses" equal "$(sessions k tcp | cut -d , -f 1-9)" "$(cut -d , -f 1-9 <<<"$tcp")"

# --- it comes back without the others, and must not become active

ip -n "$PREFIX-net" link set j-eth2 down
must "j's daemon starts anew" node_start j
check "j does not become active" passive j
ip -n "$PREFIX-net" link set j-eth2 up
must "j is ready when it has heard k" within 15 ready j
check "k stays active" active k

# --- the whole machine of the active node dies

kill -KILL "${VRRP_PID[k]}" "$(cat "$WORK/keepalived-k/vrrp.pid")" 2>/dev/null || true
ip -n "$PREFIX-net" link set k-eth0 down
ip -n "$PREFIX-net" link set k-eth1 down
ip -n "$PREFIX-net" link set k-eth2 down
node_kill k
check "j becomes active" within 15 active j
sleep 2
touch "$WORK/steady.end"
check "the connections end in order" exit_status 0 "$STEADY"
echo "longest silence of the busy connection: $(cat "$WORK/steady.out") ms"
[ "$FAILURES" = 0 ] || tail -n 20 "$WORK"/keepalived-*/log
end "${VRRP_PID[j]}"
