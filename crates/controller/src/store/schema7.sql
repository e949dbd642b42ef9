-- Whose job a VM is for, and the leader of a heterogeneous job that it is a part of.
ALTER TABLE vms ADD COLUMN uid INTEGER;
ALTER TABLE vms ADD COLUMN leader INTEGER;
