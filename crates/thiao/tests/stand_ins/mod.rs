//! What stands in for a site in tests of the commands: files and programs that the
//! test writes, and a front-end of OpenNebula.

#![allow(dead_code, reason = "no test needs all of it")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use thiao_oned::{HostSetup, NetworkSetup, Oned, Settings, TemplateSetup, UserSetup};

/// The hooks that Slurm calls: their keys in `slurm.conf` and their names.
pub const HOOKS: [(&str, &str); 5] = [
    ("ResumeProgram", "Resume"),
    ("SuspendProgram", "Suspend"),
    ("ResumeFailProgram", "ResumeFail"),
    ("PrologSlurmctld", "PrologSlurmctld"),
    ("EpilogSlurmctld", "EpilogSlurmctld"),
];

/// Writes a file; a program has the mode 0755.
pub fn write(path: &Path, text: &str, mode: u32) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// A front-end with a template `worker`, a network `vms` of 16 addresses and a host that four VMs fit on.
pub fn front_end(users: Vec<UserSetup>) -> Oned {
    Oned::start(Settings {
        users,
        hosts: vec![HostSetup {
            name: "h1".into(),
            cpu_percent: 400,
            memory_mb: 8_000,
            cluster: Default::default(),
        }],
        networks: vec![NetworkSetup {
            name: "vms".into(),
            first: "10.0.0.10".parse().unwrap(),
            size: 16,
            // Its hosts keep VMs to their security groups.
            template: [
                ("VN_MAD", "fw"),
                ("FILTER_IP_SPOOFING", "YES"),
                ("FILTER_MAC_SPOOFING", "YES"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
            public: true,
            clusters: vec![0],
        }],
        templates: vec![TemplateSetup {
            name: "worker".into(),
            body: "CPU=\"1\"\nMEMORY=\"512\"\nNIC=[NETWORK=\"vms\"]\n".into(),
            public: true,
        }],
        ..Settings::default()
    })
    .unwrap()
}

/// Who may do everything, with the password that is typed in these tests.
pub fn oneadmin() -> Vec<UserSetup> {
    vec![UserSetup::new("oneadmin", "opennebula")]
}
