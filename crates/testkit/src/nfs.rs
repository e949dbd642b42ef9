//! A small NFS version 3 client, written from RFC 1813 and sharing no code with the server.

#![allow(missing_docs, reason = "named as in the RFC")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};

/// `NFS3ERR_*` as the RFC numbers them.
pub mod status {
    pub const PERM: u32 = 1;
    pub const NOENT: u32 = 2;
    pub const ACCES: u32 = 13;
    pub const EXIST: u32 = 17;
    pub const NOTDIR: u32 = 20;
    pub const ISDIR: u32 = 21;
    pub const INVAL: u32 = 22;
    pub const NAMETOOLONG: u32 = 63;
    pub const NOTEMPTY: u32 = 66;
    pub const STALE: u32 = 70;
    pub const BADHANDLE: u32 = 10001;
    pub const NOT_SYNC: u32 = 10002;
    pub const TOOSMALL: u32 = 10005;
}

pub type Handle = Vec<u8>;
/// A result, or the status that is not 0.
pub type Answer<T> = Result<T, u32>;

#[derive(Default)]
pub struct Enc(pub Vec<u8>);

impl Enc {
    pub fn u32(mut self, v: u32) -> Self {
        self.0.extend(v.to_be_bytes());
        self
    }
    pub fn u64(mut self, v: u64) -> Self {
        self.0.extend(v.to_be_bytes());
        self
    }
    pub fn bytes(mut self, v: &[u8]) -> Self {
        self = self.u32(v.len() as u32);
        self.0.extend(v);
        while !self.0.len().is_multiple_of(4) {
            self.0.push(0);
        }
        self
    }
    /// `sattr3` with the mode and the size alone.
    pub fn sattr(mut self, mode: Option<u32>, size: Option<u64>) -> Self {
        self = mode
            .map_or_else(|| Enc::default().u32(0), |m| Enc::default().u32(1).u32(m))
            .after(self);
        self = self.u32(0).u32(0);
        self = size
            .map_or_else(|| Enc::default().u32(0), |s| Enc::default().u32(1).u64(s))
            .after(self);
        self.u32(0).u32(0)
    }
    fn after(self, mut first: Self) -> Self {
        first.0.extend(self.0);
        first
    }
}

pub struct Dec(pub Vec<u8>, usize);

impl Dec {
    pub fn u32(&mut self) -> u32 {
        let v = u32::from_be_bytes(self.0[self.1..self.1 + 4].try_into().unwrap());
        self.1 += 4;
        v
    }
    pub fn u64(&mut self) -> u64 {
        (u64::from(self.u32()) << 32) | u64::from(self.u32())
    }
    pub fn bytes(&mut self) -> Vec<u8> {
        let n = self.u32() as usize;
        let v = self.0[self.1..self.1 + n].to_vec();
        self.1 += n.next_multiple_of(4);
        v
    }
    pub fn attributes(&mut self) -> Attributes {
        let mut w = || self.u32();
        let (kind, mode, links, uid, gid) = (w(), w(), w(), w(), w());
        let (size, _used, _rdev, _fsid, id) = (self.u64(), self.u64(), self.u64(), self.u64(), self.u64());
        let (accessed, modified, changed) = (
            (self.u32(), self.u32()),
            (self.u32(), self.u32()),
            (self.u32(), self.u32()),
        );
        Attributes {
            kind,
            mode,
            links,
            uid,
            gid,
            size,
            id,
            accessed,
            modified,
            changed,
        }
    }
    pub fn post(&mut self) -> Option<Attributes> {
        (self.u32() == 1).then(|| self.attributes())
    }
    /// `wcc_data`: before, then after.
    pub fn wcc(&mut self) -> Option<Attributes> {
        if self.u32() == 1 {
            for _ in 0..6 {
                self.u32();
            }
        }
        self.post()
    }
    /// Nothing may be left over: the answer has the length that the RFC says.
    pub fn end(self) {
        assert_eq!(self.1, self.0.len(), "bytes after the answer");
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    pub kind: u32,
    pub mode: u32,
    pub links: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub id: u64,
    pub accessed: (u32, u32),
    pub modified: (u32, u32),
    pub changed: (u32, u32),
}

pub struct Entry {
    pub id: u64,
    pub name: String,
    pub cookie: u64,
    pub attributes: Option<Attributes>,
    pub handle: Option<Handle>,
}

pub struct Client {
    stream: TcpStream,
    xid: u32,
    /// The AUTH_SYS uid and gid that calls carry; `None` calls as nobody.
    pub caller: Option<(u32, u32)>,
    pub root: Handle,
}

impl Client {
    /// Connects from a privileged port and mounts `/`, as root.
    pub fn mount(address: Ipv4Addr, port: u16) -> Self {
        let stream = connect(address, port, 600..1023).unwrap();
        let mut client = Self {
            stream,
            xid: 7,
            caller: Some((0, 0)),
            root: Vec::new(),
        };
        let mut answer = client.rpc(100_005, 1, Enc::default().bytes(b"/")).unwrap();
        assert_eq!(answer.u32(), 0, "MNT");
        client.root = answer.bytes();
        assert_eq!(
            (answer.u32(), answer.u32()),
            (1, 1),
            "AUTH_SYS is the one flavour"
        );
        answer.end();
        client
    }

    /// Calls; an RPC that is not accepted as successful is an error with its state.
    pub fn rpc(&mut self, program: u32, procedure: u32, arguments: Enc) -> Result<Dec, u32> {
        self.xid += 1;
        let mut call = Enc::default()
            .u32(self.xid)
            .u32(0)
            .u32(2)
            .u32(program)
            .u32(3)
            .u32(procedure);
        call = match self.caller {
            Some((uid, gid)) => {
                let body = Enc::default().u32(1).bytes(b"guest").u32(uid).u32(gid).u32(0);
                call.u32(1).bytes(&body.0)
            }
            None => call.u32(0).u32(0),
        };
        call = call.u32(0).u32(0);
        call.0.extend(arguments.0);
        self.send(&call.0);
        let mut answer = self.receive().expect("an answer");
        assert_eq!((answer.u32(), answer.u32(), answer.u32()), (self.xid, 1, 0));
        assert_eq!((answer.u32(), answer.u32()), (0, 0), "no verifier");
        match answer.u32() {
            0 => Ok(answer),
            state => Err(state),
        }
    }

    /// Sends a record in two fragments.
    pub fn send(&mut self, record: &[u8]) {
        let (first, second) = record.split_at(record.len() / 2);
        let mut message = (first.len() as u32).to_be_bytes().to_vec();
        message.extend(first);
        message.extend((second.len() as u32 | 1 << 31).to_be_bytes());
        message.extend(second);
        self.stream.write_all(&message).unwrap();
    }

    pub fn receive(&mut self) -> std::io::Result<Dec> {
        let mut mark = [0; 4];
        self.stream.read_exact(&mut mark)?;
        let mark = u32::from_be_bytes(mark);
        assert!(mark >> 31 == 1, "answers come in one fragment");
        let mut record = vec![0; (mark & !(1 << 31)) as usize];
        self.stream.read_exact(&mut record)?;
        Ok(Dec(record, 0))
    }

    /// An NFS call; `absent` are the words that a failure carries.
    fn nfs(&mut self, procedure: u32, arguments: Enc, absent: usize) -> Answer<Dec> {
        let mut answer = self
            .rpc(100_003, procedure, arguments)
            .expect("the procedure is there");
        match answer.u32() {
            0 => Ok(answer),
            status => {
                (0..absent).for_each(|_| assert_eq!(answer.u32(), 0));
                answer.end();
                Err(status)
            }
        }
    }

    pub fn getattr(&mut self, handle: &[u8]) -> Answer<Attributes> {
        let mut answer = self.nfs(1, Enc::default().bytes(handle), 0)?;
        let attributes = answer.attributes();
        answer.end();
        Ok(attributes)
    }

    pub fn setattr(&mut self, handle: &[u8], mode: Option<u32>, size: Option<u64>) -> Answer<Attributes> {
        self.setattr_raw(Enc::default().bytes(handle).sattr(mode, size).u32(0))
    }

    pub fn setattr_raw(&mut self, arguments: Enc) -> Answer<Attributes> {
        let mut answer = self.nfs(2, arguments, 2)?;
        let attributes = answer.wcc().unwrap();
        answer.end();
        Ok(attributes)
    }

    pub fn lookup(&mut self, folder: &[u8], name: &str) -> Answer<(Handle, Attributes)> {
        let mut answer = self.nfs(3, Enc::default().bytes(folder).bytes(name.as_bytes()), 1)?;
        let found = (answer.bytes(), answer.post().unwrap());
        answer.post().unwrap();
        answer.end();
        Ok(found)
    }

    /// Walks from the root.
    pub fn find(&mut self, path: &str) -> Answer<Handle> {
        path.split('/')
            .try_fold(self.root.clone(), |at, name| Ok(self.lookup(&at, name)?.0))
    }

    pub fn access(&mut self, handle: &[u8], asked: u32) -> Answer<u32> {
        let mut answer = self.nfs(4, Enc::default().bytes(handle).u32(asked), 1)?;
        answer.post().unwrap();
        let granted = answer.u32();
        answer.end();
        Ok(granted)
    }

    pub fn readlink(&mut self, handle: &[u8]) -> Answer<String> {
        let mut answer = self.nfs(5, Enc::default().bytes(handle), 1)?;
        answer.post().unwrap();
        let target = String::from_utf8(answer.bytes()).unwrap();
        answer.end();
        Ok(target)
    }

    /// The data, and whether it ends there.
    pub fn read(&mut self, handle: &[u8], offset: u64, count: u32) -> Answer<(Vec<u8>, bool)> {
        let mut answer = self.nfs(6, Enc::default().bytes(handle).u64(offset).u32(count), 1)?;
        answer.post().unwrap();
        let (count, eof, data) = (answer.u32(), answer.u32() == 1, answer.bytes());
        assert_eq!(count as usize, data.len());
        answer.end();
        Ok((data, eof))
    }

    pub fn write(&mut self, handle: &[u8], offset: u64, data: &[u8], stable: u32) -> Answer<Attributes> {
        let arguments = Enc::default()
            .bytes(handle)
            .u64(offset)
            .u32(data.len() as u32)
            .u32(stable)
            .bytes(data);
        let mut answer = self.nfs(7, arguments, 2)?;
        let attributes = answer.wcc().unwrap();
        let (count, committed, _verifier) = (answer.u32(), answer.u32(), answer.u64());
        assert_eq!(count as usize, data.len());
        assert!(
            committed >= stable,
            "committed {committed} when {stable} was asked"
        );
        answer.end();
        Ok(attributes)
    }

    pub fn commit(&mut self, handle: &[u8]) -> Answer<u64> {
        let mut answer = self.nfs(21, Enc::default().bytes(handle).u64(0).u32(0), 2)?;
        answer.wcc().unwrap();
        let verifier = answer.u64();
        answer.end();
        Ok(verifier)
    }

    fn make(&mut self, procedure: u32, arguments: Enc) -> Answer<(Handle, Attributes)> {
        let mut answer = self.nfs(procedure, arguments, 2)?;
        assert_eq!(answer.u32(), 1, "a handle follows");
        let made = (answer.bytes(), answer.post().unwrap());
        answer.wcc().unwrap();
        answer.end();
        Ok(made)
    }

    pub fn create(&mut self, folder: &[u8], name: &str, mode: u32) -> Answer<(Handle, Attributes)> {
        let place = Enc::default().bytes(folder).bytes(name.as_bytes());
        self.make(8, place.u32(0).sattr(Some(mode), None))
    }

    pub fn create_truncated(&mut self, folder: &[u8], name: &str) -> Answer<(Handle, Attributes)> {
        let place = Enc::default().bytes(folder).bytes(name.as_bytes());
        self.make(8, place.u32(0).sattr(Some(0o600), Some(0)))
    }

    pub fn create_guarded(&mut self, folder: &[u8], name: &str) -> Answer<(Handle, Attributes)> {
        let place = Enc::default().bytes(folder).bytes(name.as_bytes());
        self.make(8, place.u32(1).sattr(Some(0o644), None))
    }

    pub fn create_exclusive(
        &mut self,
        folder: &[u8],
        name: &str,
        stamp: u64,
    ) -> Answer<(Handle, Attributes)> {
        self.make(
            8,
            Enc::default()
                .bytes(folder)
                .bytes(name.as_bytes())
                .u32(2)
                .u64(stamp),
        )
    }

    pub fn mkdir(&mut self, folder: &[u8], name: &str, mode: u32) -> Answer<(Handle, Attributes)> {
        self.make(
            9,
            Enc::default()
                .bytes(folder)
                .bytes(name.as_bytes())
                .sattr(Some(mode), None),
        )
    }

    pub fn symlink(&mut self, folder: &[u8], name: &str, target: &str) -> Answer<(Handle, Attributes)> {
        let place = Enc::default().bytes(folder).bytes(name.as_bytes());
        self.make(10, place.sattr(Some(0o777), None).bytes(target.as_bytes()))
    }

    pub fn mknod(&mut self, folder: &[u8], name: &str, kind: u32) -> Answer<(Handle, Attributes)> {
        let place = Enc::default().bytes(folder).bytes(name.as_bytes()).u32(kind);
        self.make(11, place.sattr(Some(0o640), None))
    }

    pub fn remove(&mut self, folder: &[u8], name: &str) -> Answer<()> {
        self.remove_by(12, folder, name)
    }

    pub fn rmdir(&mut self, folder: &[u8], name: &str) -> Answer<()> {
        self.remove_by(13, folder, name)
    }

    fn remove_by(&mut self, procedure: u32, folder: &[u8], name: &str) -> Answer<()> {
        let mut answer = self.nfs(procedure, Enc::default().bytes(folder).bytes(name.as_bytes()), 2)?;
        answer.wcc().unwrap();
        answer.end();
        Ok(())
    }

    pub fn rename(&mut self, from: &[u8], old: &str, to: &[u8], new: &str) -> Answer<()> {
        let arguments = Enc::default()
            .bytes(from)
            .bytes(old.as_bytes())
            .bytes(to)
            .bytes(new.as_bytes());
        let mut answer = self.nfs(14, arguments, 4)?;
        answer.wcc().unwrap();
        answer.wcc().unwrap();
        answer.end();
        Ok(())
    }

    pub fn link(&mut self, file: &[u8], folder: &[u8], name: &str) -> Answer<Attributes> {
        let mut answer = self.nfs(
            15,
            Enc::default().bytes(file).bytes(folder).bytes(name.as_bytes()),
            3,
        )?;
        let attributes = answer.post().unwrap();
        answer.wcc().unwrap();
        answer.end();
        Ok(attributes)
    }

    /// One page of a listing, and whether it is the last.
    pub fn page(&mut self, folder: &[u8], cookie: u64, count: u32, plus: bool) -> Answer<(Vec<Entry>, bool)> {
        let mut arguments = Enc::default().bytes(folder).u64(cookie).u64(0).u32(count);
        if plus {
            arguments = arguments.u32(count);
        }
        let mut answer = self.nfs(if plus { 17 } else { 16 }, arguments, 1)?;
        assert!(answer.0.len() - 24 <= count as usize, "more bytes than asked for");
        answer.post().unwrap();
        answer.u64();
        let mut entries = Vec::new();
        while answer.u32() == 1 {
            let (id, name, cookie) = (
                answer.u64(),
                String::from_utf8(answer.bytes()).unwrap(),
                answer.u64(),
            );
            let attributes = if plus { answer.post() } else { None };
            let handle = (plus && answer.u32() == 1).then(|| answer.bytes());
            entries.push(Entry {
                id,
                name,
                cookie,
                attributes,
                handle,
            });
        }
        let last = answer.u32() == 1;
        answer.end();
        Ok((entries, last))
    }

    /// A whole listing but `.` and `..`.
    pub fn list(&mut self, folder: &[u8], count: u32, plus: bool) -> Answer<Vec<Entry>> {
        let (mut all, mut cookie) = (Vec::new(), 0);
        loop {
            let (entries, last) = self.page(folder, cookie, count, plus)?;
            assert!(last || !entries.is_empty(), "an empty page that is not the last");
            cookie = entries.last().map_or(cookie, |e| e.cookie);
            all.extend(entries);
            if last {
                all.retain(|e| e.name != "." && e.name != "..");
                return Ok(all);
            }
        }
    }
}

/// Connects from the first free local port of a range.
pub fn connect(address: Ipv4Addr, port: u16, from: std::ops::Range<u16>) -> std::io::Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketType};
    for local in from {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
        if rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, local)).is_ok() {
            rustix::net::connect(&socket, &SocketAddrV4::new(address, port))?;
            return Ok(TcpStream::from(socket));
        }
    }
    Err(std::io::ErrorKind::AddrInUse.into())
}
