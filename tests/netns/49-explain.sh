#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# `tylo explain` beside a real gateway: what it says is what then happens, and by saying it nothing
# changes.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

explain() { timeout "$LIMIT" ip netns exec "$PREFIX-gw" "$BIN/tylo" explain "$@"; }
# All that the daemon has, but for the time that sessions have left.
state() {
	local protocol
	for protocol in tcp udp icmp; do
		jool bib display --$protocol --numeric --csv
		jool session display --$protocol --numeric --csv | cut -d , -f 1-9
	done
	jool stats display --all
	gw nft list ruleset | sed "s/packets [0-9]* bytes [0-9]*//"
}
counter() { jool stats display --all | sed -n "s/^$1: *//p"; }
sent() { explain "$@" --json | jq -r '.sent[0]'; }
reason() { explain "$@" --json | jq -r .reason; }
# A packet as tcpdump -v shows it, in the words of the explanation; the kernel takes one hop.
as_seen() { # NAME
	sed -nE 's/.*ttl ([0-9]+),.* length ([0-9]+)\)$/\1 \2/p; s/.* hlim ([0-9]+),.* payload length: ([0-9]+)\).*/\1 \2/p' \
		"$WORK/$1.seen" | head -n 1
}
arrives() { grep -q . "$WORK/$1.seen"; } # NAME

gateway_up foreign
udp_echo server 7777

# --- what is foreseen happens

must "a static mapping" jool bib add "$CLIENT6#5000" "$POOL4#61500" --udp
state >"$WORK/before"
line=$(sent udp "$CLIENT6#5000" "$SERVER6#7777" --size 30)
check "a packet is foreseen" equal "$line" "IPv4 UDP $POOL4#61500 > $SERVER4#7777, TTL 64, 58 bytes"
check "  which changes nothing" unchanged "$WORK/before" state
watch out server s0 'udp dst port 7777' -Q in -v -c 1
client nc -u -w 1 -p 5000 "$SERVER6" 7777 <<<"12345678901234567890123456789" >"$WORK/echo" || true
must "  the packet comes" within 5 arrives out
check "  with these lengths, and a hop less" equal "$(as_seen out)" "63 58"
check "  with these addresses and ports" seen out "$POOL4.61500 > $SERVER4.7777: .*length 30"

check "the session is found" says '^session .* ends in 0:04:5|^session .* ends in 0:05:00' \
	explain udp "$SERVER4#7777" "$POOL4#61500"
line=$(sent udp "$SERVER4#7777" "$POOL4#61500" --size 5)
check "the way back is foreseen" equal "$line" \
	"IPv6 UDP 64:ff9b::cb00:7102#7777 > $CLIENT6#5000, hop limit 64, 53 bytes"

# --- mappings that the daemon chose

must "a client asks from a port of its own" client $PYTHON "$HERE/udp.py" ask "$SERVER6" 7777 5
mapped() { jool bib display --udp --numeric --csv --no-headers | grep ',0$'; }
IFS=, read -r _ _ port6 _ port4 _ < <(mapped)
state >"$WORK/before"
check "its mapping is found" equal "$(sent udp "$CLIENT6#$port6" "$SERVER6#7777")" \
	"IPv4 UDP $POOL4#$port4 > $SERVER4#7777, TTL 64, 28 bytes"
check "  and who has it" equal "$(sent udp "$SERVER4#7777" "$POOL4#$port4")" \
	"IPv6 UDP 64:ff9b::cb00:7102#7777 > $CLIENT6#$port6, hop limit 64, 48 bytes"
check "what the gateway would choose is marked as its choice" \
	says 'becomes 192.0.2.1#.* here; the gateway chooses any free one of 192.0.2.1 61001-65535' \
	explain tcp "$CLIENT6#5000" "$SERVER6#80"
check "nothing of it changes anything" unchanged "$WORK/before" state

# --- what is not translated

before=$(counter JSTAT_BIB4_NOT_FOUND)
check "a packet to nobody is foreseen" equal \
	"$(reason udp "$SERVER4#9" "$POOL4#62999")" JSTAT_BIB4_NOT_FOUND
server nc -u -w 1 "$POOL4" 62999 <<<x >/dev/null 2>&1 || true
counted() { [ "$(counter JSTAT_BIB4_NOT_FOUND)" -gt "$before" ]; }
check "  and counted when it comes" within 5 counted
check "the last hop is foreseen" says '^answer .*time exceeded \(type 3 code 0\)' \
	explain icmpv6 $CLIENT6 "$SERVER6" --ttl 1
ping_ends() { client ping -n -c 1 -W 2 -t 1 "$SERVER6"; }
check "  and is the last" grep -q 'Time exceeded' <(ping_ends || true)
must "connections from outside are forbidden" jool global update drop-externally-initiated-tcp true
must "  a static mapping for one" jool bib add "$CLIENT6#80" "$POOL4#61080" --tcp
explain tcp $SERVER4 "$POOL4#61080" >"$WORK/refused"
check "  the setting is named" grep -q '^dropped .*\[drop-externally-initiated-tcp\]' "$WORK/refused"
mend=$(sed -n 's/^ *-> //p' "$WORK/refused")
must "  what is said mends it: $mend" gw env PATH="$BIN:$PATH" bash -c "$mend"
check "  it does" says '^sent .*#80, SYN' explain tcp $SERVER4 "$POOL4#61080"

must "without pool4" jool pool4 flush --quick
check "  the host's own ports are named" says 'becomes 203.0.113.1#.* here; without pool4, .*61001-65535' \
	explain tcp "$CLIENT6#5001" "$SERVER6#80"
must "  pool4 comes back" jool pool4 add --tcp "$POOL4" $LOW-65535
must "  for UDP, too" jool pool4 add --udp "$POOL4" $LOW-65535

# --- which instance

check "what no rule takes is the kernel's" says '^kernel .*no rule takes it' \
	explain udp $CLIENT6 2001:db8:9::2#53
check "an address of the host is, too" says 'not in pool4' explain tcp $SERVER4 203.0.113.1#22
must "a second instance, without rules" jool -i manual instance add --iptables --pool6 2001:db8:64::/96
check "  is explained only as that" says "only a rule of yours" \
	explain udp $CLIENT6 2001:db8:64::cb00:7102#53 -i manual
check "  and otherwise named" says "^rule .*perhaps to nat64 'manual'" \
	explain udp $CLIENT6 2001:db8:64::cb00:7102#53
must "an SIIT instance in front of both" gw "$BIN/jool_siit" instance add siit --netfilter
must "  with a mapping" gw "$BIN/jool_siit" -i siit eamt add 2001:db8:6::8 198.18.0.8
explain udp 198.51.100.2 198.18.0.8#53 >"$WORK/several"
check "  gets what is in it" grep -q "^rule .*to siit 'siit': .*EAM row" "$WORK/several"
check "  and leaves what is unknown to it" grep -q '^kernel .*JSTAT46_SRC' "$WORK/several"
check "an unknown instance is named" rejects gw "$BIN/tylo" explain udp $CLIENT6 "$SERVER6#53" -i other
must "the SIIT instance goes" gw "$BIN/jool_siit" instance remove siit

must "an SIIT instance for the client" gw "$BIN/jool_siit" instance add siit --netfilter --pool6 2001:db8:46::/96
must "  by a mapping" gw "$BIN/jool_siit" -i siit eamt add $CLIENT6 198.18.0.2
check "what it does is foreseen" equal "$(sent udp "$CLIENT6#5001" 2001:db8:46::cb00:7102#7777 --size 6)" \
	"IPv4 UDP 198.18.0.2#5001 > $SERVER4#7777, TTL 64, 34 bytes"
watch siit server s0 'udp dst port 7777' -Q in -v -c 1
client nc -u -w 1 -p 5001 2001:db8:46::cb00:7102 7777 <<<"12345" >/dev/null || true
must "  the packet comes" within 5 arrives siit
check "  with these lengths, and a hop less" equal "$(as_seen siit)" "63 34"
check "  with these addresses and ports" seen siit "198.18.0.2.5001 > $SERVER4.7777: "
must "it goes, too" gw "$BIN/jool_siit" instance remove siit

# --- captures

watch pcap gw g6 'udp port 7777' -U -w "$WORK/capture" -c 2
must "a client asks" client $PYTHON "$HERE/udp.py" ask "$SERVER6" 7777 5
must "  both packets are captured" ends_within 5 "$WATCH_pcap"
explain --pcap "$WORK/capture" >"$WORK/told"
check "a capture is explained, a line each" equal "$(grep -c '^[12]\. ' "$WORK/told")" 2
check "  what goes out" grep -q "^1\. .*: translated => IPv4 UDP $POOL4#.* > $SERVER4#7777" "$WORK/told"
check "  what came back is not for translation" grep -q '^2\. .*: left to the kernel$' "$WORK/told"
check "no capture is no crash" rejects gw "$BIN/tylo" explain --pcap "$BIN/tylo"

# Has a packet come as soon as tcpdump listens.
ask_until() { # FILE
	client $PYTHON "$HERE/udp.py" ask "$SERVER6" 7777 5 && grep -q translated "$1"
}
spawn gw "$BIN/tylo" explain --live 'ip6 and udp dst port 7777' --limit 1 >"$WORK/live" 2>"$WORK/live.err"
live=$SPAWNED
must "what comes in is explained" within 10 ask_until "$WORK/live"
check "  in a line" grep -Eq "^1\. IPv6 UDP $CLIENT6#.* => IPv4 UDP $POOL4#.* > $SERVER4#7777" "$WORK/live"
check "  until the limit" ends_within 5 "$live"
spawn gw "$BIN/tylo" explain --live 'udp dst port 7777' --json >"$WORK/live" 2>"$WORK/live.err"
live=$SPAWNED
must "and without limit" within 10 ask_until "$WORK/live"
dump=$(pgrep -P "$live" tcpdump)
kill -INT "$live"
check "  until Ctrl-C" ends_within 5 "$live"
check "  which is a clean end" wait "$live"
check "  of tcpdump, too" ends_within 5 "$dump"
check "  of whole lines" jq -e .outcome "$WORK/live"
check "  the translator's own packets are not among them" not grep "IPv4 UDP $POOL4#.* > $SERVER4.*\"reason\"" \
	<(jq -c '{packet, reason}' "$WORK/live")
reader="until grep -qs explaining '$WORK/left.err'; do sleep 0.1; done"
spawn gw bash -o pipefail -c "'$BIN/tylo' explain --live 'udp port 9' 2>'$WORK/left.err' | $reader"
check "  nor longer than somebody reads" ends_within 10 "$SPAWNED"
check "  which is a clean end, too" wait "$SPAWNED"
check "a capture may come by a pipe" grep -q '^2\. ' <(explain --pcap - <"$WORK/capture")
check "a filter that makes no sense is said to be one" rejects gw "$BIN/tylo" explain --live 'nonsense filter'
check "a missing tcpdump is named" grep -q 'apt-get install tcpdump' \
	<(gw env PATH="$BIN" "$BIN/tylo" explain --live udp 2>&1 || true)

# --- who may ask

nobody() { gw setpriv --reuid=65534 --regid=65534 --clear-groups "$BIN/tylo" explain "$@"; }
check "the daemon does not answer everybody" grep -q 'needs root or membership' \
	<(nobody udp $CLIENT6 "$SERVER6#53" 2>&1 || true)
gw "$BIN/tylo" export >"$WORK/export.json"
chmod 644 "$WORK/export.json"
check "a file needs no rights" grep -q '^sent ' \
	<(nobody udp "$CLIENT6#5000" "$SERVER6#53" --config "$WORK/export.json")
must "the daemon stops" daemon_stop
check "  nor a daemon" says '^sent ' explain udp "$CLIENT6#5000" "$SERVER6#53" --config "$WORK/export.json"
check "without either, that is said" rejects gw "$BIN/tylo" explain udp $CLIENT6 "$SERVER6#53"
