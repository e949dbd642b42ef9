//! Calls about images, and what VMs need of them.

use crate::creation::Failed;
use crate::front_end::FrontEnd;
use crate::image::{FILES, Image};
use crate::refusal::{Code, Refusal};
use crate::template::parse;
use crate::user::User;
use thiao_opennebula::syntax::Template;

/// How a template names an image.
struct Named {
    /// By its id, else by name.
    id: Option<String>,
    name: Option<String>,
    owner: Option<String>,
}

impl FrontEnd {
    /// What `one.imagepool.info` answers, in XML: newest first.
    pub fn imagepool_info(&self, user: &User) -> String {
        let mut out = String::from("<IMAGE_POOL>");
        let seen = |image: &&Image| self.allowed(user, &image.object(), "USE");
        for image in self.images.values().rev().filter(seen) {
            image.xml(&mut out, &self.vms_with(image));
        }
        out.push_str("</IMAGE_POOL>");
        out
    }

    fn image_for(&self, user: &User, id: i32, right: &str) -> Result<&Image, Refusal> {
        let found = u32::try_from(id).ok().and_then(|id| self.images.get(&id));
        let found = found.ok_or_else(|| Refusal::no_such_signed("image", id))?;
        self.demand(user, &found.object(), right)?;
        Ok(found)
    }

    /// What `one.image.info` answers, in XML.
    pub fn image_info(&self, user: &User, id: i32) -> Result<String, Refusal> {
        let image = self.image_for(user, id, "USE")?;
        let mut out = String::new();
        image.xml(&mut out, &self.vms_with(image));
        Ok(out)
    }

    /// `one.image.allocate`, with the new image's id.
    pub fn image_allocate(&mut self, user: &User, text: &str, datastore: i32) -> Result<u32, Refusal> {
        let mut body = parse(text).map_err(|text| Refusal::plain(Code::Internal, &text))?;
        self.demand_create(user, "IMAGE")?;
        let datastore = match datastore {
            1 | 2 => datastore.unsigned_abs(),
            0 => {
                let text = "Error allocating a new image. New images can only be allocated in a files or image datastore.";
                return Err(Refusal::plain(Code::Allocate, text));
            }
            other => return Err(Refusal::no_such_signed("datastore", other)),
        };
        let take = |name: &str| body.get(name).map(str::to_owned);
        let (name, path) = (take("NAME").unwrap_or_default(), take("PATH").unwrap_or_default());
        let kind = take("TYPE").and_then(|word| Image::kind_of(&word)).unwrap_or(0);
        if (kind == 3 || kind == 4) != (datastore == FILES) {
            let text = "KERNEL, RAMDISK and CONTEXT images must be stored in a FILE_DS datastore.";
            return Err(Refusal::plain(Code::Internal, text));
        }
        let mut others = self.images.values();
        if let Some(other) = others.find(|other| other.name == name && other.uid == user.id) {
            let text = format!("NAME is already taken by IMAGE {}.", other.id);
            return Err(Refusal::plain(Code::Internal, &text));
        }
        body.0
            .retain(|(key, _)| !matches!(key.as_str(), "NAME" | "PATH" | "TYPE"));
        let id = self.next_image;
        self.next_image += 1;
        let image = Image {
            id,
            uid: user.id,
            gid: user.gid,
            owner: (user.setup.name.clone(), user.gname.clone()),
            name,
            kind,
            path,
            datastore,
            body,
            time: self.now(),
            busy: None,
            going: None,
            public: false,
        };
        self.images.insert(id, image.copy(self.settings.phase));
        Ok(id)
    }

    /// `one.image.delete`: not one that VMs use.
    pub fn image_delete(&mut self, user: &User, id: i32) -> Result<u32, Refusal> {
        let image = self.image_for(user, id, "MANAGE")?;
        let users = self.vms_with(image).len();
        let id = image.id;
        if users > 0 {
            let text = format!("Cannot delete image. There are {users} VMs using it.");
            return Err(Refusal::plain(Code::Action, &text));
        }
        let until = std::time::Instant::now() + self.settings.phase;
        if let Some(image) = self.images.get_mut(&id) {
            image.going.get_or_insert(until);
        }
        self.forget_rules("IMAGE", id);
        Ok(id)
    }

    /// `one.image.chmod`, of which only the USE right of others (OTHER_U) is kept; -1 leaves it.
    pub fn image_chmod(&mut self, user: &User, id: i32, others: i32) -> Result<u32, Refusal> {
        let id = self.image_for(user, id, "MANAGE")?.id;
        if let (Some(image), 0..) = (self.images.get_mut(&id), others) {
            image.public = others == 1;
        }
        Ok(id)
    }

    /// The VMs with a disc of that image.
    fn vms_with(&self, image: &Image) -> Vec<u32> {
        let vms = self.live.iter().filter_map(|id| self.vms.get(id));
        vms.filter(|vm| {
            named(&vm.template)
                .iter()
                .any(|name| self.found(vm.uid, name).is_some_and(|found| found.id == image.id))
        })
        .map(|vm| vm.id)
        .collect()
    }

    fn found(&self, uid: u32, name: &Named) -> Option<&Image> {
        let mut there = self.images.values().filter(|image| image.going.is_none());
        if let Some(id) = &name.id {
            let id: u32 = id.parse().ok()?;
            return there.find(|image| image.id == id);
        }
        let own = self
            .users
            .iter()
            .find(|user| user.id == uid)
            .map(|user| &user.setup.name);
        let owner = name.owner.as_ref().or(own)?;
        there.find(|image| Some(&image.name) == name.name.as_ref() && image.owner.0 == *owner)
    }

    /// Whether the images are there that the template names, and the user may use them.
    pub fn check_images(&self, user: &User, template: &Template) -> Result<(), Failed> {
        for name in named(template) {
            let Some(image) = self.found(user.id, &name) else {
                let text = match (&name.id, &name.name) {
                    (Some(id), _) => format!("DISK 0: Image with ID: {id} does not exist"),
                    (None, text) => format!(
                        "User {} does not own an image with name: {} . Set IMAGE_UNAME or IMAGE_UID of owner in DISK.",
                        user.id,
                        text.as_deref().unwrap_or_default()
                    ),
                };
                return Err(Failed(Refusal::plain(Code::Internal, &text), true));
            };
            self.demand(user, &image.object(), "USE")
                .map_err(|refusal| Failed(refusal, false))?;
            if image.kind >= 3 && image.state() != 1 {
                let text = format!("Image '{}' not in READY state.", image.id);
                return Err(Failed(Refusal::plain(Code::Internal, &text), true));
            }
        }
        Ok(())
    }
}

/// The images that a template names: of discs, and `$FILE[...]` of kernel and ramdisk.
fn named(template: &Template) -> Vec<Named> {
    let get = |pairs: &[(String, String)], key: &str| {
        let found = pairs.iter().find(|(name, _)| name == key);
        found.map(|(_, text)| text.clone())
    };
    let of = |pairs: &[(String, String)]| Named {
        id: get(pairs, "IMAGE_ID"),
        name: get(pairs, "IMAGE"),
        owner: get(pairs, "IMAGE_UNAME"),
    };
    let discs = template.vectors("DISK").map(of);
    let mut all: Vec<Named> = discs
        .filter(|name| name.id.is_some() || name.name.is_some())
        .collect();
    for os in template.vectors("OS") {
        for key in ["KERNEL_DS", "INITRD_DS"] {
            let file = get(os, key).unwrap_or_default();
            let Some(inside) = file
                .strip_prefix("$FILE[")
                .and_then(|rest| rest.strip_suffix(']'))
            else {
                continue;
            };
            let pairs = inside.split(',').filter_map(|pair| pair.split_once('='));
            let pairs: Vec<(String, String)> = pairs
                .map(|(key, text)| (key.trim().to_owned(), text.trim().trim_matches('"').to_owned()))
                .collect();
            all.push(of(&pairs));
        }
    }
    all
}
