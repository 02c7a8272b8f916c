#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Two active gateways and asymmetric paths: packets from IPv6 go through one of them, the answers
# come back through the other, before it has heard of their sessions. It asks, and nothing is lost;
# strangers cannot make it ask too much.
#
# FLOWS=1000 is the long form.
. "$(dirname "$(readlink -f "$0")")/lib.sh"
. "$HERE/cluster.sh"

FLOWS=${FLOWS:-200}
KEY=$WORK/key
tylo_in() { # NODE ARGUMENT...
	local node=$1
	shift
	timeout "$LIMIT" ip netns exec "$PREFIX-$node" "$BIN/tylo" "$@"
}
join() { # NODE SHARE
	tylo_in "$1" sync set --node "${NODE_NUMBER[$1]}" --key "$KEY" --group $GROUP6 --dev eth2 --share "$2"
}
ready() { tylo_in "$1" health --ready; }
status() { tylo_in "$1" sync status --json | jq -c "$2"; } # NODE WHAT
peers() { equal "$(status "$1" '[.peers[].node]|sort' | tr -d '[]')" "$2"; }
is() { equal "$(status "$1" "$2")" "$3"; } # NODE COUNTER VALUE
# What leaves by j comes back by k.
asymmetric() {
	activate j
	ip -n "$PREFIX-j" addr del 192.0.2.1/24 dev eth1
	ip -n "$PREFIX-k" addr add 192.0.2.1/24 dev eth1
	ip -n "$PREFIX-n4" neigh flush all
}
retransmitted() { # NAMESPACE
	in_ns "$1" nstat -asz TcpRetransSegs | awk '/TcpRetransSegs/ { print $2 }'
}
# Packets that k let go without an answer: on a busy machine 100 ms may be too short.
let_go() { status k '(.late + .unasked) // 0'; }
# One datagram from each of these ports of the client; all are to be answered. A second try is only for
# those that the gateway let go, and for half of them at most.
udp_flows() { # FIRST NUMBER
	local before
	before=$(let_go)
	in_ns n6 $PYTHON "$WORK/udp_flows.py" "$1" "$2" $N4 >"$WORK/again" || return
	# What is shown is up to 200 ms old.
	within 2 eval '[ "$(cat "$WORK/again")" -le $(($(let_go) - before)) ]' &&
		between "$(cat "$WORK/again")" 0 $(($2 / 2))
}
cat >"$WORK/udp_flows.py" <<'END'
import select, socket, sys
first, number, host = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
poll, waiting, again = select.poll(), {}, 0
def send(s, port):
    s.sendto(b'%d' % port, (host, 7001))
def collect(most):
    global again
    silent = 0
    while len(waiting) > most:
        ready = poll.poll(2000)
        for fd, _ in ready:
            s, port = waiting.pop(fd)
            assert s.recv(99) == b'%d' % port
            poll.unregister(fd)
            s.close()
        if not ready:
            silent += 1
            if silent > 5:
                sys.exit('no answer to %s' % [port for _, port in waiting.values()])
            again += len(waiting) if silent == 1 else 0
            for s, port in waiting.values():
                send(s, port)
for port in range(first, first + number):
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.bind(('', port))
    send(s, port)
    poll.register(s, select.POLLIN)
    waiting[s.fileno()] = (s, port)
    # No more at a time than the gateways of a test network take.
    collect(20)
collect(0)
print(again)
END
# Connections one after the other; each says where it comes from and hears it.
tcp_flows() { # FIRST NUMBER
	in_ns n6 $PYTHON -c "
import socket, sys
first, number, host = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
for port in range(first, first + number):
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as s:
        s.settimeout(30)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(('', port))
        s.connect((host, 7002))
        s.sendall(b'%d\n' % port)
        assert s.makefile('rb').readline() == b'%d\n' % port
" "$1" "$2" $N4
}
bib() { node "$1" bib display "--$2" --numeric --csv --no-headers | cut -d , -f 1-5 | sort -u; } # NODE PROTOCOL
# A client has one transport address and a transport address one client, on whatever node.
nothing_shared() { # PROTOCOL LEAST
	local all
	all=$(for name in j k; do bib $name "$1"; done | sort -u) || return
	equal "$(cut -d , -f 4,5 <<<"$all" | sort | uniq -d)" "" || return
	equal "$(cut -d , -f 2,3 <<<"$all" | sort | uniq -d)" "" || return
	[ "$(wc -l <<<"$all")" -ge "$2" ]
}
dropped() { in_ns k nft -j list counter netdev slow lost | jq '.nftables[1].counter.packets'; }

cluster_up j k
nodes_start j k
asymmetric
spawn n4 $PYTHON "$HERE/udp.py" echo 7001
must "a UDP echo server listens" within 10 listens n4 7001
spawn n4 $PYTHON -c "
import socketserver
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)
class Server(socketserver.ThreadingTCPServer):
    request_queue_size = 100
Server(('', 7002), Echo).serve_forever()"
must "a TCP echo server listens" within 10 listens n4 7002
must "j has one half" join j 1/2
must "k has the other" join k 2/2
for name in j k; do must "$name is ready" within 15 ready $name; done
check "j knows k" within 5 peers j 5
check "k knows j" within 5 peers k 4

# --- answers race with replication

check "$FLOWS UDP flows are answered at once" udp_flows 10000 "$FLOWS"
check "$FLOWS TCP connections work" tcp_flows 10000 "$FLOWS"
asked=$(status k .queries_sent)
check "k asked ($asked)" test "$asked" -gt 0
check "and was told" within 5 eval '[ "$(status k .queries_found)" -gt 0 ]'

# --- updates are lost: only what is asked for arrives

# The heartbeat is as long as any of them while nothing happens; all else to the group is lost.
beat=$(in_ns k timeout 5 tcpdump -i eth2 -nn -c 1 -v "udp and dst host $GROUP6" 2>/dev/null |
	sed -En 's/.*payload length: ([0-9]+).*/\1/p' | tail -n 1)
must "a heartbeat has $beat bytes" test "$beat" -gt 8
in_ns k nft -f - <<-END
	table netdev slow {
		counter lost { }
		chain in {
			type filter hook ingress device eth2 priority 0;
			ip6 daddr $GROUP6 udp length != $beat counter name lost drop
		}
	}
END
lost=$(retransmitted n4)
check "$FLOWS UDP flows are answered at once" udp_flows 20000 "$FLOWS"
check "$FLOWS TCP connections work" tcp_flows 20000 "$FLOWS"
check "updates were lost ($(dropped))" test "$(dropped)" -gt 0
again=$(($(retransmitted n4) - lost))
check "hardly any connection's answer had to be sent twice ($again)" between $again 0 $((FLOWS / 10))
check "k asked ($(status k .queries_sent)) and was told" eval '[ "$(status k .queries_found)" -gt "$asked" ]'

# --- a client's own packets change their way in the middle of a connection, still without updates

known=$(status k .queries_found)
spawn n6 $PYTHON -c "
import itertools, os, socket, sys, time
work, host = sys.argv[1:]
def until(name):
    while not os.path.exists('%s/%s' % (work, name)):
        if os.path.exists('%s/enough' % work):
            sys.exit()
        time.sleep(0.01)
for i in itertools.count():
    until('go.%d' % i)
    with socket.create_connection((host, 7002), 30) as s:
        s.sendall(b'before\n')
        lines = s.makefile('rb')
        assert lines.readline() == b'before\n'
        open('%s/open.%d' % (work, i), 'w').close()
        until('moved.%d' % i)
        s.sendall(b'after\n')
        assert lines.readline() == b'after\n'
        open('%s/over.%d' % (work, i), 'w').close()
" "$WORK" $N4
MOVING=$SPAWNED
moved() { # NUMBER
	activate j
	touch "$WORK/go.$1"
	within 30 test -e "$WORK/open.$1" || return
	activate k
	touch "$WORK/moved.$1"
	within 30 test -e "$WORK/over.$1"
}
told() { [ "$(status k .queries_found)" -gt "$known" ]; }
# What is lost is sent again, and may be there before the client's way changes.
for ((moves = 0; moves < 100; moves++)); do
	! { [ $moves -ge 10 ] && told; } || break
	check "connection $moves goes on by another way" moved "$moves"
done
touch "$WORK/enough"
check "all of them end in order" eval "ends_within 10 $MOVING && wait $MOVING"
check "k was told of some of them" told
asymmetric
in_ns k nft delete table netdev slow
for protocol in udp tcp; do
	check "$protocol: nobody has two addresses, no address has two clients" nothing_shared $protocol $((2 * FLOWS))
done
for protocol in udp tcp; do check "both have all of them" within 30 same_sessions j k $protocol; done

# --- a scan of pool4

is_idle() { is k .waiting 0; }
check "nothing waits" within 5 is_idle
scan() { # FIRST LAST: a datagram to each of these ports, from many addresses
	in_ns n4 $PYTHON -c "
import socket, sys
for port in range(int(sys.argv[1]), int(sys.argv[2])):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(('192.0.2.%d' % (100 + port % 100), 0))
    s.sendto(b'scan', ('192.0.2.1', port))
    s.close()" "$1" "$2"
}
for i in {100..199}; do ip -n "$PREFIX-n4" addr add 192.0.2.$i/32 dev eth0; done
before=$(status k .queries_sent) sent=$(status k .sent_datagrams) begin=${EPOCHREALTIME/./}
for round in 1 2 3; do scan 61001 65536; done
took=$(((${EPOCHREALTIME/./} - begin) / 1000 + 200))
asked=$(($(status k .queries_sent) - before)) sent=$(($(status k .sent_datagrams) - sent))
# 250 at once, 1000 a second, and nothing about what is of k's own share.
limit=$((250 + took))
check "13605 unknown ports make k ask $asked times in $took ms" between $asked 1 $limit
check "with $sent datagrams" between $sent $asked $((limit + 100 + took / 50))
check "half of them were not asked about" between $asked 1 6802
check "nothing waits any more" within 5 is_idle
before=$(status k .queries_sent)
mine=$(node k bib display --udp --numeric --csv --no-headers | wc -l)
check "k's table did not grow" between "$mine" $((2 * FLOWS)) $((2 * FLOWS + 5))

# --- who is alone asks nobody

must "j leaves the cluster" tylo_in j sync off
check "k is alone" within 5 peers k ""
before=$(status k .queries_sent)
scan 61001 61100
check "and asks nobody" is k .queries_sent "$before"
check "flows that it has go on" is_idle
