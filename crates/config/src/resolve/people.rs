//! The guests' users, alike for all providers.

use super::machine::Machine;
use crate::read::Section;
use thiao_qemu::User;

/// All users of the guests: those whom this machine knows, and those whom the file describes.
pub fn guests_users(table: &Section<'_, '_>, machine: &Machine) -> Vec<User> {
    named(table, machine).0
}

/// The same, and whether there are any of the first kind: these alone are meant then.
pub fn named(table: &Section<'_, '_>, machine: &Machine) -> (Vec<User>, bool) {
    let mut users = users(table, machine);
    let narrowed = !users.is_empty();
    let own = table.tables("user");
    users.extend(own.iter().filter_map(user));
    for (n, user) in users.iter().enumerate() {
        if users
            .iter()
            .take(n)
            .any(|other| other.name == user.name || other.uid == user.uid)
        {
            table.problem("user", format!("{} (uid {}) is there twice", user.name, user.uid));
        }
    }
    (users, narrowed)
}

/// The users that are taken as this machine knows them.
fn users(table: &Section<'_, '_>, machine: &Machine) -> Vec<User> {
    let names = table.texts("users", |name| match (machine.user)(name)? {
        user if user.uid == 0 => Err(format!("{name} has uid 0, which jobs never have")),
        _ => Ok(()),
    });
    names
        .iter()
        .filter_map(|name| (machine.user)(name).ok())
        .collect()
}

/// A user described in the file.
fn user(table: &Section<'_, '_>) -> Option<User> {
    table.show_head();
    let name = table.required::<String>("name", "give the login name");
    let uid = table.required_number("uid", 1..=u32::MAX - 2, "give the numeric user id");
    let gid = table.required_number(
        "gid",
        1..=u32::MAX - 2,
        "give the numeric id of the primary group",
    );
    let home = table.path("home", Some("/".into()))?;
    let shell = table.path("shell", Some("/bin/bash".into()))?;
    table.close();
    let name = name?;
    // What a line of passwd can hold.
    let good = |text: &str| !text.bytes().any(|b| b == b':' || b.is_ascii_control());
    if name.is_empty() || !good(&name) {
        table.problem("name", "is no login name");
    }
    if !good(&home.to_string_lossy()) || !good(&shell.to_string_lossy()) {
        table.problem("home", "home and shell may not hold ':' or control characters");
    }
    Some(User {
        name,
        uid,
        gid,
        home,
        shell,
    })
}
