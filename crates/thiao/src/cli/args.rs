//! What can be typed.

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use thiao_api::JobNames;
use thiao_core::ids::{ClusterName, NodesetName, VmId};
use thiao_opennebula::settings::{Placement, TemplateSource};
use thiao_qemu::image::built::ImageName;

const EXIT_CODES: &str = "\
Exit codes:
  0  it worked (also when the reader of a pipe left early)
  1  it failed; the message says why and what you can do
  2  the command line makes no sense (unknown option, malformed hostlist)
  3  no controller answers: is thiaod running?

Environment:
  THIAO_CONFIG  the settings file, as --config
  THIAO_LOG     what `thiao serve` logs, e.g. debug or info,thiao_controller::api=debug
  NO_COLOR      no colours";

/// Slurm jobs in virtual machines of their own
#[derive(Debug, Parser)]
#[command(name = "thiao", version, after_help = EXIT_CODES, propagate_version = true, disable_help_subcommand = true)]
pub(super) struct Cli {
    /// The settings file [default: /etc/thiao/thiao.toml]
    #[arg(
        long,
        global = true,
        env = "THIAO_CONFIG",
        hide_env = true,
        value_name = "FILE"
    )]
    pub(super) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the controller, thiaod
    Serve,
    /// Show how the controller is doing
    Status(Show),
    /// Show nodes, with those of the same kind and state on one line
    Nodes(Nodes),
    /// Show VMs and how far they are
    Vms(Show),
    /// Show hosts and how full they are
    Hosts(Show),
    /// Show your jobs, or the VMs of one of them (root and the controller's user: of all users)
    Jobs(Jobs),
    /// Show what happened, oldest first
    Events(Events),
    /// Explain how a node, a VM or a job is doing, and what happened to it
    Explain {
        /// A node (fg0), a VM (fg0.3) or a job (17, tasks of an array 17_3, 17_[0-3], a part of a heterogeneous job 17+1)
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
        #[command(flatten)]
        how: Show,
    },
    /// Show what the controller would do next, and what is held back
    Plan(Show),
    /// Give nodes their VMs, as Slurm's ResumeProgram does (root and the controller's user)
    Resume {
        /// Which ones, e.g. fg[0-3]
        #[arg(value_name = "HOSTLIST")]
        nodes: String,
        /// Try at once, whatever failed before
        #[arg(short, long)]
        force: bool,
    },
    /// Take nodes' VMs away, as Slurm's SuspendProgram does (root and the controller's user)
    Suspend {
        /// Which ones, e.g. fg[0-3]
        #[arg(value_name = "HOSTLIST")]
        nodes: String,
        /// Even if jobs run there: they are lost
        #[arg(short, long)]
        force: bool,
    },
    /// Submit a job as sbatch does, with options for its own VMs (tsub for short)
    // Its words are sbatch's: they are taken before this parser sees them.
    #[command(disable_help_flag = true, disable_version_flag = true, long_about = super::submit::HELP, verbatim_doc_comment)]
    Submit {
        /// sbatch's options, --vm-..., the script and its arguments; or the id of a job that is already queued
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "WORD")]
        words: Vec<OsString>,
    },
    /// End the VMs that are left of a finished job of yours (root and the controller's user: of any job)
    Clean {
        /// Its id (17, a task of an array 17_3, several 17_[0-3])
        #[arg(value_name = "JOBID")]
        job: JobNames,
    },
    /// Show or check the settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Write the hooks' folder, the lines for slurm.conf, and the settings if there are none
    Setup(Box<Setup>),
    /// Check everything that has to be right, and say how to mend what is not
    Doctor(Doctor),
    /// Enter the VM of a job of yours that runs, or run a command there
    Ssh {
        /// The job (17, a task of an array 17_3, a part of a heterogeneous job 17+1), or a node of one
        #[arg(value_name = "JOB|NODE", value_parser = NonEmptyStringValueParser::new())]
        place: String,
        /// Which of the job's nodes; else its first
        #[arg(short = 'w', long, value_name = "NODE")]
        node: Option<String>,
        /// What to run there; else a login shell
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Enter a VM by its console, as root (root and the controller's user)
    Console {
        /// The VM, e.g. fg0.3
        #[arg(value_parser = vm_id)]
        vm: VmId,
    },
    /// Make, show and remove the images that VMs of provider "qemu" run
    Image(Image),
    /// Write Thiao's own guest for OpenNebula: kernel, initrd, VM template
    Guest(Guest),
    /// Expand, fold or count Slurm's hostlists
    #[command(subcommand)]
    Hostlist(Hostlist),
    /// Try the controller's decisions: in a simulated world where things go wrong, or on a log of jobs
    // What follows is the other program's, as with `lab`.
    #[command(disable_help_flag = true, disable_version_flag = true)]
    Sim(Words),
    /// Keep a private Slurm with VMs, for playing and tests
    #[command(disable_help_flag = true, disable_version_flag = true)]
    Lab(Words),
}

/// Words for another program of ours.
#[derive(Debug, Args)]
pub(super) struct Words {
    /// Its command and arguments; `--help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "WORD")]
    pub(super) words: Vec<OsString>,
}

/// How something is shown.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Show {
    /// Print JSON: times in milliseconds since the epoch, sizes in MiB
    #[arg(long)]
    pub(super) json: bool,
    /// Repeat every second, until Ctrl-C; with --json, print one line each time
    #[arg(short, long)]
    pub(super) watch: bool,
}

/// Which jobs, and how.
#[derive(Debug, Args)]
pub(super) struct Jobs {
    /// Show the VMs that were made for this job alone, and what they cost, even if it is over (17, a task of an array 17_3, several 17_[0-3], or an array for all its tasks)
    #[arg(value_name = "JOBID", conflicts_with_all = ["export", "since"])]
    pub(super) job: Option<JobNames>,
    /// Export all VMs that were made for single jobs, with times in milliseconds since the epoch
    #[arg(long, value_enum, value_name = "FORM", conflicts_with_all = ["json", "watch"])]
    pub(super) export: Option<ExportAs>,
    /// Show which VMs jobs were on since then, those that are over too; with --export, only VMs that still existed
    /// then: 2026-11-25, 2026-11-25T08:30, or 30m, 12h, 7d ago
    #[arg(long, value_name = "TIME", value_parser = super::time::typed)]
    pub(super) since: Option<u64>,
    #[command(flatten)]
    pub(super) how: Show,
}

/// In what form VMs are written.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum ExportAs {
    /// Comma-separated, with a header line
    Csv,
    /// One array of JSON objects
    Json,
}

/// Which nodes, and how.
#[derive(Debug, Args)]
pub(super) struct Nodes {
    /// Only these, e.g. fg[0-3,7]
    #[arg(value_name = "HOSTLIST")]
    pub(super) nodes: Option<String>,
    /// One line per node
    #[arg(short, long)]
    pub(super) long: bool,
    #[command(flatten)]
    pub(super) how: Show,
}

/// Which events, and how.
#[derive(Debug, Args)]
pub(super) struct Events {
    /// Only those about a node (fg0), a VM (fg0.3), a job (17, 17_3) or a part (slurm, provider, controller)
    pub(super) about: Option<String>,
    /// Show at most this many, the newest
    #[arg(short = 'n', long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(super) limit: u16,
    /// Keep showing new ones as they come, until Ctrl-C
    #[arg(short, long, visible_alias = "watch")]
    pub(super) follow: bool,
    /// Print JSON; with --follow, one line per event
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print all settings in effect, and where each came from
    Show,
    /// Check the settings file, and name everything that is wrong
    Check,
}

/// What `thiao setup` makes.
#[derive(Debug, Clone, Args)]
pub(super) struct Setup {
    /// The folder for Resume, Suspend and the other programs that slurm.conf names
    #[arg(long, value_name = "DIR", default_value = "/etc/thiao/hooks")]
    pub(super) hooks: PathBuf,
    /// The file for the lines that slurm.conf includes [default: thiao.conf beside slurm.conf]
    #[arg(long, value_name = "FILE")]
    pub(super) fragment: Option<PathBuf>,
    /// The thiao-hook program [default: beside this program, else /usr/lib/thiao/thiao-hook]
    #[arg(long, value_name = "FILE")]
    pub(super) hook_program: Option<PathBuf>,
    /// The Slurm release that reads it, e.g. 22.05 [default: what `scontrol --version` says]
    #[arg(long, value_name = "RELEASE")]
    pub(super) slurm_version: Option<String>,
    /// Which of the nodesets' partitions becomes the default, for jobs that name none
    #[arg(long, value_name = "PARTITION")]
    pub(super) default_partition: Option<String>,
    /// Seconds that a node may be idle before its VM is ended [default: 60]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(super) idle: Option<u32>,
    /// Replace what somebody else wrote there
    #[arg(long)]
    pub(super) force: bool,
    /// Only show what would be written; exit code 1 if it would be refused
    #[arg(short = 'n', long)]
    pub(super) dry_run: bool,
    /// Remove what setup wrote, and put the site's own job_submit.lua back, once slurm.conf and
    /// slurmctld no longer name it (or with --force)
    #[arg(long, conflicts_with_all = ["dry_run", "try_vm"])]
    pub(super) undo: bool,
    /// Also make VMs in OpenNebula as for jobs, held, and remove them at once
    #[arg(long = "try")]
    pub(super) try_vm: bool,
    #[command(flatten)]
    pub(super) place: Place,
    #[command(flatten)]
    pub(super) settings: NewSettings,
}

/// A place for the cluster in OpenNebula.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "A place for the cluster in OpenNebula")]
pub(super) struct Place {
    /// Make a user, a group, rights and a template there, by an administrator's credentials; the plan is shown
    /// first (with --dry-run as commands of OpenNebula's own tools)
    #[arg(long, group = "in_opennebula", conflicts_with_all = ["undo", "qemu", "import", "template_file", "template_dir"])]
    pub(super) create: bool,
    /// Take back what --create made
    #[arg(long, group = "in_opennebula", conflicts_with_all = ["undo", "qemu", "import"])]
    pub(super) remove: bool,
    /// Do it without asking
    #[arg(short, long, requires = "in_opennebula")]
    pub(super) yes: bool,
    /// Print the plan as JSON, and do nothing
    #[arg(long, requires = "in_opennebula")]
    pub(super) json: bool,
    /// The file with the administrator's user:password [default: $ONE_AUTH, else ~/.one/one_auth]
    #[arg(long, value_name = "FILE", requires = "in_opennebula")]
    pub(super) admin_auth: Option<PathBuf>,
    /// The service's user there [default: whom the file of --auth names, else thiao-CLUSTER]
    #[arg(long, value_name = "NAME", requires = "create")]
    pub(super) user: Option<String>,
    /// Its group [default: named as the user]
    #[arg(long, value_name = "NAME", requires = "create")]
    pub(super) group: Option<String>,
    /// A registered image with slurmd, by name or id: a template is made for it
    #[arg(long, value_name = "NAME", requires = "create", conflicts_with = "template")]
    pub(super) image: Option<String>,
    /// The folder of `thiao guest`, as the front-end sees it: Thiao's own guest is registered
    #[arg(long, value_name = "DIR", requires = "create", conflicts_with_all = ["template", "image"])]
    pub(super) guest: Option<PathBuf>,
    /// That folder is on every host: VMs start from it there, and nothing is copied for them
    #[arg(long, requires = "guest")]
    pub(super) on_hosts: bool,
}

/// What new settings are made of; with none of these and a settings file, that file holds.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "New settings (at a terminal, setup asks for those that are missing)")]
pub(super) struct NewSettings {
    /// OpenNebula makes the VMs
    #[arg(long, conflicts_with = "qemu")]
    pub(super) opennebula: bool,
    /// QEMU makes the VMs on this machine
    #[arg(long)]
    pub(super) qemu: bool,
    /// What runs in the VMs that QEMU makes: an image's name, a file with cloud-init, or small [default: debian]
    #[arg(long, value_name = "IMAGE", conflicts_with_all = ["opennebula", "import"])]
    pub(super) qemu_image: Option<String>,
    /// Take over the thiao.cfg of 2011 and its VM files
    #[arg(long, value_name = "FILE", conflicts_with = "qemu")]
    pub(super) import: Option<PathBuf>,
    /// The cluster's name [default: slurmctld's]
    #[arg(long, value_name = "NAME")]
    pub(super) cluster: Option<ClusterName>,
    /// Where the controller keeps its state [default: /var/lib/thiao]
    #[arg(long, value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,
    /// The nodes, e.g. fg[0-7]
    #[arg(long, value_name = "HOSTLIST")]
    pub(super) nodes: Option<String>,
    /// Their nodeset's name [default: the letters that they begin with]
    #[arg(long, value_name = "NAME")]
    pub(super) nodeset: Option<NodesetName>,
    /// CPUs of each node [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(super) cpus: Option<u32>,
    /// Memory of each node for its jobs, in MiB
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(16..=1 << 24))]
    pub(super) memory_mb: Option<u64>,
    /// The share of a core promised to each CPU, in percent [default: 100]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(super) share_percent: Option<u32>,
    /// Slurm's partition for them [default: vm]
    #[arg(long, value_name = "NAME")]
    pub(super) partition: Option<String>,
    /// The cluster's munge key; empty: guests have it already [default: as thiaod's service gets it]
    #[arg(long, value_name = "FILE")]
    pub(super) munge_key: Option<String>,
    /// Slurm's own key, where AuthType is auth/slurm [default: slurm.key beside slurm.conf]
    #[arg(long, value_name = "FILE", conflicts_with = "munge_key")]
    pub(super) slurm_key: Option<PathBuf>,
    /// The folder of Slurm's client programs, with the daemons in its sibling sbin [default: by PATH]
    #[arg(long, value_name = "DIR")]
    pub(super) slurm_bin_dir: Option<PathBuf>,
    /// slurm.conf, if Slurm's programs do not find it themselves
    #[arg(long, value_name = "FILE")]
    pub(super) slurm_conf: Option<PathBuf>,
    /// oned's URL [default: $ONE_XMLRPC, else http://localhost:2633/RPC2]
    #[arg(long, value_name = "URL", conflicts_with = "qemu")]
    pub(super) endpoint: Option<String>,
    /// The file with user:password or user:token [default: $ONE_AUTH, else ~/.one/one_auth; with --create: one_auth beside the settings]
    #[arg(long, value_name = "FILE", conflicts_with = "qemu")]
    pub(super) auth: Option<PathBuf>,
    /// Certificates to trust instead of the system's, PEM
    #[arg(long, value_name = "FILE", conflicts_with = "qemu")]
    pub(super) ca_file: Option<PathBuf>,
    /// OpenNebula's VM template, by name or id
    #[arg(long, value_name = "NAME", conflicts_with_all = ["qemu", "template_file", "template_dir"])]
    pub(super) template: Option<String>,
    /// A file with the VMs' template
    #[arg(long, value_name = "FILE", conflicts_with_all = ["qemu", "template_dir"])]
    pub(super) template_file: Option<PathBuf>,
    /// A folder with a file NODE.one for each node
    #[arg(long, value_name = "DIR", conflicts_with = "qemu")]
    pub(super) template_dir: Option<PathBuf>,
    /// The network for VMs whose template has no NIC, by name or id
    #[arg(long, value_name = "NAME", conflicts_with = "qemu")]
    pub(super) network: Option<String>,
    /// Who chooses hosts [default: thiao]
    #[arg(long, value_enum, conflicts_with = "qemu")]
    pub(super) placement: Option<PlacedBy>,
    /// What says that a guest is ready, before Slurm does [default: slurm]
    #[arg(long, value_enum, conflicts_with = "qemu")]
    pub(super) ready: Option<ReadyBy>,
    /// slurmctld's host name, as SlurmctldHost names it [default: what slurmctld says]
    #[arg(long, value_name = "NAME", conflicts_with = "qemu")]
    pub(super) slurmctld_host: Option<String>,
    /// The address at which VMs reach slurmctld [default: what slurmctld says]
    #[arg(long, value_name = "IPV4", conflicts_with = "qemu")]
    pub(super) slurmctld_addr: Option<Ipv4Addr>,
}

impl NewSettings {
    /// Whether any of them was typed.
    pub(super) fn are_given(&self) -> bool {
        self.opennebula
            || self.qemu
            || self.qemu_image.is_some()
            || self.import.is_some()
            || self.cluster.is_some()
            || self.state_dir.is_some()
            || self.nodes.is_some()
            || self.nodeset.is_some()
            || self.cpus.is_some()
            || self.memory_mb.is_some()
            || self.share_percent.is_some()
            || self.partition.is_some()
            || self.munge_key.is_some()
            || self.slurm_key.is_some()
            || self.slurm_bin_dir.is_some()
            || self.slurm_conf.is_some()
            || self.are_of_opennebula()
    }

    /// Whether any of them was typed, beside who makes the VMs.
    pub(super) fn are_given_beside_the_maker(&self) -> bool {
        let others = Self {
            opennebula: false,
            ..self.clone()
        };
        others.are_given()
    }

    /// Whether any of those was typed that only OpenNebula needs.
    pub(super) fn are_of_opennebula(&self) -> bool {
        self.endpoint.is_some()
            || self.auth.is_some()
            || self.ca_file.is_some()
            || self.source().is_some()
            || self.network.is_some()
            || self.placement.is_some()
            || self.ready.is_some()
            || self.slurmctld_host.is_some()
            || self.slurmctld_addr.is_some()
    }

    /// What VMs are made from, as it was typed.
    pub(super) fn source(&self) -> Option<TemplateSource> {
        let name = self.template.clone().map(TemplateSource::Registered);
        let file = self.template_file.clone().map(TemplateSource::File);
        name.or(file)
            .or_else(|| self.template_dir.clone().map(TemplateSource::PerNode))
    }
}

/// Who chooses the hosts of VMs.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum PlacedBy {
    /// Thiao does, by its plan
    Thiao,
    /// OpenNebula does, by its scheduler
    Opennebula,
}

impl PlacedBy {
    /// Its word in thiao.toml.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Thiao => "thiao",
            Self::Opennebula => "opennebula",
        }
    }
}

impl From<PlacedBy> for Placement {
    fn from(word: PlacedBy) -> Self {
        match word {
            PlacedBy::Thiao => Self::Thiao,
            PlacedBy::Opennebula => Self::OpenNebula,
        }
    }
}

/// What says that a guest is ready.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum ReadyBy {
    /// Its node registers with Slurm
    Slurm,
    /// It says READY=YES through OneGate
    Onegate,
}

impl ReadyBy {
    /// Its word in thiao.toml.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Slurm => "slurm",
            Self::Onegate => "onegate",
        }
    }
}

/// What `thiao doctor` looks at, and how it is shown.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// Print JSON, for other programs
    #[arg(long)]
    pub(super) json: bool,
    /// Also make VMs in OpenNebula as for jobs, held, and remove them at once
    #[arg(long = "try")]
    pub(super) try_vm: bool,
    /// The hooks' folder, if slurm.conf names none
    #[arg(long, value_name = "DIR", default_value = "/etc/thiao/hooks")]
    pub(super) hooks: PathBuf,
}

/// Images of an ordinary Debian, for VMs.
#[derive(Debug, Args)]
pub(super) struct Image {
    /// Where images are kept [default: qemu.cache_dir of the settings]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) cache_dir: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) command: ImageCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum ImageCommand {
    /// Make an image: systemd, Slurm's daemon, munge, and the packages that you list
    Build {
        /// Its name, as thiao.toml will have it
        name: ImageName,
        #[command(flatten)]
        recipe: ImageRecipe,
    },
    /// Make one anew, with today's versions of its packages, or with others
    Rebuild {
        /// The name of the image
        name: ImageName,
        #[command(flatten)]
        recipe: ImageRecipe,
    },
    /// Show the images that are there
    List {
        /// Print JSON: sizes in MiB, times in seconds since the epoch
        #[arg(long)]
        json: bool,
    },
    /// Show what is in an image
    Show {
        /// The name of the image
        name: ImageName,
        /// Print JSON: sizes in MiB, times in seconds since the epoch
        #[arg(long)]
        json: bool,
    },
    /// Start an image of your own once, and say what VMs of it would lack
    Check {
        /// A disk with cloud-init, raw or qcow2
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// How long it may take to answer, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(10..=3600))]
        limit: u64,
    },
    /// Remove an image; VMs that run it stay
    Remove {
        /// The name of the image
        name: ImageName,
        /// Remove it though thiao.toml names it, or cannot be read
        #[arg(long)]
        force: bool,
    },
}

/// What an image is made from.
#[derive(Debug, Args)]
pub(super) struct ImageRecipe {
    /// The release of Debian, e.g. bookworm [default: this machine's]
    #[arg(long, value_name = "NAME")]
    pub(super) suite: Option<String>,
    /// Packages beside what every image has, e.g. gcc,openmpi-bin [default: python3].
    /// May be given again
    #[arg(long, short, value_delimiter = ',', value_name = "NAME,...")]
    pub(super) packages: Vec<String>,
    /// What VMs may write to its disk, beside /tmp, in MiB [default: 2048]
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u64).range(64..=1 << 20))]
    pub(super) free_mb: Option<u64>,
}

/// What `thiao guest` writes, and of what.
#[derive(Debug, Args)]
pub(super) struct Guest {
    /// The folder for vmlinuz, initrd and thiao-guest.one
    #[arg(value_name = "DIR")]
    pub(super) dir: PathBuf,
    /// Where kernels and images are kept
    #[arg(long, value_name = "DIR", default_value = "/var/cache/thiao")]
    pub(super) cache_dir: PathBuf,
    /// The guests' first program [default: thiao-guest beside this program, else in /usr/lib/thiao]
    #[arg(long, value_name = "FILE")]
    pub(super) agent: Option<PathBuf>,
    /// A site's own authority, PEM, that guests trust beside those of this machine: for OneGate
    /// by https. May be given again
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Vec<PathBuf>,
    /// Replace files that are there and differ
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Hostlist {
    /// Print the names, one per line, in Slurm's order
    Expand {
        /// One or more, e.g. fg[0-3,7],vm[001-010]
        #[arg(required = true, value_name = "EXPR")]
        lists: Vec<String>,
    },
    /// Print the shortest list of the same names: sorted, each once
    Fold {
        /// Names, or hostlists of names
        #[arg(required = true, value_name = "EXPR")]
        lists: Vec<String>,
    },
    /// Print how many names there are
    Count {
        /// One or more, e.g. fg[0-3,7],vm[001-010]
        #[arg(required = true, value_name = "EXPR")]
        lists: Vec<String>,
    },
}

fn vm_id(text: &str) -> Result<VmId, String> {
    VmId::new(text).map_err(|error| error.to_string())
}
