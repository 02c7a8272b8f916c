#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The Debian package: made the same twice, installed on a plain Debian 12 in the place of jool-tools, used,
# upgraded, removed and purged, with nothing left.
# Mounts are made where nobody else sees them.
[ -n "${TYLO_OWN_MOUNTS-}" ] || TYLO_OWN_MOUNTS=1 exec unshare --mount --propagation private bash "$0" "$@"
. "$(dirname "$(readlink -f "$0")")/lib.sh"

. "$HERE/debian.sh"

# All that is there, but for the package manager's own notes.
files() {
	(cd "$root" && find . -xdev \( -path ./proc -o -path ./dev -o -path ./tmp -o -path ./var/lib/dpkg -o \
		-path ./var/cache -o -path ./var/log -o -path ./var/lib/apt -o -path ./run \) -prune -o -print) |
		grep -Ev '/etc/(passwd|group|shadow|gshadow|subuid|subgid)-$' | sort
}

# --- the package ----------------------------------------------------------------------------------

must "the package is made" package one
deb=$(echo "$WORK"/one/tylo_*.deb)
check "again" package two
check "byte for byte the same" cmp "$deb" "$WORK/two/${deb##*/}"
check "nothing else is left there" equal "$(find "$WORK/one" -mindepth 1 | wc -l)" 1
cp "$deb" "$root/tmp/tylo.deb"

echo "--- units"
for unit in tylod.service tylod@.service; do
	name=${unit/@/@blue}
	dpkg-deb --fsys-tarfile "$deb" | tar -xO "./lib/systemd/system/$unit" |
		sed "s,=/usr/sbin/,=$BIN/,; s,=/usr/bin/,=$BIN/," >"$WORK/$name"
	check "systemd understands $unit" systemd-analyze verify --man=no "$WORK/$name"
	check "and finds nothing wrong" equal "$(systemd-analyze verify --man=no "$WORK/$name" 2>&1 | grep -F "$name")" ""
	check "its exposure is below 3" systemd-analyze security --offline=yes --threshold=30 "$WORK/$name"
done

echo "--- installed where jool-tools is"
must "jool-tools is installed" apt install jool-tools libmnl0 libnftnl11
check "the command is Jool's" equal "$(owner /usr/bin/jool)" jool-tools
must "tylo is installed" apt install /tmp/tylo.deb
check "jool-tools is not any more" not equal "$(status jool-tools)" installed
for command in jool jool_siit joold; do check "$command is tylo's" equal "$(owner /usr/bin/$command)" tylo; done
check "jool-tools comes back in its place" apt install jool-tools
check "tylo is not there any more" not equal "$(status tylo)" installed
check "and the command is Jool's" equal "$(owner /usr/bin/jool)" jool-tools
check "both are purged" apt purge jool-tools tylo

echo "--- installed on a plain system"
files >"$WORK/before"
must "it is installed" apt install /tmp/tylo.deb
check "all of it" equal "$(debian dpkg --verify tylo)" ""
for command in tylod jool jool_siit jool_mapt joold; do
	check "$command runs" says '[0-9]+\.[0-9]+' debian $command --version
done
check "tylo runs" says Usage debian tylo --help
for page in tylod tylo jool jool_siit jool_mapt joold; do
	check "there is a manual for $page" says "\.TH" gzip -dc "$root/usr/share/man/man8/$page.8.gz"
done
completes() { # NAME
	local file=$root/usr/share/bash-completion/completions/$1
	bash -c '. "$0" && complete -p "$1"' "$file" "$1"
}
for command in tylo jool jool_siit jool_mapt; do check "words of $command are completed" completes $command; done
check "there is a user" says '^uid=[1-9]' debian id tylo
check "with a group" debian getent group tylo
check "examples are there" test -s "$root/usr/share/doc/tylo/examples/keepalived/keepalived.conf"
settings() { # FILE: as if somebody had chosen them
	sed 's/^#\(net\.\)/\1/; /eth0\|gc_thresh/d' "$root/etc/sysctl.d/60-tylo.conf" >"$WORK/sysctl.conf"
	gw sysctl -q -p "$WORK/sysctl.conf"
}

daemon_in_root() {
	STARTS=$((STARTS + 1))
	spawn gw chroot "$root" /usr/sbin/tylod 2>"$WORK/daemon.$STARTS.log" >&2
	DAEMON=$SPAWNED
	within 15 daemon_ready_or_dead && daemon_ready
}
inside() { timeout "$LIMIT" ip netns exec "$PREFIX-gw" chroot "$root" "$@"; }
POOL4=192.0.2.1
network_up
check "the kernel takes the settings" settings
must "the daemon runs" daemon_in_root
check "an example is taken" inside jool file handle /usr/share/doc/tylo/examples/config/nat64.json
check "another one, too" inside jool_siit file check /usr/share/doc/tylo/examples/config/siit.json
check "packets pass" ping_ok client "$SERVER6"
check "health says so" says '^OK' inside tylo health
process=$DAEMON
check "the package is upgraded" apt install --reinstall /tmp/tylo.deb
check "the daemon goes on" kill -0 "$process"
check "packets pass" ping_ok client "$SERVER6"
check "the installed version takes over" inside tylo upgrade
check "it is the same process" kill -0 "$process"
check "packets pass" ping_ok client "$SERVER6"
must "the daemon stops" daemon_stop

echo "--- removed and purged"
echo '# mine' >>"$root/etc/default/tylod"
must "it is removed" apt remove tylo
check "its commands are gone" test ! -e "$root/usr/bin/jool" -a ! -e "$root/usr/bin/tylo" -a ! -L "$root/usr/sbin/tylod"
check "the state stays" test -s "$root/var/lib/tylo/state.db"
check "changed settings stay" grep -q mine "$root/etc/default/tylod"
must "it is purged" apt purge tylo
check "nothing is left" unchanged "$WORK/before" files
check "no user" not debian getent passwd tylo
check "no group" not debian getent group tylo
