#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Rules change again and again while a server floods a client whose mapping has the gateway's own address:
# nothing gets past them to the gateway.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

TRAFFIC=$(dirname "$TYLO_BIN")/examples/traffic # hundreds of thousands of packets a second
jool_siit() { timeout "$LIMIT" ip netns exec "$PREFIX-gw" "$BIN/jool_siit" "$@"; }
passed() { gw nft list chain ip watch input | sed -n 's/.*counter packets \([0-9]*\).*/\1/p'; }
change() { # TIMES: by pool4, by addresses that come and go
	local i
	for ((i = 0; i < $1; i++)); do
		jool pool4 add --udp 192.0.2.7 5000-5999 &&
			ip -n "$PREFIX-gw" addr add 203.0.113.77/32 dev g4 &&
			jool pool4 remove --udp 192.0.2.7 5000-5999 &&
			ip -n "$PREFIX-gw" addr del 203.0.113.77/32 dev g4 || return
	done
}

must "there is a sender (cargo build --release --example traffic)" [ -x "$TRAFFIC" ]
gateway_up own
# Ranges of addresses that are not next to each other.
must "more of pool4 is accepted" jool pool4 add --udp 192.0.2.64/29 61001-65535
gw nft -f - <<-END
	table ip watch {
		chain input {
			type filter hook input priority 0
			ip daddr $POOL4 udp dport 61001-65535 counter
		}
	}
END
must "a static mapping" jool bib add $POOL4#62000 $CLIENT6#7000 --udp
spawn server "$TRAFFIC" udp-send $POOL4 62000 --size 8 --seconds 200 >"$WORK/flood"
FLOOD=$SPAWNED
flooded() { jool stats display | awk '$1 == "JSTAT_SUCCESS:" && $2 > 10000 { found = 1 } END { exit !found }'; }
must "the client is flooded" within 10 flooded
check "by no other way than the queues" equal "$(passed)" 0
check "rules change" change 100
check "the flood goes on" kill -0 "$FLOOD"
check "nothing got past them" equal "$(passed)" 0
must "a stateless instance as well" jool_siit instance add campus --netfilter --pool6 2001:db8:64::/96
check "rules change" change 25
must "and without it" jool_siit instance remove campus
check "rules change" change 25
check "nothing got past them" equal "$(passed)" 0
end "$FLOOD"
check "packets pass" ping_ok client "$SERVER6"
gateway_down
