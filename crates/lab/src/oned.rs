//! The lab's OpenNebula: the stand-in of `crates/oned`, whose VMs are microVMs
//! of this machine. It is a program of its own, as a real oned is, and knows
//! nothing but what OpenNebula would: hosts, a network, a user, a template.

use crate::layout::{self, Layout};
use crate::plan::Plan;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use thiao_oned::machines::Machines as _;
use thiao_oned::qemu::QemuMachines;
use thiao_oned::{HostSetup, NetworkSetup, Oned, TemplateSetup, UserSetup};

/// The user as whom Thiao calls.
pub const USER: &str = "thiao";

/// The first user, who may do everything: a person at the console.
pub const ADMINISTRATOR: &str = "oneadmin";

/// The registered VM template.
pub const TEMPLATE: &str = "slurm-worker";

/// The virtual network that the VMs are in.
pub const NETWORK: &str = "lab";

/// Where XML-RPC, OneGate and the event bus are served, by OpenNebula's custom.
const ONED_PORT: u16 = 2633;
const ONEGATE_PORT: u16 = 5030;
const BUS_PORT: u16 = 2101;

/// How long a guest may take to shut down before it counts as running again.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(20);

/// How often the machines are observed.
const POLL: Duration = Duration::from_millis(50);

/// What the stand-in says of itself when it serves.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ready {
    /// The ports of the shares' servers, in the order of [`Plan::shares`].
    pub share_ports: Vec<u16>,
    /// What there is to say, for people.
    pub notes: Vec<String>,
}

impl Ready {
    /// Reads it; `None` while the stand-in is not that far.
    pub fn read(layout: &Layout) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(layout.one_ready()).ok()?).ok()
    }

    /// Writes it, whole or not at all.
    fn write(&self, layout: &Layout) -> Result<()> {
        let path = layout.one_ready();
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, serde_json::to_vec(self).context("it cannot be encoded")?)
            .and_then(|()| std::fs::rename(&fresh, &path))
            .with_context(|| format!("{} cannot be written", path.display()))
    }
}

/// Where the stand-in serves XML-RPC.
pub fn address(plan: &Plan) -> SocketAddr {
    (plan.options.address, ONED_PORT).into()
}

/// What `endpoint` says in thiao.toml.
pub fn endpoint(plan: &Plan) -> String {
    format!("http://{}/RPC2", address(plan))
}

/// Makes the folder with the credentials: a new password for every start.
///
/// # Errors
/// When something cannot be written.
pub fn prepare(layout: &Layout) -> Result<()> {
    layout::make(&layout.one(), 0o700)?;
    let path = layout.one_auth();
    layout::remove(&path)?;
    let mut random = [0_u8; 16];
    let got = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .context("the kernel gives no random bytes")?;
    if got < random.len() {
        bail!("the kernel gives too few random bytes");
    }
    let password: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| writeln!(file, "{USER}:{password}"))
        .with_context(|| format!("{} cannot be written", path.display()))
}

/// The session of oneadmin, whose password is the other user's.
///
/// # Errors
/// When the credentials cannot be read: they are the lab's owner's.
pub fn administrator(layout: &Layout) -> Result<String> {
    let (_, password) = credentials(layout)?;
    Ok(format!("{ADMINISTRATOR}:{password}"))
}

/// User and password, as [`prepare`] wrote them.
fn credentials(layout: &Layout) -> Result<(String, String)> {
    let path = layout.one_auth();
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let (user, password) = text
        .trim_end()
        .split_once(':')
        .context("the lab's one_auth has no password")?;
    Ok((user.to_owned(), password.to_owned()))
}

/// Serves until it is ended. The VMs outlive it; its memory of them does not.
///
/// # Errors
/// When it cannot begin to.
pub fn run(layout: &Layout) -> Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .log_internal_errors(false)
        .init();
    let plan = Plan::read(layout)?;
    let (machines, prepared) =
        QemuMachines::open(machines(layout, &plan)?, &|words| tracing::info!("{words}"))
            .context("the stand-in has no machines")?;
    let left = machines.poll().len();
    if left > 0 {
        bail!(
            "{left} VMs are left of a stand-in that was ended, and what it knew of them is lost. \
             This one would take them for its own new ones, so it does not start: \
             jobs go on, no VM is made or ended; `thiao lab down` ends all"
        );
    }
    let ready = Ready {
        share_ports: machines.export_ports(),
        notes: vec![
            format!(
                "guests run with {}: {}",
                prepared.verdict.accel.as_str(),
                prepared.verdict.why
            ),
            prepared.cpu_shares,
        ],
    };
    let settings = settings(layout, &plan, machines)?;
    let oned = Oned::start(settings)
        .with_context(|| format!("the stand-in of OpenNebula cannot serve on {}", address(&plan)))?;
    ready.write(layout)?;
    tracing::info!(
        "serving {} as {USER}, OneGate at {:?}",
        oned.endpoint(),
        oned.onegate_endpoint()
    );
    loop {
        std::thread::park();
    }
}

/// The embedded provider's settings: what runs the machines.
fn machines(layout: &Layout, plan: &Plan) -> Result<thiao_qemu::Settings> {
    let options = &plan.options;
    Ok(thiao_qemu::Settings {
        cluster: thiao_core::ids::ClusterName::new(&layout.cluster())?,
        state_dir: layout.one_state(),
        cache_dir: plan.cache_dir.clone(),
        hosts: plan
            .host_names()
            .map(|name| {
                Ok(thiao_qemu::Host {
                    name: thiao_core::ids::HostName::new(&name)?,
                    cpus: plan.host_cpus,
                    memory_mb: plan.host_memory_mb,
                })
            })
            .collect::<Result<_>>()?,
        network: plan.network(),
        guests: thiao_qemu::Guests::Small,
        tmp_gb: 1,
        nodesets: std::collections::BTreeMap::new(),
        nodes: std::collections::BTreeMap::new(),
        accel: match options.accel.as_str() {
            "kvm" => thiao_qemu::AccelChoice::Kvm,
            "tcg" => thiao_qemu::AccelChoice::Tcg,
            _ => thiao_qemu::AccelChoice::Auto,
        },
        warm: false,
        templates_max: 0,
        // OpenNebula's MEMORY has all of it.
        overhead_mb: 0,
        slurm: plan.slurm_files(),
        guest: thiao_qemu::GuestSettings {
            slurmctld_host: crate::world::HOST_NAME.to_owned(),
            slurmctld_addr: options.address,
            slurmctld_port: options.slurmctld_port,
            backups: vec![],
            slurm_user: plan.owner.name.clone(),
            credentials: layout.credentials(options.auth),
            users: vec![],
            everybody: false,
            homes: false,
            mounts: vec![],
            resolver: Default::default(),
            shares: plan
                .shares(layout)
                .into_iter()
                .map(|(folder, person)| thiao_qemu::Share {
                    target: folder.clone(),
                    source: folder,
                    uid: person.uid,
                    gid: person.gid,
                })
                .collect(),
        },
        fence: None,
        agent: plan.agent.clone(),
        program: plan.keeper.clone(),
    })
}

/// What this OpenNebula has.
fn settings(layout: &Layout, plan: &Plan, machines: QemuMachines) -> Result<thiao_oned::Settings> {
    let (user, password) = credentials(layout)?;
    let network = plan.network();
    let (first, size) = range(&network).context("the lab's network has no address for a VM")?;
    let mask = u32::MAX
        .checked_shl(32 - u32::from(network.prefix_len))
        .unwrap_or(0);
    let attribute = |name: &str, value: String| (name.to_owned(), value);
    Ok(thiao_oned::Settings {
        listen: address(plan),
        onegate: Some((plan.options.address, ONEGATE_PORT).into()),
        // Where the controller looks for it.
        bus: Some((plan.options.address, BUS_PORT).into()),
        users: vec![
            // The lab's owner is both: one password is as good as two.
            UserSetup::new(ADMINISTRATOR, &password),
            UserSetup::of_cluster(&user, &password),
        ],
        hosts: plan
            .host_names()
            .map(|name| HostSetup {
                name,
                cpu_percent: plan.host_cpus * 100,
                memory_mb: plan.host_memory_mb,
                cluster: Default::default(),
            })
            .collect(),
        networks: vec![NetworkSetup {
            name: NETWORK.to_owned(),
            first,
            size,
            template: BTreeMap::from([
                attribute("NETWORK_MASK", Ipv4Addr::from(mask).to_string()),
                attribute("GATEWAY", network.address.to_string()),
                // Its hosts keep VMs to their security groups.
                attribute("VN_MAD", "fw".to_owned()),
                attribute("FILTER_IP_SPOOFING", "YES".to_owned()),
                attribute("FILTER_MAC_SPOOFING", "YES".to_owned()),
            ]),
            public: true,
            clusters: vec![0],
        }],
        templates: vec![TemplateSetup {
            name: TEMPLATE.to_owned(),
            // CPU and memory come with each VM; the card from the nodeset's network.
            body: "CPU=\"1\"\nMEMORY=\"340\"\nCONTEXT=[ NETWORK=\"YES\" ]\n".to_owned(),
            public: true,
        }],
        machines: Some(Arc::new(machines)),
        shutdown_timeout: SHUTDOWN_LIMIT,
        poll: POLL,
        scheduler: Some(Duration::from_secs(1)),
        ..thiao_oned::Settings::default()
    })
}

/// The addresses for VMs: the longer part of the network beside the host's own.
fn range(network: &thiao_qemu::net::Network) -> Option<(Ipv4Addr, u32)> {
    /// As many as a lab may have nodes, four times.
    const MOST: u32 = 16_384;
    let own = u32::from(network.address);
    let first = u32::from(network.pool().next()?);
    let size = 1_u32.checked_shl(32 - u32::from(network.prefix_len))?;
    // The pool goes from behind the network's own address to before its broadcast.
    let start = own & !(size - 1);
    let last = start + size - 2;
    let (before, after) = (own.saturating_sub(first), last.saturating_sub(own));
    if before > after {
        Some((first.into(), before.min(MOST)))
    } else {
        (after > 0).then(|| ((own + 1).into(), after.min(MOST)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vms_get_the_longer_part_of_the_network() {
        let of = |address: &str, prefix_len: u8| {
            let network = thiao_qemu::net::Network {
                bridge: "b".into(),
                address: address.parse().unwrap(),
                prefix_len,
            };
            range(&network).map(|(first, size)| (first.to_string(), size))
        };
        assert_eq!(of("10.127.0.1", 29), Some(("10.127.0.2".to_owned(), 5)));
        assert_eq!(of("10.127.0.6", 29), Some(("10.127.0.1".to_owned(), 5)));
        assert_eq!(of("10.127.0.4", 29), Some(("10.127.0.1".to_owned(), 3)));
        assert_eq!(of("10.127.0.1", 16), Some(("10.127.0.2".to_owned(), 16_384)));
    }

    #[test]
    fn the_password_is_for_the_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(Some(dir.path())).unwrap();
        prepare(&layout).unwrap();
        let first = std::fs::read(layout.one_auth()).unwrap();
        prepare(&layout).unwrap();
        assert_ne!(first, std::fs::read(layout.one_auth()).unwrap());
        let mode = std::fs::metadata(layout.one_auth()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
