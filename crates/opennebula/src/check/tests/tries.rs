//! What tries show.

use super::*;

#[test]
fn a_try_settles_the_rights() {
    let tried = |recovered, removed| Tried {
        source: "template worker".to_owned(),
        shape: wanted().nodesets[0].shape,
        made: Ok(41),
        addresses: Ok(vec!["10.0.0.10".parse().unwrap()]),
        recovered,
        removed,
    };
    let mut seen = seen();
    plain(&mut seen);
    seen.tried = vec![tried(Ok(()), Ok(()))];
    holds(
        &about(&seen, &wanted(), "rights"),
        Verdict::Ok,
        "as a try showed",
        "",
    );
    holds(
        &about(&seen, &wanted(), "try"),
        Verdict::Ok,
        "VM 41, never started: 2 CPUs, 900 MiB, 10.0.0.10)",
        "",
    );
    // A VM that nobody can reach is no good one.
    let mut alone = tried(Ok(()), Ok(()));
    alone.addresses = Ok(Vec::new());
    seen.tried = vec![alone];
    holds(
        &about(&seen, &wanted(), "try"),
        Verdict::Warn,
        "no address",
        "give its NIC",
    );

    seen.tried = vec![tried(Err(error(Class::Authorization)), Ok(()))];
    holds(
        &about(&seen, &wanted(), "rights"),
        Verdict::Bad,
        "lacks ADMIN",
        "oneacl",
    );
    let mut by_one = wanted();
    by_one.placement = Placement::OpenNebula;
    holds(
        &about(&seen, &by_one, "rights"),
        Verdict::Warn,
        "hangs while it starts",
        "oneacl",
    );

    // Another failure says nothing of rights; what was left behind is named.
    seen.tried = vec![tried(Err(error(Class::Busy)), Err(error(Class::Busy)))];
    holds(
        &about(&seen, &wanted(), "rights"),
        Verdict::Warn,
        "cannot be seen",
        "oneacl",
    );
    holds(
        &about(&seen, &wanted(), "try"),
        Verdict::Bad,
        "VM 41",
        "onevm terminate --hard 41",
    );
}

#[test]
fn a_failed_try_names_the_right_that_lacks() {
    let mut seen = seen();
    plain(&mut seen);
    for (class, remedy) in [
        (Class::Authorization, "TEMPLATE/* USE+CREATE"),
        (Class::Capacity, "free some of the quota"),
        (Class::BadTemplate, "mend what the message says"),
    ] {
        seen.tried = vec![Tried {
            source: "template worker".to_owned(),
            shape: wanted().nodesets[0].shape,
            made: Err(error(class)),
            addresses: Err(error(class)),
            recovered: Err(error(class)),
            removed: Ok(()),
        }];
        holds(
            &about(&seen, &wanted(), "try"),
            Verdict::Bad,
            "no VM (2 CPUs, 900 MiB) can be made from template worker",
            remedy,
        );
        assert_eq!(about(&seen, &wanted(), "rights").verdict, Verdict::Warn);
    }
}
