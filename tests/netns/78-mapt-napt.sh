#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# MAP-T with customer edges that translate ports themselves, in one namespace each. The rule leaves
# each customer 63 small ranges of ports; the customer edges learn it from DHCPv6 options.
. "$(dirname "$(readlink -f "$0")")/mapt.sh"

RULE="2001:db8:ce::/51 192.0.2.0/24 13 6"

# A MAP-T container with that rule, which is for forwarding, too, and 64:ff9b::/96.
CONTAINER="
	005f 002c
	  0059 0017 01 0d 18 c0000200 33 20010db800ce00
	            005d 0004 06 05 0000
	  005b 000d 60 0064ff9b0000000000000000"
# What is delegated to customer 11b.
DELEGATED="
	0019 0029 00000001 00000e10 00001518
	  001a 0019 00001c20 00002a30 40 20010db800ce011b0000000000000000"

configure() {
	# shellcheck disable=SC2086 # words
	jool_mapt br instance add --dmr 64:ff9b::/96 && jool_mapt br fmrt add $RULE || return
	jool_mapt ce1 instance add --from-dhcp "$CONTAINER $DELEGATED" || return
	echo "$CONTAINER" >"$WORK/options"
	jool_mapt ce2 instance add --from-dhcp "$WORK/options" --end-user-ipv6-prefix "${EUI[ce2]}"
}

napt() { # on|off
	tylo_mapt ce1 napt "$1" -i "${NAME[ce1]}" && tylo_mapt ce2 napt "$1" -i "${NAME[ce2]}"
}

# Source ports and identifiers that are not those of PSID 27 with an offset of 6.
foreign() {
	local field all=
	for field in 'tcp[0:2]' 'udp[0:2]' 'icmp[4:2]'; do
		all+=" or (${field%%[*} and ($field < 1024 or ($field >> 5) & 31 != 27))"
	done
	echo "src host 192.0.2.8 and not icmp[icmptype] == icmp-unreach and (${all# or })"
}

natted() { in_ns "$1" $PYTHON "$HERE/natted.py" "${@:2}"; } # NAMESPACE WORD...

# Anybody may use a mapping that exists (RFC 4787).
told() { # NAMESPACE OF THE SENDER [COMMAND...]: meanwhile
	local status=0 sender=$1 text=${TEXT:-from $1}
	shift
	rm -f "$WORK/told"
	natted client2 wait $SERVER 7100 "$WORK/told" >"$WORK/heard" 2>&1 & local waiter=$!
	within 5 test -e "$WORK/told" && "${@:-true}" && natted "$sender" tell "$WORK/told" "$text"
	wait $waiter || status=$?
	cat "$WORK/told" "$WORK/heard"
	[ $status = 0 ] && grep -q '^192\.0\.2\.59 ' "$WORK/told" && grep -qxF "$text" "$WORK/heard"
}

mapt_network_up own
for node in br ce1 ce2; do
	must "the daemon of $node gets ready" mapt_start $node
done
must "everybody takes a configuration" configure
check "customer 11b is what the options say" says '^  bmr: 2001:db8:ce::/51 192.0.2.0/24 13 6$' \
	jool_mapt ce1 global display
check "other customers are reached by the same rule" says '^1$' jool_mapt ce1 fmrt display --count
random_file small 3000
random_file large 3000000
http_server server 80
udp_echo server 7000
spawn server $PYTHON "$HERE/natted.py" mirror 7100
must "a mirror listens" within 10 listens server 7100

check "without translation of ports private addresses stay at home" not ping_ok client1 $SERVER
must "the customer edges translate ports" napt on
# shellcheck disable=SC2046
watch foreign server b0 "$(foreign)" -Q in
for n in 1 2; do
	check "client $n pings the server" ping_ok client$n $SERVER
	check "client $n fetches a page" fetch client$n small
	check "client $n asks by UDP" ask client$n 100
	check "client $n asks by UDP in fragments" ask client$n 4000
	check "client $n uploads" send client$n large
done
check "both clients download at once" at_once
many() { # more connections than a range has ports
	local n
	for n in $(seq 60); do ask client1 10 || return; done
}
check "a client has more flows than a range has ports" many
check "a packet too big for IPv6 is told to the client" \
	equal "$(too_big client1 $SERVER 1472)" "3 4 1480 192.168.0.1"
check "traceroute sees the whole way" \
	equal "$(hops client1 $SERVER)" "192.168.0.1 192.168.0.1 $SERVER"
check "traceroute by pings, too" \
	equal "$(hops client1 $SERVER -I)" "192.168.0.1 192.168.0.1 $SERVER"
add_namespace neighbour
add_link ce1 near neighbour n0
ip -n "$PREFIX-ce1" addr add 198.18.0.1/24 dev near
ip -n "$PREFIX-neighbour" addr add 198.18.0.2/24 dev n0
ip -n "$PREFIX-neighbour" route add default via 198.18.0.1
check "what is for a network of the customer edge's own stays as it is" \
	within 5 stays ce1 JSTAT_SUCCESS ping_ok client1 198.18.0.2
check "the customer edge itself reaches the server" ping_ok ce1 $SERVER
watch_end foreign
check "the server saw the ports of the customer only" nothing_seen foreign

echo "--- to the customers"
check "whoever knows a mapping may use it" natted client1 other $SERVER 7100
check "the server reaches a client that waits" told server
check "a customer reaches another directly" stays br JSTAT_MAPT_PSID told client1
check "a client reaches its neighbour by their common address" told client2
TEXT=$(printf '%03000d' 7) check "in fragments, too" told client2
forward() { tylo_mapt ce1 forward -i "${NAME[ce1]}" "$@"; }
http_server client1 8080
# 50016 is 48 << 10 | 27 << 5: one of the customer's.
check "a port is made to lead to a client" forward tcp 50016 192.168.0.4#8080
check "and is listed" says '^TCP 192\.0\.2\.8#50016 192\.168\.0\.4#8080$' forward
check "the server reaches the client by it" fetch server large http://192.0.2.8:50016
check "another customer does, too" fetch client2 small http://192.0.2.8:50016
check "its neighbours do, too" fetch client1 small http://192.0.2.8:50016
check "a port of somebody else's is refused" rejects ce1 "$BIN/tylo" mapt forward \
	-i "${NAME[ce1]}" tcp 50100 192.168.0.4#8080
check "a port without a mapping is closed" not fetch server small http://192.0.2.8:50017

echo "--- what disagrees with the rule"
check "a foreign port to the customer is dropped by the customer edge and counted" \
	grows ce1 JSTAT_MAPT_PSID forge br 64:ff9b::203.0.113.56 7000 "${MAP6[ce1]}" 1000

# The relay is told another offset than the customers.
disagree() {
	local n status=0
	# shellcheck disable=SC2086 # words
	jool_mapt br fmrt flush && jool_mapt br fmrt add ${RULE% 6} 4 || return
	# With an offset of 4 these ports belong to PSID 27.
	for n in $(seq 1 12); do forge server $SERVER 7300 192.0.2.8 $((n << 12 | 27 << 7 | n * 5)); done
	tylo_mapt ce1 check -i "${NAME[ce1]}" --seconds 0 >"$WORK/disagree" 2>&1 || status=$?
	cat "$WORK/disagree"
	[ $status = 1 ] && grep -q 'right with the PSID offset 4 instead of 6' "$WORK/disagree"
}
check "a relay with another offset is found out" disagree
# shellcheck disable=SC2086 # words
jool_mapt br fmrt flush && jool_mapt br fmrt add $RULE

echo "--- killed and started again"
restart() { # NODE
	sleep 0.3 # what happened in the last moment may be lost
	mapt_kill "$1" && mapt_start "$1"
}
check "a mapping survives" told server restart ce2
mapt_kill ce1
must "the daemon of ce1 gets ready" mapt_start ce1
check "ports are translated as before" says '^on' tylo_mapt ce1 napt -i "${NAME[ce1]}"
check "the port of a client leads there as before" \
	fetch server small http://192.0.2.8:50016
check "until that is taken back" forward --remove tcp 50016
check "and then no more" not fetch server small http://192.0.2.8:50016
check "client 1 fetches a page" fetch client1 large
check "and pings" ping_ok client1 $SERVER

echo "--- only what rules of the administrator divert"
by_rules() {
	jool_mapt ce2 instance remove "${NAME[ce2]}" &&
		jool_mapt ce2 instance add "${NAME[ce2]}" --iptables --from-dhcp "$WORK/options" \
			--end-user-ipv6-prefix "${EUI[ce2]}" &&
		tylo_mapt ce2 napt on -i "${NAME[ce2]}"
}
rules_of_ours() {
	local first count queues
	read -r first count < <(in_ns ce2 "$BIN/tylo" health --json |
		sed -n 's/.*"queues":\[\([0-9]*\),\([0-9]*\)\].*/\1 \2/p')
	queues="--queue-balance $first:$((first + count - 1))"
	# shellcheck disable=SC2086 # words
	in_ns ce2 iptables-nft -t mangle -A PREROUTING -i lan ! -d 192.168.0.0/24 -j NFQUEUE $queues &&
		in_ns ce2 ip6tables-nft -t mangle -A PREROUTING -d "${EUI[ce2]}" -j NFQUEUE $queues
}
must "an instance for rules of ours is accepted" by_rules
check "without rules, nothing is translated" not ping_ok client2 $SERVER
must "rules of ours are accepted" rules_of_ours
check "client 2 pings the server" ping_ok client2 $SERVER
check "client 2 asks by UDP in fragments" ask client2 4000
check "client 2 fetches a page" fetch client2 large
