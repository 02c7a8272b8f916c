#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Carries out the commands of docs/, on the machine that the prompt names, and compares what they print
# with what the document says that they print.
. "$(dirname "$(readlink -f "$0")")/siit.sh"
. "$HERE/mapt.sh"
. "$HERE/cluster.sh"

# The blocks marked `console` of a document as lines: NODE<tab>COMMAND<tab>LINE<tab>LINE...
# where LINE are lines of the output.
blocks() { # FILE
	awk '
		/^```/ { inside = ($0 == "```console"); next }
		!inside { next }
		match($0, /^[a-z0-9]+[#$] /) {
			if (n++) printf "\n"
			printf "%s\t%s", substr($0, 1, RLENGTH - 2), substr($0, RLENGTH + 1)
			next
		}
		{ printf "\t%s", $0 }
		END { if (n) printf "\n" }' "$1"
}

# Three dots stand for anything; blanks for blanks.
prints() { # FILE LINE
	local pattern
	pattern=$(sed -e 's/[][\.*^$+?(){}|/]/\\&/g' -e 's/\(\\\.\)\{3\}/.*/g' -e 's/  */ +/g' -e 's/^ +/ */' <<<"$2")
	pattern=${pattern//.\* +/.*} pattern=${pattern// +.\*/.*}
	tr '\t' ' ' <"$1" | grep -Eq -- "$pattern"
}

# Daemons on one machine need directories of their own.
tylod() { exec "$BIN/tylod" --state-dir "$STATE" "$@"; }
tylo() {
	case $1 in
	db | doctor) "$BIN/tylo" "$@" --state-dir "$STATE" ;;
	*) "$BIN/tylo" "$@" ;;
	esac
}

document() { # FILE
	local node command expected line shell
	echo "--- docs/$1"
	blocks "$REPO/docs/$1" >"$WORK/blocks"
	must "has commands" test -s "$WORK/blocks"
	while IFS=$'\t' read -r node command expected <&3; do
		[ "$node" != gateway ] || node=gw
		mkdir -p "$WORK/home/$node"
		shell="cd $WORK/home/$node; $(declare -f tylod tylo); BIN=$BIN STATE=$WORK/state.$node"
		if [ "${command%&}" != "$command" ]; then
			spawn "$node" bash -c "$shell; ${command% &}" >"$WORK/output" 2>&1 3<&-
		else
			must "$node> $command" within_shell "$node" "$shell" "$command" 3<&-
		fi
		while IFS= read -r line; do
			[ -z "$line" ] || must "  prints: $line" within 10 prints "$WORK/output" "$line"
		done < <(tr '\t' '\n' <<<"$expected")
	done 3<"$WORK/blocks"
}

within_shell() { # NODE PREPARATION COMMAND
	local status=0
	timeout "$LIMIT" ip netns exec "$PREFIX-$1" bash -c "$2; $3" >"$WORK/output" 2>&1 || status=$?
	cat "$WORK/output"
	return $status
}

end_network() {
	end_all
	network_down
	rm -rf "$WORK"/state.*
}

echo "A page." >"$WORK/files/index.html"

network_up
document ../README.md
document operating.md
end_network

network_up
http_server server
http_server client
document tutorials/nat64.md
end_network

addresses eam
siit_network_up
document tutorials/siit.md
end_network

xlat_network_up
document tutorials/464xlat.md
end_network

mapt_network_up own
http_server server 80
http_server client1
document tutorials/mapt.md
end_network

cluster_up j k
document high-availability.md
