# SPDX-License-Identifier: GPL-2.0-or-later
"""multicast_router.py GROUP DEVICE SOURCE[,SOURCE...] DEVICE SOURCE[,SOURCE...]

Has the kernel route what these sources on one device send to the group to the other device, until it
ends: what a multicast routing daemon does with much more ceremony.
"""
import signal
import socket
import struct
import sys

MRT_INIT, MRT_ADD_VIF, MRT_ADD_MFC = 200, 202, 204
VIFF_USE_IFINDEX, MAXVIFS = 8, 32

group, *rest = sys.argv[1:]
sides = list(zip(rest[::2], rest[1::2]))
sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IGMP)
sock.setsockopt(socket.IPPROTO_IP, MRT_INIT, 1)
for number, (device, _) in enumerate(sides):
    vif = struct.pack("@HBBIi4s", number, VIFF_USE_IFINDEX, 1, 0, socket.if_nametoindex(device), b"\0" * 4)
    sock.setsockopt(socket.IPPROTO_IP, MRT_ADD_VIF, vif)
for number, (_, sources) in enumerate(sides):
    limits = bytearray(MAXVIFS)
    limits[1 - number] = 1
    for source in sources.split(","):
        entry = struct.pack("@4s4sH32sIIIi", socket.inet_aton(source), socket.inet_aton(group), number,
                            bytes(limits), 0, 0, 0, 0)
        sock.setsockopt(socket.IPPROTO_IP, MRT_ADD_MFC, entry)
print("ready", flush=True)
signal.pause()
