#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Whatever is wrong gives one clear error, a status other than 0, and leaves what was there.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

stored() {
	jool instance display --csv --no-headers | cut -d , -f 2- || return
	jool pool4 display --csv --tcp || return
	jool pool4 display --csv --udp || return
	jool pool4 display --csv --icmp || return
	jool bib display --csv --numeric --tcp | grep ',1$' || return
	jool global display --csv
}

echo "--- commands without a daemon"
network_up
check "jool" rejects gw jool instance display
check "tylo health" rejects gw tylo health

echo "--- the daemon's options"
check "an unknown option" rejects gw tylod --state-dir "$STATE" --banana
check "no number" rejects gw tylod --state-dir "$STATE" --queue-base many
check "queues beyond the last" rejects gw tylod --state-dir "$STATE" --queue-base 70000
check "no workers" rejects gw tylod --state-dir "$STATE" --workers 0
check "a name too long for a device" rejects gw tylod --state-dir "$STATE" --tun a-name-of-many-letters
check "an unknown log level" rejects gw tylod --state-dir "$STATE" --log shout
echo file >"$WORK/file"
check "the state directory is a file" rejects gw tylod --state-dir "$WORK/file"
check "the file is still there" equal "$(cat "$WORK/file")" file
check "the state directory cannot be made" rejects gw tylod --state-dir /proc/tylo-state
mkdir "$WORK/garbage"
head -c 8192 /dev/urandom >"$WORK/garbage/state.db"
sum "$WORK/garbage/state.db" >"$WORK/garbage.sum"
check "the database is something else" rejects gw tylod --state-dir "$WORK/garbage"
check "and is left as it is" equal "$(sum "$WORK/garbage/state.db")" "$(cat "$WORK/garbage.sum")"
check "no CAP_NET_ADMIN" \
	rejects gw setpriv --bounding-set -net_admin --inh-caps -net_admin tylod --state-dir "$WORK/uncapable"
check "nothing is left in the kernel by all these" equal "$(gw nft list tables; gw ip -br link show type tun)" ""
network_down

echo "--- a working gateway"
gateway_up own
http_server server
jool bib add $CLIENT6#80 203.0.113.1#61080 --tcp
jool global update udp-timeout 0:06:00
stored >"$WORK/stored"

check "a second daemon in the namespace" rejects gw tylod --state-dir "$WORK/state2"
check "which says who is the first" grep -q "(process $DAEMON)" "$WORK/reject.out"
check "a second daemon with the same state elsewhere" rejects uplink tylod --state-dir "$STATE"

echo "--- commands"
for pool6 in 64:ff9b::/97 64:ff9b::1/96 64:ff9b::/33 64:ff9b:: banana 10.0.0.0/8 '' /96 ::/0/0; do
	check "instance add --pool6 '$pool6'" rejects gw jool -i other instance add --iptables --pool6 "$pool6"
done
check "an instance without pool6" rejects gw jool instance add other --iptables
check "the same instance again" rejects gw jool instance add --netfilter --pool6 64:ff9b::/96
check "a second instance for the same packets" \
	rejects gw jool instance add other --netfilter --pool6 64:ff9b::/96
check "a name too long" rejects gw jool instance add a-name-of-many-letters --netfilter --pool6 2001:db8::/96
check "an instance that is not there" rejects gw jool -i other pool4 display
check "removing an instance that is not there" rejects gw jool instance remove other
for range in 61001-65536 70000 -5 a-b ''; do
	check "pool4 add with ports '$range'" rejects gw jool pool4 add --tcp 203.0.113.1 -- "$range"
done
for address in 300.1.1.1 203.0.113 203.0.113.0/33 2001:db8::1 ''; do
	check "pool4 add with address '$address'" rejects gw jool pool4 add --tcp "$address" 61001-65535
done
check "pool4 add of half the Internet" rejects gw jool pool4 add --tcp 203.0.0.0/16 61001-65535
jool instance add other --iptables --pool6 2001:db8:64::/96
check "pool4 add of what another instance has" \
	rejects gw jool -i other pool4 add --tcp 203.0.113.1 65535
check "which names it" grep -q "instance 'default'" "$WORK/reject.out"
check "with --force it goes" jool -i other pool4 add --tcp 203.0.113.1 65535 --force
jool instance remove other
check "pool4 add for two protocols" rejects gw jool pool4 add --tcp --udp 203.0.113.1 61001-65535
check "an option that is not there" rejects gw jool pool4 add --banana 203.0.113.1 61001-65535
check "a mode that is not there" rejects gw jool banana
check "a bib entry with one address" rejects gw jool bib add $CLIENT6#80 --tcp
check "a bib entry with a bad port" rejects gw jool bib add $CLIENT6#80 203.0.113.1#99999 --tcp
check "removing a bib entry that is not there" rejects gw jool bib remove 203.0.113.1#62000 --tcp
check "a global that is not there" rejects gw jool global update banana 1
check "a global without value" rejects gw jool global update udp-timeout
check "a bad value for a global" rejects gw jool global update udp-timeout soon
check "a file that is not there" rejects gw jool file handle "$WORK/no-such-file"
echo '{ "instance": ' >"$WORK/half.json"
check "half a file" rejects gw jool file handle "$WORK/half.json"
check "a user without rights" rejects gw setpriv --reuid 65534 --regid 65534 --clear-groups jool instance flush

echo "--- nonsense on the socket and on the wire"
check "the daemon closes connections that talk nonsense" gw timeout "$LIMIT" $PYTHON "$HERE/nonsense.py" socket
watch leaks uplink u0 'net 64:ff9b::/96' -Q in
check "packets of nonsense are sent" client timeout "$LIMIT" $PYTHON "$HERE/nonsense.py" packets c0 \
	"$(gw cat /sys/class/net/g6/address)"
check "the daemon still runs" daemon_alive
check "and translates" client_fetch -o /dev/null "http://[$SERVER6]:8080/peer"
watch_end leaks
check "nothing of it leaves untranslated, whatever its protocol" nothing_seen leaks

check "what was stored is still there" unchanged "$WORK/stored" stored
must "the daemon stops" daemon_stop
must "and starts" daemon_start
check "what was stored is there after a restart" unchanged "$WORK/stored" stored
check "it translates" client_fetch -o /dev/null "http://[$SERVER6]:8080/peer"
