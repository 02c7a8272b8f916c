-- Tables of stateless translation.

CREATE TABLE eamt (
    instance INTEGER NOT NULL REFERENCES instance ON DELETE CASCADE,
    v4_addr  INTEGER NOT NULL,
    v4_len   INTEGER NOT NULL,
    v6_addr  BLOB    NOT NULL,
    v6_len   INTEGER NOT NULL,
    PRIMARY KEY (instance, v4_addr, v4_len)
) STRICT, WITHOUT ROWID;

CREATE TABLE denylist4 (
    instance INTEGER NOT NULL REFERENCES instance ON DELETE CASCADE,
    position INTEGER NOT NULL,          -- the order in which they were added
    addr     INTEGER NOT NULL,
    len      INTEGER NOT NULL,
    PRIMARY KEY (instance, position)
) STRICT, WITHOUT ROWID;
