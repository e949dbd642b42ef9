//! Images that `thiao image build` made: an ordinary system on a disk, with the kernel that is in it.
//!
//! | in the cache | what |
//! |---|---|
//! | `built/NAME.json` | what the image of this name is; it is written last |
//! | `roots/SUM/root.ext4` | its file system |
//! | `roots/SUM/boot/`, `.../usr/lib/modules/` | its kernel, and what that can load |
//!
//! A name leads to other content when its image is made anew; the content of before stays for a while,
//! since guests may have been saved that go on with it.

use super::kernel::{self, Kernel};
use super::work;
use crate::error::Error;
use crate::sums;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::SystemTime;

/// The file with an image's file system.
pub const ROOT_FILE: &str = "root.ext4";

/// The name of an image, which is a folder's name and a word of a command line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageName(String);

impl ImageName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ImageName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let good = text.len() <= 63
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.bytes().all(plain);
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "{text:?} is not an image's name: use 1 to 63 of letters, digits, '.', '_' and '-', the first a \
                 letter or digit"
            ))
        }
    }
}

impl TryFrom<String> for ImageName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ImageName> for String {
    fn from(name: ImageName) -> Self {
        name.0
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What an image is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// What was asked for.
    pub recipe: Recipe,
    /// Digest of all files that are in it, in hexadecimal: the same files have the same.
    pub digest: String,
    /// The sum of its disk's file. Two disks of the same files differ, since each has times of its own.
    pub disk_sum: String,
    /// The sum of all that is beside the disk, its kernel and what that can load. `None`: it was made before
    /// there were such sums.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_sum: Option<String>,
    /// Its packages with their versions, `name=version`, sorted.
    pub packages: Vec<String>,
    /// Its kernel, e.g. `6.1.0-56-cloud-amd64`.
    pub kernel_release: String,
    /// The version of its slurmd, e.g. `22.05.8`.
    pub slurm_version: String,
    /// The users that its system has by itself, by their names, with their numbers. None: it was made before they were
    /// kept.
    #[serde(default)]
    pub accounts: BTreeMap<String, u32>,
    /// When it was made, in seconds since the Unix epoch.
    pub made: u64,
}

/// Users with their numbers, from `/etc/passwd`.
#[must_use]
pub fn accounts(passwd: &str) -> BTreeMap<String, u32> {
    thiao_guest::users::named_numbers(passwd).into_iter().collect()
}

/// What an image is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// The release of Debian, by its name, e.g. `bookworm`.
    pub suite: String,
    /// Packages beside those that every image has, sorted.
    pub packages: Vec<String>,
    /// What is free on its disk for what VMs write to it, in MiB.
    pub free_mb: u64,
}

/// Where the images of a cache are by their names.
fn names(cache: &Path) -> PathBuf {
    cache.join("built")
}

/// Where all content is.
pub(super) fn roots(cache: &Path) -> PathBuf {
    cache.join("roots")
}

/// Where content is whose disk has this sum. What is there is never changed: guests were saved that go on with it.
#[must_use]
pub fn root_folder(cache: &Path, disk_sum: &str) -> PathBuf {
    roots(cache).join(disk_sum.get(..32).unwrap_or(disk_sum))
}

/// The sum of a disk's file.
///
/// # Errors
/// When it cannot be read.
pub fn sum(disk: &Path) -> Result<String, Error> {
    sums::of_file(disk).map_err(|e| Error::io("read", disk, e))
}

/// The sum of all that is beside a disk in its folder.
///
/// # Errors
/// When it cannot be read.
pub fn sum_beside(folder: &Path) -> Result<String, Error> {
    sums::of_tree(folder, ROOT_FILE).map_err(|e| Error::io("read", folder, e))
}

fn about_file(cache: &Path, name: &ImageName) -> PathBuf {
    names(cache).join(format!("{name}.json"))
}

impl About {
    /// What an image is; `None` when there is none of this name.
    ///
    /// # Errors
    /// When what is there cannot be read.
    pub fn read(cache: &Path, name: &ImageName) -> Result<Option<Self>, Error> {
        let path = about_file(cache, name);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| {
                Error::Image(format!(
                    "{} is damaged: {e}; remove it, and make the image anew",
                    path.display()
                ))
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("read", &path, e)),
        }
    }

    /// Whether all of its files are as they were when it was made. Of one without a sum of its kernel that is not
    /// known: it is not.
    #[must_use]
    pub fn is_sound(&self, cache: &Path) -> bool {
        let folder = root_folder(cache, &self.disk_sum);
        self.kernel_sum.is_some()
            && self.has_kernel_of(&folder)
            && sum(&folder.join(ROOT_FILE)).is_ok_and(|sum| sum == self.disk_sum)
    }

    /// Whether the kernel in a folder, and what it can load, is that of this image, as far as it is known.
    fn has_kernel_of(&self, folder: &Path) -> bool {
        let beside = self.kernel_sum.as_ref();
        beside.is_none_or(|kernel| sum_beside(folder).is_ok_and(|sum| sum == *kernel))
    }

    /// Gives an image its content, which is in a folder of [`work::Work`], and then its name.
    ///
    /// # Errors
    /// When something cannot be written.
    pub fn place(&self, cache: &Path, name: &ImageName, work: &Path) -> Result<(), Error> {
        let target = root_folder(cache, &self.disk_sum);
        // The same content may be there already, whole or damaged.
        if !self.is_sound(cache) {
            let damaged = work::aside(cache, name);
            let moved = fs::rename(&target, &damaged).is_ok();
            fs::rename(work, &target).map_err(|e| Error::io("make", &target, e))?;
            if moved {
                let _ = fs::remove_dir_all(damaged);
            }
        }
        touch(&target);
        let path = about_file(cache, name);
        let folder = names(cache);
        fs::create_dir_all(&folder).map_err(|e| Error::io("make", &folder, e))?;
        let text = serde_json::to_vec_pretty(self).map_err(|e| Error::io("write", &path, e.into()))?;
        super::place(&path, &text)
    }
}

/// An image by its name; if it cannot be read, why.
pub type Named = (ImageName, Result<About, Error>);

/// All images of a cache with their names, sorted; of one that cannot be read, why.
///
/// # Errors
/// When the folder of names cannot be read.
pub fn all(cache: &Path) -> Result<Vec<Named>, Error> {
    let folder = names(cache);
    let entries = match fs::read_dir(&folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|e| Error::io("read", &folder, e))?,
    };
    let name = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        name.strip_suffix(".json")?.parse::<ImageName>().ok()
    };
    let mut names: Vec<ImageName> = entries.flatten().filter_map(name).collect();
    names.sort();
    let read = |name: ImageName| {
        let about = About::read(cache, &name).transpose()?;
        Some((name, about))
    };
    Ok(names.into_iter().filter_map(read).collect())
}

/// Takes an image's name away; its content goes with the next [`prune`] after a while.
///
/// # Errors
/// When it cannot be removed. It is fine when there is none.
pub fn remove(cache: &Path, name: &ImageName) -> Result<(), Error> {
    let path = about_file(cache, name);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", &path, e)),
        _ => Ok(()),
    }
}

/// Removes content that no image has, and that nobody has used for long; and what is left of builds that were
/// ended. Failing to is no harm.
pub fn prune(cache: &Path) {
    work::tidy(cache);
    let Ok(all) = all(cache) else { return };
    if all.iter().any(|(_, about)| about.is_err()) {
        return;
    }
    let named: Vec<PathBuf> = all
        .iter()
        .filter_map(|(_, about)| Some(root_folder(cache, &about.as_ref().ok()?.disk_sum)))
        .collect();
    for entry in fs::read_dir(roots(cache)).into_iter().flatten().flatten() {
        let path = entry.path();
        let old = entry
            .metadata()
            .and_then(|meta| meta.modified())
            .is_ok_and(|used| used.elapsed().is_ok_and(|age| age > super::KEEP));
        if old && !named.contains(&path) {
            let _ = fs::remove_dir_all(path);
        }
    }
}

/// Its age tells when it was used last.
fn touch(folder: &Path) {
    let _ = fs::File::open(folder).and_then(|folder| folder.set_modified(SystemTime::now()));
}

/// An image that is there.
pub(super) struct Built {
    pub about: About,
    pub root: PathBuf,
    pub kernel: Kernel,
}

/// What an image is, if VMs can be made of it: all of its files are read.
///
/// # Errors
/// When there is none of this name, or what is there is damaged.
pub fn check(cache: &Path, name: &ImageName) -> Result<About, Error> {
    find(cache, name).map(|built| built.about)
}

/// Finds an image by its name.
pub(super) fn find(cache: &Path, name: &ImageName) -> Result<Built, Error> {
    let about = About::read(cache, name)?.ok_or_else(|| {
        Error::Image(format!(
            "there is no image {name} in {}; make it: `thiao image build {name}`",
            cache.display()
        ))
    })?;
    let folder = root_folder(cache, &about.disk_sum);
    let anew = |what: &Path| {
        Error::Image(format!(
            "{} of image {name} is not there; make it anew: `thiao image rebuild {name}`",
            what.display()
        ))
    };
    let root = folder.join(ROOT_FILE);
    let root = root.canonicalize().map_err(|_| anew(&root))?;
    let damaged = |what: &str, path: &Path| {
        Error::Image(format!(
            "{what} of image {name}, {}, is damaged: make it anew, `thiao image rebuild {name}`",
            path.display()
        ))
    };
    if sum(&root)? != about.disk_sum {
        return Err(damaged("the disk", &root));
    }
    let kernel =
        kernel::kernel_below(&folder, &about.kernel_release).ok_or_else(|| anew(&folder.join("boot")))?;
    if !about.has_kernel_of(&folder) {
        return Err(damaged("the kernel, or a module,", &folder));
    }
    touch(&folder);
    Ok(Built { about, root, kernel })
}

#[cfg(test)]
mod tests {
    use super::super::work::Work;
    use super::*;

    #[test]
    fn accounts_are_read() {
        let found = accounts("root:x:0:0:root:/root:/bin/bash\nmunge:x:65533:65533::/:/x\nodd\n:x:y\n");
        assert_eq!(
            found,
            BTreeMap::from([("root".to_owned(), 0), ("munge".to_owned(), 65_533)])
        );
    }

    #[test]
    fn names_lead_to_no_other_folder() {
        for bad in ["", ".", "..", "a/b", "-x", ".x", "a b", &"x".repeat(64)] {
            assert!(bad.parse::<ImageName>().is_err(), "{bad}");
        }
        assert_eq!(
            "debian-12.1_x".parse::<ImageName>().unwrap().as_str(),
            "debian-12.1_x"
        );
    }

    fn about(disk_sum: &str) -> About {
        About {
            recipe: Recipe {
                suite: "bookworm".into(),
                packages: vec![],
                free_mb: 1,
            },
            digest: "d".into(),
            disk_sum: disk_sum.into(),
            kernel_sum: None,
            packages: vec![],
            kernel_release: "6-x".into(),
            slurm_version: "22.05.8".into(),
            accounts: BTreeMap::new(),
            made: 1,
        }
    }

    #[test]
    fn a_name_leads_to_whole_content_only() {
        let cache = tempfile::tempdir().unwrap();
        let cache = cache.path();
        let name: ImageName = "site".parse().unwrap();
        let why = || find(cache, &name).err().unwrap().to_string();
        assert!(why().contains("thiao image build site"), "{}", why());
        let work = Work::begin(cache, &name).unwrap();
        let disk = work.folder().join(ROOT_FILE);
        fs::write(&disk, "").unwrap();
        let sum = sum(&disk).unwrap();
        about(&sum).place(cache, &name, work.folder()).unwrap();
        assert!(why().contains("thiao image rebuild site"), "{}", why());
        fs::create_dir_all(root_folder(cache, &sum).join("boot")).unwrap();
        fs::create_dir_all(root_folder(cache, &sum).join("usr/lib/modules/6-x")).unwrap();
        fs::write(root_folder(cache, &sum).join("boot/vmlinuz-6-x"), "").unwrap();
        assert_eq!(find(cache, &name).unwrap().about, about(&sum));
        assert_eq!(check(cache, &name).unwrap(), about(&sum));
        fs::write(root_folder(cache, &sum).join(ROOT_FILE), "x").unwrap();
        assert!(check(cache, &name).is_err());
        assert!(
            why().contains("damaged") && !about(&sum).is_sound(cache),
            "{}",
            why()
        );
        assert_eq!(all(cache).unwrap().len(), 1);
        fs::write(about_file(cache, &name), "{").unwrap();
        assert!(About::read(cache, &name).is_err());
        remove(cache, &name).unwrap();
        remove(cache, &name).unwrap();
        assert_eq!(About::read(cache, &name).unwrap(), None);
    }

    /// Content as a build makes it, in a folder of its own; what it is.
    fn made(cache: &Path, name: &ImageName) -> (About, Work) {
        let work = Work::begin(cache, name).unwrap();
        let at = |path: &str| work.folder().join(path);
        fs::create_dir_all(at("boot")).unwrap();
        fs::create_dir_all(at("usr/lib/modules/6-x")).unwrap();
        for (file, content) in FILES {
            fs::write(at(file), content).unwrap();
        }
        let mut about = about(&sum(&at(ROOT_FILE)).unwrap());
        about.kernel_sum = Some(sum_beside(work.folder()).unwrap());
        (about, work)
    }

    const FILES: [(&str, &str); 3] = [
        (ROOT_FILE, "files"),
        ("boot/vmlinuz-6-x", "kernel"),
        ("usr/lib/modules/6-x/a.ko", "module"),
    ];

    #[test]
    fn any_file_that_is_damaged_is_found_and_made_anew() {
        let cache = tempfile::tempdir().unwrap();
        let cache = cache.path();
        let name: ImageName = "site".parse().unwrap();
        let make = || {
            let (about, work) = made(cache, &name);
            about.place(cache, &name, work.folder()).unwrap();
            about
        };
        let before = make();
        let folder = root_folder(cache, &before.disk_sum);
        assert!(before.is_sound(cache) && find(cache, &name).is_ok());
        for (file, content) in FILES {
            // Of the same length.
            fs::write(folder.join(file), content.replace('e', "x")).unwrap();
            assert!(!before.is_sound(cache), "{file}");
            let why = find(cache, &name).err().unwrap().to_string();
            assert!(
                why.contains("damaged") && why.contains("thiao image rebuild site"),
                "{why}"
            );
            assert_eq!(make(), before);
            assert_eq!(fs::read_to_string(folder.join(file)).unwrap(), content);
            assert!(before.is_sound(cache) && find(cache, &name).is_ok(), "{file}");
        }
        let entries = fs::read_dir(roots(cache)).unwrap().count();
        assert_eq!(entries, 1, "nothing else is left");
    }

    #[test]
    fn an_image_of_before_there_were_sums_is_used() {
        let cache = tempfile::tempdir().unwrap();
        let name: ImageName = "site".parse().unwrap();
        let (mut about, work) = made(cache.path(), &name);
        about.kernel_sum = None;
        about.place(cache.path(), &name, work.folder()).unwrap();
        assert!(find(cache.path(), &name).is_ok());
        assert!(!about.is_sound(cache.path()), "a rebuild makes it anew");
    }

    #[test]
    fn content_that_nobody_names_goes_when_it_is_old() {
        let cache = tempfile::tempdir().unwrap();
        let cache = cache.path();
        let name: ImageName = "site".parse().unwrap();
        for digest in ["a", "b", "c"] {
            let work = Work::begin(cache, &name).unwrap();
            about(digest).place(cache, &name, work.folder()).unwrap();
        }
        for digest in ["b", "c"] {
            let folder = fs::File::open(root_folder(cache, digest)).unwrap();
            folder
                .set_modified(SystemTime::now() - super::super::KEEP * 2)
                .unwrap();
        }
        prune(cache);
        let there = ["a", "b", "c"].map(|digest| root_folder(cache, digest).exists());
        assert_eq!(there, [true, false, true], "a is new, c is named");
    }
}
