#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A disk that is full, turns read-only or is damaged: translation goes on, the database catches up.
# Mounts are made where nobody else sees them.
[ -n "${TYLO_OWN_MOUNTS-}" ] || TYLO_OWN_MOUNTS=1 exec unshare --mount --propagation private bash "$0" "$@"
. "$(dirname "$(readlink -f "$0")")/lib.sh"

DISK=$WORK/disk
STATE=$DISK/state
mkdir "$DISK"

fill() { cat /dev/zero >"$DISK/filler" 2>/dev/null || true; }
many() { client $PYTHON "$HERE/udp.py" many "$SERVER6" 9 "$1"; } # NUMBER
lost() { ! gw tylo health --json | grep -q '"journal_lost":0'; }
caught_up() { equal "$(jool stats display | sed -n 's/^JSTAT_SESSIONS: //p')" \
	"$($PYTHON "$HERE/check_state.py" "$STATE" | cut -d ' ' -f 1)"; }
fetch() { client_fetch -m 20 -o /dev/null "http://[$SERVER6]:8080/peer"; }
logged() { grep -Eq -- "$1" "$WORK/daemon.$STARTS.log"; }

starts_or_says_why() { daemon_start || logged 'full|No space'; }

set_up() {
	gateway_up foreign
	ip -n "$PREFIX-client" addr add 2001:db8:6::1:1/64 dev c0 nodad
	jool pool4 add --udp 192.0.2.0/28 1024-60000
	http_server server
	random_file big 20000000
	rm -f "$WORK/got"
	spawn client curl -gsS --fail -m 90 --limit-rate 2M -o "$WORK/got" "http://[$SERVER6]:8080/big"
	download=$SPAWNED
	sleep 1
	must "a download is under way" kill -0 "$download"
}

downloaded() {
	check "the download ends" ends_within 60 "$download"
	check "curl is content" wait "$download"
	check "what came is what was sent" cmp "$WORK/got" "$WORK/files/big"
}

echo "--- a full disk"
mount -t tmpfs -o size=4m none "$DISK"
set_up
fill
many 20000
check "changes could not be written" within 20 lost
check "the log says so" logged 'ERROR sessions cannot be written to the database; translation goes on.*full'
check "health is good: it translates" gw tylo health
check "new connections work" fetch
daemon_kill
check "with the disk still full, it starts after a kill or says why not" \
	starts_or_says_why
rm "$DISK/filler"
daemon_alive || must "it starts when there is room" daemon_start
check "new connections work" fetch
fill
many 20000
check "changes could not be written again" within 20 lost
rm "$DISK/filler"
check "when there is room, the database catches up" within 60 caught_up
check "and is sound" gw tylo db check --state-dir "$STATE"
daemon_kill
must "after a kill, it starts" daemon_start
check "with all sessions" caught_up
downloaded
gateway_down
umount "$DISK"

echo "--- a file system that turns read-only"
truncate -s 32M "$WORK/image"
mkfs.ext4 -q -F "$WORK/image"
mount -o loop,errors=remount-ro "$WORK/image" "$DISK"
set_up
device=$(findmnt -no SOURCE "$DISK")
many 2000
check "sessions are written" within 20 caught_up
# Who is told that a change is stored can rely on it, and on whatever was written before.
must "a mapping is added" jool bib add 2001:db8:6::80#80 192.0.2.1#61080 --tcp
echo test >"/sys/fs/ext4/${device##*/}/trigger_fs_error"
must "it is read-only" within 10 not touch "$DISK/file"
many 4000
check "changes could not be written" within 20 lost
check "the log says so" logged 'ERROR sessions cannot be written to the database; translation goes on'
check "new connections work" fetch
downloaded
daemon_kill
check "a start is refused" rejects gw tylod --state-dir "$STATE"
check "and says why" grep -q 'Read-only file system' "$WORK/reject.out"
# Whatever was started meanwhile has the old file system, too.
end_all
umount "$DISK"
fsck.ext4 -fy "$WORK/image" >"$WORK/fsck.out" 2>&1 || true
mount -o loop "$WORK/image" "$DISK"
must "on the mended file system it starts" daemon_start
http_server server
check "with what was written before" logged 'sessions=[1-9][0-9]{3}'
check "and the configuration" says '61080' jool bib display --numeric --tcp
check "it translates" fetch

echo "--- damaged, and without a disk"
# A clean stop, after which no log stands in for the damaged pages.
must "it stops" daemon_stop
size=$(stat -c %s "$STATE/state.db")
check "the database has some pages" between "$size" 65536 33554432
# Some in the middle, behind those of the configuration.
$PYTHON - "$STATE/state.db" <<-'END'
	import sys
	with open(sys.argv[1], "r+b") as file:
	    pages = file.seek(0, 2) // 4096
	    file.seek(pages // 2 * 4096)
	    file.write(b"\x5a" * 4096 * 4)
END
must "a damaged database does not keep it from starting" daemon_start
check "the log says what was salvaged" logged 'salvaged: table session, [0-9]+ rows'
check "the damaged one is kept" test -e "$STATE"/state.db.damaged-*[0-9]
check "the new one is sound" gw tylo db check --state-dir "$STATE"
check "it translates" fetch
must "it stops" daemon_stop
spawn gw "$BIN/tylod" --ephemeral 2>"$WORK/ephemeral.log" >&2
DAEMON=$SPAWNED
must "without a disk it starts" within 10 grep -q ready "$WORK/ephemeral.log"
check "and takes a configuration" configure
check "translates" fetch
check "and says that nothing is stored" says 'nothing is stored' gw tylo health
must "it stops" daemon_stop
end_all
umount "$DISK"
