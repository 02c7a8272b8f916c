#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# On Debian's own kernel: tools/nft-rules with nftables' own `queue`, and the ready-made files.
if [ -z "${TYLO_GUEST:-}" ]; then
	here=$(dirname "$(readlink -f "$0")")
	exec "$here/../../tools/guest" "$here/93-rules-native.sh"
fi

. "$(dirname "$(readlink -f "$0")")/lib.sh"

POOL4=192.0.2.1
CLIENT4=192.0.2.80

jool_siit() { timeout "$LIMIT" ip netns exec "$PREFIX-gw" "$BIN/jool_siit" "$@"; }
nft_rules() { gw "$REPO/tools/nft-rules" "$@"; }
in_force() { gw nft list ruleset | sed 's/packets [0-9]* bytes [0-9]*//'; }

instances() {
	local protocol
	jool instance add --iptables --pool6 64:ff9b::/96 || return
	for protocol in tcp udp icmp; do jool pool4 add --$protocol $POOL4 $LOW-65535 || return; done
	jool_siit instance add --iptables --pool6 2001:db8:46::/96 || return
	jool_siit eamt add $CLIENT6/128 $CLIENT4/32
}

ready_made_is() { # TEMPLATE OPTION...: the file has the rules that the program makes of its values
	gw nft -f "$REPO/nft-rules/$1.nft" || return
	in_force >"$WORK/ready-made"
	nft_rules install "$@" || return
	unchanged "$WORK/ready-made" in_force || return
	nft_rules remove "$1"
}

network_up
must "the daemon gets ready" daemon_start
check "the log says native" grep -q native "$WORK/daemon.1.log"
must "instances are accepted" instances
in_force >"$WORK/before"
udp_echo server 7000
udp_echo client 7000
watch leaks uplink u0 'net 64:ff9b::/96 or net 2001:db8:46::/96' -Q in

check "nothing is translated without rules" not ping_ok client $SERVER6
for set in nat64 siit; do must "rules: $set" nft_rules install $set; done
in_force >"$WORK/installed"
check "stateful: ping" ping_ok client $SERVER6
check "stateful: ping from the gateway" ping_ok gw $SERVER6
check "stateful: 4000 octets over UDP" client $PYTHON "$HERE/udp.py" ask $SERVER6 7000 4000
check "stateless: ping" ping_ok server $CLIENT4
check "stateless: 4000 octets over UDP" server $PYTHON "$HERE/udp.py" ask $CLIENT4 7000 4000
check "their status" says "^nat64: native, queues .*nat64 'default', [1-9]" nft_rules status
check "bad rules are refused" rejects gw "$REPO/tools/nft-rules" install nat64 --pool4 192.0.2.300
check "everything is as it was" unchanged "$WORK/installed" in_force
check "rules are removed" nft_rules remove
check "and nothing else" unchanged "$WORK/before" in_force

stateful=(--queues 6400-6401 --pool6 64:ff9b::/96 --pool4 "$POOL4#$LOW-65535")
check "nat64.nft" ready_made_is nat64 "${stateful[@]}"
check "mark.nft" ready_made_is mark "${stateful[@]}" --mark 7
check "interface.nft" ready_made_is interface "${stateful[@]}" --interface lan0
check "local.nft" ready_made_is local "${stateful[@]}"
check "halves.nft" ready_made_is halves "${stateful[@]}" \
	--upper-queues 6402-6403 --upper-pool4 "192.0.2.2#$LOW-65535"
check "siit.nft" ready_made_is siit --queues 6404-6405 --pool6 2001:db8:46::/96 \
	--eam 2001:db8:4::/120,198.51.100.0/24
watch_end leaks
check "nothing untranslated left" nothing_seen leaks
gateway_down
