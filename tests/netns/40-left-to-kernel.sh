#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What is not ours stays the kernel's, and what others have set up stays as it is.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

echo "--- a gateway with rules of its own"
network_up
gw nft -f - <<'NFT'
table inet admin {
	set friends {
		type ipv6_addr
		elements = { 2001:db8:6::2 }
	}
	chain forward {
		type filter hook forward priority 0; policy accept;
		ip6 saddr @friends accept
		tcp dport 25 drop
	}
}
NFT
gw ip rule add from 198.51.100.77 lookup 77
network_state >"$WORK/before"
gw nft list table inet admin >"$WORK/admin"

must "the daemon gets ready" daemon_start
must "an instance and pool4 are accepted" configure
check "there is a table tylo" says '^table .* tylo$' gw nft list tables
check "the table of others is untouched" unchanged "$WORK/admin" gw nft list table inet admin
http_server gw 8080
http_server server
http_server uplink 8080
udp_echo gw 7000
check "translation works" client_fetch -o /dev/null "http://[$SERVER6]:8080/peer"

check "a service of the gateway, outside pool4's ports" \
	says "^(::ffff:)?$SERVER4 " server_fetch http://203.0.113.1:8080/peer
check "the same over UDP" server $PYTHON "$HERE/udp.py" ask 203.0.113.1 7000 600
check "the gateway uses IPv4 itself, with the kernel's own ports" \
	says '203.0.113.1 ' gw curl -sS --fail -m 10 http://$SERVER4:8080/peer
check "the gateway answers pings to its IPv4 address" ping_ok server 203.0.113.1 -e 100
check "the gateway pings" ping_ok gw $SERVER4 -e 100
check "the gateway answers pings to its IPv6 address" ping_ok client 2001:db8:6::1
check "the client's own view of a service of the gateway over IPv6" \
	says '^2001:db8:6::2 ' client_fetch 'http://[2001:db8:6::1]:8080/peer'

watch routed uplink u0 'icmp6 and src host 2001:db8:6::2' -Q in -v
check "IPv6 outside pool6 is routed" ping_ok client 2001:db8:9::2 -t 33
check "and TCP, untranslated" says '^2001:db8:6::2 ' client_fetch 'http://[2001:db8:9::2]:8080/peer'
watch_end routed
check "one hop is taken from it" seen routed 'hlim 32'

must "the daemon stops" daemon_stop
check "after the stop, everything is as before" unchanged "$WORK/before" network_state
