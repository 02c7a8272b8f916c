#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# MAP-T on Debian's own kernel, with nftables' own `queue`: customers whose edges translate ports
# themselves, a border relay and a server.
if [ -z "${TYLO_GUEST:-}" ]; then
	here=$(dirname "$(readlink -f "$0")")
	exec "$here/../../tools/guest" "$here/96-mapt-native.sh"
fi

. "$(dirname "$(readlink -f "$0")")/mapt.sh"

configure() {
	local ce
	# shellcheck disable=SC2086 # words
	jool_mapt br instance add --dmr 64:ff9b::/96 && jool_mapt br fmrt add $RULE || return
	for ce in ce1 ce2; do
		jool_mapt $ce instance add --dmr 64:ff9b::/96 &&
			jool_mapt $ce global update end-user-ipv6-prefix "${EUI[$ce]}" || return
		# shellcheck disable=SC2086 # words
		jool_mapt $ce global update bmr $RULE && tylo_mapt $ce napt on -i "${NAME[$ce]}" || return
	done
}

mapt_network_up own
for node in br ce1 ce2; do
	must "the daemon of $node gets ready" mapt_start $node
	check "its log says native" grep -q native "$WORK/daemon.$STARTS.log"
done
must "everybody takes a configuration" configure
random_file small 3000
random_file large 300000
http_server server 80
udp_echo server 7000
check "a ping from customer 1" ping_ok client1 $SERVER
check "a ping from customer 2" ping_ok client2 $SERVER
check "both clients download at once" at_once
check "a client uploads" send client1 large
check "4000 octets over UDP, in fragments both ways" ask client2 4000
check "a foreign port is dropped and counted" grows br JSTAT_MAPT_PSID \
	forge ce1 "${MAP6[ce1]}" 1000 64:ff9b::203.0.113.56 7000
mapt_kill ce1
must "the daemon of ce1 gets ready" mapt_start ce1
check "a client goes on after a restart" fetch client1 small
