//! The guest image: a kernel and a first file system in memory, made from this
//! machine's own Debian packages. The same inputs give the same bytes, and the
//! image's name is their digest: it is made once.

pub mod built;
mod cpio;
mod kernel;
mod lz4;
mod packages;
pub mod work;

use crate::beside::beside;
use crate::disk::{self, Base, Disks, Format};
use crate::error::Error;
use crate::settings::{Credentials, Guests, SlurmFiles};
use crate::sums::{self, Beside};
use crate::vmdir::ROOT_DISK;
use cpio::{Node, Tree};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
pub use thiao_guest::authorities;

/// How long an image is kept that is not used: a running cluster may start guests from it at any time.
const KEEP: Duration = Duration::from_secs(14 * 24 * 3600);

/// What guests of a kind start from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum System {
    /// A kernel and a first file system of ours, with or without disks.
    Made(Image),
    /// A disk of the site's own, which a whole machine starts.
    Brought(Brought),
}

/// A disk of the site's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brought {
    pub base: Base,
    /// How large the disk is that guests see, in bytes.
    pub size: u64,
}

impl System {
    /// How long a file may become that a guest writes to, in bytes.
    pub fn file_limit(&self) -> Result<u64, Error> {
        match self {
            Self::Made(Image { disks: None, .. }) => Ok(0),
            Self::Made(Image {
                disks: Some(disks), ..
            }) => disks.limit(),
            Self::Brought(disk) => Ok(disk::limit(disk.size)),
        }
    }

    /// Gives a VM's folder the disks that its guest begins with.
    pub fn lay_over(&self, folder: &Path) -> Result<(), Error> {
        match self {
            Self::Made(image) => image
                .disks
                .as_ref()
                .map_or(Ok(()), |disks| disks.lay_over(folder)),
            Self::Brought(disk) => disk.base.lay_over(&folder.join(ROOT_DISK)),
        }
    }
}

/// A guest image in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Digest of all that went in, in hexadecimal.
    pub digest: String,
    /// The kernel, an ELF file.
    pub kernel: PathBuf,
    /// The same as its package has it: a quarter of the size, and what any firmware boots.
    pub compressed: PathBuf,
    /// The first file system, a cpio archive.
    pub initramfs: PathBuf,
    /// Which kernel that is, e.g. `6.1.0-56-cloud-amd64`.
    pub kernel_release: String,
    /// What its guests have as disks; none: all of it is in memory.
    pub disks: Option<Disks>,
    /// The users that the system on its disk has by itself, by their names.
    pub accounts: BTreeMap<String, u32>,
}

impl Image {
    /// Who in its system has the name or the number of this user, and is somebody else: as him the user's jobs would run.
    #[must_use]
    pub fn other_than(&self, name: &str, uid: u32) -> Option<(&str, u32)> {
        let has = |(other, number): &(&String, &u32)| (*other == name) != (**number == uid);
        let (other, number) = self.accounts.iter().find(has)?;
        Some((other, *number))
    }
}

/// What the settings name: the small image, one that was built, or one that was brought.
pub fn of(
    cache: &Path,
    agent: &Path,
    guests: &Guests,
    tmp_gb: u64,
    slurm: Result<&SlurmFiles, &String>,
    progress: &dyn Fn(&str),
) -> Result<System, Error> {
    match guests {
        Guests::Brought(file) => disk::brought(file).map(System::Brought),
        // It speaks to this machine alone, over a channel: it need not trust anybody's certificates.
        Guests::Small => prepare(cache, agent, slurm, None, progress).map(System::Made),
        Guests::Built(name) => {
            let built = built::find(cache, name)?;
            let (scratch, scratch_sum) = disk::scratch(cache, tmp_gb)?;
            let mut tree = Tree::default();
            packages::skeleton(&mut tree);
            packages::agent_alone(&mut tree, agent)?;
            let disks = Disks {
                root: Base {
                    path: built.root,
                    format: Format::Raw,
                },
                scratch,
            };
            // A guest that was saved goes on with the very disks that it had.
            let sums = scratch_sum + &built.about.disk_sum;
            let disks = Some((disks, sums));
            let image = place_all(cache, &built.kernel, tree, agent, disks, progress)?;
            Ok(System::Made(Image {
                accounts: built.about.accounts,
                ..image
            }))
        }
    }
}

/// Makes the image, or finds it in the cache. Needs neither root nor, once the
/// kernel's package is in the cache, the network. `slurm` is the Slurm that goes
/// into it, or why there is none; `authorities`: whose certificates its guests trust, in PEM, if any.
pub fn prepare(
    cache: &Path,
    agent: &Path,
    slurm: Result<&SlurmFiles, &String>,
    authorities: Option<&str>,
    progress: &dyn Fn(&str),
) -> Result<Image, Error> {
    if !cfg!(target_arch = "x86_64") {
        return Err(Error::Refused(
            "guests run Debian's amd64 programs; this machine is of another kind".to_owned(),
        ));
    }
    let slurm = slurm.map_err(|why| Error::Image(why.clone()))?;
    if !packages::has_munge() {
        progress("munge is not installed: guests take Slurm's own key alone (auth/slurm)");
    }
    let kernel = kernel::find(cache, progress)?;
    let mut tree = Tree::default();
    packages::skeleton(&mut tree);
    packages::programs(&mut tree, slurm)?;
    if let Some(pem) = authorities {
        tree.add(authorities::FILE, Node::File(0o644, pem.as_bytes().to_vec()));
    }
    place_all(cache, &kernel, tree, agent, None, progress)
}

/// Puts an image's files into the cache: the kernel, and `tree` with what that kernel loads, as its first
/// file system. Disks come with the digest of their content.
fn place_all(
    cache: &Path,
    kernel: &kernel::Kernel,
    mut tree: Tree,
    agent: &Path,
    disks: Option<(Disks, String)>,
    progress: &dyn Fn(&str),
) -> Result<Image, Error> {
    kernel.add_modules(&mut tree)?;
    let content = fs::read(agent).map_err(|e| Error::io("read the guests' agent", agent, e))?;
    tree.add("init", Node::File(0o755, content));
    let archive = tree.archive();

    let compressed = fs::read(&kernel.compressed).map_err(|e| Error::io("read", &kernel.compressed, e))?;
    let kernel_digest = Sha256::digest(&compressed);
    let mut digest = Sha256::new();
    digest.update(kernel_digest);
    digest.update(&archive);
    if let Some((_, content)) = &disks {
        digest.update(content);
    }
    let digest = hex(&digest.finalize());

    let images = cache.join("images");
    let folder = images.join(&digest[..32]);
    let image = Image {
        digest,
        kernel: cache
            .join("kernels")
            .join(format!("vmlinux-{}", &hex(&kernel_digest)[..32])),
        compressed: kernel.compressed.clone(),
        initramfs: folder.join("initramfs.cpio"),
        kernel_release: kernel.release.clone(),
        disks: disks.map(|(disks, _)| disks),
        accounts: BTreeMap::new(),
    };
    for needed in [&folder, &cache.join("kernels")] {
        fs::create_dir_all(needed).map_err(|e| Error::io("make", needed, e))?;
    }
    if !matches!(sums::beside(&image.kernel), Beside::Holds(_)) {
        progress("unpacking the guests' kernel");
        place(&image.kernel, &kernel.unpack()?)?;
        sums::write_beside(&image.kernel)?;
    }
    if fs::read(&image.initramfs).is_ok_and(|kept| kept == archive) {
        // Its age tells when it was used last.
        let _ = fs::File::open(&image.initramfs).and_then(|file| file.set_modified(SystemTime::now()));
    } else {
        progress(&format!("writing the guest image, {} MiB", archive.len() >> 20));
        place(&image.initramfs, &archive)?;
        prune(&images);
    }
    Ok(image)
}

/// Whether guests can take these credentials.
pub fn can_take(credentials: &Credentials) -> Result<(), Error> {
    match credentials {
        Credentials::Munge { .. } if !packages::has_munge() => Err(Error::Image(
            "guests need munge, as the settings have a munge_key: install the Debian package munge, or name \
             Slurm's own key with slurm_key"
                .to_owned(),
        )),
        Credentials::Munge { .. } | Credentials::Slurm { .. } => Ok(()),
    }
}

/// Removes images that nobody has used for long. Failing to is no harm.
fn prune(images: &Path) {
    for entry in fs::read_dir(images).into_iter().flatten().flatten() {
        let used = fs::metadata(entry.path().join("initramfs.cpio")).and_then(|meta| meta.modified());
        if used.is_ok_and(|used| used.elapsed().is_ok_and(|age| age > KEEP)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Writes a file that is there whole or not at all.
pub(crate) fn place(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let fresh = beside(path, "new");
    let written = fs::File::create(&fresh)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&fresh, path));
    written.map_err(|e| {
        let _ = fs::remove_file(&fresh);
        Error::io("write", path, e)
    })
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_whose_name_or_number_an_image_has_given_to_another_is_found() {
        let image = Image {
            digest: String::new(),
            kernel: PathBuf::new(),
            compressed: PathBuf::new(),
            initramfs: PathBuf::new(),
            kernel_release: String::new(),
            disks: None,
            accounts: [("root".to_owned(), 0), ("messagebus".to_owned(), 100)].into(),
        };
        assert_eq!(image.other_than("ada", 100), Some(("messagebus", 100)));
        assert_eq!(image.other_than("messagebus", 1001), Some(("messagebus", 100)));
        assert_eq!(image.other_than("messagebus", 100), None);
        assert_eq!(image.other_than("ada", 1000), None);
    }

    #[test]
    fn old_images_go_and_used_ones_stay() {
        let cache = tempfile::tempdir().unwrap();
        let image = |name: &str, age: Duration| {
            let folder = cache.path().join(name);
            fs::create_dir(&folder).unwrap();
            let file = fs::File::create(folder.join("initramfs.cpio")).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
            folder
        };
        let old = image("old", KEEP + Duration::from_secs(60));
        let used = image("used", KEEP / 2);
        prune(cache.path());
        assert!(!old.exists() && used.exists());
    }
}
