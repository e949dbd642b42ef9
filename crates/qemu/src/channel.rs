//! The machine's ends of all guests' channels, attended by one thread.

use crate::qmp;
use crate::vmdir::CHANNEL_SOCKET;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use thiao_core::ids::VmId;
use thiao_guest::protocol::{MAX_LINE, Report, Request};

/// How often guests get the time: their emulated clocks drift by parts per million.
const CLOCK_EVERY: Duration = Duration::from_secs(60);

/// How long a request may wait for space in the socket.
const SEND_LIMIT: Duration = Duration::from_secs(2);

/// What a guest's channel brought.
pub enum News {
    Report(Report),
    /// The other end is gone, so QEMU is or soon will be.
    Closed,
}

/// Takes the news, on the attending thread.
pub type Listener = dyn Fn(&VmId, News) + Send + Sync;

/// The channels of all guests. Dropping it ends the attending thread.
pub struct Channels {
    shared: Arc<Shared>,
}

struct Shared {
    lines: Mutex<BTreeMap<VmId, Line>>,
    /// The owner is gone: the thread ends, and lets go of the guests for the next one.
    closed: AtomicBool,
    /// Wakes the thread when the set of channels has changed.
    bell: OwnedFd,
}

/// The channel of one guest.
struct Line {
    stream: Arc<UnixStream>,
    pending: Vec<u8>,
}

impl Channels {
    /// Starts the thread that attends to the channels.
    pub fn open(listener: Arc<Listener>) -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Shared {
            lines: Mutex::default(),
            closed: AtomicBool::new(false),
            bell,
        });
        let attended = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("thiao-channels".into())
            .spawn(move || attend(&attended, &*listener))?;
        Ok(Self { shared })
    }

    /// Connects to a guest's channel.
    pub fn connect(&self, id: &VmId, folder: &Path) -> io::Result<()> {
        let stream = Arc::new(qmp::connect(folder, CHANNEL_SOCKET)?);
        stream.set_nonblocking(true)?;
        let line = Line {
            stream,
            pending: Vec::new(),
        };
        self.shared.lines().insert(id.clone(), line);
        self.shared.ring();
        Ok(())
    }

    /// Whether a guest's channel is connected.
    pub fn knows(&self, id: &VmId) -> bool {
        self.shared.lines().contains_key(id)
    }

    /// Says something to a guest whose channel is connected.
    pub fn say(&self, id: &VmId, request: &Request) -> io::Result<()> {
        let stream = self.shared.lines().get(id).map(|line| Arc::clone(&line.stream));
        send(&*stream.ok_or(io::ErrorKind::NotConnected)?, request)
    }

    /// Stops listening to a guest.
    pub fn forget(&self, id: &VmId) {
        self.shared.lines().remove(id);
        self.shared.ring();
    }
}

impl Drop for Channels {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.shared.ring();
    }
}

impl Shared {
    fn lines(&self) -> MutexGuard<'_, BTreeMap<VmId, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        // It fails only when it has been rung very often already.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }
}

fn send(mut stream: &UnixStream, request: &Request) -> io::Result<()> {
    let mut text = serde_json::to_vec(request)?;
    text.push(b'\n');
    let until = Instant::now() + SEND_LIMIT;
    let mut rest = &text[..];
    while !rest.is_empty() {
        match stream.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => rest = &rest[written..],
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Nanoseconds since the Unix epoch.
pub fn clock() -> u64 {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

fn attend(shared: &Shared, listener: &Listener) {
    let mut clock_due = Instant::now() + CLOCK_EVERY;
    while !shared.closed.load(Ordering::SeqCst) {
        let watched: Vec<(VmId, Arc<UnixStream>)> = shared
            .lines()
            .iter()
            .map(|(id, line)| (id.clone(), Arc::clone(&line.stream)))
            .collect();
        let heard = wait(shared, &watched, clock_due);
        // The bell's count is read away; the lines are looked at anew anyhow.
        let _ = rustix::io::read(&shared.bell, &mut [0_u8; 8]);
        let mut news = Vec::new();
        for ((id, stream), _) in watched.iter().zip(&heard).filter(|(_, heard)| **heard) {
            hear(shared, id, stream, &mut news);
        }
        if Instant::now() >= clock_due {
            clock_due = Instant::now() + CLOCK_EVERY;
            for (_, stream) in &watched {
                // A guest that is gone is noticed by its closed channel.
                let _ = send(stream, &Request::Clock(clock()));
            }
        }
        for (id, what) in news {
            listener(&id, what);
        }
    }
}

/// Waits for any of the channels; tells which have something.
fn wait(shared: &Shared, watched: &[(VmId, Arc<UnixStream>)], until: Instant) -> Vec<bool> {
    let mut fds: Vec<PollFd<'_>> = watched
        .iter()
        .map(|(_, stream)| PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::IN))
        .collect();
    fds.push(PollFd::from_borrowed_fd(shared.bell.as_fd(), PollFlags::IN));
    let left = until.saturating_duration_since(Instant::now());
    let limit = Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(left.subsec_nanos()),
    };
    if let Err(e) = poll(&mut fds, Some(&limit))
        && e != rustix::io::Errno::INTR
    {
        // Nothing can be waited for: look at all, but not in a frenzy.
        std::thread::sleep(Duration::from_millis(100));
    }
    fds.iter()
        .take(watched.len())
        .map(|fd| !fd.revents().is_empty())
        .collect()
}

/// Reads what there is on a channel.
fn hear(shared: &Shared, id: &VmId, mut stream: &UnixStream, news: &mut Vec<(VmId, News)>) {
    let mut chunk = [0; 4096];
    let got = stream.read(&mut chunk);
    let mut lines = shared.lines();
    // Another QEMU may have taken the place of the one that was heard.
    let Some(line) = lines
        .get_mut(id)
        .filter(|line| std::ptr::eq(&raw const *line.stream, stream))
    else {
        return;
    };
    match got {
        Ok(length) if length > 0 => {
            line.pending.extend_from_slice(&chunk[..length]);
            news.extend(
                reports(&mut line.pending)
                    .into_iter()
                    .map(|report| (id.clone(), News::Report(report))),
            );
        }
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
        Ok(_) | Err(_) => {
            lines.remove(id);
            news.push((id.clone(), News::Closed));
        }
    }
}

/// Takes the whole lines out of `pending`. A line that is no report (half of
/// one, at the start of a connection) is dropped: the guest says it all again
/// when it is asked.
fn reports(pending: &mut Vec<u8>) -> Vec<Report> {
    let mut found = Vec::new();
    while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
        let line: Vec<u8> = pending.drain(..=end).collect();
        found.extend(serde_json::from_slice(&line).ok());
    }
    if pending.len() > MAX_LINE {
        pending.clear();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::BufRead;
    use std::os::unix::net::UnixListener;
    use std::sync::mpsc;
    use thiao_guest::protocol::Phase;

    #[test]
    fn a_guest_is_heard_and_its_end_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixListener::bind(folder.path().join(CHANNEL_SOCKET)).unwrap();
        let (tell, told) = mpsc::channel();
        let tell = Mutex::new(tell);
        let channels = Channels::open(Arc::new(move |id: &VmId, news| {
            tell.lock().unwrap().send((id.clone(), news)).unwrap();
        }))
        .unwrap();
        let id = VmId::new("n.1").unwrap();
        channels.connect(&id, folder.path()).unwrap();
        channels.say(&id, &Request::Status).unwrap();
        let (guest, _) = socket.accept().unwrap();
        let mut asked = String::new();
        io::BufReader::new(&guest).read_line(&mut asked).unwrap();
        assert_eq!(asked, "\"status\"\n");
        (&guest)
            .write_all(b"phase\":\n{\"phase\":\"waiting\",\"upt")
            .unwrap();
        (&guest).write_all(b"ime_ms\":7}\n").unwrap();
        let limit = Duration::from_secs(10);
        let (who, news) = told.recv_timeout(limit).unwrap();
        assert!(
            who == id
                && matches!(
                    news,
                    News::Report(Report {
                        phase: Phase::Waiting,
                        uptime_ms: 7,
                        ..
                    })
                )
        );
        drop(guest);
        assert!(matches!(told.recv_timeout(limit).unwrap().1, News::Closed));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            bytes.push(b'\n');
            reports(&mut bytes);
            prop_assert!(bytes.is_empty());
        }
    }
}
