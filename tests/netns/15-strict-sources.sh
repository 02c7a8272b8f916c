#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Gateways that check where packets come from (rp_filter) translate all the same.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

run() { # own|foreign RP_FILTER
	echo "--- net.ipv4.conf.all.rp_filter=$2"
	TYLO_RP_FILTER=$2
	gateway_up "$1"
	http_server server
	http_server client
	random_file data 3000000
	jool bib add $CLIENT6#8080 "$POOL4#61080" --tcp
	check "ping" ping_ok client $SERVER6
	check "download" download_equals data
	check "upload" upload_equals data
	check "from outside to a static mapping" \
		server_fetch -o /dev/null "http://$POOL4:61080/peer"
	check "a program on the gateway" gw curl -gsS --fail -m 10 -o /dev/null "http://[$SERVER6]:8080/peer"
	gateway_down
}

for strictness in 1 2; do
	run own $strictness
	run foreign $strictness
done
