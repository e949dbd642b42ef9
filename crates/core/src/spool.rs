//! The spool: how a hook tells the controller what Slurm asked for. One file
//! per order, written whole by the hook, consumed once by the controller.
//!
//! ```text
//! thiao-intent 1
//! kind resume
//! force no
//! at 1732387200123
//! uid 64030
//! cluster lab
//! nodes fg[0-3]
//! resume-file 52
//!
//! {"jobs":[{"job_id":5,"nodes":"v4"}],"all_nodes":"v4"}
//! ```
//! The lines come in this order, each once; `force` with `resume` alone,
//! `cluster` when the hook knew it. `nodes` is a hostlist. After the empty line
//! follow as many bytes as `resume-file` says: `SLURM_RESUME_FILE` as it was,
//! because Slurm removes it soon. A file is refused whole rather than read in
//! part; a later layout gets another number in the first line.
//!
//! The end of a job has two other lines in the place of `force`: `job 17`, and
//! `exit 256` (a status as of wait(2)) if it is known. Its `nodes` are missing
//! when a person wrote it, who does not know them.
//!
//! The files' names ([`file_name`]) sort by time. The folders: a hook writes
//! into [`TMP`] and renames into [`NEW`]; it finds the known nodes in [`NODES`],
//! those whose VMs are for one job each in [`JOB_NODES`] and the cluster's name in
//! [`CLUSTER`], which the controller writes.

use crate::hostlist::{self, HostlistError};
use crate::ids::{ClusterName, JobId, NodeName, Time};
use crate::journal::TakenIntent;
use crate::orders::Order;
use std::collections::BTreeMap;
use std::fmt;

/// Folder in the spool for files being written. What lies here for long was
/// left by a hook that was killed: it had not promised anything.
pub const TMP: &str = "tmp";

/// Folder in the spool whose files are complete orders.
pub const NEW: &str = "new";

/// The header in which a prolog names its job's working directory, with `%20` for what headers cannot have.
pub const WORK_DIR_HEADER: &str = "Thiao-Work-Dir";

/// File in the spool with the nodes that the controller knows, as one hostlist and a newline.
pub const NODES: &str = "nodes";

/// File in the spool with those of them that are in job mode, in the same form.
pub const JOB_NODES: &str = "job-nodes";

/// File in the spool with the cluster's name and a newline.
pub const CLUSTER: &str = "cluster";

/// The users whose jobs can run in the guests, a uid a line; without it nothing is known of that.
pub const USERS: &str = "users";

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IntentKind {
    /// Give the nodes their VMs. With `force`, also where it was given up.
    Resume {
        /// Whether `-f` was given.
        force: bool,
    },
    /// Take the nodes' VMs away.
    Suspend,
    /// Slurm gave up waiting for the nodes.
    ResumeFail,
    /// A job is over: the VMs that were for it alone go. Without nodes: those of
    /// any node.
    JobEnd {
        job: JobId,
        /// How it ended, as wait(2) has it; none if that is not known.
        exit: Option<u32>,
    },
}

impl IntentKind {
    /// Its word in the file and at the end of the file's name.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Resume { .. } => "resume",
            Self::Suspend => "suspend",
            Self::ResumeFail => "resume-fail",
            Self::JobEnd { .. } => "job-end",
        }
    }
}

/// An order, as its file in the spool has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntentFile {
    /// What is asked for.
    pub kind: IntentKind,
    /// When the hook ran.
    pub at: Time,
    /// The uid the hook ran under.
    pub uid: u32,
    /// The cluster, if Slurm named it.
    pub cluster: Option<ClusterName>,
    /// For which nodes: a well-formed hostlist. Empty only where a job's nodes are not known.
    pub nodes: String,
    /// The bytes of `SLURM_RESUME_FILE`; empty if there was none.
    pub resume_file: Vec<u8>,
}

/// Why some bytes are not an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadIntent {
    /// The first line is another one: not an order, or of a version that we do not know.
    NotOurs,
    /// A line is missing or says something else than the named field should.
    Field(&'static str),
    /// The nodes are not a hostlist.
    Nodes(HostlistError),
    /// The resume file has another length than promised.
    Length {
        /// What the header says, in bytes.
        promised: usize,
        /// What is there, in bytes.
        found: usize,
    },
}

impl fmt::Display for BadIntent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOurs => write!(
                f,
                "its first line is not {FIRST_LINE:?}: it was not written by this version's hooks"
            ),
            Self::Field(field) => write!(f, "its line {field:?} is missing, out of order or malformed"),
            Self::Nodes(error) => write!(f, "its nodes: {error}"),
            Self::Length { promised, found } => {
                write!(f, "its resume file should have {promised} bytes and has {found}")
            }
        }
    }
}

impl std::error::Error for BadIntent {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Nodes(error) => Some(error),
            Self::NotOurs | Self::Field(_) | Self::Length { .. } => None,
        }
    }
}

const FIRST_LINE: &str = "thiao-intent 1";

/// The name for an order's file: sorts by time, and is another one for each
/// process and instant. `nanos` is the time since the Unix epoch.
#[must_use]
pub fn file_name(nanos: u128, pid: u32, kind: IntentKind) -> String {
    format!("{nanos:020}-{pid}-{}", kind.word())
}

impl IntentFile {
    /// The bytes of its file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let details = match self.kind {
            IntentKind::Resume { force: true } => "force yes\n".to_owned(),
            IntentKind::Resume { force: false } => "force no\n".to_owned(),
            IntentKind::Suspend | IntentKind::ResumeFail => String::new(),
            IntentKind::JobEnd { job, exit: None } => format!("job {job}\n"),
            IntentKind::JobEnd {
                job,
                exit: Some(exit),
            } => format!("job {job}\nexit {exit}\n"),
        };
        let nodes = match self.kind {
            IntentKind::JobEnd { .. } if self.nodes.is_empty() => String::new(),
            IntentKind::Resume { .. }
            | IntentKind::Suspend
            | IntentKind::ResumeFail
            | IntentKind::JobEnd { .. } => format!("nodes {}\n", self.nodes),
        };
        let cluster = self
            .cluster
            .as_ref()
            .map(|name| format!("cluster {name}\n"))
            .unwrap_or_default();
        let mut bytes = format!(
            "{FIRST_LINE}\nkind {}\n{details}at {}\nuid {}\n{cluster}{nodes}resume-file {}\n\n",
            self.kind.word(),
            self.at.0,
            self.uid,
            self.resume_file.len(),
        )
        .into_bytes();
        bytes.extend_from_slice(&self.resume_file);
        bytes
    }

    /// What it asks for; `jobs` are those of its resume file, by node.
    #[must_use]
    pub fn order(&self, jobs: BTreeMap<NodeName, Vec<JobId>>) -> Order {
        match self.kind {
            IntentKind::Resume { force } => Order::Up { force, jobs },
            IntentKind::Suspend => Order::Down,
            IntentKind::ResumeFail => Order::ResumeFailed,
            // Unknown is no failure: a person's word, or of an older Slurm's hook.
            IntentKind::JobEnd { job, exit } => Order::JobEnded {
                job,
                failed: exit.is_some_and(|exit| exit != 0),
            },
        }
    }

    /// Its nodes; none of a job's end that a person gave.
    ///
    /// # Errors
    /// When the list is none.
    pub fn nodes(&self) -> Result<Vec<NodeName>, HostlistError> {
        match self.nodes.as_str() {
            "" => Ok(Vec::new()),
            list => hostlist::expand(list),
        }
    }

    /// For the journal, once it is taken from the file of this name.
    #[must_use]
    pub fn taken(&self, name: &str) -> TakenIntent {
        TakenIntent {
            name: name.to_owned(),
            kind: self.kind.word().to_owned(),
            nodes: self.nodes.clone(),
            at: self.at,
            uid: self.uid,
        }
    }

    /// Reads a file back.
    ///
    /// # Errors
    /// The first thing that is not exactly as [`encode`](Self::encode) writes it.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadIntent> {
        let mut header = Header { rest: bytes };
        if header.line() != Some(FIRST_LINE) {
            return Err(BadIntent::NotOurs);
        }
        let kind = match header.field("kind")? {
            "resume" => match header.field("force")? {
                "yes" => IntentKind::Resume { force: true },
                "no" => IntentKind::Resume { force: false },
                _ => return Err(BadIntent::Field("force")),
            },
            "suspend" => IntentKind::Suspend,
            "resume-fail" => IntentKind::ResumeFail,
            "job-end" => IntentKind::JobEnd {
                job: JobId(header.number("job")?),
                exit: header.optional_number("exit")?,
            },
            _ => return Err(BadIntent::Field("kind")),
        };
        let at = Time(header.number("at")?);
        let uid = header.number("uid")?;
        let cluster = match header.optional("cluster") {
            Some(name) => Some(ClusterName::new(name).map_err(|_| BadIntent::Field("cluster"))?),
            None => None,
        };
        let nodes = match (kind, header.optional("nodes")) {
            (_, Some(nodes)) => {
                hostlist::count(nodes).map_err(BadIntent::Nodes)?;
                nodes.to_owned()
            }
            (IntentKind::JobEnd { .. }, None) => String::new(),
            (IntentKind::Resume { .. } | IntentKind::Suspend | IntentKind::ResumeFail, None) => {
                return Err(BadIntent::Field("nodes"));
            }
        };
        let promised = header.number("resume-file")?;
        if header.line() != Some("") {
            return Err(BadIntent::Field("(empty)"));
        }
        let resume_file = header.rest.to_vec();
        if resume_file.len() != promised {
            return Err(BadIntent::Length {
                promised,
                found: resume_file.len(),
            });
        }
        Ok(Self {
            kind,
            at,
            uid,
            cluster,
            nodes,
            resume_file,
        })
    }
}

/// What is left to read, at the start of a line.
struct Header<'a> {
    rest: &'a [u8],
}

impl<'a> Header<'a> {
    /// The next line without its newline, if it is whole and text.
    fn line(&mut self) -> Option<&'a str> {
        let end = self.rest.iter().position(|&byte| byte == b'\n')?;
        let line = std::str::from_utf8(&self.rest[..end]).ok()?;
        self.rest = &self.rest[end + 1..];
        Some(line)
    }

    /// The value of the next line if that line is this field; else the line stays.
    fn optional(&mut self, name: &str) -> Option<&'a str> {
        let before = self.rest;
        let value = self
            .line()
            .and_then(|line| line.strip_prefix(name)?.strip_prefix(' '));
        if value.is_none() {
            self.rest = before;
        }
        value
    }

    fn field(&mut self, name: &'static str) -> Result<&'a str, BadIntent> {
        self.optional(name).ok_or(BadIntent::Field(name))
    }

    /// A number as we write it: digits alone, no leading zeros.
    fn number<N: std::str::FromStr + ToString>(&mut self, name: &'static str) -> Result<N, BadIntent> {
        self.optional_number(name)?.ok_or(BadIntent::Field(name))
    }

    /// The same, if the next line is this field.
    fn optional_number<N: std::str::FromStr + ToString>(
        &mut self,
        name: &'static str,
    ) -> Result<Option<N>, BadIntent> {
        let Some(text) = self.optional(name) else {
            return Ok(None);
        };
        let number = text.parse().ok().filter(|number: &N| number.to_string() == text);
        number.map(Some).ok_or(BadIntent::Field(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn example() -> IntentFile {
        IntentFile {
            kind: IntentKind::Resume { force: true },
            at: Time(1_732_387_200_123),
            uid: 64030,
            cluster: Some(ClusterName::new("lab").unwrap()),
            nodes: "fg[0-3],vm7".to_owned(),
            resume_file: b"{}\n\n\xff".to_vec(),
        }
    }

    #[test]
    fn the_layout_is_fixed() {
        let text = b"thiao-intent 1\nkind resume\nforce yes\nat 1732387200123\nuid 64030\ncluster lab\nnodes fg[0-3],vm7\nresume-file 5\n\n{}\n\n\xff";
        assert_eq!(example().encode(), text);
        assert_eq!(IntentFile::decode(text), Ok(example()));
    }

    #[test]
    fn anything_odd_is_refused() {
        let text = String::from_utf8(
            IntentFile {
                resume_file: b"abc".to_vec(),
                ..example()
            }
            .encode(),
        )
        .unwrap();
        for (from, to, error) in [
            ("intent 1", "intent 2", BadIntent::NotOurs),
            ("kind resume", "kind eat", BadIntent::Field("kind")),
            ("kind resume", "kind suspend", BadIntent::Field("at")),
            ("force yes", "force maybe", BadIntent::Field("force")),
            ("force yes\n", "", BadIntent::Field("force")),
            ("at 1", "at -1", BadIntent::Field("at")),
            ("at 1", "at 01", BadIntent::Field("at")),
            ("uid 64030", "uid 4294967296", BadIntent::Field("uid")),
            ("uid 64030", "uid +1", BadIntent::Field("uid")),
            ("cluster lab", "cluster a b", BadIntent::Field("cluster")),
            ("cluster lab", "clusters lab", BadIntent::Field("nodes")),
            (
                "cluster lab\n",
                "cluster lab\ncluster lab\n",
                BadIntent::Field("nodes"),
            ),
            ("file 3\n\n", "file 3\n", BadIntent::Field("(empty)")),
            (
                "file 3",
                "file 4",
                BadIntent::Length {
                    promised: 4,
                    found: 3,
                },
            ),
            (
                "file 3",
                "file 2",
                BadIntent::Length {
                    promised: 2,
                    found: 3,
                },
            ),
            ("\n", "\r\n", BadIntent::NotOurs),
        ] {
            assert!(text.contains(from));
            assert_eq!(
                IntentFile::decode(text.replacen(from, to, 1).as_bytes()),
                Err(error),
                "{from:?} -> {to:?}"
            );
        }
        let error = IntentFile::decode(text.replace("fg[0-3]", "fg[0-").as_bytes()).unwrap_err();
        assert!(
            matches!(&error, BadIntent::Nodes(error) if error.at == 5),
            "{error}"
        );
        let whole = text.as_bytes();
        for end in 0..whole.len() {
            assert!(
                IntentFile::decode(&whole[..end]).is_err(),
                "cut after {end} bytes"
            );
        }
    }

    /// The end of a job, as a hook knows it and as a person does.
    fn ends() -> [IntentFile; 2] {
        let end = |exit, nodes: &str| IntentFile {
            kind: IntentKind::JobEnd { job: JobId(17), exit },
            nodes: nodes.to_owned(),
            resume_file: Vec::new(),
            ..example()
        };
        [end(Some(256), "s[1-2]"), end(None, "")]
    }

    #[test]
    fn the_end_of_a_job_has_a_layout_too() {
        let start = "thiao-intent 1\nkind job-end\njob 17\n";
        let rest = "at 1732387200123\nuid 64030\ncluster lab\n";
        let texts = [
            format!("{start}exit 256\n{rest}nodes s[1-2]\nresume-file 0\n\n"),
            format!("{start}{rest}resume-file 0\n\n"),
        ];
        for (end, text) in ends().into_iter().zip(&texts) {
            assert_eq!(end.encode(), text.as_bytes());
            assert_eq!(IntentFile::decode(text.as_bytes()), Ok(end));
        }
        for (from, to, error) in [
            ("job 17", "job 017", BadIntent::Field("job")),
            ("job 17", "job 17_3", BadIntent::Field("job")),
            ("job 17", "job 4294967296", BadIntent::Field("job")),
            ("job 17\n", "", BadIntent::Field("job")),
            ("exit 256", "exit -1", BadIntent::Field("exit")),
            ("exit 256", "exit 1:0", BadIntent::Field("exit")),
            ("exit 256\n", "exit 256\nexit 256\n", BadIntent::Field("at")),
            (
                "job 17\nexit 256\n",
                "exit 256\njob 17\n",
                BadIntent::Field("job"),
            ),
            ("kind job-end", "kind suspend", BadIntent::Field("at")),
            (
                "nodes s[1-2]\n",
                "nodes s1\nnodes s2\n",
                BadIntent::Field("resume-file"),
            ),
        ] {
            assert!(texts[0].contains(from));
            let changed = texts[0].replacen(from, to, 1);
            assert_eq!(
                IntentFile::decode(changed.as_bytes()),
                Err(error),
                "{from:?} -> {to:?}"
            );
        }
        let empty = texts[0].replace("nodes s[1-2]", "nodes ");
        let refused = IntentFile::decode(empty.as_bytes());
        assert!(matches!(refused, Err(BadIntent::Nodes(_))), "{refused:?}");
    }

    #[test]
    fn only_a_jobs_nodes_may_be_unknown() {
        let suspend = IntentFile {
            kind: IntentKind::Suspend,
            resume_file: Vec::new(),
            ..example()
        };
        let text = String::from_utf8(suspend.encode()).unwrap();
        let without = text.replace("nodes fg[0-3],vm7\n", "");
        assert_eq!(
            IntentFile::decode(without.as_bytes()),
            Err(BadIntent::Field("nodes"))
        );
    }

    #[test]
    fn names_sort_by_time() {
        let name = |nanos, pid| file_name(nanos, pid, IntentKind::ResumeFail);
        assert_eq!(name(5, 12), "00000000000000000005-12-resume-fail");
        assert!(name(999, 2) < name(1000, 1));
        assert!(name(1_732_387_200_123_456_789, 2) < name(4_102_444_800_000_000_000, 1));
    }

    fn intents() -> impl Strategy<Value = IntentFile> {
        let kind = prop_oneof![
            any::<bool>().prop_map(|force| IntentKind::Resume { force }),
            Just(IntentKind::Suspend),
            Just(IntentKind::ResumeFail),
            (any::<u32>(), any::<Option<u32>>()).prop_map(|(job, exit)| IntentKind::JobEnd {
                job: JobId(job),
                exit
            }),
        ];
        let cluster = prop::option::of("[a-z0-9][a-zA-Z0-9._-]{0,20}");
        let nodes = "[a-z]{1,5}(\\[[0-4]-[5-9]\\])?(,[a-z0-9]{1,5}){0,3}";
        let known = prop::bool::weighted(0.7);
        let bytes = prop::collection::vec(any::<u8>(), 0..200);
        (kind, any::<u64>(), any::<u32>(), cluster, (nodes, known), bytes).prop_map(
            |(kind, at, uid, cluster, (nodes, known), resume_file)| IntentFile {
                kind,
                at: Time(at),
                uid,
                cluster: cluster.map(|name| ClusterName::new(&name).unwrap()),
                nodes: match kind {
                    IntentKind::JobEnd { .. } if !known => String::new(),
                    _ => nodes,
                },
                resume_file,
            },
        )
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(intent in intents()) {
            prop_assert_eq!(IntentFile::decode(&intent.encode()), Ok(intent));
        }

        #[test]
        fn one_layout_for_one_order(intent in intents(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = intent.encode();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(changed) = IntentFile::decode(&bytes) {
                prop_assert_eq!(changed.encode(), bytes);
            }
        }

        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), start in 0..3_usize) {
            let start = ["", "kind resume\nforce no\n", "kind job-end\njob 1\n"][start];
            let first = if start.is_empty() { "" } else { "thiao-intent 1\n" };
            _ = IntentFile::decode(&[first.as_bytes(), start.as_bytes(), &bytes].concat());
        }
    }
}
