//! The states of a VM, and where each of them leads.

/// STATE, with LCM_STATE where it is ACTIVE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Waits for the scheduler or a deploy.
    Pending,
    /// Waits for a release or a deploy.
    Hold,
    /// On a host, and how far it is there.
    Active(Lcm),
    /// Saved, off its host.
    Stopped,
    /// Saved, on its host.
    Suspended,
    Done,
    /// Off, on its host.
    Poweroff,
    /// Off, off its host.
    Undeployed,
}

/// LCM_STATE. What has no words here is named as in OpenNebula's own documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lcm {
    Prolog,
    Boot,
    Running,
    Migrate,
    SaveStop,
    SaveSuspend,
    SaveMigrate,
    PrologMigrate,
    PrologResume,
    EpilogStop,
    Epilog,
    Shutdown,
    CleanupResubmit,
    Unknown,
    ShutdownPoweroff,
    BootPoweroff,
    BootSuspended,
    BootStopped,
    CleanupDelete,
    ShutdownUndeploy,
    EpilogUndeploy,
    PrologUndeploy,
    BootUndeploy,
    BootMigrate,
    PrologMigratePoweroff,
    PrologMigrateSuspend,
    Hotplug,
    HotplugNic,
    HotplugResize,
    BootFailure,
    PrologFailure,
    EpilogFailure,
}

/// What a driver is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Copying images to the host.
    Prolog,
    Boot,
    /// Moving it while it runs.
    Migrate,
    /// Writing its memory to a disk.
    Save,
    /// Ending the guest, softly or not.
    Shutdown,
    /// Removing what it left on the host.
    Epilog,
    /// Removing everything at once.
    Cleanup,
    /// Changing a machine that runs.
    Hotplug,
}

impl State {
    /// STATE as a number.
    pub fn number(self) -> i32 {
        match self {
            State::Pending => 1,
            State::Hold => 2,
            State::Active(_) => 3,
            State::Stopped => 4,
            State::Suspended => 5,
            State::Done => 6,
            State::Poweroff => 8,
            State::Undeployed => 9,
        }
    }

    /// LCM_STATE as a number; 0 where it is not ACTIVE.
    pub fn lcm_number(self) -> i32 {
        match self {
            State::Active(lcm) => lcm.number(),
            State::Pending
            | State::Hold
            | State::Stopped
            | State::Suspended
            | State::Done
            | State::Poweroff
            | State::Undeployed => 0,
        }
    }

    /// STATE and LCM_STATE as numbers.
    pub fn numbers(self) -> (i32, i32) {
        (self.number(), self.lcm_number())
    }

    /// The name in oned's messages.
    pub fn name(self) -> &'static str {
        match self {
            State::Pending => "PENDING",
            State::Hold => "HOLD",
            State::Active(lcm) => lcm.name(),
            State::Stopped => "STOPPED",
            State::Suspended => "SUSPENDED",
            State::Done => "DONE",
            State::Poweroff => "POWEROFF",
            State::Undeployed => "UNDEPLOYED",
        }
    }

    /// Whether the VM counts on its host.
    pub fn on_host(self) -> bool {
        match self {
            // A clean-up begins with giving the place away (`clean_up_vm` of 7.4).
            State::Active(Lcm::CleanupDelete | Lcm::CleanupResubmit) => false,
            State::Active(_) | State::Suspended | State::Poweroff => true,
            State::Pending | State::Hold | State::Stopped | State::Done | State::Undeployed => false,
        }
    }
}

impl Lcm {
    /// LCM_STATE as a number.
    pub fn number(self) -> i32 {
        match self {
            Lcm::Prolog => 1,
            Lcm::Boot => 2,
            Lcm::Running => 3,
            Lcm::Migrate => 4,
            Lcm::SaveStop => 5,
            Lcm::SaveSuspend => 6,
            Lcm::SaveMigrate => 7,
            Lcm::PrologMigrate => 8,
            Lcm::PrologResume => 9,
            Lcm::EpilogStop => 10,
            Lcm::Epilog => 11,
            Lcm::Shutdown => 12,
            Lcm::CleanupResubmit => 15,
            Lcm::Unknown => 16,
            Lcm::ShutdownPoweroff => 18,
            Lcm::BootPoweroff => 20,
            Lcm::BootSuspended => 21,
            Lcm::BootStopped => 22,
            Lcm::CleanupDelete => 23,
            Lcm::ShutdownUndeploy => 29,
            Lcm::EpilogUndeploy => 30,
            Lcm::PrologUndeploy => 31,
            Lcm::BootUndeploy => 32,
            Lcm::BootMigrate => 35,
            Lcm::PrologMigratePoweroff => 43,
            Lcm::PrologMigrateSuspend => 45,
            Lcm::Hotplug => 17,
            Lcm::HotplugNic => 25,
            Lcm::HotplugResize => 66,
            Lcm::BootFailure => 36,
            Lcm::PrologFailure => 39,
            Lcm::EpilogFailure => 40,
        }
    }

    /// The name in oned's messages.
    pub fn name(self) -> &'static str {
        match self {
            Lcm::Prolog => "PROLOG",
            Lcm::Boot => "BOOT",
            Lcm::Running => "RUNNING",
            Lcm::Migrate => "MIGRATE",
            Lcm::SaveStop => "SAVE_STOP",
            Lcm::SaveSuspend => "SAVE_SUSPEND",
            Lcm::SaveMigrate => "SAVE_MIGRATE",
            Lcm::PrologMigrate => "PROLOG_MIGRATE",
            Lcm::PrologResume => "PROLOG_RESUME",
            Lcm::EpilogStop => "EPILOG_STOP",
            Lcm::Epilog => "EPILOG",
            Lcm::Shutdown => "SHUTDOWN",
            Lcm::CleanupResubmit => "CLEANUP_RESUBMIT",
            Lcm::Unknown => "UNKNOWN",
            Lcm::ShutdownPoweroff => "SHUTDOWN_POWEROFF",
            Lcm::BootPoweroff => "BOOT_POWEROFF",
            Lcm::BootSuspended => "BOOT_SUSPENDED",
            Lcm::BootStopped => "BOOT_STOPPED",
            Lcm::CleanupDelete => "CLEANUP_DELETE",
            Lcm::ShutdownUndeploy => "SHUTDOWN_UNDEPLOY",
            Lcm::EpilogUndeploy => "EPILOG_UNDEPLOY",
            Lcm::PrologUndeploy => "PROLOG_UNDEPLOY",
            Lcm::BootUndeploy => "BOOT_UNDEPLOY",
            Lcm::BootMigrate => "BOOT_MIGRATE",
            Lcm::PrologMigratePoweroff => "PROLOG_MIGRATE_POWEROFF",
            Lcm::PrologMigrateSuspend => "PROLOG_MIGRATE_SUSPEND",
            Lcm::Hotplug => "HOTPLUG",
            Lcm::HotplugNic => "HOTPLUG_NIC",
            Lcm::HotplugResize => "HOTPLUG_RESIZE",
            Lcm::BootFailure => "BOOT_FAILURE",
            Lcm::PrologFailure => "PROLOG_FAILURE",
            Lcm::EpilogFailure => "EPILOG_FAILURE",
        }
    }

    /// Whether what boots here is what was saved before.
    pub fn restores(self) -> bool {
        matches!(self, Lcm::BootSuspended | Lcm::BootStopped | Lcm::BootMigrate)
    }

    /// What the driver does in this state, and the state after its success, its failure, or
    /// none where it is busy with nothing.
    pub fn work(self) -> Option<(Phase, State, State)> {
        let active = State::Active;
        Some(match self {
            Lcm::Prolog => (Phase::Prolog, active(Lcm::Boot), active(Lcm::PrologFailure)),
            Lcm::Boot => (Phase::Boot, active(Lcm::Running), active(Lcm::BootFailure)),
            Lcm::Migrate => (Phase::Migrate, active(Lcm::Running), active(Lcm::Running)),
            Lcm::SaveStop => (Phase::Save, active(Lcm::EpilogStop), active(Lcm::Running)),
            Lcm::SaveSuspend => (Phase::Save, State::Suspended, active(Lcm::Running)),
            Lcm::SaveMigrate => (Phase::Save, active(Lcm::PrologMigrate), active(Lcm::Running)),
            Lcm::PrologMigrate => (
                Phase::Prolog,
                active(Lcm::BootMigrate),
                active(Lcm::PrologFailure),
            ),
            Lcm::PrologResume => (
                Phase::Prolog,
                active(Lcm::BootStopped),
                active(Lcm::PrologFailure),
            ),
            Lcm::EpilogStop => (Phase::Epilog, State::Stopped, active(Lcm::EpilogFailure)),
            Lcm::Epilog => (Phase::Epilog, State::Done, active(Lcm::EpilogFailure)),
            Lcm::Shutdown => (Phase::Shutdown, active(Lcm::Epilog), active(Lcm::Running)),
            Lcm::CleanupResubmit => (Phase::Cleanup, State::Pending, State::Pending),
            Lcm::ShutdownPoweroff => (Phase::Shutdown, State::Poweroff, active(Lcm::Running)),
            Lcm::BootPoweroff => (Phase::Boot, active(Lcm::Running), State::Poweroff),
            Lcm::BootSuspended => (Phase::Boot, active(Lcm::Running), State::Suspended),
            Lcm::BootStopped => (Phase::Boot, active(Lcm::Running), active(Lcm::BootFailure)),
            Lcm::CleanupDelete => (Phase::Cleanup, State::Done, State::Done),
            Lcm::ShutdownUndeploy => (Phase::Shutdown, active(Lcm::EpilogUndeploy), active(Lcm::Running)),
            Lcm::EpilogUndeploy => (Phase::Epilog, State::Undeployed, active(Lcm::EpilogFailure)),
            Lcm::PrologUndeploy => (
                Phase::Prolog,
                active(Lcm::BootUndeploy),
                active(Lcm::PrologFailure),
            ),
            Lcm::BootUndeploy => (Phase::Boot, active(Lcm::Running), active(Lcm::BootFailure)),
            Lcm::BootMigrate => (Phase::Boot, active(Lcm::Running), active(Lcm::BootFailure)),
            Lcm::PrologMigratePoweroff => (Phase::Prolog, State::Poweroff, active(Lcm::PrologFailure)),
            Lcm::PrologMigrateSuspend => (Phase::Prolog, State::Suspended, active(Lcm::PrologFailure)),
            Lcm::Hotplug | Lcm::HotplugNic | Lcm::HotplugResize => {
                (Phase::Hotplug, active(Lcm::Running), active(Lcm::Running))
            }
            Lcm::Running | Lcm::Unknown | Lcm::BootFailure | Lcm::PrologFailure | Lcm::EpilogFailure => {
                return None;
            }
        })
    }
}
