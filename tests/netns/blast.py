# SPDX-License-Identifier: GPL-2.0-or-later
"""A stranger on the network between gateways, who sends as fast as he can.

blast.py garbage DEVICE ADDRESS PORT NUMBER   so many datagrams of random bytes
blast.py record DEVICE PORT FILE              keeps all frames of datagrams to PORT until SIGTERM
blast.py replay DEVICE FILE [A-SECOND]        the frames of FILE again and again until SIGTERM
blast.py forge DEVICE FILE [A-SECOND]         the same, with other counters and a wrong tag

Prints how many it sent and how fast.
"""
import itertools
import os
import pickle
import random
import signal
import socket
import struct
import sys
import time

ETH, IP6, UDP_HEADER = 14, 40, 8
PAYLOAD = ETH + IP6 + UDP_HEADER
COUNTER, TAG = 12, 16  # where the envelope has the one, bytes of the other at its end
SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20


def frames_socket(device):
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x86DD))
    sock.bind((device, 0))
    return sock


def garbage(device, address, port, number):
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    sock.connect((address, port))
    pool = memoryview(os.urandom(1 << 22))
    for _ in range(number):
        start, length = random.getrandbits(21), random.getrandbits(10) + random.getrandbits(8)
        sock.send(pool[start:start + length])


def record(device, port, file):
    sock, found = frames_socket(device), []

    def end(*_):
        with open(file, "wb") as out:
            pickle.dump(found, out)
        sys.exit()

    signal.signal(signal.SIGTERM, end)
    print("ready", flush=True)
    while True:
        frame = sock.recv(65536)
        if frame[ETH + 6] == socket.IPPROTO_UDP and frame[ETH + IP6 + 2:ETH + IP6 + 4] == struct.pack("!H", port):
            found.append(frame)


def forged(frame):
    """Everything is as it was but the counter, which is to come, and the tag."""
    payload = bytearray(frame[PAYLOAD:])
    payload[COUNTER:COUNTER + 8] = struct.pack("!Q", 1 << 32 | random.getrandbits(32))
    payload[-TAG:] = os.urandom(TAG)
    return frame[:PAYLOAD] + payload


def checked(frame):
    """With a checksum of UDP that is right: the kernel leaves it to devices, which a recording is before."""
    udp = frame[ETH + IP6:ETH + IP6 + 6] + b"\0\0" + frame[PAYLOAD:]
    pseudo = frame[ETH + 8:ETH + IP6] + struct.pack("!II", len(udp), socket.IPPROTO_UDP)
    words = pseudo + udp + b"\0" * (len(udp) % 2)
    total = sum(struct.unpack(f"!{len(words) // 2}H", words))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return frame[:ETH + IP6 + 6] + struct.pack("!H", ~total & 0xFFFF or 0xFFFF) + frame[PAYLOAD:]


def send(device, frames, rate):
    sock = frames_socket(device)
    sock.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
    # From a MAC address of the sender's own: with another one, a switch would send it what is for that.
    frames = [frame[:6] + sock.getsockname()[4] + frame[12:] for frame in frames]
    sent, begun = 0, time.monotonic()

    def end(*_):
        report(sent, begun)
        sys.exit()

    signal.signal(signal.SIGTERM, end)
    for frame in itertools.cycle(frames):
        try:
            sock.send(frame)
            sent += 1
        except OSError:
            time.sleep(0.001)  # no room
        if rate and sent % 50 == 0:
            time.sleep(max(begun + sent / rate - time.monotonic(), 0))


def report(sent, begun):
    print(f"{sent} datagrams, {sent / (time.monotonic() - begun):.0f} a second", flush=True)


what, device, *rest = sys.argv[1:]
if what == "record":
    record(device, int(rest[0]), rest[1])
elif what == "garbage":
    began = time.monotonic()
    garbage(device, rest[0], int(rest[1]), int(rest[2]))
    report(int(rest[2]), began)
else:
    with open(rest[0], "rb") as file:
        recorded = pickle.load(file)
    if what == "forge":
        recorded = [forged(frame) for frame in (recorded * (1 + 2000 // len(recorded)))[:2000]]
    send(device, [checked(frame) for frame in recorded], int(rest[1]) if rest[1:] else None)
