#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Two active gateways divide pool4: even while they cannot hear each other, no transport address is
# given to two clients; what one has begun, the other goes on with.
. "$(dirname "$(readlink -f "$0")")/lib.sh"
. "$HERE/cluster.sh"

join() { # NODE SHARE
	tylo_in "$1" sync set --node "${NODE_NUMBER[$1]}" --key "$KEY" --group $GROUP6 --dev eth2 --share "$2"
}
slices() { equal "$(tylo_in "$1" sync status --json | jq .share)" "$2"; } # NODE WANTED
ports() { node "$1" bib display --udp --numeric --csv --no-headers | cut -d , -f 5 | sort; }
mappings() { equal "$(ports "$1" | wc -l)" "$2"; } # NODE NUMBER
both() { comm -12 <(ports j) <(ports k) | wc -l; }

cluster_up j k
nodes_start j k
check "a part that does not exist is refused" rejects j "$BIN/tylo" sync set --node 4 --key "$KEY" --group $GROUP6 --dev eth2 --share 3/2
must "j has one half" join j 1/2
must "k has the other" join k 2/2
for name in j k; do must "$name is ready" within 15 ready $name; done
check "half of pool4 is j's" slices j 32

# --- while they hear each other

activate j
udp_from 2000 2099
check "k has what began at j" within 5 mappings k 100
activate k
udp_from 2000 2199
check "k goes on with it, and gives others to others" within 5 mappings j 200

# --- while they do not

ip -n "$PREFIX-net" link set k-eth2 down
udp_from 2200 2399
check "k gives addresses to new clients" mappings k 400
activate j
udp_from 2400 2599
check "so does j" mappings j 400
check "none of them twice" equal "$(both)" 200
ip -n "$PREFIX-net" link set k-eth2 up
check "then both have all" within 45 mappings j 600
check "and k, too" within 45 mappings k 600
check "by the same addresses" equal "$(both)" 600

# --- by who is there

for name in j k; do
	must "$name gets its share by who is there" join $name auto
	must "$name is ready" within 15 ready $name
done
shared() {
	local one two
	one=$(tylo_in j sync status --json | jq .share) two=$(tylo_in k sync status --json | jq .share)
	[ "$one" -gt 0 ] && [ "$two" -gt 0 ] && equal $((one + two)) 64
}
check "both have a share" within 10 shared
node_kill k
check "j has everything when k is dead" within 20 slices j 64
must "j leaves the cluster" tylo_in j sync off
udp_from 2600 2799
check "and may give everything" mappings j 800
