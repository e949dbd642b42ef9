//! What is told of jobs and VMs that are over, and to a job only of its own.

use super::*;
use thiao_api::client::Client;
use thiao_api::types::Explanation;

fn explain(site: &Site, name: &str) -> Explanation {
    Client::new(&site.path("state")).explain(name).unwrap()
}

/// A VM of n0 that is up, for a job that it was not made for.
fn n0_is_up(site: &mut Site) {
    until("the VM", || site.vms() == ["n0.1"]);
    site.set_vm("n0.1", VmState::Ready);
    site.slurm_says(&["n0|allocated+cloud|none", "n1|idle+cloud+powered_down|none"]);
    until("its node is up", || {
        explain(site, "n0").now.iter().any(|line| line.contains("is up"))
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_over_tells_which_vm_it_was_on() {
    let mut site = Site::new();
    site.order(RESUME, "n0");
    let controller = site.start();
    n0_is_up(&mut site);
    // Task 2 of array 8.
    let line = "12|8|2|N/A|1000|vm|RUNNING|1|1|1790000000|1790000001|n0|1|cpu=1,node=1|1|1\n";
    std::fs::write(site.path("jobs"), line).unwrap();
    let was = "it was on n0, in VM n0.1 on host a";
    let client = Client::new(&site.path("state"));
    until("it is seen there", || {
        !client.jobs_nodes(0, 0, 9).unwrap().is_empty()
    });
    std::fs::write(site.path("jobs"), "").unwrap();
    until("its end is seen", || {
        client.jobs_nodes(0, 0, 9).unwrap()[0].ended.is_some()
    });
    site.order(IntentKind::Suspend, "n0");
    site.slurm_says(&[
        "n0|idle+cloud+powering_down|none",
        "n1|idle+cloud+powered_down|none",
    ]);
    until("its VM is gone", || site.vms().is_empty());
    for name in ["8_2", "12"] {
        let told = explain(&site, name);
        assert_eq!((told.subject.as_str(), told.uid), ("job 12", Some(1000)));
        assert_eq!(told.now, ["8_2 is over: Slurm does not list it any more", was]);
        assert!(told.last_words.is_empty(), "it ended as it should: {told:?}");
        let kinds: Vec<&str> = told.story.iter().map(|event| event.kind.as_str()).collect();
        assert!(
            !kinds.contains(&"vm-gone"),
            "of its VM there is what happened meanwhile: {kinds:?}"
        );
    }
    let stay = &client.jobs_nodes(0, 0, 9).unwrap()[0];
    assert_eq!((stay.slurm_name().as_str(), stay.uid), ("8_2", 1000));
    controller.abort();
    let _ = controller.await;
    // The next controller knows it still, and what ended meanwhile as over.
    let controller = site.start();
    until("the next one knows it", || {
        client
            .explain("8_2")
            .is_ok_and(|told| told.now.contains(&was.to_owned()))
    });
    controller.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_died_is_known_by_its_last_words() {
    let mut site = Site::new();
    site.order(RESUME, "n0");
    let controller = site.start();
    n0_is_up(&mut site);
    site.jobs_are([(7, "RUNNING", "n0".into())]);
    let client = Client::new(&site.path("state"));
    until("the job is seen", || {
        !client.jobs_nodes(0, 0, 9).unwrap().is_empty()
    });
    let console = "slurmd: error: Unauthorized credential\n";
    *site.provider.console.lock().unwrap() = Some(console.to_owned());
    site.set_vm("n0.1", VmState::Dead("killed by signal 9".into()));
    until("Slurm is told", || site.told().contains("state=DOWN"));
    site.slurm_says(&[
        "n0|down+cloud+powered_down|thiao: VM n0.1 on host a died: killed by signal 9",
        "n1|idle+cloud+powered_down|none",
    ]);
    site.jobs_are([]);
    until("what is left of it is removed", || site.vms().is_empty());
    for name in ["n0.1", "n0", "7"] {
        let told = explain(&site, name);
        let words: Vec<(&str, &str)> = told
            .last_words
            .iter()
            .map(|words| (words.vm.as_str(), words.text.as_str()))
            .collect();
        assert_eq!(words, [("n0.1", console)], "{name}");
        assert_eq!(told.last_words[0].users, [1000]);
    }
    controller.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_told_its_own_events_and_none_of_before_it_had_its_node() {
    let mut site = Site::new();
    site.order(RESUME, "n0");
    let controller = site.start();
    n0_is_up(&mut site);
    // It waited in the queue while another's VM came up.
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let line = |start| {
        format!(
            "7|7|N/A|N/A|1000|vm|RUNNING|1|1|{}|{start}|n0|1|cpu=1,node=1|1|1\n",
            now - 3600
        )
    };
    std::fs::write(site.path("jobs"), line(now + 1)).unwrap();
    until("it is seen", || {
        let now = explain(&site, "n0").now;
        now.iter().any(|line| line.contains("ALLOCATED"))
            && Client::new(&site.path("state")).explain("7").is_ok()
    });
    let told = explain(&site, "7").story;
    assert!(told.is_empty(), "{told:?}");
    // One that began before that sees it.
    std::fs::write(site.path("jobs"), line(now - 60)).unwrap();
    until("its story", || {
        explain(&site, "7")
            .story
            .iter()
            .any(|event| event.subject == "vm n0.1")
    });
    controller.abort();
}

/// As docs/operations.md has it: the copy is made under the controller's hands, and put in place later.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_made_while_the_database_is_written_can_be_put_in_place() {
    let mut site = Site::new();
    site.order(RESUME, "n0");
    let controller = site.start();
    n0_is_up(&mut site);
    site.jobs_are([(7, "RUNNING", "n0".into())]);
    let client = Client::new(&site.path("state"));
    until("the job is seen", || {
        !client.jobs_nodes(0, 0, 9).unwrap().is_empty()
    });
    let (database, copy) = (site.path("state/thiao.db"), site.path("copy.db"));
    let backup = rusqlite::Connection::open(&database).unwrap();
    backup
        .execute("VACUUM INTO ?1", [copy.to_str().unwrap()])
        .unwrap();
    drop(backup);
    // More happens that the copy does not know: another VM.
    site.order(RESUME, "n1");
    until("the other VM", || site.vms() == ["n0.1", "n1.1"]);
    controller.abort();
    let _ = controller.await;
    for name in ["thiao.db-wal", "thiao.db-shm"] {
        let _ = fs::remove_file(site.path("state").join(name));
    }
    fs::rename(&copy, &database).unwrap();
    fs::set_permissions(&database, fs::Permissions::from_mode(0o600)).unwrap();
    site.slurm_says(&["n0|allocated+cloud|none", "n1|allocated+cloud|none"]);
    site.set_vm("n1.1", VmState::Ready);
    let controller = site.start();
    until("it knows the past", || {
        client
            .jobs_nodes(0, 0, 9)
            .is_ok_and(|stays| stays.len() == 1 && stays[0].job == 7)
    });
    until("it has taken up both", || {
        let vms = client.vms().unwrap_or_default();
        vms.len() == 2 && vms.iter().all(|vm| vm.state.word() == "up")
    });
    rounds();
    assert_eq!(site.vms(), ["n0.1", "n1.1"]);
    assert_eq!(
        site.provider.asked.lock().unwrap().len(),
        2,
        "nothing is made twice"
    );
    controller.abort();
}
