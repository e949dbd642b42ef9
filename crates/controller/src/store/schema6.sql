-- A VM's one phase becomes two axes: its life at the provider, and its registration with Slurm.
ALTER TABLE vms ADD COLUMN life TEXT NOT NULL DEFAULT 'asked';
ALTER TABLE vms ADD COLUMN registration TEXT NOT NULL DEFAULT 'not-yet';

UPDATE vms SET
    life = CASE phase
        WHEN 'ready' THEN 'running'
        WHEN 'up' THEN 'running'
        WHEN 'failed' THEN 'dead'
        WHEN 'stopping' THEN 'ending'
        ELSE phase
    END,
    registration = CASE
        WHEN phase = 'ready' THEN 'guest-ready'
        WHEN phase = 'up' THEN 'registered'
        WHEN json_extract(detail, '$.was_up') THEN 'registered'
        ELSE 'not-yet'
    END;

ALTER TABLE vms DROP COLUMN phase;

ALTER TABLE nodes RENAME COLUMN wish TO desired;
ALTER TABLE nodes RENAME COLUMN wish_since TO desired_since;

UPDATE events SET kind = 'observation-failed' WHERE kind = 'look-failed';
UPDATE events SET kind = 'observation-ok' WHERE kind = 'look-ok';
UPDATE events SET kind = 'job-admitted' WHERE kind = 'job-let-go';
UPDATE events SET kind = 'node-ends-with-job' WHERE kind = 'own-node';
