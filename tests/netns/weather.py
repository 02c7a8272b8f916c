# SPDX-License-Identifier: GPL-2.0-or-later
"""weather.py LOSS LATE TWICE DEVICE...: what stands between the devices in place of a bridge.

Passes what comes in by a device to all the others. Of the UDP datagrams, LOSS percent get lost, LATE
percent arrive 5 to 150 ms later, after others that were sent after them, and TWICE percent arrive once
more as late as that; for every receiver it is another throw. Once ended by SIGTERM, prints how many
datagrams were delivered, lost, late and doubled.
"""
import heapq
import random
import select
import signal
import socket
import sys
import time

SOL_PACKET, PACKET_VNET_HDR, VNET_HDR = 263, 15, 10
UDP = 17

loss, late, twice = (float(percent) / 100 for percent in sys.argv[1:4])
sockets = []
for device in sys.argv[4:]:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    # Checksums that the kernel has not filled in yet stay so on the way.
    sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    sock.bind((device, 0))
    sockets.append(sock)
poll = select.poll()
for sock in sockets:
    poll.register(sock, select.POLLIN)
by_number = {sock.fileno(): sock for sock in sockets}
waiting, count = [], 0
delivered = lost = delayed = doubled = 0


def is_udp(frame):
    kind, packet = frame[VNET_HDR + 12:VNET_HDR + 14], frame[VNET_HDR + 14:]
    return kind == b"\x86\xdd" and packet[6] == UDP or kind == b"\x08\x00" and packet[9] == UDP


def send(to, frame):
    try:
        to.send(frame)
    except OSError:
        pass  # a device that is down


def later(to, frame):
    global count
    count += 1
    heapq.heappush(waiting, (time.monotonic() + random.uniform(0.005, 0.15), count, to, frame))


def end(*_):
    print(f"{delivered} datagrams delivered, {lost} lost, {delayed} late, {doubled} doubled")
    sys.exit()


signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
while True:
    patience = max(waiting[0][0] - time.monotonic(), 0) * 1000 if waiting else None
    for number, _ in poll.poll(patience):
        sock = by_number[number]
        try:
            frame, (*_, kind, _, _) = sock.recvfrom(65536)
        except OSError:
            continue
        if kind == socket.PACKET_OUTGOING:
            continue
        udp = is_udp(frame)
        for to in sockets:
            if to is sock:
                continue
            if not udp:
                send(to, frame)
                continue
            if random.random() < loss:
                lost += 1
                continue
            delivered += 1
            if random.random() < twice:
                doubled += 1
                later(to, frame)
            if random.random() < late:
                delayed += 1
                later(to, frame)
            else:
                send(to, frame)
    while waiting and waiting[0][0] <= time.monotonic():
        send(*heapq.heappop(waiting)[2:])
