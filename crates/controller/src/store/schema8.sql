-- Which VMs jobs were on, also those of power saving: Slurm forgets it soon.
CREATE TABLE job_stays (
    id         INTEGER PRIMARY KEY,
    job        INTEGER NOT NULL,
    uid        INTEGER NOT NULL,
    node       TEXT NOT NULL,
    generation INTEGER NOT NULL,
    host       TEXT,
    began      INTEGER NOT NULL,
    ended      INTEGER,
    UNIQUE (job, node, generation)
) STRICT;
CREATE INDEX job_stays_vm ON job_stays (node, generation);
CREATE INDEX job_stays_open ON job_stays (job) WHERE ended IS NULL;

-- What VMs wrote on their consoles before their end.
CREATE TABLE last_words (
    node       TEXT NOT NULL,
    generation INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    badly      INTEGER NOT NULL,
    text       TEXT NOT NULL,
    PRIMARY KEY (node, generation)
) STRICT;
CREATE INDEX last_words_at ON last_words (badly, at);
