#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Three gateways share their sessions in Jool's way: whichever is active may die, and connections go
# on through another with the same transport addresses.
. "$(dirname "$(readlink -f "$0")")/lib.sh"
. "$HERE/cluster.sh"

cluster_up j k l
for name in j k l; do
	must "$name: the daemon gets ready" node_start $name
	must "$name: the tutorial's configuration" node_configure $name
done
check "without an exchange, advertising fails" rejects j "$BIN/jool" session advertise
check "and says why" grep -q "run 'jool session proxy' first" "$WORK/reject.out"
must "j exchanges sessions" proxy6 j
must "k, too, with a server of statistics" proxy6 k --stats.address=:: --stats.port=45678
activate j
spawn n4 $PYTHON "$HERE/lasting.py" serve 7000
must "a server listens in n4" within 10 listens n4 7000

# --- one configuration, one exchange

check "the configuration is printed" grep -qx '  net.mcast.addr: ff08::db8:64:64' "$WORK/proxy.j"
check "a second proxy is refused" rejects j "$BIN/jool" session proxy ff08::1
check "and hears of the first" grep -q "another 'session proxy' already, with the group $GROUP6 port 6464" "$WORK/reject.out"
check "an interface that is not there" rejects l "$BIN/jool" session proxy --net.dev.in nowhere0 ff08::1
check "is named" grep -q "there is no interface 'nowhere0'" "$WORK/reject.out"
check "an address that is not there" rejects l "$BIN/jool" session proxy --net.dev.out 192.0.2.99 $GROUP4
check "is named" grep -q "192.0.2.99" "$WORK/reject.out"
check "a port of statistics that is taken" rejects l bash -c \
	"'$BIN/jool' session proxy --stats.address 2001:db8::99 --stats.port 5 $GROUP6"

# --- sessions appear in the other gateway

ping_start
must "the ping is answered" ping_goes_on
check "its session appears in k" within 5 same_sessions j k icmp
spawn n6 $PYTHON "$HERE/steady.py" $N4 7000 "$WORK/steady" >"$WORK/steady.out" 2>&1
STEADY=$SPAWNED
must "two TCP connections are open" within 10 test -e "$WORK/steady.open"
check "both appear in k" within 5 same_sessions j k tcp
check "they are established there" equal "$(sessions k tcp | grep -c ',ESTABLISHED$')" 2
check "k has not told what it was told" equal "$(counter k sessions_out)" 0
check "l has heard nothing" equal "$(count l tcp)" 0
icmp=$(sessions j icmp)
tcp=$(sessions j tcp)

statistics() { in_ns k bash -c "echo '' | nc -u -w 1 $1 45678"; } # ADDRESS
six_lines() {
	local lines
	lines=$(statistics "$1")
	equal "$(cut -d , -f 1 <<<"$lines" | paste -sd ' ')" \
		"KERNEL_SENT_PKTS KERNEL_SENT_BYTES NET_RCVD_PKTS NET_RCVD_BYTES NET_SENT_PKTS NET_SENT_BYTES" || return
	[ "$(sed -n 's/^NET_RCVD_PKTS,//p' <<<"$lines")" -gt 0 ]
}
check "k answers questions about statistics, over IPv4" six_lines 127.0.0.1
check "and IPv6" six_lines ::1
received() { says '^JSTAT_JOOLD_SSS_RCVD: [1-9]' node k stats display; }
check "k counts what it received" within 5 received
sent() { says '^JSTAT_JOOLD_SSS_SENT: [1-9]' node j stats display; }
check "j counts what it sent" within 5 sent

# --- j dies, k goes on

node_kill j
activate k
check "the ping goes on through k" ping_goes_on
check "with the same session" equal "$(sessions k icmp)" "$icmp"
check "the connections have the same transport addresses" equal "$(sessions k tcp)" "$tcp"
check "j's proxy says that it waits" within 5 grep -q 'trying again until it works' "$WORK/proxy.j"

# --- l joins, and gets everything by an advertisement

must "l exchanges sessions" proxy6 l
check "k advertises" node k session advertise
check "l has the ping" within 5 same_sessions k l icmp
check "l has the connections, the idle one as well" within 5 equal_now "$tcp" sessions l tcp

# --- j comes back with nothing

rm -rf "$WORK/state-j"
must "j's daemon starts anew" node_start j
must "it is configured" node_configure j
check "its proxy is there again by itself" within 10 eval \
	"[ \$(grep -c 'exchanging the sessions' '$WORK/proxy.j') = 2 ]"
check "k advertises" node k joold advertise
check "j has the ping" within 5 same_sessions k j icmp
check "j has the connections" within 5 equal_now "$tcp" sessions j tcp
activate j
check "the ping goes on through j" ping_goes_on
check "with the same session" equal "$(sessions j icmp)" "$icmp"

# --- a ring that delivers every datagram twice, and not always in order

for name in j k l; do ip -n "$PREFIX-net" link set $name-eth2 nomaster; done
spawn net $PYTHON "$HERE/weather.py" 0 100 100 j-eth2 k-eth2 l-eth2 >"$WORK/weather"
WEATHER=$SPAWNED
must "the ring is closed" within 5 grep -q ready "$WORK/weather"
before=$(counter l duplicates) lines=$(cat "$WORK"/daemon.*.log | wc -l)
udp_from 5000 5099
check "what begins is told to all" within 10 all_have 5000 5099
check "j says all of it again, in several datagrams" node j session advertise
doubles() { [ "$(counter l duplicates)" -gt "$before" ]; }
check "doubles are counted" within 10 doubles
check "and not logged" equal "$(cat "$WORK"/daemon.*.log | wc -l)" "$lines"
check "the connections are as they were" equal_now "$tcp" sessions l tcp
end "$WEATHER"
for name in j k l; do ip -n "$PREFIX-net" link set $name-eth2 master sync; done
tail -n 1 "$WORK/weather"
check "everything was doubled" grep -Eq '[1-9][0-9]* late, [1-9][0-9]* doubled' "$WORK/weather"

# --- two die, the third goes on

node_kill j
node_kill k
activate l
check "the ping goes on through l" ping_goes_on
check "with the same session" equal "$(sessions l icmp)" "$icmp"
touch "$WORK/steady.end"
check "the connections end in order" exit_status 0 "$STEADY"
echo "longest silence of the busy connection: $(cat "$WORK/steady.out") ms"
check "l has no other connections" equal "$(sessions l tcp | cut -d , -f 1-9)" "$(cut -d , -f 1-9 <<<"$tcp")"

# --- the switch

check "l stops telling" node l global update ss-enabled false
check "then advertising fails" rejects l "$BIN/jool" session advertise
check "and says why" grep -q "ss-enabled true" "$WORK/reject.out"

# --- the end of an exchange

kill -TERM "${PROXY_PID[l]}"
check "SIGTERM ends a proxy with status 0" exit_status 0 "${PROXY_PID[l]}"
check "another one takes its place at once" proxy6 l
kill -KILL "${PROXY_PID[l]}"
check "also when the first one was killed" proxy6 l
kill -INT "${PROXY_PID[l]}"
check "so does SIGINT" exit_status 0 "${PROXY_PID[l]}"
no_exchange() { equal "$(counter l group)" null; }
check "the daemon notices" within 5 no_exchange
must "once more" proxy6 l
ip -n "$PREFIX-l" link del eth2
check "an interface that goes" within 5 grep -q "'eth2' is another one now, or gone; trying again" "$WORK/proxy.l"
check "is named once" equal "$(sleep 2.5; grep -c "there is no interface 'eth2'" "$WORK/proxy.l")" 1
plug l eth2 sync
check "when it comes back, the exchange does" within 5 eval \
	"[ \$(grep -c 'exchanging the sessions' '$WORK/proxy.l') = 2 ]"
started=$EPOCHSECONDS
check "a stop of the daemon does not wait for a proxy" end "${NODE_PID[l]}"
check "at once" between $((EPOCHSECONDS - started)) 0 2
check "the proxy says why" within 5 grep -q 'tylod was stopped' "$WORK/proxy.l"
end "$PING"
