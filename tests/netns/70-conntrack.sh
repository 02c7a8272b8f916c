#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The kernel's connection tracking is not filled with translated flows; fragments are put together.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

tracked() { gw sysctl -n net.netfilter.nf_conntrack_count; }

flows() { # N new connections
	local i urls=()
	for ((i = 0; i < $1; i++)); do urls+=("http://[$SERVER6]:8080/peer"); done
	# One process a connection would be slow; without this, curl would use one connection for all.
	client_fetch -H 'Connection: close' "${urls[@]}" >"$WORK/flows.out" || return
	equal "$(sort -u "$WORK/flows.out" | wc -l)" "$1"
}

traffic() {
	local before after
	before=$(tracked)
	check "60 connections" flows 60
	check "pings" ping_ok client $SERVER6
	check "UDP" client $PYTHON "$HERE/udp.py" ask $SERVER6 7000 500
	after=$(tracked)
	check "the table of tracked connections stays as it was" between "$after" 0 $((before + 2))
}

fragments() {
	local size
	for size in 1453 4000 20000; do
		check "$size octets over UDP, in fragments both ways" \
			client $PYTHON "$HERE/udp.py" ask $SERVER6 7000 $size
		check "$size octets from the IPv4 side" \
			server $PYTHON "$HERE/udp.py" ask "$POOL4" 61070 $size
	done
	check "a ping of 4000 octets" ping_ok client $SERVER6 -s 4000
}

run() { # own|foreign
	gateway_up "$1"
	http_server server
	udp_echo server 7000
	udp_echo client 7000
	jool bib add $CLIENT6#7000 "$POOL4#61070" --udp
	fragments
	traffic

	echo "--- with a rule that looks at connections"
	gw nft -f - <<-'NFT'
		table inet admin {
			chain forward {
				type filter hook forward priority 0; policy accept;
				ct state established,related accept
			}
		}
	NFT
	local before
	before=$(tracked)
	check "connection tracking is active for the rest" ping_ok client 2001:db8:9::2
	check "and counts" between "$(tracked)" $((before + 1)) 1000
	traffic
	fragments
	gateway_down
}

run own
run foreign
