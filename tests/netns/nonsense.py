# SPDX-License-Identifier: GPL-2.0-or-later
"""Sends nonsense to the daemon.

nonsense.py socket              on the control socket of the network namespace
nonsense.py packets DEVICE MAC  Ethernet frames with broken IPv6 packets for pool6

The seed is fixed, so that a failure can be repeated.
"""
import random
import socket
import struct
import sys

RANDOM = random.Random(6146)
SOURCE = socket.inet_pton(socket.AF_INET6, "2001:db8:6::2")
TARGET = socket.inet_pton(socket.AF_INET6, "64:ff9b::203.0.113.2")


def talk(data):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(5)
    sock.connect("\0tylo")
    try:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass
    except (BrokenPipeError, ConnectionResetError):
        pass
    sock.close()


def packet():
    body = RANDOM.randbytes(RANDOM.choice([0, 1, 3, 7, 8, 19, 20, 40, 200]))
    protocol = RANDOM.choice([0, 6, 17, 43, 44, 50, 51, 58, 59, 60, 132, 255])
    if RANDOM.random() < 0.3:  # a fragment header in front
        body = struct.pack("!BBHI", RANDOM.choice([6, 17, 58, 0]), 0, RANDOM.randrange(65536), 7) + body
        protocol = 44
    if RANDOM.random() < 0.3:  # an ICMPv6 error about something
        inner = struct.pack("!IHBB", 6 << 28, RANDOM.randrange(2000), RANDOM.choice([6, 17, 44, 58]), 64)
        body = struct.pack("!BBHI", RANDOM.randrange(5), 0, 0, 1280) + inner + TARGET + SOURCE + body
        protocol = 58
    length = len(body) if RANDOM.random() < 0.7 else RANDOM.randrange(65536)
    hops = RANDOM.choice([0, 1, 2, 64])
    return struct.pack("!IHBB", 6 << 28, length, protocol, hops) + SOURCE + TARGET + body


if sys.argv[1] == "socket":
    for data in (
        b"",
        b"\n",
        b"\0" * 100 + b"\n",
        b"{}\n",
        b"[" * 100_000 + b"\n",
        b'{"version":1}\n',
        b'{"version":999,"flavour":"nat64","instance":"default","command":"health"}\n',
        b'{"version":1,"flavour":"nat64","instance":"' + b"x" * 70_000 + b'","command":"health"}\n',
        b"x" * (3 << 20),
        RANDOM.randbytes(50_000) + b"\n",
    ):
        talk(data)
    idle = [socket.socket(socket.AF_UNIX) for _ in range(50)]
    for sock in idle:
        sock.connect("\0tylo")
else:
    device, mac = sys.argv[2:]
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sock.bind((device, 0))
    header = bytes.fromhex(mac.replace(":", "")) + sock.getsockname()[4] + struct.pack("!H", 0x86DD)
    for _ in range(3000):
        sock.send(header + packet())
