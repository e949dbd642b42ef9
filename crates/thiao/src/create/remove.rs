//! The way back: what was made for a cluster is removed, what was only taken stays. Pure.

use super::{Action, AuthFile, MARK, Party, Plan, Refused, Seen, Step, Verb};
use std::path::Path;
use thiao_core::ids::ClusterName;
use thiao_opennebula::acl::Which;
use thiao_opennebula::check::TAG_TRY;
use thiao_opennebula::model::Object;
use thiao_opennebula::template::uses;

/// The state of an image that is going already (`Image.h` of 7.4).
const DELETE: i32 = 7;
/// VMs that are named at most.
const NAMED: usize = 10;

/// Plans it; `vms`: those of the cluster, or of the users made for it, that are not DONE.
///
/// # Errors
/// VMs are there still, or somebody else than an administrator asks.
pub fn plan(cluster: &ClusterName, auth: &Path, seen: &Seen, vms: &[u32]) -> Result<Plan, Refused> {
    let mut refused = Vec::new();
    if !seen.me.is_administrator() {
        refused.push(format!(
            "{} is not in OpenNebula's group oneadmin: name the credentials of one who is with --admin-auth",
            seen.me.name
        ));
    }
    if !vms.is_empty() {
        let ids: Vec<String> = vms.iter().take(NAMED).map(u32::to_string).collect();
        let more = if vms.len() > NAMED { " and more" } else { "" };
        refused.push(format!(
            "VMs of the cluster are there still: {}{more}. Let their jobs end, `thiao suspend NODES`, and see \
             `thiao vms` show none; what is left then: onevm terminate ID",
            ids.join(", ")
        ));
    }
    if !refused.is_empty() {
        return Err(Refused(refused));
    }
    let ours = |mark: Option<&str>| mark == Some(cluster.as_str());
    let mut steps = templates_and_images(seen, &ours);
    let gone: Vec<u32> = seen
        .users
        .iter()
        .filter(|user| seen.made_user(user, cluster))
        .map(|user| user.id)
        .collect();
    for group in &seen.secgroups {
        // Whoever owns one may write into it what he likes.
        let tried = group.body.get(TAG_TRY) == Some(cluster.as_str());
        if gone.contains(&group.owner) && (tried || group.whose(cluster).is_some()) {
            let what = format!("security group {}", group.name);
            steps.push(remove(
                Party::SecGroup,
                group.id,
                what,
                "made for VMs of the cluster",
            ));
        }
    }
    for user in seen.users.iter().filter(|user| gone.contains(&user.id)) {
        let rules = seen
            .rules
            .iter()
            .filter(|(_, rule)| rule.user == Which::One(user.id));
        let why = format!("and with it the {} ACL rules for it", rules.count());
        steps.push(remove(Party::User, user.id, format!("user {}", user.name), &why));
    }
    for group in &seen.groups {
        if !seen.made_group(group, cluster) {
            continue;
        }
        let what = format!("group {}", group.name);
        if group.users.iter().all(|user| gone.contains(user)) {
            steps.push(remove(Party::Group, group.id, what, "made for the cluster"));
        } else {
            steps.push(leave(what, "others are in it"));
        }
    }
    steps.extend(auth_file(cluster, auth, seen));
    Ok(Plan {
        steps,
        template: None,
        network: None,
    })
}

fn templates_and_images(seen: &Seen, ours: &dyn Fn(Option<&str>) -> bool) -> Vec<Step> {
    let made = |object: &&Object| ours(object.body.get(MARK));
    let mut steps = Vec::new();
    for template in seen.templates.iter().filter(made) {
        let what = format!("template {}", template.name);
        steps.push(remove(Party::Template, template.id, what, "made for the cluster"));
    }
    for image in seen
        .images
        .iter()
        .filter(made)
        .filter(|image| image.state != Some(DELETE))
    {
        let what = format!("image {}", image.name);
        let others = seen.templates.iter().filter(|template| !made(template));
        let named = others.into_iter().find(|template| {
            let names = uses::images(&template.body);
            names.iter().any(|name| {
                name.find(&seen.images, &template.owner)
                    .is_some_and(|found| found.id == image.id)
            })
        });
        steps.push(match named {
            Some(template) => leave(what, &format!("template {} of others names it", template.name)),
            None if image.vms > 0 => leave(what, &format!("{} VMs of others use it", image.vms)),
            None => remove(Party::Image, image.id, what, "made for the cluster"),
        });
    }
    steps
}

fn auth_file(cluster: &ClusterName, file: &Path, seen: &Seen) -> Option<Step> {
    let AuthFile::There { made, .. } = &seen.auth else {
        return None;
    };
    let what = file.display().to_string();
    if made.as_ref().is_none_or(|note| note.cluster != cluster.as_str()) {
        return Some(leave(what, "it was not made by this"));
    }
    Some(Step {
        verb: Verb::Remove,
        what,
        why: "the password of a user who is gone".to_owned(),
        action: Some(Action::RemoveAuth {
            file: file.to_owned(),
        }),
    })
}

fn remove(of: Party, id: u32, what: String, why: &str) -> Step {
    Step {
        verb: Verb::Remove,
        what: format!("{what} ({id})"),
        why: why.to_owned(),
        action: Some(Action::Remove { of, id }),
    }
}

fn leave(what: String, why: &str) -> Step {
    Step {
        verb: Verb::Leave,
        what,
        why: why.to_owned(),
        action: None,
    }
}
