# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# What the end-to-end tests of MAP-T share: the domain of Jool's tutorial.
#
#   client1 --(IPv4)-- [napt1] --(IPv4)-- ce1 --+
#                                               +--(IPv6)-- wan --(IPv6)-- br --(IPv4)-- server
#   client2 --(IPv4)-- [napt2] --(IPv4)-- ce2 --+
#
# Both clients are 192.168.0.4. ce1 has 2001:db8:ce:11b::/64, which is 192.0.2.8 with the ports 55296
# to 57343; ce2 has 2001:db8:ce:774::/64, 192.0.2.59 with the ports 40960 to 43007. Where there is no
# napt, the customer edges translate ports themselves.
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib.sh"

RULE="2001:db8:ce::/51 192.0.2.0/24 13 0"
SERVER=203.0.113.56
declare -A EUI=([ce1]=2001:db8:ce:11b::/64 [ce2]=2001:db8:ce:774::/64)
declare -A NAME=([ce1]="CE 11b" [ce2]="CE 774" [br]=BR)
declare -A CE4=([ce1]=192.0.2.8 [ce2]=192.0.2.59)
declare -A MAP6=([ce1]=2001:db8:ce:11b:0:c000:208:1b [ce2]=2001:db8:ce:774:0:c000:23b:14)
declare -A WAN=([br]=2001:db8:6::1 [ce1]=2001:db8:6::11b [ce2]=2001:db8:6::774)
declare -A DAEMONS=()

jool_mapt() { # NODE WORD...
	local node=$1
	shift
	timeout "$LIMIT" ip netns exec "$PREFIX-$node" "$BIN/jool_mapt" -i "${NAME[$node]}" "$@"
}

tylo_mapt() { # NODE WORD...
	local node=$1
	shift
	timeout "$LIMIT" ip netns exec "$PREFIX-$node" "$BIN/tylo" mapt "$@"
}

mapt_ready() { grep -q ready "$1"; }

mapt_start() { # NODE
	STARTS=$((STARTS + 1))
	local log=$WORK/daemon.$STARTS.log
	spawn "$1" "$BIN/tylod" --state-dir "$WORK/state.$1" 2>"$log" >&2
	DAEMONS[$1]=$SPAWNED
	within 15 mapt_ready "$log"
}

mapt_kill() { # NODE
	kill -KILL "${DAEMONS[$1]}"
	wait "${DAEMONS[$1]}" 2>/dev/null || true
}

mapt_network_up() { # napt|own
	local ns n
	for ns in wan br server ce1 ce2 client1 client2; do add_namespace $ns; done
	ip -n "$PREFIX-wan" link add bridge type bridge
	ip -n "$PREFIX-wan" link set bridge up
	for ns in br ce1 ce2; do
		add_link $ns w0 wan to-$ns
		ip -n "$PREFIX-wan" link set to-$ns master bridge
		ip -n "$PREFIX-$ns" addr add "${WAN[$ns]}/64" dev w0 nodad
		in_ns $ns sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
	done
	add_link br s0 server b0
	ip -n "$PREFIX-br" addr add 203.0.113.1/24 dev s0
	ip -n "$PREFIX-server" addr add $SERVER/24 dev b0
	ip -n "$PREFIX-server" route add 192.0.2.0/24 via 203.0.113.1
	for n in 1 2; do
		ip -n "$PREFIX-br" -6 route add "${EUI[ce$n]}" via "${WAN[ce$n]}"
		ip -n "$PREFIX-ce$n" -6 route add 64:ff9b::/96 via "${WAN[br]}"
		if [ "$1" = napt ]; then
			add_namespace napt$n
			in_ns napt$n sysctl -qw net.ipv4.ip_forward=1
			add_link ce$n lan napt$n out
			add_link napt$n lan client$n c0
			ip -n "$PREFIX-ce$n" addr add 10.0.0.1/24 dev lan
			ip -n "$PREFIX-napt$n" addr add 10.0.0.2/24 dev out
			ip -n "$PREFIX-napt$n" addr add 192.168.0.1/24 dev lan
			ip -n "$PREFIX-napt$n" route add default via 10.0.0.1
			ip -n "$PREFIX-ce$n" route add "${CE4[ce$n]}" via 10.0.0.2
		else
			add_link ce$n lan client$n c0
			ip -n "$PREFIX-ce$n" addr add 192.168.0.1/24 dev lan
		fi
		ip -n "$PREFIX-client$n" addr add 192.168.0.4/24 dev c0
		ip -n "$PREFIX-client$n" route add default via 192.168.0.1
	done
	# Directly from customer to customer, where the rules allow it.
	ip -n "$PREFIX-ce1" -6 route add "${EUI[ce2]}" via "${WAN[ce2]}"
	ip -n "$PREFIX-ce2" -6 route add "${EUI[ce1]}" via "${WAN[ce1]}"
}

mapt_down() {
	end_all
	network_down
	rm -rf "$WORK"/state.*
	DAEMONS=()
}

count_of() { # NODE COUNTER
	jool_mapt "$1" stats display --all --csv --no-headers | sed -n "s/^$2,//p"
}

grows() { # NODE COUNTER COMMAND...: whatever becomes of the command
	local before after node=$1 counter=$2
	shift 2
	before=$(count_of "$node" "$counter")
	"$@" || true
	after=$(count_of "$node" "$counter")
	[ "$after" -gt "$before" ] || { echo "$counter stays $after"; return 1; }
}

stays() { # NODE COUNTER COMMAND...: and the command succeeds
	local before after node=$1 counter=$2
	shift 2
	before=$(count_of "$node" "$counter")
	"$@" || return
	after=$(count_of "$node" "$counter")
	equal "$after" "$before"
}

fetch() { # NAMESPACE NAME [URL]
	local got=$WORK/got.$1
	rm -f "$got"
	in_ns "$1" curl -gsS --fail -m 60 -o "$got" "${3:-http://$SERVER:80}/$2" &&
		cmp "$got" "$WORK/files/$2"
}

send() { # NAMESPACE NAME
	local reply
	reply=$(in_ns "$1" curl -gsS --fail -m 60 -T "$WORK/files/$2" "http://$SERVER:80/upload") || return
	[ "$reply" = "$(sum "$WORK/files/$2")" ]
}

at_once() { # both clients download
	local first=0 second=0
	fetch client1 large >"$WORK/first.out" 2>&1 & local one=$!
	fetch client2 large >"$WORK/second.out" 2>&1 & local two=$!
	wait $one || first=$?
	wait $two || second=$?
	cat "$WORK/first.out" "$WORK/second.out"
	[ "$first$second" = 00 ]
}

ask() { # NAMESPACE SIZE
	in_ns "$1" $PYTHON "$HERE/udp.py" ask $SERVER 7000 "$2"
}

# Sends a datagram from an address and port that need not be the host's.
forge() { # NAMESPACE SOURCE PORT DESTINATION PORT
	in_ns "$1" $PYTHON - "$2" "$3" "$4" "$5" <<-'PYTHON'
		import socket, sys
		src, sport, dst, dport = sys.argv[1:]
		six = ":" in src
		sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
		sock.setsockopt(*((socket.IPPROTO_IPV6, 75) if six else (socket.IPPROTO_IP, 19)), 1)
		sock.bind((src, int(sport)))
		sock.sendto(b"forged", (dst, int(dport)))
	PYTHON
	sleep 0.3
}

too_big() { # NAMESPACE ADDRESS SIZE: type, code, MTU and sender of the error
	in_ns "$1" timeout "$LIMIT" $PYTHON "$HERE/udp.py" error "$2" 7000 "$3"
}

hops() { # NAMESPACE ADDRESS [OPTION...]: the addresses on the way, or *
	local ns=$1 address=$2
	shift 2
	in_ns "$ns" traceroute -n -q 1 -w 2 -m 8 "$@" "$address" | awk 'NR > 1 { print $2 }' | paste -sd ' '
}
