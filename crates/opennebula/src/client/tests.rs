//! Against a server of a few lines that plays recordings and bad days.

use super::*;
use crate::testing::recording;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// What the server does with one connection, after it has read the call.
enum Play {
    /// A good answer with that body.
    Answer(Vec<u8>),
    /// These bytes, and then the end.
    Raw(Vec<u8>),
    /// First this, then a good answer.
    After(Box<dyn FnOnce() + Send>, Vec<u8>),
    /// Nothing, until the client goes away.
    Hang,
    /// A byte now and then, until the client goes away.
    Drip,
}

/// Plays what it is told, one connection after another; then nobody listens any more.
struct Server {
    address: SocketAddr,
    thread: JoinHandle<Vec<String>>,
}

impl Server {
    fn start(plays: Vec<Play>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let thread = std::thread::spawn(move || {
            plays
                .into_iter()
                .map(|play| {
                    let (mut stream, _) = listener.accept().expect("a connection");
                    let request = read_request(&mut stream);
                    act(play, &mut stream);
                    request
                })
                .collect()
        });
        Self { address, thread }
    }

    /// What it was asked, after all was played.
    fn asked(self) -> Vec<String> {
        self.thread.join().expect("the server")
    }
}

fn act(play: Play, stream: &mut TcpStream) {
    // A client that is gone is seen by the test.
    match play {
        Play::Answer(body) => drop(stream.write_all(&http(200, &body))),
        Play::Raw(bytes) => drop(stream.write_all(&bytes)),
        Play::After(first, body) => {
            first();
            drop(stream.write_all(&http(200, &body)));
        }
        Play::Hang => drop(stream.read(&mut [0])),
        Play::Drip => {
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"));
            while stream.write_all(b" ").is_ok() {
                std::thread::yield_now();
            }
        }
    }
}

fn http(status: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "HTTP/1.1 {status} X\r\nContent-type: text/xml; charset=utf-8\r\nContent-length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Reads a request: its head and its body.
fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length: usize = head
                .lines()
                .find_map(|line| {
                    line.to_ascii_lowercase()
                        .strip_prefix("content-length:")?
                        .trim()
                        .parse()
                        .ok()
                })
                .expect("a length");
            if body.len() >= length {
                return text;
            }
        }
        match stream.read(&mut buffer).expect("the request") {
            0 => return text,
            n => bytes.extend_from_slice(&buffer[..n]),
        }
    }
}

/// A client of that address, whose repetitions do not wait long.
struct Setup {
    client: Client,
    auth: PathBuf,
    _folder: tempfile::TempDir,
}

fn write_auth(path: &Path, text: &str) {
    std::fs::write(path, text).expect("written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("mode");
}

fn setup(endpoint: &str, timeout: Duration) -> Setup {
    let folder = tempfile::tempdir().expect("a folder");
    let auth = folder.path().join("one_auth");
    write_auth(&auth, "oneadmin:opennebula\n");
    let access = Access {
        endpoint: endpoint.into(),
        auth: auth.clone(),
        ca_file: None,
        timeout,
        requests_per_second: 0,
        connections: 2,
    };
    let mut client = Client::new(&access).expect("a client");
    Arc::get_mut(&mut client.0).expect("the only one").pause = Duration::from_millis(1);
    Setup {
        client,
        auth,
        _folder: folder,
    }
}

/// Long enough that no test waits for it.
const LONG: Duration = Duration::from_secs(60);
/// For what never answers.
const SHORT: Duration = Duration::from_millis(300);

fn against(server: &Server, timeout: Duration) -> Setup {
    setup(&format!("http://{}/RPC2", server.address), timeout)
}

/// What `ask` gives against a server that plays so, and what the server was asked.
fn play<T>(
    plays: Vec<Play>,
    ask: impl FnOnce(&Client) -> Result<T, Error>,
) -> (Result<T, Error>, Vec<String>) {
    let server = Server::start(plays);
    let setup = against(&server, LONG);
    let outcome = ask(&setup.client);
    (outcome, server.asked())
}

fn answer(name: &str) -> Play {
    Play::Answer(recording(name))
}

fn busy() -> Play {
    let text = String::from_utf8(recording("034-vm-action-hold-wrong-state")).expect("text");
    Play::Answer(text.replace("<i4>2048</i4>", "<i4>32768</i4>").into_bytes())
}

/// A call's XML without what does not count.
fn plain(xml: &str) -> String {
    let body = xml.split_once("<methodCall>").expect("a call").1;
    body.replace('\n', "")
}

#[test]
fn calls_are_what_was_recorded() {
    let recorded = |name: &str| {
        let path = format!("{}/tests/data/{name}.request.xml", env!("CARGO_MANIFEST_DIR"));
        plain(&std::fs::read_to_string(path).expect("a recording"))
    };
    let same = |name: &str, asked: &[String]| {
        assert_eq!(asked.len(), 1);
        assert_eq!(plain(&asked[0]), recorded(name), "{name}");
    };
    let (version, asked) = play(vec![answer("001-system-version")], Client::version);
    assert_eq!(version.as_deref(), Ok("7.4.1"));
    same("001-system-version", &asked);
    let head = asked[0].to_ascii_lowercase();
    assert!(head.starts_with("post /rpc2 http/1.1\r\n"), "{head}");
    assert!(
        !head.contains("transfer-encoding") && !head.contains("expect:"),
        "{head}"
    );

    let ok = || answer("007-template-instantiate-ok");
    let template = Template {
        id: 1,
        name: "worker".into(),
        owner: "oneadmin".into(),
        body: crate::syntax::Template::default(),
    };
    let (made, asked) = play(vec![ok()], |c| c.instantiate(&template, "rec-plain", false, ""));
    assert_eq!(made, Ok(0));
    same("007-template-instantiate-ok", &asked);
    let (_, asked) = play(vec![ok()], |c| c.deploy(1, 0, None));
    same("039-vm-deploy", &asked);
    let (_, asked) = play(vec![ok()], |c| c.recover(7, Recovery::Delete));
    same("092-vm-recover-delete", &asked);
    let (_, asked) = play(vec![ok()], |c| c.action(1, VmAction::TerminateHard));
    same("159-vm-action-terminate-hard", &asked);
    let (vms, asked) = play(vec![answer("101-vmpool-info-all")], Client::vms);
    assert_eq!(vms.map(|vms| vms.len()), Ok(7));
    same("103-vmpool-info-mine", &asked);
}

#[test]
fn every_listing_is_read() {
    assert_eq!(
        play(vec![answer("123-hostpool-info")], |client| client
            .hosts(crate::model::Devices::Read))
        .0
        .map(|h| h.len()),
        Ok(4)
    );
    assert_eq!(
        play(vec![answer("127-vnpool-info")], Client::networks)
            .0
            .map(|n| n.len()),
        Ok(1)
    );
    assert_eq!(
        play(vec![answer("005-templatepool-info")], Client::templates)
            .0
            .map(|t| t.len()),
        Ok(2)
    );
    assert_eq!(
        play(vec![answer("006-template-info")], |c| c.template(1))
            .0
            .map(|t| t.id),
        Ok(1)
    );
    assert_eq!(
        play(vec![answer("152-token-auth")], Client::user).0.map(|u| u.id),
        Ok(2)
    );
    assert_eq!(
        play(vec![answer("084-vm-info-boot-failure")], |c| c.vm(7))
            .0
            .map(|v| v.row.id),
        Ok(7)
    );
    let (vms, asked) = play(vec![answer("121-vmpool-infoset-extended")], |c| c.vms_of(&[0, 1]));
    assert_eq!(vms.map(|vms| vms.len()), Ok(2));
    assert!(asked[0].contains("<string>0,1</string>"));
    let (none, asked) = play(vec![], |c| c.vms_of(&[]));
    assert_eq!((none, asked.len()), (Ok(Vec::new()), 0));
    let (all, _) = play(vec![answer("118-vmpool-infoextended")], Client::vms_extended);
    assert_eq!(all.map(|vms| vms.len()), Ok(7));
}

#[test]
fn a_refusal_is_told_with_what_was_wanted_and_opennebulas_words() {
    let (error, _) = play(vec![answer("042-vm-action-terminate-in-boot")], |c| {
        c.action(1, VmAction::Terminate)
    });
    let error = error.expect_err("refused");
    assert_eq!(error.class, Class::WrongState);
    assert_eq!(
        error.text,
        "cannot terminate VM 1: Error performing action \"terminate\": Could not terminate VM 1, wrong state BOOT"
    );
}

#[test]
fn a_read_is_repeated_when_the_connection_breaks_or_oned_is_busy() {
    let (version, asked) = play(
        vec![Play::Raw(Vec::new()), busy(), answer("001-system-version")],
        Client::version,
    );
    assert_eq!((version.as_deref(), asked.len()), (Ok("7.4.1"), 3));
    let (version, asked) = play(vec![busy(), busy(), busy()], Client::version);
    assert_eq!((version.expect_err("busy").class, asked.len()), (Class::Busy, 3));
}

#[test]
fn what_may_have_been_done_is_not_done_again() {
    for _ in 0..2 {
        let (made, asked) = play(vec![Play::Raw(Vec::new())], |c| c.allocate("CPU=1", true));
        assert_eq!(
            (made.expect_err("unsure").class, asked.len()),
            (Class::Network, 1)
        );
    }
    let cut = |name: &str| {
        let whole = http(200, &recording(name));
        Play::Raw(whole[..whole.len() - 30].to_vec())
    };
    let (done, asked) = play(vec![cut("007-template-instantiate-ok")], |c| c.deploy(1, 0, None));
    assert_eq!(
        (done.expect_err("unsure").class, asked.len()),
        (Class::Network, 1)
    );
    // Without a length the end of the connection ends the answer.
    let body = recording("007-template-instantiate-ok");
    let mut raw = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
    raw.extend_from_slice(&body[..body.len() - 30]);
    let (done, asked) = play(vec![Play::Raw(raw)], |c| c.deploy(1, 0, None));
    assert_eq!(
        (done.expect_err("unsure").class, asked.len()),
        (Class::Network, 1)
    );
}

#[test]
fn a_busy_oned_is_told_to_act_again_but_not_to_create_again() {
    let ok = || answer("007-template-instantiate-ok");
    let (done, asked) = play(vec![busy(), ok()], |c| c.action(1, VmAction::Release));
    assert_eq!((done, asked.len()), (Ok(()), 2));
    let (made, asked) = play(vec![busy()], |c| c.allocate("CPU=1", true));
    assert_eq!((made.expect_err("busy").class, asked.len()), (Class::Busy, 1));
}

#[test]
fn who_never_answers_is_waited_for_no_longer_than_the_timeout() {
    for play in [Play::Hang, Play::Drip] {
        let server = Server::start(vec![play]);
        let setup = against(&server, SHORT);
        let error = setup.client.version().expect_err("no answer");
        assert_eq!(error.class, Class::Network);
        assert!(error.text.contains("did not answer in time"), "{error}");
        assert_eq!(server.asked().len(), 1);
    }
}

#[test]
fn nobody_there_is_told() {
    let server = Server::start(Vec::new());
    let setup = against(&server, LONG);
    server.asked();
    for error in [
        setup.client.version().map(|_| ()).expect_err("nobody"),
        setup
            .client
            .allocate("CPU=1", true)
            .map(|_| ())
            .expect_err("nobody"),
    ] {
        assert_eq!(error.class, Class::Network);
        assert!(error.text.contains("is oned running?"), "{error}");
    }
}

#[test]
fn what_is_no_oned_is_told_clearly() {
    let cases: [(Vec<u8>, Class, &str); 8] = [
        (
            http(200, b"<!DOCTYPE html><html>hello"),
            Class::Unknown,
            "a web page answers",
        ),
        (http(200, b"hello"), Class::Unknown, "makes no sense"),
        (http(200, b""), Class::Network, "cut off"),
        (http(404, b"no"), Class::Unknown, "HTTP status 404"),
        (http(503, b"no"), Class::Busy, "busy"),
        (http(504, b"no"), Class::Network, "504"),
        (
            b"HTTP/1.1 301 X\r\nLocation: https://front/RPC2\r\nContent-Length: 0\r\n\r\n".to_vec(),
            Class::Unknown,
            "redirects to https://front/RPC2",
        ),
        (b"220 mail ESMTP\r\n".to_vec(), Class::Network, "cannot make a VM"),
    ];
    for (bytes, class, word) in cases {
        let (made, asked) = play(vec![Play::Raw(bytes)], |c| c.allocate("CPU=1", true));
        let error = made.expect_err(word);
        assert_eq!((error.class, asked.len()), (class, 1), "{error}");
        assert!(error.text.contains(word), "{error}");
    }
}

#[test]
fn an_expired_token_is_read_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let new = folder.path().join("new");
    let auth: Arc<std::sync::OnceLock<PathBuf>> = Arc::default();
    let replace = {
        let (auth, new) = (auth.clone(), new.clone());
        move || {
            write_auth(&new, "oneadmin:token2\n");
            std::fs::rename(&new, auth.get().expect("known")).expect("renamed");
        }
    };
    let server = Server::start(vec![
        Play::After(Box::new(replace), recording("023-bad-auth")),
        answer("007-template-instantiate-ok"),
    ]);
    let setup = against(&server, LONG);
    auth.set(setup.auth.clone()).expect("once");
    assert_eq!(setup.client.allocate("CPU=1", true), Ok(0));
    let asked = server.asked();
    assert!(asked[0].contains("oneadmin:opennebula"));
    assert!(asked[1].contains("oneadmin:token2"));
}

#[test]
fn refused_credentials_are_tried_twice_and_never_shown() {
    let server = Server::start(vec![answer("023-bad-auth"), answer("023-bad-auth")]);
    let setup = against(&server, LONG);
    let error = setup.client.version().expect_err("refused");
    assert_eq!(error.class, Class::Authentication);
    assert_eq!(server.asked().len(), 2);
    let shown = format!("{error} {error:?} {:?}", setup.client);
    assert!(
        !shown.contains("opennebula\n") && !shown.contains(":opennebula"),
        "{shown}"
    );
}

#[test]
fn what_xml_cannot_hold_is_not_sent() {
    let (made, asked) = play(vec![], |c| c.allocate("NAME=\"a\u{1}b\"", true));
    assert_eq!(
        (made.expect_err("refused").class, asked.len()),
        (Class::BadTemplate, 0)
    );
    let (found, asked) = play(vec![], |c| c.vm(u32::MAX));
    assert_eq!(
        (found.expect_err("refused").class, asked.len()),
        (Class::NoSuchObject, 0)
    );
}
