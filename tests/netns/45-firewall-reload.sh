#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Somebody flushes all nftables rules while downloads run, as reloading a firewall does.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

run() { # own|foreign
	gateway_up "$1"
	local i downloads=()
	if [ "$1" = own ] && { gw nft delete table ip tylo || gw nft delete table inet tylo; } 2>/dev/null; then
		# Between flush and restoration, the kernel answers for its own address with resets.
		echo "this kernel cannot protect a table from others; nothing to see with its own address"
		gateway_down
		return
	fi
	http_server server
	random_file big 20000000
	for i in 1 2 3 4; do
		spawn client curl -gsS --fail -m 60 --limit-rate 2M -o "$WORK/got.$i" "http://[$SERVER6]:8080/big"
		downloads+=("$SPAWNED")
	done
	sleep 0.5
	for ((i = 0; i < 10; i++)); do
		gw nft flush ruleset
		sleep 0.2
	done
	must "the downloads were under way" kill -0 "${downloads[@]}"
	for i in 1 2 3 4; do
		check "download $i goes on to its end" wait "${downloads[i - 1]}"
		check "and is what was sent" cmp "$WORK/got.$i" "$WORK/files/big"
	done
	check "the gateway is well" gw tylo health
	gateway_down
}

run own
run foreign
