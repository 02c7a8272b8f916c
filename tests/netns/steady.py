# SPDX-License-Identifier: GPL-2.0-or-later
"""Two connections that must not notice anything, to a server as of `lasting.py serve`.

steady.py ADDRESS PORT FILE   asks ten times a second on one and leaves the other alone; makes
                              FILE.open when both are open, and goes on until FILE.end is there.
                              Then it asks on both. Prints the longest time without an answer, in
                              milliseconds; fails when a connection broke, or the server saw it
                              come from somewhere else.
"""
import os
import socket
import sys
import time


class Connection:
    def __init__(self, address, port):
        self.socket = socket.create_connection((address, port), timeout=60)
        self.stream = self.socket.makefile("rw", encoding="ascii")
        self.count, self.peer = 0, None
        self.ask()

    def ask(self):
        self.count += 1
        self.stream.write(f"{self.count}\n")
        self.stream.flush()
        number, *peer = self.stream.readline().split()
        if int(number) != self.count or self.peer not in (None, peer):
            sys.exit(f"asked {self.count} as {self.peer}, was told {number} {peer}")
        self.peer = peer


def main(address, port, file):
    busy, idle = Connection(address, port), Connection(address, port)
    open(file + ".open", "w", encoding="ascii").close()
    longest, last = 0, time.monotonic()
    while not os.path.exists(file + ".end"):
        time.sleep(0.1)
        busy.ask()
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    idle.ask()
    print(round(longest * 1000))


main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
