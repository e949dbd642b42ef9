//! Tells OpenNebula that the guest is ready. Slurm sees the node by itself:
//! nothing here ends the guest.

use crate::tls;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;
use thiao_guest::context_disk::OneGate;
use thiao_guest::{authorities, dns};

/// How long one try may take at each step.
const STEP_LIMIT: Duration = Duration::from_secs(5);

const DNS_PORT: u16 = 53;

/// How long one server of names may take.
const DNS_LIMIT: Duration = Duration::from_secs(2);

/// The pause after the first try; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How often it is tried: for about five minutes.
const TRIES: u32 = 15;

/// How much of an answer is read, in bytes.
const ANSWER_LIMIT: u64 = 4096;

/// Says READY=YES beside all else, again and again until it is taken.
pub fn say_ready(onegate: OneGate) {
    std::thread::spawn(move || {
        let mut pause = FIRST_PAUSE;
        let trusted = Path::new("/").join(authorities::FILE);
        for _ in 0..TRIES {
            match put(&onegate, &trusted) {
                Ok(()) => return println!("thiao-guest: OneGate took READY=YES"),
                Err(e) => eprintln!(
                    "thiao-guest: OneGate at {} did not take READY=YES: {e}",
                    onegate.server
                ),
            }
            std::thread::sleep(pause);
            pause = LONGEST_PAUSE.min(pause * 2);
        }
        eprintln!("thiao-guest: gave up saying READY=YES; Slurm knows this node without it");
    });
}

/// Where it is: an address is written, a name is asked for.
fn address_of(onegate: &OneGate) -> io::Result<SocketAddr> {
    if let Ok(address) = onegate.server.parse() {
        return Ok(address);
    }
    let (name, port) = onegate
        .server
        .rsplit_once(':')
        .ok_or_else(|| io::Error::other("it has no port"))?;
    let port = port
        .parse()
        .map_err(|_| io::Error::other(format!("{port:?} is no port")))?;
    if onegate.dns.is_empty() {
        let why = format!("{name} is a name, and the network has no DNS attribute that says who knows it");
        return Err(io::Error::other(why));
    }
    let mut error = None;
    for server in &onegate.dns {
        match look_up(SocketAddrV4::new(*server, DNS_PORT), name) {
            Ok(address) => return Ok((address, port).into()),
            Err(e) => error = Some(io::Error::other(format!("{server} does not know {name}: {e}"))),
        }
    }
    Err(error.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
}

/// Asks one server for a name's address.
fn look_up(server: SocketAddrV4, name: &str) -> io::Result<Ipv4Addr> {
    let mut id = [0; 2];
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())?;
    let question =
        dns::question(u16::from_be_bytes(id), name).ok_or_else(|| io::Error::other("that can be no name"))?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(DNS_LIMIT))?;
    // What others send is not read then.
    socket.connect(server)?;
    socket.send(&question)?;
    let mut answer = [0; dns::LONGEST];
    let length = socket.recv(&mut answer)?;
    let answer = answer.get(..length).unwrap_or_default();
    dns::address(&question, answer).ok_or_else(|| io::Error::other("its answer has no address"))
}

/// `trusted`: the file with the authorities whose word counts for https.
fn put(onegate: &OneGate, trusted: &Path) -> io::Result<()> {
    let stream = TcpStream::connect_timeout(&address_of(onegate)?, STEP_LIMIT)?;
    stream.set_read_timeout(Some(STEP_LIMIT))?;
    stream.set_write_timeout(Some(STEP_LIMIT))?;
    if !onegate.secure {
        return say(stream, onegate);
    }
    // The token is said only to who has proved that it is OneGate.
    let host = onegate.server.rsplit_once(':').map_or("", |(host, _)| host);
    say(tls::over(stream, host, trusted)?, onegate)
}

fn say(mut stream: impl Read + Write, onegate: &OneGate) -> io::Result<()> {
    stream.write_all(onegate.ready().as_bytes())?;
    stream.flush()?;
    let mut answer = Vec::new();
    // A server that closes roughly has still answered.
    let read = stream.take(ANSWER_LIMIT).read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer);
    let line = text.lines().next().unwrap_or_default();
    match line.split(' ').nth(1) {
        Some(code) if line.starts_with("HTTP/1.") && code.starts_with('2') => Ok(()),
        Some(_) => Err(io::Error::other(line.to_owned())),
        None => Err(read.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::{ServerConfig, ServerConnection, StreamOwned};
    use std::net::TcpListener;
    use std::sync::Arc;

    #[test]
    fn a_name_is_asked_for_and_answered() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let SocketAddr::V4(address) = server.local_addr().unwrap() else {
            panic!("no IPv4")
        };
        let answering = std::thread::spawn(move || {
            let mut asked = [0; dns::LONGEST];
            let (length, from) = server.recv_from(&mut asked).unwrap();
            let mut answer = asked[..length].to_vec();
            answer[2..4].copy_from_slice(&[0x81, 0x80]);
            answer[7] = 1;
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 1, 2, 3]);
            server.send_to(&answer, from).unwrap();
        });
        assert_eq!(
            look_up(address, "onegate.example").unwrap(),
            Ipv4Addr::new(10, 1, 2, 3)
        );
        answering.join().unwrap();
    }

    #[test]
    fn a_name_that_nobody_knows_is_told_as_that() {
        let onegate = |endpoint: &str| {
            let told = thiao_guest::context_disk::ContextDisk::read(
                &format!(
                    "ETH0_IP='10.9.0.7'\nETH0_MAC='02:00:0a:09:00:07'\nONEGATE_ENDPOINT='{endpoint}'\nVMID='4'\n\
                     THIAO_CONTEXT='{CONTEXT}'\n"
                ),
                Some("token"),
            );
            told.unwrap()
        };
        let named = onegate("http://onegate.example").onegate.unwrap();
        let error = address_of(&named).unwrap_err().to_string();
        assert!(error.contains("no DNS attribute"), "{error}");
        let direct = onegate("http://10.0.0.1:5030").onegate.unwrap();
        assert_eq!(address_of(&direct).unwrap().to_string(), "10.0.0.1:5030");
        let secure = onegate("https://onegate.example/gate").onegate.unwrap();
        assert!(secure.secure && secure.server == "onegate.example:443" && secure.prefix == "/gate");
    }

    /// What OneGate by https heard from a guest that trusts `trusted`, and what the guest made of it; `host`: how the
    /// guest calls it.
    fn by_https(trusted: &str, host: &str) -> (Option<String>, Result<(), String>) {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        let certificates = authorities::read(&std::fs::read(data.join("server.pem")).unwrap()).unwrap();
        let key = PrivateKeyDer::from_pem_file(data.join("server.key")).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .unwrap();
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let connection = ServerConnection::new(Arc::new(config)).unwrap();
            let mut stream = StreamOwned::new(connection, stream);
            let mut heard = [0; 4096];
            // A guest that does not trust it says nothing.
            let length = stream.read(&mut heard).ok().filter(|length| *length > 0)?;
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
                .unwrap();
            stream.conn.send_close_notify();
            stream.flush().unwrap();
            Some(String::from_utf8_lossy(&heard[..length]).into_owned())
        });
        let told = thiao_guest::context_disk::ContextDisk::read(
            &format!(
                "ETH0_IP='10.9.0.7'\nETH0_MAC='02:00:0a:09:00:07'\nONEGATE_ENDPOINT='https://{host}:{port}'\n\
                 VMID='4'\nTHIAO_CONTEXT='{CONTEXT}'\n"
            ),
            Some("t0ken"),
        );
        let onegate = told.unwrap().onegate.unwrap();
        let said = put(&onegate, &data.join(trusted)).map_err(|e| e.to_string());
        (serving.join().unwrap(), said)
    }

    #[test]
    fn onegate_is_told_by_https() {
        let (heard, said) = by_https("ca.pem", "127.0.0.1");
        assert_eq!(said, Ok(()));
        let heard = heard.unwrap();
        assert!(
            heard.starts_with("PUT /vm HTTP/1.1\r\n") && heard.ends_with("READY=YES"),
            "{heard}"
        );
        assert!(heard.contains("X-ONEGATE-TOKEN: t0ken\r\n"), "{heard}");
    }

    #[test]
    fn a_server_that_nobody_vouches_for_gets_no_token() {
        let (heard, said) = by_https("stranger.pem", "127.0.0.1");
        let why = said.unwrap_err();
        assert!(why.contains("cannot trust the certificate of 127.0.0.1"), "{why}");
        assert!(
            why.contains("UnknownIssuer") && why.contains("thiao guest --ca"),
            "{why}"
        );
        assert_eq!(heard, None);
        // Another's certificate, though a good one.
        let (heard, said) = by_https("ca.pem", "127.0.0.2");
        assert!(
            said.unwrap_err()
                .contains("cannot trust the certificate of 127.0.0.2")
        );
        assert_eq!(heard, None);
        // A guest that was made without authorities trusts nobody.
        let (heard, said) = by_https("nothing.pem", "127.0.0.1");
        assert!(said.unwrap_err().contains("no authorities to trust"));
        assert_eq!(heard, None);
    }

    const CONTEXT: &str = "eyJpZCI6ImZnMS4zIiwiaG9zdG5hbWUiOiJmZzEiLCJzbHVybWN0bGRfaG9zdCI6ImhlYWQiLCJzbHVybWN0bGRf\
        YWRkciI6IjEwLjkuMC4xIiwic2x1cm1jdGxkX3BvcnQiOjY4MTcsIm11bmdlX2tleSI6IjZiNjU3OSIsIm11bmdlX3NvY2tldCI6Ii9ydW4v\
        bXVuZ2UvbXVuZ2Uuc29ja2V0LjIiLCJ1c2VycyI6W10sInNoYXJlcyI6W119";
}
