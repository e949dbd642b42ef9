//! What is to be made, taken and given. Pure.

mod rights;
mod sources;
mod user;

use super::{Action, Grant, Id, MARK, Plan, Refused, Seen, Step, Verb, Wanted};
use thiao_opennebula::model::Object;
use thiao_opennebula::template::uses;

/// Makes the plan.
///
/// # Errors
/// All that stands in its way.
pub fn plan(wanted: &Wanted, seen: &Seen) -> Result<Plan, Refused> {
    let mut making = Plans {
        wanted,
        seen,
        steps: Vec::new(),
        refused: Vec::new(),
        grants: Vec::new(),
    };
    making.i_am_an_administrator();
    let user = making.user();
    let (template, body) = making.sources();
    let network = making.network(&body);
    making.rights(&user);
    if !making.refused.is_empty() {
        return Err(Refused(making.refused));
    }
    Ok(Plan {
        steps: making.steps,
        template,
        network,
    })
}

/// The networks of which one has to be chosen: none was named, VMs need one, and there are several.
#[must_use]
pub fn open_networks(wanted: &Wanted, seen: &Seen) -> Vec<String> {
    let needed = match &wanted.making {
        Some(_) => true,
        None => wanted
            .templates
            .iter()
            .filter_map(|name| named(&seen.templates, name).ok())
            .any(|template| uses::needs_network(&template.body)),
    };
    if !needed || !wanted.networks.is_empty() || seen.networks.len() < 2 {
        return Vec::new();
    }
    seen.networks.iter().map(|network| network.name.clone()).collect()
}

/// The service's user, as far as he is there.
struct ServiceUser {
    name: String,
    id: Id,
    /// Whether this program made him, or is about to.
    ours: bool,
}

struct Plans<'a> {
    wanted: &'a Wanted,
    seen: &'a Seen,
    steps: Vec<Step>,
    refused: Vec<String>,
    /// What the user needs, and why.
    grants: Vec<(Grant, String)>,
}

/// The object of that name or id; the error names what there is.
fn named<'a>(objects: &'a [Object], name: &str) -> Result<&'a Object, String> {
    let same: Vec<&Object> = objects.iter().filter(|object| object.name == name).collect();
    match same.as_slice() {
        [only] => return Ok(only),
        [] => {}
        several => {
            let each = several
                .iter()
                .map(|object| format!("{} of {}", object.id, object.owner));
            let each: Vec<String> = each.collect();
            return Err(format!(
                "there are several: {}; name one by its id",
                each.join(", ")
            ));
        }
    }
    let by_id = name.parse::<u32>().ok();
    if let Some(found) = objects.iter().find(|object| Some(object.id) == by_id) {
        return Ok(found);
    }
    let there: Vec<&str> = objects.iter().map(|object| object.name.as_str()).collect();
    Err(match there.as_slice() {
        [] => "there is none, nor any other".to_owned(),
        names => format!("there is none; there are {}", names.join(", ")),
    })
}

fn marked(text: Option<&str>, wanted: &Wanted) -> Whose {
    match text {
        None | Some("") => Whose::Others,
        Some(cluster) if cluster == wanted.cluster.as_str() => Whose::Ours,
        Some(cluster) => Whose::Cluster(cluster.to_owned()),
    }
}

/// For whom something was made.
enum Whose {
    Ours,
    Others,
    /// For another cluster of Thiao's.
    Cluster(String),
}

impl Plans<'_> {
    fn refuse(&mut self, why: impl Into<String>) {
        self.refused.push(why.into());
    }

    fn add(&mut self, verb: Verb, what: impl Into<String>, why: impl Into<String>, action: Option<Action>) {
        self.steps.push(Step {
            verb,
            what: what.into(),
            why: why.into(),
            action,
        });
    }

    fn take(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.add(Verb::Take, what, why, None);
    }

    fn i_am_an_administrator(&mut self) {
        let me = &self.seen.me;
        if !me.is_administrator() {
            self.refuse(format!(
                "{} is not in OpenNebula's group oneadmin, and only its users may make groups, users and ACL rules \
                 (CREATE of GROUP and USER, MANAGE of ACL); a group's administrator may not. Name such a user's \
                 credentials with --admin-auth",
                me.name
            ));
        }
    }

    fn mark(&self) -> String {
        format!("{MARK}=\"{}\"\n", self.wanted.cluster)
    }
}
