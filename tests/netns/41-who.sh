#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Who had an IPv4 transport address, asked of the daemon and of its database, across kills; and how much
# a kill may take along.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

who() { gw tylo who "$@"; }
fails_with() { # STATUS COMMAND...: what it prints is in $WORK/told
	local wanted=$1 status=0
	shift
	"$@" >"$WORK/told" 2>&1 || status=$?
	cat "$WORK/told"
	equal "$status" "$wanted"
}
nobody() { fails_with 1 who "$@"; } # WORD...
talk() { client bash -c "echo hello >/dev/udp/$SERVER6/$1"; } # PORT
# The mappings of the client: its port, and that on the IPv4 side.
mapped() { jool bib display --udp --numeric --csv --no-headers | sed -n "s/^UDP,$CLIENT6,\([0-9]*\),$POOL4,\([0-9]*\),0.*/\1 \2/p"; }
# What a JSON answer says, as Python sees it.
answer() { # EXPRESSION WORD...
	local expression=$1
	shift
	who "$@" --json | $PYTHON -c "import json, sys; a = json.load(sys.stdin); print($expression)"
}

gateway_up foreign
spawn server $PYTHON "$HERE/udp.py" echo 7000 2>>"$WORK/udp.log" >&2
must "a UDP server listens" within 10 listens server 7000
talk 7000
must "the client has a mapping" within 5 test -n "$(mapped)"
read -r inside outside <<<"$(mapped)"

echo "--- not recorded"
check "who has it now is known" says "^$CLIENT6#$inside had $POOL4#$outside \(UDP\) from a time that was not recorded until now" \
	who "$POOL4" "$outside" udp
check "what was is not" nobody "$POOL4" "$outside" udp --at -1s
check "and it says how that can be" grep -q history-retention "$WORK/told"
jool global update history-retention 24:00:00
sleep 1.1
check "from then on it is" says "from .* or before until now" who "$POOL4" "$outside" UDP --at -1s
check "but not before" nobody "$POOL4" "$outside" udp --at -1h

echo "--- recorded"
jool bib add "$CLIENT6#80" "$POOL4#61080" --tcp
check "a static mapping is known" says 'static' who "$POOL4" 61080 tcp
sleep 0.1
there=$(date -u +%Y-%m-%dT%H:%M:%S.%3NZ)
sleep 0.1
jool bib remove "$CLIENT6#80" "$POOL4#61080" --tcp
check "it is gone" nobody "$POOL4" 61080 tcp
check "it was there" equal "$(answer 'a["rows"][0]["ipv6"], a["rows"][0]["began"] <= a["at"] <= a["rows"][0]["ended"]' \
	"$POOL4" 61080 tcp --at "$there")" "{'address': '$CLIENT6', 'port': 80} True"
check "in local time, too" says "^$CLIENT6#80 had" \
	env TZ=Asia/Tokyo ip netns exec "$PREFIX-gw" "$BIN/tylo" who "$POOL4" 61080 tcp \
	--at "$(TZ=Asia/Tokyo date -d "$there" '+%Y-%m-%d %H:%M:%S.%3N')"
check "as a table" says "^TCP,$POOL4,61080,$CLIENT6,80,20.*Z,0,20.*Z,0,0,default" who "$POOL4" 61080 tcp --at "$there" --csv
talk 7000
young=$(mapped | grep -v "^$inside " | head -n 1)
must "another mapping is there" test -n "$young"
began=$(answer 'a["rows"][0]["began"]' "$POOL4" "${young#* }" udp)
daemon_kill
check "without a daemon it says how to ask" fails_with 253 who "$POOL4" "${young#* }" udp
check "the database answers" says "^$CLIENT6#${young% *} had" who "$POOL4" "${young#* }" udp --state-dir "$STATE"
must "after a kill, it starts" daemon_start
check "the same mapping lives on" equal "$(answer 'a["rows"][0]["began"], a["rows"][0]["ended"]' "$POOL4" "${young#* }" udp)" \
	"$began None"
check "what was is known" says "^$CLIENT6#80 had" who "$POOL4" 61080 tcp --at "$there"

echo "--- who may ask, and what"
cp "$TYLO_BIN" "$WORK/tylo"
check "others may not" fails_with 77 gw setpriv --reuid 65534 --regid 65534 --clear-groups "$WORK/tylo" who "$POOL4" 61080 tcp
check "they are told what is needed" grep -q 'needs root' "$WORK/told"
check "nor read the database" fails_with 74 gw setpriv --reuid 65534 --regid 65534 --clear-groups "$WORK/tylo" who "$POOL4" 61080 tcp --state-dir "$STATE"
for words in "$POOL4" "$POOL4 x tcp" "$POOL4 1 sctp" "2001:db8::1 1 tcp" "$POOL4 1 tcp --at yesterday" "$POOL4 1 tcp --at 2999-01-01T00:00:00Z"; do
	# shellcheck disable=SC2086 # words
	check "refused: $words" fails_with 64 who $words
done
jool global update history-retention 0
check "once it is off, all is forgotten" within 10 nobody "$POOL4" 61080 tcp --at "$there"

echo "--- what a kill may take along"
must "the daemon stops" daemon_stop
check "a deadline out of range is refused" rejects gw tylod --state-dir "$STATE" --commit-deadline 10001
must "it starts with a long deadline" daemon_start --commit-deadline 10000
known=$(mapped | sort)
talk 7000
talk 7000
lost=$(comm -13 <(echo "$known") <(mapped | sort))
must "new mappings are there" test -n "$lost"
check "health shows that they are not on disk" not gw sh -c "tylo health --json | grep -q '\"journal_backlog\":0'"
daemon_kill
must "it starts again" daemon_start --commit-deadline 10000
check "a kill before the deadline takes them along" equal "$(comm -12 <(echo "$lost") <(mapped | sort))" ""
known=$(mapped | sort)
talk 7000
kept=$(comm -13 <(echo "$known") <(mapped | sort))
must "a new mapping is there" test -n "$kept"
jool global update tos 7
daemon_kill
must "it starts again" daemon_start --commit-deadline 1
check "a change of the configuration takes them to disk" equal "$(comm -12 <(echo "$kept") <(mapped | sort))" "$kept"
talk 7000
last=$(mapped | sort)
sleep 0.3
daemon_kill
must "it starts again" daemon_start
check "and a short deadline does so soon" equal "$(mapped | sort)" "$last"
