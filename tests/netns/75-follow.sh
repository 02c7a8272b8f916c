#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Sessions are followed live. Nobody who follows slows the translator, however slow they are.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

# Follows into $WORK/NAME.rows and $WORK/NAME.notes; the process is in $FOLLOWER.
follow() { # NAME [OPTION...]
	local name=$1
	shift
	spawn gw "$BIN/jool" session follow "$@" >"$WORK/$name.rows" 2>"$WORK/$name.notes"
	FOLLOWER=$SPAWNED
}
follows() { # NAME [OPTION...]
	follow "$@"
	must "$1 follows" within 5 grep -q "following the sessions of instance 'default'" "$WORK/$1.notes"
}
row() { grep -Eq -- "$2" "$WORK/$1.rows"; } # NAME EXTENDED-EXPRESSION
ends_with() { # STATUS PID
	local status=0
	ends_within 5 "$2" || return
	wait "$2" || status=$?
	equal "$status" "$1"
}
only_rows() { ! grep -Evn -- "$2" "$WORK/$1.rows"; } # NAME EXTENDED-EXPRESSION
objects() { # NAME
	$PYTHON - "$WORK/$1.rows" <<-'END'
		import json, sys
		rows = [json.loads(line) for line in open(sys.argv[1])]
		assert {row["event"] for row in rows} == {"new", "update", "end"}, rows
		assert any(row["protocol"] == "TCP" and row["state"] == "ESTABLISHED" for row in rows), rows
	END
}
# What came and what was missed.
total() { # NAME
	local lost
	lost=$(sed -n 's/^Warning: \([0-9]*\) lines are missing.*/\1/p' "$WORK/$1.notes" | paste -sd+ | sed 's/^$/0/')
	echo $(($(wc -l <"$WORK/$1.rows") + lost))
}
same_total() { equal "$(total "$1")" "$(total "$2")"; }
followed() { [ "$(total "$1")" -ge "$2" ]; }
free_seat() { jool session follow | true; } # it ends as it finds its reader gone

gateway_up foreign
http_server server
udp_echo server 7000
random_file page 20000000

# --- rows

address='[0-9a-f:]+,[0-9]+'
v4='[0-9.]+,[0-9]+'
time='[0-9]+:[0-5][0-9]:[0-5][0-9](\.[0-9]{3})?'
follows plain
plain=$FOLLOWER
follows events --events
events=$FOLLOWER
follows json --json --events
json=$FOLLOWER
check "a download goes on beside followers" download_equals page
check "UDP, too" client $PYTHON "$HERE/udp.py" ask $SERVER6 7000 600
check "pings, too" ping_ok client $SERVER6
tcp="TCP,$CLIENT6,[0-9]+,$POOL4,[0-9]+,$SERVER4,8080"
check "a TCP session is born" within 5 row events "^new,$tcp,0:0[34]:"
check "it is established" row events "^update,$tcp,(2:00:00|1:59:)"
check "it closes" row events "^update,$tcp,0:0[34]:"
check "without --events the same rows have no first column" within 5 row plain "^$tcp,(2:00:00|1:59:)"
check "UDP" within 5 row plain "^UDP,$CLIENT6,[0-9]+,$POOL4,[0-9]+,$SERVER4,7000,0:0[45]:"
check "ICMP" within 5 row plain "^ICMP,$CLIENT6,[0-9]+,$POOL4,[0-9]+,$SERVER4,[0-9]+,0:0[01]:"
port=$(jool bib display --udp --numeric --csv --no-headers | cut -d, -f5)
check "a mapping is removed" jool bib remove "$POOL4#$port" --udp
check "its session is seen to end" within 5 row events "^end,UDP,$CLIENT6,[0-9]+,$POOL4,$port,$SERVER4,7000,0:00:00$"
check "pings shall end soon" jool global update icmp-timeout 0:00:00.500
check "they are seen to end" within 10 row events "^end,ICMP,$CLIENT6,[0-9]+,$POOL4,[0-9]+,$SERVER4,[0-9]+,0:00:00$"
check "JSON objects say the same" within 5 objects json
check "standard output has rows and nothing else" only_rows plain "^(TCP|UDP|ICMP),$address,$v4,$v4,$time$"
check "a busy session has few rows" between "$(grep -c ^TCP "$WORK/plain.rows")" 2 10

# --- the end

kill -INT "$plain"
check "Ctrl-C ends a follower, with status 0" ends_with 0 "$plain"
kill -INT "$events"
check "and another" ends_with 0 "$events"
end "$json"
first_row() {
	timeout "$LIMIT" ip netns exec "$PREFIX-gw" "$BIN/jool" session follow 2>"$WORK/first.notes" | head -n 1 >"$WORK/first.rows"
	equal "${PIPESTATUS[0]}" 0
}
first_row &
first=$!
check "a follower waits for its first row" within 5 grep -q following "$WORK/first.notes"
check "traffic" ping_ok client $SERVER6
check "it ends with its reader, with status 0" ends_with 0 "$first"
check "having read a row" row first '^ICMP,'

# --- slow ones

check "room for many" jool pool4 add --udp 192.0.2.0/24 1024-65535
for ((i = 1; i <= 8; i++)); do ip -n "$PREFIX-client" addr add "2001:db8:6::1:$i/64" dev c0 nodad; done
no_pings() { [ -z "$(jool session display --icmp --csv --no-headers)" ]; }
check "the pings are over" within 10 no_pings
follows quick --events
follows stopped --events
stopped=$FOLLOWER
kill -STOP "$stopped"
check "many sessions begin while one follower is stopped" client $PYTHON "$HERE/udp.py" many $SERVER6 9 150000
check "a download is not held up by it" download_equals page
check "the other one hears of it" within 20 followed quick 100000
check "the stopped one has not" equal "$(total stopped)" 0
kill -CONT "$stopped"
check "it is told how much it missed" \
	within 20 grep -Eq '^Warning: [0-9]+ lines are missing here: they were not read fast enough$' "$WORK/stopped.notes"
check "rows and missing rows are as many as the other one's" within 20 same_total stopped quick

# --- many

crowd=()
for ((i = 3; i <= 16; i++)); do
	follow "crowd$i"
	crowd+=("$FOLLOWER")
done
check "sixteen follow" within 10 eval "[ \$(grep -l following '$WORK'/{quick,stopped,crowd*}.notes | wc -l) = 16 ]"
check "one more is refused" rejects gw "$BIN/jool" session follow
check "other commands are served" jool stats display
check "traffic" ping_ok client $SERVER6
all_have_seen() {
	local i
	for ((i = 3; i <= 16; i++)); do row "crowd$i" '^ICMP,' || return; done
}
check "all see it" within 5 all_have_seen
end "${crowd[0]}" KILL
check "the place of one that was killed is free" within 5 free_seat

# --- the end of what is followed

check "the instance is removed" jool instance remove
check "who followed it ends, with a status" ends_with 3 "$stopped"
check "and is told why" grep -q "^Error: instance 'default' was removed$" "$WORK/stopped.notes"
check "nothing is left to follow" rejects gw "$BIN/jool" session follow
check "a new instance is accepted" configure
check "with room for many" jool pool4 add --udp 192.0.2.0/24 1024-65535
follows stuck
stuck=$FOLLOWER
kill -STOP "$stuck"
check "a stopped follower is behind" client $PYTHON "$HERE/udp.py" many $SERVER6 9 50000
follows last
last=$FOLLOWER
started=$EPOCHSECONDS
check "the daemon stops" daemon_stop
check "at once" between $((EPOCHSECONDS - started)) 0 3
check "the follower ends" ends_with 108 "$last"
check "and is told why" grep -q '^Error: tylod was stopped$' "$WORK/last.notes"
kill -CONT "$stuck"
check "so does the one that was behind" ends_within 5 "$stuck"
