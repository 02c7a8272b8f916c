# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs a program in a terminal of its own, and is told by a pipe what to do with it.

screen.py [--uncontrolled] DIRECTORY COLUMNS LINES COMMAND...

DIRECTORY/do, which has to be there, is a named pipe for lines such as these:
    keys TEXT             types it; Python's escapes are understood
    size COLUMNS LINES    gives the terminal another size
    signal NUMBER         to the program
    hangup                takes the terminal away

DIRECTORY/screen is what can be seen, DIRECTORY/raw all that was written. When the program has ended,
DIRECTORY/end says with which status (negative: which signal), whether the terminal is as it was
("restored" or "changed"), and whether it shows its own screen and a cursor. With --uncontrolled the
terminal is not the one that controls the program, so that no signal tells of a hangup.
"""
import fcntl
import os
import select
import struct
import subprocess
import sys
import termios

import pyte

controlled = sys.argv[1] != "--uncontrolled"
directory, columns, lines, *command = sys.argv[1 if controlled else 2:]
# A size of 0x0 is one that nobody told the kernel.
screen = pyte.Screen(int(columns) or 80, int(lines) or 24)
stream = pyte.ByteStream(screen)
master, slave = os.openpty()
raw = b""


def resize(columns, lines):
    screen.resize(lines or 24, columns or 80)
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


def take_over():
    os.setsid()
    if controlled:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def write(name, text):
    with open(f"{directory}/new", "wb") as file:
        file.write(text)
    os.rename(f"{directory}/new", f"{directory}/{name}")


def show():
    write("raw", raw)
    write("screen", "".join(line.rstrip() + "\n" for line in screen.display).encode())


def read():
    """What the program has written up to now; False if nobody will write any more."""
    global raw
    try:
        data = os.read(master, 65536)
    except OSError:
        return False
    raw += data
    stream.feed(data)
    return True


resize(int(columns), int(lines))
before = termios.tcgetattr(slave)
program = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, preexec_fn=take_over)
# For reading and writing, so that it never ends.
orders = os.open(f"{directory}/do", os.O_RDWR)
waiting = b""
hung_up = False
while program.poll() is None:
    sources = [orders] if hung_up else [orders, master]
    ready, _, _ = select.select(sources, [], [], 0.05)
    if master in ready and read():
        show()
    if orders in ready:
        waiting += os.read(orders, 4096)
    while b"\n" in waiting:
        line, waiting = waiting.split(b"\n", 1)
        word, _, rest = line.decode().partition(" ")
        if word == "keys":
            os.write(master, rest.encode().decode("unicode_escape").encode("latin-1"))
        elif word == "size":
            resize(*map(int, rest.split()))
        elif word == "signal":
            program.send_signal(int(rest))
        elif word == "hangup":
            os.close(master)
            hung_up = True

state = "gone"
if not hung_up:
    state = "restored" if termios.tcgetattr(slave) == before else "changed"
    while select.select([master], [], [], 0)[0] and read():
        pass
    show()
own = "own" if raw.rfind(b"\x1b[?1049l") >= raw.rfind(b"\x1b[?1049h") else "alternate"
cursor = "cursor" if raw.rfind(b"\x1b[?25h") >= raw.rfind(b"\x1b[?25l") else "hidden"
write("end", f"{program.returncode} {state} {own} {cursor}\n".encode())
