-- IPv4 addresses are integers, IPv6 addresses blobs of 16 bytes, points in time milliseconds
-- since 1970 by the wall clock. Protocols: 0 TCP, 1 UDP, 2 ICMP.

CREATE TABLE instance (
    id        INTEGER PRIMARY KEY,
    flavour   TEXT    NOT NULL,
    name      TEXT    NOT NULL,
    framework TEXT    NOT NULL,
    slot      INTEGER NOT NULL UNIQUE,  -- which queue numbers it has
    settings  TEXT    NOT NULL,         -- JSON
    UNIQUE (flavour, name)
) STRICT;

CREATE TABLE pool4_set (
    instance       INTEGER NOT NULL REFERENCES instance ON DELETE CASCADE,
    protocol       INTEGER NOT NULL,
    mark           INTEGER NOT NULL,
    max_iterations INTEGER,             -- NULL: auto, 0: unlimited
    PRIMARY KEY (instance, protocol, mark)
) STRICT, WITHOUT ROWID;

CREATE TABLE pool4_range (
    instance   INTEGER NOT NULL REFERENCES instance ON DELETE CASCADE,
    protocol   INTEGER NOT NULL,
    mark       INTEGER NOT NULL,
    first_addr INTEGER NOT NULL,
    last_addr  INTEGER NOT NULL,
    min_port   INTEGER NOT NULL,
    max_port   INTEGER NOT NULL,
    PRIMARY KEY (instance, protocol, mark, first_addr, min_port)
) STRICT, WITHOUT ROWID;

CREATE TABLE bib (
    instance  INTEGER NOT NULL REFERENCES instance ON DELETE CASCADE,
    protocol  INTEGER NOT NULL,
    v4_addr   INTEGER NOT NULL,
    v4_port   INTEGER NOT NULL,
    v6_addr   BLOB    NOT NULL,
    v6_port   INTEGER NOT NULL,
    is_static INTEGER NOT NULL,
    PRIMARY KEY (instance, protocol, v4_addr, v4_port)
) STRICT, WITHOUT ROWID;

CREATE TABLE session (
    instance    INTEGER NOT NULL REFERENCES instance ON DELETE CASCADE,
    protocol    INTEGER NOT NULL,
    v4_addr     INTEGER NOT NULL,       -- the mapping's
    v4_port     INTEGER NOT NULL,
    remote_addr INTEGER NOT NULL,
    remote_port INTEGER NOT NULL,
    state       INTEGER NOT NULL,       -- TCP: position in RFC 6146's list of states
    lifetime    INTEGER NOT NULL,       -- which timeout it is on
    expires     INTEGER NOT NULL,
    PRIMARY KEY (instance, protocol, v4_addr, v4_port, remote_addr, remote_port)
) STRICT, WITHOUT ROWID;
