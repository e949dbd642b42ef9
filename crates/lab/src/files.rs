//! The files that a lab's programs read: munge key, slurm.conf, thiao.toml,
//! the hooks' folder, the home folder.

use crate::auth::AuthBy;
use crate::console;
use crate::layout::{self, Layout};
use crate::oned;
use crate::person::{self, Person};
use crate::plan::{IDLE_S, JOB_MEMORY_PER_CPU_MB, Plan, RAW_NODE, TMP_GB};
use crate::world::{self, HOST_NAME};
use anyhow::{Context, Result};
use serde::Serialize;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use thiao_config::SMALL;
use thiao_qemu::Credentials;
use thiao_slurm::Quirks;
use thiao_slurm::conf::{JobLine, NodeLine, Timeouts};
use thiao_slurm::lab::{Auth, CGROUP_CONF, CGROUP_CONF_FULL, Lab};
use thiao_slurm::names::HOOKS;

/// The partition of the nodes of power-saving mode.
const PARTITION: &str = "vm";

/// The partition of those of job mode.
pub const JOB_PARTITION: &str = "jobs";

/// From SuspendProgram until a node may be resumed again: VMs here are gone in a blink.
const SUSPEND_S: u32 = 5;

/// How long a VM of OpenNebula's may take to end before it is ended hard.
const TERMINATE_GRACE_S: u32 = 10;

/// Seconds between observations of OpenNebula's VMs while they come up or go: it is this machine's own.
const VM_POLL_S: f64 = 0.5;

/// Makes the folders and files that the lab's programs need. Runs inside the lab.
///
/// # Errors
/// When something cannot be written.
pub fn write(layout: &Layout, plan: &Plan) -> Result<()> {
    for (dir, mode) in [
        (layout.etc(), 0o755),
        (layout.munge(), 0o755),
        (layout.secrets(), 0o700),
        (layout.slurm_state(), 0o700),
        (layout.state(), 0o755),
        (layout.bin(), 0o755),
        (layout.hooks(), 0o755),
    ] {
        layout::make(&dir, mode)?;
    }
    plan.submitters
        .iter()
        .try_for_each(|person| make_home(layout, plan, person))?;
    write_key(layout.credentials(plan.options.auth).file())?;
    link_hooks(layout, plan)?;
    link_programs(layout, plan)?;
    if plan.options.opennebula {
        oned::prepare(layout)?;
    }
    write_slurm(layout, plan)
}

/// Writes thiao.toml. `share_ports` are those of OpenNebula's stand-in, which
/// serves the shares of its guests.
///
/// # Errors
/// When it cannot be written.
pub fn write_thiao(layout: &Layout, plan: &Plan, share_ports: &[u16]) -> Result<()> {
    write_text(&layout.thiao_conf(), &thiao_toml(layout, plan, share_ports)?)
}

fn write_text(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text)
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)))
        .with_context(|| format!("{} cannot be written", path.display()))
}

/// A home folder, private to one who submits jobs.
fn make_home(layout: &Layout, plan: &Plan, person: &Person) -> Result<()> {
    let home = layout.home(&person.name);
    layout::make(&home, 0o700)?;
    if person.uid != plan.owner.uid {
        std::os::unix::fs::chown(&home, Some(person.uid), Some(person.gid))
            .with_context(|| format!("{} cannot be given to {}", home.display(), person.name))?;
    }
    Ok(())
}

/// A new key for every start: 128 random bytes, for the owner's eyes alone.
fn write_key(path: &Path) -> Result<()> {
    layout::remove(path)?;
    let mut key = [0_u8; 128];
    let mut filled = 0;
    while filled < key.len() {
        filled += rustix::rand::getrandom(&mut key[filled..], rustix::rand::GetRandomFlags::empty())
            .context("the kernel gives no random bytes")?;
    }
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o400)
        .open(path)
        .and_then(|mut file| file.write_all(&key))
        .with_context(|| format!("the key {} cannot be written", path.display()))
}

fn link_hooks(layout: &Layout, plan: &Plan) -> Result<()> {
    let state = layout.state();
    let links = HOOKS
        .iter()
        .map(|(_, name)| (*name, &plan.hook))
        .chain([("state", &state)]);
    links
        .into_iter()
        .try_for_each(|(name, target)| link(&layout.hooks().join(name), target))
}

/// The programs that people call, by all their names.
fn link_programs(layout: &Layout, plan: &Plan) -> Result<()> {
    world::place_programs(layout, plan)?;
    let state = layout.state();
    let ours = [
        ("tsub", Path::new("thiao")),
        ("tclean", Path::new("thiao-hook")),
        // The hooks' program finds the controller by it.
        ("state", &state),
    ];
    let tools = console::TOOLS.map(|tool| (tool, Path::new("thiao-lab")));
    let tools = tools.into_iter().filter(|_| plan.options.opennebula);
    ours.into_iter()
        .chain(tools)
        .try_for_each(|(name, target)| link(&layout.bin().join(name), target))
}

fn link(place: &Path, target: &Path) -> Result<()> {
    layout::remove(place)?;
    std::os::unix::fs::symlink(target, place).with_context(|| format!("{} cannot be made", place.display()))
}

/// `thiao.toml` as the lab writes it; the meaning of the keys is the configuration's.
#[derive(Serialize)]
struct Toml<'a> {
    cluster: String,
    provider: &'a str,
    state_dir: PathBuf,
    slurm: SlurmPart<'a>,
    qemu: Option<QemuPart<'a>>,
    opennebula: Option<OpenNebulaPart<'a>>,
    nodeset: Vec<NodesetPart<'a>>,
    timing: TimingPart,
}

#[derive(Serialize)]
struct SlurmPart<'a> {
    conf: PathBuf,
    bin_dir: Option<&'a Path>,
}

#[derive(Serialize)]
struct NodesetPart<'a> {
    name: &'a str,
    mode: Option<&'a str>,
    nodes: String,
    cpus: u32,
    memory_mb: u64,
    partition: &'a str,
    memory_per_cpu_mb: Option<u64>,
    warm: Option<&'a [String]>,
    template: Option<&'a str>,
    network: Option<&'a str>,
}

#[derive(Serialize)]
struct TimingPart {
    boot_timeout: u32,
    terminate_grace: Option<u32>,
    vm_poll_busy: Option<f64>,
}

#[derive(Serialize)]
struct QemuPart<'a> {
    bridge: String,
    address: std::net::Ipv4Addr,
    prefix_len: u8,
    image: &'a str,
    tmp_gb: u64,
    accel: &'a str,
    warm: bool,
    cache_dir: &'a Path,
    agent: &'a Path,
    slurmctld_host: &'a str,
    slurmctld_addr: std::net::Ipv4Addr,
    slurmctld_port: u16,
    slurm_user: &'a str,
    #[serde(flatten)]
    credentials: CredentialsPart,
    host: Vec<HostPart>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    user: Vec<UserPart<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    share: Vec<SharePart<'a>>,
}

#[derive(Serialize)]
struct OpenNebulaPart<'a> {
    endpoint: String,
    auth: PathBuf,
    ready: &'a str,
    slurmctld_host: &'a str,
    slurmctld_addr: std::net::Ipv4Addr,
    slurmctld_port: u16,
    slurm_user: &'a str,
    #[serde(flatten)]
    credentials: CredentialsPart,
    user: Vec<UserPart<'a>>,
    share: Vec<NfsPart>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum CredentialsPart {
    Munge {
        munge_key: PathBuf,
        munge_socket: PathBuf,
    },
    Slurm {
        slurm_key: PathBuf,
    },
}

impl CredentialsPart {
    fn of(credentials: Credentials) -> Self {
        match credentials {
            Credentials::Munge { key, socket } => Self::Munge {
                munge_key: key,
                munge_socket: socket,
            },
            Credentials::Slurm { key } => Self::Slurm { slurm_key: key },
        }
    }
}

#[derive(Serialize)]
struct NfsPart {
    server: std::net::Ipv4Addr,
    port: u16,
    path: PathBuf,
    target: PathBuf,
}

#[derive(Serialize)]
struct HostPart {
    name: String,
    cpus: u32,
    memory_mb: u64,
}

#[derive(Serialize)]
struct UserPart<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: PathBuf,
    shell: &'a Path,
}

#[derive(Serialize)]
struct SharePart<'a> {
    source: PathBuf,
    target: PathBuf,
    user: &'a str,
}

fn thiao_toml(layout: &Layout, plan: &Plan, share_ports: &[u16]) -> Result<String> {
    let options = &plan.options;
    let opennebula = options.opennebula;
    let toml = Toml {
        cluster: layout.cluster(),
        provider: if opennebula { "opennebula" } else { "qemu" },
        state_dir: layout.state(),
        slurm: SlurmPart {
            conf: layout.slurm_conf(),
            bin_dir: options.slurm_bin_dir.as_deref(),
        },
        nodeset: nodesets(plan),
        timing: TimingPart {
            boot_timeout: options.boot_timeout,
            // A guest that still boots does not know its power button yet.
            terminate_grace: opennebula.then_some(TERMINATE_GRACE_S),
            vm_poll_busy: opennebula.then_some(VM_POLL_S),
        },
        qemu: (!opennebula).then(|| qemu_part(layout, plan)),
        opennebula: opennebula.then(|| opennebula_part(layout, plan, share_ports)),
    };
    let mut text = String::from("# Written by `thiao lab up`; the next one overwrites it.\n");
    text.push_str(&toml::to_string(&toml).context("the lab's thiao.toml cannot be written")?);
    if let Some(extra) = &options.extra_config {
        let more =
            std::fs::read_to_string(extra).with_context(|| format!("{} cannot be read", extra.display()))?;
        text.push_str(&more);
    }
    Ok(text)
}

fn nodesets(plan: &Plan) -> Vec<NodesetPart<'_>> {
    let options = &plan.options;
    let power_saving = NodesetPart {
        name: "vm",
        mode: None,
        nodes: plan.node_list(),
        cpus: options.cpus,
        memory_mb: options.memory_mb,
        partition: PARTITION,
        memory_per_cpu_mb: None,
        warm: None,
        template: options.opennebula.then_some(oned::TEMPLATE),
        network: options.opennebula.then_some(oned::NETWORK),
    };
    let job = plan.job_node_list().map(|nodes| NodesetPart {
        name: "job",
        mode: Some("job"),
        nodes,
        cpus: plan.largest_job.cpus,
        memory_mb: plan.largest_job.memory_mb,
        partition: JOB_PARTITION,
        memory_per_cpu_mb: Some(JOB_MEMORY_PER_CPU_MB),
        // Guests are readied by this machine's own provider only.
        warm: (!options.cold && !options.opennebula).then_some(&options.warm),
        ..power_saving
    });
    [power_saving].into_iter().chain(job).collect()
}

fn qemu_part<'a>(layout: &Layout, plan: &'a Plan) -> QemuPart<'a> {
    let options = &plan.options;
    let network = plan.network();
    QemuPart {
        bridge: network.bridge,
        address: options.address,
        prefix_len: options.prefix_len,
        tmp_gb: TMP_GB,
        image: options.image.as_deref().unwrap_or(SMALL),
        accel: &options.accel,
        warm: !options.cold,
        cache_dir: &plan.cache_dir,
        agent: &plan.agent,
        slurmctld_host: HOST_NAME,
        slurmctld_addr: options.address,
        slurmctld_port: options.slurmctld_port,
        slurm_user: &plan.owner.name,
        credentials: CredentialsPart::of(layout.credentials(options.auth)),
        host: plan
            .host_names()
            .map(|name| HostPart {
                name,
                cpus: plan.host_cpus,
                memory_mb: plan.host_memory_mb,
            })
            .collect(),
        // The lab's own are found in its user database, with their homes there.
        user: user_parts(layout, plan, |person| !person::is_labs_own(person)),
        share: plan
            .shares(layout)
            .into_iter()
            .filter(|(_, person)| !person::is_labs_own(person))
            .map(|(folder, person)| SharePart {
                source: folder.clone(),
                target: folder,
                user: &person.name,
            })
            .collect(),
    }
}

fn opennebula_part<'a>(layout: &Layout, plan: &'a Plan, share_ports: &[u16]) -> OpenNebulaPart<'a> {
    let options = &plan.options;
    OpenNebulaPart {
        endpoint: oned::endpoint(plan),
        auth: layout.one_auth(),
        ready: "onegate",
        slurmctld_host: HOST_NAME,
        slurmctld_addr: options.address,
        slurmctld_port: options.slurmctld_port,
        slurm_user: &plan.owner.name,
        credentials: CredentialsPart::of(layout.credentials(options.auth)),
        user: user_parts(layout, plan, |_| true),
        share: plan
            .shares(layout)
            .into_iter()
            .zip(share_ports)
            .map(|((folder, _), port)| NfsPart {
                server: options.address,
                port: *port,
                path: "/".into(),
                target: folder,
            })
            .collect(),
    }
}

/// The submitters of that kind, described.
fn user_parts<'a>(layout: &Layout, plan: &'a Plan, wanted: fn(&Person) -> bool) -> Vec<UserPart<'a>> {
    let part = |person: &'a Person| UserPart {
        name: &person.name,
        uid: person.uid,
        gid: person.gid,
        home: layout.home(&person.name),
        shell: Path::new("/bin/bash"),
    };
    plan.submitters
        .iter()
        .filter(|person| wanted(person))
        .map(part)
        .collect()
}

/// slurm.conf and what the guests get along with it.
fn write_slurm(layout: &Layout, plan: &Plan) -> Result<()> {
    let options = &plan.options;
    let line = |nodes: String, partition: &str| NodeLine {
        nodes,
        cpus: options.cpus,
        memory_mb: options.memory_mb,
        features: vec!["vm".to_owned()],
        partition: partition.to_owned(),
        job: None,
    };
    let mut nodes = vec![line(plan.node_list(), PARTITION)];
    if let Some(job_nodes) = plan.job_node_list() {
        nodes.push(NodeLine {
            cpus: plan.largest_job.cpus,
            memory_mb: plan.largest_job.memory_mb,
            job: Some(JobLine {
                memory_per_cpu_mb: JOB_MEMORY_PER_CPU_MB,
                gpus: 0,
            }),
            ..line(job_nodes, JOB_PARTITION)
        });
        write_job_submit(layout, plan)?;
    }
    if let Some(raw_nodes) = plan.raw_node_list() {
        nodes.push(line(raw_nodes, RAW_NODE));
    }
    let version = thiao_slurm::installed_version(options.slurm_bin_dir.as_deref())?;
    let lab = Lab {
        quirks: Quirks::of(version),
        cluster: layout.cluster(),
        host: HOST_NAME.to_owned(),
        address: options.address.into(),
        slurmctld_port: options.slurmctld_port,
        slurmd_port: options.slurmd_port,
        user: plan.owner.name.clone(),
        state: layout.slurm_state(),
        log: layout.log("slurmctld"),
        pid_file: layout.slurm_state().join("pid"),
        auth: match options.auth {
            AuthBy::Munge => Auth::Munge(layout.munge_socket()),
            AuthBy::Slurm => Auth::Slurm,
        },
        cgroups: plan.has_cgroups(),
        hooks: Some(layout.hooks()),
        nodes,
        default_partition: Some(PARTITION.to_owned()),
        timeouts: Timeouts {
            // Thiao finds out first, by its own boot timeout.
            resume_s: options.boot_timeout.saturating_mul(3).saturating_add(60),
            suspend_s: SUSPEND_S,
            idle_s: options.idle.unwrap_or(IDLE_S),
        },
    };
    let cgroup_conf = match plan.has_cgroups() {
        true => CGROUP_CONF_FULL,
        false => CGROUP_CONF,
    };
    write_text(&layout.etc().join("cgroup.conf"), cgroup_conf)?;
    write_text(&layout.slurm_conf(), &lab.slurm_conf())
}

/// What thiao.toml will say.
///
/// # Errors
/// When that makes no sense: what was asked for is not possible.
pub fn settings(layout: &Layout, plan: &Plan) -> Result<thiao_config::Config> {
    let text = thiao_toml(layout, plan, &[])?;
    thiao_config::from_text(&layout.thiao_conf(), &text).context("such a lab is not possible")
}

/// What slurmctld asks at each submission; what users may ask for is in thiao.toml as it will be.
fn write_job_submit(layout: &Layout, plan: &Plan) -> Result<()> {
    let settings = settings(layout, plan)?;
    let partitions = [JOB_PARTITION.to_owned()];
    let script = thiao_slurm::lua::script(
        &partitions,
        Some(JOB_PARTITION),
        &settings.job.options,
        Some(&settings.submitted_file()),
        None,
    );
    write_text(&layout.etc().join(thiao_slurm::lua::FILE), &script)
}
