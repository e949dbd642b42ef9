//! Takes orders from the spool. An order is consumed in this sequence: read,
//! folded into the records, stored with its file's name in one transaction, and
//! only then is the file removed. A crash in between finds the name in the store.

use crate::clock::Clock;
use crate::store::{Store, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use thiao_api::state_dir;
use thiao_core::event::{Event, Kind, Subject};
use thiao_core::hostlist;
use thiao_core::ids::{ClusterName, JobId, NodeName, Time};
use thiao_core::journal::{Journal as _, TakenIntent};
use thiao_core::orders::Order;
use thiao_core::spool::{self, IntentFile};
use thiao_core::world::{Mode, NodeSpec};

/// Orders larger than this were not written by a hook.
const LARGEST: u64 = 64 << 20;

/// A hook is through with its file long before this.
const PARTIAL_FOR: std::time::Duration = std::time::Duration::from_secs(600);

/// The spool folder, where hooks leave orders.
pub struct Spool {
    dir: PathBuf,
}

fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("spool")
}

/// How many orders wait in the spool of this state folder.
pub fn pending(state_dir: &Path) -> usize {
    fs::read_dir(folder(state_dir).join(spool::NEW)).map_or(0, Iterator::count)
}

/// One order, read and not yet consumed.
pub struct Taken {
    /// What the store keeps of it.
    pub intent: TakenIntent,
    /// The file to remove once stored.
    pub path: PathBuf,
    /// When it was given, by our clock.
    pub at: Time,
    /// Its nodes; none of a job's end that a person gave.
    pub nodes: Vec<NodeName>,
    /// What is asked of them.
    pub order: Order,
}

/// Why a file of the spool was not read.
enum Unread {
    /// It is no order.
    Never(String),
    /// It may be one: no file can be opened now, say.
    NotNow(io::Error),
}

impl Unread {
    fn of(error: io::Error) -> Self {
        match state_dir::is_unsafe(&error) {
            true => Self::Never(error.to_string()),
            false => Self::NotNow(error),
        }
    }
}

/// What the spool held.
#[derive(Default)]
pub struct Batch {
    /// The orders that are whole, oldest first.
    pub orders: Vec<Taken>,
    /// Files whose order was consumed before a crash.
    pub leftovers: Vec<PathBuf>,
    /// What is wrong with other files; they were moved to `bad/`.
    pub events: Vec<Event>,
}

impl Spool {
    /// Makes the folders and tells the hooks which nodes and which cluster are ours.
    pub fn open(
        state_dir: &Path,
        cluster: &ClusterName,
        nodes: &BTreeMap<NodeName, NodeSpec>,
    ) -> io::Result<Self> {
        let dir = folder(state_dir);
        for sub in ["", spool::TMP, spool::NEW, "bad"] {
            let dir = dir.join(sub);
            state_dir::make_private(&dir)
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", dir.display())))?;
        }
        let spool = Self { dir };
        spool.clear_partial();
        spool.publish(spool::CLUSTER, cluster.as_str())?;
        spool.publish(spool::NODES, &hostlist::fold(nodes.keys()))?;
        let job_mode = nodes.iter().filter(|(_, spec)| match spec.mode {
            Mode::Job => true,
            Mode::PowerSaving => false,
        });
        spool.publish(spool::JOB_NODES, &hostlist::fold(job_mode.map(|(name, _)| name)))?;
        Ok(spool)
    }

    /// Tells job_submit.lua whose jobs can run in the guests; without the file everybody's can, as far as is known.
    pub fn publish_users(&self, known: Option<&BTreeSet<u32>>) -> io::Result<()> {
        let Some(known) = known else {
            remove([self.dir.join(spool::USERS)]);
            return Ok(());
        };
        let uids: Vec<String> = known.iter().map(u32::to_string).collect();
        self.publish(spool::USERS, &uids.join("\n"))
    }

    /// Removes what hooks that were killed have left; they had promised nothing.
    fn clear_partial(&self) {
        let Ok(entries) = fs::read_dir(self.dir.join(spool::TMP)) else {
            return;
        };
        for entry in entries.flatten() {
            let age = entry
                .metadata()
                .and_then(|meta| meta.modified())
                .ok()
                .and_then(|at| at.elapsed().ok());
            if age.is_some_and(|age| age > PARTIAL_FOR) {
                remove([entry.path()]);
            }
        }
    }

    fn publish(&self, name: &str, line: &str) -> io::Result<()> {
        let partial = self.dir.join(format!("{name}.part"));
        // What an earlier one left there; it is made anew, so that no link is followed.
        remove([partial.clone()]);
        state_dir::own_file(&partial)?.write_all(format!("{line}\n").as_bytes())?;
        fs::rename(partial, self.dir.join(name))
    }

    /// Reads all waiting orders, oldest first.
    pub fn read(&self, store: &Store, clock: &Clock) -> Result<Batch, IntakeError> {
        let new = self.dir.join(spool::NEW);
        let wrap = |source| IntakeError::Io {
            path: new.clone(),
            source,
        };
        let mut names: Vec<OsString> = Vec::new();
        for entry in fs::read_dir(&new).map_err(wrap)? {
            names.push(entry.map_err(wrap)?.file_name());
        }
        names.sort_unstable();
        let mut batch = Batch::default();
        let set_aside = |name: &OsStr, why: &str| self.set_aside(name, &new.join(name), why, clock.now());
        for name in names {
            let path = new.join(&name);
            let name = match name.into_string() {
                Ok(name) => name,
                Err(odd) => {
                    let why = "no hook gives such a name";
                    batch.events.push(set_aside(&odd, why));
                    continue;
                }
            };
            if store.is_taken(&name)? {
                batch.leftovers.push(path);
                continue;
            }
            match self.read_one(&name, &path, clock) {
                Ok((taken, event)) => {
                    batch.orders.push(taken);
                    batch.events.extend(event);
                }
                Err(Unread::Never(why)) => batch.events.push(set_aside(OsStr::new(&name), &why)),
                Err(Unread::NotNow(error)) => {
                    let text =
                        format!("the order {name} cannot be read now: {error}; it waits, and is tried again");
                    batch
                        .events
                        .push(Event::new(Subject::Controller, Kind::IntentWaits, text));
                }
            }
        }
        // Names sort by the machine's clock, which may have been set back in between.
        batch.orders.sort_by_key(|taken| taken.at);
        Ok(batch)
    }

    fn read_one(&self, name: &str, path: &Path, clock: &Clock) -> Result<(Taken, Option<Event>), Unread> {
        let file = state_dir::read_own_file(path).map_err(Unread::of)?;
        let mut bytes = Vec::new();
        let read = file.take(LARGEST + 1).read_to_end(&mut bytes);
        if read.map_err(Unread::of)? as u64 > LARGEST {
            return Err(Unread::Never(format!("it has more than {LARGEST} bytes")));
        }
        let file = IntentFile::decode(&bytes).map_err(|error| Unread::Never(error.to_string()))?;
        let nodes = file.nodes().map_err(|error| Unread::Never(error.to_string()))?;
        let (jobs, event) = jobs_by_node(&file);
        let (order, intent) = (file.order(jobs), file.taken(name));
        Ok((
            Taken {
                at: clock.of_wall(intent.at),
                intent,
                path: path.to_owned(),
                nodes,
                order,
            },
            event,
        ))
    }

    fn set_aside(&self, name: &OsStr, path: &Path, why: &str, now: Time) -> Event {
        let bad = self.dir.join("bad");
        let (first, mut second) = (bad.join(name), name.to_owned());
        // Is there one of that name already, a folder perhaps, then beside it.
        second.push(format!(".{}", now.0));
        let moved = fs::rename(path, &first).map(|()| first);
        let moved = moved.or_else(|_| {
            let second = bad.join(second);
            fs::rename(path, &second).map(|()| second)
        });
        // Whoever wrote the name: it stays on one line.
        let name = name.to_string_lossy();
        let name = name.escape_debug();
        let text = match moved {
            Ok(kept) => format!(
                "the order {name} cannot be read: {why}; kept as {}",
                kept.to_string_lossy().escape_debug()
            ),
            Err(error) => {
                format!("the order {name} cannot be read: {why}; and cannot be moved away: {error}")
            }
        };
        Event::new(Subject::Controller, Kind::IntentRefused, text)
    }
}

/// Removes files whose orders are in the store. One that stays is recognised by its name next time.
pub fn remove(paths: impl IntoIterator<Item = PathBuf>) {
    for path in paths {
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a consumed order could not be removed");
        }
    }
}

fn jobs_by_node(file: &IntentFile) -> (BTreeMap<NodeName, Vec<JobId>>, Option<Event>) {
    let mut jobs: BTreeMap<NodeName, Vec<JobId>> = BTreeMap::new();
    if file.resume_file.is_empty() {
        return (jobs, None);
    }
    match thiao_slurm::resume_file::parse(&String::from_utf8_lossy(&file.resume_file)) {
        Ok(parsed) => {
            for job in parsed.jobs {
                for node in job.resume {
                    jobs.entry(node).or_default().push(job.id);
                }
            }
            (jobs, None)
        }
        // The nodes are asked for all the same; only for whom is not known.
        Err(error) => {
            let text = format!("SLURM_RESUME_FILE could not be read, so jobs are not known: {error}");
            (jobs, Some(Event::new(Subject::Slurm, Kind::ResumeFile, text)))
        }
    }
}

/// Why the spool could not be read.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    #[error("the spool {path} cannot be read: {source}; orders wait there safely")]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use thiao_core::spool::IntentKind;
    use thiao_core::view::Shape;
    use thiao_testkit::ids::node as name;

    fn spool(dir: &Path) -> (Spool, Store) {
        let spec = |mode| NodeSpec {
            nodeset: thiao_core::ids::NodesetName::new("set").unwrap(),
            shape: Shape {
                cpus: 1,
                memory_mb: 200,
                share_percent: 100,
            },
            mode,
        };
        let nodes = [
            (name("fg0"), spec(Mode::PowerSaving)),
            (name("s1"), spec(Mode::Job)),
            (name("s2"), spec(Mode::Job)),
        ];
        let cluster = ClusterName::new("lab").unwrap();
        let spool = Spool::open(dir, &cluster, &nodes.into()).unwrap();
        (spool, Store::open(&dir.join("thiao.db")).unwrap())
    }

    #[test]
    fn the_hooks_are_told_which_nodes_are_in_job_mode() {
        let dir = tempfile::tempdir().unwrap();
        spool(dir.path());
        let told = |name: &str| fs::read_to_string(dir.path().join("spool").join(name)).unwrap();
        assert_eq!(told(spool::NODES), "fg0,s[1-2]\n");
        assert_eq!(told(spool::JOB_NODES), "s[1-2]\n");
    }

    #[test]
    fn the_end_of_a_job_becomes_an_order() {
        let dir = tempfile::tempdir().unwrap();
        let (spool, store) = spool(dir.path());
        let ends = [(Some(256), "s[1-2]"), (Some(0), "s1"), (None, "")];
        for (n, (exit, nodes)) in ends.into_iter().enumerate() {
            let kind = IntentKind::JobEnd { job: JobId(17), exit };
            let file = IntentFile {
                kind,
                at: Time(5),
                uid: 0,
                cluster: None,
                nodes: nodes.into(),
                resume_file: Vec::new(),
            };
            let path = dir
                .path()
                .join("spool/new")
                .join(spool::file_name(n as u128, 1, kind));
            fs::write(path, file.encode()).unwrap();
        }
        let batch = spool.read(&store, &Clock::start(None)).unwrap();
        assert!(batch.events.is_empty());
        let orders: Vec<_> = batch
            .orders
            .into_iter()
            .map(|taken| (taken.order, taken.nodes))
            .collect();
        let ended = |failed| Order::JobEnded {
            job: JobId(17),
            failed,
        };
        assert_eq!(
            orders,
            [
                (ended(true), vec![name("s1"), name("s2")]),
                (ended(false), vec![name("s1")]),
                (ended(false), vec![]),
            ]
        );
    }
}
