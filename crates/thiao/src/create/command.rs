//! A plan as commands of OpenNebula's own tools, for those who would rather type it. bash; run as an administrator
//! who can write the credentials' file.

use super::{Action, Id, Party, Plan, Step};
use crate::shell::word;
use std::fmt::Write as _;
use std::path::Path;

/// All steps: the commands, and as comments what stays and why. `owner` is the service's user.
#[must_use]
pub fn script(plan: &Plan, owner: &str) -> String {
    let mut text = String::new();
    for step in &plan.steps {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# {} {}: {}", step.verb.word(), step.what, step.why);
        if let Some(action) = &step.action {
            text.push_str(&command(action, owner));
        }
    }
    text
}

/// The command of one step; none: nothing is done.
#[must_use]
pub fn command_of(step: &Step, owner: &str) -> Option<String> {
    step.action
        .as_ref()
        .map(|action| command(action, owner).trim_end().to_owned())
}

/// The command that does the same as the action; ids of what it makes go into variables of bash.
fn command(action: &Action, owner: &str) -> String {
    match action {
        Action::WriteAuth { file, user, note } => {
            let file = word(&file.to_string_lossy());
            format!(
                "install -D -m 600 -o {} /dev/null {file}\n\
                 {{ printf '%s:' {}; od -An -N32 -tx1 /dev/urandom | tr -d ' \\n'; printf '\\n# %s\\n' {}; }} >{file}\n",
                word(owner),
                word(user),
                word(&note.to_string()),
            )
        }
        // By itself it would let the group's users make all kinds of things.
        Action::MakeGroup { name } => made(
            "group",
            &format!("onegroup create {} --resources ' '", word(name)),
        ),
        Action::Tell { of, id, text } => {
            format!("{} update {} --append {}", tool(*of), shown(id), heredoc(text))
        }
        Action::MakeUser { name, group, file } => made(
            "user",
            &format!(
                "oneuser create {} --group {} --read-file {}",
                word(name),
                shown(group),
                password(file)
            ),
        ),
        Action::SetPassword { id, file, .. } => {
            format!("oneuser passwd {id} --read-file {}\n", password(file))
        }
        Action::MakeImage { key, text, datastore } => {
            made_of(key, &format!("oneimage create -d {datastore}"), text)
        }
        Action::AwaitImage { id } => format!(
            "until oneimage show {} | grep -q '^STATE *: rdy'; do sleep 1; done\n",
            shown(id)
        ),
        Action::AwaitGone { id } => {
            format!("while oneimage show {id} >/dev/null 2>&1; do sleep 1; done\n")
        }
        Action::MakeTemplate { text } => made_of("template", "onetemplate create", text),
        Action::RewriteTemplate { id, text } => {
            let lines = text.lines().filter(|line| !line.starts_with("NAME="));
            let text: String = lines.map(|line| format!("{line}\n")).collect();
            format!("onetemplate update {id} {}", heredoc(&text))
        }
        Action::Give { user, grant } => {
            let right = grant.text(|key| format!("${key}"));
            format!("oneacl create \"#{} {right}\"\n", shown(user).trim_matches('"'))
        }
        Action::Remove { of, id } => format!("{} delete {id}\n", tool(*of)),
        Action::RemoveAuth { file } => format!("rm {}\n", word(&file.to_string_lossy())),
    }
}

fn tool(of: Party) -> &'static str {
    match of {
        Party::User => "oneuser",
        Party::Group => "onegroup",
        Party::Template => "onetemplate",
        Party::Image => "oneimage",
        Party::SecGroup => "onesecgroup",
    }
}

/// An id, or the variable that holds it.
fn shown(id: &Id) -> String {
    match id {
        Id::Known(id) => id.to_string(),
        Id::Made(key) => format!("\"${key}\""),
    }
}

/// Keeps the id that a tool says: `ID: 7`.
fn made(key: &str, command: &str) -> String {
    format!("{key}=$({command} | sed 's/^ID: //')\n")
}

/// The same of a tool that reads what is to be made.
fn made_of(key: &str, command: &str, text: &str) -> String {
    format!(
        "{key}=$({command} <<'END' | sed 's/^ID: //'\n{}END\n)\n",
        ended(text)
    )
}

fn heredoc(text: &str) -> String {
    format!("<<'END'\n{}END\n", ended(text))
}

fn ended(text: &str) -> String {
    format!("{}\n", text.trim_end())
}

/// The password alone, never as an argument.
fn password(file: &Path) -> String {
    format!("<(sed -n '1s/^[^:]*://p' {})", word(&file.to_string_lossy()))
}
