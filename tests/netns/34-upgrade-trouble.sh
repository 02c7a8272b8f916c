#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# tylo upgrade when something else goes wrong at the same time: a program that cannot be executed
# or dies at once, a full disk, a signal to stop, two upgrades at once. And nothing piles up.
# Mounts are made where nobody else sees them.
[ -n "${TYLO_OWN_MOUNTS-}" ] || TYLO_OWN_MOUNTS=1 exec unshare --mount --propagation private bash "$0" "$@"
. "$(dirname "$(readlink -f "$0")")/lib.sh"

DISK=$WORK/disk
STATE=$DISK/state
mkdir "$DISK"
mount -t tmpfs -o size=6m none "$DISK"

program=$(readlink -f "$BIN/tylo")
genuine() { rm -f "$BIN/tylo" && ln "$WORK/genuine" "$BIN/tylo"; }
# A program that can take over as far as it says, but does COMMAND before it says so and anything
# else not at all.
install_pretender() { # COMMAND
	cat >"$BIN/new" <<-END
		#!/bin/bash
		[[ " \$* " = *" --preflight "* ]] || exit 1
		$1
		exec -a tylod "$WORK/genuine" "\$@"
	END
	chmod +x "$BIN/new"
	mv "$BIN/new" "$BIN/tylo"
}
cp "$program" "$WORK/genuine"
genuine
ln -sf tylo "$BIN/tylod"
tylo() { timeout "$LIMIT" ip netns exec "$PREFIX-gw" "$WORK/genuine" "$@"; }
count() { tylo health --json | grep -o '"takeover":{"count":[0-9]*' | grep -o '[0-9]*$'; }
sessions() { jool stats display | sed -n 's/^JSTAT_SESSIONS: //p'; }
descriptors() { find "/proc/$DAEMON/fd" -mindepth 1 | wc -l; }
ignores_broken_pipes() { [ $((0x$(sed -n 's/^SigIgn:\t//p' "/proc/$DAEMON/status") & 0x1000)) != 0 ]; }
lost() { ! tylo health --json | grep -q '"journal_lost":0'; }
many() { client $PYTHON "$HERE/udp.py" many "$SERVER6" 9 "$1"; } # NUMBER
logged() { grep -Eq -- "$1" "$WORK/daemon.$STARTS.log"; }

gateway_up foreign
ip -n "$PREFIX-client" address add 2001:db8:6::1:1/64 dev c0 nodad
jool pool4 add --udp 192.0.2.0/28 1024-60000
check "packets pass" ping_ok client "$SERVER6"

echo "--- one after the other, and two at once"
must "it is upgraded" tylo upgrade
before=$(descriptors)
for _ in 1 2 3; do must "again" tylo upgrade; done
# The connection of whoever asked may still be open.
check "descriptors do not pile up" between "$(descriptors)" $((before - 2)) $((before + 2))
tylo upgrade >"$WORK/first" 2>&1 &
first=$!
# Which of them the daemon hears first is left to the scheduler.
succeeded=0
if tylo upgrade >"$WORK/second" 2>&1; then
	succeeded=1
else
	check "who comes second is told why not" grep -q 'under way' "$WORK/second"
fi
if wait "$first"; then
	succeeded=1
else
	check "who comes second is told why not" grep -q 'under way' "$WORK/first"
fi
check "of two at once, one succeeds" equal "$succeeded" 1
check "packets pass" ping_ok client "$SERVER6"

echo "--- a program that is gone when it is to be executed"
taken=$(count)
install_pretender "rm $BIN/tylo"
check "the upgrade fails" rejects gw "$WORK/genuine" upgrade
check "and says why" grep -q 'cannot become' "$WORK/reject.out"
check "it was tried" equal "$(count)" $((taken + 1))
check "the daemon goes on" kill -0 "$DAEMON"
check "packets pass" ping_ok client "$SERVER6"
check "whoever hangs up does not end it" ignores_broken_pipes
install_pretender 'exec sleep 1000'
check "a program that does not say whether it can take over is refused" rejects gw "$WORK/genuine" upgrade
check "and the upgrade says why" grep -q 'does not answer' "$WORK/reject.out"
genuine
check "the next upgrade succeeds" tylo upgrade

echo "--- a full disk"
cat /dev/zero >"$DISK/filler" 2>/dev/null || true
many 20000
check "changes could not be written" within 20 lost
check "an upgrade that would lose sessions is refused" rejects gw "$WORK/genuine" upgrade
check "and says why" grep -q 'nothing changed.*would be lost' "$WORK/reject.out"
check "the daemon goes on" kill -0 "$DAEMON"
check "packets pass" ping_ok client "$SERVER6"
sessions=$(sessions)
check "with many sessions" test "$sessions" -gt 5000
rm "$DISK/filler"
check "with room, it is upgraded" within 40 tylo upgrade
check "with all sessions" between "$(sessions)" $((sessions - 20)) "$sessions"

echo "--- a signal to stop meanwhile"
for pause in 0.05 0.1 0.15 0.2; do
	tylo upgrade >/dev/null 2>&1 &
	upgrade=$!
	sleep $pause
	# As a service manager does it, and it waits for long.
	kill -TERM "$DAEMON"
	check "it ends, $pause s after the beginning of an upgrade" ends_within 10 "$DAEMON"
	kill "$upgrade" 2>/dev/null || true
	wait "$upgrade" 2>/dev/null || true
	must "it starts" daemon_start
done

echo "--- a program that dies when it has taken over"
install_pretender :
tylo upgrade >"$WORK/upgrade.out" 2>&1 &
upgrade=$!
check "the process ends, so that a service manager starts it anew" ends_within 10 "$DAEMON"
check "rules stay meanwhile" says 'table .* tylo' gw nft list tables
genuine
must "it starts" daemon_start
check "whoever asked for the upgrade does not wait for long" ends_within 5 "$upgrade"
check "hears that it failed" not wait "$upgrade"
check "and how" grep -q 'the new program ended' "$WORK/upgrade.out"
check "with all sessions" between "$(sessions)" $((sessions - 20)) "$sessions"
check "packets pass" ping_ok client "$SERVER6"
must "the daemon stops" daemon_stop
end_all
umount "$DISK"
