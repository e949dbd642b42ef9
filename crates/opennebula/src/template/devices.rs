//! Devices that a VM gets beside its template's: GPUs of its job, a function of an InfiniBand card; and another
//! image for its first disc.

use super::new_vm::NewVm;
use crate::error::{Class, Error};
use crate::syntax::{Template, Value};

/// What says which image a disc is of.
const NAMES_IMAGE: [&str; 3] = ["IMAGE", "IMAGE_ID", "SOURCE"];

/// And whose, for an image that is named.
const NAMES_OWNER: [&str; 2] = ["IMAGE_UNAME", "IMAGE_UID"];

/// Puts what the job asks for into `onto`. oned replaces all attributes of a name at
/// once, so the others of `theirs` come along.
pub fn put(onto: &mut Template, theirs: &Template, wanted: &NewVm<'_>) -> Result<(), Error> {
    let mut ours: Vec<Pairs> = Vec::new();
    if wanted.spec.gpus > 0 {
        let Some(device) = wanted.gpu_pci else {
            return Err(Error::new(
                Class::BadTemplate,
                format!(
                    "{} GPUs are asked for, and nodeset {} does not say what a GPU is in OpenNebula: give it gpu_pci",
                    wanted.spec.gpus, wanted.nodeset
                ),
            ));
        };
        if wanted.spec.gpus > 1 && device.iter().any(|(key, _)| key == "SHORT_ADDRESS") {
            return Err(Error::new(
                Class::BadTemplate,
                format!(
                    "{} GPUs are asked for, and gpu_pci of nodeset {} names one device by its address: \
                     name vendor, device and class instead",
                    wanted.spec.gpus, wanted.nodeset
                ),
            ));
        }
        ours.extend((0..wanted.spec.gpus).map(|_| device.to_vec()));
    }
    let infiniband = wanted.inputs.infiniband.as_ref();
    if let Some(device) = infiniband.and_then(|infiniband| infiniband.pci.as_ref()) {
        // The template's own stays as it is: then nothing that oned restricts is added.
        let is_it =
            |own: &[(String, String)]| device.iter().all(|pair| own.iter().any(|own| same(own, pair)));
        if !theirs.vectors("PCI").any(is_it) {
            ours.push(device.clone());
        }
    }
    if !ours.is_empty() {
        put_all(onto, "PCI", vectors(theirs, "PCI").into_iter().chain(ours));
    }
    if let Some(image) = &wanted.spec.options.image {
        let mut discs = vectors(theirs, "DISK");
        set_image(&mut discs, image);
        put_all(onto, "DISK", discs);
    }
    Ok(())
}

type Pairs = Vec<(String, String)>;

/// Whether two attributes of a device say the same: its numbers are hexadecimal, in either case.
fn same((name, text): &(String, String), (other, text_of_other): &(String, String)) -> bool {
    name.eq_ignore_ascii_case(other) && text.trim().eq_ignore_ascii_case(text_of_other)
}

fn vectors(template: &Template, name: &str) -> Vec<Pairs> {
    template.vectors(name).map(<[_]>::to_vec).collect()
}

/// Puts these in the place of all of that name.
pub(super) fn put_all(onto: &mut Template, name: &str, all: impl IntoIterator<Item = Pairs>) {
    onto.remove(name);
    let all = all
        .into_iter()
        .map(|pairs| (name.to_owned(), Value::Vector(pairs)));
    onto.0.extend(all);
}

/// Gives the first disc that is of an image another one; where there is none, a disc comes in front.
fn set_image(discs: &mut Vec<Pairs>, image: &str) {
    let of_image = |disc: &Pairs| disc.iter().any(|(key, _)| NAMES_IMAGE.contains(&key.as_str()));
    let by_id = image.bytes().all(|b| b.is_ascii_digit());
    let at = discs.iter().position(of_image).unwrap_or_else(|| {
        discs.insert(0, Pairs::new());
        0
    });
    let Some(disc) = discs.get_mut(at) else { return };
    // A name is looked for among the same owner's images; an id needs none.
    disc.retain(|(key, _)| {
        let key = key.as_str();
        let of_the_old = NAMES_IMAGE.contains(&key) || key == "ORIGINAL_SIZE";
        !(of_the_old || by_id && NAMES_OWNER.contains(&key))
    });
    let key = if by_id { "IMAGE_ID" } else { "IMAGE" };
    disc.insert(0, (key.to_owned(), image.to_owned()));
}
