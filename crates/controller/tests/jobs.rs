//! What the controller says of jobs: those of arrays, those that are over, and those of this moment. It has no
//! VMs here, and stand-ins for Slurm's programs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::time::Duration;
use thiao_api::client::{Client, ClientError};
use thiao_controller::provider::{Ended, Observed, Prepared, Provider, ProviderError};
use thiao_controller::serve_with;
use thiao_controller::store::Store;
use thiao_core::event::{Event, Kind, Subject};
use thiao_core::ids::{Generation, HostName, JobId, NodeName, Time, VmId, VmTag};
use thiao_core::journal::{Entry, Journal as _};
use thiao_core::view::{ProviderView, Shape, VmSpec};
use thiao_core::vm::{Life, Registration, VmRecord};
use thiao_core::world::NodeRecord;
use thiao_testkit::site::Site;
use thiao_testkit::wait::until;
use tokio::task::JoinHandle;

/// A provider that has nothing and is asked for nothing.
struct Nothing;

impl Provider for Nothing {
    fn name(&self) -> &'static str {
        "nothing"
    }

    fn prepare(
        &self,
        _: &[(thiao_core::ids::NodesetName, Shape)],
        _: &dyn Fn(&str),
    ) -> Result<Prepared, ProviderError> {
        Ok(Prepared::default())
    }

    fn observe(&self) -> Result<Observed, ProviderError> {
        Ok(Observed::Whole(ProviderView::default()))
    }

    fn create(&self, _: &VmTag, _: &HostName, _: &VmSpec, _: bool) -> Result<VmId, ProviderError> {
        unreachable!("there is no host")
    }

    fn start_slurmd(&self, _: &VmTag, _: Option<&VmId>, _: u32, _: Duration) -> Result<(), ProviderError> {
        unreachable!("there is no VM")
    }

    fn destroy(&self, _: &VmTag, _: Option<&VmId>, _: bool) -> Result<Ended, ProviderError> {
        Ok(Ended::Gone)
    }

    fn timeline(&self, _: &VmId) -> Vec<(u64, String)> {
        Vec::new()
    }
}

const QUICK: &str = "slurm_poll = 0.05\nslurm_poll_busy = 0.05\n";
/// So seldom that what is seen was asked for.
const SELDOM: &str = "slurm_poll = 3600\nslurm_poll_busy = 3600\nobservation_max_age = 3600\n";

struct Controller {
    site: Site,
    client: Client,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A controller after its first observation of a site with two nodes; `past` has what an earlier one kept.
fn start(timing: &str, past: impl FnOnce(&mut Store)) -> Controller {
    let site = Site::new(&format!("{NODES}[timing]\ntick = 0.05\n{timing}"));
    start_on(site, past)
}

const NODES: &str = "[[nodeset]]\nname = \"n\"\nnodes = \"n[0-1]\"\nmemory_mb = 100\n";

fn start_on(site: Site, past: impl FnOnce(&mut Store)) -> Controller {
    let down = [
        "n0|idle+cloud+powered_down|none",
        "n1|idle+cloud+powered_down|none",
    ];
    site.slurm_says(&down);
    let config = site.config();
    std::fs::create_dir(&config.state_dir).unwrap();
    let mut store = Store::open(&config.state_dir.join("thiao.db")).unwrap();
    store.set_provider("nothing").unwrap();
    store.load().unwrap();
    past(&mut store);
    drop(store);
    let client = Client::new(&config.state_dir);
    let task = tokio::spawn(serve_with(config, Arc::new(Nothing), Arc::default()));
    until("it has observed Slurm", || {
        client.status().is_ok_and(|status| status.slurm.last_ok.is_some())
    });
    Controller { site, client, task }
}

impl Controller {
    /// What `squeue` lists from now on: number, array, tasks and state of each job. What does not wait is on n0.
    fn jobs_are(&self, jobs: &[(u32, u32, &str, &str)]) {
        let line = |(id, array, tasks, state): &(u32, u32, &str, &str)| {
            let node = if *state == "PENDING" { "" } else { "n0" };
            format!(
                "{id}|{array}|{tasks}|N/A|1000|vm|{state}|1|1|1790000000|1790000001|{node}|1|cpu=1,node=1|1|1\n"
            )
        };
        let text: String = jobs.iter().map(line).collect();
        let part = self.site.path("jobs.part");
        std::fs::write(&part, text).unwrap();
        std::fs::rename(part, self.site.path("jobs")).unwrap();
    }

    /// The story of one: its subject, and what holds now.
    #[track_caller]
    fn explain(&self, name: &str) -> (String, Vec<String>) {
        let told = self.client.explain(name).unwrap();
        (told.subject, told.now)
    }

    #[track_caller]
    fn refusal(&self, name: &str) -> (u16, String) {
        match self.client.explain(name) {
            Err(ClientError::Refused { code, error }) => (code, error),
            other => panic!("{other:?}"),
        }
    }
}

/// Task 8 of array 3 was job 12 of user 1000, had a VM for itself, and was told of.
fn had_a_task(store: &mut Store) {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    // Not so old that it is forgotten.
    let now = Time(u64::try_from(now.as_millis()).unwrap() - 60_000);
    let node = NodeName::new("n0").unwrap();
    let vm = VmRecord {
        generation: Generation(3),
        id: None,
        host: None,
        spec: Some(VmSpec {
            job: Some(JobId(12)),
            ..VmSpec::of_node(Shape {
                cpus: 1,
                memory_mb: 100,
                share_percent: 100,
            })
        }),
        life: Life::Running,
        registration: Registration::Registered,
        asked: now,
        since: now,
        aside: Default::default(),
        missing_since: None,
        kept: None,
        starts: Default::default(),
    };
    let with_vm = NodeRecord {
        vm: Some(vm),
        ..NodeRecord::default()
    };
    let event = Event::new(Subject::Job(JobId(12)), Kind::JobReleased, "all its nodes are up");
    let entry = Entry {
        owners: [(JobId(12), 1000)].into(),
        tasks: [(JobId(12), (JobId(3), 8))].into(),
        events: vec![(event, Some(1000))],
        ..Entry::default()
    };
    store
        .save(&[(node.clone(), with_vm)].into(), &entry, now)
        .unwrap();
    store
        .save(&[(node, NodeRecord::default())].into(), &Entry::default(), now)
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_over_is_known_by_its_name() {
    let controller = start(QUICK, had_a_task);
    let story = controller.client.explain("3_8").unwrap();
    assert_eq!(
        story.now,
        [
            "3_8 is over: Slurm does not list it any more",
            "VM n0.3 was made for it alone: `thiao jobs 12` shows more"
        ]
    );
    assert_eq!((story.subject.as_str(), story.uid), ("job 12", Some(1000)));
    assert_eq!(story.story.len(), 1);
    assert_eq!(controller.explain("12").1, story.now);
    for name in ["3_8", "12", "3"] {
        let had = controller.client.job_vms(name.parse().unwrap()).unwrap();
        assert_eq!(had.vms.len(), 1, "{name}");
        assert_eq!((had.vms[0].job, had.uid), (12, Some(1000)));
    }
    let had = controller.client.job_vms("3_9".parse().unwrap());
    assert_eq!(had.unwrap_err().to_string(), "no job 3_9 is known here");
    for name in ["3_9", "99"] {
        assert_eq!(
            controller.refusal(name),
            (404, format!("no job {name} is known here"))
        );
    }
    let (code, words) = controller.refusal("3_x");
    assert!(
        code == 404 && words.contains("3_x is not a node, VM or job"),
        "{words}"
    );
    let cleaned = controller.client.clean("3_8".parse().unwrap()).unwrap();
    assert_eq!(
        cleaned.message,
        "job 3_8 has no VMs: there is nothing to clean up"
    );
}

/// Slurm tells the last requeue for its submission.
#[tokio::test(flavor = "multi_thread")]
async fn a_requeued_job_keeps_its_story() {
    let controller = start(QUICK, had_a_task);
    let line = "12|12|N/A|N/A|1000|vm|PENDING|1|1|1999999999|N/A||1|cpu=1,node=1|1|1\n";
    std::fs::write(controller.site.path("jobs"), line).unwrap();
    until("it is seen", || {
        !controller.explain("12").1[0].contains("is over")
    });
    let story = controller.client.explain("12").unwrap().story;
    assert_eq!(story.len(), 1, "{story:?}");
    // Another's of that number is another job.
    std::fs::write(controller.site.path("jobs"), line.replace("|1000|", "|1001|")).unwrap();
    until("the other is seen", || {
        controller
            .client
            .explain("12")
            .is_ok_and(|told| told.uid == Some(1001))
    });
    let story = controller.client.explain("12").unwrap().story;
    assert!(story.is_empty(), "{story:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_array_it_is_told_what_its_tasks_do() {
    let controller = start(QUICK, |_| {});
    // The record of the array's own number is the last task's, which is over.
    controller.jobs_are(&[
        (11, 10, "1", "CONFIGURING"),
        (12, 10, "2", "RUNNING"),
        (13, 10, "3", "RUNNING"),
        (14, 10, "4-7", "PENDING"),
    ]);
    until("the tasks are seen", || {
        controller.client.jobs(false).unwrap().len() == 4
    });
    let lines = [
        "10_1 is CONFIGURING",
        "10_[4-7] are PENDING",
        "10_[2-3] are RUNNING",
        "`thiao explain 10_1` says more about that task",
    ];
    let story = controller.client.explain("10").unwrap();
    assert_eq!((story.subject.as_str(), story.uid), ("job 10", Some(1000)));
    assert_eq!(story.now, lines);
    assert_eq!(
        controller.explain("10_5"),
        (
            "job 14".to_owned(),
            vec![
                "it is 10_[4-7]".to_owned(),
                "Slurm shows it as PENDING".to_owned()
            ]
        )
    );
    // While it is there, both are told.
    controller.jobs_are(&[(10, 10, "8-9", "PENDING"), (11, 10, "1", "CONFIGURING")]);
    until("the record is seen", || {
        controller.client.jobs(false).unwrap().len() == 2
    });
    let now = controller.explain("10").1;
    assert_eq!(now[..2], ["it is 10_[8-9]", "Slurm shows it as PENDING"]);
    assert_eq!(now[2..], [lines[0], lines[3]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_was_told_of_is_remembered_by_its_name() {
    let controller = start(QUICK, |_| {});
    controller.jobs_are(&[(12, 3, "8", "ODD")]);
    until("it is told of", || {
        let told = controller.client.explain("3_8").unwrap();
        !told.story.is_empty()
    });
    controller.jobs_are(&[]);
    until("its end is seen", || {
        controller.client.jobs(true).unwrap().is_empty()
    });
    let (subject, now) = controller.explain("3_8");
    assert_eq!(subject, "job 12");
    assert_eq!(now, ["3_8 is over: Slurm does not list it any more"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_not_said_to_be_over_while_slurm_cannot_be_read() {
    let controller = start(QUICK, had_a_task);
    std::fs::remove_file(controller.site.path("jobs")).unwrap();
    until("Slurm cannot be read", || {
        controller.client.status().unwrap().slurm.error.is_some()
    });
    let now = controller.explain("3_8").1;
    assert!(now[0].starts_with("Slurm cannot be read now"), "{now:?}");
    for name in ["99", "3_9"] {
        let (code, words) = controller.refusal(name);
        assert!(
            code == 503 && words.starts_with("Slurm cannot be read now"),
            "{words}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_this_moment_is_listed_when_that_is_asked() {
    let controller = start(SELDOM, |_| {});
    controller.jobs_are(&[(7, 7, "N/A", "PENDING")]);
    assert!(controller.client.jobs(false).unwrap().is_empty());
    let ids = |fresh| {
        let jobs = controller.client.jobs(fresh).unwrap();
        jobs.into_iter().map(|job| job.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(true), [7]);
    controller.jobs_are(&[(7, 7, "N/A", "PENDING"), (8, 8, "N/A", "PENDING")]);
    assert_eq!(ids(false), [7]);
    assert_eq!(ids(true), [7, 8]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_is_not_there_is_told_of_and_made() {
    let site = Site::new(&format!(
        "{}mode = \"job\"\n[timing]\ntick = 0.05\n{QUICK}",
        NODES
    ));
    std::fs::write(site.path("config"), "Licenses = vm_room:1\n").unwrap();
    site.gate_holds(0);
    let controller = start_on(site, |_| ());
    let told = |text: &str| controller.site.told().matches(text).count();
    let ungated = || controller.client.status().unwrap().ungated;
    until("it is told of", || {
        ungated().is_some_and(|why| why == "the reservation thiao-room holds 0 of 1 licences vm_room")
    });
    until("it is made", || {
        told("create reservation ReservationName=thiao-room") > 0
    });
    controller.site.gate_holds(1);
    until("jobs wait again", || ungated().is_none());
    // Long after the controller and slurmctld began: an admin removes it.
    let before = told("create reservation");
    controller.site.gate_holds(0);
    until("it is made anew", || told("create reservation") > before);
    controller.site.gate_holds(1);
    until("jobs wait once more", || ungated().is_none());
    let events = controller.client.events(100, None, None).unwrap();
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| event.kind.as_str())
        .filter(|kind| kind.ends_with("gate") || kind.starts_with("gate"))
        .collect();
    // The same words are told once a minute.
    assert_eq!(kinds, ["no-gate", "gate-shut"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn how_a_job_ended_is_told_when_slurm_lists_it_no_more() {
    let controller = start(QUICK, |_| ());
    let ends = controller.site.path("ends");
    std::fs::write(
        &ends,
        "21|1000|OUT_OF_MEMORY|125|OutOfMemory\n22|1000|COMPLETED|0|None\n",
    )
    .unwrap();
    controller.jobs_are(&[(21, 21, "N/A", "RUNNING"), (22, 22, "N/A", "RUNNING")]);
    until("they are seen", || {
        controller.client.jobs(false).is_ok_and(|jobs| jobs.len() == 2)
    });
    controller.jobs_are(&[]);
    let told = || {
        controller
            .client
            .explain("21")
            .map(|told| told.now)
            .unwrap_or_default()
    };
    until("it is told how it ended", || {
        let now = told();
        now.len() > 1 && now[0].contains("is over")
    });
    let now = told();
    assert!(now[0].contains("is over"), "{now:?}");
    assert!(
        now[1].contains("OUT_OF_MEMORY") && now[1].contains("--mem"),
        "{now:?}"
    );
    // Its owner may know of it, and of one that ended well there is nothing to tell.
    let story = controller.client.explain("21").unwrap().story;
    assert!(
        story
            .iter()
            .any(|event| event.kind == "job-failed" && event.uid == Some(1000)),
        "{story:?}"
    );
    let all = controller.client.events(100, None, None).unwrap();
    assert!(
        !all.iter()
            .any(|event| event.subject == "job 22" && event.kind == "job-failed")
    );
}
