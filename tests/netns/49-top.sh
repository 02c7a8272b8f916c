#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# `tylo top` in a terminal of its own: shows what is there (rates, sessions, their states, clients, pool4,
# reasons of drops, workers, the cluster), obeys keys, follows resizes, switches instances, survives
# the daemon, says what users without rights may not see, and gives the terminal back however it ends.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

top() { gw "$BIN/tylo" top "$@"; }
status_of() { # WANTED COMMAND...
	local wanted=$1 status=0
	shift
	"$@" || status=$?
	equal $status "$wanted"
}

T=$WORK/terminal
# Starts it in a terminal; what can be seen there is in $T/screen.
open_top() { # [--uncontrolled] COLUMNS LINES [COMMAND...]
	local options=()
	if [ "$1" = --uncontrolled ]; then options=("$1"); shift; fi
	options+=("$T" "$1" "$2")
	shift 2
	[ $# -gt 0 ] || set -- "$BIN/tylo" top
	rm -rf "$T"
	mkdir "$T"
	mkfifo "$T/do"
	spawn gw $PYTHON "$HERE/screen.py" "${options[@]}" "$@" 2>"$WORK/screen.err"
	within 10 test -s "$T/screen" || { cat "$WORK/screen.err"; return 1; }
}
tell() { timeout 5 bash -c 'echo "$1" >"$2"' - "$*" "$T/do"; }
shows() { grep -Eq -- "$1" "$T/screen"; } # EXTENDED-EXPRESSION
soon() { within 10 shows "$1" || { cat "$T/screen"; return 1; }; }
no_more() { within 10 not shows "$1" || { cat "$T/screen"; return 1; }; }
after() { # KEYS EXTENDED-EXPRESSION: what they bring
	tell keys "$1" && soon "$2"
}
ends() { # STATUS TERMINAL
	within 10 test -s "$T/end" || { echo "it goes on"; return 1; }
	equal "$(cat "$T/end")" "$1 $2"
}
AS_BEFORE="restored own cursor"
# What commands say of the same.
of_table() { jool session display --numeric --csv --no-headers "--$1" | grep -c "${2:-.}"; } # PROTOCOL [WORD]

# --- without a daemon, without a terminal

network_up
check "without a daemon, text has the status of all commands" status_of 253 top --once
check "  and says why" rejects gw "$BIN/tylo" top --once
check "without a terminal it does not begin" status_of 64 top
check "  and says what would do" eval 'rejects gw "$BIN/tylo" top && grep -q -- --once "$WORK/reject.out"'
check "an interval of 0 is refused" status_of 64 top --interval 0 --once
must "a screen without a daemon" open_top 80 24
check "  says so, and waits" soon 'trying again: no tylod runs in this network namespace'
must "the daemon gets ready" daemon_start
check "  is found, and has no instance" soon 'there is no instance; add one'
must "an instance and pool4 are accepted" configure
check "  is found" soon "^nat64 'default'"
tell keys q
check "q ends it; the terminal is as it was" ends 0 "$AS_BEFORE"

# --- traffic: two clients with 5 and 3 connections, another with 40 UDP sessions, pings

for address in 2001:db8:6::aa 2001:db8:6::bb 2001:db8:6::1:1; do
	ip -n "$PREFIX-client" addr add $address/64 dev c0 nodad
done
spawn server $PYTHON "$HERE/lasting.py" serve 7000 2>"$WORK/serve.log"
must "a server listens" within 10 listens server 7000
spawn client $PYTHON -c '
import socket, sys, time
held = []
for source, number in (("2001:db8:6::aa", 5), ("2001:db8:6::bb", 3)):
    for _ in range(number):
        held.append(socket.create_connection((sys.argv[1], 7000), 10, (source, 0)))
time.sleep(600)' "$SERVER6"
must "eight connections" within 10 equal_to 8 of_table tcp ESTABLISHED
must "40 UDP sessions" client $PYTHON "$HERE/udp.py" many "$SERVER6" 9 40
must "  are there" within 10 equal_to 40 of_table udp
spawn client ping -n -q -i 0.05 -I 2001:db8:6::2 "$SERVER6" >/dev/null
spawn server bash -c 'while echo x >/dev/udp/203.0.113.1/65000; do sleep 0.05; done'

# --- text

top --once >"$WORK/text"
cat "$WORK/text"
says_text() { grep -Eq -- "$1" "$WORK/text"; }
check "text has 80 columns at most" equal "$(awk 'length > 80' "$WORK/text")" ''
check "sessions by protocol" says_text '^SESSIONS 49 .* tcp 8  udp 40  icmp 1  mappings 49'
check "  by state, of which 8 are established" equal \
	"$(sed -n '/^ESTABLISHED /{n;p}' "$WORK/text" | tr -s ' ')" " 8 0 0 0 0 0 0"
check "clients, those with most sessions first" equal \
	"$(sed -n 's/^\(2001:db8:6::[^ ]*  *[0-9]*\).*/\1/p' "$WORK/text" | tr -s ' ')" \
	"2001:db8:6::1:1 40
2001:db8:6::aa 5
2001:db8:6::bb 3
2001:db8:6::2 1"
check "pings by direction" says_text '^icmp +[1-9][0-9.]* +[0-9.]+k? +[1-9][0-9.]* +[0-9.]+k?  '
check "nothing by TCP" says_text '^tcp +0 +0 +0 +0 +0 +0$'
check "what was not translated, and why" says_text ' bib4_not_found +[1-9][0-9.]* +[1-9]'
check "pool4" says_text '^udp +203.0.113.1 61001-65535 +40 of 4535 +0.9% \['
check "workers" says_text '^WORKERS  0: [0-9]+%'
check "queues" says_text '^QUEUES   [0-9]+ packets wait, lost 0 \(0/s\), overruns 0, malformed 0'
check "pages as often as wanted" equal "$(top --batch 3 --interval 0.5 | grep -c '^SESSIONS 49 ')" 3
check "an instance that does not exist" status_of 3 top --once -i nobody

# --- the screen

must "a screen of 80x24" open_top 80 24
check "a page" soon '^tylo top .* tylod [0-9.]+, up [0-9:]+  ready  every 1 s$'
check "  has the sessions" soon '^SESSIONS 49 .* tcp 8  udp 40  icmp 1  mappings 49'
check "  their states" soon '^ +8 +0 +0 +0 +0 +0 +0$'
check "  the client with most" soon '^2001:db8:6::1:1 +40 '
check "  pool4" soon '^tcp +203.0.113.1 61001-65535 +8 of 4535 '
check "  rates" soon '^icmp +[1-9]'
check "  reasons" soon 'bib4_not_found +[1-9]'
check "  queues" soon '^QUEUES   [0-9]+ packets wait'
check "  and the keys on the last line" equal "$(sed -n '24s/ .*//p' "$T/screen")" q
check "clients by TCP sessions" after s '^TALKERS  tcp sessions, /128'
check "  have these" soon '^2001:db8:6::aa +5 '
check "clients by network" after g '^TALKERS  tcp sessions, /64'
check "  have these" soon '^2001:db8:6::/64 +8 '
check "asking less often" after + ' every 2 s'
check "asking more often" after -- ' every 0.5 s'
check "help" after '?' '^KEYS'
check "  and back" after '?' '^SESSIONS'
check "pause" after p PAUSED
check "  and on" eval 'tell keys p && no_more PAUSED'
check "keys that mean nothing, and parts of keys" after '\x1b[A\x1bOxz1\x1b[5~?' '^KEYS'
tell keys '?'
tell size 60 10
check "too small a terminal says so" soon '^too small: 60x10, needs 80x24$'
tell size 130 45
check "a large one has room for more" soon '^TALKERS  tcp sessions, /64, [0-9]+ s ago {30,}NOT TRANSLATED'
check "  and the keys on its last line" within 5 eval '[ "$(sed -n "45s/ .*//p" "$T/screen")" = q ]'
tell size 80 24
check "and back" soon '^TALKERS  tcp sessions'

must "a second instance" gw "$BIN/jool_siit" instance add other --netfilter --pool6 2001:db8:64::/96
check "it is seen" soon "^nat64 'default'  \(1 of 2\)"
check "it is the next" after i "^siit 'other'  \(2 of 2\)"
check "  without sessions" soon 'translates without sessions'
check "the first one comes after it" after '\t' "^nat64 'default'  \(1 of 2\)"
check "  with its sessions" soon '^SESSIONS 49 '
must "the second instance goes" gw "$BIN/jool_siit" instance remove other

must "a key" gw "$BIN/tylo" sync keygen "$WORK/key"
must "an instance takes part" jool global update ss-enabled true
must "a node" gw "$BIN/tylo" sync set --node 7 --key "$WORK/key" --group ff02::db8:64 --dev gu
check "it is a node" soon '^SYNC     node 7 ready, peers none'
check "  with its lag and gaps" soon '^  lag [0-9]+ ms, gaps 0 \(0/s\)'
must "a node no more" gw "$BIN/tylo" sync off
check "  is seen" no_more '^SYNC'

daemon_kill
check "a daemon that is killed is missed" soon 'all of this is [0-9]+ s old, trying again: no tylod'
check "  and no rates are shown" soon '^icmp +- +- +- '
must "the daemon gets ready again" daemon_start
check "  is seen, with its sessions" soon "^nat64 'default'"
check "  and rates" soon '^icmp +[1-9]'
check "colours are there" grep -q $'\x1b\\[[0-9;]*38;5;6' "$T/raw"
tell signal 15
check "SIGTERM ends it; the terminal is as it was" ends 143 "$AS_BEFORE"

# --- other ways to end, other users, other terminals

must "a screen without colours" open_top 80 24 env NO_COLOR=1 "$BIN/tylo" top -i default
check "  shows the same" soon '^SESSIONS '
check "  without colours" not grep -q $'\x1b\\[[0-9;]*38;5;' "$T/raw"
tell keys '\x1b'
check "Esc ends it" ends 0 "$AS_BEFORE"
must "another" open_top 80 24
check "  shows something" soon '^SESSIONS '
tell keys '\x03'
check "Ctrl-C ends it" ends 0 "$AS_BEFORE"
must "another" open_top 80 24
check "  shows something" soon '^SESSIONS '
tell signal 2
check "SIGINT ends it" ends 0 "$AS_BEFORE"
must "another" open_top 80 24
check "  shows something" soon '^SESSIONS '
tell signal 1
check "SIGHUP ends it; the terminal is as it was" ends 129 "$AS_BEFORE"
must "another" open_top 80 24
check "  shows something" soon '^SESSIONS '
tell hangup
check "a hangup ends it" ends 129 "gone alternate hidden"
must "one that no signal tells of a hangup" open_top --uncontrolled 80 24
check "  shows something" soon '^SESSIONS '
tell hangup
check "  ends with its terminal, too" ends 129 "gone alternate hidden"

must "a terminal that does not know its size" open_top 0 0
check "  is taken for one of 80x24" within 10 grep -q SESSIONS "$T/raw"
tell keys q
check "  and ends" ends 0 "$AS_BEFORE"

must "a user without rights" open_top 80 24 setpriv --reuid=65534 --clear-groups "$BIN/tylo" top
check "  is told so" soon "^nat64 'default'  totals only: this needs root"
check "  and sees totals" soon '^received +[1-9][0-9.]* +- +[1-9]'
check "  reasons" soon 'bib4_not_found +[1-9]'
check "  sessions" soon '^SESSIONS 49 '
check "  and no clients" soon '^this needs root or membership'
tell keys q
check "  and ends" ends 0 "$AS_BEFORE"
