#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A pair of gateways, one of which is Jool itself: the kernel module and `joold` of Debian. Sessions go
# both ways, and connections survive the change from one to the other and back.
here=$(dirname "$(readlink -f "$0")")
if [ -z "${TYLO_GUEST:-}" ]; then
	set -e
	TYLO_JOOL=$(mktemp -d)
	trap 'rm -rf "$TYLO_JOOL"' EXIT
	export TYLO_JOOL
	"$here/../../tools/jool-module" "$TYLO_JOOL"
	status=0
	"$here/../../tools/guest" "$here/94-joold-mixed.sh" || status=$?
	exit $status
fi

modprobe -q nf_defrag_ipv4
modprobe -q nf_defrag_ipv6
modprobe -q x_tables
modprobe -q bridge
insmod "$TYLO_JOOL/jool_common.ko"
insmod "$TYLO_JOOL/jool.ko"
. "$here/lib.sh"
. "$HERE/cluster.sh"

# j is Jool, k is ours.
node() {
	local node=$1 program=$BIN/jool
	shift
	[ "$node" != j ] || program=/usr/bin/jool
	timeout "$LIMIT" ip netns exec "$PREFIX-$node" "$program" "$@"
}
start_k() {
	STARTS=$((STARTS + 1))
	spawn k "$BIN/tylod" --state-dir "$STATE" 2>"$WORK/daemon.$STARTS.log" >&2
	NODE_PID[k]=$SPAWNED
	within 60 grep -q ready "$WORK/daemon.$STARTS.log"
}
joold_runs() { in_ns j ss -Hlun "sport = :6464" | grep -q .; }
goes_on() {
	mark
	within 20 answered 5
}
has() { sessions "$1" "$2" | grep -qxF "$3"; } # NODE PROTOCOL ROW

cluster_up j k
check "j is Jool" says '4\.1\.' node j --version
must "j is configured" node_configure j
must "k: the daemon gets ready" start_k
must "k is configured alike" node_configure k
cat >"$WORK/netsocket.json" <<-END
	{
		"multicast address": "$GROUP6", "multicast port": "6464",
		"in interface": "eth2", "out interface": "eth2", "reuseaddr": 1, "ttl": 3
	}
END
spawn j /usr/bin/joold "$WORK/netsocket.json" >"$WORK/joold.log" 2>&1
must "Jool's joold runs" within 20 joold_runs
must "k exchanges sessions, in Jool's old format" proxy6 k --net.format a
activate j
spawn n4 $PYTHON "$HERE/lasting.py" serve 7000
must "a server listens in n4" within 30 listens n4 7000

# --- from the module to us

ping_start 0.5
check "the ping goes through the module" goes_on
icmp=$(sessions j icmp)
check "its session appears in k" within 10 has k icmp "$icmp"
spawn n6 $PYTHON "$HERE/steady.py" $N4 7000 "$WORK/steady" >"$WORK/steady.out" 2>&1
STEADY=$SPAWNED
must "two TCP connections are open" within 30 test -e "$WORK/steady.open"
check "both appear in k" within 10 same_sessions j k tcp
tcp=$(sessions k tcp)
check "all that Jool said was understood" equal "$(counter k malformed) $(counter k refused) $(counter k collisions)" "0 0 0"
activate k
check "the ping goes on through k" goes_on
check "with the same session" equal "$(sessions k icmp)" "$icmp"
check "the connections have the same transport addresses" equal "$(sessions k tcp)" "$tcp"

# --- and back

spawn n6 $PYTHON "$HERE/steady.py" $N4 7000 "$WORK/second" >"$WORK/second.out" 2>&1
SECOND=$SPAWNED
must "two more connections are open through k" within 30 test -e "$WORK/second.open"
check "they appear in the module" within 20 same_sessions k j tcp
check "there are four" equal "$(count k tcp)" 4
tcp=$(sessions k tcp)
check "everything can be told to the module again" node k session advertise
check "it has the same sessions" same_sessions k j tcp
activate j
check "the ping goes on through the module" goes_on
check "with the same session" equal "$(sessions j icmp)" "$icmp"
touch "$WORK/steady.end" "$WORK/second.end"
check "the first connections end in order" exit_status 0 "$STEADY"
check "so do the others" exit_status 0 "$SECOND"
cat "$WORK/steady.out" "$WORK/second.out"
check "the module has no other connections" equal "$(sessions j tcp | cut -d , -f 1-9)" "$(cut -d , -f 1-9 <<<"$tcp")"
check "the module has nothing to complain about" not grep -i jool.*error <(dmesg)
end "$PING"
