//! The service's user: made, or taken as he is.

use super::{Plans, ServiceUser, Whose, marked};
use crate::create::{Action, AuthFile, Id, MARK, Note, Party, Verb};
use thiao_opennebula::model::Account;
use thiao_opennebula::settings::Placement;

/// What oned allows in no name of a user (`PoolObjectSQL` and `User::INVALID_NAME_CHARS`); of a group a little less.
const NOT_IN_NAMES: &str = "&|:\\\";/'#{}$<>\t\n\u{b}\u{c}\r ";

/// In bytes, as oned counts.
const LONGEST_NAME: usize = 128;

impl Plans<'_> {
    pub(super) fn user(&mut self) -> ServiceUser {
        let (wanted, seen) = (self.wanted, self.seen);
        let file = &wanted.auth;
        let name = match (&seen.auth, &wanted.user) {
            (AuthFile::There { user, .. }, Some(given)) if user != given => {
                self.refuse(format!(
                    "{} has the credentials of {user}, not of {given}: name another file with --auth, or no --user",
                    file.display()
                ));
                given.clone()
            }
            (AuthFile::There { user, .. }, _) => user.clone(),
            (AuthFile::Missing, Some(given)) => given.clone(),
            (AuthFile::Missing, None) => wanted.name(),
        };
        let group = wanted.group.clone().unwrap_or_else(|| name.clone());
        match seen.users.iter().find(|user| user.name == name) {
            Some(found) => self.user_there(found, &group),
            None => self.user_made(name, &group),
        }
    }

    fn user_made(&mut self, name: String, group: &str) -> ServiceUser {
        let (wanted, seen) = (self.wanted, self.seen);
        let file = wanted.auth.clone();
        let making_group = !seen.groups.iter().any(|found| found.name == group);
        self.can_be_named("user", &name, "--user");
        if making_group && group != name {
            self.can_be_named("group", group, "--group");
        }
        self.auth_file(&name, making_group.then(|| group.to_owned()));
        let id = self.group(group);
        let made = Action::MakeUser {
            name: name.clone(),
            group: id,
            file: file.clone(),
        };
        let why = format!("Thiao's own, with the password in {}", file.display());
        self.add(Verb::Make, format!("user {name}"), why, Some(made));
        self.tell(&name, Id::Made("user"), None);
        ServiceUser {
            name,
            id: Id::Made("user"),
            ours: true,
        }
    }

    /// Refuses a name that oned would refuse, before there is a file with it: the next run goes by that file.
    fn can_be_named(&mut self, what: &str, name: &str, option: &str) {
        let fault = match name.chars().find(|char| NOT_IN_NAMES.contains(*char)) {
            _ if name.is_empty() => "it is empty".to_owned(),
            Some(char) => format!("it has {char:?}"),
            None if name.len() > LONGEST_NAME => format!("it is longer than {LONGEST_NAME} bytes"),
            None => return,
        };
        self.refuse(format!(
            "{what} {name:?} cannot be made: OpenNebula takes no such name, since {fault}; name another with {option}"
        ));
    }

    /// The credentials' file, before whom it is of.
    fn auth_file(&mut self, user: &str, group: Option<String>) {
        let file = self.wanted.auth.clone();
        let shown = file.display().to_string();
        if let AuthFile::There { made, .. } = &self.seen.auth {
            let why = match made {
                Some(_) => "made before",
                None => "it is there; its password becomes the user's",
            };
            return self.take(shown, why);
        }
        let note = Note {
            cluster: self.wanted.cluster.to_string(),
            group,
        };
        let action = Action::WriteAuth {
            file,
            user: user.to_owned(),
            note,
        };
        let why = "a random password, for the service's user alone";
        self.add(Verb::Make, shown, why, Some(action));
    }

    /// The group of a user that is made, or was.
    fn group(&mut self, name: &str) -> Id {
        let (wanted, seen) = (self.wanted, self.seen);
        let what = format!("group {name}");
        let Some(found) = seen.groups.iter().find(|group| group.name == name) else {
            let why = "of its own, so that rights on its VMs reach no others";
            let action = Action::MakeGroup {
                name: name.to_owned(),
            };
            self.add(Verb::Make, &what, why, Some(action));
            self.mark_group(what, Id::Made("group"));
            return Id::Made("group");
        };
        let id = Id::Known(found.id);
        let ours = seen.made_group(found, &wanted.cluster);
        match marked(found.template.get(MARK).map(String::as_str), wanted) {
            Whose::Ours => self.take(format!("{what} ({})", found.id), "made before"),
            Whose::Others if ours => self.mark_group(what, id.clone()),
            Whose::Others => self.take(format!("{what} ({})", found.id), "it is there"),
            Whose::Cluster(other) => self.refuse(format!(
                "group {name} was made for cluster {other}: name another with --group"
            )),
        }
        id
    }

    fn mark_group(&mut self, what: String, id: Id) {
        let action = Action::Tell {
            of: Party::Group,
            id,
            text: self.mark(),
        };
        let why = "says for which cluster it was made: --remove goes by that";
        self.add(Verb::Change, what, why, Some(action));
    }

    fn user_there(&mut self, found: &Account, group: &str) -> ServiceUser {
        let (wanted, seen) = (self.wanted, self.seen);
        let file = wanted.auth.clone();
        let name = found.name.clone();
        let accepted = match &seen.auth {
            AuthFile::There { accepted, .. } => Some(*accepted),
            AuthFile::Missing => None,
        };
        let ours = seen.made_user(found, &wanted.cluster);
        if let Whose::Cluster(other) = marked(found.template.get(MARK).map(String::as_str), wanted) {
            self.refuse(format!(
                "user {name} was made for cluster {other}: name another with --user, and another file with --auth"
            ));
        }
        let password = Action::SetPassword {
            id: found.id,
            name: name.clone(),
            file: file.clone(),
        };
        let renewed = format!("gets the password in {}", file.display());
        match (accepted, ours) {
            (Some(true), _) => self.take(file.display().to_string(), "oned takes it"),
            (Some(false), true) => {
                self.take(file.display().to_string(), "it is there");
                self.add(Verb::Change, format!("user {name}"), renewed, Some(password));
            }
            (None, true) => {
                self.auth_file(&name, None);
                self.add(Verb::Change, format!("user {name}"), renewed, Some(password));
            }
            (Some(false), false) => self.refuse(format!(
                "oned does not take the password of {name} in {}: correct it there, or name another file with --auth",
                file.display()
            )),
            (None, false) => self.refuse(format!(
                "user {name} is there, and was not made by this: write {name}:PASSWORD into {} (mode 600), or name \
                 another user with --user",
                file.display()
            )),
        }
        let its_group = seen
            .groups
            .iter()
            .any(|known| known.name == group && found.groups.contains(&known.id));
        if ours && its_group {
            self.group(group);
        }
        if ours {
            self.tell(&name, Id::Known(found.id), Some(found));
        } else {
            self.take(format!("user {name} ({})", found.id), "it is there");
        }
        ServiceUser {
            name,
            id: Id::Known(found.id),
            ours,
        }
    }

    /// What the user may do to VMs that are his: OpenNebula's owners may not deploy them, nor remove one that
    /// hangs (`VM_MANAGE_OPERATIONS`), which is less than an ACL's ADMIN.
    pub(super) fn operations(&self) -> &'static [&'static str] {
        match self.wanted.placement {
            Placement::Thiao => &["deploy", "delete"],
            Placement::OpenNebula => &["delete"],
        }
    }

    /// Marks a user of ours, and lets him do more with his VMs; `there`: as he is.
    fn tell(&mut self, name: &str, id: Id, there: Option<&Account>) {
        let operations = self.operations().join(", ");
        let pairs = [
            (MARK, self.wanted.cluster.to_string()),
            ("VM_MANAGE_OPERATIONS", operations),
        ];
        let is_right = there.is_some_and(|user| {
            pairs
                .iter()
                .all(|(key, text)| user.template.get(*key) == Some(text))
        });
        if is_right && let Id::Known(number) = id {
            return self.take(format!("user {name} ({number})"), "made before");
        }
        let text = pairs
            .iter()
            .map(|(key, text)| format!("{key}=\"{text}\"\n"))
            .collect();
        let action = Action::Tell {
            of: Party::User,
            id,
            text,
        };
        let why = format!(
            "made for the cluster, and may {} its own VMs, which owners may not",
            self.operations().join(" and ")
        );
        self.add(Verb::Change, format!("user {name}"), why, Some(action));
    }
}
