#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Fragments. NAT64 translates what the kernel puts together, and nothing of what it cannot put
# together; stateless translation takes them one by one and leaves the judgement to the receiver.
. "$(dirname "$(readlink -f "$0")")/siit.sh"

GOOD=7000 BAD=7001 # destination ports of what must, and what must not arrive
GOOD4=61070 BAD4=61071

fragments() { # NAMESPACE ask|send|syn HOW SRC SPORT DST DPORT [SIZE [ID]]
	local ns=$1
	shift
	in_ns "$ns" timeout "$LIMIT" $PYTHON "$HERE/fragments.py" "$@"
}

# --- NAT64 ----------------------------------------------------------------------------------------

client_asks() { fragments client ask "$1" $CLIENT6 "$SPORT" "$SERVER6" $GOOD "$2"; } # HOW SIZE
server_asks() { fragments server ask "$1" $SERVER4 "$SPORT" "$POOL4" $GOOD4 "$2"; }
client_sends() { fragments client send "$1" $CLIENT6 "$SPORT" "$SERVER6" $BAD 4000 "${2:-9}"; } # HOW [ID]
server_sends() { fragments server send "$1" $SERVER4 "$SPORT" "$POOL4" $BAD4 4000 "${2:-9}"; }

SPORT=5000
next_port() { SPORT=$((SPORT + 1)); }

whole_packets() {
	local how size
	for size in 4000 60000; do
		check "$size octets over UDP from IPv6" client $PYTHON "$HERE/udp.py" ask $SERVER6 $GOOD $size
		check "$size octets over UDP from IPv4" server $PYTHON "$HERE/udp.py" ask "$POOL4" $GOOD4 $size
		for how in ordered reversed shuffled twice tiny; do
			next_port
			check "$how fragments of $size octets from IPv6" client_asks $how $size
			check "$how fragments of $size octets from IPv4" server_asks $how $size
		done
	done
}

# A packet that gets through shows that those before it did not.
later_ones_pass() {
	next_port
	check "the next packet from IPv6 gets through" client_asks ordered 100
	check "the next packet from IPv4 gets through" server_asks ordered 100
}

watch_bad() {
	watch bad-v4 server s0 "src host $POOL4 and (udp dst port $BAD or tcp dst port $BAD or \
(ip[6:2] & 0x3fff != 0))" -Q in
	watch bad-v6 client c0 "src net 64:ff9b::/96 and (udp dst port $BAD or ip6[6] == 44)" -Q in
}

nothing_bad() {
	watch_end bad-v4
	watch_end bad-v6
	check "nothing of it arrived at the IPv4 side" nothing_seen bad-v4
	check "nothing of it arrived at the IPv6 side" nothing_seen bad-v6
}

overlapping() { # RFC 5722; Linux does the same for IPv4
	watch_bad
	check "overlapping fragments from IPv6 are sent" client_sends overlapping
	check "overlapping fragments from IPv4 are sent" server_sends overlapping
	later_ones_pass
	nothing_bad
}

given_up() { # NAME: the kernel says so to whoever sent the first fragment
	check "$1: the kernel gives up" within 20 grep -q . "$WORK/$1.seen"
}

missing() {
	gw sysctl -qw net.netfilter.nf_conntrack_frag6_timeout=1 net.ipv4.ipfrag_time=1
	watch_bad
	watch given-up-v6 client c0 'icmp6 and ip6[40] == 3 and ip6[41] == 1' -Q in
	watch given-up-v4 server s0 'icmp[0] == 11 and icmp[1] == 1' -Q in
	check "fragments but one from IPv6 are sent" client_sends missing 17
	check "fragments but one from IPv4 are sent" server_sends missing 17
	later_ones_pass
	given_up given-up-v6
	given_up given-up-v4
	watch_end given-up-v6
	watch_end given-up-v4
	check "the last one from IPv6 comes too late" client_sends late 17
	check "the last one from IPv4 comes too late" server_sends late 17
	later_ones_pass
	nothing_bad
}

# The ports are in the first fragment, the rest of the TCP header is not. IPv6 has such fragments
# discarded (RFC 8200 section 4.5); whatever becomes of it, it must not go on untranslated.
without_header() {
	watch_bad
	watch syn client c0 "src net 64:ff9b::/96 and tcp dst port $GOOD" -Q in
	check "a TCP header in two fragments from IPv6 is sent" \
		fragments client syn tiny $CLIENT6 5900 $SERVER6 $BAD
	check "and one from IPv4" fragments server syn tiny $SERVER4 5900 "$POOL4" $GOOD4
	later_ones_pass
	check "the one from IPv4 arrives as a whole" within 5 grep -q 'Flags \[S\]' "$WORK/syn.seen"
	watch_end syn
	nothing_bad
}

stateful() {
	local port protocol
	gateway_up own
	for protocol in tcp udp; do
		jool bib add $CLIENT6#$GOOD "$POOL4#$GOOD4" --$protocol
		jool bib add $CLIENT6#$BAD "$POOL4#$BAD4" --$protocol
	done
	for port in $GOOD $BAD; do
		udp_echo client $port
		udp_echo server $port
	done
	# As `watch_leaks`, but later fragments have no ports, and the kernel says what it gave up.
	watch leaks-v4 server s0 "ip and not (src host $POOL4 and \
(src portrange $LOW-65535 or ip[6:2] & 0x1fff != 0 or icmp[icmptype] == icmp-timxceed))" -Q in
	watch leaks-v6 uplink u0 'net 64:ff9b::/96' -Q in
	whole_packets
	overlapping
	without_header
	missing
	no_leaks
	gateway_down
}

# --- stateless ------------------------------------------------------------------------------------

six_fragments() { fragments six "$1" "$2" "$SIX6" "$SPORT" "$FOUR6" $GOOD "$3"; } # ask|send HOW SIZE
four_fragments() { fragments four "$1" "$2" $FOUR4 "$SPORT" $SIX4 $GOOD "$3"; }

counted() { [ "$(wc -l <"$WORK/$1.seen")" -ge "$2" ]; } # NAME NUMBER

arrived() { # NAME NUMBER
	check "$1: every fragment arrives" within 10 counted "$1" "$2"
	watch_end "$1"
	# tcpdump ends its output with an empty line
	check "$1: and nothing else" equal "$(grep -c . "$WORK/$1.seen")" "$2"
}

# Of what no receiver can put together, everything arrives, and the receiver does not take it.
one_by_one() { # HOW NUMBER
	next_port
	watch six-to-four four f0 "src host $SIX4 and ip[6:2] & 0x3fff != 0" -Q in
	watch four-to-six six s0 "src host $FOUR6 and ip6[6] == 44" -Q in
	watch answers-four four f0 "dst port $SPORT" -Q out
	watch answers-six six s0 "dst port $SPORT" -Q out
	check "$1 fragments from IPv6 are sent" six_fragments send "$1" 4000
	check "$1 fragments from IPv4 are sent" four_fragments send "$1" 4000
	arrived six-to-four "$2"
	arrived four-to-six "$2"
	next_port
	check "the next packet from IPv6 is answered" six_fragments ask ordered 100
	check "the next packet from IPv4 is answered" four_fragments ask ordered 100
	watch_end answers-four
	watch_end answers-six
	check "the IPv4 host did not take them" nothing_seen answers-four
	check "the IPv6 host did not take them" nothing_seen answers-six
}

stateless() { # pool6|eam
	local how size
	siit_up "$1"
	udp_echo six $GOOD
	udp_echo four $GOOD
	for size in 4000 60000; do
		for how in ordered reversed shuffled twice tiny; do
			next_port
			check "$how fragments of $size octets from IPv6" six_fragments ask $how $size
			check "$how fragments of $size octets from IPv4" four_fragments ask $how $size
		done
	done
	one_by_one overlapping 5
	one_by_one missing 3
	gateway_down
}

stateful
stateless pool6
stateless eam
