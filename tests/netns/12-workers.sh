#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Several workers: each has a queue and, when asked, a processor of its own.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

WORKERS=3

# Where each worker may run, in their order: a line for each.
places() {
	local index task
	for ((index = 0; index < WORKERS; index++)); do
		for task in /proc/"$DAEMON"/task/*; do
			[ "$(cat "$task/comm")" = "tylo-worker-$index" ] || continue
			sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' "$task/status"
		done
	done
}

# The processors that the daemon may use, one a line, again and again.
one_each() {
	local list all=()
	list=$(sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' "/proc/$DAEMON/status")
	for part in ${list//,/ }; do
		mapfile -t -O "${#all[@]}" all < <(seq "${part%-*}" "${part#*-}")
	done
	for ((index = 0; index < WORKERS; index++)); do
		echo "${all[index % ${#all[@]}]}"
	done
}

gateway_up foreign --queue-total $WORKERS --pin
check "there are as many workers as asked for" equal "$(places | wc -l)" $WORKERS
check "each is on a processor of its own" equal "$(places)" "$(one_each)"
check "and each has a queue, and another one for TCP" equal \
	"$(gw awk '{ print $1 }' /proc/net/netfilter/nfnetlink_queue | sort -n | xargs)" \
	"6400 6401 6402 35968 35969 35970"
check "ping" ping_ok client $SERVER6
http_server server
random_file data 1000000
check "a download" download_equals data $SERVER6
gateway_down

gateway_up foreign --workers $WORKERS
check "not asked, they may go wherever the daemon may" equal "$(places | sort -u)" \
	"$(sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' "/proc/$DAEMON/status")"
gateway_down
