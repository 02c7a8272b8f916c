# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Sourced after lib.sh: gateways that share their sessions, as in Jool's tutorial.
#
#   n6 --(IPv6)-- J, K, L --(IPv4)-- n4        each gateway: eth0 IPv6, eth1 IPv4, eth2 "sync"
#
#   n6 2001:db8::8   J 2001:db8::4, 192.0.2.4, 2001:db8:ff08::4, 10.0.0.4   n4 192.0.2.8
#                    K ...5, L ...6; whoever is active has 2001:db8::1 and 192.0.2.1 as well

declare -A NODE_NUMBER=([j]=4 [k]=5 [l]=6) NODE_PID=() PROXY_PID=()
# shellcheck disable=SC2034 # used by scripts
N4=64:ff9b::192.0.2.8
GROUP6=ff08::db8:64:64
# shellcheck disable=SC2034 # used by scripts
GROUP4=233.252.0.64
KEY=$WORK/key

cluster_up() { # NODE...
	local bridge node n
	add_namespace net
	for bridge in v6 v4 sync; do
		# Without a querier, snooping would forget who is in a group.
		ip -n "$PREFIX-net" link add "$bridge" type bridge mcast_snooping 0
		ip -n "$PREFIX-net" link set "$bridge" up
	done
	add_namespace n6
	plug n6 eth0 v6
	ip -n "$PREFIX-n6" addr add 2001:db8::8/96 dev eth0 nodad
	ip -n "$PREFIX-n6" -6 route add 64:ff9b::/96 via 2001:db8::1
	add_namespace n4
	plug n4 eth0 v4
	ip -n "$PREFIX-n4" addr add 192.0.2.8/24 dev eth0
	for node; do
		n=${NODE_NUMBER[$node]}
		add_namespace "$node"
		plug "$node" eth0 v6
		plug "$node" eth1 v4
		plug "$node" eth2 sync
		ip -n "$PREFIX-$node" addr add 2001:db8::$n/96 dev eth0 nodad
		ip -n "$PREFIX-$node" addr add 192.0.2.$n/24 dev eth1
		ip -n "$PREFIX-$node" addr add 2001:db8:ff08::$n/96 dev eth2 nodad
		ip -n "$PREFIX-$node" addr add 10.0.0.$n/24 dev eth2
		in_ns "$node" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0
	done
}

plug() { # NAMESPACE DEVICE BRIDGE
	ip link add "$2" netns "$PREFIX-$1" type veth peer name "$1-$2" netns "$PREFIX-net"
	ip -n "$PREFIX-net" link set "$1-$2" master "$3" up
	ip -n "$PREFIX-$1" link set "$2" up
}

# Gives the virtual addresses to a node, as keepalived would.
activate() { # NODE
	local node
	for node in "${!NODE_NUMBER[@]}"; do
		ip -n "$PREFIX-$node" addr del 2001:db8::1/96 dev eth0 2>/dev/null || true
		ip -n "$PREFIX-$node" addr del 192.0.2.1/24 dev eth1 2>/dev/null || true
	done
	ip -n "$PREFIX-$1" addr add 2001:db8::1/96 dev eth0 nodad
	ip -n "$PREFIX-$1" addr add 192.0.2.1/24 dev eth1
	ip -n "$PREFIX-n6" neigh flush all
	ip -n "$PREFIX-n4" neigh flush all
}

node_start() { # NODE [OPTION...]
	local node=$1 log
	shift
	STARTS=$((STARTS + 1))
	log=$WORK/daemon.$STARTS.log
	spawn "$node" "$BIN/tylod" --state-dir "$WORK/state-$node" "$@" 2>"$log" >&2
	NODE_PID[$node]=$SPAWNED
	within 15 grep -q ready "$log"
}

node_kill() { # NODE
	kill -KILL "${NODE_PID[$1]}"
	wait "${NODE_PID[$1]}" 2>/dev/null || true
}

node() { # NODE ARGUMENT of jool...
	local node=$1
	shift
	timeout "$LIMIT" ip netns exec "$PREFIX-$node" "$BIN/jool" "$@"
}

# The modern form of the tutorial.
node_configure() { # NODE
	node "$1" instance add --netfilter --pool6 64:ff9b::/96 &&
		node "$1" pool4 add --tcp 192.0.2.1 61001-65535 &&
		node "$1" pool4 add --udp 192.0.2.1 61001-65535 &&
		node "$1" pool4 add --icmp 192.0.2.1 0-65535 &&
		node "$1" global update ss-enabled true
}

# Runs 'session proxy' or another program that exchanges sessions; what it says is in $WORK/proxy.NODE.
proxy_start() { # NODE COMMAND...
	local node=$1
	shift
	spawn "$node" "$@" >"$WORK/proxy.$node" 2>&1
	PROXY_PID[$node]=$SPAWNED
	within 5 grep -q "exchanging the sessions of instance" "$WORK/proxy.$node"
}

proxy6() { # NODE [OPTION...]
	local node=$1
	shift
	proxy_start "$node" "$BIN/jool" session proxy --net.mcast.port=6464 --net.dev.in=eth2 \
		--net.dev.out=eth2 "$@" $GROUP6
}

# Sessions without the time they have left.
sessions() { # NODE PROTOCOL
	node "$1" session display "--$2" --numeric --csv --no-headers | cut -d , -f 1-9,11
}

count() { node "$1" session display "--$2" --numeric --count; } # NODE PROTOCOL

counter() { # NODE NAME: of the exchange, from health
	in_ns "$1" "$BIN/tylo" health --json | jq ".instances[0].sync.$2"
}

same_sessions() { # NODE NODE PROTOCOL
	local one two
	one=$(sessions "$1" "$3") && two=$(sessions "$2" "$3") && [ -n "$one" ] && equal "$two" "$one"
}

# --- with the protocol of our own

tylo_in() { # NODE ARGUMENT...
	local node=$1
	shift
	timeout "$LIMIT" ip netns exec "$PREFIX-$node" "$BIN/tylo" "$@"
}
join() { # NODE [KEY...]: with the first key to encrypt
	local node=$1 keys=() key
	shift
	for key in "${@:-$KEY}"; do keys+=(--key "$key"); done
	tylo_in "$node" sync set --node "${NODE_NUMBER[$node]}" "${keys[@]}" --group $GROUP6 --dev eth2
}
ready() { tylo_in "$1" health --ready; }
status() { tylo_in "$1" sync status --json | jq -c "$2"; } # NODE WHAT
peers() { equal "$(status "$1" '[.peers[].node]|sort' | tr -d '[]')" "$2"; }
grows() { # NODE COUNTER VALUE: is more than that
	[ "$(status "$1" "$2")" -gt "$3" ]
}

# --- what must hold

equal_now() { # WANTED COMMAND...
	local wanted=$1
	shift
	equal "$("$@")" "$wanted"
}
# An endless ping, whose answers are counted from a mark on.
ping_start() { # [SECONDS BETWEEN TWO]
	spawn n6 ping -n -i "${1:-0.2}" -O $N4 >"$WORK/ping"
	PING=$SPAWNED
}
mark() { MARK=$(grep -c 'bytes from' "$WORK/ping" || true); }
answered() { [ "$(grep -c 'bytes from' "$WORK/ping")" -ge $((MARK + $1)) ]; } # NUMBER: so many more
ping_goes_on() {
	mark
	within 15 answered 10
}
exit_status() { # STATUS PID
	local status=0
	ends_within 60 "$2" || return
	wait "$2" || status=$?
	equal "$status" "$1"
}
udp_from() { # FIRST [LAST]: a datagram from each of these ports of the client leaves a mapping
	in_ns n6 $PYTHON -c "
import socket, sys
for port in range(int(sys.argv[1]), int(sys.argv[2]) + 1):
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.bind(('', port))
    s.sendto(b'x', (sys.argv[3], 7001))" "$1" "${2:-$1}" $N4
}
bib() { node "$1" bib display "--$2" --numeric --csv --no-headers; } # NODE PROTOCOL
# Not `grep -q`: it would leave before all is written.
has_udp() { bib "$1" udp | grep "2001:db8::8,$2," >/dev/null; } # NODE PORT
all_have() { # FIRST LAST: ports, on all nodes
	local node
	for node in j k l; do
		equal "$(bib $node udp | cut -d , -f 2,3 | grep '^2001:db8::8,' | cut -d , -f 2 | sort |
			comm -13 - <(seq "$1" "$2" | sort))" "" || return
	done
}
lacks_udp() { ! has_udp "$1" "$2"; }
delete() { # NODE FIRST LAST: every tenth mapping
	local port
	for port in $(seq "$2" 10 "$3"); do
		node "$1" bib remove --udp "2001:db8::8#$port" || return
		echo ",2001:db8::8,$port," >>"$WORK/deleted"
	done
}
none_returned() {
	local name
	for name in j k l; do equal "$(bib $name udp | grep -Ff "$WORK/deleted")" "" || return; done
}
# A transport address of pool4 has one client, and a client has one transport address, on whatever node.
nothing_shared() { # NODE...
	local node protocol all
	for protocol in tcp udp icmp; do
		all=$(for node; do bib "$node" $protocol; done | cut -d , -f 1-5 | sort -u) || return
		equal "$(cut -d , -f 4,5 <<<"$all" | sort | uniq -d)" "" || return
		equal "$(cut -d , -f 2,3 <<<"$all" | sort | uniq -d)" "" || return
	done
}
fail_over() { # FROM TO: from dies, to goes on
	local begin=$EPOCHREALTIME
	node_kill "$1"
	activate "$2"
	echo "$begin $EPOCHREALTIME" >>"$WORK/kills"
}

# Gateways with the tutorial's configuration, and a key that is theirs.
nodes_start() { # NODE...
	local name
	must "a key is made" "$BIN/tylo" sync keygen "$KEY"
	for name; do
		must "$name: the daemon gets ready" node_start "$name"
		must "$name: the tutorial's configuration" node_configure "$name"
	done
}

# Makes them nodes of one cluster.
nodes_join() { # NODE...
	local name
	for name; do must "$name becomes a node" join "$name"; done
	for name; do must "$name is ready" within 15 ready "$name"; done
}

# A server in n4, an endless ping, and connections that are to last; their holder is HOLD.
lasting_server() {
	spawn n4 $PYTHON "$HERE/lasting.py" serve 7000
	must "a server listens in n4" within 10 listens n4 7000
	ping_start
	must "a ping is answered" ping_goes_on
}
lasting_open() { # NUMBER
	spawn n6 $PYTHON "$HERE/lasting.py" hold $N4 7000 "$WORK" "$1" >"$WORK/hold.out" 2>&1
	HOLD=$SPAWNED
	must "$1 TCP connections are open" within 60 test -e "$WORK/lasting.open"
}
