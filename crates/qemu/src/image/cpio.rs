//! Writes the archive that the kernel unpacks as its first file system: the
//! "newc" form of cpio, the same bytes for the same content.

use std::collections::BTreeMap;

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A folder with its permission bits.
    Folder(u32),
    /// A file with its permission bits and content.
    File(u32, Vec<u8>),
    /// A symbolic link to this text.
    Link(String),
    /// A character device: permission bits, major, minor.
    Device(u32, u32, u32),
}

/// A file system to be: paths without a leading slash. Parents sort before
/// their children, which is the order that the kernel needs.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tree(BTreeMap<String, Node>);

impl Tree {
    /// Adds `node` at `path` and the folders above it. What is there stays.
    pub fn add(&mut self, path: &str, node: Node) {
        let path = path.trim_matches('/');
        for (at, _) in path.match_indices('/') {
            self.0.entry(path[..at].to_owned()).or_insert(Node::Folder(0o755));
        }
        self.0.entry(path.to_owned()).or_insert(node);
    }

    /// Whether something is at `path`.
    pub fn has(&self, path: &str) -> bool {
        self.0.contains_key(path.trim_matches('/'))
    }

    /// Whether a link is at `path`.
    pub fn is_link(&self, path: &str) -> bool {
        matches!(self.0.get(path.trim_matches('/')), Some(Node::Link(_)))
    }

    /// The archive: everything belongs to root and dates from the epoch.
    pub fn archive(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (index, (path, node)) in self.0.iter().enumerate() {
            let (mode, device, body) = match node {
                Node::Folder(mode) => (0o040_000 | mode, (0, 0), &[][..]),
                Node::File(mode, body) => (0o100_000 | mode, (0, 0), &body[..]),
                Node::Link(to) => (0o120_777, (0, 0), to.as_bytes()),
                Node::Device(mode, major, minor) => (0o020_000 | mode, (*major, *minor), &[][..]),
            };
            entry(&mut out, index + 1, mode, device, path, body);
        }
        entry(&mut out, 0, 0, (0, 0), "TRAILER!!!", &[]);
        out
    }
}

fn entry(out: &mut Vec<u8>, inode: usize, mode: u32, device: (u32, u32), path: &str, body: &[u8]) {
    // Inode, mode, uid, gid, links, mtime, size, device, special device, name length, checksum.
    let fields = [
        inode as u32,
        mode,
        0,
        0,
        1,
        0,
        body.len() as u32,
        0,
        0,
        device.0,
        device.1,
        path.len() as u32 + 1,
        0,
    ];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(body);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    while !out.len().is_multiple_of(4) {
        out.push(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    fn sample() -> Tree {
        let mut tree = Tree::default();
        tree.add("/usr/bin/tool", Node::File(0o755, b"text".to_vec()));
        tree.add("bin", Node::Link("usr/bin".into()));
        tree.add("tmp", Node::Folder(0o1777));
        tree.add("dev/console", Node::Device(0o600, 5, 1));
        tree
    }

    #[test]
    fn parents_come_first_and_the_bytes_do_not_depend_on_the_order_of_adding() {
        let tree = sample();
        assert!(tree.has("/usr") && tree.has("usr/bin") && !tree.has("lib"));
        let mut other = Tree::default();
        other.add("tmp", Node::Folder(0o1777));
        other.add("dev/console", Node::Device(0o600, 5, 1));
        other.add("bin", Node::Link("usr/bin".into()));
        other.add("usr/bin/tool", Node::File(0o755, b"text".to_vec()));
        assert_eq!(tree.archive(), other.archive());
        assert_eq!(tree.archive().len() % 4, 0);
    }

    #[test]
    fn another_program_reads_it() {
        let mut child = Command::new("busybox")
            .args(["cpio", "-t", "-v"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(&sample().archive())
            .unwrap();
        let out = child.wait_with_output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(out.status.success(), "{text}");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 7, "{text}");
        assert!(
            lines[0].starts_with("lrwxrwxrwx") && lines[0].ends_with("bin -> usr/bin"),
            "{text}"
        );
        assert!(
            lines
                .iter()
                .any(|l| l.starts_with("drwxrwxrwt") && l.ends_with("tmp")),
            "{text}"
        );
        assert!(
            lines
                .iter()
                .any(|l| l.starts_with("-rwxr-xr-x") && l.ends_with("usr/bin/tool")),
            "{text}"
        );
        assert!(
            lines
                .iter()
                .any(|l| l.starts_with("crw-------") && l.ends_with("dev/console")),
            "{text}"
        );
    }
}
