#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# logging-bib and logging-session: a line for each birth and each death, whatever its cause, and no
# packet waits for whoever reads them.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

logged() { grep -Eq -- "$1" "$WORK/daemon.$STARTS.log"; } # EXTENDED-EXPRESSION
number() { grep -Ec -- "$1" "$WORK/daemon.$STARTS.log" || true; }
pairs() { equal "$(number " $1")" "$(number " $2")"; }
logging() { jool global update logging-bib "$1" && jool global update logging-session "$1"; }

moment='[0-9]{4}/[0-9]{1,2}/[0-9]{1,2} [0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2} \(GMT\)'
head="^default $moment -"
POOL4=192.0.2.1
ours="$POOL4#[0-9]+"
mapping="$CLIENT6#[0-9]+ to $ours"
session="$CLIENT6#[0-9]+\|64:ff9b::cb00:7102#[0-9]+\|$ours\|$SERVER4#[0-9]+"

# --- births and deaths

gateway_up foreign
http_server server
udp_echo server 7000
random_file page 5000000
ask() { client $PYTHON "$HERE/udp.py" ask $SERVER6 7000 600; }
check "UDP before logging is switched on" ask
check "leaves no line" not logged 'Mapped|Added'
check "logging is switched on" logging true
check "a download" download_equals page
check "its mapping is logged" within 5 logged "$head Mapped $mapping \(TCP\)$"
check "and its session" within 5 logged "$head Added session $session\|TCP$"
check "a busy session is logged once" equal "$(number 'Added session .*TCP')" 1
check "pings" ping_ok client $SERVER6
check "are logged" within 5 logged "$head Added session $session\|ICMP$"
check "their sessions shall end soon" jool global update icmp-timeout 0:00:00.500
check "their end is logged" within 10 logged "$head Forgot session $session\|ICMP$"
check "with their mapping's" within 5 logged "$head Forgot $mapping \(ICMP\)$"
port=$(jool bib display --tcp --numeric --csv --no-headers | cut -d, -f5)
check "a mapping is removed by hand" jool bib remove "$POOL4#$port" --tcp
check "its session's end is logged" within 5 logged "$head Forgot session $session\|TCP$"
check "and the mapping's" within 5 logged "$head Forgot $CLIENT6#[0-9]+ to $POOL4#$port \(TCP\)$"
check "a static mapping is added" jool bib add 2001:db8:6::2#80 "$POOL4#61080" --udp
check "it is logged" within 5 logged "$head Mapped $CLIENT6#80 to $POOL4#61080 \(UDP\)$"
check "more traffic" ask
check "pool4 is flushed" jool pool4 flush
check "all that was mapped is forgotten" within 5 logged "$head Forgot $CLIENT6#80 to $POOL4#61080 \(UDP\)$"
check "with its sessions" within 5 logged "$head Forgot session $session\|UDP$"
for protocol in tcp udp icmp; do jool pool4 add --$protocol $POOL4 $LOW-65535; done
check "another download" download_equals page
check "the instance is removed" jool instance remove
check "every session that began has ended" within 5 pairs 'Added session .*TCP' 'Forgot session .*TCP'
check "every mapping, too" within 5 pairs 'Mapped .*TCP' 'Forgot 2.*TCP'
gateway_down

# --- nobody reads

network_up
mkfifo "$WORK/pipe"
STARTS=2
cat "$WORK/pipe" >"$WORK/daemon.2.log" &
READER=$!
PIDS+=("$READER")
spawn gw "$BIN/tylod" --state-dir "$STATE" 2>"$WORK/pipe" >&2
DAEMON=$SPAWNED
must "the daemon gets ready" within 15 daemon_ready
must "an instance and pool4 are accepted" configure
check "room for many" jool pool4 add --udp 192.0.2.0/24 1024-65535
check "logging is switched on" logging true
http_server server
for ((i = 1; i <= 8; i++)); do ip -n "$PREFIX-client" addr add "2001:db8:6::1:$i/64" dev c0 nodad; done
kill -STOP "$READER"
check "many sessions begin while nobody reads the log" \
	client $PYTHON "$HERE/udp.py" many $SERVER6 9 150000
check "packets do not wait for that" download_equals page
born() { jool stats display --all | sed -n 's/^JSTAT_SESSIONS: //p'; }
check "most find a place in the queues, and begin" between "$(born)" 80000 150010
wanted=$(($(born) + $(jool stats display --all | sed -n 's/^JSTAT_BIB_ENTRIES: //p')))
kill -CONT "$READER"
check "what was lost is reported" within 20 logged 'lines of logging-bib and logging-session were lost'
check "the daemon stops" daemon_stop
check "the log is read to its end" ends_within 10 "$READER"
lost=$(sed -n 's/.*logging-session were lost.* lines=\([0-9]*\).*/\1/p' "$WORK/daemon.2.log" | paste -sd+)
check "lines and lost lines are as many as births" \
	equal $(($(number ' - (Mapped|Added session) ') + ${lost:-0})) "$wanted"
