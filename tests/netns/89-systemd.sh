#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The package's units under a real systemd, which runs in namespaces of its own: started by the installation,
# confined, upgraded, restarted, killed, beside another one in a network namespace, and removed.
[ -n "${TYLO_OWN_MOUNTS-}" ] || TYLO_OWN_MOUNTS=1 exec unshare --mount --propagation private bash "$0" "$@"
. "$(dirname "$(readlink -f "$0")")/lib.sh"
. "$HERE/debian.sh"

must "the package is made" package one
cp "$WORK"/one/tylo_*.deb "$root/root/tylo.deb"
must "systemd is installed" apt install dbus iproute2 systemd
check "nothing that a real machine has is waited for" debian systemctl mask systemd-udevd.service \
	systemd-networkd.service getty.target console-getty.service systemd-logind.service

# The gateway's network is this systemd's.
boot() {
	exec unshare --pid --fork --kill-child --mount --uts --ipc --cgroup bash -ec '
		mount -t proc none "$0/proc"
		mkdir -p "$0/sys/fs/cgroup"
		mount -t sysfs -o ro none "$0/sys"
		mount -t tmpfs none "$0/run"
		if ! mount -t cgroup2 none "$0/sys/fs/cgroup" || [ ! -w "$0/sys/fs/cgroup/cgroup.subtree_control" ]; then
			mount -t tmpfs none "$0/sys/fs/cgroup"
			mkdir "$0/sys/fs/cgroup/systemd"
			mount -t cgroup -o none,name=systemd none "$0/sys/fs/cgroup/systemd"
		fi
		cd "$0"
		exec env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin \
			chroot . /lib/systemd/systemd --system --log-target=console
	' "$root"
}
POOL4=192.0.2.1
network_up
export -f boot
export root
spawn gw bash -c boot >"$WORK/boot.log" 2>&1
booted() {
	init=$(pgrep --parent "$SPAWNED") && inside systemctl is-system-running | grep -Eq 'running|degraded'
}
inside() { # COMMAND...
	timeout "$LIMIT" nsenter --target "$init" --all chroot "$root" env -i LC_ALL=C DEBIAN_FRONTEND=noninteractive \
		PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
}
must "systemd runs" within 60 booted
property() { inside systemctl show --property "$1" --value "${2:-tylod}"; } # NAME [UNIT]
logged() { inside journalctl --unit tylod --no-pager --output cat | grep -E "$1"; }
configure_inside() {
	inside jool instance add --netfilter --pool6 64:ff9b::/96 || return
	local protocol
	for protocol in tcp udp icmp; do inside jool pool4 add --$protocol "$POOL4" $LOW-65535 || return; done
}

must "the package is installed" inside apt-get -q -y --no-install-recommends install /root/tylo.deb
must "the service is started" equal "$(property ActiveState)" active
check "and will be at boot" inside systemctl is-enabled tylod
confined() { # PID, where this systemd counts
	local status
	status=$(inside cat "/proc/$1/status")
	for line in "CapEff:.0000000000003000" "CapBnd:.0000000000003000" "NoNewPrivs:.1" "Seccomp:.2"; do
		grep -q "^$line" <<<"$status" || { echo "no $line"; return 1; }
	done
	! grep -q '^Uid:.*[[:space:]]0' <<<"$status"
}
check "it has what it needs and is not root" confined "$(property MainPID)"
sandbox='"sandbox":\{"capabilities":true,"system_calls":true\}'
must "it takes an instance" configure_inside
check "its own filter is in force, too" says "$sandbox" inside tylo health --json
check "packets pass" ping_ok client "$SERVER6"

process=$(property MainPID)
check "a reload is an upgrade" inside systemctl reload tylod
check "of the same process" equal "$(property MainPID)" "$process"
check "packets pass" ping_ok client "$SERVER6"
check "to install the package again is one, too" inside apt-get -q -y install --reinstall /root/tylo.deb
check "of the same process" equal "$(property MainPID)" "$process"
check "two programs took over" says '"takeover":\{"count":2' inside tylo health --json
check "a restart" inside systemctl restart tylod
check "finds what the manager kept" logged 'took over'
check "packets pass" ping_ok client "$SERVER6"
inside systemctl kill --signal KILL tylod
check "when it is killed, another one is started" within 20 inside tylo health
check "packets pass" ping_ok client "$SERVER6"
check "it is watched" says '[0-9]' property WatchdogTimestamp

echo "--- without raw sockets"
mkdir -p "$root/etc/systemd/system/tylod.service.d"
{
	echo '[Service]'
	grep -o '`[A-Za-z]*=~CAP_NET_RAW`' "$REPO/docs/security.md" | tr -d '`'
} >"$root/etc/systemd/system/tylod.service.d/raw.conf"
check "the manager knows" inside systemctl daemon-reload
check "a restart" inside systemctl restart tylod
one_capability() {
	local set
	for set in CapEff CapBnd CapAmb; do
		inside grep -q "^$set:.0000000000001000" "/proc/$(property MainPID)/status" || return
	done
}
check "it has CAP_NET_ADMIN only" one_capability
check "packets pass" ping_ok client "$SERVER6"
check "a hop is told of" says ' 1  2001:db8:6::1' client traceroute -6 -n -q 1 -m 2 "$SERVER6"

echo "--- in a network namespace"
check "there is one" inside ip netns add blue
must "a service is started for it" inside systemctl start tylod@blue
check "with what it needs, and not as root" confined "$(property MainPID tylod@blue)"
check "it takes an instance of its own" inside ip netns exec blue jool instance add blue --pool6 64:ff9b::/96
check "its own filter is in force, too" says "$sandbox" inside ip netns exec blue tylo health --json
check "which the other one does not have" not says blue inside jool instance display
check "where there is no namespace, there is no service" not inside systemctl start tylod@red

echo "--- removed"
check "the package is removed" inside apt-get -q -y remove tylo
check "no service is left" not inside systemctl is-active tylod tylod@blue
untouched() { ! in_ns gw nft list tables | grep tylo && ! in_ns gw ip link show tylo0; }
check "no rules and no device" untouched
check "not there either" not inside ip netns exec blue ip link show tylo0
end "$init" KILL
