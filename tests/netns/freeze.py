# SPDX-License-Identifier: GPL-2.0-or-later
"""Stops one thread of a process, as if it waited for ever.

freeze.py PID THREAD    the thread of that name; prints a line when it stands still, and ends when the
                        thread does
"""
import ctypes
import os
import sys

PTRACE_SEIZE, PTRACE_INTERRUPT, WALL = 0x4206, 0x4207, 0x40000000
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def ptrace(request, thread):
    if libc.ptrace(request, thread, None, None) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")


process, name = sys.argv[1:]
for number in os.listdir(f"/proc/{process}/task"):
    with open(f"/proc/{process}/task/{number}/comm") as comm:
        if comm.read().strip() == name:
            thread = int(number)
ptrace(PTRACE_SEIZE, thread)
ptrace(PTRACE_INTERRUPT, thread)
os.waitpid(thread, WALL)
print("frozen", flush=True)
while os.WIFSTOPPED(os.waitpid(thread, WALL)[1]):
    pass
