//! What a front-end says, and what is found in it.

use super::needs::{Needs, NodesetNeeds};
use crate::error::Error;
use crate::model::{Host, Network, Template, User, VmDetails};
use crate::places::Places;
use crate::secgroup::Wires;
use crate::settings::TemplateSource;
use crate::state::VmState;
use crate::syntax;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use thiao_core::view::Shape;

/// What tells a tried VM, in its user template: the cluster that it was tried for.
pub const TAG: &str = "THIAO_TRY";

/// What the front-end and the files say.
#[derive(Debug, Clone)]
pub struct Seen {
    pub version: Result<String, Error>,
    /// Who the credentials belong to.
    pub user: Result<User, Error>,
    /// The hosts that the user may see.
    pub hosts: Result<Vec<Host>, Error>,
    /// The templates that the user may see.
    pub templates: Result<Vec<Template>, Error>,
    /// The networks that the user may see.
    pub networks: Result<Vec<Network>, Error>,
    /// The same networks as far as security groups go; empty where there are none.
    pub wires: Result<Vec<Wires>, Error>,
    /// What OpenNebula's clusters have.
    pub places: Result<Places, Error>,
    /// The user's own VMs that are not DONE, with their tags.
    pub vms: Result<Vec<VmDetails>, Error>,
    /// The template files that the settings name, filled for a node; or why that cannot be done.
    pub files: BTreeMap<PathBuf, Result<syntax::Template, Error>>,
    /// What became of tries, if any were made.
    pub tried: Vec<Tried>,
    /// Whether a security group could be made and removed, if that was tried.
    pub tried_group: Option<Result<(), Error>>,
}

/// A VM that was made held and removed at once: it never ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// What it was made from: `template worker`, `file /etc/thiao/vm.one`.
    pub source: String,
    /// Its size, as its jobs would see it.
    pub shape: Shape,
    /// Its id, or why it could not be made.
    pub made: Result<u32, Error>,
    /// Its addresses, or why they are not known.
    pub addresses: Result<Vec<IpAddr>, Error>,
    /// Whether it could be removed by a right that deploying needs too (ADMIN).
    pub recovered: Result<(), Error>,
    /// Whether it is gone.
    pub removed: Result<(), Error>,
}

/// Whether the VM is one that a try left: it never ran.
pub(super) fn is_left(vm: &VmDetails, wanted: &Needs) -> bool {
    let tried = vm.user_template.get(TAG).map(String::as_str) == Some(wanted.cluster.as_str());
    tried && matches!(vm.row.state, VmState::Init | VmState::Cloning | VmState::Hold)
}

/// A registered template by its name or id.
///
/// # Errors
/// Why there is none: no such one, or several of that name.
pub fn registered<'a>(templates: &'a [Template], name: &str) -> Result<&'a Template, String> {
    let mut named = templates.iter().filter(|template| template.name == name);
    match (named.next(), named.next()) {
        (Some(template), None) => return Ok(template),
        (Some(_), Some(_)) => {
            let ids: Vec<String> = templates
                .iter()
                .filter(|template| template.name == name)
                .map(|template| format!("{} of {}", template.id, template.owner))
                .collect();
            return Err(format!(
                "there are {} templates of that name: {}; name one by its id",
                ids.len(),
                ids.join(", ")
            ));
        }
        (None, _) => {}
    }
    name.parse::<u32>()
        .ok()
        .and_then(|id| templates.iter().find(|template| template.id == id))
        .ok_or_else(|| "there is none, or the user may not use it".to_owned())
}

/// What a nodeset's VMs are made from, as far as it is one for all of them.
pub(super) fn body_of<'a>(set: &NodesetNeeds, seen: &'a Seen) -> Option<&'a syntax::Template> {
    match &set.source.template {
        TemplateSource::Registered(name) => {
            let all = seen.templates.as_ref().ok()?;
            Some(&registered(all, name).ok()?.body)
        }
        TemplateSource::File(file) => seen.files.get(file)?.as_ref().ok(),
        // Each node's own file may say another; that is not followed.
        TemplateSource::PerNode(_) => None,
    }
}
