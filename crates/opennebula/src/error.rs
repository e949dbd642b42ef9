//! Why a call failed, by what it means for the next try.

use std::io;
use thiao_core::view::ErrorClass;

/// Why a call failed, and of what kind that is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Error {
    /// What kind of failure.
    pub class: Class,
    /// What failed, why, what the person can do. Never holds a secret.
    pub text: String,
    /// Whether it is a file of ours that this process was not let read; another user's may be.
    pub denied: bool,
}

/// The kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The credentials were not accepted (0x100).
    Authentication,
    /// The user may not do that (0x200 without a quota's text).
    Authorization,
    /// There is no object of that id (0x400).
    NoSuchObject,
    /// The template cannot be used: it does not parse, or names what is not there.
    BadTemplate,
    /// A quota is used up, or a host, datastore or network has no capacity.
    Capacity,
    /// The VM's state does not allow it (0x800).
    WrongState,
    /// oned is busy or starting, or somebody has locked the object: the same call may work later.
    Busy,
    /// oned could not be reached, did not answer in time, or the answer was cut off.
    /// Whether the call was executed is not known.
    Network,
    /// An answer that makes no sense, or a code that we do not know.
    Unknown,
}

impl Class {
    /// What it means to the controller.
    #[must_use]
    pub fn meaning(self) -> ErrorClass {
        match self {
            Class::Capacity => ErrorClass::Full,
            Class::Busy | Class::Network | Class::Unknown | Class::WrongState | Class::Authentication => {
                ErrorClass::Transient
            }
            Class::Authorization | Class::NoSuchObject | Class::BadTemplate => ErrorClass::Refused,
        }
    }

    /// From the code and the words of a refusal, `[false, message, code, ...]`.
    ///
    /// Codes are those of OpenNebula's `Request.h`, the same from 5.12 to 7.4. The words
    /// count too: oned has one code for quotas and for rights (0x200), and one for bad
    /// templates, networks without a lease and its own troubles (0x2000).
    #[must_use]
    pub fn of(code: i64, message: &str) -> Self {
        let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
        match code {
            0x100 => Class::Authentication,
            // The database of a busy oned; also what an INSERT says then.
            _ if says(&["database is locked", "in DB"]) => Class::Busy,
            0x8000 | 0x1_0000 => Class::Busy,
            0x200 if says(&["quota", "limit of"]) => Class::Capacity,
            0x200 if lock(message).is_some() => Class::Busy,
            0x200 => Class::Authorization,
            0x400 => Class::NoSuchObject,
            0x800 | 0x1000 | 0x2000 | 0x4000 => {
                if says(NO_ROOM) {
                    Class::Capacity
                } else if says(BAD_TEMPLATE) {
                    Class::BadTemplate
                } else if code == 0x800 {
                    Class::WrongState
                } else {
                    Class::Unknown
                }
            }
            _ => Class::Unknown,
        }
    }
}

/// How OpenNebula says that something is full (read from the sources of 7.4).
const NO_ROOM: &[&str] = &[
    "Cannot get IP/MAC lease",
    "does not fit in",
    "Not enough",
    "not enough",
    "No free VNC port",
    "quota",
];

/// How OpenNebula says that a template is wrong (read from the sources of 7.4).
const BAD_TEMPLATE: &[&str] = &[
    "Parse error",
    "syntax error",
    "attribute must be",
    "does not exist",
    "does not own",
    "Invalid NAME",
    "Wrong OS/BOOT",
    "Incompatible ",
    "Missing clusters",
    "restricted attribute",
    "onegate endpoint",
    "Unknown disk type",
    "same target",
    "not part of cluster",
];

impl Error {
    /// An error of that class.
    pub(crate) fn new(class: Class, text: impl Into<String>) -> Self {
        Self {
            class,
            text: text.into(),
            denied: false,
        }
    }

    /// For a file that could not be read, because of `error`.
    pub(crate) fn of_file(class: Class, text: impl Into<String>, error: &io::Error) -> Self {
        Self {
            denied: error.kind() == io::ErrorKind::PermissionDenied,
            ..Self::new(class, text)
        }
    }

    /// What oned answered to what we wanted to do: `[false, message, code, ...]`.
    pub(crate) fn refused(doing: &str, code: i64, message: &str) -> Self {
        let class = Class::of(code, message);
        let said = said(message);
        let text = match advice(class, code, said) {
            Some(advice) => format!("cannot {doing}: {said}. {advice}"),
            None => format!("cannot {doing}: {said}"),
        };
        Self::new(class, text)
    }

    /// What oned answered to what we wanted to do: a `<fault>`, which it gives for calls
    /// that it does not have (-506) and arguments that it does not take (-501).
    pub(crate) fn fault(doing: &str, code: i64, message: &str) -> Self {
        let advice = if code == -506 {
            "Thiao needs OpenNebula 5.12 or later"
        } else {
            "Is this an oned? Check the endpoint"
        };
        Self::new(
            Class::Unknown,
            format!("cannot {doing}: {} (fault {code}). {advice}", said(message)),
        )
    }
}

/// OpenNebula's own words, without the name of the call in front and the stop at the end.
fn said(message: &str) -> &str {
    let rest = match message.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((_, rest)) => rest,
        None => message,
    };
    rest.trim().trim_end_matches('.')
}

/// What takes a lock off, if that is why oned refused: it says so as it says that a right is missing (0x200,
/// `VM is locked`; `AuthManager.cc` of 7.4).
fn lock(said: &str) -> Option<&'static str> {
    let (before, _) = said.split_once(" is locked")?;
    match before.rsplit([' ', ']']).next()? {
        "VM" => Some("onevm unlock"),
        "TEMPLATE" => Some("onetemplate unlock"),
        "IMAGE" => Some("oneimage unlock"),
        "NET" => Some("onevnet unlock"),
        _ => None,
    }
}

/// What the person can do about it.
fn advice(class: Class, code: i64, said: &str) -> Option<String> {
    if let (0x200, Some(unlock)) = (code, lock(said)) {
        return Some(format!("Somebody has locked it: unlock it ({unlock} ID)"));
    }
    match class {
        Class::Authentication => Some(
            "Put the user's name and password, or a token that has not expired (oneuser token-create), \
             into the credentials file"
                .into(),
        ),
        Class::Authorization => Some(right(said)),
        Class::Capacity if code == 0x200 => Some(
            "Ask for a larger quota (oneuser quota, onegroup quota), or let Slurm use fewer nodes".into(),
        ),
        Class::Capacity if said.contains("lease") => {
            Some("Add addresses to that network (onevnet addar)".into())
        }
        Class::BadTemplate => Some("Correct the template".into()),
        Class::Unknown => Some(format!(
            "OpenNebula's code is 0x{code:x}; its oned.log may say more"
        )),
        Class::Capacity | Class::NoSuchObject | Class::WrongState | Class::Busy | Class::Network => None,
    }
}

/// Which right is missing, as far as OpenNebula says it: `Not authorized to perform
/// ADMIN VM [10]`.
fn right(said: &str) -> String {
    if let Some((_, attribute)) = said.rsplit_once("restricted attribute ") {
        if attribute == "PCI" {
            // Ours, for GPUs. Restricted in oned.conf as it comes (seen on 7.4).
            return "Only the group oneadmin may attach PCI devices: add Thiao's user to it, or take \
                    VM_RESTRICTED_ATTR = \"PCI\" out of oned.conf"
                .to_owned();
        }
        return format!(
            "Take {attribute} out of the template, or register the template as a user of group oneadmin"
        );
    }
    let wanted = said.split_once("perform ").map(|(_, wanted)| wanted);
    let Some((right, object)) = wanted.and_then(|wanted| wanted.split_once(' ')) else {
        return "Let an administrator give the user that right (oneacl create)".into();
    };
    let kind = object.split([' ', '[']).next().unwrap_or_default();
    match (right, kind) {
        ("ADMIN", "VM") => {
            "Owners lack it: give the user an ACL, oneacl create '#UID VM/@GID USE+MANAGE+ADMIN', \
             or in the user's template VM_MANAGE_OPERATIONS=\"deploy, delete\" (oneuser update)"
                .into()
        }
        ("MANAGE", "HOST") => {
            "Placing VMs on hosts needs it: oneacl create '#UID HOST/* MANAGE'; or let OpenNebula's scheduler \
             place them, placement = \"opennebula\""
                .into()
        }
        ("CREATE", "TEMPLATE") => {
            "Instantiating with more attributes needs it: oneacl create '#UID TEMPLATE/* CREATE'".into()
        }
        ("CREATE", kind) => format!("Give it: oneacl create '#UID {kind}/* CREATE'"),
        (right, kind) => format!(
            "Give it: oneacl create '#UID {kind}/#ID {right}', or by the object's permissions (chmod, chown)"
        ),
    }
}

#[cfg(test)]
mod tests;
