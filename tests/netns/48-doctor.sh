#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# `tylo doctor`: everything that it looks for is broken, one thing at a time, and named; where it gives
# a command that mends it, that is carried out, and then nothing is named any more.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

doctor() { gw "$BIN/tylo" doctor --state-dir "$STATE" "$@"; }
# All that is not fine, a line each. The clock is this machine's, and stays out of it.
summary() { jq -r '.[] | select(.check != "clock" and .verdict != "fine") | "\(.verdict) \(.check)"' | sort -u; }
report() { doctor --json || true; }
findings() { report | summary; }
finds() { equal "$(findings)" "$1"; }
all_is_well() { finds ''; }
mend() { report | jq -r "[.[] | select(.check == \"$1\" and .verdict != \"fine\") | .mend][0]"; } # CHECK

# Broken by a command, mended by what the doctor says.
heals() { # "VERDICT CHECK" COMMAND...
	local finding=$1 mend
	shift
	must "broken: $*" "$@"
	check "  is named: $finding" finds "$finding"
	mend=$(mend "${finding#* }")
	check "  is mended by: $mend" gw bash -c "$mend"
	check "  is not named any more" all_is_well
}
# The same where what is said is not a command to be carried out as it is.
names() { # "VERDICT CHECK" UNDO COMMAND...
	local finding=$1 undo=$2
	shift 2
	must "broken: $*" "$@"
	check "  is named: $finding" finds "$finding"
	must "  undone: $undo" eval "$undo"
	check "  is not named any more" all_is_well
}
# Broken for a mount namespace only.
names_elsewhere() { # "VERDICT CHECK" SCRIPT
	gw unshare -m bash -ec "mount --make-rprivate /; $2; exec '$BIN/tylo' doctor --json --state-dir '$STATE'" \
		>"$WORK/elsewhere" || true
	check "broken: ${2##*; }; is named: $1" grep -qx "$1" <(summary <"$WORK/elsewhere")
}
# A /proc of links, of which some can lead elsewhere.
mkdir "$WORK/proc"
PROC="mount -t proc proc $WORK/proc; mount -t tmpfs none /proc; ln -s $WORK/proc/* /proc"

network_up
check "no daemon is named" equal "$(findings | grep daemon)" "wrong daemon"
check "  and the status is 1" not doctor
must "the daemon gets ready" daemon_start
check "no instance is named" equal "$(findings | grep daemon)" "doubt daemon"
must "an instance and pool4 are accepted" configure

ip -n "$PREFIX-gw" route add default via $SERVER4
for device in g6 g4 gu; do gw ethtool -K $device gro on; done
doctor >"$WORK/text" || true
cat "$WORK/text"
must "a sound gateway has nothing to mend" all_is_well
check "  every check says what it found" equal "$(grep -c '^[^ ]' "$WORK/text")" "$(report | jq length)"
check "  the status is 0" doctor
check "  --quiet leaves it out" not grep -v clock <(doctor --quiet | grep '^[^ ]')

# --- the host

heals "wrong forwarding" gw sysctl -qw net.ipv4.ip_forward=0
heals "wrong forwarding" gw sysctl -qw net.ipv6.conf.g6.forwarding=0
gw setpriv --reuid=65534 --clear-groups "$BIN/tylo" doctor --json >"$WORK/nobody" || true
check "missing rights are named" grep -qx "doubt privileges" <(summary <"$WORK/nobody")
names_elsewhere "wrong kernel-queues" "$PROC; rm /proc/thread-self; mkdir /proc/thread-self"
names_elsewhere "wrong tun" 'mount -t tmpfs none /dev/net'
names_elsewhere "doubt other-translators" "$PROC; rm -f /proc/modules; echo 'jool 1 0 - Live 0x0' >/proc/modules"
names_elsewhere "wrong storage" "mount -t tmpfs -o size=1m none '$STATE'"
# Whatever this machine's clock is, the two sides of the kernel's flag are told apart.
clock=$(report | jq -r '.[] | select(.check == "clock") | .verdict')
synchronized=$($PYTHON -c 'import ctypes; t = (ctypes.c_long * 64)(); s = ctypes.CDLL(None).adjtimex(t)
print("doubt" if s == 5 or t[5] & 0x40 else "fine")')
check "the clock is what the kernel says: $synchronized" equal "$clock" "$synchronized"

# --- the rules

early() {
	gw nft -f - <<-'END'
		table inet early {
			chain early { type filter hook prerouting priority -300; ip saddr 192.0.2.66 drop; }
		}
	END
}
names "doubt rules-first" 'gw nft delete table inet early' early

# --- routes and addresses

names "wrong pool6-route" "ip -n $PREFIX-gw -6 route del 64:ff9b::/96 dev gu metric 1" \
	ip -n "$PREFIX-gw" -6 route add 64:ff9b::/96 dev gu metric 1
names "doubt ipv4-route" "ip -n $PREFIX-gw route add default via $SERVER4" ip -n "$PREFIX-gw" route del default
heals "wrong pool4-address" jool pool4 add --tcp 203.0.113.77 61001-65535
must "the doubled address goes" jool pool4 remove --tcp 203.0.113.77 61001-65535
heals "wrong pool4-ports" gw sysctl -qw net.ipv4.ip_local_port_range="32768 62000"
gw sysctl -qw net.ipv4.ip_local_port_range="32768 60999" net.ipv4.ip_local_reserved_ports=
spawn gw nc -lk 203.0.113.1 61234
must "a program listens at a port of pool4" within 5 listens gw 61234
check "  is named" finds "wrong pool4-ports"
end "$SPAWNED"
check "  is not named any more" all_is_well

# --- sizes and offloads

names "doubt mtu" "ip -n $PREFIX-gw link set g4 mtu 1500" ip -n "$PREFIX-gw" link set g4 mtu 1000
heals "wrong mtu" jool global update lowest-ipv6-mtu 1600
names "wrong mtu" "ip -n $PREFIX-gw link set tylo0 mtu 65535" ip -n "$PREFIX-gw" link set tylo0 mtu 1400
heals "doubt offloads" gw ethtool -K g6 gro off

# --- without state

must "an SIIT instance" gw "$BIN/jool_siit" instance add --netfilter --pool6 2001:db8:64::/96
ip -n "$PREFIX-gw" route del default
must "sources are checked, and no route makes them plausible" gw sysctl -qw net.ipv4.conf.all.rp_filter=1
check "  is named" equal "$(findings | grep wrong)" "wrong reverse-path"
must "  is mended by: $(mend reverse-path)" gw bash -c "$(mend reverse-path)"
check "  is not named any more" equal "$(findings)" "doubt ipv4-route"
ip -n "$PREFIX-gw" route add default via $SERVER4
must "the SIIT instance goes" gw "$BIN/jool_siit" instance remove

# --- the cluster

must "a key" gw "$BIN/tylo" sync keygen "$WORK/key"
must "an instance takes part" jool global update ss-enabled true
must "a node" gw "$BIN/tylo" sync set --node 1 --key "$WORK/key" --group ff02::db8:64 --dev gu
check "a node that is alone is named" within 5 finds "doubt cluster"
must "broken: no multicast" ip -n "$PREFIX-gw" link set gu multicast off
check "  is named" finds "wrong cluster"
must "  is mended by: $(mend cluster)" gw bash -c "$(mend cluster)"
check "  is not named any more" finds "doubt cluster"
must "a node no more" gw "$BIN/tylo" sync off
check "  nothing is named" all_is_well

# --- queues that are full

kill -STOP "$DAEMON"
client $PYTHON - "$SERVER6" <<-'END'
	import socket, sys
	sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
	for _ in range(20000):
	    sock.sendto(b"x", (sys.argv[1], 9))
END
kill -CONT "$DAEMON"
check "packets that full queues dropped are named" within 5 finds "doubt queue-drops"

# --- the daemon is killed, and its rules stay

daemon_kill
check "rules without a daemon are named" equal "$(findings)" "wrong daemon
wrong rules"
