//! The users' folders, served to the guests over NFS.
