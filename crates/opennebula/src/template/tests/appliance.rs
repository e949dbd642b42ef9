//! OpenNebula's SlurmWorker appliance: the script that its VMs get.

use super::*;
use crate::inputs::{Bind, Infiniband, Ldap};
use std::os::unix::fs::PermissionsExt as _;

#[test]
fn the_appliances_start_script_is_put_where_none_is() {
    let mut guest = guest();
    guest.slurm_worker = true;
    guest.slurmctld_port = 7000;
    let of = |text: &str| {
        let template = Template::parse(text).unwrap();
        with(None, |wanted| {
            let wanted = NewVm {
                guest: &guest,
                ..*wanted
            };
            over_registered(&template, &wanted)
        })
    };
    let extra = of("NIC = [ NETWORK = net ]").unwrap();
    let script = &pairs(&extra, "CONTEXT")["START_SCRIPT_BASE64"];
    let script = STANDARD.decode(script).unwrap();
    let script = String::from_utf8(script).unwrap();
    assert!(
        script.contains("servers='10.0.0.1:7000' key='a2V5' variable=''"),
        "{script}"
    );
    let error = of("NIC = [ NETWORK = net ]\nCONTEXT = [ START_SCRIPT = date ]").unwrap_err();
    assert!(error.text.contains("START_SCRIPT"), "{error}");
}

/// What the appliance's script leaves below a folder, run with what it calls left out. `stubs`: more
/// of that, with `@` for the folder; `Err`: it stops, and why.
fn run(wanted: &NewVm<'_>, stubs: &str) -> (tempfile::TempDir, Result<String, String>) {
    let template = Template::parse("NIC = [ NETWORK = net ]").unwrap();
    let mut guest = wanted.guest.clone();
    guest.slurm_worker = true;
    let wanted = NewVm {
        guest: &guest,
        ..*wanted
    };
    let extra = over_registered(&template, &wanted).unwrap();
    let script = STANDARD
        .decode(pairs(&extra, "CONTEXT")["START_SCRIPT_BASE64"])
        .unwrap();
    let root = tempfile::tempdir().unwrap();
    let etc = root.path().join("etc");
    std::fs::create_dir(&etc).unwrap();
    std::fs::write(
        etc.join("nsswitch.conf"),
        "passwd: files\ngroup:  files sss\nhosts: files dns\n",
    )
    .unwrap();
    let place = root.path().display();
    let script = String::from_utf8(script)
        .unwrap()
        .replace(" /etc/", &format!(" {place}/etc/"))
        .replace(">/etc/", &format!(">{place}/etc/"))
        .replace(" /sys/", &format!(" {place}/sys/"))
        .replace("\"$target\"", &format!("\"{place}$target\""));
    let stubs = stubs.replace('@', &place.to_string());
    let stubs = format!(
        "systemctl() {{ echo \"$@\"; }}\nchown() {{ echo chown \"$1\"; }}\nmount() {{ echo mount \"$@\"; }}\n\
         mountpoint() {{ return 1; }}\nmodprobe() {{ echo modprobe \"$1\"; }}\nsssd() {{ :; }}\nsleep() {{ :; }}\n\
         ip() {{ [ \"$1\" = -4 ] && echo '2: eth0    inet 10.0.3.7/16 brd x' || echo ip \"$@\"; }}\n\
         {stubs}\n{script}"
    );
    let told = std::process::Command::new("sh")
        .arg("-uc")
        .arg(stubs)
        .output()
        .unwrap();
    let said = |bytes| String::from_utf8(bytes).unwrap().replace(&place.to_string(), "");
    let (out, errors) = (said(told.stdout), said(told.stderr));
    let ended = if told.status.success() {
        Ok(out)
    } else {
        Err(errors)
    };
    (root, ended)
}

/// The same where nothing stops it.
fn appliance(wanted: &NewVm<'_>) -> (tempfile::TempDir, String) {
    let (root, ended) = run(wanted, "");
    (root, ended.unwrap())
}

#[test]
fn the_appliance_gets_its_key_and_starts_as_a_node_of_slurm_conf() {
    let unit = |root: &std::path::Path| {
        std::fs::read_to_string(root.join("etc/systemd/system/slurmd.service.d/thiao.conf")).unwrap()
    };
    let (root, told) = with(None, |wanted| appliance(wanted));
    assert_eq!(
        std::fs::read(root.path().join("etc/munge/munge.key")).unwrap(),
        b"key"
    );
    assert!(
        unit(root.path())
            .contains("ExecStart=\nExecStart=/usr/sbin/slurmd --systemd --conf-server 10.0.0.1:6817 -N %l\n"),
        "{}",
        unit(root.path())
    );
    assert_eq!(
        told,
        "chown munge:\nenable munge\nrestart munge\ndaemon-reload\nrestart slurmd\n"
    );
    // By Slurm's own key: munge has no part in it.
    let slurm = Auth::Slurm {
        slurm_key: Secret::from_bytes(b"own"),
    };
    let (root, told) = with(None, |wanted| {
        appliance(&NewVm {
            auth: Some(&slurm),
            ..*wanted
        })
    });
    assert_eq!(
        std::fs::read(root.path().join("etc/slurm/slurm.key")).unwrap(),
        b"own"
    );
    let text = unit(root.path());
    assert!(
        text.contains("[Service]\nEnvironment=SLURM_SACK_KEY=/etc/slurm/slurm.key\n"),
        "{text}"
    );
    assert!(!told.contains("munge"), "{told}");
    // An image that has its key keeps it.
    let (root, told) = with(None, |wanted| {
        appliance(&NewVm {
            auth: None,
            ..*wanted
        })
    });
    assert!(
        !root.path().join("etc/munge").exists() && told.starts_with("daemon-reload"),
        "{told}"
    );
}

/// A VM of a nodeset with all inputs.
fn with_inputs<T>(then: impl FnOnce(&NewVm<'_>) -> T) -> T {
    let inputs = Inputs {
        home: Some("10.0.0.2:/export/home".parse().unwrap()),
        scratch: Some("10.0.0.2:/scratch".parse().unwrap()),
        ldap: Some(Ldap {
            url: "ldap://10.0.0.5".parse().unwrap(),
            domain: "example.org".parse().unwrap(),
            bind: Some(Bind {
                user: "reader".parse().unwrap(),
                password_file: "/p".into(),
            }),
        }),
        infiniband: Some(Infiniband {
            pci: Some(vec![
                ("VENDOR".into(), "15b3".into()),
                ("CLASS".into(), "0207".into()),
            ]),
            ipoib: Some("10.20.0.0/16".parse().unwrap()),
        }),
    };
    let password = Secret::from_bytes(b"it's");
    with(None, |wanted| {
        then(&NewVm {
            inputs: &inputs,
            ldap_password: Some(&password),
            ..*wanted
        })
    })
}

#[test]
fn the_appliance_has_its_folders_people_and_infiniband_before_slurmd_starts() {
    let (root, told) = with_inputs(|wanted| run(wanted, ""));
    assert_eq!(told.unwrap_err(), "no InfiniBand card ib* in this VM\n");
    assert!(!root.path().join("etc/systemd").exists(), "slurmd is left alone");

    let card = "modprobe() { mkdir -p @/sys/class/net/ib0; }";
    let (root, told) = with_inputs(|wanted| run(wanted, card));
    let told = told.unwrap();
    assert_eq!(
        told,
        "mount -t nfs -o sec=sys,_netdev 10.0.0.2:/export/home /home\n\
         mount -t nfs -o sec=sys,_netdev 10.0.0.2:/scratch /scratch\n\
         chown root:\nenable sssd\nrestart sssd\n\
         ip address replace 10.20.3.7/16 dev ib0\nip link set ib0 up\n\
         chown munge:\nenable munge\nrestart munge\ndaemon-reload\nrestart slurmd\n"
    );
    let etc = root.path().join("etc");
    let sssd = etc.join("sssd/sssd.conf");
    let text = std::fs::read_to_string(&sssd).unwrap();
    assert!(text.contains("\nldap_default_authtok = it's\n"), "{text}");
    assert_eq!(
        std::fs::metadata(&sssd).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(
        std::fs::read_to_string(etc.join("nsswitch.conf")).unwrap(),
        "passwd: files sss\ngroup:  files sss\nhosts: files dns\n"
    );
}

#[test]
fn a_node_without_what_its_jobs_need_starts_no_slurmd() {
    for (stub, why) in [
        ("mount() { echo no server >&2; return 32; }", "no server\n"),
        (
            "command() { return 1; }",
            "no sssd in this image: it cannot ask LDAP\n",
        ),
        (
            "ip() { echo '2: eth0    inet 10.0.0.0/8 brd x'; }",
            "the address '10.0.0.0' has no end for one in 10.20/16\n",
        ),
    ] {
        let (root, told) = with_inputs(|wanted| run(wanted, stub));
        assert_eq!(told.unwrap_err(), why);
        assert!(!root.path().join("etc/systemd").exists(), "{why}");
    }
    // What the image has mounted stays.
    let (_, told) = with_inputs(|wanted| {
        let inputs = Inputs {
            infiniband: None,
            ..wanted.inputs.clone()
        };
        run(
            &NewVm {
                inputs: &inputs,
                ..*wanted
            },
            "mountpoint() { return 0; }",
        )
    });
    assert!(!told.unwrap().contains("mount"));
}

#[test]
fn a_vm_gets_a_function_of_a_card_unless_its_template_has_it() {
    let devices = |text: &str| {
        let template = Template::parse(text).unwrap();
        let extra = with_inputs(|wanted| over_registered(&template, wanted)).unwrap();
        extra
            .vectors("PCI")
            .map(|device| device[0].1.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(devices("NIC = [ NETWORK = net ]"), ["15b3"]);
    assert_eq!(devices("PCI = [ VENDOR = 10de ]"), ["10de", "15b3"]);
    assert!(devices("PCI = [ DEVICE = 101e, VENDOR = 15B3, CLASS = 0207 ]").is_empty());
}

#[test]
fn inputs_stand_over_the_template_and_reach_thiaos_own_guest() {
    let template = Template::parse("CONTEXT = [ ONEAPP_SLURM_NFS_HOME = \"10.9.9.9:/old\" ]").unwrap();
    let extra = with_inputs(|wanted| over_registered(&template, wanted)).unwrap();
    let context = pairs(&extra, "CONTEXT");
    assert_eq!(context["ONEAPP_SLURM_NFS_HOME"], "10.0.0.2:/export/home");
    assert_eq!(context["ONEAPP_LDAP_BIND_PASSWORD"], "it's");
    let told = STANDARD.decode(context["THIAO_CONTEXT"]).unwrap();
    let told: DiskContext = serde_json::from_slice(&told).unwrap();
    let targets: Vec<_> = told
        .common
        .shares
        .iter()
        .map(|share| share.target.clone())
        .collect();
    assert_eq!(targets, ["/home", "/scratch"].map(std::path::PathBuf::from));
}
