#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# An IPv4 host opens a connection before the client does: both meet, or the host learns that nobody
# came.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

# Opens a connection from a port of its own to ADDRESS PORT, says a word and prints the answer.
MEET='
import socket, sys
family, own, address, port, word = sys.argv[1:]
s = socket.socket(socket.AF_INET6 if family == "6" else socket.AF_INET)
s.settimeout(20)
s.bind(("", int(own)))
s.connect((address, int(port)))
s.sendall(word.encode())
print(s.recv(99).decode())
'

count() { jool stats display --all --csv --no-headers | sed -n "s/^$1,//p"; } # COUNTER
counted() { [ "$(count "$1")" = "$2" ]; }                                    # COUNTER NUMBER

refused() { # PORT: curl says 7 for an error, 28 for silence
	local status=0
	server_fetch -m 30 -o /dev/null "http://$POOL4:$1/" || status=$?
	[ $status = 7 ]
}

run() { # own|foreign
	gateway_up "$1"

	spawn server $PYTHON -c "$MEET" 4 9000 "$POOL4" 61600 'from IPv4' >"$WORK/server.said" 2>&1
	local server=$SPAWNED
	must "the host's SYN is held back" within 5 counted JSTAT_TYPE1PKT 1
	check "the client opens the same connection and hears the host" \
		says '^from IPv4$' client $PYTHON -c "$MEET" 6 5000 $SERVER6 9000 'from IPv6'
	check "the host gets through" ends_within 10 "$server"
	check "and hears the client" grep -x 'from IPv6' "$WORK/server.said"
	check "the client has the address that the host chose" \
		says "^TCP,$CLIENT6,5000,$POOL4,61600,0$" jool bib display --tcp --numeric --csv

	check "where nobody comes, the host is told so" refused 61601
	check "at once when too many wait" jool global update maximum-simultaneous-opens 0
	check "port unreachable" refused 61602
	check "and it is counted" counted JSTAT_SO_FULL 1
	gateway_down
}

run own
run foreign
