//! What may go wrong, and how often.

/// Declares the faults with a doc line each, and the functions over all of them.
macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// How often each thing goes wrong, per mille of its occasions.
        #[derive(Debug, Clone, PartialEq, Eq, Default)]
        pub struct Faults { $($(#[$doc])* pub $name: u16,)* }

        impl Faults {
            /// How many kinds there are.
            pub const KINDS: usize = [$(stringify!($name)),*].len();

            /// From one number per kind, in the order of the fields.
            #[must_use]
            pub fn from_rates(rates: [u16; Self::KINDS]) -> Self {
                let [$($name),*] = rates;
                Self { $($name),* }
            }
        }
    };
}

faults! {
    /// A creation fails, and says so.
    create_fails,
    /// A creation succeeds, and its answer is lost.
    create_unanswered,
    /// A creation makes a VM that is held back, and nothing is heard of it.
    create_held,
    /// An earlier try of a creation takes effect, too: a held VM of the same tag.
    create_twice,
    /// A VM takes long to end, or for ever until that is asked hard.
    ends_slowly,
    /// An end, or an order to Slurm, fails without effect.
    act_fails,
    /// An end, or an order to Slurm, takes effect and its answer is lost.
    act_unanswered,
    /// A VM never registers.
    never_registers,
    /// A VM dies while it boots.
    dies_booting,
    /// A VM dies some time later.
    dies_later,
    /// A VM's guest hangs some time later: it is shown as before, and its slurmd is dead.
    hangs_later,
    /// A listing of VMs fails.
    list_fails,
    /// A listing leaves a VM out, once.
    list_omits,
    /// A listing shows what was some seconds ago.
    list_stale,
    /// A listing shows a VM in a state that we do not know.
    list_unknown,
    /// A look at Slurm fails.
    look_fails,
    /// A look at Slurm takes long.
    look_slow,
    /// A look at Slurm shows a node or job in a word that we do not know.
    look_unknown,
    /// A hook writes its order late.
    hook_late,
    /// The controller is killed, per round.
    killed,
    /// slurmctld restarts. This and those below: per five seconds.
    slurmctld_restarts,
    /// A host stops taking VMs for a while.
    host_unusable,
    /// The provider shows a VM to nobody for up to a minute.
    vm_hidden,
    /// Somebody starts a VM of no cluster, or of another one.
    foreign_vm,
    /// Somebody copies a VM of ours, tag and all, with a number that we did not give.
    twin_vm,
    /// A person calls `Suspend` for a node.
    suspend_by_hand,
    /// A person calls `Resume` for a node.
    resume_by_hand,
    /// An admin drains a node for a while.
    admin_drains,
    /// An admin sets a node DOWN for a while.
    admin_downs,
    /// A node is missing from Slurm for a while, as after an edit of `slurm.conf`.
    node_unknown,
}

impl Faults {
    /// A world in which nothing goes wrong.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }
}
