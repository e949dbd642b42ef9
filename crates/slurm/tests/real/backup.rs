//! A cluster whose slurmctld has a backup, several ports, or a key of Slurm's own.

use crate::QUICK;
use rustix::process::Signal;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use thiao_core::ids::JobId;
use thiao_core::view::JobState;
use thiao_slurm::lab::Auth;
use thiao_slurm::site::{Host, Site};
use thiao_slurm::{Version, installed_version};
use thiao_testkit::ids::node;
use thiao_testkit::slurmctld::{Ctld, host_name, inside};

const BACKUP: &str = "head2";
const ADDRESSES: [&str; 2] = ["10.9.0.1", "10.9.0.2"];

/// Lets the slurmctld that runs have a backup on a host of another name and address, and starts that.
fn with_backup(ctld: &mut Ctld) -> Child {
    for words in [
        "netns add head2",
        "link add hhead2 type veth peer name eth0 netns head2",
        "link set hhead2 master br0 up",
        "-n head2 addr add 10.9.0.2/24 dev eth0",
        "-n head2 link set eth0 up",
        "-n head2 link set lo up",
    ] {
        ctld.call("ip", &words.split(' ').collect::<Vec<_>>());
    }
    let [first, second] = ADDRESSES;
    let text = std::fs::read_to_string(&ctld.conf).unwrap();
    let only = format!("SlurmctldHost={}({first})", host_name());
    assert!(text.contains(&only), "{text}");
    let both = format!("{only}\nSlurmctldHost={BACKUP}({second})\nSlurmctldTimeout=5");
    let text = text
        .replace(&only, &both)
        .replace("SlurmctldPort=7817", "SlurmctldPort=7817-7819");
    ctld.stop();
    std::fs::write(&ctld.conf, &text).unwrap();
    std::fs::write(ctld.dir.join("servers"), format!("{first}:7817,{second}:7817")).unwrap();
    ctld.start_again();
    // On another machine these would be other files.
    let own = ctld.dir.join("backup.conf");
    std::fs::write(
        &own,
        text.replace("slurmctld.pid", "backup.pid")
            .replace("slurmctld.log", "backup.log"),
    )
    .unwrap();
    let script = format!("hostname {BACKUP} && exec slurmctld -D -f {}", own.display());
    let said = std::fs::File::create(ctld.dir.join("backup.out")).unwrap();
    Command::new("ip")
        .args(["netns", "exec", BACKUP, "unshare", "-u", "sh", "-c", &script])
        .stdin(Stdio::null())
        .stdout(said.try_clone().unwrap())
        .stderr(said)
        .spawn()
        .unwrap()
}

/// Which slurmctlds answer, the first before its backup.
fn up(ctld: &Ctld) -> Vec<bool> {
    let ping = ctld.slurm.ping().unwrap_or_default();
    ping.controllers.iter().map(|(_, up)| *up).collect()
}

/// A slurmctld and its backup, when both answer.
fn both(dir: PathBuf) -> (Ctld, Child) {
    let mut ctld = Ctld::start(dir, QUICK, |_| {});
    let backup = with_backup(&mut ctld);
    ctld.until("both slurmctlds answer", |c| up(c) == [true, true]);
    (ctld, backup)
}

fn runs(ctld: &Ctld, job: JobId) -> bool {
    let seen = ctld.slurm.observe().ok();
    seen.is_some_and(|view| view.jobs.get(&job).is_some_and(|j| j.state == JobState::Running))
}

#[test]
fn a_backup_takes_over_under_running_jobs() {
    let Some(dir) = inside("backup::a_backup_takes_over_under_running_jobs") else {
        return;
    };
    let (ctld, mut backup) = both(dir);
    let site = Site::of(&ctld.slurm.config().unwrap());
    let host = |name: &str, address: &str| Host {
        name: name.to_owned(),
        address: address.to_owned(),
    };
    let [first, second] = ADDRESSES;
    assert_eq!(site.hosts, [host(&host_name(), first), host(BACKUP, second)]);
    assert_eq!(site.ports, 7817..=7819);
    assert_eq!(site.user.unwrap().1, Some(rustix::process::getuid().as_raw()));
    assert_eq!(site.conf.as_ref(), Some(&ctld.conf));

    let before = ctld.sbatch(&["-w", "n1", "--wrap", "sleep 300"]);
    ctld.until("the job runs", |c| runs(c, before));
    // What slurmctld has not written yet is forgotten by a kill, with or without a backup. On 22.05.8 the start
    // of a job by the backfill scheduler is no cause to write (killed 8 s after the job began to run, it was read as
    // PENDING, and started again); a submission is one, within 5 s (`SAVE_MAX_WAIT`).
    ctld.sbatch(&["-H", "--wrap", "true"]);
    std::thread::sleep(Duration::from_secs(8));
    ctld.signal(Signal::KILL);
    ctld.until("the backup answers for the job", |c| {
        runs(c, before) && up(c) == [false, true]
    });

    // Its hooks are called from now on. (They run where it does, in a network of its own: no node comes up.)
    ctld.sbatch(&["-w", "n2", "--wrap", "true"]);
    ctld.until("the backup calls its hooks", |c| {
        c.hooks().contains(&"Resume n2".to_owned())
    });
    assert!(runs(&ctld, before));
    backup.kill().unwrap();
    backup.wait().unwrap();
}

/// By an administrator's word, with both alive; and back again.
#[test]
fn a_takeover_by_hand_and_back_keeps_running_jobs() {
    let Some(dir) = inside("backup::a_takeover_by_hand_and_back_keeps_running_jobs") else {
        return;
    };
    let (mut ctld, mut backup) = both(dir);
    let job = ctld.sbatch(&["-w", "n1", "--wrap", "sleep 300"]);
    ctld.until("the job runs", |c| runs(c, job));
    ctld.run(false, &["scontrol", "takeover"]).unwrap();
    // The first slurmctld ends by itself; the backup answers for all that it knew.
    ctld.until("the backup answers for the job", |c| {
        runs(c, job) && up(c) == [false, true]
    });
    ctld.sbatch(&["-w", "n2", "--wrap", "true"]);
    ctld.until("the backup calls its hooks", |c| {
        c.hooks().contains(&"Resume n2".to_owned())
    });
    // Started again, the first takes over from the backup.
    ctld.start_again();
    ctld.until("both answer, and the job runs", |c| {
        up(c) == [true, true] && runs(c, job)
    });
    assert_eq!(ctld.job(job).unwrap().nodes, [node("n1")]);
    let third = ctld.sbatch(&["-w", "n3", "--wrap", "sleep 300"]);
    ctld.until("a job gets a node", |c| runs(c, third));
    backup.kill().unwrap();
    backup.wait().unwrap();
}

#[test]
fn a_node_joins_by_slurms_own_key() {
    let Some(dir) = inside("backup::a_node_joins_by_slurms_own_key") else {
        return;
    };
    let version = installed_version(None).unwrap();
    if version < Version::new(23, 11, 0) {
        eprintln!("skipped: auth/slurm came with Slurm 23.11, and this is {version}");
        return;
    }
    std::fs::copy("/proc/sys/kernel/random/uuid", dir.join("slurm.key")).unwrap();
    let key = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(dir.join("slurm.key"), key).unwrap();
    let ctld = Ctld::start(dir, QUICK, |lab| lab.auth = Auth::Slurm);
    let site = Site::of(&ctld.slurm.config().unwrap());
    assert_eq!(site.auth_type.as_deref(), Some("auth/slurm"));
    let job = ctld.sbatch(&["-w", "n1", "--wrap", "sleep 300"]);
    ctld.until("the job runs", |c| runs(c, job));
    assert_eq!(ctld.job(job).unwrap().nodes, [node("n1")]);
}
