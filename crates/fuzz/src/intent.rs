//! A hook's arguments and environment, to the order on disk and back.
//!
//! The input is what Slurm gives a hook, one after another with a NUL between
//! them, which no argument and no variable can hold: a hostlist, the list of
//! nodes in the spool, the calling cluster, the controller's, a job's id and
//! its exit code; the rest is the resume file. It is also read as an order's file.

use crate::input::{says_something, text};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use thiao_core::hostlist;
use thiao_core::ids::{ClusterName, NodeName, Time};
use thiao_core::spool::{IntentFile, IntentKind, file_name};
use thiao_hook::from_slurm::{self, Chosen, Listed};

/// Lists of more names are slow to try, and say nothing new.
const FEW: u64 = 64;

/// What is read as an order is written as the same bytes.
pub fn check(input: &[u8]) {
    match IntentFile::decode(input) {
        Ok(intent) => assert_eq!(intent.encode(), input, "one layout for one order"),
        Err(error) => says_something(&error, input),
    }
    if let Some(answer) = from_slurm::answer(input) {
        assert!(!answer.body.contains('\n'));
    }
    said_by_slurm(input);
}

/// What Slurm gave a hook, as far as an order is made of it.
struct Said<'a> {
    whole: &'a [u8],
    cluster: Option<ClusterName>,
    known: Listed,
    resume_file: &'a [u8],
}

fn said_by_slurm(input: &[u8]) {
    let mut fields = input.splitn(7, |byte| *byte == 0);
    let mut field = || fields.next().unwrap_or_default();
    let (list, known, calling, ours) = (field(), field(), field(), field());
    let (job, exit, resume_file) = (field(), field(), field());
    let said = Said {
        whole: input,
        cluster: cluster(calling, ours),
        known: Listed::read(&text(known)).unwrap_or_else(|error| {
            says_something(&error, known);
            Listed::Unclear
        }),
        resume_file,
    };
    let few = |list: &[u8]| hostlist::count(list).is_ok_and(|count| count <= FEW);
    if list.len() > 4 && !few(list) && hostlist::count(list).is_ok() {
        return;
    }
    said.nodes_are_chosen(list);
    let exit = Some(OsStr::from_bytes(exit)).filter(|exit| !exit.is_empty());
    said.job_ends(job, list, exit);
}

fn cluster(calling: &[u8], ours: &[u8]) -> Option<ClusterName> {
    let ours = text(ours);
    let ours = Some(&*ours).filter(|ours| !ours.is_empty());
    from_slurm::cluster(OsStr::from_bytes(calling), ours).unwrap_or_else(|other| {
        assert_ne!(other.calling, other.ours);
        None
    })
}

impl Said<'_> {
    /// `Resume`, `Suspend` and `ResumeFail` with this list.
    fn nodes_are_chosen(&self, list: &[u8]) {
        let Chosen { nodes, unknown } = match from_slurm::choose(list, &self.known) {
            Err(error) => return says_something(&error, list),
            Ok(chosen) => chosen,
        };
        let asked: BTreeSet<NodeName> = expanded(list);
        let kept = nodes
            .as_deref()
            .map(|nodes| expanded(nodes.as_bytes()))
            .unwrap_or_default();
        assert_eq!(nodes.is_some(), !kept.is_empty(), "an order is for somebody");
        assert!(kept.is_disjoint(&unknown));
        assert_eq!(
            kept.union(&unknown).cloned().collect::<BTreeSet<_>>(),
            asked,
            "nobody is forgotten"
        );
        assert!(kept.iter().all(|node| self.known.may_have(node)));
        let Some(nodes) = nodes else { return };
        let force = self.whole.len().is_multiple_of(2);
        for kind in [
            IntentKind::Resume { force },
            IntentKind::Suspend,
            IntentKind::ResumeFail,
        ] {
            self.is_kept(kind, nodes.clone());
        }
    }

    /// `EpilogSlurmctld` of this job, on these nodes.
    fn job_ends(&self, job: &[u8], list: &[u8], exit: Option<&OsStr>) {
        match from_slurm::job_end(OsStr::from_bytes(job), OsStr::from_bytes(list), exit, &self.known) {
            Err(error) => says_something(&error, self.whole),
            Ok(None) => (),
            Ok(Some((kind, nodes))) => {
                assert!(expanded(nodes.as_bytes()).is_subset(&expanded(list)));
                assert!(!nodes.is_empty());
                self.is_kept(kind, nodes);
            }
        }
    }

    /// An order goes into its file and out of it unchanged.
    fn is_kept(&self, kind: IntentKind, nodes: String) {
        let intent = IntentFile {
            kind,
            at: Time(self.whole.len() as u64),
            uid: 64030,
            cluster: self.cluster.clone(),
            nodes,
            resume_file: match kind {
                IntentKind::Resume { .. } => self.resume_file.to_vec(),
                IntentKind::Suspend | IntentKind::ResumeFail | IntentKind::JobEnd { .. } => Vec::new(),
            },
        };
        assert_eq!(IntentFile::decode(&intent.encode()).as_ref(), Ok(&intent));
        let name = file_name(1, 2, kind);
        assert!(
            name.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        );
    }
}

fn expanded(list: &[u8]) -> BTreeSet<NodeName> {
    let names = hostlist::expand(list).expect("it was taken as a hostlist");
    names.into_iter().collect()
}
