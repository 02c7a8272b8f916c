#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Jool's tutorial of session synchronisation, command by command as printed, in the words of Jool 3
# and in those of Jool 4, with keepalived moving the addresses. J fails, K goes on, J comes back.
. "$(dirname "$(readlink -f "$0")")/lib.sh"
. "$HERE/cluster.sh"
. "$HERE/transcript.sh"

# keepalived's configuration of the tutorial. The health check is the bare command.
keepalived_conf() { # NODE STATE PRIORITY ADVERTISE
	local n=${NODE_NUMBER[$1]}
	cat <<-END
		global_defs {
			enable_script_security
			script_user root
		}
		vrrp_script check_jool {
			script "$BIN/jool"
			interval 2
		}
		vrrp_instance VI_6 {
			state $2
			interface eth0
			virtual_router_id 64
			priority $3
			advert_int 1
			unicast_src_ip 2001:db8::$n
			virtual_ipaddress {
				fe80::1
				2001:db8::1/96
			}
			track_script {
				check_jool
			}
			notify_backup "$BIN/jool $4"
		}
		vrrp_instance VI_4 {
			state $2
			interface eth1
			virtual_router_id 46
			priority $3
			advert_int 1
			unicast_src_ip 192.0.2.$n
			virtual_ipaddress {
				192.0.2.1/24
			}
			track_script {
				check_jool
			}
		}
	END
}
KEEPALIVED=()
keepalived_start() { # NODE STATE PRIORITY ADVERTISE
	mkdir -p "$WORK/$1"
	keepalived_conf "$@" >"$WORK/$1/keepalived.conf"
	spawn "$1" keepalived --dont-fork --vrrp --log-console --log-detail --no-syslog \
		-f "$WORK/$1/keepalived.conf" -p "$WORK/$1/pid" -r "$WORK/$1/vrrp.pid" >"$WORK/keepalived.$1" 2>&1
	KEEPALIVED+=("$SPAWNED")
}
holds() { # NODE: has both virtual addresses
	in_ns "$1" ip -br addr show dev eth0 | grep -q '2001:db8::1/96' &&
		in_ns "$1" ip -br addr show dev eth1 | grep -q '192\.0\.2\.1/24'
}
active() { holds "$1" && ! holds "$2"; } # NODE OTHER

exchanging() { grep -q "exchanging the sessions of instance" "$WORK/$1.background"; } # NODE
sync_link() { # NODE up|down: all its links
	local device
	for device in eth0 eth1 eth2; do ip -n "$PREFIX-net" link set "$1-$device" "$2"; done
}
# What a person compares: everything of the session but the time that it has left.
ping_session() { sessions "$1" icmp; } # NODE
one_session() { equal "$(count "$1" icmp)" 1; } # NODE

scenario() { # HOW J FAILS (kill|unplug) ADVERTISE
	local failure=$1 session
	keepalived_start j MASTER 200 "$2"
	keepalived_start k BACKUP 100 "$2"
	must "keepalived gives the addresses to J" within 20 active j k
	spawn n6 ping -n -i 0.2 -O $N4 >"$WORK/ping"
	must "the endless ping is answered" ping_goes_on
	check "the session appears in K" within 1 same_sessions j k icmp
	session=$(ping_session j)

	if [ "$failure" = kill ]; then
		node_kill j
	else
		sync_link j down
	fi
	check "K takes the addresses" within 15 holds k
	check "the ping resumes through K" ping_goes_on
	check "with the same session" equal "$(ping_session k)" "$session"
	check "and no other" one_session k

	if [ "$failure" = kill ]; then
		must "J's daemon starts again" node_start j
	else
		sync_link j up
	fi
	check "J takes over again" within 30 active j k
	check "the ping resumes through J" ping_goes_on
	check "with the same session" equal "$(ping_session j)" "$session"
	check "and no other" one_session j
	check "K, which is in reserve again, has advertised" within 5 \
		says '^JSTAT_JOOLD_ADS: [1-9]' node k stats display
	check "both have the same session" within 10 same_sessions j k icmp
	grep -E 'packets transmitted' "$WORK/ping" || true
}

down() {
	local pid
	for pid in "${KEEPALIVED[@]}"; do end "$pid"; done
	KEEPALIVED=()
	end_all
	network_down
	rm -rf "$WORK"/state-* "$WORK"/*.background "$WORK/j" "$WORK/k" "$WORK/ping"
}

netsocket() { # NODE ADDRESS DEVICE
	mkdir -p "$WORK/$1"
	echo "{\"multicast address\":\"$2\",\"multicast port\":\"6464\",\"in interface\":\"$3\",\"out interface\":\"$3\",\"reuseaddr\":1,\"ttl\":3}" \
		>"$WORK/$1/netsocket.json"
}

nodes_up() {
	local name
	cluster_up j k
	for name in j k; do
		must "$name: the daemon gets ready" node_start $name
	done
}

echo "=== in the words of Jool 3, over IPv4; J's daemon is killed"
nodes_up
for name in j k; do netsocket $name $GROUP4 10.0.0.${NODE_NUMBER[$name]}; done
transcript <<'END'
j,k> jool instance add --netfilter --pool6 64:ff9b::/96
j,k> jool --pool4 --add --tcp --udp 192.0.2.1 61001-65535
j,k> jool --pool4 --add --icmp 192.0.2.1 0-65535
j,k> jool --ss-enabled true
j,k> joold netsocket.json &
j,k> jool
END
for name in j k; do must "$name: joold exchanges sessions" within 5 exchanging $name; done
scenario kill "--joold --advertise"
transcript <<'END'
j,k> jool --session --numeric | grep -F 'Remote: 192.0.2.8#'
j,k> jool -sin | grep -F 'Remote: 192.0.2.8#'
j> jool --joold --advertise
END
down

echo "=== the same, over IPv6"
nodes_up
for name in j k; do netsocket $name $GROUP6 eth2; done
transcript <<'END'
j,k> jool instance add --netfilter --pool6 64:ff9b::/96
j,k> jool --pool4 --add --tcp --udp 192.0.2.1 61001-65535
j,k> jool --pool4 --add --icmp 192.0.2.1 0-65535
j,k> jool --ss-enabled true
j,k> joold netsocket.json &
END
for name in j k; do must "$name: joold exchanges sessions" within 5 exchanging $name; done
activate j
check "a ping" ping_ok n6 $N4
check "its session appears in K" within 3 same_sessions j k icmp
down

echo "=== in the words of Jool 4; J loses its links"
nodes_up
transcript <<'END'
j,k> jool instance add --netfilter --pool6 64:ff9b::/96
j,k> jool pool4 add --tcp  192.0.2.1 61001-65535
j,k> jool pool4 add --udp  192.0.2.1 61001-65535
j,k> jool pool4 add --icmp 192.0.2.1 0-65535
j,k> jool global update ss-enabled true
j,k> jool session proxy --net.mcast.port=6464 --net.dev.in=eth2 --net.dev.out=eth2 ff08::db8:64:64 &
END
for name in j k; do must "$name: the proxy exchanges sessions" within 5 exchanging $name; done
scenario unplug "session advertise"

echo "--- J comes back with nothing, and K advertises"
session=$(ping_session j)
end "${KEEPALIVED[0]}"
check "K takes the addresses" within 15 active k j
check "the ping resumes through K" ping_goes_on
node_kill j
rm -rf "$WORK/state-j"
must "J's daemon starts with nothing" node_start j
transcript <<'END'
j> jool instance add --netfilter --pool6 64:ff9b::/96
j> jool pool4 add --tcp  192.0.2.1 61001-65535
j> jool pool4 add --udp  192.0.2.1 61001-65535
j> jool pool4 add --icmp 192.0.2.1 0-65535
j> jool global update ss-enabled true
END
exchanging_again() { [ "$(grep -c "exchanging the sessions of instance" "$WORK/j.background")" = 2 ]; }
must "J's proxy goes on" within 10 exchanging_again
transcript <<'END'
k> jool session advertise
END
check "J has the session" within 5 same_sessions j k icmp
keepalived_start j MASTER 200 "session advertise"
check "J takes over again" within 30 active j k
check "the ping resumes through J" ping_goes_on
check "with the same session" equal "$(ping_session j)" "$session"
check "and no other" one_session j

PROXY_K=${BACKGROUND[k]}

echo "=== the session mode"
transcript <<'END'
j> jool session display
j> jool session display --icmp | grep -F 'Remote: 192.0.2.8#'
j> jool session display --icmp --numeric | grep -F 'Remote: 192.0.2.8#'
j> jool session display --tcp --numeric
j> jool session display --udp --numeric --csv --no-headers
j> jool session display --icmp --numeric --csv > session.csv
j> grep -q '^ICMP,2001:db8::8,.*,192.0.2.8,' session.csv
j> jool session advertise
j> jool session follow > follow &
END
udp_echo n4 1234
# The client's row of the tutorial.
ask() { echo hello | in_ns n6 timeout 2 nc -6 -u -p 60927 $N4 1234 | grep -qx hello; }
followed() {
	ask
	grep -Eq '^UDP,2001:db8::8,60927,192\.0\.2\.1,[0-9]+,192\.0\.2\.8,1234,0:0[45]:[0-5][0-9](\.[0-9]{3})?$' "$WORK/j/follow"
}
check "a new session is followed" within 10 followed
check "and shown" says '^Remote: 192\.0\.2\.8#1234	2001:db8::8#60927$' node j session display --udp --numeric
end "${BACKGROUND[j]}"
end "$PROXY_K"
transcript <<'END'
k> jool session proxy --net.mcast.port=6464 --net.dev.in=eth2 --net.dev.out=eth2 ff08::db8:64:64 --stats.address=:: --stats.port=45678 &
END
check "statistics are served" within 5 listens k 45678
transcript <<'END'
k> echo "" | timeout 2 nc -u 127.0.0.1 45678 > statistics; test $? = 124
END
six_lines() {
	equal "$(cut -d , -f 1 "$WORK/k/statistics" | paste -sd ' ')" \
		"KERNEL_SENT_PKTS KERNEL_SENT_BYTES NET_RCVD_PKTS NET_RCVD_BYTES NET_SENT_PKTS NET_SENT_BYTES"
}
check "six lines" six_lines
