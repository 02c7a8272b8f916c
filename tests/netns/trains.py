# SPDX-License-Identifier: GPL-2.0-or-later
"""Trains of UDP datagrams, each handed to the kernel with one call (UDP_SEGMENT), as servers of
bulk data do.

trains.py serve PORT                        checks what comes; answers a train with a train like it
trains.py ask ADDRESS PORT SIZE NUMBER      from three ports in turns NUMBER trains each: CARS - 1 datagrams
                                            of SIZE octets and one of half that, each with its place;
                                            expects answers, in their order

Ends with an error as soon as a datagram is missing, is not in its place, or is not what was sent.
"""
import socket
import struct
import sys

UDP_SEGMENT = 103  # of SOL_UDP, which is IPPROTO_UDP
IP_MTU_DISCOVER, PMTUDISC_DO = 10, 2
CARS = 20
FLOWS = 3
HEAD = struct.Struct("!III")  # size, train, car


def car(size, train, number):
    last = number == CARS - 1
    head = HEAD.pack(size, train, number)
    return (head + bytes((train + number + i) % 251 for i in range(size)))[: size // 2 if last else size]


def train(size, number):
    return b"".join(car(size, number, i) for i in range(CARS))


def send(sock, size, number, *to):
    sock.sendmsg([train(size, number)], [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", size))], 0, *to)


def check(data, size, train, number):
    if data != car(size, train, number):
        found = HEAD.unpack_from(data.ljust(HEAD.size, b"\0"))
        sys.exit(f"{len(data)} octets {found} instead of {(size, train, number)}, or not what was sent")


def serve(port):
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    # As programs do that find out themselves what the way takes.
    sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DO)
    sock.bind(("::", port))
    cars = {}
    while True:
        data, peer = sock.recvfrom(65536)
        size, train, _ = HEAD.unpack_from(data)
        due = cars.get(peer, 0)
        check(data, size, train, due)
        cars[peer] = (due + 1) % CARS
        if cars[peer] == 0:
            send(sock, size, train, peer)


def ask(address, port, size, number):
    socks = []
    for _ in range(FLOWS):
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        sock.settimeout(5)
        sock.connect((address, port))
        socks.append(sock)
    for train in range(number):
        for sock in socks:
            send(sock, size, train)
        for flow, sock in enumerate(socks):
            for i in range(CARS):
                try:
                    check(sock.recv(65536), size, train, i)
                except TimeoutError:
                    sys.exit(f"nothing came for datagram {i} of train {train} of flow {flow}")


if sys.argv[1] == "serve":
    serve(int(sys.argv[2]))
else:
    ask(sys.argv[2], *map(int, sys.argv[3:]))
