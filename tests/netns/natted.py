# SPDX-License-Identifier: GPL-2.0-or-later
"""UDP through port translation, for the tests.

natted.py mirror PORT             tells everybody the address and port they are seen by, from PORT; and from
                                  PORT + 1 whoever asks for that
natted.py other ADDRESS PORT      asks a mirror to answer from its other port, which has never been written to
natted.py wait ADDRESS PORT FILE  asks a mirror, writes what it says to FILE, and waits for what anybody
                                  sends there; prints that
natted.py tell FILE TEXT          sends a text to the address in FILE
"""
import os
import socket
import sys


def mirror(port):
    socks = []
    for number in (port, port + 1):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("", number))
        socks.append(sock)
    while True:
        data, peer = socks[0].recvfrom(1500)
        socks[data == b"other"].sendto(f"{peer[0]} {peer[1]}".encode(), peer)


def ask(address, port, text):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(2)
    for _ in range(3):
        sock.sendto(text, (address, port))
        try:
            return sock, *sock.recvfrom(1500)
        except TimeoutError:
            continue
    sys.exit("no answer")


def wait(address, port, file):
    sock, data, _ = ask(address, port, b"who am I")
    with open(file + ".new", "wb") as out:
        out.write(data)
    os.rename(file + ".new", file)
    sock.settimeout(10)
    print(sock.recv(65535).decode())


def tell(file, text):
    with open(file) as source:
        address, port = source.read().split()
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for _ in range(3):
        sock.sendto(text.encode(), (address, int(port)))


verb, *rest = sys.argv[1:]
if verb == "mirror":
    mirror(int(rest[0]))
elif verb == "other":
    _, _, peer = ask(rest[0], int(rest[1]), b"other")
    if peer[1] != int(rest[1]) + 1:
        sys.exit(f"answered by {peer}")
elif verb == "wait":
    wait(rest[0], int(rest[1]), rest[2])
elif verb == "tell":
    tell(*rest)
else:
    sys.exit(__doc__)
