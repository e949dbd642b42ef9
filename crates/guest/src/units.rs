//! What is added to the units of munge and slurmd in VMs with a whole system, whoever starts them there.

/// Of munge: munged says on the console what it refuses, and why; by itself it says that to a file of its own,
/// which ends with the VM. When memory is full, jobs have to give way.
pub const MUNGE_SERVICE: &str = "[Service]\n\
    Type=simple\n\
    PIDFile=\n\
    ExecStart=\n\
    ExecStart=/usr/sbin/munged --foreground $OPTIONS\n\
    OOMScoreAdjust=-1000\n\
    StandardOutput=journal+console\n\
    StandardError=journal+console\n";

/// Of slurmd, in its section `[Service]`: what is true of it in all VMs. slurmstepd gives jobs' processes the ordinary
/// place among those that may be killed when memory is full (22.05).
pub const SLURMD_SERVICE: &str = "Delegate=yes\n\
    OOMScoreAdjust=-1000\n\
    StandardOutput=journal+console\n\
    StandardError=journal+console\n";
