//! The event bus: what oned's hook manager publishes (`one_hm`, a ZeroMQ PUB on port 2101), with faults on demand.
//!
//! As much of ZMTP 3.0 as a publisher needs: no security, subscriptions, filtering here. The messages are those of
//! oned 7.4 (`HookStateVM.cc`, `HookStateHost.cc`, `HookAPI.cc`, `one_hm.rb`), kept honest by recordings in
//! `tests/events.rs`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What goes wrong with messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BusFaults {
    /// So many messages are not published; those after it are.
    pub drop: usize,
    /// No message is published at all.
    pub silent: bool,
    /// Each message comes so late.
    pub delay: Duration,
    /// Each message comes twice.
    pub twice: bool,
}

/// What publishes. Clones share it.
#[derive(Clone, Default)]
pub struct Publisher(Arc<Inner>);

#[derive(Default)]
struct Inner {
    queue: Mutex<Option<Sender<Said>>>,
    clients: Mutex<Vec<Client>>,
    /// How many there are: without any nobody makes messages.
    count: AtomicUsize,
    faults: Mutex<BusFaults>,
}

struct Said {
    due: Instant,
    topic: String,
    body: String,
}

struct Client {
    stream: TcpStream,
    topics: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// A bus that listens. Dropping it closes all connections.
pub struct Bus {
    publisher: Publisher,
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Publisher {
    /// Whether anybody hears it.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.0.count.load(Ordering::Relaxed) > 0
    }

    /// What goes wrong from now on.
    pub fn set_faults(&self, faults: BusFaults) {
        *lock(&self.0.faults) = faults;
    }

    /// Publishes a message: its body is XML, and goes out in base64.
    pub fn publish(&self, topic: String, xml: &str) {
        let (delay, times) = {
            let mut faults = lock(&self.0.faults);
            if faults.silent {
                return;
            }
            if faults.drop > 0 {
                faults.drop -= 1;
                return;
            }
            (faults.delay, if faults.twice { 2 } else { 1 })
        };
        let body = STANDARD.encode(xml);
        let queue = lock(&self.0.queue);
        let Some(queue) = &*queue else { return };
        for _ in 0..times {
            let said = Said {
                due: Instant::now() + delay,
                topic: topic.clone(),
                body: body.clone(),
            };
            // Without a writer there is nobody who hears.
            let _ = queue.send(said);
        }
    }

    fn write(&self, said: &Receiver<Said>) {
        while let Ok(said) = said.recv() {
            std::thread::sleep(said.due.saturating_duration_since(Instant::now()));
            let bytes = [frame(1, said.topic.as_bytes()), frame(0, said.body.as_bytes())].concat();
            let wants = |client: &Client| {
                lock(&client.topics)
                    .iter()
                    .any(|prefix| said.topic.as_bytes().starts_with(prefix))
            };
            let mut clients = lock(&self.0.clients);
            clients.retain_mut(|client| !wants(client) || client.stream.write_all(&bytes).is_ok());
            self.0.count.store(clients.len(), Ordering::Relaxed);
        }
    }
}

impl Bus {
    /// Listens there, and publishes what the publisher is given.
    pub fn start(publisher: &Publisher, listen: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(listen)?;
        let address = listener.local_addr()?;
        let (sender, receiver) = mpsc::channel();
        *lock(&publisher.0.queue) = Some(sender);
        let writer = publisher.clone();
        std::thread::Builder::new()
            .name("oned-bus".into())
            .spawn(move || writer.write(&receiver))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (accepting, stopped) = (publisher.clone(), stop.clone());
        std::thread::Builder::new()
            .name("oned-bus-accept".into())
            .spawn(move || {
                for stream in listener.incoming() {
                    if stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    let Ok(stream) = stream else { continue };
                    let publisher = accepting.clone();
                    std::thread::spawn(move || {
                        // Who speaks otherwise, or leaves, is no subscriber.
                        let _ = serve(&publisher, stream);
                    });
                }
            })?;
        Ok(Self {
            publisher: publisher.clone(),
            address,
            stop,
        })
    }

    /// Where subscribers find it.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        *lock(&self.publisher.0.queue) = None;
        for client in lock(&self.publisher.0.clients).drain(..) {
            let _ = client.stream.shutdown(std::net::Shutdown::Both);
        }
        self.publisher.0.count.store(0, Ordering::Relaxed);
        // The listener waits for somebody.
        let _ = TcpStream::connect(self.address);
    }
}

/// A subscriber's conversation: the handshake, then what it subscribes to, until it leaves.
fn serve(publisher: &Publisher, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    let mut greeting = [0; 64];
    greeting[0] = 0xff;
    greeting[9] = 0x7f;
    (greeting[10], greeting[11]) = (3, 1);
    greeting[12..16].copy_from_slice(b"NULL");
    stream.write_all(&greeting)?;
    stream.read_exact(&mut greeting)?;
    stream.write_all(&frame(4, b"\x05READY\x0bSocket-Type\0\0\0\x03PUB"))?;
    let topics: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    {
        let mut clients = lock(&publisher.0.clients);
        clients.push(Client {
            stream: stream.try_clone()?,
            topics: topics.clone(),
        });
        publisher.0.count.store(clients.len(), Ordering::Relaxed);
    }
    loop {
        let mut head = [0; 2];
        stream.read_exact(&mut head)?;
        let [flags, length] = head;
        let mut body = vec![0; usize::from(length)];
        stream.read_exact(&mut body)?;
        match (flags, body.as_slice()) {
            (0, [1, prefix @ ..]) => lock(&topics).push(prefix.to_vec()),
            (0, [0, prefix @ ..]) => lock(&topics).retain(|topic| topic != prefix),
            (4, [4, b'P', b'I', b'N', b'G', _, _, context @ ..]) => {
                // Not between the frames of a message.
                let _clients = lock(&publisher.0.clients);
                stream.write_all(&frame(4, &[b"\x04PONG", context].concat()))?;
            }
            _ => {}
        }
    }
}

fn frame(flags: u8, body: &[u8]) -> Vec<u8> {
    match u8::try_from(body.len()) {
        Ok(length) => [&[flags, length], body].concat(),
        Err(_) => [&[flags | 2][..], &(body.len() as u64).to_be_bytes(), body].concat(),
    }
}
