# SPDX-License-Identifier: GPL-2.0-or-later
"""Starts a program as systemd does with Type=notify and FileDescriptorStoreMax=.

manager.py DIRECTORY COMMAND...    starts COMMAND, again after each SIGHUP, for which it is ended first;
                                   ends it for good with SIGTERM

A line in DIRECTORY/ready for every time that the program said it was ready, with the number of
descriptors that it was started with.

With WATCHDOG=SECONDS in the environment, as with WatchdogSec=: a line in DIRECTORY/alive for every
time that the program said it was alive. When it is silent for longer, it is aborted and started again.
"""
import array
import fcntl
import os
import signal
import socket
import sys
import time

directory, *command = sys.argv[1:]
path = os.path.join(directory, "notify")
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.bind(path)
again, over = False, False
limit = float(os.environ.pop("WATCHDOG", "inf"))
alive = float("inf")


def restart(*_):
    global again
    again = True


def end(*_):
    global over
    over = True


def start(kept):
    pid = os.fork()
    if pid:
        return pid
    # Out of the way of the numbers from 3 on.
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 200) for _, fd in kept]
    for number, fd in enumerate(moved, 3):
        os.dup2(fd, number, inheritable=True)
    os.environ["NOTIFY_SOCKET"] = path
    if limit != float("inf"):
        os.environ["WATCHDOG_USEC"] = str(int(limit * 1e6))
        os.environ["WATCHDOG_PID"] = str(os.getpid())
    if kept:
        os.environ["LISTEN_PID"] = str(os.getpid())
        os.environ["LISTEN_FDS"] = str(len(kept))
        os.environ["LISTEN_FDNAMES"] = ":".join(name for name, _ in kept)
    os.execvp(command[0], command)


def hear(kept, given):
    """One message, if there is one."""
    global alive
    try:
        text, control, _, _ = notify.recvmsg(4096, 4096)
    except TimeoutError:
        return
    words = dict(line.split("=", 1) for line in text.decode().splitlines() if "=" in line)
    fds = array.array("i")
    for _, _, data in control:
        fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    if words.get("FDSTORE") == "1":
        kept.extend((words["FDNAME"], fd) for fd in fds)
    if words.get("FDSTOREREMOVE") == "1":
        for item in [item for item in kept if item[0] == words["FDNAME"]]:
            os.close(item[1])
            kept.remove(item)
    if words.get("WATCHDOG") == "1":
        alive = time.monotonic()
        with open(os.path.join(directory, "alive"), "a") as file:
            print(alive, file=file)
    if words.get("READY") == "1":
        alive = time.monotonic()
        with open(os.path.join(directory, "ready"), "a") as ready:
            print(given, file=ready)


signal.signal(signal.SIGHUP, restart)
signal.signal(signal.SIGTERM, end)
notify.settimeout(0.02)
kept = []
while not over:
    # What it was given stays here until it says otherwise.
    pid, given, again, silent, alive = start(kept), len(kept), False, False, float("inf")
    while not again and not over and not silent:
        hear(kept, given)
        if os.waitpid(pid, os.WNOHANG)[0]:
            sys.exit("the program ended by itself")
        silent = time.monotonic() - alive > limit
    os.kill(pid, signal.SIGABRT if silent else signal.SIGTERM)
    while not os.waitpid(pid, os.WNOHANG)[0]:
        hear(kept, given)
    notify.settimeout(0)
    try:
        while True:
            hear(kept, given)
    except BlockingIOError:
        notify.settimeout(0.02)
