//! `image`: what runs in VMs of the embedded provider.

use crate::read::Section;
use thiao_qemu::Guests;
use thiao_qemu::image::built::ImageName;

/// The word for guests that are made from this machine's own programs; no image can have it.
pub const SMALL: &str = "small";

/// The key `image`, here or, for all nodesets that do not have it, in `[qemu]`.
pub const IMAGE: &str = "image";

/// What `image` says, if it is there or has a default.
pub fn image(table: &Section<'_, '_>, default: Option<&str>) -> Option<Guests> {
    let text = table.checked(IMAGE, default.map(str::to_owned), |text| {
        read(text).map(|_| text.to_owned())
    })?;
    read(&text).ok()
}

/// Reads a value of the key.
///
/// # Errors
/// When no image can be called so.
pub fn read(text: &str) -> Result<Guests, String> {
    match text {
        SMALL => Ok(Guests::Small),
        file if file.starts_with('/') => Ok(Guests::Brought(file.into())),
        name => name.parse::<ImageName>().map(Guests::Built),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_a_name_a_file_or_the_small_one() {
        assert_eq!(read("small"), Ok(Guests::Small));
        assert_eq!(read("debian"), Ok(Guests::Built("debian".parse().unwrap())));
        assert_eq!(read("/i/x.qcow2"), Ok(Guests::Brought("/i/x.qcow2".into())));
        assert!(read("../x").is_err());
    }
}
