//! `thiao setup --create`: a place for a cluster in OpenNebula, from an administrator's credentials alone: a user in
//! a group of his own, the least rights that Thiao needs, and what VMs are made from.
//!
//! First all is looked at (`observe`), then a plan is made of it (`plan`, pure), shown with the command of OpenNebula's
//! own tools that does each step (`command`), and carried out (`carry_out`). Each step is a call of its own, and
//! the next run goes on from what it finds. `remove` plans the way back.
//!
//! What was made says so: its own template has [`MARK`] with the cluster's name. A group and a user are made by one
//! call and marked by the next; that they were ours already in between, the comment in the credentials' file tells,
//! which is written before them.

pub mod carry_out;
mod command;
pub mod observe;
mod plan;
mod remove;
#[cfg(test)]
mod tests;

pub use command::{command_of, script};
pub use observe::vms_of;
pub use plan::{open_networks, plan};
pub use remove::plan as plan_removal;

use std::fmt;
use std::path::PathBuf;
use thiao_core::ids::ClusterName;
use thiao_opennebula::acl::Rule;
use thiao_opennebula::model::{Account, Circle, Object, User};
use thiao_opennebula::secgroup::SecGroup;
use thiao_opennebula::settings::Placement;

/// The attribute that what was made has in its own template: for which cluster.
pub const MARK: &str = "THIAO_MADE_FOR";

/// What a person wants to be there in the end.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub cluster: ClusterName,
    /// The service's user in OpenNebula; none: whom the credentials name, else one named after the cluster.
    pub user: Option<String>,
    /// The group of a user that is made; none: named as he is.
    pub group: Option<String>,
    /// The file with the service's credentials.
    pub auth: PathBuf,
    /// Templates that are registered already, by name or id.
    pub templates: Vec<String>,
    /// A template that is to be made.
    pub making: Option<Making>,
    /// Networks for VMs whose template has none, by name or id.
    pub networks: Vec<String>,
    pub placement: Placement,
    /// Whether security groups keep VMs from each other.
    pub fence: bool,
}

impl Wanted {
    /// The name of what is made, where nobody gave one.
    #[must_use]
    pub fn name(&self) -> String {
        format!("thiao-{}", self.cluster)
    }
}

/// What a new template is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Making {
    /// A registered image with slurmd, by name or id.
    Image(String),
    /// Thiao's own guest: the folder with vmlinuz and initrd, as the front-end sees it.
    Guest(PathBuf),
    /// The same, the folder being on every host: nothing is copied for a VM.
    GuestOnHosts(PathBuf),
}

/// What the front-end has, as an administrator sees it, and the service's credentials.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Whose credentials these are.
    pub me: User,
    pub users: Vec<Account>,
    pub groups: Vec<Circle>,
    /// ACL rules with their ids.
    pub rules: Vec<(u32, Rule)>,
    pub templates: Vec<Object>,
    pub images: Vec<Object>,
    pub networks: Vec<Object>,
    pub datastores: Vec<Object>,
    pub secgroups: Vec<SecGroup>,
    pub auth: AuthFile,
}

impl Seen {
    /// What the file's comment says, if it is of that cluster.
    fn note(&self, cluster: &ClusterName) -> Option<&Note> {
        match &self.auth {
            AuthFile::There { made, .. } => made.as_ref().filter(|note| note.cluster == cluster.as_str()),
            AuthFile::Missing => None,
        }
    }

    /// Whether the user was made for that cluster: he is marked, or has the password that was made for him, which
    /// nobody else knows.
    fn made_user(&self, user: &Account, cluster: &ClusterName) -> bool {
        match user.template.get(MARK) {
            Some(mark) => mark == cluster.as_str(),
            None => {
                let his = matches!(&self.auth, AuthFile::There { user: name, accepted: true, .. } if *name == user.name);
                his && self.note(cluster).is_some()
            }
        }
    }

    /// Whether the group was made for that cluster: it is marked, or was to be made, and has no other users.
    fn made_group(&self, group: &Circle, cluster: &ClusterName) -> bool {
        if let Some(mark) = group.template.get(MARK) {
            return mark == cluster.as_str();
        }
        let noted = self.note(cluster).and_then(|note| note.group.as_ref()) == Some(&group.name);
        let ours = |id: &u32| {
            let mut users = self.users.iter();
            users.any(|user| user.id == *id && self.made_user(user, cluster))
        };
        noted && group.users.iter().all(ours)
    }
}

/// The file with the service's credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthFile {
    Missing,
    There {
        user: String,
        /// What its comment says, if this program wrote it.
        made: Option<Note>,
        /// Whether oned takes them.
        accepted: bool,
    },
}

/// The comment in a credentials' file that was made: what was to be made after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub cluster: String,
    /// The group, if it was to be made too.
    pub group: Option<String>,
}

const NOTE: &str = "Made by `thiao setup --create` for cluster ";

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{NOTE}{}", self.cluster)?;
        match &self.group {
            Some(group) => write!(f, ", with group {group}"),
            None => Ok(()),
        }
    }
}

impl Note {
    /// Reads the comment; none: somebody else wrote it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(NOTE)?;
        let (cluster, group) = match rest.split_once(", with group ") {
            Some((cluster, group)) => (cluster, Some(group.to_owned())),
            None => (rest, None),
        };
        Some(Self {
            cluster: cluster.to_owned(),
            group,
        })
    }
}

/// All that is to be done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// What VMs are made from, for the settings.
    pub template: Option<String>,
    /// The nodeset's network, for the settings; none: templates have theirs.
    pub network: Option<String>,
}

impl Plan {
    /// Whether anything is to be done.
    #[must_use]
    pub fn acts(&self) -> bool {
        self.steps.iter().any(|step| step.action.is_some())
    }
}

/// One step: an action, or what stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub verb: Verb,
    /// For people: `group thiao-prod`.
    pub what: String,
    pub why: String,
    pub action: Option<Action>,
}

/// What a step does, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// It is there, and stays as it is.
    Take,
    Make,
    /// It is there, and is changed.
    Change,
    /// A right is given.
    Give,
    /// The run waits for it.
    Await,
    Remove,
    /// It is not removed.
    Leave,
}

impl Verb {
    /// The word that people and programs read.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Take => "take",
            Self::Make => "make",
            Self::Change => "change",
            Self::Give => "give",
            Self::Await => "wait for",
            Self::Remove => "remove",
            Self::Leave => "leave",
        }
    }
}

/// An object's id, or by what name that of a made one is known in this plan: `user`, `group`, `kernel`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Id {
    Known(u32),
    Made(&'static str),
}

/// Something to be done: one call, or a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    WriteAuth {
        file: PathBuf,
        user: String,
        note: Note,
    },
    MakeGroup {
        name: String,
    },
    /// Adds attributes to a group's or user's own template.
    Tell {
        of: Party,
        id: Id,
        text: String,
    },
    /// Makes the user of the credentials' file.
    MakeUser {
        name: String,
        group: Id,
        file: PathBuf,
    },
    /// Gives the user the password in the credentials' file.
    SetPassword {
        id: u32,
        name: String,
        file: PathBuf,
    },
    MakeImage {
        /// By what name its id is known in this plan.
        key: &'static str,
        text: String,
        datastore: u32,
    },
    AwaitImage {
        id: Id,
    },
    /// Waits until an image that is being deleted is gone.
    AwaitGone {
        id: u32,
    },
    MakeTemplate {
        text: String,
    },
    RewriteTemplate {
        id: u32,
        text: String,
    },
    /// An ACL rule for the user.
    Give {
        user: Id,
        grant: Grant,
    },
    Remove {
        of: Party,
        id: u32,
    },
    RemoveAuth {
        file: PathBuf,
    },
}

/// Of what kind an object is that is changed or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    User,
    Group,
    Template,
    Image,
    SecGroup,
}

/// A right that may be about an object which is not there yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// As ACL rules name it: `HOST`.
    pub kind: &'static str,
    /// None: all of that kind.
    pub id: Option<Id>,
    pub rights: &'static str,
}

impl Grant {
    /// As `oneacl` takes it, with what stands for ids that are not known yet.
    fn text(&self, made: impl Fn(&'static str) -> String) -> String {
        let which = match &self.id {
            None => "*".to_owned(),
            Some(Id::Known(id)) => format!("#{id}"),
            Some(Id::Made(key)) => format!("#{}", made(key)),
        };
        format!("{}/{which} {}", self.kind, self.rights)
    }

    /// As a right; none while the object is not there.
    fn known(&self) -> Option<thiao_opennebula::acl::Grant> {
        match self.id {
            Some(Id::Made(_)) => None,
            Some(Id::Known(_)) | None => thiao_opennebula::acl::Grant::parse(&self.text(|_| String::new())),
        }
    }
}

/// Why there is no plan: each reason with what the person can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(pub Vec<String>);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl std::error::Error for Refused {}
