//! What reading a large front-end's answers costs: 5,000 VMs, from the bytes of the HTTP
//! body to what we use of them, in CPU time. The VMs are the recorded ones, again and again.

use std::hint::black_box;
use std::time::Duration;
use thiao_opennebula::model::Devices;
use thiao_opennebula::read;
use thiao_opennebula::wire::{self, Answer, Value};

const VMS: usize = 5_000;
/// Hosts, and devices on each of them: as of one whose network cards are split into virtual ones.
const HOSTS: usize = 500;
const DEVICES: usize = 64;
const ROUNDS: u32 = 15;

fn main() {
    for (name, recording) in [
        ("short", "101-vmpool-info-all"),
        ("extended", "121-vmpool-infoset-extended"),
    ] {
        let body = large(recording);
        let size = body.len() as f64 / 1e6;
        let envelope = time(|| text(&body).len());
        let rows = time(|| read::vms(&text(&body)).expect("rows").len());
        let details = time(|| read::vm_details(&text(&body)).expect("details").len());
        println!(
            "{VMS} VMs, {name}, {size:.1} MB: the envelope {envelope:?}, all to VmRow {rows:?}, all to VmDetails {details:?}"
        );
    }
    hosts();
}

/// What of a listing of hosts is their devices'.
fn hosts() {
    let pool = host_pool();
    let size = pool.len() as f64 / 1e6;
    let of = |devices| time(|| read::hosts(&pool, devices).expect("hosts").len());
    let (read, left) = (of(Devices::Read), of(Devices::Left));
    println!(
        "{HOSTS} hosts with {DEVICES} devices each, {size:.1} MB: with these {read:?}, without {left:?}"
    );
}

/// The recorded host repeated, with its first device as often as that.
fn host_pool() -> String {
    let path = format!(
        "{}/tests/data/123-hostpool-info.response.xml",
        env!("CARGO_MANIFEST_DIR")
    );
    let pool = text(&std::fs::read(path).expect("a recording"));
    let start = pool.find("<HOST>").expect("a host");
    let end = pool.find("</HOST>").expect("its end") + "</HOST>".len();
    let host = &pool[start..end];
    let (open, close) = ("<PCI>", "</PCI>");
    let first = host.find(open).expect("a device");
    let device = &host[first..first + host[first..].find(close).expect("its end") + close.len()];
    let last = host.rfind(close).expect("its end") + close.len();
    let devices = device.repeat(DEVICES);
    let host = format!("{}{devices}{}", &host[..first], &host[last..]);
    format!("<HOST_POOL>{}</HOST_POOL>", host.repeat(HOSTS))
}

/// The document in an answer.
fn text(body: &[u8]) -> String {
    match wire::answer(body) {
        Ok(Answer::Done(Value::Text(text))) => text,
        other => panic!("{other:?}"),
    }
}

/// A recorded answer with its VMs repeated, each with an id of its own.
fn large(recording: &str) -> Vec<u8> {
    let path = format!(
        "{}/tests/data/{recording}.response.xml",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = std::fs::read_to_string(path).expect("a recording");
    let (open, close) = ("&lt;VM&gt;", "&lt;/VM&gt;");
    let start = text.find(open).expect("a VM");
    let end = text.rfind(close).expect("its end") + close.len();
    let vms: Vec<&str> = text[start..end].split_inclusive(close).collect();
    let mut body = text[..start].to_owned();
    for (n, vm) in vms.iter().cycle().take(VMS).enumerate() {
        let (_, rest) = vm.split_once("&lt;/ID&gt;").expect("an id");
        body.push_str(&format!("{open}&lt;ID&gt;{n}&lt;/ID&gt;{rest}"));
    }
    body.push_str(&text[end..]);
    body.into_bytes()
}

/// The CPU time of the shortest of some runs.
fn time(run: impl Fn() -> usize) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = cpu();
        assert!(black_box(run()) >= HOSTS.min(VMS));
        best = best.min(cpu().saturating_sub(start));
    }
    best
}

fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).expect("a time"),
        u32::try_from(time.tv_nsec).expect("a time"),
    )
}
