#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SIIT beside NAT64: what is configured survives a kill, and a change that fails at any step leaves
# everything as it was.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

siit() { timeout "$LIMIT" ip netns exec "$PREFIX-gw" "$BIN/jool_siit" "$@"; }

# The client has an IPv4 address of its own, which the server routes to the gateway.
MAPPED=198.18.0.2

configuration() {
	local program
	for program in siit jool; do
		$program instance display --csv --no-headers | cut -d , -f 2- || return
		$program global display --csv || return
	done
	siit eamt display --csv || return
	siit denylist4 display --csv || return
	jool pool4 display --csv --icmp
}

# Rules and routes, without what counts or expires. Chains are listed in the order in which they were
# made, which means nothing: so each line is preceded by its table, its chain and its place there.
in_force() {
	gw nft list ruleset 2>/dev/null | sed 's/packets [0-9]* bytes [0-9]*//' |
		awk '/^table/ { table = $0; block = ""; place = 0 } /^\t[a-z]/ { block = $0; place = 0 }
			/[^ \t}]/ { printf "%s %s %03d %s\n", table, block, place++, $0 }' | sort || return
	gw ip route show table all proto 164 || return
	gw ip -6 route show table all proto 164 || return
	gw ip rule | grep 'proto 164' || return
	gw ip -6 rule | grep 'proto 164'
}

write_file() { # NAME TOS
	cat >"$WORK/$1.json" <<-END
		{
			"instance": "default", "framework": "netfilter",
			"global": { "tos": $2 },
			"eamt": [ { "ipv6 prefix": "2001:db8:77::/120", "ipv4 prefix": "198.18.77.0/24" } ]
		}
	END
}

# Every command fails and changes nothing. What lets it fail is done before each one and undone
# after it.
all_fail() { # BEFORE AFTER
	local command
	while read -r -u 3 command; do
		$1
		# shellcheck disable=SC2086 # words
		check "fails: $command" not $command
		$2
		check "... and leaves everything alone" unchanged "$WORK/configuration" configuration
	done 3<<-END
		siit eamt add 2001:db8:66::/120 198.18.66.0/24
		siit eamt remove 198.18.0.0/24
		siit eamt flush
		siit denylist4 add 10.1.0.0/16
		siit denylist4 remove 10.0.0.0/8
		siit denylist4 flush
		siit global update pool6 null
		siit file handle $WORK/other.json
		siit instance add another --iptables
		jool pool4 flush
	END
}

# Without the device there can be no routes.
device_away() {
	gw ip link set tylo0 down
	gw ip link set tylo0 name away0
}

device_back() {
	gw ip link set away0 name tylo0
	gw ip link set tylo0 up
}

# As a full disk does.
disk_full() {
	$PYTHON - "$STATE/state.db" <<-END
		import sqlite3, sys
		db = sqlite3.connect(sys.argv[1])
		for table in ("instance", "eamt", "denylist4", "pool4_set"):
		    for event in ("INSERT", "UPDATE", "DELETE"):
		        db.execute(f"CREATE TRIGGER full_{table}_{event} BEFORE {event} ON {table} "
		                   "BEGIN SELECT raise(ABORT, 'full'); END")
		db.commit()
	END
}

disk_free() {
	$PYTHON - "$STATE/state.db" <<-END
		import sqlite3, sys
		db = sqlite3.connect(sys.argv[1])
		for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
		    db.execute(f"DROP TRIGGER {name}")
		db.commit()
	END
}

names_what_is_wrong() {
	local message
	message=$(siit file handle "$WORK/wrong.json" 2>&1) && return 1
	grep -E 'tos.*777' <<<"$message"
}

works() {
	ping_ok client 64:ff9b:4::$SERVER4 || return
	ping_ok server $MAPPED || return
	ping_ok client $SERVER6
}

gateway_up foreign
ip -n "$PREFIX-client" addr add 2001:db8:6:1::2/128 dev c0 nodad
ip -n "$PREFIX-client" -6 route replace 64:ff9b:4::/96 via 2001:db8:6::1 src 2001:db8:6:1::2
ip -n "$PREFIX-gw" -6 route add 2001:db8:6:1::2 via $CLIENT6
check "an SIIT instance of the same name is accepted" siit instance add
siit eamt add 2001:db8:6:1::/120 198.18.0.0/24
siit denylist4 add 10.0.0.0/8
siit global update pool6 64:ff9b:4::/96
check "both translate" works
write_file other 7
write_file wrong 777
configuration >"$WORK/configuration"
in_force >"$WORK/in-force"

daemon_kill
must "it starts again after a kill" daemon_start
check "everything is back" unchanged "$WORK/configuration" configuration
check "rules and routes as well" unchanged "$WORK/in-force" in_force
check "both translate" works

echo "--- a file with a wrong value"
check "is refused, and the value named" names_what_is_wrong
check "and changes nothing" unchanged "$WORK/configuration" configuration

echo "--- the database cannot be written"
all_fail disk_full disk_free
check "rules and routes are as they were" unchanged "$WORK/in-force" in_force
check "both translate" works

echo "--- routes cannot be set"
all_fail device_away device_back

echo "--- what all that left on disk"
daemon_kill
must "it starts again after a kill" daemon_start
check "is what was there before" unchanged "$WORK/configuration" configuration
check "rules and routes as well" unchanged "$WORK/in-force" in_force
check "both translate" works

echo "--- an address of the gateway is not translated"
gw ip addr add 198.18.0.7/32 dev g4
check "rules follow" within 5 gw sh -c 'nft list ruleset 2>/dev/null | grep -q 198.18.0.7'
check "the gateway itself answers" ping_ok server 198.18.0.7
gw ip addr del 198.18.0.7/32 dev g4
check "until it is gone" within 5 gw sh -c '! nft list ruleset 2>/dev/null | grep -q 198.18.0.7'

echo "--- routes and policy rules that somebody removed come back"
gw ip link set tylo0 down
gw ip link set tylo0 up
check "after the device was down" within 5 unchanged "$WORK/in-force" in_force
gw ip rule flush
gw ip rule add pref 32766 lookup main
check "after a flush of the policy rules" within 5 unchanged "$WORK/in-force" in_force
gw ip -6 rule del pref 32800
check "after one was deleted" within 5 unchanged "$WORK/in-force" in_force
gw nft flush ruleset
gw nft delete table ip tylo 2>/dev/null || true
check "and rules, as ever" within 5 unchanged "$WORK/in-force" in_force
check "both translate" works

echo "--- the file in force"
check "it is accepted" siit file handle "$WORK/other.json"
check "what it leaves out is gone" equal "$(siit denylist4 display --csv --no-headers)" ""
check "and so is the old mapping" not ping_ok server $MAPPED
check "NAT64 is as it was" ping_ok client $SERVER6

echo "--- a start that fails when the rules are to be put in force"
must "the daemon stops" daemon_stop
mkfifo "$WORK/owner.pipe"
exec 7<>"$WORK/owner.pipe"
# What runs in the background has no input but what it opens itself.
spawn gw sh -c 'exec nft -i <"$0"' "$WORK/owner.pipe" >"$WORK/owner.out" 2>&1
echo 'add table inet tylo { flags owner; }' >&7
must "somebody else has tables of our name" within 5 gw nft list table inet tylo
network_state >"$WORK/before"
check "it does fail" rejects gw tylod --state-dir "$STATE"
check "and says why" grep -q 'no right to change nftables rules' "$WORK/reject.out"
check "and leaves nothing behind" unchanged "$WORK/before" network_state
end "$SPAWNED"
exec 7>&-
