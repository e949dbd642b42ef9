-- Which task of which array a job was: Slurm forgets it soon, people name it so.
CREATE TABLE job_tasks (
    job   INTEGER PRIMARY KEY,
    array INTEGER NOT NULL,
    task  INTEGER NOT NULL,
    seen  INTEGER NOT NULL
) STRICT;
CREATE INDEX job_tasks_name ON job_tasks (array, task);
