# SPDX-License-Identifier: GPL-2.0-or-later
"""twice.py DEVICE: everything that leaves by a device leaves by it once more, a little later."""
import socket
import sys
import time

SOL_PACKET, PACKET_VNET_HDR = 263, 15

sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
# Checksums that the kernel has not filled in yet stay so on the way back.
sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
sock.bind((sys.argv[1], 0))
while True:
    frame, (*_, kind, _, _) = sock.recvfrom(65536)
    if kind == socket.PACKET_OUTGOING:
        time.sleep(0.002)
        sock.send(frame)
