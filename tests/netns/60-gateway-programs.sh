#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Programs on the gateway itself: as clients of pool6, and as servers reached through it.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

gw_download() {
	rm -f "$WORK/got"
	gw curl -gsS --fail -m 20 -o "$WORK/got" "http://[$SERVER6]:8080/data" &&
		cmp "$WORK/got" "$WORK/files/data"
}

run() { # own|foreign
	gateway_up "$1"
	http_server server
	http_server gw
	random_file data 3000000

	check "ping from the gateway" ping_ok gw $SERVER6
	check "download on the gateway" gw_download
	check "the server sees pool4's address" \
		says "^(::ffff:)?$POOL4 (6[1-5][0-9]{3})$" gw curl -gsS --fail -m 10 "http://[$SERVER6]:8080/peer"

	check "the client pings the gateway's IPv4 address" ping_ok client 64:ff9b::203.0.113.1
	check "the client downloads from the gateway's IPv4 address" \
		download_equals data 64:ff9b::203.0.113.1
	check "the gateway's server sees pool4's address" \
		says "^(::ffff:)?$POOL4 " client_fetch 'http://[64:ff9b::203.0.113.1]:8080/peer'

	jool bib add $CLIENT6#8080 "$POOL4#61080" --tcp
	http_server client
	check "the gateway reaches the client through a static mapping" \
		gw curl -sS --fail -m 10 -o /dev/null "http://$POOL4:61080/peer"
	gateway_down
}

run own
run foreign
