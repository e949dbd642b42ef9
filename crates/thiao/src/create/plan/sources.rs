//! What VMs are made from: templates, images, networks.

use super::{Plans, Whose, marked, named};
use crate::create::{Action, Grant, Id, MARK, Making, Party, Verb};
use crate::guest;
use std::path::Path;
use thiao_opennebula::model::Object;
use thiao_opennebula::syntax::{Template, Value};
use thiao_opennebula::template::uses;

/// The type of datastores for kernels and ramdisks (`Datastore.h` of 7.4: FILE_DS).
const FILES: i32 = 2;
/// States of an image (`Image.h` of 7.4).
const LOCKED: i32 = 4;
const ERROR: i32 = 5;
const DELETE: i32 = 7;

impl Plans<'_> {
    /// Templates, taken and made: the name for the settings, and what they say.
    pub(super) fn sources(&mut self) -> (Option<String>, Vec<Template>) {
        let mut bodies = Vec::new();
        let mut first = None;
        for name in &self.wanted.templates {
            match named(&self.seen.templates, name) {
                Ok(found) => {
                    self.taken_template(found);
                    first.get_or_insert_with(|| name.clone());
                    bodies.push(found.body.clone());
                }
                Err(why) => self.refuse(format!("template {name}: {why}")),
            }
        }
        if let Some(making) = &self.wanted.making {
            let name = self.wanted.name();
            if let Some(body) = self.made_template(making, &name) {
                bodies.push(body);
                first.get_or_insert(name);
            }
        } else if self.wanted.templates.is_empty() {
            let there: Vec<&str> = self
                .seen
                .templates
                .iter()
                .map(|found| found.name.as_str())
                .collect();
            let there = match there.as_slice() {
                [] => "none is registered".to_owned(),
                names => format!("registered are {}", names.join(", ")),
            };
            self.refuse(format!(
                "name what VMs are made from: --template ({there}), --image, or --guest with the folder of `thiao guest`"
            ));
        }
        (first, bodies)
    }

    fn taken_template(&mut self, found: &Object) {
        let what = format!("template {} ({})", found.name, found.id);
        self.take(&what, "it is there");
        self.may_use("TEMPLATE", found, "VMs are made of it");
        for image in uses::images(&found.body) {
            match image.find(&self.seen.images, &found.owner) {
                Some(image) => self.may_use("IMAGE", image, &format!("{what} names it")),
                None => self.refuse(format!(
                    "{what} names an image that is not there, or whose owner it does not say ({image:?}): give it \
                     IMAGE_UNAME, or IMAGE_ID"
                )),
            }
        }
    }

    /// USE of an object that is there; nothing where everybody may use it.
    fn may_use(&mut self, kind: &'static str, object: &Object, why: &str) {
        if object.for_all {
            let word = if kind == "NET" { "network" } else { kind };
            let what = format!("USE of {} {}", word.to_lowercase(), object.name);
            return self.take(what, "everybody has that");
        }
        let grant = Grant {
            kind,
            id: Some(Id::Known(object.id)),
            rights: "USE",
        };
        self.grants.push((grant, why.to_owned()));
    }

    fn made_template(&mut self, making: &Making, name: &str) -> Option<Template> {
        let mut body = match making {
            Making::Image(image) => {
                let found = match named(&self.seen.images, image) {
                    Ok(found) => found,
                    Err(why) => {
                        self.refuse(format!("image {image}: {why}"));
                        return None;
                    }
                };
                self.take(format!("image {} ({})", found.name, found.id), "it is there");
                self.may_use("IMAGE", found, "VMs start from it");
                of_image(name, found)
            }
            Making::Guest(folder) => {
                let owners = self.guest_images(folder, name);
                let image = |file: &str, owner: &String| {
                    format!("$FILE[IMAGE=\"{name}-{file}\", IMAGE_UNAME=\"{owner}\"]")
                };
                let files = ["kernel", "initrd"].into_iter().zip(&owners);
                of_guest(name, OF_IMAGES, files.map(|(file, owner)| image(file, owner)))
            }
            Making::GuestOnHosts(folder) => {
                let files = ["vmlinuz", "initrd"].into_iter();
                let path = |file| folder.join(file).display().to_string();
                of_guest(name, OF_HOSTS, files.map(path))
            }
        };
        body.set(MARK, self.wanted.cluster.to_string());
        let text = body.to_text();
        let own = self.own(&self.seen.templates, name);
        let id = match own {
            None => {
                let why = "VMs are made of it, each with its own size";
                let action = Action::MakeTemplate { text };
                self.add(Verb::Make, format!("template {name}"), why, Some(action));
                Id::Made("template")
            }
            Some(found) => {
                let what = format!("template {name} ({})", found.id);
                match marked(found.body.get(MARK), self.wanted) {
                    Whose::Ours if same(&found.body, &body) => self.take(what, "made before"),
                    Whose::Ours => {
                        let action = Action::RewriteTemplate { id: found.id, text };
                        self.add(Verb::Change, what, "it was made otherwise before", Some(action));
                    }
                    Whose::Others | Whose::Cluster(_) => self.refuse(format!(
                        "{what} is there, and was not made for this cluster: rename it, or take it with --template"
                    )),
                }
                Id::Known(found.id)
            }
        };
        let grant = Grant {
            kind: "TEMPLATE",
            id: Some(id),
            rights: "USE",
        };
        self.grants.push((grant, "VMs are made of it".to_owned()));
        Some(body)
    }

    /// The object of that name that was made for this cluster, else one of mine: it is in the way.
    fn own<'o>(&self, objects: &'o [Object], name: &str) -> Option<&'o Object> {
        let named = || objects.iter().filter(|object| object.name == name);
        let ours = |object: &&Object| matches!(marked(object.body.get(MARK), self.wanted), Whose::Ours);
        named()
            .find(ours)
            .or_else(|| named().find(|object| object.owner == self.seen.me.name))
    }

    /// Kernel and ramdisk of Thiao's own guest; their owners' names.
    fn guest_images(&mut self, folder: &Path, name: &str) -> Vec<String> {
        let mut owners = Vec::new();
        let files = self
            .seen
            .datastores
            .iter()
            .filter(|store| store.kind == Some(FILES));
        let Some(store) = files.min_by_key(|store| store.id).map(|store| store.id) else {
            self.refuse("no datastore is for files (TYPE = FILE_DS): make one (onedatastore create)");
            return owners;
        };
        for (key, kind, file) in [("kernel", "KERNEL", "vmlinuz"), ("initrd", "RAMDISK", "initrd")] {
            let name = format!("{name}-{key}");
            let what = format!("image {name}");
            let path = folder.join(file);
            let mut image = Template::default();
            for (key, value) in [
                ("NAME", name.clone()),
                ("PATH", path.display().to_string()),
                ("TYPE", kind.to_owned()),
                (MARK, self.wanted.cluster.to_string()),
            ] {
                image.set(key, value);
            }
            let make = Action::MakeImage {
                key,
                text: image.to_text(),
                datastore: store,
            };
            let why = format!("{} on the front-end", path.display());
            let own = self.own(&self.seen.images, &name);
            owners.push(own.map_or(&self.seen.me.name, |found| &found.owner).clone());
            let id = match own {
                None => {
                    self.add(Verb::Make, &what, why, Some(make));
                    Id::Made(key)
                }
                Some(found) if !matches!(marked(found.body.get(MARK), self.wanted), Whose::Ours) => {
                    self.refuse(format!(
                        "{what} ({}) is there, and was not made for this cluster: rename it (oneimage rename)",
                        found.id
                    ));
                    Id::Known(found.id)
                }
                Some(found) if found.state == Some(DELETE) => {
                    let action = Action::AwaitGone { id: found.id };
                    let what_there = format!("{what} ({})", found.id);
                    self.add(
                        Verb::Await,
                        what_there,
                        "until OpenNebula has deleted it",
                        Some(action),
                    );
                    self.add(Verb::Make, &what, why, Some(make));
                    Id::Made(key)
                }
                Some(found) if found.state == Some(ERROR) => {
                    let action = Action::Remove {
                        of: Party::Image,
                        id: found.id,
                    };
                    let what_there = format!("{what} ({})", found.id);
                    self.add(Verb::Remove, what_there, "it could not be copied", Some(action));
                    self.add(Verb::Make, &what, why, Some(make));
                    Id::Made(key)
                }
                Some(found) => {
                    self.take(format!("{what} ({})", found.id), "made before");
                    Id::Known(found.id)
                }
            };
            let ready = own.is_some_and(|found| !matches!(found.state, Some(LOCKED | ERROR | DELETE)));
            if !ready {
                let action = Action::AwaitImage { id: id.clone() };
                self.add(Verb::Await, &what, "until OpenNebula has copied it", Some(action));
            }
            let grant = Grant {
                kind: "IMAGE",
                id: Some(id),
                rights: "USE",
            };
            self.grants.push((grant, "VMs start from it".to_owned()));
        }
        owners
    }

    /// Networks: those that templates name, and the nodeset's where it is needed.
    pub(super) fn network(&mut self, bodies: &[Template]) -> Option<String> {
        let seen = self.seen;
        for body in bodies {
            for network in uses::networks(body) {
                match network.find(&seen.networks, &seen.me.name) {
                    Some(found) => {
                        self.take(
                            format!("network {} ({})", found.name, found.id),
                            "the template names it",
                        );
                        self.may_use("NET", found, "the template names it");
                    }
                    None => self.refuse(format!(
                        "the template names a network that is not there ({network:?})"
                    )),
                }
            }
        }
        let needed = bodies.iter().any(uses::needs_network);
        let mut chosen = Vec::new();
        for name in &self.wanted.networks {
            match named(&seen.networks, name) {
                Ok(found) => chosen.push((found, "it is there")),
                Err(why) => self.refuse(format!("network {name}: {why}")),
            }
        }
        if chosen.is_empty() && needed && self.wanted.networks.is_empty() {
            match seen.networks.as_slice() {
                [only] => chosen.push((only, "the only one")),
                [] => self.refuse("there is no network for VMs: make one (onevnet create)"),
                several => {
                    let names: Vec<&str> = several.iter().map(|network| network.name.as_str()).collect();
                    self.refuse(format!(
                        "name the network for VMs with --network: {}",
                        names.join(", ")
                    ));
                }
            }
        }
        for (found, why) in &chosen {
            self.take(format!("network {} ({})", found.name, found.id), *why);
            self.may_use("NET", found, "VMs get their addresses there");
        }
        let (found, _) = chosen.first()?;
        Some(match self.wanted.networks.first() {
            Some(name) => name.clone(),
            None => found.name.clone(),
        })
    }
}

/// A template for VMs that start from an image.
fn of_image(name: &str, image: &Object) -> Template {
    let mut body = Template::default();
    for (key, value) in [("NAME", name), ("CPU", "1"), ("VCPU", "1"), ("MEMORY", "1024")] {
        body.set(key, value);
    }
    let pairs = |pairs: &[(&str, &str)]| {
        let pairs = pairs
            .iter()
            .map(|(key, text)| ((*key).to_owned(), (*text).to_owned()));
        pairs.collect::<Vec<_>>()
    };
    let disc = [
        ("IMAGE", image.name.as_str()),
        ("IMAGE_UNAME", image.owner.as_str()),
    ];
    body.set_vector("DISK", pairs(&disc));
    body.set_vector("CONTEXT", pairs(&[("NETWORK", "YES")]));
    // Without a screen some images do not boot; reached by who is on the host.
    body.set_vector("GRAPHICS", pairs(&[("LISTEN", "127.0.0.1"), ("TYPE", "VNC")]));
    body.set_vector("NIC_DEFAULT", pairs(&[("MODEL", "virtio")]));
    body
}

/// How a template names a kernel and a ramdisk that are images, and the attributes of OS for files of the hosts.
const OF_IMAGES: [&str; 2] = ["KERNEL_DS", "INITRD_DS"];
const OF_HOSTS: [&str; 2] = ["KERNEL", "INITRD"];

/// `thiao guest`'s template, with other values in the place of its images, under these names.
fn of_guest(name: &str, names: [&str; 2], values: impl Iterator<Item = String>) -> Template {
    let mut body = Template::parse(guest::TEMPLATE).unwrap_or_default();
    body.set("NAME", name);
    let files: Vec<_> = OF_IMAGES.into_iter().zip(names).zip(values).collect();
    for (_, value) in body.0.iter_mut().filter(|(key, _)| key == "OS") {
        let Value::Vector(pairs) = value else { continue };
        for (sub, text) in pairs {
            if let Some(((_, name), value)) = files.iter().find(|((image, _), _)| sub == image) {
                (*sub, *text) = ((*name).to_owned(), value.clone());
            }
        }
    }
    body
}

/// Whether a registered template says what it would be made of: oned takes the name out, and sorts.
fn same(there: &Template, wanted: &Template) -> bool {
    let sorted = |template: &Template| {
        let mut all: Vec<(String, Value)> = template.0.clone();
        all.retain(|(key, _)| key != "NAME");
        for (_, value) in &mut all {
            if let Value::Vector(pairs) = value {
                pairs.sort();
            }
        }
        all.sort_by_key(|(key, value)| (key.clone(), format!("{value:?}")));
        all
    };
    sorted(there) == sorted(wanted)
}
