//! The local API: the bytes of a client's connection, through hyper and our
//! paths, before a controller that knows a little of two users.
//!
//! The first byte of the input says who is at the other end, how the bytes
//! arrive, and whether they are a connection's own or a request's path and body,
//! a line each, that a proper head is made for.

mod controller;
mod wire;

use controller::{SECRET, Stub};
use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Poll, ready};
use std::time::Duration;
use thiao_controller::api::Viewer;
use thiao_controller::api::server::Answers;
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};
use wire::Wire;

/// Codes that the API answers with: ours, and hyper's for what is no request.
const CODES: [u16; 12] = [100, 200, 400, 403, 404, 405, 409, 413, 414, 431, 500, 503];

/// How long a client waits that has said all. What users ask of Slurm is gathered for half a second.
const WAITS: Duration = Duration::from_secs(1);

/// How long a conversation may go on in all. Time passes only while nothing else can happen.
const LONGEST: Duration = Duration::from_secs(600);

struct Server {
    runtime: Runtime,
    answers: Answers,
    stub: Stub,
}

thread_local! {
    /// Made once: a router takes longer to build than to use.
    static SERVER: RefCell<Server> = RefCell::new(server());
}

fn server() -> Server {
    let (queries, asked) = tokio::sync::mpsc::channel(16);
    Server {
        runtime: tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime"),
        answers: Answers::new(queries),
        stub: Stub { asked },
    }
}

/// Every answer is whole, and none tells a stranger of another user's.
pub fn check(input: &[u8]) {
    let Some((how, rest)) = input.split_first() else {
        return;
    };
    let viewer = match how & 1 {
        0 => Viewer {
            uid: 1001,
            trusted: false,
        },
        _ => Viewer {
            uid: 0,
            trusted: true,
        },
    };
    let piece = match how >> 4 {
        0 => usize::MAX,
        few => usize::from(few),
    };
    let bytes = match how & 2 {
        0 => rest.to_vec(),
        _ => request(how & 4 != 0, rest),
    };
    let told = SERVER.with_borrow_mut(|server| converse(server, viewer, Wire::new(bytes, piece)));
    answers(&told);
    if !viewer.trusted {
        let found = told.windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
        assert!(!found, "another user's: {}", String::from_utf8_lossy(&told));
    }
}

/// A request with a head as it should be.
fn request(post: bool, rest: &[u8]) -> Vec<u8> {
    let mut parts = rest.splitn(2, |byte| *byte == b'\n');
    let path = parts.next().unwrap_or_default();
    let body = parts.next().unwrap_or_default();
    let method = if post { "POST" } else { "GET" };
    let mut bytes = format!("{method} /v1/").into_bytes();
    bytes.extend(path.iter().filter(|byte| byte.is_ascii_graphic()));
    bytes.extend_from_slice(format!(" HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// Holds the conversation to its end; what the client was told.
fn converse(server: &mut Server, viewer: Viewer, wire: Wire) -> Vec<u8> {
    let Server {
        runtime,
        answers,
        stub,
    } = server;
    let (told, leave, moved) = (wire.told(), wire.leave(), wire.moved());
    let ended = runtime.block_on(async {
        let mut talk = pin!(answers.converse(wire, viewer));
        let mut waits = pin!(sleep(WAITS));
        let mut before = 0;
        let talk = poll_fn(|context| {
            while talk.as_mut().poll(context) == Poll::Pending {
                let now = moved.get();
                if stub.answer(viewer) || now != before {
                    before = now;
                } else if !leave.get() {
                    // All is answered: who has no more to say leaves.
                    ready!(waits.as_mut().poll(context));
                    leave.set(true);
                } else {
                    return Poll::Pending;
                }
            }
            Poll::Ready(())
        });
        timeout(LONGEST, talk).await
    });
    assert!(ended.is_ok(), "the client has left, and the conversation goes on");
    // A question may have been asked just before the end.
    stub.answer(viewer);
    told.take()
}

/// Each answer has a code of ours and, but for hyper's own, our JSON.
fn answers(mut told: &[u8]) {
    while !told.is_empty() {
        let text = String::from_utf8_lossy(told);
        let (head, _) = text.split_once("\r\n\r\n").expect("a whole head");
        let code = head.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0);
        assert!(head.starts_with("HTTP/1.") && CODES.contains(&code), "{head}");
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>())
        });
        let length = length.map_or(0, |length| length.expect("a number"));
        let rest = &told[head.len() + 4..];
        // HEAD was asked: it has a length and no body.
        if rest.is_empty() || rest.starts_with(b"HTTP/1.") {
            told = rest;
            continue;
        }
        let (body, after) = rest.split_at_checked(length).expect("a whole body");
        let value: serde_json::Value =
            serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {text}"));
        let error = value.get("error").and_then(|error| error.as_str());
        assert!(
            code < 400 || error.is_some_and(|error| !error.is_empty()),
            "{value}"
        );
        told = after;
    }
}
