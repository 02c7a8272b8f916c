#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# tools/nft-rules: every template with traffic, twice the same, away again; what others have in force
# stays, and so does everything when something fails.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

POOL4=192.0.2.1
CLIENT4=192.0.2.80

jool_siit() { timeout "$LIMIT" ip netns exec "$PREFIX-gw" "$BIN/jool_siit" "$@"; }
nft_rules() { gw "$REPO/tools/nft-rules" "$@"; }

instances() {
	local protocol
	jool instance add --iptables --pool6 64:ff9b::/96 || return
	jool -i upper instance add --iptables --pool6 64:ff9b::/96 || return
	for protocol in tcp udp icmp; do
		jool pool4 add --$protocol $POOL4 $LOW-65535 || return
		jool pool4 add --$protocol 192.0.2.4/30 $LOW-65535 --mark 7 || return
		jool -i upper pool4 add --$protocol 192.0.2.2 $LOW-65535 || return
	done
	jool_siit instance add --iptables --pool6 2001:db8:46::/96 || return
	jool_siit eamt add $CLIENT6/128 $CLIENT4/32
}

# What is in force, table by table, but for what is counted.
in_force() {
	local tables table
	tables=$(gw nft list tables | sort)
	while read -r table; do
		# shellcheck disable=SC2086 # words
		gw nft list $table 2>/dev/null | sed 's/packets [0-9]* bytes [0-9]*//'
	done <<<"$tables"
}

peer_is() { # ADDRESS NAMESPACE
	says "^(::ffff:)?$1 " in_ns "$2" curl -gsS --fail -m 10 "http://[$SERVER6]:8080/peer"
}

stateful() {
	check "ping" ping_ok client $SERVER6
	check "TCP, from pool4" peer_is "$1" client
	check "UDP in fragments" client $PYTHON "$HERE/udp.py" ask $SERVER6 7000 4000
}

# Installs a set of rules and looks at it; the traffic is checked by a function.
try() { # TRAFFIC NAME TEMPLATE [OPTION...]
	local traffic=$1 name=$2
	shift 2
	echo "--- $*"
	in_force >"$WORK/before"
	check "is printed" nft_rules print "$@"
	check "which changes nothing" unchanged "$WORK/before" in_force
	must "is installed" nft_rules install "$@"
	in_force >"$WORK/installed"
	check "others' rules are there" contains "$WORK/before" "$WORK/installed"
	check "once more" nft_rules install "$@"
	check "which changes nothing" unchanged "$WORK/installed" in_force
	$traffic
	check "its status" says "^$name: .* [1-9][0-9]* packets\$" nft_rules status
	check "with no trouble" nft_rules status
	check "bad rules are refused" rejects gw "$REPO/tools/nft-rules" install nat64 --name "$name" \
		--queues 6400 --pool6 64:ff9b::/129 --pool4 192.0.2.1
	check "everything is as it was" unchanged "$WORK/installed" in_force
	check "even if only IPv4's are bad" rejects gw "$REPO/tools/nft-rules" install nat64 --name "$name" \
		--queues 6400 --pool6 64:ff9b::/96 --pool4 192.0.2.300
	check "everything is as it was" unchanged "$WORK/installed" in_force
	check "is removed" nft_rules remove "$name"
	check "and nothing else" unchanged "$WORK/before" in_force
	check "nothing is translated any more" not ping_ok client $SERVER6
}

# Every line of one file is in another, which may have more.
contains() { # FILE OTHER
	! diff "$1" "$2" | grep '^<'
}

nat64() { stateful $POOL4; }
marked() { stateful '192.0.2.[4-7]'; }
halves() {
	stateful 192.0.2.2
	check "the gateway goes by them, too" peer_is 192.0.2.2 gw
}
here() {
	check "ping from the gateway" ping_ok gw $SERVER6
	check "TCP from the gateway" peer_is $POOL4 gw
	check "nobody else's" not ping_ok client $SERVER6
}
siit_success() { jool_siit stats display --all | sed -n 's/^JSTAT_SUCCESS: //p'; }
siit() {
	local before
	check "ping from IPv4" ping_ok server $CLIENT4
	check "ping from IPv6" ping_ok client 2001:db8:46::203.0.113.2
	before=$(siit_success)
	check "UDP in fragments" beyond $PYTHON "$HERE/udp.py" ask $CLIENT4 7000 4000
	check "that nobody put together" between $(($(siit_success) - before)) 6 12
}

network_up
must "the daemon gets ready" daemon_start
must "instances are accepted" instances
http_server server
udp_echo server 7000
udp_echo client 7000
watch leaks uplink u0 'net 64:ff9b::/96 or net 2001:db8:46::/96' -Q in

gw nft -f - <<RULES
table inet other {
	chain marks {
		type filter hook prerouting priority -350; policy accept;
		ip6 saddr $CLIENT6 ip6 daddr 64:ff9b::/96 tcp dport != 9 meta mark set 7
		ip6 saddr $CLIENT6 ip6 daddr 64:ff9b::/96 meta l4proto != tcp meta mark set 7
	}
}
RULES
check "no rules" says 'no rules are installed' not nft_rules status
try marked mark mark --mark 7
try marked mark mark --mark 0x7/0xff
gw nft delete table inet other
gw nft add table inet other

try nat64 nat64 nat64
try nat64 mine nat64 --name mine --queues 6400-6401 --pool6 64:ff9b::/96 --pool4 $POOL4/32#$LOW-65535
try nat64 interface interface --interface g6
try here local local
# As others use iptables: their chains, their jumps.
for command in iptables-nft ip6tables-nft; do
	gw $command -t raw -N others
	gw $command -t raw -A PREROUTING -p 99 -j others
	gw $command -t raw -A others -j RETURN
done
try halves halves halves --instance default --name halves
try siit siit siit
try siit siit-own siit --name siit-own --queues 6404-6405 --pool6 2001:db8:46::/96 --pool4 192.0.2.80/28 --except 192.0.2.81

echo "--- several sets"
for set in nat64 siit; do must "$set" nft_rules install $set; done
check "all are shown" says "^siit: .*siit 'default'" nft_rules status
jool_siit instance flush
check "nobody reads the queues of one" says '^siit: .*not the queues of an instance' not nft_rules status
check "all are removed" nft_rules remove
check "so that there are none" says 'no rules are installed' not nft_rules status

echo "--- what cannot be"
complains() { # EXPRESSION ARGUMENT...
	local expression=$1
	shift
	rejects gw "$REPO/tools/nft-rules" "$@" && grep -Eq -- "$expression" "$WORK/reject.out"
}
refuses_nobody() {
	rejects gw setpriv --reuid 65534 --clear-groups "$REPO/tools/nft-rules" status &&
		grep -q 'sudo tools/nft-rules' "$WORK/reject.out"
}
in_force >"$WORK/before"
check "unknown instance" complains "no nat64 instance 'nobody'.*'default', 'upper'" install nat64 --instance nobody
check "unknown template" complains "no template 'nat46'" install nat46
check "unknown option" complains "no option '--colour'" install nat64 --colour red
check "an option of another template" complains "does not belong" install nat64 --mark 7
check "no value" complains "value is missing" install nat64 --queues
check "a bad value" complains "'2-1'" install nat64 --queues 2-1
check "a mark is needed" complains "needs --mark" install mark
check "unknown set" complains "no rules 'nothing'" remove nothing
check "without rights" refuses_nobody
check "help" says 'install TEMPLATE' nft_rules --help
check "nothing was changed" unchanged "$WORK/before" in_force
jool instance remove
jool instance add --netfilter --pool6 64:ff9b::/96
check "an instance with rules of its own" complains "of the framework iptables" install nat64
must "the daemon stops" daemon_stop
check "no daemon" complains 'start tylod' install nat64
watch_end leaks
check "nothing untranslated left" nothing_seen leaks
gateway_down
