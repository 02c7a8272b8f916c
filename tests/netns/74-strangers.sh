#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Somebody without the key on the network between three gateways: sends a million datagrams of random
# bytes, then floods it with recordings and with forgeries of what the gateways said. They go on to
# share their sessions, and connections survive the death of the active one.
#
# GARBAGE and CONNECTIONS say how much.
. "$(dirname "$(readlink -f "$0")")/lib.sh"
. "$HERE/cluster.sh"

GARBAGE=${GARBAGE:-1000000}
CONNECTIONS=${CONNECTIONS:-30}
FLOODS=()
# What the kernel has no room for is asked for 10 ms later, and then every 100 ms. What is younger
# than that when the gateway dies may be lost.
export MOMENT=1.5

blast() { in_ns stranger $PYTHON "$HERE/blast.py" "$@"; }
flood() { # [A SECOND]: recordings and forgeries
	local kind
	for kind in replay forge; do
		spawn stranger $PYTHON "$HERE/blast.py" $kind eth2 "$WORK/frames" "$@" >"$WORK/$kind.out"
		FLOODS+=("$SPAWNED")
	done
	DROPPED=$(dropped) REPLAYED=$(status k .replayed) FAILURES_OF_KEYS=$(status k .auth_failures)
}
flood_reaches() { grows k .replayed $((REPLAYED + $1)) && grows k .auth_failures $((FAILURES_OF_KEYS + $1)); } # NUMBER
flood_end() {
	local pid
	for pid in "${FLOODS[@]}"; do end "$pid"; done
	FLOODS=()
	echo "recordings: $(cat "$WORK/replay.out"); forgeries: $(cat "$WORK/forge.out")"
	echo "the kernel had no room for $(($(dropped) - DROPPED)) datagrams to k"
}
dropped() { in_ns k awk 'NR > 1 { n += $NF } END { print n }' /proc/net/udp6; }
read_by() { status "$1" .received_datagrams; }
# The kernel drops what comes faster than it is read: so again until enough of it was read.
read_garbage() {
	local before tries=5
	before=$(read_by j)
	while [ $((tries--)) -gt 0 ] && [ $(($(read_by j) - before)) -lt "$GARBAGE" ]; do
		blast garbage eth2 $GROUP6 6465 "$GARBAGE" || return
		sleep 1
	done
	grows j '.received_datagrams' $((before + GARBAGE - 1))
}
know_each_other() { peers j 5,6 && peers k 4,6 && peers l 4,5; }
memory() { awk '/VmRSS/ { print $2 }' "/proc/${NODE_PID[$1]}/status"; } # in kB
lines() { cat "$WORK"/daemon.*.log | wc -l; }

cluster_up j k l
add_namespace stranger
plug stranger eth2 sync
ip -n "$PREFIX-stranger" addr add 2001:db8:ff08::66/96 dev eth2 nodad
touch "$WORK/kills"
nodes_start j k l
nodes_join j k l
activate j
lasting_server
spawn stranger $PYTHON "$HERE/blast.py" record eth2 6465 "$WORK/frames" >"$WORK/record.out"
RECORD=$SPAWNED
must "somebody listens" within 5 grep -q ready "$WORK/record.out"
spawn n6 $PYTHON "$HERE/steady.py" $N4 7000 "$WORK/steady" >"$WORK/steady.out" 2>&1
STEADY=$SPAWNED
lasting_open "$CONNECTIONS"
udp_from 5000 5099
check "what begins is told to all" within 10 all_have 5000 5099
end "$RECORD"
must "j deletes some of it" delete j 5007 5097
check "it goes everywhere" within 10 none_returned
declare -A before_memory
before_lines=$(lines)

# --- garbage

for name in j k l; do before_memory[$name]=$(memory $name); done
check "j reads $GARBAGE datagrams of random bytes" read_garbage
cat "$WORK/check.out"
udp_from 5100 5149
check "what begins now is told to all" within 10 all_have 5100 5149
check "all know each other" within 10 know_each_other
for name in j k l; do
	check "$name holds nothing of it in memory" between \
		$(($(memory $name) - ${before_memory[$name]})) -1000000 16384
done

# --- a flood, as fast as two processes can

flood
check "recordings and forgeries reach the nodes" within 60 flood_reaches 100000
check "the ping goes on" ping_goes_on
udp_from 5200 5249
must "j deletes some of it" delete j 5207 5247
check "the ping goes on still" ping_goes_on
told=$(bib k udp | grep -c ",2001:db8::8,52[0-4]" || true)
flood_end
echo "meanwhile k heard of $told of 45 mappings"
check "when it is over, what began is told to all" within 45 all_have 5200 5206
check "and what was deleted" within 45 none_returned
check "all know each other" within 10 know_each_other

# --- one that lasts, while gateways die

flood 2000
check "recordings and forgeries reach the nodes" within 60 flood_reaches 4000
udp_from 5300 5349
check "what begins is told to all" within 30 all_have 5300 5349
must "j deletes some of it" delete j 5307 5347
check "it goes everywhere" within 30 none_returned
fail_over j k
check "the ping goes on through k" ping_goes_on
check "recordings of j do not revive it" within 20 peers k 6
udp_from 5400 5406
must "j starts anew, with an old database" node_start j
must "and is ready when it has all" within 60 ready j
check "it has what came meanwhile" within 30 all_have 5400 5406
check "nothing that was deleted came back" none_returned
check "no address has two clients" nothing_shared j k l
flood_end
check "nobody logs every one" between $(($(lines) - before_lines)) 0 60

# --- the end

touch "$WORK/lasting.end" "$WORK/steady.end"
check "the steady connections end in order" exit_status 0 "$STEADY"
echo "longest silence of the busy connection: $(cat "$WORK/steady.out") ms"
check "all connections kept their transport addresses" exit_status 0 "$HOLD"
cat "$WORK/hold.out"
end "$PING"
