//! Those who only read: they wait for no round, and no round waits for them.

use super::*;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use thiao_api::client::Client;
use tokio::task::{block_in_place, spawn_blocking};

fn client(site: &Site) -> Client {
    Client::new(&site.config().state_dir)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_reads_is_answered_while_a_round_waits_for_the_disk() {
    let mut site = Site::new();
    let controller = site.start();
    let api = client(&site);
    until("it has observed both sides", || {
        let status = api.status();
        status.is_ok_and(|status| status.slurm.last_ok.and(status.vms.last_ok).is_some())
    });
    // Nobody else can write.
    let disk = rusqlite::Connection::open(site.path("state/thiao.db")).unwrap();
    disk.execute_batch("BEGIN IMMEDIATE").unwrap();
    site.order(RESUME, "n0");
    rounds();
    let ordered = spawn_blocking({
        let api = client(&site);
        move || api.resume("n1", false)
    });
    for _ in 0..5 {
        block_in_place(|| {
            assert_eq!(api.nodes().unwrap().len(), 2);
            assert_eq!(api.explain("n0").unwrap().subject, "node n0");
            assert!(!api.events(10, None, None).unwrap().is_empty());
            assert_eq!(api.status().unwrap().pending_intents, 1, "the round is over");
        });
    }
    assert!(!ordered.is_finished(), "the round is over");
    assert!(site.vms().is_empty());
    disk.execute_batch("COMMIT").unwrap();
    assert_eq!(ordered.await.unwrap().unwrap().nodes, "n1");
    until("both VMs", || site.vms() == ["n0.1", "n1.1"]);
    controller.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_readers_hold_up_no_round() {
    const MANY: usize = 1000;
    let site = Site::new();
    let controller = site.start();
    let api = client(&site);
    until("the API", || api.status().is_ok());
    block_in_place(|| api.resume("n0", false)).unwrap();
    until("the VM", || site.vms() == ["n0.1"]);
    until("its number is known", || {
        api.vms().is_ok_and(|vms| vms.iter().any(|vm| vm.id == "n0.1"))
    });
    let silence = site.provider.silence.lock().unwrap();
    let mut askers: Vec<UnixStream> = (0..MANY)
        .map(|_| {
            let mut stream = UnixStream::connect(site.path("state/api.sock")).unwrap();
            let question = b"GET /v1/explain/n0.1 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
            stream.write_all(question).unwrap();
            stream
        })
        .collect();
    // Each order takes a round, and so does what comes of it.
    for number in 1..=5 {
        let vm = format!("n1.{number}");
        block_in_place(|| api.resume("n1", false)).unwrap();
        until("the other's VM", || site.vms() == ["n0.1", vm.as_str()]);
        block_in_place(|| api.suspend("n1", true)).unwrap();
        until("its end", || site.vms() == ["n0.1"]);
    }
    let unanswered = |stream: &UnixStream| {
        stream.set_nonblocking(true).unwrap();
        let read = (&*stream).read(&mut [0; 1]);
        stream.set_nonblocking(false).unwrap();
        read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    assert_eq!(
        askers.iter().filter(|asker| unanswered(asker)).count(),
        MANY,
        "they were there all the time"
    );
    drop(silence);
    let answers = askers.iter_mut().map(|asker| {
        let mut answer = String::new();
        block_in_place(|| asker.read_to_string(&mut answer)).unwrap();
        answer
    });
    assert_eq!(
        answers
            .filter(|answer| answer.starts_with("HTTP/1.1 200"))
            .count(),
        MANY
    );
    controller.abort();
}
