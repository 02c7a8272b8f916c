#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A service manager that keeps descriptors restarts the daemon under 10,000 datagrams a second: none
# is lost. RESTARTS=N.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

restarts=${RESTARTS:-5}

ready() { [ "$(wc -l <"$WORK/ready" 2>/dev/null || echo 0)" -ge "$1" ]; } # TIMES

POOL4=192.0.2.1
network_up
spawn gw $PYTHON "$HERE/manager.py" "$WORK" "$BIN/tylod" --keep-rules --state-dir "$STATE" \
	2>"$WORK/daemon.1.log" >&2
manager=$SPAWNED
must "the daemon gets ready" within 15 ready 1
must "an instance and pool4 are accepted" configure
check "with nothing from before" equal "$(tail -n 1 "$WORK/ready")" 0
spawn server $PYTHON "$HERE/stream.py" receive 4000 >"$WORK/received"
receive=$SPAWNED
must "a receiver listens" within 10 listens server 4000
spawn client $PYTHON "$HERE/stream.py" send "$SERVER6" 4000 10000 >"$WORK/sent"
send=$SPAWNED
sleep 1
for ((restart = 1; restart <= restarts; restart++)); do
	kill -HUP "$manager"
	must "restart $restart" within 15 ready $((restart + 1))
	check "with descriptors" between "$(tail -n 1 "$WORK/ready")" 5 300
	sleep 0.5
done
end "$send"
sleep 0.5
end "$receive"
wait "$send" "$receive" || true
read -r sent <"$WORK/sent"
read -r received again silence <"$WORK/received"
echo "--- $sent datagrams sent, $received received, $again twice; longest silence $silence ms"
check "no datagram was lost" equal "$received" "$sent"
check "none came twice" equal "$again" 0
check "packets pass" ping_ok client "$SERVER6"
# What the manager went on holding would keep the queue in use.
check "the instance can be removed" jool instance remove
check "and added again" configure
check "packets pass" ping_ok client "$SERVER6"
end "$manager"
check "the manager ends" ends_within 10 "$manager"
# Nobody kept anything: the next one begins with the rules that are there.
must "the daemon starts by itself" daemon_start
check "packets pass" ping_ok client "$SERVER6"
must "the daemon stops" daemon_stop
