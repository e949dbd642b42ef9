//! The API's socket and the poke socket, flooded.

use super::{Day, as_user, ask, connect, is_root, open_day, socket};
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use thiao_api::client::Client;
use thiao_api::words::NodeState;
use thiao_testkit::wait::until;

const USERS: u32 = 10;
const CLIENTS_EACH: usize = 100;

/// What the server lets in of all users that are not trusted, and of one of them.
const OTHERS: usize = 256;
const PER_USER: usize = 32;

/// Files beside the connections that the controller may open for its own work meanwhile:
/// children, the database, calls to oned.
const OWN_FILES: usize = 64;

/// What a flood may cost it, in MiB.
const MEMORY: usize = 64;

/// Open files and resident MiB of a process.
fn cost(pid: u32) -> (usize, usize) {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    let kib: usize = line.trim().trim_end_matches(" kB").trim().parse().unwrap();
    (files, kib / 1024)
}

/// Bytes that nobody can foretell, and that are the same in every run.
fn garbage(seed: usize, length: usize) -> Vec<u8> {
    let mut state = seed as u64 + 1;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// What each kind of client sends at once.
fn opening(n: usize) -> Vec<u8> {
    let many = |text: &str, count: usize| text.repeat(count).into_bytes();
    match n % 10 {
        // Says nothing.
        0 => Vec::new(),
        // Goes on a byte at a time.
        1 => b"GET /v1/status HTTP/1.1\r\nX-Slow: ".to_vec(),
        2 => garbage(n, 5_000),
        // A head, and a line of one, that do not end.
        3 => many("GET /v1/status HTTP/1.1\r\n", 1).into_iter().chain(many("X: y\r\n", 50_000)).collect(),
        4 => [b"GET /".to_vec(), many("x", 300_000)].concat(),
        // Bodies that are huge, and none.
        5 => b"POST /v1/jobs/7/give HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999999\r\n\r\n{".to_vec(),
        6 => [
            b"POST /v1/jobs/7/give HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n".to_vec(),
            garbage(n, 2_000),
        ]
        .concat(),
        // Many questions, whose answers nobody reads.
        7 => many("GET /v1/nodes HTTP/1.1\r\nHost: t\r\n\r\n", 500),
        // Heads that contradict themselves.
        8 => b"POST /v1/jobs/7/clean HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 9\r\nTransfer-Encoding: chunked, \x00\r\n\r\n0\r\n\r\nGET / HTTP/9.9\r\n\r\n".to_vec(),
        // Asks, and closes its half.
        _ => b"GET /v1/events?limit=10000 HTTP/1.1\r\nHost: t\r\n\r\n".to_vec(),
    }
}

/// Connects as often as it is told, and says what that kind of client says.
fn open(socket: &Path, clients: usize) -> Vec<(usize, UnixStream)> {
    (0..clients)
        .map(|n| {
            let mut stream = connect(socket);
            // What the other side does not take is not waited for.
            stream.set_nonblocking(true).unwrap();
            let _ = stream.write(&opening(n));
            if n % 10 == 9 {
                let _ = stream.shutdown(std::net::Shutdown::Write);
            }
            (n, stream)
        })
        .collect()
}

/// Floods as one user until it is told to stop: some stay, others come and go.
fn flood(socket: &Path, stop: &AtomicBool, inside: &AtomicUsize) {
    let mut staying = open(socket, CLIENTS_EACH);
    inside.fetch_add(staying.len(), Ordering::Relaxed);
    while !stop.load(Ordering::Relaxed) {
        for (n, stream) in &mut staying {
            if *n % 10 == 1 {
                let _ = stream.write(b"x");
            }
            // Whoever was put out comes again.
            if *n % 10 != 7 && matches!(stream.read(&mut [0; 4096]), Ok(0)) {
                *stream = connect(socket);
                stream.set_nonblocking(true).unwrap();
                let _ = stream.write(&opening(*n));
            }
        }
        for path in [
            "/v1/status",
            "/v1/jobs",
            "/v1/explain/99",
            "/v1/events?limit=1&after=0",
        ] {
            let mut stream = connect(socket);
            let asked = write!(
                stream,
                "GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
            );
            let _ = asked.and_then(|()| stream.read(&mut [0; 4096]));
        }
    }
}

/// Lets this process have a file per client.
fn allow_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = maximum.map_or(Some(8192), |most| Some(most.min(8192)));
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
}

/// The uids that flood: the controller's own too, without root.
fn users() -> Vec<Option<u32>> {
    match is_root() {
        true => (0..USERS).map(|n| Some(1001 + n)).collect(),
        false => vec![None; USERS as usize],
    }
}

#[test]
fn a_flood_of_clients_keeps_nobody_else_out() {
    allow_files();
    let mut day = open_day(2);
    day.up();
    let (socket, pid) = (socket(&day), day.pid());
    let client = Client::new(&day.site.path("state"));
    let (files, memory) = cost(pid);
    let (stop, inside) = (AtomicBool::new(false), AtomicUsize::new(0));
    let answered = std::thread::scope(|scope| {
        for user in users() {
            let (socket, stop, inside) = (&socket, &stop, &inside);
            scope.spawn(move || match user {
                Some(uid) => as_user(uid, || flood(socket, stop, inside)),
                None => flood(socket, stop, inside),
            });
        }
        // If an assertion fails they must end all the same.
        let _end = End(&stop);
        until("all have come", || {
            inside.load(Ordering::Relaxed) == USERS as usize * CLIENTS_EACH
        });

        // Slurm's prolog waits, an order is given, and its VM is made.
        day.suspend("n0");
        until("n0's VM is gone", || day.ours().len() == 1);
        let prolog = scope.spawn(|| ask(&socket, "GET", "/v1/jobs/7/ready?timeout_ms=60000", ""));
        day.site
            .slurm_says(&["n0|allocated+cloud+powering_up|none", "n1|allocated+cloud|none"]);
        day.site
            .jobs_are([(7, "CONFIGURING", "n0".into()), (2, "RUNNING", "n1".into())]);
        day.site.order(thiao_testkit::site::RESUME, "n0");
        until("n0's next VM is there", || day.running() == 2);
        day.site
            .slurm_says(&["n0|allocated+cloud|none", "n1|allocated+cloud|none"]);
        assert_eq!(prolog.join().unwrap().0, 200);

        // Root's own questions are all answered, and it stays small.
        let mut answered = 0;
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end {
            assert_eq!(client.status().unwrap().vm_count, 2);
            answered += 1;
            let (files_now, memory_now) = cost(pid);
            if is_root() {
                assert!(
                    files_now <= files + OTHERS + OWN_FILES,
                    "{files} files became {files_now}"
                );
            }
            assert!(memory_now <= memory + MEMORY, "{memory} MiB became {memory_now}");
        }
        answered
    });
    assert!(answered > 0);
    until("all as before", || cost(pid).0 <= files + OWN_FILES / 8);
    assert_eq!(
        client.status().unwrap().nodes_by_state.get(&NodeState::Up),
        Some(&2)
    );
    if is_root() {
        assert_eq!(as_user(1001, || ask(&socket, "GET", "/v1/jobs", "")).0, 200);
    }
}

/// Tells the others to end, also when a test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn one_user_has_a_share_of_connections_however_many_he_opens() {
    if !is_root() {
        return;
    }
    let mut day = open_day(1);
    day.start();
    let socket = socket(&day);
    until("the API", || socket.exists());
    let (held, told) = as_user(1001, || {
        let held: Vec<_> = (0..PER_USER).map(|_| connect(&socket)).collect();
        let mut told = String::new();
        let _ = connect(&socket).read_to_string(&mut told);
        (held, told)
    });
    assert!(
        told.starts_with("HTTP/1.1 503") && told.contains("too many connections"),
        "{told}"
    );
    assert_eq!(
        as_user(1002, || ask(&socket, "GET", "/v1/jobs", "")),
        (200, "[]".to_owned())
    );
    drop(held);
    until("he may come again", || {
        as_user(1001, || ask(&socket, "GET", "/v1/jobs", "")).0 == 200
    });
}

/// How many rounds a controller makes: each looks for orders once.
struct Rounds(rustix::fd::OwnedFd);

impl Rounds {
    fn of(day: &Day) -> Self {
        use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
        let watcher = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
        add_watch(
            &watcher,
            day.site.path("state/spool/new"),
            WatchFlags::OPEN | WatchFlags::ONLYDIR,
        )
        .unwrap();
        Self(watcher)
    }

    /// Those since it was asked last; the kernel takes some alike ones for one.
    fn count(&self) -> usize {
        let mut space = [std::mem::MaybeUninit::uninit(); 4096];
        let mut events = rustix::fs::inotify::Reader::new(&self.0, &mut space);
        std::iter::from_fn(|| events.next().ok().map(drop)).count()
    }
}

/// How many rounds a second it makes under a flood of so many, for a second at least.
fn rounds_under(day: &Day, many: usize, flood: impl Fn() + Sync) -> f64 {
    let rounds = Rounds::of(day);
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let _end = End(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                flood();
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
        let (began, mut made) = (Instant::now(), 0);
        while began.elapsed() < Duration::from_secs(1) || done.load(Ordering::Relaxed) < many {
            std::thread::sleep(Duration::from_micros(200));
            made += rounds.count();
        }
        made as f64 / began.elapsed().as_secs_f64()
    })
}

/// Fifty by pokes, and what its own observations and calls are followed by in the settings of these tests.
const ROUNDS_A_SECOND: f64 = 110.0;

#[test]
fn pokes_and_questions_without_end_do_not_keep_the_controller_busy() {
    let mut day = open_day(2);
    day.up();
    let poke: PathBuf = super::state(&day).join("poke.sock");
    let socket = UnixDatagram::unbound().unwrap();
    // It waits while the queue is full.
    let made = rounds_under(&day, 400, || assert_eq!(socket.send_to(b"!", &poke).unwrap(), 1));
    assert!(
        (1.0..ROUNDS_A_SECOND).contains(&made),
        "{made:.0} rounds a second by pokes"
    );

    // (`status` looks into the folder too.)
    let client = Client::new(&day.site.path("state"));
    let made = rounds_under(&day, 400, || assert_eq!(client.vms().unwrap().len(), 2));
    assert!(
        (1.0..ROUNDS_A_SECOND).contains(&made),
        "{made:.0} rounds a second by questions"
    );

    // Others may not even poke.
    if is_root() {
        let refused = as_user(1001, || {
            let socket = UnixDatagram::unbound().unwrap();
            socket.send_to(b"!", &poke).unwrap_err().kind()
        });
        assert_eq!(refused, std::io::ErrorKind::PermissionDenied);
    }
}
