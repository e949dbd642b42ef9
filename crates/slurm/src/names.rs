//! What Slurm calls that which is Thiao's: its programs, licence and resources, and its words in keys that others
//! have words in, too.

use crate::quirks::Quirks;

/// The hooks that Slurm calls, by `slurm.conf` key and program name in the hooks' folder.
pub const HOOKS: &[(&str, &str)] = &[
    ("ResumeProgram", "Resume"),
    ("SuspendProgram", "Suspend"),
    ("ResumeFailProgram", "ResumeFail"),
    ("PrologSlurmctld", "PrologSlurmctld"),
    ("EpilogSlurmctld", "EpilogSlurmctld"),
];

/// The licence of which none is ever free.
pub const GATE: &str = "vm_room";
/// The reservation that holds it.
pub const RESERVATION: &str = "thiao-room";
/// The generic resource of which each node of job mode has one, and each job asks for one per node.
pub const VM: &str = "vm";
/// The generic resource for devices.
pub const GPU: &str = "gpu";
/// What stands for a device in a guest, without its number: slurmd counts GPUs by files that are there
/// (22.05.8: it forgets those of `gres.conf` without `File=`, `Flags=CountOnly` or not).
pub const GPU_FILE: &str = "/dev/thiao-gpu";

/// The key of [`crate::conf::SCHEDULER_PARAMETERS`].
pub(crate) const SCHEDULER: &str = "SchedulerParameters";
/// Our word of `SlurmdParameters`.
pub(crate) const OVERRIDES: &str = "config_overrides";
/// Our word of `JobSubmitPlugins`.
pub(crate) const LUA: &str = "lua";
/// Our word of `PrivateData`.
pub(crate) const CLOUD: &str = "cloud";
/// Our word of `SlurmctldParameters` where it is not the default.
pub(crate) const REG_ADDRS: &str = "cloud_reg_addrs";

/// `SlurmctldParameters` of nodes that come and go: slurmd fetches its configuration, brings its own
/// address, and slurmctld looks after its power-save work each second (default 10).
///
/// `idle_on_node_suspend` is left out on purpose: with it a node that we set DOWN comes back as soon as it
/// is powered down, and not when it can be backed again (measured on 22.05.8).
pub(crate) fn slurmctld_parameters(quirks: Quirks) -> Vec<&'static str> {
    let mut words = vec![
        "enable_configless",
        "power_save_interval=1",
        "power_save_min_interval=0",
    ];
    words.extend(quirks.reg_addrs.then_some(REG_ADDRS));
    words
}
