# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbered datagrams at a steady rate, every one of which must arrive once.

stream.py send ADDRESS PORT RATE    sends RATE datagrams a second until SIGTERM, prints how many
stream.py receive PORT              receives until SIGTERM, prints how many different ones came, how many
                                    came again, and the longest silence between two, in milliseconds
"""
import signal
import socket
import struct
import sys
import time

going = True


def enough(*_):
    global going
    going = False


def send(address, port, rate):
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.connect((address, port))
    start, sent = time.monotonic(), 0
    while going:
        due = int((time.monotonic() - start) * rate)
        # Those that are late do not come in one heap.
        for number in range(sent, min(due, sent + 50)):
            sock.send(struct.pack("!I", number))
            sent = number + 1
        time.sleep(0.001)
    print(sent)


def receive(port):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
    sock.bind(("", port))
    sock.settimeout(0.2)
    seen, again, silence, last = bytearray(1 << 24), 0, 0, None
    while True:
        try:
            (number,) = struct.unpack("!I", sock.recv(100))
        except TimeoutError:
            if going:
                continue
            break
        now = time.monotonic()
        if last is not None:
            silence = max(silence, now - last)
        last = now
        again += seen[number]
        seen[number] = 1
    print(sum(seen), again, f"{silence * 1000:.0f}")


signal.signal(signal.SIGTERM, enough)
what, *rest = sys.argv[1:]
if what == "send":
    send(rest[0], int(rest[1]), int(rest[2]))
else:
    receive(int(rest[0]))
