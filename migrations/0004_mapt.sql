-- Forwarding mapping rules of MAP-T.

CREATE TABLE fmrt (
    instance    INTEGER NOT NULL REFERENCES instance ON DELETE CASCADE,
    v6_addr     BLOB    NOT NULL,
    v6_len      INTEGER NOT NULL,
    v4_addr     INTEGER NOT NULL,
    v4_len      INTEGER NOT NULL,
    ea_bits     INTEGER NOT NULL,
    psid_offset INTEGER NOT NULL,
    PRIMARY KEY (instance, v6_addr, v6_len)
) STRICT, WITHOUT ROWID;
