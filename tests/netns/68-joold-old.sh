#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Sessions are shared as configurations and scripts of Jool 3 ask for it, over IPv4 multicast, in each
# of the formats, on a network that delivers everything more than once, and with strangers on it.
. "$(dirname "$(readlink -f "$0")")/lib.sh"
. "$HERE/cluster.sh"

old() { # NODE OPTION of Jool 3...
	node "$@" 2>>"$WORK/hints"
}
old_configure() { # NODE
	node "$1" instance add --netfilter --pool6 64:ff9b::/96 &&
		old "$1" --pool4 --add --tcp --udp 192.0.2.1 61001-65535 &&
		old "$1" --pool4 --add --icmp 192.0.2.1 0-65535 &&
		old "$1" --ss-enabled true
}
netsocket() { # NODE FORMAT
	local own=10.0.0.${NODE_NUMBER[$1]}
	cat >"$WORK/netsocket.$1.json" <<-END
		{
			"multicast address": "$GROUP4",
			"multicast port": "6464",
			"in interface": "$own",
			"out interface": "$own",
			"reuseaddr": 1,
			"ttl": 3,
			"format": "$2"
		}
	END
}
joold() { # NODE FORMAT [ARGUMENT...]
	local name=$1
	netsocket "$name" "$2"
	shift 2
	proxy_start "$name" "$BIN/joold" "$WORK/netsocket.$name.json" "$@"
}
# Has the sync network deliver what a node sends more than once.
echoes() { # NODE
	in_ns "$1" nft -f - <<-END
		table netdev echo {
			chain out {
				type filter hook egress device "eth2" priority 0
				udp dport 6464 dup to "eth2"
			}
		}
	END
}
at_least() { # MINIMUM COMMAND...
	local minimum=$1 value
	shift
	value=$("$@") && [ "$value" -ge "$minimum" ]
}
# Sends what is in files as of tests/fixtures/joold, or noise.
say() { # ARGUMENT...
	in_ns l $PYTHON - 10.0.0.6 $GROUP4 6464 "$@" <<-'END'
		import os, random, socket, sys
		own, group, port, *files = sys.argv[1:]
		sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(own))
		if files == ["noise"]:
		    for _ in range(20_000):
		        sock.sendto(os.urandom(random.randrange(200)), (group, int(port)))
		for file in files if files != ["noise"] else []:
		    for line in open(file):
		        sock.sendto(bytes.fromhex(line), (group, int(port)))
	END
}
many() { # NUMBER: sessions of as many clients
	in_ns n6 $PYTHON "$HERE/udp.py" many $N4 9 "$1"
}

cluster_up j k l
for name in j k; do
	must "$name: the daemon gets ready" node_start $name
	must "$name: the configuration of Jool 3" old_configure $name
done
activate j
ip -n "$PREFIX-n6" addr add 2001:db8:6::1:1/64 dev eth0 nodad
for name in j k; do ip -n "$PREFIX-$name" -6 route add 2001:db8:6::/64 via 2001:db8::8; done
must "everything j says arrives several times" echoes j
must "joold runs in k, which writes the newest format" joold k c

for format in a b c; do
	echo "--- j writes format $format"
	must "joold runs in j" joold j $format
	check "ping" ping_ok n6 $N4
	check "the session is in k" within 5 same_sessions j k icmp
	check "duplicates are noticed" within 5 at_least 1 counter k duplicates
	check "everything was understood" equal "$(counter k malformed) $(counter k refused) $(counter k collisions)" "0 0 0"
	check "j displays it in the old way" says "Remote: 192.0.2.8#[0-9]+" old j -sin
	end "${PROXY_PID[j]}"
	check "the ping is over in both" node j global update icmp-timeout 0:00:00
	check "the ping is over in both" node k global update icmp-timeout 0:00:00
	no_pings() { equal "$(count j icmp) $(count k icmp)" "0 0"; }
	check "no session is left" within 10 no_pings
	node j global update icmp-timeout 0:01:00
	node k global update icmp-timeout 0:01:00
done
check "hints say how to write it today" grep -q 'jool session display' "$WORK/hints"

echo "--- many at once"
must "joold runs in j again" joold j c
all_there() { equal "$(count j udp)" 4000; }
check "its queue has room for ten sessions" old j --ss-capacity 10
sleep 0.5
check "4000 sessions begin" many 4000
check "j has them" within 10 all_there
check "they come faster than the queue takes them" at_least 1 counter j untold
check "so the log says" within 5 grep -q 'peers were not told of some sessions' "$WORK/daemon.1.log"
check "so k lacks some" not same_sessions j k udp
check "an advertisement is asked for in the old way" old j --joold --advertise
check "then k has all" within 20 same_sessions j k udp
advertised() { equal "$(counter j advertising)" false; }
check "the advertisement comes to its end" within 10 advertised
check "another one changes nothing" old j --joold --advertise
check "it comes to its end as well" within 10 advertised
check "k has the same sessions" same_sessions j k udp
check "and no others" equal "$(count k udp)" 4000

echo "--- strangers"
merged=$(counter k merged)
check "noise on the network" say noise
check "is counted" within 10 at_least 1000 counter k malformed
check "and merged by nobody" equal "$(counter k merged)" "$merged"
check "what other gateways said long ago" say "$REPO"/tests/fixtures/joold/{03,08,12}-*.hex
check "is refused where it is not in pool4" within 5 at_least 1 counter k refused
check "is refused as a whole" equal "$(count k tcp)" 0
check "the log says so in few lines" between "$(grep -c 'what peers say does not fit' "$WORK"/daemon.2.log)" 1 2
check "k translates nevertheless" within 5 same_sessions j k udp
activate k
check "ping by way of k" ping_ok n6 $N4
for name in j k; do
	kill -TERM "${NODE_PID[$name]}"
	check "$name stops" ends_within 5 "${NODE_PID[$name]}"
done
