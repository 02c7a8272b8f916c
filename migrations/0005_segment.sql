-- How much data a TCP segment of a session may have; 0 if unknown.

ALTER TABLE session ADD COLUMN segment INTEGER NOT NULL DEFAULT 0;
