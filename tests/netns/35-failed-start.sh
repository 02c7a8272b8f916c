#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# After a kill, a start that fails must not open the way for untranslated packets, nor lose anything.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

rules() { gw nft list tables | grep -cw tylo; }

gateway_up own
http_server server
before=$(rules)
check "there are rules" between "$before" 1 2
watch_leaks
daemon_kill

mkdir "$WORK/saved"
mv "$STATE"/state.db* "$WORK/saved"
echo "no database" >"$STATE/state.db"
check "a start over a damaged database fails" rejects gw tylod --state-dir "$STATE"
check "and says what to do" grep -q 'move it away' "$WORK/reject.out"
check "and leaves the file as it is" equal "$(cat "$STATE/state.db")" "no database"
check "the rules stay" equal "$(rules)" "$before"
check "and the device" gw ip link show tylo0
check "nothing gets through" not client_fetch -m 1 -o /dev/null "http://[$SERVER6]:8080/peer"

# Fails later, when the database was read and closed again.
mv "$WORK/saved"/state.db* "$STATE"
check "a start with a device of another kind fails" \
	rejects gw tylod --state-dir "$STATE" --tun g6
check "the rules stay" equal "$(rules)" "$before"
check "nothing gets through" not client_fetch -m 1 -o /dev/null "http://[$SERVER6]:8080/peer"
no_leaks

must "a good start works" daemon_start
check "with everything that was stored" says "^0,TCP,$POOL4," jool pool4 display --csv
check "and translates" client_fetch -o /dev/null "http://[$SERVER6]:8080/peer"
