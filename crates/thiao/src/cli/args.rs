//! What can be typed.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

const EXIT_CODES: &str = "\
Exit codes:
  0  it worked (also when the reader of a pipe left early)
  1  it did not; the message says why and what can be done
  2  what was typed makes no sense (unknown option, malformed hostlist)
  3  no controller answers: is thiaod running?

Environment:
  THIAO_CONFIG  the settings file, as --config
  THIAO_LOG     what `thiao serve` logs, e.g. debug or info,thiao::api=debug
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
    /// Run the controller (also: the program called as thiaod)
    Serve,
    /// Show how the controller is doing
    Status(Look),
    /// Show nodes, those of the same kind and state on one line
    Nodes(Nodes),
    /// Show VMs
    Vms(Look),
    /// Show hosts and how full they are
    Hosts(Look),
    /// Show jobs: your own; all for root and the controller's user
    Jobs(Look),
    /// Show what happened
    Events(Events),
    /// Tell the story of a node, a VM or a job
    Explain {
        /// A node (fg0), a VM (fg0.3) or a job (17)
        name: String,
        #[command(flatten)]
        how: Look,
    },
    /// Show what the controller would do now, what not, and why
    Plan(Look),
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
    },
    /// Show or check the settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make the hooks' folder and the lines for slurm.conf
    Setup(Setup),
    /// Expand, fold or count lists of nodes as Slurm writes them
    #[command(subcommand)]
    Hostlist(Hostlist),
    /// Keep a private Slurm with VMs, for playing and tests
    #[command(subcommand)]
    Lab(crate::lab::Command),
    /// Write manual pages or shell completions
    #[command(hide = true)]
    Generate {
        /// Which
        #[arg(value_enum)]
        what: Papers,
        /// The folder to write them into
        dir: PathBuf,
    },
}

/// How a look is shown.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Look {
    /// As JSON: times in milliseconds since the epoch, sizes in MiB
    #[arg(long)]
    pub(super) json: bool,
    /// Again every second, until Ctrl-C; with --json one line each time
    #[arg(short, long)]
    pub(super) watch: bool,
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
    pub(super) how: Look,
}

/// Which events, and how.
#[derive(Debug, Args)]
pub(super) struct Events {
    /// Only those about a node (fg0), a VM (fg0.3), a job (17) or a part (slurm, provider, controller)
    pub(super) about: Option<String>,
    /// How many at most
    #[arg(short = 'n', long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(super) limit: u16,
    /// Go on with new ones as they come, until Ctrl-C
    #[arg(short, long, visible_alias = "watch")]
    pub(super) follow: bool,
    /// As JSON; with --follow one line per event
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print all settings as they hold, and where each came from
    Show,
    /// Say whether the settings file is right, and everything that is not
    Check,
}

/// What `thiao setup` makes.
#[derive(Debug, Args)]
pub(super) struct Setup {
    /// The folder for Resume, Suspend and the other programs that slurm.conf names
    #[arg(long, value_name = "DIR", default_value = "/etc/thiao/hooks")]
    pub(super) hooks: PathBuf,
    /// The file for the lines that slurm.conf includes
    #[arg(long, value_name = "FILE", default_value = "/etc/slurm/thiao.conf")]
    pub(super) fragment: PathBuf,
    /// The thiao-hook program [default: beside this program, else /usr/lib/thiao/thiao-hook]
    #[arg(long, value_name = "FILE")]
    pub(super) hook_program: Option<PathBuf>,
    /// The Slurm release that reads it, e.g. 22.05 [default: what `scontrol --version` says]
    #[arg(long, value_name = "RELEASE")]
    pub(super) slurm_version: Option<String>,
    /// The partition for jobs that name none, if it is to be one of these
    #[arg(long, value_name = "PARTITION")]
    pub(super) default_partition: Option<String>,
    /// After how many idle seconds a node's VM is taken away [default: 60]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(super) idle: Option<u32>,
    /// Replace what somebody else wrote there
    #[arg(long)]
    pub(super) force: bool,
    /// Only show what would be written
    #[arg(short = 'n', long)]
    pub(super) dry_run: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Hostlist {
    /// Print the names, one a line, in Slurm's order
    Expand {
        /// e.g. fg[0-3,7],vm[001-010]
        #[arg(required = true, value_name = "EXPR")]
        lists: Vec<String>,
    },
    /// Print the shortest list of the same names: sorted, each once
    Fold {
        /// Names or lists
        #[arg(required = true, value_name = "EXPR")]
        lists: Vec<String>,
    },
    /// Print how many names there are
    Count {
        /// e.g. fg[0-3,7],vm[001-010]
        #[arg(required = true, value_name = "EXPR")]
        lists: Vec<String>,
    },
}

/// What can be generated from this file.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Papers {
    /// Manual pages
    Man,
    /// Completions for bash, zsh and fish
    Completions,
}
