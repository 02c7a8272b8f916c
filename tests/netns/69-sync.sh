#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Three gateways share their sessions with the protocol of our own: whichever is active may die, who
# comes back gets everything by itself, and nothing that was deleted returns. Neither strangers nor
# a bad network do any harm.
#
# CONNECTIONS=1000 is the long form.
. "$(dirname "$(readlink -f "$0")")/lib.sh"
. "$HERE/cluster.sh"

CONNECTIONS=${CONNECTIONS:-50}
stored() { # NODE PORT: its mapping is in the database
	$PYTHON -c "
import sqlite3, sys
db = sqlite3.connect('file:' + sys.argv[1] + '/state.db?mode=ro', uri=True)
query = 'SELECT count(*) FROM bib JOIN session USING (instance, protocol, v4_addr, v4_port) WHERE v6_port = ?'
sys.exit(db.execute(query, [sys.argv[2]]).fetchone()[0] == 0)" "$WORK/state-$1" "$2"
}

cluster_up j k l
touch "$WORK/kills"
check "a key is made" "$BIN/tylo" sync keygen "$KEY"
check "which nobody else may read" equal "$(stat -c %a "$KEY")" 600
check "and nothing overwrites" not "$BIN/tylo" sync keygen "$KEY"
must "other keys are made" "$BIN/tylo" sync keygen "$WORK/wrong"
must "two of them" "$BIN/tylo" sync keygen "$WORK/next"
for name in j k l; do
	must "$name: the daemon gets ready" node_start $name
	must "$name: the tutorial's configuration" node_configure $name
done
check "who is no node says so" rejects j "$BIN/tylo" sync status
check "an interface that is not there is refused" rejects j "$BIN/tylo" sync set --node 4 --key "$KEY" --group $GROUP6 --dev nowhere0
check "and named" grep -q "'nowhere0'" "$WORK/reject.out"
check "who is no node is ready by itself" ready j
cluster_counters() { node "$1" stats display --all | grep -c '^JSTAT_SYNC_'; } # NODE
check "and counts nothing of clusters" equal "$(cluster_counters j)" 0

# --- two nodes

must "j becomes a node" join j
check "whose configuration nobody else may read" equal "$(stat -c %a "$WORK/state-j/sync.json")" 600
must "and, as it is alone, ready" within 10 ready j
must "k becomes a node" join k
must "and ready" within 10 ready k
check "j knows k" within 5 peers j 5
check "k knows j" within 5 peers k 4
must "a status is shown" status j . >"$WORK/shown"
must "and health" tylo_in j health --json >>"$WORK/shown"
check "no key is" not grep -qF "$(cut -c 3- "$KEY")" "$WORK/shown" "$WORK"/daemon.*.log
activate j
spawn n4 $PYTHON "$HERE/lasting.py" serve 7000
must "a server listens in n4" within 10 listens n4 7000
ping_start
must "a ping is answered" ping_goes_on
check "its session appears in k" within 5 same_sessions j k icmp
spawn n6 $PYTHON "$HERE/steady.py" $N4 7000 "$WORK/steady" >"$WORK/steady.out" 2>&1
STEADY=$SPAWNED
spawn n6 $PYTHON "$HERE/lasting.py" hold $N4 7000 "$WORK" "$CONNECTIONS" >"$WORK/hold.out" 2>&1
HOLD=$SPAWNED
must "$CONNECTIONS TCP connections are open" within 60 test -e "$WORK/lasting.open"
udp_from 5001 5003
check "a UDP session appears in k" within 5 has_udp k 5003

# --- a deletion

must "j deletes a mapping" node j bib remove --udp 2001:db8::8#5001
check "it goes from k" within 5 lacks_udp k 5001
check "the others stay" has_udp k 5002
ping_before=$(sessions j icmp)

# --- j dies

fail_over j k
check "the ping goes on through k" ping_goes_on
check "with the same session" equal "$(sessions k icmp)" "$ping_before"
check "k misses j" within 5 peers k ""
check "k deletes a mapping that j still has on disk" node k bib remove --udp 2001:db8::8#5002
udp_from 5004

# --- j comes back, at first without the others

ip -n "$PREFIX-net" link set j-eth2 down
must "j starts with an old database" node_start j
not_ready() { rejects j "$BIN/tylo" health --ready && grep -q "NOT READY: node 4: 'default' does not have all sessions yet" "$WORK/reject.out"; }
check "it is not ready" not_ready
ip -n "$PREFIX-net" link set j-eth2 up
must "it is when it has heard k" within 10 ready j
check "it has the ping" within 5 same_sessions k j icmp
check "it has what came meanwhile" within 5 has_udp j 5004
check "and writes it down" within 10 stored j 5004
check "and not what was deleted" lacks_udp j 5002
check "nor what was deleted before" lacks_udp j 5001
check "no address has two clients" nothing_shared j k

# --- strangers

must "l becomes a node with a wrong key" join l "$WORK/wrong"
check "j notices" within 5 grows j .auth_failures 0
check "l learns nothing" equal "$(count l tcp)" 0
check "j does not know it" peers j 5
before=$(status j .malformed)
in_ns l $PYTHON -c "
import os, random, socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex('eth2'))
for i in range(20000):
    s.sendto(os.urandom(random.randrange(0, 1400)), ('$GROUP6', 6465))
    if i % 100 == 0:
        s.sendto(b'\1' + os.urandom(60), ('2001:db8:ff08::4', 6465))"
check "nonsense is counted" within 5 grows j .malformed $((before + 5000))
check "and does no harm" within 10 ready j
check "the nodes still know each other" within 5 peers j 5
must "l becomes a node with the key" join l
must "and ready" within 10 ready l
check "now j knows it" within 5 peers j 5,6
check "it has the ping" within 5 same_sessions k l icmp

# --- the key is exchanged

for name in j k l; do must "$name knows the next key" join $name "$KEY" "$WORK/next"; done
for name in j k l; do must "$name uses the next key" join $name "$WORK/next" "$KEY"; done
for name in j k l; do must "$name forgets the old key" join $name "$WORK/next"; done
for name in j k l; do must "$name is ready" within 10 ready $name; done
check "all know each other" within 10 eval 'peers j 5,6 && peers k 4,6 && peers l 4,5'

# --- a bad network

for name in j k l; do
	in_ns $name nft -f - <<-END
		table netdev bad {
			chain in { type filter hook ingress device eth2 priority 0; numgen random mod 100 < 25 drop; }
		}
	END
done
udp_from 5100 5199
check "with every fourth datagram lost, everything arrives" within 20 all_have 5100 5199
must "k deletes a mapping" node k bib remove --udp 2001:db8::8#5100
check "deletions, too" within 20 eval 'lacks_udp j 5100 && lacks_udp l 5100'
for name in j k l; do in_ns $name nft delete table netdev bad; done
gaps=$(($(status j .gaps) + $(status l .gaps)))
check "gaps were found and closed ($gaps)" test "$gaps" -gt 0
both_stats() { node j stats display "$@" && node l stats display "$@"; }
check "what became of them is shown" says '^JSTAT_SYNC_REPAIRS: [1-9]' both_stats
check "and explained" says '^Cluster: gaps' both_stats --explain
check "so are the others that are there" says '^JSTAT_SYNC_PEERS: 2$' node j stats display
check "and wrong keys" says '^JSTAT_SYNC_AUTH_FAILURES: [1-9]' node j stats display
check "all that there is" equal "$(cluster_counters j)" 9
spawn net $PYTHON "$HERE/twice.py" l-eth2
TWICE=$SPAWNED
before=$(status l .replayed)
udp_from 5200 5219
check "with every datagram doubled, too" within 20 all_have 5200 5219
check "doubles are counted" within 5 grows l .replayed "$before"
check "and shown" says '^JSTAT_SYNC_DUPLICATES: [1-9]' node l stats display
end "$TWICE"

# --- a partition

ip -n "$PREFIX-net" link set k-eth2 down
check "k is alone" within 10 peers k ""
udp_from 5300 5319
must "k deletes a mapping meanwhile" node k bib remove --udp 2001:db8::8#5003
ip -n "$PREFIX-net" link set k-eth2 up
check "when it is over, all have everything" within 45 all_have 5300 5319
check "and what k deleted is gone" within 5 eval 'lacks_udp j 5003 && lacks_udp k 5003 && lacks_udp l 5003'
check "no address has two clients" nothing_shared j k l

# --- another configuration

must "l gets another pool4" node l pool4 add --tcp 192.0.2.9 61001-65535
check "j says so" within 5 says 6 status j '.instances[0].mismatches'
udp_from 5400
check "and shares nothing with it" between "$(sleep 1; bib l udp | grep -c '2001:db8::8,5400,')" 0 0
must "l has the same again" node l pool4 remove --tcp 192.0.2.9 61001-65535
check "j sees it" within 5 eval '[ "$(status j ".instances[0].mismatches")" = "[]" ]'

# --- an upgrade in place, and the end

check "l hears what it missed" within 15 has_udp l 5400
check "k is replaced by a new program" tylo_in k upgrade
must "it is ready again" within 15 ready k
fail_over k l
check "the ping goes on through l" ping_goes_on
check "with the same session" equal "$(sessions l icmp)" "$ping_before"
touch "$WORK/steady.end" "$WORK/lasting.end"
check "the steady connections end in order" exit_status 0 "$STEADY"
check "all connections kept their transport addresses" exit_status 0 "$HOLD"
cat "$WORK/hold.out"
echo "longest silence of the busy connection: $(cat "$WORK/steady.out") ms"
must "j leaves the cluster" tylo_in j sync off
check "l is told at once" within 2 peers l ""
check "nothing is kept" not test -e "$WORK/state-j/sync.json"
end "$PING"
