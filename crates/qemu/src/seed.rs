//! The disc that tells an image of the site's own who its VM is: NoCloud's, which cloud-init reads
//! (<https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html>).
//!
//! It asks little of the image: cloud-init, systemd, munge (or Slurm's own key), slurmd. What slurmd needs
//! is written, then it is started; nothing is left to the image's own idea of a cluster.

use crate::error::Error;
use crate::iso;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddrV4;
use std::path::Path;
use thiao_guest::auth::{Auth, key_variable};
use thiao_guest::protocol::{Backup, Card, Context, NFS_PORT, OneContext, ShareMount, UserEntry};

/// The label by which cloud-init knows the disc.
const LABEL: &str = "CIDATA";

/// How long the guest may take to mount a folder, in seconds.
const MOUNT_LIMIT_S: u32 = 60;

/// Where slurmd finds Slurm's own key.
const SLURM_KEY: &str = "/etc/slurm/slurm.key";

/// Where munged listens, and its library looks when nothing names another socket.
const MUNGE_SOCKET: &str = "/run/munge/munge.socket.2";

/// The console asks nobody who he is: only this machine's root and the controller's user can reach it.
const CONSOLE: &str = "[Service]\nExecStart=\n\
    ExecStart=-/sbin/agetty --autologin root --noclear --keep-baud 115200,57600,38400,9600 - vt220\n";

/// The disc for this VM.
pub fn disc(context: &Context) -> Result<Vec<u8>, Error> {
    let user = user_data(&context.common)?.to_string();
    seed(
        &context.common.id,
        &context.common.hostname,
        &user,
        Some(&network(context.card)),
    )
}

/// A disc with these of NoCloud's files.
pub fn seed(id: &str, hostname: &str, user_data: &str, network: Option<&Value>) -> Result<Vec<u8>, Error> {
    let meta = json!({ "instance-id": id, "local-hostname": hostname }).to_string();
    let user = format!("#cloud-config\n{user_data}\n");
    let network = network.map(Value::to_string);
    let mut files = BTreeMap::from([("meta-data", meta.as_bytes()), ("user-data", user.as_bytes())]);
    if let Some(network) = &network {
        files.insert("network-config", network.as_bytes());
    }
    iso::disc(LABEL, &files).map_err(Error::Qemu)
}

/// The card by its hardware address, whatever the image calls it.
fn network(card: Card) -> Value {
    let [a, b, c, d, e, f] = card.mac;
    let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
    let mut ethernet = json!({
        "match": { "macaddress": mac },
        "set-name": "eth0",
        "dhcp4": false,
        "addresses": [format!("{}/{}", card.address, card.prefix_len)],
    });
    if let Some(gateway) = card.gateway {
        ethernet["routes"] = json!([{ "to": "0.0.0.0/0", "via": gateway }]);
    }
    json!({ "version": 2, "ethernets": { "eth0": ethernet } })
}

/// What cloud-init does: files first, then commands, each as a list of words, so that no shell reads them.
fn user_data(context: &OneContext) -> Result<Value, Error> {
    let (key, owner, place) = match &context.auth {
        Auth::Munge { munge_key, .. } => (munge_key, "munge", "/etc/munge/munge.key"),
        Auth::Slurm { slurm_key: key } => (key, "root", SLURM_KEY),
    };
    let key = key
        .to_bytes()
        .ok_or_else(|| Error::Refused("the cluster's key is not readable".to_owned()))?;
    let mut commands: Vec<Value> = context
        .users
        .iter()
        .filter(|user| is_plain(user))
        .flat_map(known)
        .collect();
    commands.extend(context.shares.iter().flat_map(mounted));
    commands.push(json!(["chown", format!("{owner}:"), place]));
    commands.push(json!(["systemctl", "daemon-reload"]));
    if let Auth::Munge { munge_socket, .. } = &context.auth {
        commands.push(json!(["systemctl", "restart", "munge.service"]));
        // slurmd looks there once it has the cluster's slurm.conf.
        if let Some(folder) = munge_socket
            .parent()
            .filter(|_| munge_socket != Path::new(MUNGE_SOCKET))
        {
            commands.push(json!(["mkdir", "-p", folder]));
            commands.push(json!(["ln", "-sfn", MUNGE_SOCKET, munge_socket]));
        }
    }
    commands.push(json!(["systemctl", "restart", "serial-getty@ttyS0.service"]));
    commands.push(json!(["systemctl", "--no-block", "restart", "slurmd.service"]));
    Ok(json!({
        // What takes long and is of no use in a VM for a job: other languages, keys of algorithms that few have.
        "locale": false,
        "ssh_genkeytypes": ["ed25519"],
        "package_update": false,
        // Else a user would be made whose number may be one of the site's.
        "users": [],
        "write_files": [
            { "path": place, "permissions": "0400", "encoding": "b64", "content": base64(&key) },
            { "path": "/etc/hosts", "append": true, "content": hosts(context) },
            { "path": "/etc/systemd/system/slurmd.service.d/50-thiao.conf", "content": drop_in(context) },
            { "path": "/etc/systemd/system/serial-getty@ttyS0.service.d/50-thiao.conf", "content": CONSOLE },
        ],
        "runcmd": commands,
    }))
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The names that slurmd and people use.
fn hosts(context: &OneContext) -> String {
    let mut text = format!(
        "127.0.0.1 localhost\n127.0.1.1 {}\n{} {}\n",
        context.hostname, context.slurmctld_addr, context.slurmctld_host
    );
    for Backup { host, addr } in &context.backups {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{addr} {host}");
    }
    text
}

/// What makes the image's slurmd the node's.
fn drop_in(context: &OneContext) -> String {
    let backups = context.backups.iter().map(|backup| backup.addr);
    let servers: Vec<String> = [context.slurmctld_addr]
        .into_iter()
        .chain(backups)
        .map(|addr| SocketAddrV4::new(addr, context.slurmctld_port).to_string())
        .collect();
    let key = match &context.auth {
        Auth::Munge { .. } => String::new(),
        Auth::Slurm { slurm_key } => format!("Environment={}={SLURM_KEY}\n", key_variable(slurm_key)),
    };
    format!(
        "[Unit]\nConditionPathExists=\n[Service]\nType=simple\n{key}ExecStart=\n\
         ExecStart=/usr/sbin/slurmd -D -b --conf-server {}\nRestart=on-failure\nRestartSec=2\nDelegate=yes\n",
        servers.join(",")
    )
}

/// Whether a user can stand in a command; others are left out, as they are in other guests.
fn is_plain(user: &UserEntry) -> bool {
    let word = |text: &str| {
        !text.is_empty() && !text.starts_with('-') && !text.contains([':', ',', '\n', '\r', '\0', '/'])
    };
    word(&user.name) && user.uid != 0 && !["munge", "nobody"].contains(&user.name.as_str())
}

/// The commands that make a user known. Those that the image has already refuse, which is no harm.
fn known(user: &UserEntry) -> Vec<Value> {
    let UserEntry {
        name,
        uid,
        gid,
        home,
        shell,
        ..
    } = user;
    vec![
        json!(["groupadd", "-g", gid.to_string(), name]),
        json!([
            "useradd",
            "-M",
            "-N",
            "-u",
            uid.to_string(),
            "-g",
            gid.to_string(),
            "-d",
            home,
            "-s",
            shell,
            name
        ]),
    ]
}

/// The commands that mount a folder.
fn mounted(share: &ShareMount) -> Vec<Value> {
    let mut options = format!(
        "vers=3,proto=tcp,mountproto=tcp,nolock,port={port},actimeo=1,addr={addr},mountaddr={addr}",
        port = share.port,
        addr = share.server,
    );
    if share.port != NFS_PORT {
        // Writing to a String does not fail.
        let _ = write!(options, ",mountport={}", share.port);
    }
    let source = format!("{}:{}", share.server, share.path.display());
    vec![
        json!(["mkdir", "-p", share.target]),
        // `-i`: the kernel does all of it, no helper of the image's is needed.
        json!([
            "timeout",
            MOUNT_LIMIT_S.to_string(),
            "mount",
            "-i",
            "-t",
            "nfs",
            "-o",
            options,
            source,
            share.target
        ]),
    ]
}
