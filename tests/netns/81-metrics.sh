#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Metrics over TCP and a Unix socket: what promtool says to them, whether they are what was sent, and
# that nonsense, stuck disks, upgrades and lost peers do to them what they should. Dashboard and alerts.
. "$(dirname "$(readlink -f "$0")")/lib.sh"
. "$HERE/cluster.sh"

SOCKET=$WORK/metrics.sock
AT=127.0.0.1:9646
SERVED=(--metrics $AT --metrics "[::1]:9646" --metrics "$SOCKET")

# Each scrape is kept, for all names to be compared in the end.
SCRAPES=0
scrape() { # [NAMESPACE [URL OPTION of curl...]]
	local ns=${1:-gw} url=${2:-http://$AT/metrics}
	shift $(($# > 2 ? 2 : $#))
	SCRAPES=$((SCRAPES + 1))
	in_ns "$ns" curl -gsS --fail -m 20 "$@" "$url" >"$WORK/scrape.$SCRAPES" || return
	cp "$WORK/scrape.$SCRAPES" "$WORK/metrics"
}
# The sum of all values with these labels, as an integer; fails when there are none.
value() { # NAME [LABEL="VALUE"...]
	local name=$1 label
	shift
	grep -E "^$name(\{| )" "$WORK/metrics" >"$WORK/values" || return
	for label; do
		grep -F "$label" "$WORK/values" >"$WORK/values.new" || return
		mv "$WORK/values.new" "$WORK/values"
	done
	awk '{ sum += $NF } END { printf "%.0f\n", sum }' "$WORK/values"
}
is() { # WANTED NAME [LABEL="VALUE"...]
	local wanted=$1
	shift
	equal "$(value "$@")" "$wanted"
}
more() { # THAN NAME [LABEL="VALUE"...]
	local than=$1 found
	shift
	found=$(value "$@") && [ "$found" -gt "$than" ]
}
# With a scrape of its own, for waiting.
now_is() { scrape && is "$@"; }
now_more() { scrape && more "$@"; }
lints() { promtool check metrics <"$WORK/metrics"; }
status() { # WANTED OPTION of curl...
	local wanted=$1
	shift
	equal "$(gw curl -gsS -m 10 -o /dev/null -w '%{http_code}' "$@")" "$wanted"
}
garbage() { # FORMAT of printf
	gw timeout 10 bash -c "exec 3<>/dev/tcp/127.0.0.1/9646; printf '$1' >&3; cat <&3" >"$WORK/garbage" 2>&1
	# It may have hung up before it was told everything.
	! grep -q '^HTTP/1.1 200' "$WORK/garbage"
}
# Every counter of `stats display` is there under its reason, with its value.
reasons_agree() {
	local name count
	jool stats display --all --csv --no-headers >"$WORK/stats" || return
	scrape || return
	while IFS=, read -r name count; do
		case $name in
		JSTAT_RECEIVED[46] | JSTAT_SUCCESS | JSTAT_BIB_ENTRIES | JSTAT_SESSIONS | JSTAT_ICMP[46]ERR_* | JSTAT_JOOLD_*) continue ;;
		esac
		name=${name#JSTAT} name=${name#_}
		is "$count" tylo_untranslated_packets_total 'tylo_instance="default"' "reason=\"${name,,}\"" || { echo "$name"; return 1; }
	done <"$WORK/stats"
	[ "$(wc -l <"$WORK/stats")" -gt 50 ]
}
datagrams() { # NUMBER: each from a transport address of its own
	client $PYTHON -c "
import socket, sys
for _ in range(int(sys.argv[2])):
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.sendto(b'x', (sys.argv[1], 9))" "$SERVER6" "$1"
}

must "promtool is there (tools/deps test)" command -v promtool

echo "--- rules and dashboard"
check "the alerts are sound" promtool check rules "$REPO/docs/prometheus/alerts.yml"
check "each fires when it must, and only then" promtool test rules "$REPO/docs/prometheus/alerts_test.yml"
# As rules, the dashboard's questions can be checked, too.
jq -c '{groups: [{name: "dashboard", rules: [.panels[] | .targets[]?.expr
	| gsub("\\$__rate_interval"; "5m") | {record: "dashboard", expr: .}] | unique}]}' \
	"$REPO/docs/grafana/tylo.json" >"$WORK/dashboard.yml"
check "the dashboard has questions" test "$(jq '.groups[0].rules | length' "$WORK/dashboard.yml")" -gt 30
check "which make sense" promtool check rules "$WORK/dashboard.yml"

echo "--- addresses"
network_up
for address in banana 9646 127.0.0.1 127.0.0.1:0 ::1:9646 localhost:9646 metrics.sock '' "/$(printf 'x%.0s' {1..200})"; do
	check "no address: ${address:0:20}" rejects uplink "$BIN/tylod" --state-dir "$WORK/other" --metrics "$address"
done
http_server uplink 9700
check "an address in use" rejects uplink "$BIN/tylod" --state-dir "$WORK/other" --metrics '[::]:9700'
check "and it says which" grep -q "metrics at \[::\]:9700: it is in use" "$WORK/reject.out"
check "an address of another host" rejects uplink "$BIN/tylod" --state-dir "$WORK/other" --metrics 192.0.2.77:9646
echo precious >"$WORK/precious"
check "a file" rejects uplink "$BIN/tylod" --state-dir "$WORK/other" --metrics "$WORK/precious"
check "which stays" equal "$(cat "$WORK/precious")" precious
check "no state was made by all these" not test -e "$WORK/other"
network_down

echo "--- a gateway with two instances"
gateway_up foreign --workers 2 "${SERVED[@]}"
stateless() {
	local jool_siit=(gw "$BIN/jool_siit" --instance other)
	"${jool_siit[@]}" instance add --netfilter &&
		"${jool_siit[@]}" eamt add $CLIENT6/128 192.0.2.9/32 &&
		"${jool_siit[@]}" eamt add 2001:db8:64::2/128 $SERVER4/32
}
must "a stateless instance is accepted" stateless
http_server server
udp_echo server 7000
random_file big 3000000

check "over TCP" scrape
check "promtool finds no fault" lints
check "over IPv6" scrape gw 'http://[::1]:9646/metrics'
check "over the Unix socket" scrape gw http://localhost/metrics --unix-socket "$SOCKET"
check "promtool finds no fault with that" lints
check "the socket is open to all" equal "$(stat -c %a "$SOCKET")" 666
check "a daemon elsewhere does not take the socket" rejects uplink "$BIN/tylod" --state-dir "$WORK/other" --metrics "$SOCKET"
check "the version" says "tylo_build_info\{version=\"$("$BIN/tylod" --version | cut -d ' ' -f 2)\"\} 1" cat "$WORK/metrics"
check "it is ready" is 1 tylo_ready
check "there are two workers" equal "$(grep -c ^tylo_worker_cpu_seconds_total "$WORK/metrics")" 2
check "there are four queues, and as many for TCP" equal "$(grep -c ^tylo_queue_packets "$WORK/metrics")" 8
check "no packet came yet" is 0 tylo_packets_total

default='tylo_instance="default"' other='tylo_instance="other"'
check "ping" client ping -q -n -c 10 -i 0.05 -s 56 $SERVER6
scrape
for label in 'direction="6to4"' 'direction="4to6"'; do
	check "ten packets, $label" is 10 tylo_packets_total "$default" "$label" 'protocol="icmp"' 'outcome="translated"'
done
check "and no others" is 20 tylo_packets_total
check "of 104 octets" is 1040 tylo_bytes_total 'direction="6to4"'
check "and 84 octets" is 840 tylo_bytes_total 'direction="4to6"'
check "the time was taken of each" is 20 tylo_translation_duration_seconds_count
check "the last bucket has all" is 20 tylo_translation_duration_seconds_bucket 'le="+Inf"'
check "one mapping" is 1 tylo_bib_entries "$default" 'protocol="icmp"'
check "one session" is 1 tylo_sessions

check "datagrams go both ways" client $PYTHON "$HERE/udp.py" ask $SERVER6 7000 100
check "a download" download_equals big
scrape
check "two datagrams" is 2 tylo_packets_total 'protocol="udp"' 'outcome="translated"'
check "of 148 and 128 octets" is 276 tylo_bytes_total 'protocol="udp"'
check "more octets than the file has" more 3000000 tylo_bytes_total 'protocol="tcp"' 'direction="4to6"'
check "as many packets as 'stats display' has" \
	is "$(jool stats display --all --csv --no-headers | sed -n 's/^JSTAT_SUCCESS,//p')" tylo_packets_total 'outcome="translated"'
check "a port of pool4 is in use" is 1 tylo_pool4_ports_used "$default" 'protocol="udp"' 'addresses="192.0.2.1"' 'ports="61001-65535"'
check "of 4535" is 4535 tylo_pool4_ports "$default" 'protocol="udp"'
check "workers used a processor" equal "$(awk '/^tylo_worker_cpu/ && $2 > 0' "$WORK/metrics" | wc -l)" 2
check "as the daemon uses memory" more 1000000 process_resident_memory_bytes

check "the other instance" client ping -q -n -c 4 -i 0.05 2001:db8:64::2
scrape
check "has packets of its own" is 8 tylo_packets_total "$other" 'flavour="siit"' 'outcome="translated"'
check "but no sessions" not value tylo_sessions "$other"

echo "--- what is not translated"
jool pool4 flush --quick
jool pool4 add --udp $POOL4 61001-61003 --force
jool pool4 add --tcp $POOL4 61001-61100 --force
jool pool4 add --icmp $POOL4 0-65535 --force
datagrams 8
check "flows without a port are refused" now_more 4 tylo_refused_flows_total "$default" 'limit="pool4"'
check "and dropped for that reason" is "$(value tylo_refused_flows_total "$default" 'limit="pool4"')" \
	tylo_packets_total "$default" 'protocol="udp"' 'outcome="dropped"'
check "all three ports are in use" is 3 tylo_pool4_ports_used "$default" 'protocol="udp"'
check "of three" is 3 tylo_pool4_ports "$default" 'protocol="udp"'
check "every reason is there, as 'stats display' has it" reasons_agree
kill -STOP "$DAEMON"
client $PYTHON -c "
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
for _ in range(5000):
    s.sendto(b'x', (sys.argv[1], 9))" $SERVER6
kill -CONT "$DAEMON"
check "what a queue has no room for is seen" within 10 now_more 800 tylo_queue_dropped_packets_total "$default" 'reason="queue_full"'
check "the queue is empty again" within 10 now_is 0 tylo_queue_packets
check "promtool still finds no fault" lints

echo "--- a disk that is stuck"
spawn gw $PYTHON -c "
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute('BEGIN IMMEDIATE')
print('locked', flush=True)
time.sleep(600)" "$STATE/state.db" >"$WORK/locked"
lock=$SPAWNED
must "the database is locked" within 10 grep -q locked "$WORK/locked"
client ping -q -n -c 1 $SERVER6 >"$WORK/ping"
check "changes wait" within 5 now_more 0 tylo_journal_pending_changes
lag_grows() { scrape && awk '/^tylo_journal_lag_seconds/ && $2 > 0.5 { found = 1 } END { exit !found }' "$WORK/metrics"; }
check "and grow old" within 5 lag_grows
end "$lock" KILL
check "then all is on disk" within 20 now_is 0 tylo_journal_pending_changes
check "and nothing is old" within 5 now_is 0 tylo_journal_lag_seconds

echo "--- nonsense"
check "another path" status 404 http://$AT/
check "another method" status 405 -X POST -d x http://$AT/metrics
check "with a query" status 200 "http://$AT/metrics?name=x"
for text in '\0\1\2\3\n\n' 'GET\r\n\r\n' 'GET /metrics HTTP/3.0\r\n\r\n' '\x16\x03\x01\x02\0\x01\0\x01' 'GET /metrics HTTP/1.1\r\nHost' \
	'GET /../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n'; do
	check "garbage: ${text:0:20}" garbage "$text"
done
# More connections than are served, none of which says anything.
spawn gw $PYTHON -c "
import socket, time
held = [socket.create_connection(('127.0.0.1', 9646)) for _ in range(40)]
print('held', flush=True)
time.sleep(600)" >"$WORK/held"
must "forty are silent" within 10 grep -q held "$WORK/held"
check "the other address answers meanwhile" status 200 'http://[::1]:9646/metrics'
check "and this one, when they have been sent away" scrape gw "http://$AT/metrics" -m 60
end "$SPAWNED"

echo "--- upgrade, stop and start"
began=$(value tylo_start_time_seconds)
check "an upgrade" gw "$BIN/tylo" upgrade
check "the endpoint is there again" within 10 now_is 1 tylo_takeovers_total
check "also at the Unix socket" scrape gw http://localhost/metrics --unix-socket "$SOCKET"
check "a new program began" more "$began" tylo_start_time_seconds
check "with counters at 0" is 0 tylo_packets_total "$other"
check "and the sessions there were" more 3 tylo_sessions "$default"
check "and pool4 in use as it was" is 3 tylo_pool4_ports_used "$default" 'protocol="udp"'
daemon_kill
check "a killed daemon leaves its socket" test -S "$SOCKET"
must "the next one starts nevertheless" daemon_start "${SERVED[@]}"
check "and answers there" scrape gw http://localhost/metrics --unix-socket "$SOCKET"
check "it stops" daemon_stop
check "and takes the socket along" not test -e "$SOCKET"
must "without options" daemon_start
check "nothing is served" equal "$(gw ss -Hltn)" ""
gateway_down

echo "--- a cluster of two"
KEY=$WORK/key
must "a key is made" "$BIN/tylo" sync keygen "$KEY"
must "another key is made" "$BIN/tylo" sync keygen "$WORK/wrong"
tylo_in() { # NODE ARGUMENT...
	local node=$1
	shift
	timeout "$LIMIT" ip netns exec "$PREFIX-$node" "$BIN/tylo" "$@"
}
node_is() { # NODE WANTED NAME [LABEL="VALUE"...]
	local node=$1
	shift
	scrape "$node" && is "$@"
}
node_more() {
	local node=$1
	shift
	scrape "$node" && more "$@"
}
cluster_up j k
for name in j k; do
	must "$name: the daemon gets ready" node_start $name --metrics $AT
	must "$name: the tutorial's configuration" node_configure $name
done
check "no cluster, no metrics of one" not node_is j 0 tylo_sync_peers
for name in j k; do
	must "$name: joins" tylo_in $name sync set --node "${NODE_NUMBER[$name]}" --key "$KEY" --group $GROUP6 --dev eth2
done
for name in j k; do check "$name: is ready" within 20 node_is $name 1 tylo_sync_ready; done
check "j has a peer" within 10 node_is j 1 tylo_sync_peers
check "which is k" is 1 tylo_sync_peer_up 'node="5"'
activate j
ping_start
check "a session of j's gets to k" within 15 node_more k 0 tylo_sync_instance_sessions
check "by records" more 0 tylo_sync_records_total 'direction="received"'
check "that were applied" more 0 tylo_sync_records_handled_total 'result="applied"'
check "its copy is complete" is 1 tylo_sync_instance_ready
check "all of pool4 is its own" is 1 tylo_sync_share_ratio
check "promtool finds no fault" lints
# What k does not hear is missed and asked for.
half_deaf() {
	in_ns k nft add table ip6 deaf &&
		in_ns k nft add chain ip6 deaf in '{ type filter hook input priority 0; }' &&
		in_ns k nft add rule ip6 deaf in iifname eth2 meta l4proto udp numgen random mod 2 0 drop
}
must "k hears half of the datagrams" half_deaf
lossy() { udp_from_n6 && node_more k 0 tylo_sync_gaps_total; }
udp_from_n6() {
	in_ns n6 $PYTHON -c "
import socket, sys
for _ in range(20):
    socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(b'x', (sys.argv[1], 7001))" $N4
}
check "lost datagrams are gaps" within 20 lossy
repaired() { udp_from_n6 && node_more k 0 tylo_sync_repairs_total; }
check "some of which are closed when they are asked about" within 30 repaired
in_ns k nft delete table ip6 deaf
node_kill j
check "a dead peer is seen" within 20 node_is k 0 tylo_sync_peer_up 'node="4"'
check "and not counted" is 0 tylo_sync_peers
must "j: comes back" node_start j --metrics $AT
check "that is seen, too" within 20 node_is k 1 tylo_sync_peer_up 'node="4"'
must "j: gets another key" tylo_in j sync set --node 4 --key "$WORK/wrong" --group $GROUP6 --dev eth2
check "k: hears a stranger" within 20 node_more k 0 tylo_sync_rejected_datagrams_total 'reason="auth_failure"'
must "j: has peers by address" tylo_in j sync set --node 4 --key "$KEY" --bind 10.0.0.4:6465 --peer 10.0.0.5:6465 --peer 10.0.0.6:6465
check "two of them" within 10 node_is j 2 tylo_sync_configured_peers
for name in j k; do must "$name: leaves" tylo_in $name sync off; done
check "no cluster, no metrics of one" not node_is j 0 tylo_sync_peers

echo "--- Jool's way"
for name in j k; do must "$name: session proxy" proxy6 $name; done
check "sessions are sent" within 10 node_more j 0 tylo_joold_sessions_total 'direction="sent"'
check "and received" within 10 node_more k 0 tylo_joold_sessions_total 'direction="received"'
check "promtool finds no fault" lints

sed -n 's/^| `\([a-z0-9_]*\)` | \(counter\|gauge\|histogram\) .*/\1 \2/p' "$REPO/docs/metrics.md" | sort >"$WORK/documented"
cat "$WORK"/scrape.* | sed -n 's/^# TYPE //p' | sort -u >"$WORK/there"
check "what was served is what is documented" diff "$WORK/documented" "$WORK/there"
