#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What the daemon keeps of its privileges, and who may tell it what.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

tylo() { timeout "$LIMIT" ip netns exec "$PREFIX-gw" "$BIN/tylo" "$@"; }

# All threads of the daemon have the same LINE in their status.
all_threads() { # LINE
	local name=${1%%:*} status
	for status in "/proc/$DAEMON"/task/*/status; do
		equal "$(sed -n "s/^$name:[[:space:]]*/$name: /p" "$status")" "$1" || return
	done
}

# CAP_NET_ADMIN, and CAP_NET_RAW where it is given.
least=0000000000003000

confined() {
	local set
	for set in CapPrm CapEff CapBnd; do check "$set" all_threads "$set: $least" || return; done
	check "no way to more" all_threads "NoNewPrivs: 1"
	check "system calls are filtered" all_threads "Seccomp: 2"
	check "by one filter" all_threads "Seccomp_filters: 1"
	check "health says so" says '"sandbox":\{"capabilities":true,"system_calls":true\}' tylo health --json
	check "packets pass" ping_ok client "$SERVER6"
}

gateway_up foreign
confined
for _ in 1 2; do must "it is upgraded" tylo upgrade; done
echo "--- after upgrades"
confined
must "the daemon stops" daemon_stop

echo "--- without"
must "the daemon starts" daemon_start --no-sandbox
check "all capabilities are there" all_threads "CapEff: $(sed -n 's/^CapEff:\t//p' /proc/self/status)"
check "all system calls" all_threads "Seccomp: 0"
check "health says so" says 'no sandbox' tylo health
must "it is upgraded" tylo upgrade
check "packets pass" ping_ok client "$SERVER6"
must "the daemon stops" daemon_stop

echo "--- as a user, with nothing but what is needed"
chown -R 65534:65534 "$STATE"
# The kernel shows its queues to the group root.
user=(setpriv --reuid 65534 --regid 65534 --groups 0)
rights=(--inh-caps "-all,+net_admin,+net_raw" --ambient-caps "-all,+net_admin,+net_raw")
mknod -m 666 "$WORK/tun" c 10 200
as_user() {
	STARTS=$((STARTS + 1))
	# As udev makes it; elsewhere it may be for root alone.
	spawn gw unshare --mount bash -c 'mount --bind "$0" /dev/net/tun && exec "$@"' "$WORK/tun" \
		"${user[@]}" "${rights[@]}" "$BIN/tylod" --state-dir "$STATE" 2>"$WORK/daemon.$STARTS.log" >&2
	DAEMON=$SPAWNED
	must "the daemon gets ready" within 15 daemon_ready
}
as_user
check "it is that user" all_threads "Uid: 65534	65534	65534	65534"
check "CapEff" all_threads "CapEff: $least"
check "packets pass" ping_ok client "$SERVER6"
must "it is upgraded" tylo upgrade
check "CapEff" all_threads "CapEff: $least"
check "packets pass" ping_ok client "$SERVER6"
must "the daemon stops" daemon_stop

echo "--- as a user, without raw sockets"
rights=(--inh-caps "-all,+net_admin" --ambient-caps "-all,+net_admin")
hop() { in_ns "$1" traceroute -n -q 1 -w 5 -m 1 "${@:3}" "$2" | awk 'NR == 2 { print $2 }'; }
hops() {
	check "a client is told of the hop" equal "$(hop client "$SERVER6")" 2001:db8:6::1
	check "a host behind the translation, too" equal "$(hop server "$POOL4" -U -p 61033)" 203.0.113.1
	check "none was lost" not says 'JSTAT_ICMP[46]ERR_FAILURE: [1-9]' jool stats display
}
as_user
check "CapEff" all_threads "CapEff: 0000000000001000"
must "a static mapping" jool bib add "$CLIENT6#61033" "$POOL4#61033" --udp
hops
must "it is upgraded" tylo upgrade
check "packets pass" ping_ok client "$SERVER6"
hops
must "pool4 has the gateway's own address, too" jool pool4 add --udp 203.0.113.1 $LOW-65535
must "  with a mapping" jool bib add "$CLIENT6#61034" "203.0.113.1#61034" --udp
check "a host is told of the hop by the address that it asked" \
	equal "$(hop server 203.0.113.1 -U -p 61034)" 203.0.113.1
must "the daemon stops" daemon_stop
rights=(--inh-caps "-all,+net_admin,+net_raw" --ambient-caps "-all,+net_admin,+net_raw")

echo "--- where it cannot see which queues are its own"
user=(setpriv --reuid 65534 --regid 65534 --clear-groups)
as_user
check "it says so" grep -q "a system call for every packet" "$WORK/daemon.$STARTS.log"
check "packets pass" ping_ok client "$SERVER6"
http_server server
random_file data 3000000
check "download" download_equals data
check "upload" upload_equals data
check "what is no session of ours is left to the kernel" ping_ok server 203.0.113.1
check "it cannot be upgraded" not tylo upgrade
check "and goes on" ping_ok client "$SERVER6"
check "the configuration can be changed" jool instance remove
must "the daemon stops" daemon_stop
rm -rf "$STATE"

echo "--- who may do what"
# The group, where only this test sees it.
cp /etc/group "$WORK/group"
sed -i '/^tylo:/d' "$WORK/group"
echo "tylo:x:4711:" >>"$WORK/group"
STARTS=$((STARTS + 1))
spawn gw unshare --mount bash -c \
	"mount --bind $WORK/group /etc/group && exec $BIN/tylod --state-dir $STATE" 2>"$WORK/daemon.$STARTS.log" >&2
DAEMON=$SPAWNED
must "the daemon gets ready" within 15 daemon_ready
must "an instance and pool4 are accepted" configure
as() { # UID GID GROUPS COMMAND...
	local groups=(--clear-groups)
	[ "$3" = - ] || groups=(--groups "$3")
	timeout "$LIMIT" ip netns exec "$PREFIX-gw" setpriv --reuid "$1" --regid "$2" "${groups[@]}" "$BIN/$4" "${@:5}"
}
other() { as 1000 1000 - "$@"; }
for who in "1001 4711 -" "1001 1001 4711" "1001 1001 7,4711,9"; do
	# shellcheck disable=SC2086 # words
	check "a member of the group ($who) may change" as $who jool global update tos 7
	# shellcheck disable=SC2086 # words
	check "and see sessions" as $who jool session display
done
check "packets pass" ping_ok client "$SERVER6"
check "others may read statistics" says JSTAT_RECEIVED6 other jool stats display
check "and health" says OK other tylo health
refused() { # COMMAND...
	local status=0
	other "$@" >"$WORK/refused.out" 2>&1 || status=$?
	cat "$WORK/refused.out"
	[ "$status" != 0 ] && grep -q "root or membership in the group 'tylo'" "$WORK/refused.out"
}
refuse() { check "but not '$*'" refused "$@"; }
refuse jool instance display
refuse jool instance remove
refuse jool instance flush
refuse jool global display
refuse jool global update tos 9
refuse jool pool4 display
refuse jool pool4 flush
refuse jool bib display
refuse jool bib add --tcp 2001:db8::1#1 "$POOL4#61001"
refuse jool session display
refuse jool session follow
refuse tylo upgrade
refuse tylo export
refuse tylo sync off
refuse tylo who "$POOL4" 61001 tcp
check "nothing of that has changed anything" says 'tos: 7' jool global display
check "a number that the group has elsewhere does not help" not as 4711 1000 - jool global display
must "the daemon stops" daemon_stop
