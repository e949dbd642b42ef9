CREATE TABLE intents (
    name  TEXT PRIMARY KEY,
    kind  TEXT NOT NULL,
    nodes TEXT NOT NULL,
    at    INTEGER NOT NULL,
    uid   INTEGER NOT NULL,
    taken INTEGER NOT NULL
) STRICT;

CREATE TABLE nodes (
    name       TEXT PRIMARY KEY,
    wish       TEXT NOT NULL,
    wish_since INTEGER,
    generation INTEGER NOT NULL,
    failures   INTEGER NOT NULL,
    retry_at   INTEGER,
    avoid      TEXT NOT NULL,
    last       TEXT NOT NULL,
    told       INTEGER NOT NULL,
    down       TEXT,
    jobs       TEXT NOT NULL
) STRICT;

CREATE TABLE vms (
    node          TEXT PRIMARY KEY REFERENCES nodes (name),
    generation    INTEGER NOT NULL,
    id            TEXT,
    host          TEXT,
    phase         TEXT NOT NULL,
    detail        TEXT NOT NULL,
    asked         INTEGER NOT NULL,
    since         INTEGER NOT NULL,
    missing_since INTEGER
) STRICT;

CREATE TABLE actions (
    id      INTEGER PRIMARY KEY,
    begun   INTEGER NOT NULL,
    ended   INTEGER,
    subject TEXT NOT NULL,
    what    TEXT NOT NULL,
    why     TEXT NOT NULL,
    outcome TEXT
) STRICT;
CREATE INDEX actions_open ON actions (id) WHERE ended IS NULL;

CREATE TABLE events (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    subject TEXT NOT NULL,
    kind    TEXT NOT NULL,
    message TEXT NOT NULL,
    uid     INTEGER
) STRICT;
CREATE INDEX events_subject ON events (subject, id);
