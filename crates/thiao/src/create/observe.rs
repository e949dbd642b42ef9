//! Looks at the front-end as an administrator, and at the service's credentials. Changes nothing.

use super::{AuthFile, Note, Seen};
use std::path::Path;
use thiao_core::ids::ClusterName;
use thiao_opennebula::auth::Credentials;
use thiao_opennebula::check::TAG_TRY;
use thiao_opennebula::model::VmDetails;
use thiao_opennebula::settings::Access;
use thiao_opennebula::template::TAG_CLUSTER;
use thiao_opennebula::{Class, Client, Error};

/// Asks for all that plans are made of; `access` is how the administrator reaches oned.
///
/// # Errors
/// What cannot be read: of part of it no plan is made.
pub fn observe(client: &Client, access: &Access, auth: &Path) -> Result<Seen, Error> {
    let me = client.user()?;
    // Others may not read them: that he is no administrator the plan says better.
    let rules = if me.is_administrator() {
        client.acls()?
    } else {
        Vec::new()
    };
    Ok(Seen {
        me,
        rules,
        users: client.accounts()?,
        groups: client.circles()?,
        templates: client.templates_whole()?,
        images: client.images()?,
        networks: client.networks_whole()?,
        datastores: client.datastores()?,
        secgroups: client.secgroups_of_all()?,
        auth: auth_file(access, auth)?,
    })
}

/// The VMs of the cluster, and of the users that were made for it, that are not DONE.
///
/// # Errors
/// They cannot be listed.
pub fn vms_of(client: &Client, seen: &Seen, cluster: &ClusterName) -> Result<Vec<u32>, Error> {
    // A VM of ours, or one that `thiao doctor --try` left.
    let tagged = |vm: &VmDetails| {
        [TAG_CLUSTER, TAG_TRY]
            .iter()
            .any(|tag| vm.user_template.get(*tag).map(String::as_str) == Some(cluster.as_str()))
    };
    let all = client.vms_of_all()?;
    let mut ids: Vec<u32> = all.iter().filter(|vm| tagged(vm)).map(|vm| vm.row.id).collect();
    for user in seen.users.iter().filter(|user| seen.made_user(user, cluster)) {
        ids.extend(client.vms_of_user(user.id)?);
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

fn auth_file(access: &Access, file: &Path) -> Result<AuthFile, Error> {
    let comment = match file.symlink_metadata() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(AuthFile::Missing),
        Err(_) | Ok(_) => Credentials::comment(file)?,
    };
    let user = Credentials::read(file)?.user().to_owned();
    let service = Client::new(&Access {
        auth: file.to_owned(),
        ..access.clone()
    })?;
    let accepted = match service.user() {
        Ok(_) => true,
        Err(error) if error.class == Class::Authentication => false,
        Err(error) => return Err(error),
    };
    Ok(AuthFile::There {
        user,
        made: comment.as_deref().and_then(Note::parse),
        accepted,
    })
}
