CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- VMs that are known already are of the only provider that there was.
INSERT INTO meta (key, value) SELECT 'provider', 'qemu' WHERE EXISTS (SELECT 1 FROM vms);
