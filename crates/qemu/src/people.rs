//! Users as this machine knows them, by its own lookup (NSS): files, LDAP, sssd, whatever it has, with all groups.
//!
//! The program `getent` asks, with a limit of time: a directory that hangs would else hold the thread that asks for
//! as long as it likes, and only a program can be ended. What was learnt is kept for a while; after that it is asked
//! again, and what was known stays good where no answer comes.

use crate::settings::User;
use std::collections::HashMap;
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};
use thiao_guest::protocol::GroupEntry;

/// Where libc's packages have it.
const GETENT: &str = "/usr/bin/getent";

/// How long a directory may take for one answer. sssd gives up after 6 s by default where a server is silent.
const LIMIT: Duration = Duration::from_secs(10);

/// How long an answer is taken for true without asking again.
const FRESH: Duration = Duration::from_secs(60);

/// The longest answer that is read: groups are listed with their members.
const LONGEST: u64 = 64 << 20;

/// What `getent` says by its end when there is no such entry (getent(1)); and when a directory was not reached.
const NOT_FOUND: i32 = 2;

/// A user with all groups that he is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    pub user: User,
    /// His primary group and all others, with him in them.
    pub groups: Vec<GroupEntry>,
}

/// Why a user is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// Nobody knows him; or a directory that would is not reached, which libc does not tell apart.
    #[error(
        "this machine knows no user with uid {0} (`getent passwd {0}` finds none): no VM is made for him. Is the \
         directory reached, that has him?"
    )]
    Nobody(u32),
    #[error("who uid {uid} is could not be found out: {why}")]
    Silent { uid: u32, why: String },
}

/// Asks this machine's lookup, and remembers what it said.
#[derive(Debug)]
pub struct Directory {
    program: PathBuf,
    limit: Duration,
    known: Mutex<HashMap<u32, (Instant, Person)>>,
    servers: Mutex<HashMap<String, (Instant, Ipv4Addr)>>,
}

impl Default for Directory {
    fn default() -> Self {
        Self::asking(Path::new(GETENT), LIMIT)
    }
}

impl Directory {
    /// One that asks by this program.
    pub fn asking(program: &Path, limit: Duration) -> Self {
        Self {
            program: program.to_owned(),
            limit,
            known: Mutex::default(),
            servers: Mutex::default(),
        }
    }

    /// The user of this number. Takes a moment; with a silent directory, `LIMIT` for each of three questions.
    pub fn person(&self, uid: u32) -> Result<Person, Unknown> {
        let known = self.known().get(&uid).cloned();
        if let Some((since, person)) = &known
            && since.elapsed() < FRESH
        {
            return Ok(person.clone());
        }
        match self.ask(uid) {
            Ok(person) => {
                self.known().insert(uid, (Instant::now(), person.clone()));
                Ok(person)
            }
            Err(why) => match known {
                Some((_, person)) => {
                    tracing::warn!(uid, user = %person.user.name, "taken as he was known before: {why}");
                    Ok(person)
                }
                None => Err(why),
            },
        }
    }

    /// A server's IPv4 address, by this machine's lookup of names.
    pub fn server(&self, name: &str) -> Result<Ipv4Addr, String> {
        if let Ok(address) = name.parse() {
            return Ok(address);
        }
        let servers = || self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let known = servers().get(name).copied();
        if let Some((since, address)) = known
            && since.elapsed() < FRESH
        {
            return Ok(address);
        }
        let said = self.getent("ahostsv4", &[name]);
        let first = said.map(|said| said.split_whitespace().next().and_then(|word| word.parse().ok()));
        match (first, known) {
            (Ok(Some(address)), _) => {
                servers().insert(name.to_owned(), (Instant::now(), address));
                Ok(address)
            }
            (_, Some((_, address))) => Ok(address),
            (Ok(None), None) => Err(format!(
                "this machine knows no address of {name} (`getent ahostsv4 {name}`)"
            )),
            (Err(why), None) => Err(why),
        }
    }

    /// The groups of a user whom a file of ours describes, as far as this machine knows any.
    pub fn described(&self, user: &User) -> Person {
        let known = self
            .known()
            .get(&user.uid)
            .cloned()
            .filter(|(_, known)| known.user == *user);
        if let Some((since, person)) = &known
            && since.elapsed() < FRESH
        {
            return person.clone();
        }
        let groups = self.groups(user).unwrap_or_else(|why| {
            tracing::warn!(user = %user.name, "his groups could not be found out: {why}");
            known.map_or_else(Vec::new, |(_, known)| known.groups)
        });
        let person = Person {
            user: user.clone(),
            groups,
        };
        // Also where nothing was found out: a silent directory is not asked again for each VM.
        self.known().insert(user.uid, (Instant::now(), person.clone()));
        person
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<u32, (Instant, Person)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, uid: u32) -> Result<Person, Unknown> {
        let silent = |why| Unknown::Silent { uid, why };
        let said = self.getent("passwd", &[&uid.to_string()]).map_err(silent)?;
        let user = said.lines().find_map(passwd_line).filter(|user| user.uid == uid);
        let user = user.ok_or(Unknown::Nobody(uid))?;
        let groups = self.groups(&user).map_err(silent)?;
        Ok(Person { user, groups })
    }

    fn groups(&self, user: &User) -> Result<Vec<GroupEntry>, String> {
        let said = self.getent("initgroups", &[&user.name])?;
        let mut gids = gids(&said, &user.name);
        gids.retain(|gid| *gid != user.gid);
        gids.insert(0, user.gid);
        let keys: Vec<String> = gids.iter().map(u32::to_string).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let said = self.getent("group", &keys)?;
        let named: HashMap<u32, &str> = said.lines().filter_map(group_line).collect();
        let entry = |gid| {
            // The kernel knows groups by number: one without a name counts all the same.
            let name = named
                .get(&gid)
                .map_or_else(|| format!("gid{gid}"), |name| (*name).to_owned());
            let members = if gid == user.gid {
                Vec::new()
            } else {
                vec![user.name.clone()]
            };
            GroupEntry { name, gid, members }
        };
        // A primary group without a name gets the user's in the guest.
        let gids = gids
            .into_iter()
            .filter(|gid| *gid != user.gid || named.contains_key(gid));
        Ok(gids.map(entry).collect())
    }

    /// What `getent DATABASE KEY...` prints; nothing for what is not there.
    fn getent(&self, database: &str, keys: &[&str]) -> Result<String, String> {
        let failed = |e: std::io::Error| format!("cannot run {}: {e}", self.program.display());
        let mut child = Command::new(&self.program)
            .arg(database)
            .arg("--")
            .args(keys)
            .env_clear()
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let (told, heard) = mpsc::channel();
        if let Some(pipe) = child.stdout.take() {
            std::thread::spawn(move || {
                let mut said = Vec::new();
                let read = pipe.take(LONGEST).read_to_end(&mut said);
                // Who no longer waits has said so.
                let _ = told.send(read.map(|_| said));
            });
        }
        let said = heard.recv_timeout(self.limit);
        if said.is_err() {
            let _ = child.kill();
        }
        // One that cannot be killed (it waits for a dead file server) must not hold us.
        let (ended, end) = mpsc::channel();
        std::thread::spawn(move || {
            let _ = ended.send(child.wait());
        });
        let silent = || {
            let seconds = self.limit.as_secs_f32();
            format!("`getent {database}` gave no answer in {seconds} s: is a directory (sssd, LDAP) silent?")
        };
        let said = said.map_err(|_| silent())?.map_err(failed)?;
        let end = end
            .recv_timeout(self.limit)
            .map_err(|_| silent())?
            .map_err(failed)?;
        match end.code() {
            Some(0 | NOT_FOUND) => Ok(String::from_utf8_lossy(&said).into_owned()),
            _ => Err(format!("`getent {database}` ended with {end}")),
        }
    }
}

/// Reads a line of passwd(5): `name:x:uid:gid:comment:home:shell`.
fn passwd_line(line: &str) -> Option<User> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, shell] = fields.as_slice() else {
        return None;
    };
    Some(User {
        name: (*name).to_owned(),
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        home: home.into(),
        // passwd(5): none is /bin/sh.
        shell: if shell.is_empty() {
            "/bin/sh".into()
        } else {
            shell.into()
        },
    })
}

/// Reads `name gid gid ...`; a name may have spaces.
fn gids(said: &str, name: &str) -> Vec<u32> {
    let numbers = said
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap_or_default();
    let mut gids: Vec<u32> = numbers
        .split_whitespace()
        .filter_map(|gid| gid.parse().ok())
        .collect();
    let mut seen = std::collections::HashSet::new();
    gids.retain(|gid| seen.insert(*gid));
    gids
}

/// Reads number and name of `name:x:gid:members`.
fn group_line(line: &str) -> Option<(u32, &str)> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    Some((fields.nth(1)?.parse().ok()?, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    /// A getent of a site's.
    fn site(script: &str, limit: Duration) -> (tempfile::TempDir, Directory) {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("getent");
        fs::write(
            &program,
            format!("#!/bin/sh\ncd '{}'\n{script}", dir.path().display()),
        )
        .unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let directory = Directory::asking(&program, limit);
        (dir, directory)
    }

    const ADA: &str = "case $1 in
        passwd) echo 'ada:x:1000:100:Ada L,,:/home/ada:';;
        initgroups) echo 'ada                   100 5000 5001 5000';;
        group) echo 'users:x:100:'; echo 'physics:*:5000:ada,bob'; exit 2;;
        esac\n";

    #[test]
    fn a_user_comes_with_all_his_groups() {
        let (_dir, directory) = site(ADA, LIMIT);
        let ada = directory.person(1000).unwrap();
        assert_eq!((ada.user.name.as_str(), ada.user.gid), ("ada", 100));
        assert_eq!(
            (ada.user.home.to_str(), ada.user.shell.to_str()),
            (Some("/home/ada"), Some("/bin/sh"))
        );
        let groups: Vec<(String, u32, usize)> = ada
            .groups
            .iter()
            .map(|group| (group.name.clone(), group.gid, group.members.len()))
            .collect();
        let wanted = [("users", 100, 0), ("physics", 5000, 1), ("gid5001", 5001, 1)];
        assert_eq!(
            groups,
            wanted.map(|(name, gid, members)| (name.to_owned(), gid, members))
        );
        // Another number than the one that was asked for is nobody's answer.
        assert_eq!(directory.person(1001), Err(Unknown::Nobody(1001)));
    }

    #[test]
    fn who_is_known_stays_known_when_the_directory_is_away() {
        let (dir, directory) = site(&format!("[ -e away ] && exit 2\n{ADA}"), LIMIT);
        fs::write(dir.path().join("away"), "").unwrap();
        assert_eq!(directory.person(1000), Err(Unknown::Nobody(1000)));
        fs::remove_file(dir.path().join("away")).unwrap();
        let ada = directory.person(1000).unwrap();
        fs::write(dir.path().join("away"), "").unwrap();
        directory.known().get_mut(&1000).unwrap().0 -= FRESH;
        assert_eq!(directory.person(1000).unwrap(), ada);
    }

    #[test]
    fn a_directory_that_hangs_is_not_waited_for() {
        let (_dir, directory) = site("exec sleep 600\n", Duration::from_millis(50));
        let said = directory.person(1000).unwrap_err().to_string();
        assert!(
            said.contains("uid 1000") && said.contains("gave no answer"),
            "{said}"
        );
    }

    #[test]
    fn a_server_is_found_by_name_or_address() {
        let (dir, directory) = site("[ -e away ] || echo '192.0.2.7       STREAM files.site'\n", LIMIT);
        assert_eq!(directory.server("10.1.2.3"), Ok(Ipv4Addr::new(10, 1, 2, 3)));
        fs::write(dir.path().join("away"), "").unwrap();
        assert!(
            directory
                .server("files")
                .unwrap_err()
                .contains("getent ahostsv4 files")
        );
        fs::remove_file(dir.path().join("away")).unwrap();
        assert_eq!(directory.server("files"), Ok(Ipv4Addr::new(192, 0, 2, 7)));
    }

    #[test]
    fn the_machines_own_users_are_known() {
        let root = Directory::default().person(0).unwrap();
        assert_eq!(
            (root.user.name.as_str(), root.user.home.to_str()),
            ("root", Some("/root"))
        );
        assert_eq!(root.groups[0].name, "root");
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_readers_panic(line in "[a:0 \n]{0,40}") {
            let _ = (passwd_line(&line), group_line(&line), gids(&line, "a"));
        }
    }
}
