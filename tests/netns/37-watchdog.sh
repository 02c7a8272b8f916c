#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The daemon tells a service manager that it is alive for as long as all its workers and its main loop
# go round. When one stands still, the service manager starts it anew, and packets pass again.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

limit=6

lines() { [ "$(wc -l <"$WORK/$1" 2>/dev/null || echo 0)" -ge "$2" ]; } # FILE NUMBER
daemon() { tylo health --json | sed -n 's/.*"pid":\([0-9]*\).*/\1/p'; }
tylo() { timeout "$LIMIT" ip netns exec "$PREFIX-gw" "$BIN/tylo" "$@"; }

# The daemon, one thread of which stands still from now on, is replaced.
is_replaced() { # THREAD
	local before ready
	before=$(daemon) ready=$(wc -l <"$WORK/ready")
	spawn gw $PYTHON "$HERE/freeze.py" "$before" "$1" >"$WORK/frozen"
	must "the thread $1 stands still" within 10 grep -q frozen "$WORK/frozen"
	must "a new daemon gets ready" within 30 lines ready $((ready + 1))
	check "it is another process" not equal "$(daemon)" "$before"
	check "packets pass" ping_ok client "$SERVER6"
}

POOL4=192.0.2.1
network_up
WATCHDOG=$limit spawn gw $PYTHON "$HERE/manager.py" "$WORK" "$BIN/tylod" --workers 2 --keep-rules \
	--state-dir "$STATE" 2>"$WORK/daemon.1.log" >&2
manager=$SPAWNED
must "the daemon gets ready" within 15 lines ready 1
must "an instance and pool4 are accepted" configure
check "packets pass" ping_ok client "$SERVER6"
check "it says that it is alive" within 30 lines alive 4
check "and is left alone" equal "$(wc -l <"$WORK/ready")" 1

process=$(daemon)
is_replaced tylo-worker-1
check "the log says why" grep -q 'a worker is stuck worker=1' "$WORK/daemon.1.log"
check "it says that it is alive" within 30 lines alive $(($(wc -l <"$WORK/alive") + 2))
is_replaced "$(cat "/proc/$(daemon)/comm")"
check "the first one is gone" not kill -0 "$process"

# Those that take over are watched, too.
process=$(daemon)
must "it is upgraded" tylo upgrade
check "it is the same process" equal "$(daemon)" "$process"
check "it says that it is alive" within 30 lines alive $(($(wc -l <"$WORK/alive") + 2))
check "and is left alone" kill -0 "$process"
end "$manager"
check "the manager ends" ends_within 10 "$manager"
