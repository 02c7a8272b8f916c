#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The gateway's own addresses as pool4: without any entry, and beside the ports that its own
# programs use.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

fails_with() { # STATUS COMMAND...
	local wanted=$1 status=0
	shift
	"$@" || status=$?
	equal $status "$wanted"
}

POOL4=203.0.113.1
network_up
must "the daemon gets ready" daemon_start
must "an instance without pool4 is accepted" jool instance add --pool6 64:ff9b::/96
http_server server
http_server gw 8080
udp_echo server 7000
udp_echo gw 7000
random_file data 5000000

echo "--- no pool4"
watch_leaks
check "ping" ping_ok client $SERVER6
check "download" download_equals data
check "upload" upload_equals data
check "the server sees the gateway's address" \
	says '^(::ffff:)?203.0.113.1 (6[1-5][0-9]{3})$' client_fetch "http://[$SERVER6]:8080/peer"
no_leaks
check "4000 octets over UDP" client $PYTHON "$HERE/udp.py" ask $SERVER6 7000 4000
check "services of the gateway answer" says "^(::ffff:)?$SERVER4 " server_fetch http://203.0.113.1:8080/peer
check "over UDP, too" server $PYTHON "$HERE/udp.py" ask 203.0.113.1 7000 4000
check "it answers pings" ping_ok server 203.0.113.1 -e 100

ip -n "$PREFIX-gw" addr del 203.0.113.1/24 dev g4
ip -n "$PREFIX-gw" addr add 203.0.113.9/24 dev g4
ip -n "$PREFIX-server" route replace default via 203.0.113.9
check "another address of the gateway takes its place" within 5 \
	says '^(::ffff:)?203.0.113.9 6[1-5][0-9]{3}$' client_fetch "http://[$SERVER6]:8080/peer"
check "for mappings that were made before, too" ping_ok client $SERVER6

echo "--- the ports of its own programs"
read -r low high < <(gw cat /proc/sys/net/ipv4/ip_local_port_range)
check "they are not for clients" fails_with 22 jool pool4 add --tcp 203.0.113.9 "$high-65535"
check "nor below" fails_with 22 jool pool4 add --udp 203.0.113.0/28 "1-$low"
check "unless somebody insists" jool pool4 add --tcp 203.0.113.9 "$high-65535" --force
check "other ports are" jool pool4 add --udp 203.0.113.9 "$((high + 1))-65535"
check "identifiers are no ports" jool pool4 add --icmp 203.0.113.9 0-65535
check "other addresses have all their ports" jool pool4 add --tcp 192.0.2.1 1-65535
