#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# An IPv4 host reaches an IPv6 server through a static mapping.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

server_download() { # URL
	rm -f "$WORK/got"
	server_fetch -o "$WORK/got" "$1" && cmp "$WORK/got" "$WORK/files/page"
}

run() { # own|foreign
	gateway_up "$1"
	http_server client
	udp_echo client 7000
	random_file page 3000000
	local page=http://$POOL4:61080/page

	check "before: the port does not lead to the client" not server_fetch -m 2 -o /dev/null "$page"
	check "a static TCP entry is accepted" jool bib add $CLIENT6#8080 "$POOL4#61080" --tcp
	check "a static UDP entry is accepted" jool bib add $CLIENT6#7000 "$POOL4#61070" --udp
	check "it is shown as static" \
		says "^TCP,$CLIENT6,8080,$POOL4,61080,1$" jool bib display --tcp --numeric --csv

	check "an IPv4 host downloads from the IPv6 server" server_download "$page"
	check "the IPv6 server sees the IPv4 host behind pool6" \
		says '^64:ff9b::cb00:7102 ' server_fetch "http://$POOL4:61080/peer"
	check "a host one hop further, too" beyond curl -sS --fail -m 20 -o /dev/null "$page"
	check "UDP" server $PYTHON "$HERE/udp.py" ask "$POOL4" 61070 600

	check "an entry outside pool4 is refused" \
		rejects gw jool bib add $CLIENT6#80 "$POOL4#80" --tcp
	check "a colliding entry is refused" \
		rejects gw jool bib add 2001:db8:6::99#8080 "$POOL4#61080" --tcp
	check "the entry is removed" jool bib remove "$POOL4#61080" --tcp
	check "after: the port does not lead to the client" not server_fetch -m 2 -o /dev/null "$page"
	gateway_down
}

run own
run foreign
