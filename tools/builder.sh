# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Sourced by the tools that compile: finds Rust, also for root under sudo, and keeps target/ in the
# hands of whoever called sudo.

REPO=$(readlink -f "$(dirname "${BASH_SOURCE[0]}")/..")
BUILDER=root
builder_home=${HOME:-/root}
if [ "$(id -u)" != 0 ]; then
	BUILDER=$(id -un)
elif [ -n "${SUDO_USER:-}" ] && [ "$SUDO_USER" != root ]; then
	BUILDER=$SUDO_USER
	builder_home=$(getent passwd "$SUDO_USER" | cut -d : -f 6)
	# sudo keeps the variables of root's home; Rust lives in the other one.
	unset CARGO_HOME RUSTUP_HOME
fi
# sudo may also have changed HOME when root calls it.
[ -d "$builder_home" ] || builder_home=/root
export CARGO_HOME=${CARGO_HOME:-$builder_home/.cargo}
export RUSTUP_HOME=${RUSTUP_HOME:-$builder_home/.rustup}
PATH=$CARGO_HOME/bin:$PATH:/usr/local/cargo/bin:/usr/sbin:/sbin
export PATH

find_cargo() {
	command -v cargo >/dev/null && return
	echo "there is no cargo in $CARGO_HOME/bin or on the PATH; install Rust (https://rustup.rs)" >&2
	return 1
}

# Runs a command as the one who called sudo.
as_builder() {
	if [ "$(id -u)" = 0 ] && [ "$BUILDER" != root ]; then
		runuser -u "$BUILDER" -- env HOME="$builder_home" "$@"
	else
		"$@"
	fi
}

# What root made in target/ goes back to the one who called sudo.
give_back() {
	if [ "$(id -u)" = 0 ] && [ "$BUILDER" != root ] && [ -d "$REPO/target" ]; then
		find "$REPO/target" -user root -exec chown -h "$BUILDER:" {} + || true
	fi
}
