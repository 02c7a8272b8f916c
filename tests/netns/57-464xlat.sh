#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# 464XLAT (RFC 6877): an IPv4-only client behind a stateless translator, a stateful one beyond.
. "$(dirname "$(readlink -f "$0")")/siit.sh"

jool_clat() { timeout "$LIMIT" ip netns exec "$PREFIX-clat" "$BIN/jool_siit" "$@"; }

clat_ready() { grep -q ready "$WORK/clat.log"; }

clat_configure() {
	jool_clat instance add --pool6 64:ff9b::/96 || return
	jool_clat eamt add 192.168.1.0/24 2001:db8:464::/120
}

xlat_up() { # MTU of the IPv6 link between the translators, of the IPv4 link beyond
	xlat_network_up
	# Hosts that expect 1500 everywhere: the translators have to tell what fits.
	ip -n "$PREFIX-beyond" route replace default via 198.51.100.1 advmss 1460
	ip -n "$PREFIX-phone" route replace default via 192.168.1.1 advmss 1460
	set_mtu clat cu "$1"
	set_mtu gw g6 "$1"
	set_mtu server s1 "$2"
	set_mtu beyond b0 "$2"

	POOL4=203.0.113.1
	must "the PLAT gets ready" daemon_start
	must "and takes an instance and pool4" configure
	spawn clat "$BIN/tylod" --state-dir "$WORK/clat" 2>"$WORK/clat.log" >&2
	CLAT=$SPAWNED
	must "the CLAT gets ready" within 15 clat_ready
	must "and takes an instance" clat_configure
	http_server beyond
	udp_echo beyond 7000
	random_file big 30000000
}

traffic() {
	check "ping" ping_ok phone 198.51.100.2
	check "ping with 1000 octets" ping_ok phone 198.51.100.2 -s 1000
	check "download" fetch_equals phone 198.51.100.2 big
	check "upload" send_equals phone 198.51.100.2 big
	check "the server sees pool4's address" says "^(::ffff:)?$POOL4 " \
		in_ns phone curl -gsS -m 10 "$(url 198.51.100.2 peer)"
	check "1000 octets over UDP" ask phone 198.51.100.2 1000
	check "4000 octets over UDP, in fragments both ways" ask phone 198.51.100.2 4000
	check "port unreachable" says '^3 3 0 198.51.100.2$' icmp_error phone 198.51.100.2 9 40
}

echo "--- wide links"
xlat_up 1500 1500
traffic
# Answers that may be fragmented come in fragments of 1280 octets, and ICMP in fragments cannot be
# translated a second time (RFC 7915, section 1.2) unless the PLAT is told that they need not be.
check "answers to large pings are fragmented, and lost" not ping_ok phone 198.51.100.2 -s 1400
jool global update lowest-ipv6-mtu 1500
check "unless the PLAT is told what fits" ping_ok phone 198.51.100.2 -s 1400
# The PLAT's address has no IPv4 form: the CLAT lends its own (RFC 6791).
check "traceroute: CLAT, PLAT, router, host" \
	equal "$(hops phone 198.51.100.2)" "192.168.1.1 192.168.1.1 203.0.113.2 198.51.100.2"

# From the other side, by a static mapping.
jool bib add "2001:db8:464::8#62000" "$POOL4#62000" --udp
spawn phone $PYTHON "$HERE/udp.py" echo 62000 2>>"$WORK/udp.log" >&2
must "a UDP echo server listens at the phone" within 10 listens phone 62000
check "4000 octets over UDP from the other side" \
	beyond $PYTHON "$HERE/udp.py" ask $POOL4 62000 4000
check "traceroute from the other side ends at the phone" says " $POOL4\$" \
	hops beyond $POOL4 -U -p 62000

end "$CLAT" KILL
spawn clat "$BIN/tylod" --state-dir "$WORK/clat" 2>"$WORK/clat.log" >&2
must "a killed CLAT gets ready again" within 15 clat_ready
check "and translates as before" ask phone 198.51.100.2 4000
gateway_down
rm -rf "$WORK/clat"

for mtus in '1280 1500' '1400 1500' '1500 1280' '1500 1400' '1280 1400'; do
	echo "--- MTU between the translators and beyond: $mtus"
	# shellcheck disable=SC2086 # two words
	xlat_up $mtus
	traffic
	gateway_down
	rm -rf "$WORK/clat"
done
