# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Sourced after lib.sh: carries out commands as a tutorial prints them.

# Reads lines `NODE[,NODE]> COMMAND` from standard input. Each command runs in a shell in those
# namespaces and has to succeed. What ends in `&` goes on running; its output is in
# $WORK/NODE.background, its process id in BACKGROUND[NODE].
declare -A BACKGROUND=()
transcript() {
	local line nodes node command
	while IFS= read -r line <&3; do
		nodes=${line%%> *}
		command=${line#*> }
		for node in ${nodes//,/ }; do
			mkdir -p "$WORK/$node"
			case $command in
			*' &')
				echo "...   $node> $command"
				spawn "$node" env -C "$WORK/$node" bash -c "exec ${command% &}" \
					>>"$WORK/$node.background" 2>&1 3<&-
				BACKGROUND[$node]=$SPAWNED
				;;
			*) must "$node> $command" in_ns "$node" env -C "$WORK/$node" bash -c "$command" 3<&- ;;
			esac
		done
	done 3<&0
}
