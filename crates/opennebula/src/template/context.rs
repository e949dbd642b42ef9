//! CONTEXT: what the guest is told.

use super::new_vm::{JOB, NewVm};
use crate::error::{Class, Error};
use crate::inputs::Subnet;
use crate::settings::ReadyBy;
use crate::syntax::Template;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as STANDARD;
use std::fs;
use thiao_guest::auth::{Auth, key_variable};
use thiao_guest::protocol::{CONTEXT_VARIABLE, DiskContext, OneContext, Resolver};
use thiao_guest::secret::Secret;
use thiao_guest::users::add_system_users;

/// What keeps OpenNebula's SlurmWorker appliance from refusing a node of slurm.conf.
const SLURM_WORKER_SCRIPT: &str = include_str!("slurm_worker.sh");

/// The whole CONTEXT: the template's, over it what the site adds, over that what the nodeset does, over that
/// its inputs, over that ours.
///
/// oned fills in `$NAME`, `${NAME}` and such within CONTEXT values
/// (`vm_var_parser.l`). None of ours has a `$`; the template's are left to it.
pub fn context(theirs: &Template, wanted: &NewVm<'_>) -> Result<Vec<(String, String)>, Error> {
    let mut context: Vec<(String, String)> = Vec::new();
    // oned looks at the first CONTEXT only.
    for (name, value) in theirs.vectors("CONTEXT").next().unwrap_or_default() {
        put_into(&mut context, name, value.clone());
    }
    for (name, value) in wanted.guest.context.iter().chain(pairs(wanted.context)) {
        put_into(&mut context, &name.to_ascii_uppercase(), value.clone());
    }
    let password = ldap_password(wanted);
    for (name, value) in wanted.inputs.attributes(password.as_deref()) {
        put_into(&mut context, name, value);
    }
    // one-context runs one start script only.
    if wanted.guest.slurm_worker
        && let Some((name, _)) = context.iter().find(|(name, _)| name.starts_with("START_SCRIPT"))
    {
        return Err(Error::new(
            Class::BadTemplate,
            format!(
                "CONTEXT of the template or of thiao.toml has {name}, and opennebula.slurm_worker sets one, too: \
                 set slurm_worker = false and put the lines for slurmd into yours (docs/opennebula.md has them)"
            ),
        ));
    }
    let mut put = |name: &str, value: String| put_into(&mut context, name, value);
    put("NETWORK", "YES".to_owned());
    put("SET_HOSTNAME", wanted.tag.node.to_string());
    // OpenNebula's own SlurmWorker appliance (one-apps, appliances/SlurmWorker).
    put(
        "ONEAPP_SLURM_CONTROLLER_IP",
        wanted.guest.slurmctld_addr.to_string(),
    );
    if let Some(auth) = wanted.auth {
        match auth {
            Auth::Munge { munge_key, .. } => {
                let key = munge_key.to_bytes().unwrap_or_default();
                put("ONEAPP_MUNGE_KEY_BASE64", STANDARD.encode(key));
            }
            // The appliance knows only munge.
            Auth::Slurm { .. } => {}
        }
        put(CONTEXT_VARIABLE, STANDARD.encode(own_guest(wanted, auth)?));
    }
    if let Some(job) = wanted.spec.job {
        put(JOB, job.to_string());
    }
    if wanted.guest.slurm_worker {
        put(
            "START_SCRIPT_BASE64",
            STANDARD.encode(slurm_worker_script(wanted, password.as_deref())),
        );
    }
    match wanted.ready {
        ReadyBy::Slurm => {}
        ReadyBy::OneGate => {
            put("TOKEN", "YES".to_owned());
            put("REPORT_READY", "YES".to_owned());
        }
    }
    Ok(context)
}

fn ldap_password(wanted: &NewVm<'_>) -> Option<String> {
    String::from_utf8(wanted.ldap_password?.to_bytes()?).ok()
}

/// The script, with what it has to know in it: addresses, paths and base64, nothing that a shell reads.
fn slurm_worker_script(wanted: &NewVm<'_>, password: Option<&str>) -> String {
    let guest = wanted.guest;
    let backups = guest.backups.iter().map(|backup| backup.addr);
    let servers: Vec<String> = [guest.slurmctld_addr]
        .into_iter()
        .chain(backups)
        .map(|addr| format!("{addr}:{}", guest.slurmctld_port))
        .collect();
    let (key, variable) = match wanted.auth {
        None => (None, ""),
        Some(Auth::Munge { munge_key, .. }) => (munge_key.to_bytes(), ""),
        Some(Auth::Slurm { slurm_key }) => (slurm_key.to_bytes(), key_variable(slurm_key)),
    };
    let inputs = wanted.inputs;
    let sssd = inputs.ldap.as_ref().map(|ldap| ldap.sssd_conf(password));
    let subnet = inputs.infiniband.as_ref().and_then(|infiniband| infiniband.ipoib);
    let (ipoib, prefix) = subnet.map(Subnet::parts).unzip();
    SLURM_WORKER_SCRIPT
        .replace("@SERVERS@", &servers.join(","))
        .replace("@KEY@", &STANDARD.encode(key.unwrap_or_default()))
        .replace("@VARIABLE@", variable)
        .replace("@MOUNTS@", &inputs.mounts())
        .replace("@SSSD@", &STANDARD.encode(sssd.unwrap_or_default()))
        .replace("@IPOIB@", &ipoib.unwrap_or_default())
        .replace(
            "@PREFIX@",
            &prefix.map_or_else(String::new, |prefix| prefix.to_string()),
        )
}

fn pairs(context: &[(String, String)]) -> impl Iterator<Item = (&String, &String)> {
    context.iter().map(|(name, value)| (name, value))
}

fn put_into(context: &mut Vec<(String, String)>, name: &str, value: String) {
    match context.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => *old = value,
        None => context.push((name.to_owned(), value)),
    }
}

/// What Thiao's own guest is told, as JSON.
fn own_guest(wanted: &NewVm<'_>, auth: &Auth) -> Result<Vec<u8>, Error> {
    let guest = wanted.guest;
    let mut users = guest.users.clone();
    add_system_users(
        &mut users,
        &guest.slurm_user,
        &fs::read_to_string("/etc/passwd").unwrap_or_default(),
    );
    let common = OneContext {
        id: format!("{}.{}", wanted.tag.node, wanted.tag.generation),
        hostname: wanted.tag.node.to_string(),
        slurmctld_host: guest.slurmctld_host.clone(),
        slurmctld_addr: guest.slurmctld_addr,
        slurmctld_port: guest.slurmctld_port,
        backups: guest.backups.clone(),
        auth: auth.clone(),
        users,
        groups: Vec::new(),
        resolver: Resolver::default(),
        shares: wanted.inputs.shares(&guest.shares),
    };
    // Without one its kernel collects its own.
    let seed = Secret::random().ok();
    serde_json::to_vec(&DiskContext { common, seed }).map_err(|e| {
        Error::new(
            Class::BadTemplate,
            format!("what the guest is told cannot be written: {e}"),
        )
    })
}
