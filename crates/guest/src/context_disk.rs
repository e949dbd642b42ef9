//! What an OpenNebula VM is told: the files of its context disk.
//!
//! The disk is ISO 9660 with the label [`LABEL`]. `context.sh` has one
//! `NAME='value'` each line (a value may hold line ends; a `'` in it is written
//! `'\''`: `VirtualMachineContext.cc` of OpenNebula 7.4), and `token.txt` the
//! token for OneGate when CONTEXT asked for one. Nothing of it is executed.

use crate::protocol::{CONTEXT_VARIABLE, Card, DiskContext, OneContext};
use crate::secret::Secret;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as STANDARD;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The context disk's label.
pub const LABEL: &str = "CONTEXT";

/// The file with the variables.
pub const CONTEXT_FILE: &str = "context.sh";

/// The file with OneGate's token.
pub const TOKEN_FILE: &str = "token.txt";

/// Where an ISO 9660 file system describes itself: sector 16, of 2048 bytes.
pub const DESCRIPTOR_AT: u64 = 16 * 2048;

/// The part of the description that is needed.
pub const DESCRIPTOR_LEN: usize = 72;

/// Whether a primary volume descriptor is a context disk's: type 1, `CD001`,
/// version 1, and at byte 40 the label, filled with spaces (ECMA-119, 8.4).
#[must_use]
pub fn is_context_disk(descriptor: &[u8]) -> bool {
    descriptor.starts_with(b"\x01CD001\x01")
        && descriptor
            .get(40..DESCRIPTOR_LEN)
            .is_some_and(|label| label.trim_ascii_end() == LABEL.as_bytes())
}

/// What the files of a context disk say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextDisk {
    /// What Thiao says of it.
    pub common: OneContext,
    /// Random bytes for the kernel's generator.
    pub seed: Option<Secret>,
    /// What OpenNebula says of the card.
    pub card: Card,
    /// Whom to tell that the guest is ready, if anybody wants to know.
    pub onegate: Option<OneGate>,
    /// Why nobody is told of it, though somebody wants to know. The node is Slurm's all the same.
    pub unheard: Option<String>,
}

/// OpenNebula's service for guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneGate {
    /// Its host and port, `10.0.0.1:5030` or `onegate.example:80`.
    pub server: String,
    /// Whether it is spoken to by https.
    pub secure: bool,
    /// Who knows addresses of names (`ETH0_DNS`).
    pub dns: Vec<Ipv4Addr>,
    /// What stands before `/vm` in a request, e.g. nothing.
    pub prefix: String,
    /// The VM's id in OpenNebula.
    pub vm: u64,
    /// What proves that it is us who ask.
    pub token: Token,
}

/// OneGate's token: printing it for debugging shows its length alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token's text, for a request's header.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<{} secret bytes>", self.0.len())
    }
}

impl ContextDisk {
    /// Reads the disk's files. `token` is the text of [`TOKEN_FILE`], when it is there.
    pub fn read(context: &str, token: Option<&str>) -> Result<Self, String> {
        let variables = variables(context)?;
        let get = |name: &str| variables.get(name).map(String::as_str).filter(|v| !v.is_empty());
        let need = |name: &str| get(name).ok_or_else(|| format!("{CONTEXT_FILE} has no {name}"));
        let json =
            base64(need(CONTEXT_VARIABLE)?).ok_or_else(|| format!("{CONTEXT_VARIABLE} is not base64"))?;
        // It holds secrets: say the place, not the text.
        let DiskContext { common, seed } = serde_json::from_slice(&json).map_err(|e| {
            format!(
                "{CONTEXT_VARIABLE} is not what this guest knows: column {}",
                e.column()
            )
        })?;
        let address = |name: &str, text: &str| {
            text.parse::<Ipv4Addr>()
                .map_err(|_| format!("{name} is {text:?}, which is no IPv4 address"))
        };
        // OpenNebula's own guests take this mask when their network has none (one-context).
        let mask = get("ETH0_MASK").unwrap_or("255.255.255.0");
        let card = Card {
            address: address("ETH0_IP", need("ETH0_IP")?)?,
            prefix_len: prefix_len(address("ETH0_MASK", mask)?)
                .ok_or_else(|| format!("ETH0_MASK is {mask:?}, which is no network mask"))?,
            gateway: match get("ETH0_GATEWAY") {
                Some(text) => Some(address("ETH0_GATEWAY", text)?),
                None => None,
            },
            mac: mac(need("ETH0_MAC")?).ok_or("ETH0_MAC is no hardware address")?,
        };
        let dns = get("ETH0_DNS").unwrap_or_default().split_whitespace();
        let dns: Vec<Ipv4Addr> = dns.filter_map(|text| text.parse().ok()).collect();
        let onegate = match (get("ONEGATE_ENDPOINT"), token.map(str::trim)) {
            (Some(endpoint), Some(token)) if !token.is_empty() => {
                Some(OneGate::new(endpoint, need("VMID")?, token, dns))
            }
            _ => None,
        };
        let (onegate, unheard) = match onegate {
            Some(Ok(onegate)) => (Some(onegate), None),
            Some(Err(why)) => (None, Some(why)),
            None => (None, None),
        };
        Ok(Self {
            common,
            seed,
            card,
            onegate,
            unheard,
        })
    }
}

impl OneGate {
    fn new(endpoint: &str, vm: &str, token: &str, dns: Vec<Ipv4Addr>) -> Result<Self, String> {
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        let odd = || format!("ONEGATE_ENDPOINT is {endpoint:?}; guests speak http:// and https:// alone");
        let (scheme, place) = endpoint.split_once("://").ok_or_else(odd)?;
        let (secure, port) = match scheme {
            "http" => (false, 80),
            "https" => (true, 443),
            _ => return Err(odd()),
        };
        if !plain(place) {
            return Err(odd());
        }
        let (server, prefix) = place.split_once('/').unwrap_or((place, ""));
        let server = match server.rsplit_once(':') {
            Some(_) => server.to_owned(),
            None => format!("{server}:{port}"),
        };
        let prefix = match prefix.trim_matches('/') {
            "" => String::new(),
            prefix => format!("/{prefix}"),
        };
        if !plain(token) {
            return Err(format!("{TOKEN_FILE} holds no token"));
        }
        Ok(Self {
            server,
            secure,
            dns,
            prefix,
            vm: vm
                .parse()
                .map_err(|_| format!("VMID is {vm:?}, which is no number"))?,
            token: Token(token.to_owned()),
        })
    }

    /// The request that says READY=YES.
    #[must_use]
    pub fn ready(&self) -> String {
        const BODY: &str = "READY=YES";
        format!(
            "PUT {}/vm HTTP/1.1\r\nHost: {}\r\nX-ONEGATE-TOKEN: {}\r\nX-ONEGATE-VMID: {}\r\n\
             Content-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{BODY}",
            self.prefix,
            self.server,
            self.token.text(),
            self.vm,
            BODY.len(),
        )
    }
}

/// Reads `NAME=value` lines in shell words' quoting; a later one of the same
/// name counts. What only a shell could make sense of is refused.
pub fn variables(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut found = BTreeMap::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(found);
        }
        if rest.starts_with('#') {
            rest = rest.split_once('\n').map_or("", |(_, after)| after);
            continue;
        }
        let number = || text.len() - rest.len();
        let refuse = |why: &str| {
            let line = text[..number()].matches('\n').count() + 1;
            // Values may be secret: say the place, not the text.
            Err(format!("{CONTEXT_FILE}, line {line}: {why}"))
        };
        let Some((name, after)) = rest.split_once('=') else {
            return refuse("no NAME=value");
        };
        let proper = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.bytes().all(proper) {
            return refuse("no NAME=value");
        }
        match word(after) {
            Ok((value, after)) => {
                found.insert(name.to_owned(), value);
                rest = after;
            }
            Err(why) => return refuse(why),
        }
    }
}

/// One shell word without expansions, and what follows it on the next line.
fn word(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let mut letters = rest.chars();
        let Some(letter) = letters.next() else {
            return Ok((value, ""));
        };
        let after = letters.as_str();
        match letter {
            '\'' => {
                let (quoted, after) = after.split_once('\'').ok_or("a quote is not closed")?;
                value.push_str(quoted);
                rest = after;
            }
            '"' => rest = double_quoted(after, &mut value)?,
            '\\' => {
                let escaped = letters.next().ok_or("nothing follows a backslash")?;
                value.push(escaped);
                rest = letters.as_str();
            }
            ' ' | '\t' | '\r' | '\n' => {
                let (line, next) = rest.split_once('\n').unwrap_or((rest, ""));
                let line = line.trim();
                return match line.is_empty() || line.starts_with('#') {
                    true => Ok((value, next)),
                    false => Err("something follows a value"),
                };
            }
            c if c.is_alphanumeric() || "_./:@%+=,-".contains(c) => {
                value.push(c);
                rest = after;
            }
            _ => return Err("a letter that must be quoted"),
        }
    }
}

fn double_quoted<'a>(mut rest: &'a str, value: &mut String) -> Result<&'a str, &'static str> {
    loop {
        let mut letters = rest.chars();
        match letters.next().ok_or("a quote is not closed")? {
            '"' => return Ok(letters.as_str()),
            '$' | '`' => return Err("only a shell could tell this value"),
            '\\' => match letters.next().ok_or("a quote is not closed")? {
                c @ ('"' | '\\' | '$' | '`') => value.push(c),
                c => value.extend(['\\', c]),
            },
            c => value.push(c),
        }
        rest = letters.as_str();
    }
}

/// The length of a mask like 255.255.255.0.
fn prefix_len(mask: Ipv4Addr) -> Option<u8> {
    let bits = u32::from(mask);
    let ones = bits.leading_ones();
    (bits.count_ones() == ones).then(|| u8::try_from(ones).ok())?
}

/// Reads an address like `02:00:0a:09:00:07`.
fn mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2)?;
        if !part.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

/// Base64 as `base64` writes it, line ends allowed; `None` for anything else.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    STANDARD.decode(digits).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Auth;
    use crate::secret::Secret;
    use proptest::prelude::*;

    const CONTEXT: &str = "eyJpZCI6ImZnMS4zIiwiaG9zdG5hbWUiOiJmZzEiLCJzbHVybWN0bGRfaG9zdCI6ImhlYWQiLCJzbHVybWN0bGRf\
        YWRkciI6IjEwLjkuMC4xIiwic2x1cm1jdGxkX3BvcnQiOjY4MTcsIm11bmdlX2tleSI6IjZiNjU3OSIsIm11bmdlX3NvY2tldCI6Ii9ydW4v\
        bXVuZ2UvbXVuZ2Uuc29ja2V0LjIiLCJ1c2VycyI6W10sInNoYXJlcyI6W119";

    fn file() -> String {
        format!(
            "# Context variables generated by OpenNebula\nDISK_ID='1'\nETH0_GATEWAY='10.9.0.1'\nETH0_IP='10.9.0.7'\n\
             ETH0_MAC='02:00:0a:09:00:07'\nETH0_MASK='255.255.252.0'\nNETWORK='YES'\n\
             ONEGATE_ENDPOINT='http://10.9.0.1:5030'\nREPORT_READY='YES'\nSET_HOSTNAME='fg1'\n\
             THIAO_CONTEXT='{CONTEXT}'\nTOKEN='YES'\nVMID='42'\n"
        )
    }

    #[test]
    fn a_context_disk_tells_a_whole_identity() {
        let told = ContextDisk::read(&file(), Some("c2VjcmV0\n")).unwrap();
        assert_eq!(
            (told.common.id.as_str(), told.common.hostname.as_str()),
            ("fg1.3", "fg1")
        );
        let auth = Auth::Munge {
            munge_key: Secret::from_bytes(b"key"),
            munge_socket: "/run/munge/munge.socket.2".into(),
        };
        assert_eq!(told.common.auth, auth);
        assert_eq!(
            told.card,
            Card {
                address: Ipv4Addr::new(10, 9, 0, 7),
                prefix_len: 22,
                gateway: Some(Ipv4Addr::new(10, 9, 0, 1)),
                mac: [2, 0, 10, 9, 0, 7],
            }
        );
        let onegate = told.onegate.clone().unwrap();
        assert!(
            onegate.ready().starts_with(
                "PUT /vm HTTP/1.1\r\nHost: 10.9.0.1:5030\r\nX-ONEGATE-TOKEN: c2VjcmV0\r\nX-ONEGATE-VMID: 42\r\n"
            ),
            "{}",
            onegate.ready()
        );
        let shown = format!("{told:?}");
        assert!(
            !shown.contains("c2VjcmV0") && !shown.contains("6b6579"),
            "{shown}"
        );
    }

    #[test]
    fn a_seed_comes_with_the_identity_if_there_is_one() {
        let Some(json) = base64(CONTEXT) else {
            panic!("{CONTEXT}");
        };
        let mut with: DiskContext = serde_json::from_slice(&json).unwrap();
        assert_eq!(with.seed, None, "that of an older controller");
        with.seed = Some(Secret::from_bytes(&[7; 64]));
        let told = file().replace(CONTEXT, &STANDARD.encode(serde_json::to_vec(&with).unwrap()));
        let told = ContextDisk::read(&told, None).unwrap();
        assert_eq!((told.common, told.seed), (with.common, with.seed));
    }

    #[test]
    fn without_a_token_nobody_is_told() {
        assert_eq!(ContextDisk::read(&file(), None).unwrap().onegate, None);
        assert_eq!(ContextDisk::read(&file(), Some("\n")).unwrap().onegate, None);
        let without = file().replace("ONEGATE_ENDPOINT", "OTHER");
        assert_eq!(ContextDisk::read(&without, Some("t")).unwrap().onegate, None);
    }

    #[test]
    fn what_is_missing_or_odd_is_named() {
        let refused =
            |from: &str, to: &str| ContextDisk::read(&file().replace(from, to), Some("t")).unwrap_err();
        assert!(refused("THIAO_CONTEXT", "X").contains("no THIAO_CONTEXT"));
        assert!(refused("eyJp", "!!!!").contains("not base64"));
        assert!(refused("eyJp", "eyJq").contains("not what this guest knows"));
        assert!(refused("'10.9.0.7'", "'fe80::1'").contains("ETH0_IP"));
        assert!(refused("255.255.252.0", "255.0.255.0").contains("ETH0_MASK"));
        assert!(refused("'02:00", "'02:0").contains("ETH0_MAC"));
        assert!(refused("'42'", "'42").contains("line 13: a quote is not closed"));
    }

    #[test]
    fn a_onegate_that_cannot_be_told_ends_no_guest() {
        let unheard = |from: &str, to: &str, token: &str| {
            let told = ContextDisk::read(&file().replace(from, to), Some(token)).unwrap();
            assert_eq!(told.onegate, None);
            told.unheard.unwrap()
        };
        assert!(unheard("http://", "gopher://", "t").contains("http:// and https:// alone"));
        assert!(unheard("'42'", "'x'", "t").contains("VMID"));
        // What a header could be split with.
        assert!(unheard("", "", "a b").contains("no token"));
    }

    #[test]
    fn who_knows_names_is_told_with_the_card() {
        let named = file().replace("ETH0_IP=", "ETH0_DNS='10.9.0.1 fe80::1 10.9.0.2'\nETH0_IP=");
        let told = ContextDisk::read(&named, Some("t")).unwrap().onegate.unwrap();
        assert_eq!(told.dns, [Ipv4Addr::new(10, 9, 0, 1), Ipv4Addr::new(10, 9, 0, 2)]);
    }

    #[test]
    fn quoting_is_understood_and_nothing_is_executed() {
        let read = variables(
            "A='it'\\''s'\nB=\"a \\\"b\\\" \\n\"\nC=plain/x.y\n\n  # note\nD='1\n2' # note\nE=\nA2=b",
        )
        .unwrap();
        let of = |name: &str| read.get(name).map(String::as_str);
        assert_eq!(of("A"), Some("it's"));
        assert_eq!(of("B"), Some("a \"b\" \\n"));
        assert_eq!(of("C"), Some("plain/x.y"));
        assert_eq!(of("D"), Some("1\n2"));
        assert_eq!((of("E"), of("A2")), (Some(""), Some("b")));
        for bad in [
            "A=$(id)",
            "A=\"$HOME\"",
            "A=`id`",
            "A=b; id",
            "A='b' id",
            "export A=b",
            "1A=b",
            "A",
            "A=b&",
        ] {
            assert!(variables(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_a_disk_of_that_label_is_a_context_disk() {
        let mut descriptor = vec![b' '; 72];
        descriptor[..7].copy_from_slice(b"\x01CD001\x01");
        descriptor[40..47].copy_from_slice(b"CONTEXT");
        assert!(is_context_disk(&descriptor));
        descriptor[47] = b'2';
        assert!(!is_context_disk(&descriptor));
        assert!(!is_context_disk(b"\x01CD001\x01"));
    }

    proptest! {
        #[test]
        fn whatever_opennebula_writes_is_read_back(values in proptest::collection::btree_map("[A-Z_][A-Z0-9_]{0,8}", "\\PC{0,20}|[ '\"$`\\\\\n#]{0,9}", 0..6)) {
            let text: String = values.iter().map(|(name, value)| format!("{name}='{}'\n", value.replace('\'', "'\\''"))).collect();
            prop_assert_eq!(variables(&text).unwrap(), values);
        }

        #[test]
        fn no_file_makes_the_reader_panic(text in "([A-Z]=)?[\\PC\n'\"\\\\=]{0,60}") {
            let _ = variables(&text);
            let _ = ContextDisk::read(&text, Some(&text));
            let _ = base64(&text);
        }
    }
}
