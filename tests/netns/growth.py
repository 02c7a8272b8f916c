# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether what should stay the same grows: growth.py FILE

FILE has a line "SERIES VALUE" for every value, in their order. The first quarter of a series is its
warm-up. Of what follows, the median of the last third must not exceed that of the first third by more
than a TENTH. Shorter series than LEAST say nothing and are passed over. Prints a line for each series;
fails when one grows.
"""
import collections
import statistics
import sys

LEAST = 24
TENTH = 0.1

series = collections.defaultdict(list)
with open(sys.argv[1], encoding="ascii") as file:
    for line in file:
        name, value = line.split()
        series[name].append(int(value))
grows = False
for name, values in series.items():
    if len(values) < LEAST:
        continue
    warm = values[len(values) // 4:]
    third = len(warm) // 3
    first, last = statistics.median(warm[:third]), statistics.median(warm[-third:])
    verdict = "GROWS" if last > first * (1 + TENTH) else "level"
    grows |= verdict == "GROWS"
    print(f"{name}: {len(values)} values, {first:.0f} at first, {last:.0f} at last, {max(values)} at most: {verdict}")
sys.exit(grows)
