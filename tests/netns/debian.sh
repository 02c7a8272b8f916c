# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# A root directory with a plain Debian 12 in it, for tests of the package; after lib.sh, in a mount
# namespace of their own.
#
#   $root             the directory; what happens there is gone afterwards
#   debian COMMAND... runs something there
#   apt ARGUMENT...   installs and removes there
#   package NAME      makes the package in $WORK/NAME

plain=$REPO/target/debian-12
# Scripts run at the same time: who comes second waits and finds it made.
plain_there() {
	(
		flock 9
		[ -d "$plain" ] || make_plain
	) 9>"$plain.lock"
}
make_plain() {
	local mirror
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m 1 '/debian/$')
	mirror=${mirror:-http://deb.debian.org/debian}
	rm -rf "$plain.new"
	debootstrap --variant=minbase bookworm "$plain.new" "$mirror" || return
	# What is installed later, so that this test needs no network next time.
	chroot "$plain.new" apt-get -q -y --no-install-recommends --download-only install \
		dbus iproute2 jool-tools libmnl0 libnftnl11 systemd || return
	mv "$plain.new" "$plain"
}
must "a plain Debian 12" plain_there

root=$WORK/root
leave_root() {
	local status=$?
	set +e
	umount --recursive --lazy "$root" "$WORK/disk"
	(exit $status)
	leave
}
trap leave_root EXIT
mkdir "$root" "$WORK/disk"
mount -t tmpfs none "$WORK/disk"
mkdir "$WORK/disk/upper" "$WORK/disk/work"
mount -t overlay -o "lowerdir=$plain,upperdir=$WORK/disk/upper,workdir=$WORK/disk/work" none "$root" 2>/dev/null ||
	{ mount --bind "$WORK/disk/upper" "$root" && cp -a "$plain/." "$root"; }
mount -t proc none "$root/proc"
mount -t tmpfs -o mode=755 none "$root/dev"
mkdir "$root/dev/net"
for node in "null c 1 3" "zero c 1 5" "random c 1 8" "urandom c 1 9" "net/tun c 10 200"; do
	# shellcheck disable=SC2086 # words
	mknod -m 666 "$root/dev/"$node
done
debian() { DEBIAN_FRONTEND=noninteractive LC_ALL=C chroot "$root" "$@"; }
# What is fetched is there already.
apt() { debian apt-get -q -y --no-install-recommends "$@"; }
status() { debian dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null || true; }
owner() { debian dpkg-query -S "$1" | cut -d : -f 1; }
package() { "$REPO/tools/package" --program "$TYLO_BIN" "$WORK/$1"; }
