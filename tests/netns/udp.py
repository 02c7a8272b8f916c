# SPDX-License-Identifier: GPL-2.0-or-later
"""UDP for the tests.

udp.py echo PORT                        sends back what comes, to where it came from
udp.py ask ADDRESS PORT SIZE            sends SIZE random octets, expects the same back
udp.py error ADDRESS PORT SIZE [HOPS]   sends SIZE octets, prints the ICMP error that comes back:
                                        TYPE CODE INFO OFFENDER
udp.py many ADDRESS PORT NUMBER         sends from NUMBER transport addresses: 2001:db8:6::1:1 and on,
                                        25,000 ports each
udp.py gap ADDRESS PORT                 asks an echo server a thousand times a second until SIGTERM comes,
                                        prints the longest time without an answer, in milliseconds
"""
import os
import signal
import socket
import struct
import sys
import time

IPV6_RECVERR, IPV6_MTU_DISCOVER, IP_RECVERR, IP_MTU_DISCOVER, PMTUDISC_PROBE = 25, 23, 11, 10, 3


def echo(port):
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(("::", port))
    while True:
        data, peer = sock.recvfrom(65536)
        sock.sendto(data, peer)


def ask(address, port, size):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.settimeout(2)
    sock.connect((address, port))
    for _ in range(3):
        data = os.urandom(size)
        sock.send(data)
        try:
            if sock.recv(65536) == data:
                return
        except TimeoutError:
            continue
        sys.exit("something else came back")
    sys.exit("nothing came back")


def error(address, port, size, hops):
    if ":" in address:
        family, level, recverr, discover = socket.AF_INET6, socket.IPPROTO_IPV6, IPV6_RECVERR, IPV6_MTU_DISCOVER
        limit, icmp = socket.IPV6_UNICAST_HOPS, 3  # SO_EE_ORIGIN_ICMP6
    else:
        family, level, recverr, discover = socket.AF_INET, socket.IPPROTO_IP, IP_RECVERR, IP_MTU_DISCOVER
        limit, icmp = socket.IP_TTL, 2  # SO_EE_ORIGIN_ICMP
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setsockopt(level, recverr, 1)
    # The kernel would fragment once it knows the path's MTU; this test wants each error.
    sock.setsockopt(level, discover, PMTUDISC_PROBE)
    if hops:
        sock.setsockopt(level, limit, hops)
    sock.connect((address, port))
    for _ in range(3):
        try:
            sock.send(b"x" * size)
        except OSError:
            pass  # reports an earlier error; its details are in the queue
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            try:
                _, control, _, _ = sock.recvmsg(65536, 1024, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
            except BlockingIOError:
                time.sleep(0.02)
                continue
            for message in control:
                if message[:2] == (level, recverr):
                    data = message[2]
                    _, origin, type_, code, _, info, _ = struct.unpack_from("=IBBBBII", data)
                    if origin == icmp:
                        offender = data[24:40] if family == socket.AF_INET6 else data[20:24]
                        print(type_, code, info, socket.inet_ntop(family, offender))
                        return
    sys.exit("no ICMP error came back")


def many(address, port, number):
    for i in range(number):
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sock.bind((f"2001:db8:6::1:{i // 25_000 + 1}", 1024 + i % 25_000))
        sock.sendto(b"x", (address, port))
        sock.close()


def gap(address, port):
    asking = True

    def enough(*_):
        nonlocal asking
        asking = False

    signal.signal(signal.SIGTERM, enough)
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.connect((address, port))
    sock.settimeout(0.001)
    start = last = time.monotonic()
    sent = longest = 0
    while asking:
        now = time.monotonic()
        while sent < (now - start) * 1000:
            sock.send(b"x")
            sent += 1
        try:
            sock.recv(100)
            now = time.monotonic()
            longest, last = max(longest, now - last), now
        except TimeoutError:
            pass
    print(f"{max(longest, time.monotonic() - last) * 1000:.1f}")


what, *rest = sys.argv[1:]
if what == "echo":
    echo(int(rest[0]))
elif what == "many":
    many(rest[0], int(rest[1]), int(rest[2]))
elif what == "gap":
    gap(rest[0], int(rest[1]))
elif what == "ask":
    ask(rest[0], int(rest[1]), int(rest[2]))
else:
    error(rest[0], int(rest[1]), int(rest[2]), int(rest[3]) if len(rest) > 3 else 0)
