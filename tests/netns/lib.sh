# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# What the end-to-end tests share: a network of namespaces, the daemon, checks.
#
#   client --(IPv6 only)-- gw --(IPv4 only)-- server --(IPv4, MTU 1400)-- beyond
#                           |
#                           +--(IPv6 only)-- uplink     where the default route points to
#
#   client 2001:db8:6::2   gw 2001:db8:6::1, 203.0.113.1, 2001:db8:9::1   server 203.0.113.2
#   beyond 198.51.100.2    uplink 2001:db8:9::2
#
# The default route to `uplink` makes leaks visible: what is not translated comes out there.
# pool4 is the gateway's own 203.0.113.1 ("own") or 192.0.2.1, which the server routes to the
# gateway ("foreign"), with ports 61001-65535 in both cases.
#
# Environment: TYLO_BIN, the program; TYLO_RP_FILTER, how strictly the gateway checks sources.
set -euo pipefail

[ "$(id -u)" = 0 ] || { echo "the end-to-end tests need root: sudo tools/test" >&2; exit 1; }

HERE=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
REPO=$(readlink -f "$HERE/../..")
TYLO_BIN=${TYLO_BIN:-$REPO/target/release/tylo}
PYTHON=/usr/bin/python3
PATH=$PATH:/usr/sbin:/sbin

PREFIX=tt$$
WORK=$(mktemp -d "${TMPDIR:-/tmp}/tylo-test.XXXXXX")
chmod 755 "$WORK" # for programs that give up root
mkdir "$WORK/files"
STATE=$WORK/state
BIN=$WORK/bin
PATH=$BIN:$PATH

SERVER4=203.0.113.2
SERVER6=64:ff9b::203.0.113.2
# shellcheck disable=SC2034 # used by scripts
BEYOND6=64:ff9b::198.51.100.2
CLIENT6=2001:db8:6::2
LOW=61001
POOL4=203.0.113.1

FAILURES=0
DAEMON=
STARTS=0
PIDS=()
NAMESPACES=()

# --- namespaces -----------------------------------------------------------------------------------

in_ns() { # NAME COMMAND...
	local ns=$PREFIX-$1
	shift
	ip netns exec "$ns" "$@"
}
client() { in_ns client "$@"; }
gw() { in_ns gw "$@"; }
server() { in_ns server "$@"; }
beyond() { in_ns beyond "$@"; }
uplink() { in_ns uplink "$@"; }

add_namespace() { # NAME
	local ns=$PREFIX-$1
	ip netns add "$ns"
	NAMESPACES+=("$ns")
	ip -n "$ns" link set lo up
	# Rate limits of ICMP errors would make tests depend on each other's timing.
	in_ns "$1" sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 \
		net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0
}

add_link() { # NS1 DEVICE1 NS2 DEVICE2
	ip link add "$2" netns "$PREFIX-$1" type veth peer name "$4" netns "$PREFIX-$3"
	ip -n "$PREFIX-$1" link set "$2" up
	ip -n "$PREFIX-$3" link set "$4" up
}

network_up() {
	local ns
	for ns in client gw server beyond uplink; do add_namespace $ns; done
	add_link client c0 gw g6
	add_link gw g4 server s0
	add_link server s1 beyond b0
	add_link gw gu uplink u0
	ip -n "$PREFIX-client" addr add $CLIENT6/64 dev c0 nodad
	ip -n "$PREFIX-gw" addr add 2001:db8:6::1/64 dev g6 nodad
	ip -n "$PREFIX-gw" addr add 203.0.113.1/24 dev g4
	ip -n "$PREFIX-gw" addr add 2001:db8:9::1/64 dev gu nodad
	ip -n "$PREFIX-uplink" addr add 2001:db8:9::2/64 dev u0 nodad
	ip -n "$PREFIX-server" addr add $SERVER4/24 dev s0
	ip -n "$PREFIX-server" addr add 198.51.100.1/24 dev s1
	ip -n "$PREFIX-beyond" addr add 198.51.100.2/24 dev b0
	ip -n "$PREFIX-server" link set s1 mtu 1400
	ip -n "$PREFIX-beyond" link set b0 mtu 1400
	gw sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
		net.ipv4.conf.all.rp_filter="${TYLO_RP_FILTER:-0}"
	server sysctl -qw net.ipv4.ip_forward=1
	ip -n "$PREFIX-client" -6 route add default via 2001:db8:6::1
	ip -n "$PREFIX-uplink" -6 route add default via 2001:db8:9::1
	ip -n "$PREFIX-server" route add default via 203.0.113.1
	ip -n "$PREFIX-beyond" route add default via 198.51.100.1
	ip -n "$PREFIX-gw" route add 198.51.100.0/24 via $SERVER4
	ip -n "$PREFIX-gw" -6 route add default via 2001:db8:9::2
}

network_down() {
	local ns
	for ns in "${NAMESPACES[@]}"; do ip netns del "$ns" 2>/dev/null || true; done
	NAMESPACES=()
}

# --- processes ------------------------------------------------------------------------------------

spawn() { # NAMESPACE COMMAND...: in the background; its id is in $SPAWNED
	local ns=$PREFIX-$1
	shift
	ip netns exec "$ns" "$@" &
	SPAWNED=$!
	PIDS+=("$SPAWNED")
}

# How long is waited for things before they are held to be missing. No test is about being fast: all
# these limits do is end what hangs, and a busy machine is slow.
LIMIT=60
PATIENCE=3
[ -z "${TYLO_GUEST:-}" ] || PATIENCE=10 # its processor is emulated

ends_within() { # SECONDS PID: on a busy machine longer, as with `within`
	local tries=$(($1 * 20 * PATIENCE))
	while kill -0 "$2" 2>/dev/null; do
		[ $((tries--)) -gt 0 ] || return 1
		sleep 0.05
	done
}

# Stops a process of ours: politely, then not.
end() { # PID [SIGNAL]
	kill "-${2:-TERM}" "$1" 2>/dev/null || return 0
	if ! ends_within 1 "$1"; then kill -KILL "$1" 2>/dev/null || true; fi
	wait "$1" 2>/dev/null || true
}

end_all() {
	local pid
	for pid in "${PIDS[@]}"; do end "$pid"; done
	PIDS=()
	DAEMON=
}

within() { # SECONDS COMMAND...: tries until it succeeds, on a busy machine longer
	local tries=$(($1 * 10 * PATIENCE))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $((tries--)) -gt 0 ] || return 1
		sleep 0.1
	done
}

listens() { in_ns "$1" ss -Hltun "sport = :$2" | grep -q .; } # NAMESPACE PORT

# --- the daemon -----------------------------------------------------------------------------------

daemon_ready() { grep -q ready "$WORK/daemon.$STARTS.log"; }

daemon_ready_or_dead() { daemon_ready || ! kill -0 "$DAEMON" 2>/dev/null; }

# Starts it and returns when its rules are in force.
daemon_start() { # [OPTION...]
	STARTS=$((STARTS + 1))
	spawn gw "$BIN/tylod" --state-dir "$STATE" "$@" 2>"$WORK/daemon.$STARTS.log" >&2
	DAEMON=$SPAWNED
	within 15 daemon_ready_or_dead && daemon_ready
}

# Succeeds when it ends in time with status 0.
daemon_stop() {
	local pid=$DAEMON
	DAEMON=
	kill -TERM "$pid"
	ends_within 10 "$pid" || return 1
	wait "$pid"
}

daemon_kill() {
	local pid=$DAEMON
	DAEMON=
	kill -KILL "$pid"
	wait "$pid" 2>/dev/null || true
}

daemon_alive() { [ -n "$DAEMON" ] && kill -0 "$DAEMON" 2>/dev/null; }

# What became of packets in the queues of the only instance: see `queued` in docs/json.md.
queued() { # NAME [NAMESPACE]
	in_ns "${2:-gw}" "$BIN/tylo" health --json | sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p"
}

jool() { timeout "$LIMIT" ip netns exec "$PREFIX-gw" "$BIN/jool" "$@"; }

# Functions that `check` calls run without `set -e`: each command's failure has to be handed on.
configure() {
	local protocol
	jool instance add --netfilter --pool6 64:ff9b::/96 || return
	for protocol in tcp udp icmp; do
		jool pool4 add --$protocol "$POOL4" $LOW-65535 || return
	done
}

# A fresh network with a configured gateway.
gateway_up() { # own|foreign [OPTION of tylod...]
	case $1 in
	own) POOL4=203.0.113.1 ;;
	foreign) POOL4=192.0.2.1 ;;
	*) echo "gateway_up: $1?" >&2; exit 1 ;;
	esac
	echo "--- pool4 is $1: $POOL4"
	shift
	network_up
	must "the daemon gets ready" daemon_start "$@"
	must "an instance and pool4 are accepted" configure
}

gateway_down() {
	end_all
	network_down
	rm -rf "$STATE"
}

# Everything of the gateway's network set-up that a stopped daemon must leave as it was.
network_state() {
	gw nft list ruleset
	gw ip -br link | sed 's/ .*//'
	gw ip rule
	gw ip -6 rule
	gw ip route show table all
	gw ip -6 route show table all | sed 's/ expires [^ ]*//'
}

# --- watching packets -----------------------------------------------------------------------------

# Prints what comes along to $WORK/NAME.seen, one line a packet.
watch() { # NAME NAMESPACE DEVICE FILTER [tcpdump OPTION...]
	local name=$1 ns=$2 device=$3 filter=$4
	shift 4
	spawn "$ns" tcpdump -i "$device" -nn -l --immediate-mode "$@" "$filter" \
		>"$WORK/$name.seen" 2>"$WORK/$name.err"
	printf -v "WATCH_${name//-/_}" %s "$SPAWNED"
	must "tcpdump runs on $device" within 5 grep -q 'listening on' "$WORK/$name.err"
}

watch_end() { # NAME
	local pid=WATCH_${1//-/_}
	end "${!pid}"
}

nothing_seen() { # NAME; tcpdump ends its output with an empty line
	! grep -m 5 . "$WORK/$1.seen"
}

seen() { # NAME EXTENDED-EXPRESSION
	grep -Eq -- "$2" "$WORK/$1.seen" || { head -n 10 "$WORK/$1.seen"; return 1; }
}

# Anything on the IPv4 side that does not come from pool4 with an identifier of pool4, and anything
# of the translator's addresses that left untranslated by the default route.
watch_leaks() {
	watch leaks-v4 server s0 "not arp and not (ip6 and (src net fe80::/10 or src host ::)) and not \
(src host $POOL4 and (src portrange $LOW-65535 or (icmp[icmptype] == icmp-echo and icmp[4:2] >= $LOW)))" \
		-Q in
	watch leaks-v6 uplink u0 'net 64:ff9b::/96' -Q in
}

no_leaks() {
	watch_end leaks-v4
	watch_end leaks-v6
	check "IPv4 side: nothing but $POOL4 with ports $LOW-65535" nothing_seen leaks-v4
	check "IPv6 side: nothing untranslated leaves by the default route" nothing_seen leaks-v6
}

# --- services -------------------------------------------------------------------------------------

http_server() { # NAMESPACE [PORT]
	spawn "$1" $PYTHON "$HERE/http_server.py" "$WORK/files" "${2:-8080}" 2>>"$WORK/http.log" >&2
	must "a web server listens in $1" within 10 listens "$1" "${2:-8080}"
}

udp_echo() { # NAMESPACE PORT
	spawn "$1" $PYTHON "$HERE/udp.py" echo "$2" 2>>"$WORK/udp.log" >&2
	must "a UDP echo server listens in $1" within 10 listens "$1" "$2"
}

random_file() { head -c "$2" /dev/urandom >"$WORK/files/$1"; } # NAME SIZE

sum() { sha256sum "$1" | cut -d ' ' -f 1; }

client_fetch() { client curl -gsS --fail -m 120 "$@"; }
server_fetch() { server curl -gsS --fail -m 120 "$@"; }

download_equals() { # NAME [HOST]
	rm -f "$WORK/got"
	client_fetch -o "$WORK/got" "http://[${2:-$SERVER6}]:8080/$1" &&
		cmp "$WORK/got" "$WORK/files/$1"
}

upload_equals() { # NAME [HOST]
	local reply
	reply=$(client_fetch -T "$WORK/files/$1" "http://[${2:-$SERVER6}]:8080/upload") || return
	[ "$reply" = "$(sum "$WORK/files/$1")" ]
}

ping_ok() { # NAMESPACE ADDRESS [OPTION...]
	local ns=$1 address=$2
	shift 2
	in_ns "$ns" ping -n -c 3 -i 0.2 -W 2 "$@" "$address"
}

# --- checks ---------------------------------------------------------------------------------------

# Prints what was checked; a failure is counted and the script goes on.
check() { # WHAT COMMAND...
	local what=$1 status=0
	shift
	"$@" >"$WORK/check.out" 2>&1 || status=$?
	if [ $status = 0 ]; then
		echo "ok    $what"
		return 0
	fi
	echo "FAIL  $what   [$* -> $status]"
	head -n 30 "$WORK/check.out" | sed 's/^/      | /'
	FAILURES=$((FAILURES + 1))
	LAST_FAILED=1
}

# The same where nothing that follows makes sense after a failure.
must() { # WHAT COMMAND...
	LAST_FAILED=
	check "$@"
	[ -z "$LAST_FAILED" ] || exit 1
}

not() { ! "$@"; }

# The command prints it.
equal_to() { equal "$("${@:2}")" "$1"; } # WANTED COMMAND...

equal() { # GOT WANTED
	[ "$1" = "$2" ] || { printf 'got:    %s\nwanted: %s\n' "$1" "$2"; return 1; }
}

between() { # VALUE LOW HIGH
	if [ "$1" -lt "$2" ] || [ "$1" -gt "$3" ]; then echo "$1 is not in $2-$3"; return 1; fi
}

# The command prints the same as when its output was put into the file.
unchanged() { # FILE COMMAND...
	local file=$1
	shift
	"$@" >"$file.now" && diff "$file" "$file.now"
}

says() { # EXTENDED-EXPRESSION COMMAND...: the command succeeds and prints such a line
	local expression=$1 status=0
	shift
	"$@" >"$WORK/says.out" 2>&1 || status=$?
	cat "$WORK/says.out"
	[ "$status" = 0 ] && grep -Eq -- "$expression" "$WORK/says.out"
}

# A command that must fail with a short message: no success, no panic, no signal, no hanging.
rejects() { # NAMESPACE COMMAND...
	local ns=$PREFIX-$1 status=0
	shift
	timeout -k 1 "$LIMIT" ip netns exec "$ns" "$@" >"$WORK/reject.out" 2>&1 || status=$?
	cat "$WORK/reject.out"
	case $status in
	0) echo "(it succeeded)"; return 1 ;;
	101) echo "(it panicked)"; return 1 ;;
	124 | 137) echo "(it did not end)"; return 1 ;;
	127) echo "(there is no such program)"; return 1 ;;
	esac
	! grep -Eq 'panicked|RUST_BACKTRACE' "$WORK/reject.out" &&
		[ -s "$WORK/reject.out" ] && [ "$(wc -l <"$WORK/reject.out")" -le 12 ]
}

no_panics() { ! grep -n panicked "$WORK"/daemon.*.log; }

diagnose() {
	local log
	for log in "$WORK"/daemon.*.log; do
		[ -e "$log" ] || continue
		echo "--- ${log##*/} (end)"
		tail -n 40 "$log"
	done
	case " ${NAMESPACES[*]} " in *" $PREFIX-gw "*) ;; *) return 0 ;; esac
	echo "--- gateway"
	# Bounded, for the daemon may be what hangs, and whoever ends this script does not wait long.
	local command
	for command in "nft list ruleset" "ip -br addr" "jool stats display" \
		"jool session display --numeric --tcp"; do
		# shellcheck disable=SC2086 # words
		timeout -k 1 2 ip netns exec "$PREFIX-gw" $command 2>&1 | head -n 80
	done
}

leave() {
	local status=$?
	trap - EXIT
	trap '' INT TERM HUP
	set +e
	if [ -e "$WORK/daemon.1.log" ]; then check "the daemon never panicked" no_panics; fi
	[ "$status" != 0 ] || [ "$FAILURES" = 0 ] || status=1
	[ "$status" = 0 ] || diagnose
	end_all
	network_down
	rm -rf "$WORK"
	if [ "$status" = 0 ]; then echo "PASS"; else echo "FAILED ($FAILURES checks)"; fi
	exit "$status"
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

"$REPO/tools/link-commands" "$BIN" "$TYLO_BIN"
