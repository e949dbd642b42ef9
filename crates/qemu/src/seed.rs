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
use std::path::Path;
use thiao_guest::auth::{Auth, key_variable};
use thiao_guest::protocol::{Backup, Card, Context, OneContext, Resolver, ShareMount, UserEntry};
use thiao_guest::units::{MUNGE_SERVICE, SLURMD_SERVICE};

/// The label by which cloud-init knows the disc.
const LABEL: &str = "CIDATA";

/// How long the guest may take to mount a folder, in seconds.
const MOUNT_LIMIT_S: u32 = 60;

/// Where slurmd finds Slurm's own key.
const SLURM_KEY: &str = "/etc/slurm/slurm.key";

/// What is to be the guest's `/etc/resolv.conf`, until it is put there.
const RESOLV_CONF: &str = "/run/thiao/resolv.conf";

/// Keeps systemd-resolved from servers of its own choice, where nobody was named to it.
const NO_FALLBACK: &str = "[Resolve]\nFallbackDNS=\n";

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
        Some(&network(context.card, &context.common.resolver)),
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
fn network(card: Card, resolver: &Resolver) -> Value {
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
    if !resolver.is_none() {
        ethernet["nameservers"] = json!({ "addresses": resolver.servers, "search": resolver.search });
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
    let mut commands = names();
    commands.extend(known(context));
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
            { "path": RESOLV_CONF, "content": context.resolver.text() },
            { "path": "/etc/systemd/resolved.conf.d/50-thiao.conf", "content": NO_FALLBACK },
            { "path": "/etc/systemd/system/slurmd.service.d/50-thiao.conf", "content": drop_in(context) },
            { "path": "/etc/systemd/system/munge.service.d/50-thiao.conf", "content": MUNGE_SERVICE },
            { "path": "/etc/systemd/system/serial-getty@ttyS0.service.d/50-thiao.conf", "content": CONSOLE },
        ],
        "runcmd": commands,
    }))
}

/// The commands that have names looked up where the guest is told to, or nowhere: what an image has from where
/// it was made are servers that its VMs do not reach, and each look-up would wait for them. `install` puts a file
/// in the place of what may be a link to another one.
fn names() -> Vec<Value> {
    vec![
        json!(["install", "-m", "644", RESOLV_CONF, "/etc/resolv.conf"]),
        json!(["systemctl", "try-restart", "systemd-resolved.service"]),
    ]
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
    let key = match &context.auth {
        Auth::Munge { .. } => String::new(),
        Auth::Slurm { slurm_key } => format!("Environment={}={SLURM_KEY}\n", key_variable(slurm_key)),
    };
    format!(
        "[Unit]\nConditionPathExists=\n[Service]\nType=simple\n{key}ExecStart=\n\
         ExecStart=/usr/sbin/slurmd -D -b --conf-server {}\nRestart=on-failure\nRestartSec=2\n{SLURMD_SERVICE}",
        context.servers()
    )
}

/// Whether a user can stand in a command; others are left out, as they are in other guests.
fn is_plain(user: &UserEntry) -> bool {
    is_word(&user.name) && user.uid != 0 && !["munge", "nobody"].contains(&user.name.as_str())
}

/// Whether a name can be a word of a command, and a name of a user or group.
fn is_word(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('-')
        && !name.contains(|c: char| matches!(c, ':' | ',' | '/') || c.is_control())
}

/// The commands that make people known. Those whom the image has already are refused, which is no harm.
fn known(context: &OneContext) -> Vec<Value> {
    let users: Vec<&UserEntry> = context.users.iter().filter(|user| is_plain(user)).collect();
    let mut groups: Vec<(&str, u32)> = context
        .groups
        .iter()
        .map(|group| (group.name.as_str(), group.gid))
        .collect();
    for user in &users {
        if !groups.iter().any(|(_, gid)| *gid == user.gid) {
            groups.push((&user.name, user.gid));
        }
    }
    groups.retain(|(name, _)| is_word(name));
    let mut commands: Vec<Value> = groups
        .iter()
        .map(|(name, gid)| json!(["groupadd", "-g", gid.to_string(), name]))
        .collect();
    for user in users {
        let UserEntry {
            name,
            uid,
            gid,
            home,
            shell,
        } = user;
        let (uid, gid) = (uid.to_string(), gid.to_string());
        commands.push(json!([
            "useradd", "-M", "-N", "-u", uid, "-g", gid, "-d", home, "-s", shell, name
        ]));
        let his = context.groups.iter().filter(|group| group.members.contains(name));
        let his: Vec<&str> = his
            .map(|group| group.name.as_str())
            .filter(|group| is_word(group))
            .collect();
        if !his.is_empty() {
            commands.push(json!(["usermod", "-a", "-G", his.join(","), name]));
        }
    }
    commands
}

/// The commands that mount a folder.
fn mounted(share: &ShareMount) -> Vec<Value> {
    let mut options = share.first_options();
    for option in &share.options {
        options.push(',');
        options.push_str(option);
    }
    // Never more than this, whatever is asked for: the last word counts.
    options.push_str(",nosuid,nodev");
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use thiao_guest::protocol::GroupEntry;
    use thiao_guest::secret::Secret;

    fn context() -> OneContext {
        let user = |name: &str, uid| UserEntry {
            name: name.into(),
            uid,
            gid: 100,
            home: format!("/home/{name}").into(),
            shell: "/bin/bash".into(),
        };
        OneContext {
            id: "fg1.3".into(),
            hostname: "fg1".into(),
            slurmctld_host: "head".into(),
            slurmctld_addr: Ipv4Addr::new(10, 9, 0, 1),
            slurmctld_port: 6817,
            backups: vec![],
            auth: Auth::Munge {
                munge_key: Secret::from_bytes(b"key"),
                munge_socket: "/run/munge/munge.socket.2".into(),
            },
            users: vec![user("ada", 1000), user("--help", 1001), user("root", 0)],
            groups: vec![GroupEntry {
                name: "lab".into(),
                gid: 2000,
                members: vec!["ada".into()],
            }],
            shares: vec![ShareMount::plain(
                Ipv4Addr::new(10, 9, 0, 1),
                4000,
                "/".into(),
                "/home/ada; reboot".into(),
            )],
            resolver: Resolver::default(),
        }
    }

    #[test]
    fn what_is_told_is_a_list_of_words_for_each_command() {
        let told = user_data(&context()).unwrap();
        let commands: Vec<Vec<String>> = serde_json::from_value(told["runcmd"].clone()).unwrap();
        let of = |name: &str| {
            let found = commands.iter().filter(|words| words[0] == name);
            found.map(|words| words[1..].join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(of("groupadd"), ["-g 2000 lab", "-g 100 ada"]);
        assert_eq!(
            of("useradd"),
            ["-M -N -u 1000 -g 100 -d /home/ada -s /bin/bash ada"],
            "no option is a user, and no user is root"
        );
        assert_eq!(of("usermod"), ["-a -G lab ada"]);
        let mount = commands.iter().find(|words| words[0] == "timeout").unwrap();
        assert_eq!(
            mount.last().unwrap(),
            "/home/ada; reboot",
            "one word, read by no shell"
        );
        assert!(
            mount.iter().any(|word| word.ends_with("actimeo=1,nosuid,nodev")),
            "{mount:?}"
        );
        let files = told["write_files"].as_array().unwrap();
        let drop_ins = files.iter().filter(|file| {
            let path = file["path"].as_str().unwrap();
            path.contains("munge.service.d") || path.contains("slurmd.service.d")
        });
        let on_console = drop_ins.filter(|file| {
            let words = file["content"].as_str().unwrap();
            words.contains("\nStandardError=journal+console\n")
        });
        assert_eq!(on_console.count(), 2, "what they say outlives the VM");
        let key = &told["write_files"][0];
        assert_eq!(
            (key["content"].as_str(), key["permissions"].as_str()),
            (Some("a2V5"), Some("0400"))
        );
    }

    #[test]
    fn no_server_of_the_image_is_asked_for_names() {
        let mut context = context();
        let of = |context: &OneContext| {
            let told = user_data(context).unwrap();
            let files = told["write_files"].as_array().unwrap().clone();
            let file = files
                .into_iter()
                .find(|file| file["path"] == RESOLV_CONF)
                .unwrap();
            let placed = json!(["install", "-m", "644", RESOLV_CONF, "/etc/resolv.conf"]);
            assert_eq!(told["runcmd"][0], placed, "before anything looks up a name");
            file["content"].as_str().unwrap().to_owned()
        };
        assert_eq!(of(&context), "");
        context.resolver.servers = vec![Ipv4Addr::new(10, 0, 0, 53)];
        assert_eq!(of(&context), "nameserver 10.0.0.53\n");
    }

    #[test]
    fn slurmd_asks_every_slurmctld() {
        let mut context = context();
        context.backups = vec!["head2(10.9.0.2)".parse().unwrap()];
        assert!(drop_in(&context).contains("--conf-server 10.9.0.1:6817,10.9.0.2:6817\n"));
        assert!(hosts(&context).contains("10.9.0.2 head2\n"));
    }
}
