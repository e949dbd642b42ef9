//! The whole controller against a provider of the test's and stand-ins for Slurm's programs.
//! Aborting its task is what `kill -9` is to the process: nothing is tidied up.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod readers;
mod stories;

use std::collections::BTreeMap;
use std::fs;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use thiao_controller::provider::{Ended, Observed, Prepared, Provider, ProviderError, Welcome};
use thiao_controller::serve_with;
use thiao_core::ids::{HostName, NodeName, VmId, VmTag};
use thiao_core::prolog::Leftovers;
use thiao_core::spool::IntentKind;
use thiao_core::view::{ErrorClass, HostView, ProviderView, Shape, VmSpec, VmState, VmView};
use thiao_testkit::site::{RESUME, rounds};
use thiao_testkit::wait::until;
use tokio::task::JoinHandle;

/// A provider in memory that survives the controllers.
#[derive(Default)]
struct Fake {
    vms: Mutex<BTreeMap<VmId, VmView>>,
    /// Every creation asked for, also repeated ones.
    asked: Mutex<Vec<VmTag>>,
    /// Answers of the next creations that are lost after the work was done.
    lost_answers: Mutex<u32>,
    /// Creations that fail from now on, with this text.
    broken: Mutex<Option<String>>,
    /// Every start of slurmd, with its number and its wait.
    starts: Mutex<Vec<(VmTag, u32, Duration)>>,
    blind: Mutex<bool>,
    /// Nodes that it makes no VM for, and why.
    faults: Mutex<BTreeMap<NodeName, String>>,
    /// Whose jobs were said to come, and to which VM.
    welcomed: Mutex<Vec<(VmTag, u32, Leftovers)>>,
    /// Whether its guests do not answer.
    unheard: Mutex<bool>,
    /// The folder that its guests see.
    seen_folder: Mutex<Option<std::path::PathBuf>>,
    /// Why nobody is taken in.
    unwelcoming: Mutex<Option<String>>,
    /// Whether VMs end only when that is asked hard.
    lingering: Mutex<bool>,
    /// What the guests of all VMs wrote on their consoles.
    console: Mutex<Option<String>>,
    /// Held by a test in which nobody hears how VMs came up.
    silence: Mutex<()>,
}

impl Provider for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn prepare(
        &self,
        _: &[(thiao_core::ids::NodesetName, Shape)],
        _: &dyn Fn(&str),
    ) -> Result<Prepared, ProviderError> {
        Ok(Prepared {
            faults: self.faults.lock().unwrap().clone(),
            ..Prepared::default()
        })
    }

    fn observe(&self) -> Result<Observed, ProviderError> {
        if *self.blind.lock().unwrap() {
            return Err(ProviderError {
                class: ErrorClass::Transient,
                text: "no answer".into(),
            });
        }
        let host = HostView {
            name: HostName::new("a").unwrap(),
            cpu_percent: 800,
            memory_mb: 8000,
            gpus: None,
            usable: true,
            closed: None,
            not_for: Default::default(),
            load: None,
        };
        Ok(Observed::Whole(ProviderView {
            hosts: vec![host],
            vms: self.vms.lock().unwrap().values().cloned().collect(),
        }))
    }

    fn create(&self, tag: &VmTag, host: &HostName, _: &VmSpec, _: bool) -> Result<VmId, ProviderError> {
        self.asked.lock().unwrap().push(tag.clone());
        let broken = self.broken.lock().unwrap().clone();
        if let Some(text) = broken {
            return Err(ProviderError {
                class: ErrorClass::Refused,
                text,
            });
        }
        let id = VmId::new(&format!("{}.{}", tag.node, tag.generation)).unwrap();
        let vm = VmView {
            id: id.clone(),
            tag: Some(tag.clone()),
            host: Some(host.clone()),
            memory_mb: 240,
            cpu_percent: 100,
            state: VmState::Booting,
        };
        self.vms.lock().unwrap().insert(id.clone(), vm);
        let mut lost = self.lost_answers.lock().unwrap();
        if *lost > 0 {
            *lost -= 1;
            return Err(ProviderError {
                class: ErrorClass::Transient,
                text: "timed out".into(),
            });
        }
        Ok(id)
    }

    fn start_slurmd(
        &self,
        tag: &VmTag,
        _: Option<&VmId>,
        number: u32,
        wait: Duration,
    ) -> Result<(), ProviderError> {
        self.starts.lock().unwrap().push((tag.clone(), number, wait));
        Ok(())
    }

    fn welcomes(&self) -> bool {
        true
    }

    fn sees(&self, _: &VmTag, _: Option<&VmId>, folder: &Path) -> Option<bool> {
        let seen = self.seen_folder.lock().unwrap();
        seen.as_ref().map(|seen| folder.starts_with(seen))
    }

    fn welcome(&self, tag: &VmTag, _: Option<&VmId>, uid: u32, leftovers: Leftovers) -> Welcome {
        self.welcomed.lock().unwrap().push((tag.clone(), uid, leftovers));
        let unwelcoming = self.unwelcoming.lock().unwrap().clone();
        Welcome {
            told: unwelcoming.map_or(Ok(()), |text| {
                Err(ProviderError {
                    class: ErrorClass::Refused,
                    text,
                })
            }),
            unheard: *self.unheard.lock().unwrap(),
        }
    }

    fn destroy(&self, tag: &VmTag, _: Option<&VmId>, hard: bool) -> Result<Ended, ProviderError> {
        if *self.lingering.lock().unwrap() && !hard {
            return Ok(Ended::Underway("its guest takes its time".into()));
        }
        self.vms
            .lock()
            .unwrap()
            .retain(|_, vm| vm.tag.as_ref() != Some(tag));
        Ok(Ended::Gone)
    }

    fn last_words(&self, _: &VmTag, _: Option<&VmId>) -> Option<String> {
        self.console.lock().unwrap().clone()
    }

    fn timeline(&self, _: &VmId) -> Vec<(u64, String)> {
        drop(self.silence.lock().unwrap());
        Vec::new()
    }
}

struct Site {
    site: thiao_testkit::site::Site,
    provider: Arc<Fake>,
}

impl Deref for Site {
    type Target = thiao_testkit::site::Site;
    fn deref(&self) -> &thiao_testkit::site::Site {
        &self.site
    }
}

impl DerefMut for Site {
    fn deref_mut(&mut self) -> &mut thiao_testkit::site::Site {
        &mut self.site
    }
}

const SETTINGS: &str = r#"
[[nodeset]]
name = "n"
nodes = "n[0-1]"
memory_mb = 100
[timing]
tick = 0.05
slurm_poll = 0.05
slurm_poll_busy = 0.05
vm_poll = 0.05
vm_poll_busy = 0.05
retry_first = 0.2
orphan_grace = 1
missing_grace = 1
terminate_grace = 1
"#;

impl Site {
    fn new() -> Self {
        let site = Self {
            site: thiao_testkit::site::Site::new(SETTINGS),
            provider: Arc::default(),
        };
        site.slurm_says(&[
            "n0|idle+cloud+powered_down|none",
            "n1|idle+cloud+powered_down|none",
        ]);
        site
    }

    fn start(&self) -> JoinHandle<anyhow::Result<()>> {
        tokio::spawn(serve_with(self.config(), self.provider.clone(), Arc::default()))
    }

    fn vms(&self) -> Vec<String> {
        self.provider
            .vms
            .lock()
            .unwrap()
            .keys()
            .map(VmId::to_string)
            .collect()
    }

    fn set_vm(&self, id: &str, state: VmState) {
        self.provider
            .vms
            .lock()
            .unwrap()
            .values_mut()
            .find(|vm| vm.id.as_str() == id)
            .unwrap()
            .state = state;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_make_and_end_vms_and_are_consumed_once() {
    let mut site = Site::new();
    site.version_is("24.11.5");
    site.order(RESUME, "n[0-1]");
    let controller = site.start();
    until("both VMs", || site.vms() == ["n0.1", "n1.1"]);
    until("the order is consumed", || site.waiting_orders() == 0);
    // Slurm need not look up their names meanwhile.
    let unaddressed = "update NodeName=n[0-1] NodeAddr=255.255.255.255,255.255.255.255";
    assert!(site.told().contains(unaddressed), "{}", site.told());
    site.order(IntentKind::Suspend, "n0");
    until("n0's VM is gone", || site.vms() == ["n1.1"]);
    site.order(RESUME, "n0");
    until("its next VM has the next number", || {
        site.vms() == ["n0.2", "n1.1"]
    });
    assert_eq!(site.provider.asked.lock().unwrap().len(), 3);
    controller.abort();
}

/// Slurm tells starts in whole seconds: an order in the second of one would be held for ever.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_to_end_a_job_that_has_only_just_started_is_to_be_said_again() {
    use std::io::{Read, Write};
    let mut site = Site::new();
    site.order(RESUME, "n0");
    let controller = site.start();
    until("the VM", || site.vms() == ["n0.1"]);
    site.set_vm("n0.1", VmState::Ready);
    site.slurm_says(&["n0|allocated+cloud|none", "n1|idle+cloud+powered_down|none"]);
    let suspend = || {
        let mut api = std::os::unix::net::UnixStream::connect(site.path("state/api.sock")).unwrap();
        api.write_all(
            b"POST /v1/nodes/n0/suspend?force=true HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        )
        .unwrap();
        let mut answer = String::new();
        tokio::task::block_in_place(|| api.read_to_string(&mut answer)).unwrap();
        answer
    };
    let mut answer = String::new();
    until("the job is seen as it begins", || {
        site.job_begins(7, "n0");
        std::thread::sleep(Duration::from_millis(200));
        answer = suspend();
        !answer.starts_with("HTTP/1.1 2")
    });
    assert!(
        answer.starts_with("HTTP/1.1 409") && answer.contains("only just started"),
        "{answer}"
    );
    std::thread::sleep(Duration::from_millis(2100));
    assert!(suspend().starts_with("HTTP/1.1 2"));
    until("its VM is gone", || site.vms().is_empty());
    controller.abort();
}

/// A job that is cancelled while its node waits for capacity would make slurmctld look up the node's name.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_waits_for_capacity_has_no_address_that_slurm_looks_up() {
    let mut site = Site {
        site: thiao_testkit::site::Site::new(&format!("{SETTINGS}[limits]\nmax_vms = 1\n")),
        provider: Arc::default(),
    };
    site.version_is("24.11.5");
    site.slurm_says(&[
        "n0|idle+cloud+powered_down|none",
        "n1|idle+cloud+powered_down|none",
    ]);
    site.order(RESUME, "n[0-1]");
    let controller = site.start();
    until("one VM", || site.vms() == ["n0.1"]);
    let of = |list: &str| site.told().matches(&format!("NodeName={list} NodeAddr=")).count();
    until("Slurm is told of the node without", || of("n1") == 1);
    rounds();
    assert_eq!((of("n0"), of("n1")), (1, 1), "once: {}", site.told());
    controller.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_does_not_end_by_itself_is_ended_hard() {
    let mut site = Site::new();
    *site.provider.lingering.lock().unwrap() = true;
    site.order(RESUME, "n0");
    let controller = site.start();
    until("the VM", || site.vms() == ["n0.1"]);
    site.order(IntentKind::Suspend, "n0");
    until("it is gone", || site.vms().is_empty());
    site.order(RESUME, "n0");
    until("the next one", || site.vms() == ["n0.2"]);
    controller.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_given_while_the_controller_is_away_wait_for_it() {
    let mut site = Site::new();
    site.order(RESUME, "n0");
    site.order(IntentKind::Suspend, "n0");
    site.order(RESUME, "n1");
    let controller = site.start();
    until("the last word about each node holds", || site.vms() == ["n1.1"]);
    rounds();
    assert_eq!(site.vms(), ["n1.1"]);
    controller.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_controller_is_followed_by_one_that_makes_nothing_twice() {
    let mut site = Site::new();
    *site.provider.lost_answers.lock().unwrap() = 3;
    site.order(RESUME, "n[0-1]");
    for _ in 0..4 {
        let controller = site.start();
        until("it asks", || !site.vms().is_empty());
        controller.abort();
        let _ = controller.await;
    }
    let controller = site.start();
    rounds();
    assert_eq!(
        site.vms(),
        ["n0.1", "n1.1"],
        "one VM each, under the first number"
    );
    assert!(
        site.provider
            .asked
            .lock()
            .unwrap()
            .iter()
            .all(|tag| tag.generation.0 == 1)
    );
    controller.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_controller_on_one_state_folder_refuses() {
    let site = Site::new();
    let first = site.start();
    until("the first is up", || site.path("state/api.sock").exists());
    let refusal = site.start().await.unwrap().unwrap_err().to_string();
    assert!(
        refusal.contains("another thiaod uses the state folder"),
        "{refusal}"
    );
    first.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_dies_under_a_job_is_told_and_its_node_comes_back() {
    let mut site = Site::new();
    site.order(RESUME, "n0");
    let controller = site.start();
    until("the VM", || site.vms() == ["n0.1"]);
    site.set_vm("n0.1", VmState::Ready);
    site.slurm_says(&["n0|allocated+cloud|none", "n1|idle+cloud+powered_down|none"]);
    site.jobs_are([(7, "RUNNING", "n0".into())]);
    rounds();
    site.set_vm("n0.1", VmState::Dead("killed by signal 9".into()));
    until("Slurm is told", || site.told().contains("state=DOWN"));
    let told = site.told();
    assert!(
        told.contains("reason=thiao: VM n0.1 on host a died: killed by signal 9"),
        "{told}"
    );
    assert!(
        told.contains("JobId=7 AdminComment=thiao:"),
        "the job is told: {told}"
    );
    let reason = "thiao: VM n0.1 on host a died: killed by signal 9";
    site.slurm_says(&[
        &format!("n0|down+cloud+powered_down|{reason}"),
        "n1|idle+cloud+powered_down|none",
    ]);
    until("what is left of it is removed", || site.vms().is_empty());
    until("the node is given back", || {
        site.told().to_lowercase().contains("state=resume")
    });
    controller.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_cannot_be_made_is_told_at_once() {
    let mut site = Site::new();
    *site.provider.broken.lock().unwrap() = Some("the image is broken".into());
    site.slurm_says(&[
        "n0|allocated+cloud+powering_up|none",
        "n1|idle+cloud+powered_down|none",
    ]);
    site.order(RESUME, "n0");
    let controller = site.start();
    until("Slurm is told why", || {
        site.told().contains("the image is broken")
    });
    controller.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_one_node_costs_no_other_its_vm_and_is_told() {
    let mut site = Site::new();
    let why = "nodeset n: the template gone was not found";
    let n0 = NodeName::new("n0").unwrap();
    site.provider.faults.lock().unwrap().insert(n0, why.into());
    site.slurm_says(&[
        "n0|allocated+cloud+powering_up|none",
        "n1|allocated+cloud+powering_up|none",
    ]);
    site.order(RESUME, "n[0-1]");
    let controller = site.start();
    until("the other's VM", || site.vms() == ["n1.1"]);
    until("Slurm is told why", || site.told().contains(why));
    controller.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_destroyed_while_a_side_cannot_be_read() {
    let mut site = Site::new();
    site.order(RESUME, "n0");
    let controller = site.start();
    until("the VM", || site.vms() == ["n0.1"]);
    let sinfo = site.path("bin/sinfo");
    fs::set_permissions(&sinfo, fs::Permissions::from_mode(0o644)).unwrap();
    rounds();
    site.order(IntentKind::Suspend, "n0");
    rounds();
    assert_eq!(site.vms(), ["n0.1"], "Slurm could not be read");
    *site.provider.blind.lock().unwrap() = true;
    rounds();
    fs::set_permissions(&sinfo, fs::Permissions::from_mode(0o755)).unwrap();
    rounds();
    assert_eq!(site.vms(), ["n0.1"], "the provider could not be read");
    *site.provider.blind.lock().unwrap() = false;
    until("both can be read again", || site.vms().is_empty());
    controller.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_no_orders_are_kept_aside_and_harm_nothing() {
    let mut site = Site::new();
    let new = site.path("state/spool/new");
    fs::create_dir_all(&new).unwrap();
    fs::write(new.join("000-garbage"), b"\xff\x00 nothing").unwrap();
    site.order(RESUME, "n0,zz9");
    let controller = site.start();
    until("the good order is done", || site.vms() == ["n0.1"]);
    assert!(Path::new(&site.path("state/spool/bad/000-garbage")).exists());
    controller.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prologs_wait_starts_the_vms_before_slurm_asks_and_ends_with_its_nodes() {
    use std::io::{Read, Write};
    let site = Site::new();
    let controller = site.start();
    until("the API", || site.path("state/api.sock").exists());
    site.slurm_says(&[
        "n0|allocated+cloud+powered_down|none",
        "n1|idle+cloud+powered_down|none",
    ]);
    site.jobs_are([(7, "CONFIGURING", "n0".into())]);
    rounds();
    assert!(site.vms().is_empty(), "nobody has asked");
    let mut prolog = std::os::unix::net::UnixStream::connect(site.path("state/api.sock")).unwrap();
    prolog
        .write_all(b"GET /v1/jobs/7/ready?timeout_ms=30000 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        .unwrap();
    until("the VM is made on the prolog's word", || site.vms() == ["n0.1"]);
    site.slurm_says(&["n0|allocated+cloud|none", "n1|idle+cloud+powered_down|none"]);
    let mut answer = String::new();
    tokio::task::block_in_place(|| prolog.read_to_string(&mut answer)).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    controller.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jobs_user_is_handed_to_its_vms_before_it_starts_or_it_goes_back() {
    use std::io::{Read, Write};
    let mut site = Site::new();
    site.order(RESUME, "n0");
    let controller = site.start();
    until("the VM is made", || site.vms() == ["n0.1"]);
    site.slurm_says(&["n0|allocated+cloud|none", "n1|allocated+cloud|none"]);
    site.jobs_are([(7, "CONFIGURING", "n0,n1".into())]);
    let ask = || {
        let mut prolog = std::os::unix::net::UnixStream::connect(site.path("state/api.sock")).unwrap();
        prolog
            .write_all(
                b"GET /v1/jobs/7/ready?timeout_ms=30000 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n",
            )
            .unwrap();
        let mut answer = String::new();
        tokio::task::block_in_place(|| prolog.read_to_string(&mut answer)).unwrap();
        answer
    };
    let answer = ask();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let welcomed: Vec<(String, u32, Leftovers)> = site
        .provider
        .welcomed
        .lock()
        .unwrap()
        .iter()
        .map(|(tag, uid, leftovers)| (format!("{}.{}", tag.node, tag.generation), *uid, *leftovers))
        .collect();
    // n1 has no VM of ours.
    assert_eq!(welcomed, [("n0.1".to_owned(), 1000, Leftovers::Remove)]);
    // A guest that does not answer costs this job nothing; its node gets no other.
    *site.provider.unheard.lock().unwrap() = true;
    let answer = ask();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    until("the node ends with its job", || {
        let told = site.told().to_lowercase();
        told.contains("state=power_down ") && told.contains("does not answer")
    });
    *site.provider.unwelcoming.lock().unwrap() = Some("nobody knows him".into());
    let answer = ask();
    assert!(
        answer.starts_with("HTTP/1.1 409") && answer.contains("nobody knows him"),
        "{answer}"
    );
    until("the job's story says why", || {
        let api = thiao_api::client::Client::new(&site.path("state"));
        let events = tokio::task::block_in_place(|| api.events(50, None, None)).unwrap_or_default();
        events
            .iter()
            .any(|event| event.message.contains("nobody knows him"))
    });
    controller.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_folder_no_vm_sees_is_told_before_it_starts_and_starts() {
    use std::io::{Read, Write};
    let mut site = Site::new();
    *site.provider.seen_folder.lock().unwrap() = Some("/home/ada".into());
    site.order(RESUME, "n0");
    let controller = site.start();
    until("the VM is made", || site.vms() == ["n0.1"]);
    site.slurm_says(&["n0|allocated+cloud|none", "n1|allocated+cloud|none"]);
    site.jobs_are([(7, "CONFIGURING", "n0".into())]);
    let ask = |folder: &str| {
        let mut prolog = std::os::unix::net::UnixStream::connect(site.path("state/api.sock")).unwrap();
        let request = format!(
            "GET /v1/jobs/7/ready?timeout_ms=30000 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{folder}\r\n"
        );
        prolog.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        tokio::task::block_in_place(|| prolog.read_to_string(&mut answer)).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        site.told()
    };
    for folder in [
        "",
        "Thiao-Work-Dir: /home/ada/%C3%A9\r\n",
        "Thiao-Work-Dir: %2\r\n",
    ] {
        let told = ask(folder);
        assert!(!told.contains("AdminComment"), "{folder}: {told}");
    }
    let told = ask("Thiao-Work-Dir: /scratch/a%20b\r\n");
    assert!(
        told.contains(
            "update JobId=7 AdminComment=thiao: note: its working directory /scratch/a b is not shared"
        ),
        "{told}"
    );
    controller.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_outlives_its_controller_for_a_moment_keeps_no_other_out() {
    let mut site = Site::new();
    fs::create_dir_all(site.path("state")).unwrap();
    let held = fs::File::create(site.path("state/lock")).unwrap();
    held.lock().unwrap();
    let controller = site.start();
    rounds();
    assert!(!controller.is_finished(), "{:?}", controller.await);
    assert!(!site.path("state/api.sock").exists());
    drop(held);
    site.order(RESUME, "n0");
    until("it goes on", || site.vms() == ["n0.1"]);
    controller.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_starts_slurmd_once_and_only_when_slurm_has_asked() {
    let mut site = Site::new();
    let starts = |site: &Site| site.provider.starts.lock().unwrap().clone();
    site.order(RESUME, "n0");
    let controller = site.start();
    until("its guest is told", || starts(&site).len() == 1);
    let (tag, number, wait) = starts(&site)[0].clone();
    assert_eq!((tag.node.as_str(), number), ("n0", 1));
    assert!(wait <= Duration::from_secs(1), "{wait:?}");
    rounds();
    // The next controller knows that it was told.
    controller.abort();
    until("the socket is free", || controller.is_finished());
    let controller = site.start();
    rounds();
    assert_eq!(starts(&site).len(), 1);
    // Found, and given to a job that Slurm has not asked it for.
    site.slurm_says(&[
        "n0|idle+cloud+powered_down|none",
        "n1|allocated+cloud+powered_down|none",
    ]);
    let tag = VmTag {
        node: "n1".parse().unwrap(),
        generation: thiao_core::ids::Generation(1),
        ..tag
    };
    let id = VmId::new("n1.1").unwrap();
    let vm = VmView {
        id: id.clone(),
        tag: Some(tag),
        host: None,
        memory_mb: 240,
        cpu_percent: 100,
        state: VmState::Booting,
    };
    rounds();
    site.provider.vms.lock().unwrap().insert(id, vm);
    rounds();
    assert_eq!(starts(&site).len(), 1);
    site.slurm_says(&[
        "n0|idle+cloud+powered_down|none",
        "n1|allocated+cloud+powering_up+not_responding|none",
    ]);
    until("Slurm waits for it", || starts(&site).len() == 2);
    controller.abort();
}
