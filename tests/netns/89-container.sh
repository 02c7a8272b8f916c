#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What the container image holds is enough: the daemon and the commands run in a root of their own with
# nothing else in it, with the capabilities that the recipe gives, and settings that cannot be written.
# Mounts are made where nobody else sees them.
[ -n "${TYLO_OWN_MOUNTS-}" ] || TYLO_OWN_MOUNTS=1 exec unshare --mount --propagation private bash "$0" "$@"
. "$(dirname "$(readlink -f "$0")")/lib.sh"

recipe=$REPO/docs/examples/container
image=$WORK/image
leave_image() {
	local status=$?
	set +e
	umount --recursive --lazy "$image"
	(exit $status)
	leave
}
mkdir "$image"
mount -t tmpfs -o mode=755 none "$image"
trap leave_image EXIT
must "the image is made" "$recipe/collect" "$TYLO_BIN" "$image"
check "it holds programs, libraries and two lists" equal \
	"$(cd "$image" && find . -type f | grep -Ev '/(lib|lib64)/' | sort | tr '\n' ' ')" \
	"./etc/group ./etc/passwd ./usr/bin/tylo "
mount -t proc none "$image/proc"
mount --bind "$image/proc/sys" "$image/proc/sys"
mount -o remount,bind,ro "$image/proc/sys"
mkdir "$image/dev/net"
mknod -m 666 "$image/dev/net/tun" c 10 200
mknod -m 666 "$image/dev/null" c 1 3

# The settings of the recipe.
settings() {
	local settings
	settings=$(grep -o -- '--sysctl [^ ]*' "$recipe/README.md" | cut -d ' ' -f 2)
	[ "$(wc -l <<<"$settings")" -ge 8 ] || return
	# shellcheck disable=SC2086 # words
	gw sysctl -q -w $settings
}
rights() {
	local capabilities
	capabilities=$(grep -o 'cap-add [A-Z_]*' "$recipe/README.md" | sed 's/.* /+/' | tr 'A-Z\n' 'a-z,')
	echo "-all,${capabilities%,}"
}
inside() { timeout "$LIMIT" ip netns exec "$PREFIX-gw" chroot "$image" "$@"; }

POOL4=192.0.2.1
network_up
must "the kernel takes the settings" settings
check "with the capabilities of the recipe" equal "$(rights)" -all,+net_admin
# One more, to change the root; the daemon gives that up.
STARTS=1
spawn gw setpriv --bounding-set "$(rights),+sys_chroot" --no-new-privs \
	chroot "$image" /usr/sbin/tylod 2>"$WORK/daemon.1.log" >&2
DAEMON=$SPAWNED
must "the daemon gets ready" within 15 daemon_ready
check "an instance is made" inside /usr/bin/jool instance add --netfilter --pool6 64:ff9b::/96
for protocol in tcp udp icmp; do
	check "with addresses for $protocol" inside /usr/bin/jool pool4 add --$protocol "$POOL4" $LOW-65535
done
check "packets pass" ping_ok client "$SERVER6"
check "health says so" says '^OK' inside /usr/bin/tylo health
check "it has what it needs and no more" says '^CapEff:.0000000000001000$' cat "/proc/$DAEMON/status"
# Without the right to raw sockets, its own error messages leave by the way of translations.
check "a hop is told of" says ' 1  2001:db8:6::1' client traceroute -6 -n -q 1 -m 2 "$SERVER6"
check "the next version takes over" inside /usr/bin/tylo upgrade
check "packets pass" ping_ok client "$SERVER6"
must "the daemon stops" daemon_stop
