# SPDX-License-Identifier: GPL-2.0-or-later
"""Sends packets in fragments of its own making.

fragments.py ask HOW SRC SPORT DST DPORT SIZE          a UDP datagram; expects the same back
fragments.py send HOW SRC SPORT DST DPORT SIZE [ID]    a UDP datagram
fragments.py syn HOW SRC SPORT DST DPORT               a TCP segment that opens a connection

HOW   ordered, reversed, shuffled
      twice        each fragment two times
      overlapping  one more, with other octets, that begins within the first
      missing      all but the second
      late         only the second
      tiny         the first fragment has 8 octets
ID    the identification, for `missing` and `late` to mean the same packet
"""
import ipaddress
import os
import random
import socket
import struct
import sys

PIECE = 1200
TINY = 8
MORE4, MORE6 = 0x2000, 1


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pseudo(src, dst, protocol, length):
    return src.packed + dst.packed + struct.pack("!II", length, protocol)


def udp(src, sport, dst, dport, data):
    length = 8 + len(data)
    header = struct.pack("!HHH", sport, dport, length)
    sum_ = checksum(pseudo(src, dst, 17, length) + header + b"\0\0" + data)
    return header + struct.pack("!H", sum_ or 0xFFFF) + data


def syn(src, sport, dst, dport):
    header = struct.pack("!HHIIBBH", sport, dport, 1, 0, 5 << 4, 2, 1024)
    sum_ = checksum(pseudo(src, dst, 6, 20) + header + b"\0\0\0\0")
    return header + struct.pack("!HH", sum_, 0)


def fragments(payload, how):
    """Pairs of an offset and what is there, in the order to be sent."""
    first = TINY if how == "tiny" else PIECE
    starts = [0, *range(first, len(payload), PIECE)]
    pieces = [(start, payload[start:end]) for start, end in zip(starts, [*starts[1:], len(payload)])]
    if how == "reversed":
        pieces.reverse()
    elif how == "shuffled":
        random.shuffle(pieces)
    elif how == "twice":
        pieces = [piece for piece in pieces for _ in range(2)]
    elif how == "overlapping":
        pieces.insert(1, (first - 16, b"#" * 32))
    elif how == "missing":
        del pieces[1]
    elif how == "late":
        pieces = [pieces[1]]
    elif how not in ("ordered", "tiny"):
        sys.exit(f"{how}?")
    return pieces


def transmit(src, dst, protocol, payload, how, identification):
    if src.version == 4:
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    else:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
    for offset, part in fragments(payload, how):
        more = offset + len(part) < len(payload)
        if src.version == 4:
            place = offset // 8 | (MORE4 if more else 0)
            head = struct.pack("!BBHHHBBH", 0x45, 0, 0, identification, place, 64, protocol, 0)
            packet = head + src.packed + dst.packed + part
        else:
            place = offset | (MORE6 if more else 0)
            head = struct.pack("!IHBB", 6 << 28, 8 + len(part), 44, 64)
            extension = struct.pack("!BBHI", protocol, 0, place, identification)
            packet = head + src.packed + dst.packed + extension + part
        sock.sendto(packet, (str(dst), 0))


def ask(how, src, sport, dst, dport, size):
    family = socket.AF_INET if src.version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((str(src), sport))
    sock.settimeout(3)
    for _ in range(3):
        data = os.urandom(size)
        transmit(src, dst, 17, udp(src, sport, dst, dport, data), how, random.randrange(1, 65536))
        try:
            if sock.recv(65536) == data:
                return
        except TimeoutError:
            continue
        sys.exit("something else came back")
    sys.exit("nothing came back")


what, how, src, sport, dst, dport, *rest = sys.argv[1:]
src, dst = ipaddress.ip_address(src), ipaddress.ip_address(dst)
sport, dport = int(sport), int(dport)
identification = int(rest[1]) if len(rest) > 1 else random.randrange(1, 65536)
if what == "ask":
    ask(how, src, sport, dst, dport, int(rest[0]))
elif what == "send":
    datagram = udp(src, sport, dst, dport, random.randbytes(int(rest[0])))
    transmit(src, dst, 17, datagram, how, identification)
else:
    transmit(src, dst, 6, syn(src, sport, dst, dport), how, identification)
