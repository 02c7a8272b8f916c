-- Who had which IPv4 transport address: since when in the table of mappings, and what was before.

ALTER TABLE bib ADD COLUMN began INTEGER;                 -- NULL: that was not recorded
ALTER TABLE bib ADD COLUMN doubt INTEGER NOT NULL DEFAULT 0;

-- Instances whose mappings are recorded.
CREATE TABLE recording (
    instance INTEGER PRIMARY KEY REFERENCES instance ON DELETE CASCADE,
    since    INTEGER NOT NULL
) STRICT;

-- Mappings that are gone. Not tied to the instances: what belongs to none goes in portions.
CREATE TABLE history (
    protocol INTEGER NOT NULL,
    v4_addr  INTEGER NOT NULL,
    v4_port  INTEGER NOT NULL,
    began    INTEGER NOT NULL,
    ended    INTEGER NOT NULL,
    instance INTEGER NOT NULL,
    v6_addr  BLOB    NOT NULL,
    v6_port  INTEGER NOT NULL,
    doubt    INTEGER NOT NULL,          -- 1: began then or before, 2: ended then or before
    PRIMARY KEY (protocol, v4_addr, v4_port, began)
) STRICT, WITHOUT ROWID;

CREATE INDEX history_age ON history (instance, ended);
