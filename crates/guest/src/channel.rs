//! The guest's end of the channel: a virtio-serial port.

use crate::Event;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};
use thiao_guest::protocol::{MAX_LINE, PORT_NAME, Report};

/// How often a channel without a listener at the other end is looked at: the
/// port says "hung up" at once to every wait in that state.
const ALONE: Duration = Duration::from_millis(100);

/// How long a report may wait for space.
const SEND_LIMIT: Duration = Duration::from_secs(1);

/// The port, opened; it can be opened once only.
pub struct Channel {
    port: Arc<File>,
}

impl Channel {
    /// Finds the port by its name and opens it; `None` while there is none.
    pub fn open() -> Result<Option<Self>, String> {
        let Some(path) = find() else { return Ok(None) };
        let port = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(&path)
            .map_err(|e| format!("cannot open {}: {e}", path.display()))?;
        Ok(Some(Self { port: Arc::new(port) }))
    }

    /// Hands every request that comes in to the main loop, from a thread of its own.
    pub fn listen(&self, events: Sender<Event>) {
        let port = Arc::clone(&self.port);
        std::thread::spawn(move || read(&port, &events));
    }

    /// Says a report; when nobody takes it, the history still has it for the next who asks.
    pub fn send(&self, report: &Report) {
        self.say(report, Listener::Maybe);
    }

    fn say(&self, report: &Report, listener: Listener) {
        let Ok(mut line) = serde_json::to_vec(report) else {
            return;
        };
        line.push(b'\n');
        self.write(&line, listener);
    }

    /// Says all reports once more to who has just asked. The empty line ends a
    /// half-written one of before.
    pub fn replay(&self, history: &[Report]) {
        self.write(b"\n", Listener::Certain);
        for report in history {
            self.say(report, Listener::Certain);
        }
    }

    fn write(&self, mut bytes: &[u8], listener: Listener) {
        let started = Instant::now();
        let mut port: &File = &self.port;
        while !bytes.is_empty() && started.elapsed() < SEND_LIMIT {
            match port.write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(_) => {
                    let mut fds = [PollFd::new(port, PollFlags::OUT)];
                    let limit = Timespec {
                        tv_sec: 0,
                        tv_nsec: 20_000_000,
                    };
                    let _ = poll(&mut fds, Some(&limit));
                    match listener {
                        _ if !fds[0].revents().contains(PollFlags::HUP) => {}
                        Listener::Maybe => return,
                        Listener::Certain => std::thread::sleep(Duration::from_millis(10)),
                    }
                }
            }
        }
    }
}

/// Who is at the other end when the port says that nobody is.
#[derive(Clone, Copy)]
enum Listener {
    /// Perhaps nobody, as the port says.
    Maybe,
    /// Somebody: a question came. The port's news of it take another way than
    /// the question, and may be behind.
    Certain,
}

fn find() -> Option<PathBuf> {
    fs::read_dir("/sys/class/virtio-ports")
        .ok()?
        .flatten()
        .find_map(|entry| {
            let name = fs::read_to_string(entry.path().join("name")).ok()?;
            let device = PathBuf::from("/dev").join(entry.file_name());
            (name.trim_end() == PORT_NAME && device.exists()).then_some(device)
        })
}

fn read(mut port: &File, events: &Sender<Event>) {
    let mut pending = Vec::new();
    let mut chunk = [0; 16384];
    loop {
        let mut fds = [PollFd::new(port, PollFlags::IN)];
        let _ = poll(&mut fds, None);
        match port.read(&mut chunk) {
            Ok(0) | Err(_) => {
                if fds[0].revents().contains(PollFlags::HUP) {
                    pending.clear();
                    std::thread::sleep(ALONE);
                }
            }
            Ok(length) => pending.extend_from_slice(&chunk[..length]),
        }
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            if line.trim_ascii().is_empty() {
                continue;
            }
            match serde_json::from_slice(&line) {
                Ok(request) => {
                    if events.send(Event::Asked(request)).is_err() {
                        return;
                    }
                }
                // The line may hold secrets: say the place, not the text.
                Err(e) => eprintln!(
                    "thiao-guest: refused a message of {} bytes: column {}",
                    line.len(),
                    e.column()
                ),
            }
        }
        if pending.len() > MAX_LINE {
            eprintln!("thiao-guest: refused a message longer than {MAX_LINE} bytes");
            pending.clear();
        }
    }
}
