# SPDX-License-Identifier: GPL-2.0-or-later
"""What must be true of a database at any instant: check_state.py DIRECTORY

Reads a copy: whoever opens a database mends it on the way. Prints how many sessions there are.
"""
import pathlib
import shutil
import sqlite3
import sys
import tempfile

WRONG = {
    "sessions without their mapping":
        "SELECT count(*) FROM session AS s WHERE NOT EXISTS (SELECT * FROM bib AS b WHERE"
        " b.instance = s.instance AND b.protocol = s.protocol AND b.v4_addr = s.v4_addr"
        " AND b.v4_port = s.v4_port)",
    "IPv4 transport addresses of several clients":
        "SELECT count(*) FROM (SELECT 1 FROM bib GROUP BY protocol, v4_addr, v4_port HAVING count(*) > 1)",
    "clients with several IPv4 transport addresses":
        "SELECT count(*) FROM (SELECT 1 FROM bib GROUP BY instance, protocol, v6_addr, v6_port"
        " HAVING count(*) > 1)",
    "rows of no instance": "SELECT count(*) FROM pragma_foreign_key_check",
    "instances lost": "SELECT count(*) = 0 FROM instance",
    "pool4 lost": "SELECT count(*) = 0 FROM pool4_range",
}

with tempfile.TemporaryDirectory() as copy:
    for file in pathlib.Path(sys.argv[1]).glob("state.db*"):
        # What other connections share in memory is made anew from the log.
        if not file.name.endswith("-shm"):
            shutil.copy(file, copy)
    db = sqlite3.connect(f"{copy}/state.db")
    trouble = [row[0] for row in db.execute("PRAGMA integrity_check") if row[0] != "ok"]
    for what, query in WRONG.items():
        count = db.execute(query).fetchone()[0]
        if count:
            trouble.append(f"{count} {what}")
    print(db.execute("SELECT count(*) FROM session").fetchone()[0], "sessions")
    db.close()
sys.exit("\n".join(trouble) or 0)
