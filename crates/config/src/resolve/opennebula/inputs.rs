//! `[nodeset.nfs]`, `[nodeset.ldap]`, `[nodeset.infiniband]`: what a nodeset's guests are given beside their Slurm.

use super::values::{attributes_of_pci, name, pci};
use crate::read::Section;
use thiao_opennebula::inputs::{Bind, Infiniband, Inputs, Ldap};

/// Takes the three tables of a nodeset.
pub fn inputs(nodeset: &Section<'_, '_>) -> Inputs {
    let nfs = nodeset.table_if_written("nfs");
    let (home, scratch) = nfs.as_ref().map_or((None, None), |nfs| {
        let exports = (nfs.parsed("home", None), nfs.parsed("scratch", None));
        if !nfs.has("home") && !nfs.has("scratch") {
            nodeset.problem("nfs", "says nothing: use home, scratch or both");
        }
        nfs.close();
        exports
    });
    Inputs {
        home,
        scratch,
        ldap: nodeset.table_if_written("ldap").as_ref().and_then(ldap),
        infiniband: nodeset
            .table_if_written("infiniband")
            .map(|table| infiniband(nodeset, &table)),
    }
}

fn ldap(table: &Section<'_, '_>) -> Option<Ldap> {
    let url = table.required("url", "say where the directory answers, e.g. \"ldap://10.0.0.5\"");
    let domain = table.required("domain", "name it, as \"example.org\" or as a base DN");
    let user = table.parsed("bind_user", None);
    let file = table.path("bind_password_file", None);
    for (one, other) in [
        ("bind_user", "bind_password_file"),
        ("bind_password_file", "bind_user"),
    ] {
        if table.has(one) && !table.has(other) {
            table.problem(
                one,
                format!("needs {other}: a directory asks for both, or for neither"),
            );
        }
    }
    table.close();
    let bind = user
        .zip(file)
        .map(|(user, password_file)| Bind { user, password_file });
    Some(Ldap {
        url: url?,
        domain: domain?,
        bind,
    })
}

fn infiniband(nodeset: &Section<'_, '_>, table: &Section<'_, '_>) -> Infiniband {
    let ipoib = table.parsed("ipoib_subnet", None);
    let attribute = |key: &'static str| {
        let text = table.checked(key, None, |text| pci(key, text).map(|()| text.to_owned()))?;
        Some((key.to_owned(), text))
    };
    let device: Vec<_> = ["vendor", "device", "class"]
        .into_iter()
        .filter_map(attribute)
        .collect();
    let profile = table.checked("profile", None, name);
    table.close();
    let device: Vec<_> = device
        .into_iter()
        .chain(profile.map(|profile| ("profile".to_owned(), profile)))
        .collect();
    if !["vendor", "device", "class", "profile", "ipoib_subnet"]
        .iter()
        .any(|key| table.has(key))
    {
        nodeset.problem(
            "infiniband",
            "says nothing: name a card's function as `onehost show` does, e.g. vendor = \"15b3\", class = \"0207\", \
             or set ipoib_subnet",
        );
    }
    Infiniband {
        pci: (!device.is_empty()).then(|| attributes_of_pci(device)),
        ipoib,
    }
}
