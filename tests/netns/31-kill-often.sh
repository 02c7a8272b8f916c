#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kill -9 at any instant, also while starting, under load: connections that were there before go on,
# and the database is sound. KILLS=200 kills as often, SEED=N repeats the same instants.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

kills=${KILLS:-15}
seed=${SEED:-$RANDOM}
RANDOM=$seed
echo "--- $kills kills, SEED=$seed"

pause() { sleep "$(awk -v r="$RANDOM" -v low="$1" -v high="$2" 'BEGIN { print low + (high - low) * r / 32768 }')"; }

killed() {
	local from=$EPOCHREALTIME
	daemon_kill
	echo "$from $EPOCHREALTIME" >>"$WORK/kills"
}

# Killed somewhere on its way to readiness.
stillborn() {
	STARTS=$((STARTS + 1))
	spawn gw "$BIN/tylod" --state-dir "$STATE" 2>"$WORK/daemon.$STARTS.log" >&2
	DAEMON=$SPAWNED
	pause 0 0.3
	killed
}

sound() { $PYTHON "$HERE/check_state.py" "$STATE"; }

gateway_up foreign
jool pool4 add --tcp 192.0.2.0/28 1024-60000
# As short as may be, so that with many kills mappings go as fast as they come.
jool global update tcp-trans-timeout 0:04:00
spawn server $PYTHON "$HERE/lasting.py" serve 8081 2>>"$WORK/lasting.log" >&2
must "a server listens" within 10 listens server 8081
spawn client $PYTHON "$HERE/lasting.py" hold "$SERVER6" 8081 "$WORK" 50 2>>"$WORK/lasting.log" >&2
hold=$SPAWNED
must "50 connections are open" within 20 test -e "$WORK/lasting.open"
spawn client $PYTHON "$HERE/lasting.py" churn "$SERVER6" 8081 2>>"$WORK/lasting.log" >&2
churn=$SPAWNED
sleep 1

for ((kill = 1; kill <= kills; kill++)); do
	pause 0 1.2
	killed
	check "kill $kill: the database is sound" sound
	if [ $((RANDOM % 4)) = 0 ]; then
		stillborn
		check "kill $kill: and after a kill while starting" sound
	fi
	must "kill $kill: the daemon starts again" daemon_start
done
check "the last one found sessions" grep -Eq 'sessions=[1-9]' "$WORK/daemon.$STARTS.log"
end "$churn"
touch "$WORK/lasting.end"
check "the long-lived connections end" ends_within 90 "$hold"
check "none of them broke" wait "$hold"
cat "$WORK/lasting.log"
check "nothing had to be left out" not grep -hE 'make no sense|damaged' "$WORK"/daemon.*.log
must "the daemon stops" daemon_stop
check "the database is sound" sound
