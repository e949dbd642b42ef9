//! What jobs leave where everybody may write: it is gone before the next job of this guest starts.
//!
//! Whoever had a job here may have laid out what is in these folders against who clears them: nothing is reached by
//! a path, no link is followed, no other file system is entered, and no depth of folders takes more memory.

use crate::slurm;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Statx, StatxAttributes, StatxFlags, mkdirat, openat, renameat,
    statx, unlinkat,
};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::{CStr, OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where everybody may write.
const FOLDERS: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// How long a job's last process may take to be gone after Slurm has taken the job for over.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Below this uid users of the system are, not people, wherever an administrator has not given one to somebody.
const FIRST_PERSON: u32 = 1000;

/// Where what goes is put first: at once under no name that a job can reach.
const TRASH: &str = ".thiao-left";

/// How deep root's own folders are looked into.
const DEPTH: u32 = 32;

/// Clears the folders for all, unless a job is still there. What stays is told.
pub fn clear() -> Result<(), String> {
    let started = Instant::now();
    while slurm::job_processes_left() {
        if started.elapsed() > LAST_WORDS {
            return Err("a process of a job is still there".to_owned());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let kept = Kept::find();
    let mut left = Vec::new();
    for folder in FOLDERS.map(Path::new) {
        match clear_folder(folder, &|path, uid| kept.fate(path, uid)) {
            Ok(0) | Err(Errno::NOENT) => {}
            Ok(stayed) => left.push(format!("{stayed} of {}", folder.display())),
            Err(error) => left.push(format!("those of {} ({error})", folder.display())),
        }
    }
    match left.is_empty() {
        true => Ok(()),
        false => Err(format!("these cannot be removed: {}", left.join(", "))),
    }
}

/// What becomes of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It goes, with all that is in it.
    Goes,
    /// It stays, with all that is in it.
    Stays,
    /// It stays; what is in it is asked about.
    Open,
}

/// What becomes of what is at this path and is this user's.
type Judge<'a> = &'a dyn Fn(&Path, u32) -> Fate;

/// What is no job's.
struct Kept {
    /// Users of the system who have a process: theirs is in use.
    daemons: BTreeSet<u32>,
    /// Homes, and where something is mounted.
    places: BTreeSet<PathBuf>,
}

impl Kept {
    fn find() -> Self {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbered = processes.filter(|entry| entry.file_name().as_bytes().iter().all(u8::is_ascii_digit));
        let uids = numbered.filter_map(|entry| Some(entry.metadata().ok()?.uid()));
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let homes = passwd
            .lines()
            .filter_map(|line| line.split(':').nth(5))
            .map(PathBuf::from);
        let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
        Self {
            daemons: uids.filter(|uid| *uid < FIRST_PERSON).collect(),
            places: homes.chain(mount_points(&mounts)).collect(),
        }
    }

    fn fate(&self, path: &Path, uid: u32) -> Fate {
        let on_the_way = |place: &PathBuf| place.starts_with(path);
        if uid == 0 {
            Fate::Open
        } else if self.daemons.contains(&uid) || self.places.iter().any(on_the_way) {
            Fate::Stays
        } else {
            Fate::Goes
        }
    }
}

/// The mount points of `/proc/self/mountinfo`: the fifth word of each line, with blanks as `\040`.
fn mount_points(mountinfo: &[u8]) -> Vec<PathBuf> {
    let lines = mountinfo.split(|byte| *byte == b'\n');
    let words = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    words.map(|word| unescaped(word).into()).collect()
}

fn unescaped(word: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, after)) = rest.split_first() {
        let octal = after
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &after[3..] } else { after };
    }
    OsString::from_vec(plain)
}

/// Removes from `folder`, and from root's folders in it, what does not stay; how many could not be removed.
fn clear_folder(folder: &Path, judge: Judge) -> rustix::io::Result<usize> {
    let top = open(CWD, folder.as_os_str())?;
    let mut trash = match Trash::below(top.as_fd()) {
        // A job that has filled the file system has left no place for it.
        Err(Errno::NOSPC | Errno::DQUOT) => {
            thin(&top, folder, judge, 0)?;
            Trash::below(top.as_fd())?
        }
        made => made?,
    };
    let swept = trash.sweep(&top, folder, judge, 0);
    trash.empty();
    let _ = unlinkat(&top, &*trash.name, AtFlags::REMOVEDIR);
    swept.map(|()| trash.stayed)
}

/// Makes some space: removes what goes, but for folders that are too deep.
fn thin(folder: &OwnedFd, path: &Path, judge: Judge, depth: u32) -> rustix::io::Result<()> {
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Ok(seen) = look(folder.as_fd(), name) else {
            continue;
        };
        if is_dots(name) || seen.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            continue;
        }
        let is_folder = FileType::from_raw_mode(seen.stx_mode.into()) == FileType::Directory;
        let name = OsStr::from_bytes(name.to_bytes());
        let place = path.join(name);
        let fate = judge(&place, seen.stx_uid);
        if is_folder && fate != Fate::Stays && depth < DEPTH {
            let judge = if fate == Fate::Goes {
                &|_: &Path, _| Fate::Goes
            } else {
                judge
            };
            let _ = open(folder.as_fd(), name).and_then(|below| thin(&below, &place, judge, depth + 1));
        }
        if fate == Fate::Goes {
            let flags = if is_folder {
                AtFlags::REMOVEDIR
            } else {
                AtFlags::empty()
            };
            // What cannot be removed so is moved away later.
            let _ = unlinkat(folder, name, flags);
        }
    }
    Ok(())
}

/// A folder of root's alone, beside what is moved into it.
struct Trash {
    name: String,
    folder: OwnedFd,
    /// Folders that were moved there, by number, and are not empty yet.
    full: Vec<u64>,
    moved: u64,
    stayed: usize,
}

impl Trash {
    fn below(top: BorrowedFd) -> rustix::io::Result<Self> {
        let mut names = (0..100).map(|number| format!("{TRASH}-{number}"));
        loop {
            let name = names.next().ok_or(Errno::EXIST)?;
            match mkdirat(top, &*name, Mode::RWXU) {
                Ok(()) => {
                    let folder = open(top, OsStr::new(&name))?;
                    return Ok(Self {
                        name,
                        folder,
                        full: Vec::new(),
                        moved: 0,
                        stayed: 0,
                    });
                }
                // A job's that made it on purpose, or of a sweep that did not end: it goes as all else.
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Moves or removes what of a folder does not stay.
    fn sweep(&mut self, folder: &OwnedFd, path: &Path, judge: Judge, depth: u32) -> rustix::io::Result<()> {
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_dots(name) || (depth == 0 && name.to_bytes() == self.name.as_bytes()) {
                continue;
            }
            let place = path.join(OsStr::from_bytes(name.to_bytes()));
            let Ok(seen) = look(folder.as_fd(), name) else {
                continue;
            };
            if seen.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
                continue;
            }
            let is_folder = FileType::from_raw_mode(seen.stx_mode.into()) == FileType::Directory;
            match judge(&place, seen.stx_uid) {
                Fate::Goes => self.take(folder.as_fd(), name, is_folder),
                Fate::Open if is_folder && depth < DEPTH => {
                    // What cannot be opened, or not be read, holds nothing up.
                    let _ = open(folder.as_fd(), OsStr::from_bytes(name.to_bytes()))
                        .and_then(|below| self.sweep(&below, &place, judge, depth + 1));
                }
                Fate::Open | Fate::Stays => {}
            }
        }
        Ok(())
    }

    /// Has one entry gone: a folder is moved here and emptied later.
    fn take(&mut self, folder: BorrowedFd, name: &CStr, is_folder: bool) {
        let gone = if is_folder {
            self.moved += 1;
            let number = self.moved;
            renameat(folder, name, &self.folder, number.to_string()).inspect(|()| self.full.push(number))
        } else {
            unlinkat(folder, name, AtFlags::empty())
        };
        if gone.is_err_and(|error| error != Errno::NOENT) {
            self.stayed += 1;
        }
    }

    /// Empties all folders that were moved here: those in them are moved here, too, so none is ever deep.
    fn empty(&mut self) {
        while let Some(number) = self.full.pop() {
            let name = number.to_string();
            if self.empty_one(&name).is_err() || unlinkat(&self.folder, &*name, AtFlags::REMOVEDIR).is_err() {
                self.stayed += 1;
            }
        }
    }

    fn empty_one(&mut self, name: &str) -> rustix::io::Result<()> {
        let folder = open(self.folder.as_fd(), OsStr::new(name))?;
        let seen = look(folder.as_fd(), c"")?;
        if seen.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            return Err(Errno::BUSY);
        }
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_dots(name) {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => FileType::from_raw_mode(look(folder.as_fd(), name)?.stx_mode.into()),
                known => known,
            };
            self.take(folder.as_fd(), name, kind == FileType::Directory);
        }
        Ok(())
    }
}

fn is_dots(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

fn open(at: BorrowedFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

/// What an entry is; of an empty name, the folder itself. No file server is asked.
fn look(at: BorrowedFd, name: &CStr) -> rustix::io::Result<Statx> {
    let flags =
        AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    statx(at, name, flags, StatxFlags::BASIC_STATS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A folder of this test's own.
    fn place(name: &str) -> PathBuf {
        let place = std::env::temp_dir().join(format!("thiao-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&place);
        fs::create_dir_all(&place).unwrap();
        place
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Here root's is what has this in its name.
    fn of_root(path: &Path, _: u32) -> Fate {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match (name.contains("root"), name.contains("kept")) {
            (true, _) => Fate::Open,
            (_, true) => Fate::Stays,
            (false, false) => Fate::Goes,
        }
    }

    #[test]
    fn what_jobs_left_goes_and_nothing_else() {
        let place = place("leftovers");
        let outside = place.join("outside");
        let folder = place.join("folder");
        for below in ["root/root-2", "job/deep/deeper", "root/job-2", "kept"] {
            fs::create_dir_all(folder.join(below)).unwrap();
        }
        fs::create_dir_all(&outside).unwrap();
        fs::write(outside.join("precious"), "").unwrap();
        for file in [
            "root-file",
            "job-file",
            "root/job-file",
            "root/root-file",
            "kept/job-file",
            "job/deep/deeper/x",
        ] {
            fs::write(folder.join(file), "").unwrap();
        }
        for link in ["job-link", "root-link", "job/link"] {
            symlink(&outside, folder.join(link)).unwrap();
        }
        // A job may know the name.
        fs::create_dir(folder.join(".thiao-left-0")).unwrap();
        assert_eq!(clear_folder(&folder, &of_root), Ok(0));
        assert_eq!(names(&folder), ["kept", "root", "root-file", "root-link"]);
        assert_eq!(names(&folder.join("kept")), ["job-file"]);
        assert_eq!(names(&folder.join("root")), ["root-2", "root-file"]);
        assert_eq!(names(&outside), ["precious"]);
        fs::remove_dir_all(&place).unwrap();
    }

    #[test]
    fn where_no_space_is_left_some_is_made() {
        let place = place("thin");
        for below in ["job/deep/deeper", "root/job-2", "kept/job"] {
            fs::create_dir_all(place.join(below)).unwrap();
        }
        for file in ["job/deep/deeper/x", "job-file", "root/root-file", "kept/job/x"] {
            fs::write(place.join(file), "").unwrap();
        }
        let top = open(CWD, place.as_os_str()).unwrap();
        thin(&top, &place, &of_root, 0).unwrap();
        assert_eq!(names(&place), ["kept", "root"]);
        assert_eq!(names(&place.join("root")), ["root-file"]);
        assert_eq!(names(&place.join("kept/job")), ["x"]);
        fs::remove_dir_all(&place).unwrap();
    }

    #[test]
    fn no_depth_of_folders_keeps_anything() {
        let place = place("deep");
        let folder = place.join("folder");
        fs::create_dir_all(&folder).unwrap();
        let mut at = open(CWD, folder.as_os_str()).unwrap();
        for _ in 0..1500 {
            mkdirat(&at, "job", Mode::RWXU).unwrap();
            at = open(at.as_fd(), OsStr::new("job")).unwrap();
        }
        assert_eq!(clear_folder(&folder, &of_root), Ok(0));
        assert!(names(&folder).is_empty());
        fs::remove_dir_all(&place).unwrap();
    }

    #[test]
    fn what_leads_to_a_mount_or_a_home_stays_and_what_a_daemon_uses() {
        let mounts = mount_points(
            b"36 35 98:0 / / rw - ext4 /dev/vda rw\n40 36 0:5 /x /tmp/a\\040b/c rw shared:1 - nfs h:/ rw\n",
        );
        assert_eq!(mounts, [PathBuf::from("/"), PathBuf::from("/tmp/a b/c")]);
        let kept = Kept {
            daemons: [101].into(),
            places: mounts.into_iter().collect(),
        };
        for (path, uid, fate) in [
            ("/tmp/a b", 1000, Fate::Stays),
            ("/tmp/a b/c", 1000, Fate::Stays),
            ("/tmp/a", 1000, Fate::Goes),
            ("/tmp/x", 0, Fate::Open),
            ("/tmp/x", 101, Fate::Stays),
            ("/tmp/x", 102, Fate::Goes),
        ] {
            assert_eq!(kept.fate(Path::new(path), uid), fate, "{path} of {uid}");
        }
    }
}
