-- How often the guest of a VM was told to start slurmd, and when last.
ALTER TABLE vms ADD COLUMN starts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE vms ADD COLUMN last_start INTEGER NOT NULL DEFAULT 0;
