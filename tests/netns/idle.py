# SPDX-License-Identifier: GPL-2.0-or-later
"""A connection that rests: idle.py ADDRESS DIRECTORY

Asks http_server.py for /peer, makes DIRECTORY/idle.open, waits for DIRECTORY/idle.go, and asks again
on the same connection. Succeeds when the server saw the same address and port both times.
"""
import http.client
import os
import sys
import time

address, directory = sys.argv[1:]
connection = http.client.HTTPConnection(address, 8080, timeout=10)


def ask():
    connection.request("GET", "/peer")
    return connection.getresponse().read().decode()


first = ask()
connection.auto_open = 0  # a lost connection must not be made again
open(directory + "/idle.open", "w").close()
end = time.monotonic() + 60
while not os.path.exists(directory + "/idle.go") and time.monotonic() < end:
    time.sleep(0.05)
sys.exit(0 if ask() == first else "another connection")
