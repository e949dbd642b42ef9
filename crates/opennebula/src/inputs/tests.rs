use super::*;
use std::os::unix::fs::PermissionsExt as _;

fn ldap(user: Option<&str>, file: &Path) -> Ldap {
    Ldap {
        url: "ldaps://10.0.0.5:1636".parse().unwrap(),
        domain: "example.org".parse().unwrap(),
        bind: user.map(|user| Bind {
            user: user.parse().unwrap(),
            password_file: file.to_owned(),
        }),
    }
}

/// All that can be said.
fn all() -> Inputs {
    Inputs {
        home: Some("10.0.0.2:/export/home".parse().unwrap()),
        scratch: Some("10.0.0.3:/scratch".parse().unwrap()),
        ldap: Some(ldap(Some("reader"), Path::new("/p"))),
        infiniband: Some(Infiniband {
            pci: None,
            ipoib: Some("10.20.0.0/16".parse().unwrap()),
        }),
    }
}

#[test]
fn guests_are_told_by_oneslurms_names() {
    let told = all().attributes(Some("secret"));
    let told: Vec<(&str, &str)> = told.iter().map(|(name, text)| (*name, text.as_str())).collect();
    assert_eq!(
        told,
        [
            ("ONEAPP_SLURM_NFS_HOME", "10.0.0.2:/export/home"),
            ("ONEAPP_SLURM_NFS_SCRATCH", "10.0.0.3:/scratch"),
            ("ONEAPP_LDAP_URL", "ldaps://10.0.0.5:1636"),
            ("ONEAPP_LDAP_DOMAIN", "example.org"),
            ("ONEAPP_LDAP_BIND_USER", "reader"),
            ("ONEAPP_LDAP_BIND_PASSWORD", "secret"),
            ("ONEAPP_SLURM_INFINIBAND_ENABLE", "YES"),
            ("ONEAPP_SLURM_IPOIB_SUBNET", "10.20.0.0/16"),
        ]
    );
    assert!(Inputs::default().attributes(Some("secret")).is_empty());
    // A card without addresses is no InfiniBand in OneSlurm's sense: it would ask for a subnet.
    let card = Inputs {
        infiniband: Some(Infiniband {
            pci: Some(vec![("VENDOR".into(), "15b3".into())]),
            ipoib: None,
        }),
        ..Inputs::default()
    };
    assert!(card.attributes(None).is_empty());
}

#[test]
fn a_nodesets_folders_take_the_place_of_those_for_all() {
    let share = |path: &str, target: &str| {
        ShareMount::plain(Ipv4Addr::new(10, 9, 9, 9), 4000, path.into(), target.into())
    };
    let shares = all().shares(&[share("/h", "/home"), share("/sw", "/sw")]);
    let shown: Vec<String> = shares
        .iter()
        .map(|share| {
            format!(
                "{}:{} {} {}",
                share.server,
                share.port,
                share.path.display(),
                share.target.display()
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "10.0.0.2:2049 /export/home /home",
            "10.0.0.3:2049 /scratch /scratch",
            "10.9.9.9:4000 /sw /sw"
        ]
    );
}

#[test]
fn nonsense_is_refused() {
    for odd in [
        "",
        "10.0.0.2",
        "nas:/home",
        "10.0.0.2:home",
        "10.0.0.2:/a b",
        "10.0.0.2:/$HOME",
        "10.0.0.2:/a'b",
    ] {
        assert!(odd.parse::<Export>().is_err(), "{odd}");
    }
    for odd in ["", "10.20.0.0/20", "10.20.0.0/33", "10.20/16", "fd00::/16"] {
        assert!(odd.parse::<Subnet>().is_err(), "{odd}");
    }
    assert_eq!("10.20.3.0".parse::<Subnet>().unwrap().to_string(), "10.20.3.0/24");
    let said = "10.20.3.7/16".parse::<Subnet>().unwrap_err();
    assert!(said.contains("\"10.20.0.0/16\""), "{said}");
    for odd in [
        "",
        "http://h",
        "ldap://",
        "ldap://h:0",
        "ldap://h:port",
        "ldap://h/dc=x",
        "ldap://a b",
        "ldap://u@h",
        "ldap://127.0.0.1",
        "ldaps://localhost:636",
    ] {
        assert!(odd.parse::<LdapUrl>().is_err(), "{odd}");
    }
    for good in [
        "ldap://h",
        "ldap://10.0.0.5/",
        "ldaps://ldap.example.org:636",
        "ldap://[fd00::5]:389",
    ] {
        assert!(good.parse::<LdapUrl>().is_ok(), "{good}");
    }
    for odd in [
        "dc=",
        "=example",
        "dc=example,org",
        "",
        "a b",
        "example..org",
        "dc=a\nldap_uri = x",
        "dc=$a",
    ] {
        assert!(odd.parse::<LdapDomain>().is_err(), "{odd}");
    }
    for odd in ["", " a", "a\"b", "a`b"] {
        assert!(odd.parse::<LdapUser>().is_err(), "{odd}");
    }
}

#[test]
fn sssd_is_told_what_oneslurm_tells_it_and_trusts_no_stranger() {
    let conf = ldap(Some("reader"), Path::new("/p")).sssd_conf(Some("secret"));
    for line in [
        "ldap_uri = ldaps://10.0.0.5:1636",
        "ldap_search_base = dc=example,dc=org",
        "ldap_user_search_base = ou=People,dc=example,dc=org",
        "ldap_default_bind_dn = cn=reader,dc=example,dc=org",
        "ldap_default_authtok = secret",
    ] {
        assert!(conf.lines().any(|there| there == line), "{line} in\n{conf}");
    }
    assert!(!conf.contains("reqcert"), "{conf}");
    let conf = ldap(Some("uid=r,ou=x"), Path::new("/p")).sssd_conf(None);
    assert!(conf.contains("\nldap_default_bind_dn = uid=r,ou=x\n"), "{conf}");
    assert!(
        !ldap(None, Path::new("/p"))
            .sssd_conf(None)
            .contains("default_bind")
    );
}

#[test]
fn a_password_is_for_its_owner_and_arrives_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ldap");
    let ldap = ldap(Some("reader"), &file);
    let read = |text: &str, mode: u32| {
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        ldap.password()
    };
    let password = read("se'cret #1\nmore\n", 0o600).unwrap().unwrap();
    assert_eq!(password.to_bytes().unwrap(), b"se'cret #1");
    let error = read("secret\n", 0o644).unwrap_err();
    assert!(
        error.text.contains("chmod 600") && !error.text.contains("secret"),
        "{error}"
    );
    for odd in [
        "", "\n", " secret", "se$cret", "se\\cret", "se`cret", "se\"cret", "se\tcret",
    ] {
        let error = read(odd, 0o600).unwrap_err();
        assert!(
            error.class == Class::BadTemplate && !error.text.contains("cret"),
            "{error}"
        );
    }
    std::fs::remove_file(&file).unwrap();
    assert!(ldap.password().unwrap_err().text.contains("the LDAP password in"));
}
