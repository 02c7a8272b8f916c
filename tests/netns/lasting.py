# SPDX-License-Identifier: GPL-2.0-or-later
"""Connections that must outlive the daemon, and others that come and go.

lasting.py serve PORT                             answers every line with it and who sent it
lasting.py hold ADDRESS PORT DIRECTORY NUMBER     keeps NUMBER connections, every other one idle, and
                                                  opens an idle one every 40 ms, until there are MOST
lasting.py churn ADDRESS PORT                     short connections, 20 at a time, without end

hold makes DIRECTORY/lasting.open when all are open, writes down what breaks in DIRECTORY/lasting.broken at
once, and goes on until DIRECTORY/lasting.end is there;
then it asks once more on each connection. It fails when one broke, unless that was opened less than
MOMENT before a kill: DIRECTORY/kills has their times, from and to, in seconds since 1970.
"""
import asyncio
import contextlib
import os
import socket
import sys
import time

PATIENCE = 300  # seconds for one answer; the daemon may be killed many times meanwhile
# What meets a dead daemon several times in a row would wait minutes for the next attempt. Linux has
# this since 6.15; with older kernels, many kills may look like broken connections.
TCP_RTO_MAX_MS, LONGEST = 44, 2_000
# What was opened so shortly before a kill may be lost: 10 ms until the commit begins, and 90 ms for the
# commit itself. On two processors the oldest that was lost had been open for 9 ms (2434 connections, 122
# kills), for 13 ms beside two busy loops, and for 119 ms while others wrote to the disk and waited for it.
MOMENT = float(os.environ.get("MOMENT", "0.1"))
# Shorter than until a SYN is sent again: what is open was opened by the one SYN, so that the time
# between that and the answer holds the moment in which the gateway saw it.
ATTEMPT = 0.9
MOST = int(os.environ.get("MOST", "3000"))
EVERY = 0.04


def persistent(writer):
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, TCP_RTO_MAX_MS, LONGEST)


async def serve(port):
    async def answer(reader, writer):
        persistent(writer)
        host, number = writer.get_extra_info("peername")[:2]
        try:
            while line := await reader.readline():
                writer.write(line.strip() + f" {host} {number}\n".encode())
                await writer.drain()
        except OSError:
            pass
        writer.close()

    server = await asyncio.start_server(answer, "0.0.0.0", port, backlog=1000)
    await server.serve_forever()


async def ask(reader, writer, text):
    writer.write(text.encode() + b"\n")
    answer = (await asyncio.wait_for(reader.readline(), PATIENCE)).decode().split()
    if answer[:1] != [text]:
        raise OSError(f"asked {text}, was told {answer}")
    return tuple(answer[1:])


class Lasting:
    """One connection; `broken` says what happened to it."""

    def __init__(self, number, active):
        self.number, self.active = number, active
        self.began, self.opened, self.broken, self.peer, self.asked = None, None, None, None, 0

    async def run(self, address, port, ready, broke, end):
        try:
            # One that is not open yet may be lost in any way; it is tried again.
            while self.opened is None:
                self.began = time.time()
                try:
                    reader, writer = await asyncio.wait_for(asyncio.open_connection(address, port), ATTEMPT)
                    self.opened = time.time()
                except (OSError, asyncio.TimeoutError):
                    continue
            persistent(writer)
            ready()
            while not end():
                if self.active:
                    await self.ask(reader, writer)
                await asyncio.sleep(0.05)
            await self.ask(reader, writer)
            writer.close()
        except (OSError, asyncio.TimeoutError) as error:
            self.broken = repr(error)
            broke(self)

    async def ask(self, reader, writer):
        self.asked += 1
        peer = await ask(reader, writer, f"{self.number}.{self.asked}")
        if self.peer not in (None, peer):
            raise OSError(f"was {self.peer}, is {peer}")
        self.peer = peer


async def hold(address, port, directory, number):
    opened = 0

    def ready():
        nonlocal opened
        opened += 1
        if opened == number:
            open(directory + "/lasting.open", "w").close()

    def broke(connection):
        with open(directory + "/lasting.broken", "a") as file:
            print(time.strftime("%T", time.gmtime()), connection.number, connection.peer, connection.broken, file=file)

    def end():
        return os.path.exists(directory + "/lasting.end")

    all_ = [Lasting(i, i % 2 == 0) for i in range(number)]
    tasks = [asyncio.create_task(each.run(address, port, ready, broke, end)) for each in all_]
    while not end():
        await asyncio.sleep(EVERY)
        if opened >= number and len(all_) < MOST:
            all_.append(Lasting(len(all_), False))
            tasks.append(asyncio.create_task(all_[-1].run(address, port, ready, broke, end)))
    # The youngest may not be open yet.
    await asyncio.wait(tasks, timeout=PATIENCE + 10)

    with open(directory + "/kills") as file:
        kills = [[float(time_) for time_ in line.split()] for line in file]
    failed = 0
    lost = []
    for each in all_:
        if each.opened is None or not each.broken:
            continue
        # How long it was open at most when the daemon was killed.
        age = min((kill - each.opened for kill, killed in kills if killed >= each.began), default=9999)
        verdict = "excused" if age <= MOMENT else "FAILED"
        print(f"{each.number} {verdict}: opened in {(each.opened - each.began) * 1000:.0f} ms, killed "
              f"{age * 1000:.0f} ms later: {each.broken}")
        failed += age > MOMENT
        lost.append(age)
    open_ = [each for each in all_ if each.opened and not each.broken]
    peers = {each.peer for each in open_}
    print(f"{len(all_)} connections, {len(open_)} whole, {sum(e.asked for e in all_)} answers, "
          f"{len(lost)} lost, {failed} of them open for longer than {MOMENT * 1000:.0f} ms, the oldest for "
          f"{max(lost, default=0) * 1000:.0f} ms; {len(kills)} kills")
    sys.exit(failed > 0 or len(peers) != len(open_) or len(open_) < number)


async def churn(address, port):
    async def one():
        while True:
            try:
                reader, writer = await asyncio.wait_for(asyncio.open_connection(address, port), 1)
                await asyncio.wait_for(ask(reader, writer, "x"), 1)
                writer.close()
            except (OSError, asyncio.TimeoutError):
                pass
            await asyncio.sleep(0.02)

    await asyncio.gather(*(one() for _ in range(20)))


what, *rest = sys.argv[1:]
if what == "serve":
    asyncio.run(serve(int(rest[0])))
elif what == "hold":
    asyncio.run(hold(rest[0], int(rest[1]), rest[2], int(rest[3])))
else:
    asyncio.run(churn(rest[0], int(rest[1])))
