use super::*;

/// Code and message of a recorded refusal.
fn recorded(name: &str) -> (i64, String) {
    let body = crate::testing::recording(name);
    match crate::wire::answer(&body) {
        Ok(crate::wire::Answer::Refused { code, message }) => (code, message),
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn recorded_refusals_are_of_the_right_class() {
    let cases = [
        ("010-template-instantiate-no-such-template", Class::NoSuchObject),
        ("011-template-instantiate-bad-extra", Class::BadTemplate),
        ("012-template-instantiate-invalid-name", Class::BadTemplate),
        ("016-vm-allocate-parse-error", Class::BadTemplate),
        ("017-vm-allocate-no-memory", Class::BadTemplate),
        ("019-vm-allocate-no-such-image", Class::BadTemplate),
        ("020-vm-allocate-no-such-network", Class::BadTemplate),
        ("022-vm-allocate-fixed-ip-taken", Class::Capacity),
        ("023-bad-auth", Class::Authentication),
        ("025-vm-info-no-such", Class::NoSuchObject),
        ("034-vm-action-hold-wrong-state", Class::WrongState),
        ("038-vm-deploy-no-such-host", Class::NoSuchObject),
        ("042-vm-action-terminate-in-boot", Class::WrongState),
        ("045-vm-deploy-wrong-state", Class::WrongState),
        ("050-vm-update-bad", Class::BadTemplate),
        ("053-vm-rename-invalid", Class::BadTemplate),
        ("099-vm-action-terminate-twice", Class::WrongState),
        ("116-vmpool-info-search-kv", Class::Unknown),
        ("140-quota-exceeded-allocate", Class::Capacity),
        ("142-plain-user-template-not-authorized", Class::Authorization),
        ("143-plain-user-deploy-not-authorized", Class::Authorization),
        ("147-plain-user-restricted-attr", Class::Authorization),
        (
            "x01-template-instantiate-token-without-onegate-endpoint",
            Class::BadTemplate,
        ),
    ];
    for (name, class) in cases {
        let (code, message) = recorded(name);
        assert_eq!(Class::of(code, &message), class, "{name}: {message}");
    }
}

#[test]
fn what_was_not_recorded_is_of_the_class_that_its_words_tell() {
    // Words from the sources of OpenNebula 7.4.
    let cases = [
        (
            0x800,
            "VM [1] does not fit in HOST [2]. Not enough CPU: 200/100",
            Class::Capacity,
        ),
        (0x4000, "Error inserting VM in DB.", Class::Busy),
        (
            0x2000,
            "SQL command was: ..., error: database is locked",
            Class::Busy,
        ),
        (0x200, "User [2] : user quota exceeded", Class::Capacity),
        (0x8000, "The resource is locked by user 3", Class::Busy),
        (0x10000, "Cannot process request, no leader found", Class::Busy),
        (0x2000, "something new", Class::Unknown),
        (0x7777, "something new", Class::Unknown),
    ];
    for (code, message, class) in cases {
        assert_eq!(Class::of(code, message), class, "{message}");
    }
}

#[test]
fn a_missing_right_is_named_with_what_gives_it() {
    let text = |name: &str, doing: &str| {
        let (code, message) = recorded(name);
        Error::refused(doing, code, &message).text
    };
    let deploy = text("143-plain-user-deploy-not-authorized", "deploy VM 10 on host 0");
    assert!(
        deploy.starts_with(
            "cannot deploy VM 10 on host 0: User [2] : Not authorized to perform ADMIN VM [10]. "
        ),
        "{deploy}"
    );
    assert!(deploy.contains("VM_MANAGE_OPERATIONS"), "{deploy}");
    let template = text(
        "142-plain-user-template-not-authorized",
        "make a VM of template 1",
    );
    assert!(template.contains("TEMPLATE/#ID USE"), "{template}");
    let restricted = text("147-plain-user-restricted-attr", "make a VM");
    assert!(restricted.contains("Take MAC out"), "{restricted}");
    let gpu = Error::refused(
        "make a VM",
        0x200,
        "User [2] : VM Template includes a restricted attribute PCI.",
    );
    assert!(gpu.text.contains("VM_RESTRICTED_ATTR = \"PCI\""), "{gpu}");
    let host = Error::refused(
        "deploy",
        0x200,
        "User [2] : Not authorized to perform MANAGE HOST [0].",
    )
    .text;
    assert!(host.contains("HOST/* MANAGE"), "{host}");
    let create = Error::refused(
        "make",
        0x200,
        "User [2] : Not authorized to perform CREATE TEMPLATE .",
    )
    .text;
    assert!(create.contains("TEMPLATE/* CREATE"), "{create}");
}

#[test]
fn a_lock_is_no_missing_right() {
    for (object, unlock) in [
        ("VM", "onevm unlock"),
        ("TEMPLATE", "onetemplate unlock"),
        ("IMAGE", "oneimage unlock"),
        ("NET", "onevnet unlock"),
    ] {
        let error = Error::refused(
            "end VM 5",
            0x200,
            &format!("[one.vm.action] User [2] : {object} is locked."),
        );
        assert_eq!(error.class, Class::Busy);
        assert!(
            error.text.contains(unlock) && !error.text.contains("oneacl"),
            "{error}"
        );
        assert!(
            !error.text.contains("tried again"),
            "whoever tries says so: {error}"
        );
    }
    assert_eq!(
        Class::of(0x200, "a name like unVM is locked-out"),
        Class::Authorization
    );
}

#[test]
fn a_fault_tells_what_is_too_old() {
    let text = Error::fault("list VMs", -506, "Method 'one.vmpool.infoset' not defined").text;
    assert_eq!(
        text,
        "cannot list VMs: Method 'one.vmpool.infoset' not defined (fault -506). Thiao needs OpenNebula 5.12 or later"
    );
}
