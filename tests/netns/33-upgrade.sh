#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# tylo upgrade, again and again, under 10,000 datagrams a second and with 20 connections, half of
# them busy: no datagram is lost or comes twice, no connection breaks. UPGRADES=N, SESSIONS=N.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

upgrades=${UPGRADES:-20}
sessions=${SESSIONS:-2000}

upgrade() { gw "$BIN/tylo" upgrade; }
takeovers() { gw "$BIN/tylo" health --json | grep -o '"takeover":{"count":[0-9]*' | grep -o '[0-9]*$'; }
tables() { gw nft -a list tables 2>/dev/null | grep tylo; }
# What a package does: another file takes the place of the program that runs.
install_anew() { cp "$BIN/tylo" "$BIN/tylo.new" && mv "$BIN/tylo.new" "$BIN/tylo"; }

# A copy, to be replaced.
program=$(readlink -f "$BIN/tylo")
rm "$BIN/tylo"
cp "$program" "$BIN/tylo"
ln -sf tylo "$BIN/tylod"

gateway_up foreign
jool pool4 add --udp 192.0.2.0/28 1024-60000
random_file large 100000000
http_server server
spawn server $PYTHON "$HERE/lasting.py" serve 8081 2>>"$WORK/lasting.log" >&2
must "a server listens" within 10 listens server 8081
for ((i = 1; i <= sessions / 25000 + 1; i++)); do
	ip -n "$PREFIX-client" address add "2001:db8:6::1:$i/64" dev c0 nodad
done
client $PYTHON "$HERE/udp.py" many "$SERVER6" 9 "$sessions"
spawn client $PYTHON "$HERE/lasting.py" hold "$SERVER6" 8081 "$WORK" 20 2>>"$WORK/lasting.log" >&2
hold=$SPAWNED
touch "$WORK/kills"
must "20 connections are open" within 20 test -e "$WORK/lasting.open"
for i in 1 2 3; do
	spawn client curl -gsS --fail -m 120 --limit-rate 4M -o "$WORK/got.$i" "http://[$SERVER6]:8080/large"
	fetches+=("$SPAWNED")
done
spawn server $PYTHON "$HERE/stream.py" receive 4000 >"$WORK/received"
receive=$SPAWNED
must "a receiver listens" within 10 listens server 4000
spawn client $PYTHON "$HERE/stream.py" send "$SERVER6" 4000 10000 >"$WORK/sent"
send=$SPAWNED
sleep 1

process=$DAEMON rules=$(tables)
must "there are rules" test -n "$rules"
for ((upgrade = 1; upgrade <= upgrades; upgrade++)); do
	[ $((upgrade % 2)) = 0 ] || install_anew
	must "upgrade $upgrade" says 'packets waited [0-9]+ ms' upgrade
	sleep 0.5
done
check "every one was one" equal "$(takeovers)" "$upgrades"
check "it is the same process" kill -0 "$process"
check "its rules are the same, not others like them" equal "$(tables)" "$rules"

end "$send"
sleep 0.5
end "$receive"
wait "$send" "$receive" || true
read -r sent <"$WORK/sent"
read -r received again silence <"$WORK/received"
echo "--- $sent datagrams sent, $received received, $again twice; longest silence $silence ms"
grep -h 'took over' "$WORK/daemon.$STARTS.log" | sed 's/.*waited_ms=\([0-9]*\).*/\1/' | sort -n | tail -n 1 |
	sed 's/^/--- packets waited at most, in ms: /'
gw cat /proc/net/netfilter/nfnetlink_queue | sed 's/^/--- queue: /'
check "no datagram was lost" equal "$received" "$sent"
check "none came twice" equal "$again" 0
for i in 1 2 3; do check "busy connection $i went on" wait "${fetches[i - 1]}"; done
for i in 1 2 3; do check "and download $i is whole" cmp "$WORK/got.$i" "$WORK/files/large"; done
touch "$WORK/lasting.end"
check "the other connections end" ends_within 90 "$hold"
check "none of them broke" wait "$hold"
cat "$WORK/lasting.log"

# A program that cannot take over changes nothing.
printf '#!/bin/sh\nexit 1\n' >"$BIN/broken" && chmod +x "$BIN/broken" && mv "$BIN/broken" "$BIN/tylo"
check "a program that does not start is refused" rejects gw "$program" upgrade
check "the daemon goes on" says '^OK' gw "$program" health
rm "$BIN/tylo"
check "and so it is when there is none" rejects gw "$program" upgrade
ln -s "$program" "$BIN/tylo"
check "packets pass" ping_ok client "$SERVER6"
must "the daemon stops" daemon_stop
