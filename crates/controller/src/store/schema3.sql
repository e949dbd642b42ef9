-- What a VM is; NULL of one that was found, and whose making nobody knows.
ALTER TABLE vms ADD COLUMN cpus INTEGER;
ALTER TABLE vms ADD COLUMN memory_mb INTEGER;
ALTER TABLE vms ADD COLUMN share_percent INTEGER;
ALTER TABLE vms ADD COLUMN gpus INTEGER;
ALTER TABLE vms ADD COLUMN job INTEGER;
ALTER TABLE vms ADD COLUMN options TEXT;
-- Until when it stays though its job has failed.
ALTER TABLE vms ADD COLUMN kept INTEGER;

-- The VMs that were made for one job each, also when they are gone. The id is for
-- those who read in pages.
CREATE TABLE job_vms (
    id            INTEGER PRIMARY KEY,
    job           INTEGER NOT NULL,
    uid           INTEGER,
    node          TEXT NOT NULL,
    generation    INTEGER NOT NULL,
    host          TEXT,
    cpus          INTEGER NOT NULL,
    memory_mb     INTEGER NOT NULL,
    share_percent INTEGER NOT NULL,
    gpus          INTEGER NOT NULL,
    asked         INTEGER NOT NULL,
    started       INTEGER,
    ready         INTEGER,
    up            INTEGER,
    ended         INTEGER,
    UNIQUE (job, node, generation)
) STRICT;
CREATE INDEX job_vms_ended ON job_vms (ended);
