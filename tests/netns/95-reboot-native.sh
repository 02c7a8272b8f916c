#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The machine loses power and boots anew, on Debian's own kernel: configuration and sessions are in
# force again, with the lifetimes that are left by the wall clock. Two virtual machines, the second
# of which has nothing of the first but the state directory.
here=$(dirname "$(readlink -f "$0")")
if [ -z "${TYLO_GUEST:-}" ]; then
	between=$(mktemp -d "${TMPDIR:-/tmp}/tylo-reboot.XXXXXX")
	trap 'rm -rf "$between"' EXIT
	chmod 755 "$between" # the guest's view of it is another user's
	"$here/../../tools/guest" "$here/95-reboot-native.sh" before >"$between/output"
	status=$?
	grep -v '^state ' "$between/output"
	[ "$status" = 0 ] || exit "$status"
	# The guest can write nowhere but to its console.
	sed -n 's/^state //p' "$between/output" | tr -d '\r' | base64 -d | tar -xz -C "$between" || exit 1
	"$here/../../tools/guest" "$here/95-reboot-native.sh" after "$between"
	exit
fi

. "$here/lib.sh"

# From a port of its own: the same flow before and after.
ask() { client $PYTHON -c "
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(('', 5353)); s.settimeout(5); s.connect(('$SERVER6', 7000))
s.send(b'x'); s.recv(9)"; }
# Protocol to remote address, without what goes by.
session() { jool session display --udp --numeric --csv --no-headers | grep ',5353,' | cut -d , -f 1-9; }

if [ "$1" = before ]; then
	gateway_up foreign
	must "a static mapping" jool bib add --udp "$CLIENT6#9" "$POOL4#61009"
	udp_echo server 7000
	check "an answer" ask
	session >"$STATE/session.txt"
	check "one session" equal "$(wc -l <"$STATE/session.txt")" 1
	jool global display --csv >"$STATE/settings.txt"
	jool pool4 display --udp --csv >"$STATE/pool4.txt"
	sleep 1
	daemon_kill
	tar -cz -C "$STATE" . | base64 | sed 's/^/state /'
	cat /proc/sys/kernel/random/boot_id | sed 's/^/--- boot /'
else
	cp -r "$2" "$STATE"
	rm -f "$STATE/output" "$STATE/lock"
	chmod 700 "$STATE"
	network_up
	POOL4=192.0.2.1
	must "the daemon gets ready" daemon_start
	check "the session is back before any packet" unchanged "$STATE/session.txt" session
	check "and has the rest of its five minutes" says '^0:0[0-4]:' sh -c \
		"ip netns exec $PREFIX-gw $BIN/jool session display --udp --numeric --csv --no-headers | grep ,5353, | cut -d , -f 10"
	check "settings" unchanged "$STATE/settings.txt" jool global display --csv
	check "pool4" unchanged "$STATE/pool4.txt" jool pool4 display --udp --csv
	check "the static mapping" says '61009' jool bib display --udp --numeric --csv
	udp_echo server 7000
	check "the flow goes on" ask
	check "as the same session" unchanged "$STATE/session.txt" session
	must "the daemon stops" daemon_stop
fi
