//! The exported folder as a client on the wire sees it, against what the machine itself sees.

#![allow(clippy::unwrap_used, reason = "these helpers fail their test by it")]

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::mpsc;
use tempfile::TempDir;
use thiao_nfs::serve;
use thiao_testkit::isolated::{ip, isolated};
use thiao_testkit::nfs::{Client, Dec, Enc, connect, status};

/// Serves a folder in this process, until it ends.
fn start(folder: &Path) -> u16 {
    ip(&["link", "set", "lo", "up"]);
    let (tell, told) = mpsc::channel();
    let folder = folder.to_owned();
    std::thread::spawn(move || {
        let Err(e) = serve(&folder, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), move |port| {
            tell.send(port).unwrap()
        });
        panic!("{e}");
    });
    told.recv().unwrap()
}

/// A new folder, and a client that has it mounted.
fn exported() -> (TempDir, Client) {
    let folder = tempfile::tempdir().unwrap();
    let port = start(folder.path());
    (folder, Client::mount(Ipv4Addr::LOCALHOST, port))
}

#[test]
fn files_are_written_and_read() {
    isolated("files_are_written_and_read", || {
        let (folder, mut nfs) = exported();
        let root = nfs.root.clone();
        let (file, made) = nfs.create(&root, "out", 0o640).unwrap();
        assert_eq!((made.kind, made.mode, made.size, made.links), (1, 0o640, 0, 1));
        assert_eq!(nfs.write(&file, 0, b"hello world\n", 0).unwrap().size, 12);
        nfs.write(&file, 6, b"there", 2).unwrap();
        assert_eq!(nfs.write(&file, 12, b"more\n", 1).unwrap().size, 17);
        assert_eq!(
            fs::read_to_string(folder.path().join("out")).unwrap(),
            "hello there\nmore\n"
        );
        assert_eq!(nfs.read(&file, 6, 5).unwrap(), (b"there".to_vec(), false));
        assert_eq!(nfs.read(&file, 12, 100).unwrap(), (b"more\n".to_vec(), true));
        assert_eq!(nfs.read(&file, 12, 5).unwrap(), (b"more\n".to_vec(), true));
        assert_eq!(nfs.read(&file, 1 << 40, 5).unwrap(), (vec![], true));
        assert_eq!(nfs.commit(&file).unwrap(), nfs.commit(&file).unwrap());

        // A hole, truncation, and what the machine itself writes.
        nfs.write(&file, 1 << 33, b"end", 0).unwrap();
        assert_eq!(
            fs::metadata(folder.path().join("out")).unwrap().len(),
            (1 << 33) + 3
        );
        assert_eq!(nfs.read(&file, 17, 4).unwrap(), (vec![0; 4], false));
        assert_eq!(nfs.setattr(&file, None, Some(5)).unwrap().size, 5);
        assert_eq!(fs::read_to_string(folder.path().join("out")).unwrap(), "hello");
        fs::write(folder.path().join("out"), "from outside").unwrap();
        assert_eq!(nfs.read(&file, 0, 100).unwrap(), (b"from outside".to_vec(), true));
        let big: Vec<u8> = (0..1 << 20)
            .map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        nfs.write(&file, 3, &big, 0).unwrap();
        assert_eq!(nfs.read(&file, 3, 1 << 20).unwrap(), (big, true));
        assert_eq!(nfs.write(&root, 0, b"x", 0).unwrap_err(), status::ISDIR);
        assert_eq!(nfs.read(&root, 0, 1).unwrap_err(), status::ISDIR);
    });
}

#[test]
fn files_are_made_in_the_three_ways() {
    isolated("files_are_made_in_the_three_ways", || {
        let (folder, mut nfs) = exported();
        let root = nfs.root.clone();
        let (first, _) = nfs.create_guarded(&root, "a").unwrap();
        assert_eq!(nfs.create_guarded(&root, "a").unwrap_err(), status::EXIST);
        nfs.write(&first, 0, b"kept", 0).unwrap();
        let (again, there) = nfs.create(&root, "a", 0o777).unwrap();
        assert_eq!(
            (again, there.size, there.mode),
            (first.clone(), 4, 0o644),
            "an existing file is taken as it is"
        );
        assert_eq!(nfs.create_truncated(&root, "a").unwrap().1.size, 0);

        // Exclusively: the same request may come twice, another one may not.
        let (mine, _) = nfs
            .create_exclusive(&root, "lock", 0x1234_5678_9abc_def0)
            .unwrap();
        assert_eq!(
            nfs.create_exclusive(&root, "lock", 0x1234_5678_9abc_def0)
                .unwrap()
                .0,
            mine
        );
        assert_eq!(
            nfs.create_exclusive(&root, "lock", 0x1234_5678_9abc_def1)
                .unwrap_err(),
            status::EXIST
        );
        assert_eq!(nfs.create_exclusive(&root, "a", 1).unwrap_err(), status::EXIST);
        let set = nfs.setattr(&mine, Some(0o4711), None).unwrap();
        assert_eq!(
            (
                set.mode,
                fs::metadata(folder.path().join("lock")).unwrap().mode() & 0o7777
            ),
            (0o4711, 0o4711)
        );

        nfs.mkdir(&root, "d", 0o755).unwrap();
        symlink("/nowhere", folder.path().join("l")).unwrap();
        for taken in ["d", "l"] {
            assert_eq!(nfs.create(&root, taken, 0o644).unwrap_err(), status::EXIST);
        }
        assert!(!Path::new("/nowhere").exists());
    });
}

#[test]
fn attributes_are_set() {
    isolated("attributes_are_set", || {
        let (folder, mut nfs) = exported();
        let root = nfs.root.clone();
        let (file, _) = nfs.create(&root, "a", 0o600).unwrap();
        let times = |file: &[u8]| Enc::default().bytes(file).u32(0).u32(0).u32(0).u32(0);
        let set = nfs
            .setattr_raw(
                times(&file)
                    .u32(2)
                    .u32(1000)
                    .u32(5)
                    .u32(2)
                    .u32(2000)
                    .u32(7)
                    .u32(0),
            )
            .unwrap();
        assert_eq!((set.accessed, set.modified), ((1000, 5), (2000, 7)));
        assert_eq!(fs::metadata(folder.path().join("a")).unwrap().mtime(), 2000);
        let set = nfs.setattr_raw(times(&file).u32(0).u32(1).u32(0)).unwrap();
        assert!(
            set.accessed == (1000, 5) && set.modified.0 > 1_700_000_000,
            "{set:?}"
        );

        // A guard that does not hold changes nothing.
        let guard = |c: (u32, u32)| Enc::default().u32(1).u32(c.0).u32(c.1);
        let mut refused = Enc::default().bytes(&file).sattr(Some(0o777), None);
        refused.0.extend(guard((1, 2)).0);
        assert_eq!(nfs.setattr_raw(refused).unwrap_err(), status::NOT_SYNC);
        let mut held = Enc::default().bytes(&file).sattr(Some(0o444), None);
        held.0.extend(guard(set.changed).0);
        assert_eq!(nfs.setattr_raw(held).unwrap().mode, 0o444);

        // A folder's own, a link's own, and not what a link points to.
        fs::write(folder.path().join("target"), "").unwrap();
        let mode = || fs::metadata(folder.path().join("target")).unwrap().mode();
        let target_mode = mode();
        let (link, _) = nfs.symlink(&root, "l", "target").unwrap();
        nfs.setattr_raw(times(&link).u32(0).u32(2).u32(99).u32(0).u32(0))
            .unwrap();
        assert_eq!(fs::symlink_metadata(folder.path().join("l")).unwrap().mtime(), 99);
        assert_ne!(fs::metadata(folder.path().join("target")).unwrap().mtime(), 99);
        assert!(nfs.setattr(&link, Some(0o600), None).is_err());
        assert_eq!(mode(), target_mode);
        assert_eq!(nfs.setattr(&root, Some(0o1777), None).unwrap().mode, 0o1777);
    });
}

/// Beside files: `soft` and `pipe`, and no devices.
fn links_and_pipes(nfs: &mut Client, folder: &Path, file: &[u8]) {
    let root = nfs.root.clone();
    let (link, made) = nfs.symlink(&root, "soft", "../../etc/pass wd").unwrap();
    assert_eq!(
        (made.kind, nfs.readlink(&link).unwrap().as_str()),
        (5, "../../etc/pass wd")
    );
    assert_eq!(nfs.readlink(file).unwrap_err(), status::INVAL);
    let (_, pipe) = nfs.mknod(&root, "pipe", 7).unwrap();
    assert_eq!((pipe.kind, pipe.mode), (7, 0o640));
    assert!(fs::metadata(folder.join("pipe")).unwrap().file_type().is_fifo());
    for device in [3, 4] {
        assert_eq!(nfs.mknod(&root, "device", device).unwrap_err(), status::PERM);
    }
}

#[test]
fn folders_links_and_pipes() {
    isolated("folders_links_and_pipes", || {
        let (folder, mut nfs) = exported();
        let root = nfs.root.clone();
        let (private, made) = nfs.mkdir(&root, ".ssh", 0o700).unwrap();
        assert_eq!((made.kind, made.mode, made.links), (2, 0o700, 2));
        assert_eq!(
            fs::metadata(folder.path().join(".ssh"))
                .unwrap()
                .permissions()
                .mode()
                & 0o7777,
            0o700
        );
        let (file, before) = nfs.create(&private, "key", 0o600).unwrap();
        nfs.write(&file, 0, b"x", 0).unwrap();

        assert_eq!(nfs.link(&file, &root, "hard").unwrap().links, 2);
        let (same, hard) = nfs.lookup(&root, "hard").unwrap();
        assert_eq!(
            (same, hard.id),
            (file.clone(), before.id),
            "one file has one handle"
        );
        assert_eq!(nfs.link(&private, &root, "no").unwrap_err(), status::PERM);
        assert_eq!(nfs.link(&file, &root, "hard").unwrap_err(), status::EXIST);

        links_and_pipes(&mut nfs, folder.path(), &file);

        assert_eq!(nfs.rmdir(&root, ".ssh").unwrap_err(), status::NOTEMPTY);
        assert_eq!(nfs.remove(&root, ".ssh").unwrap_err(), status::ISDIR);
        assert_eq!(nfs.rmdir(&private, "key").unwrap_err(), status::NOTDIR);
        nfs.rename(&private, "key", &root, "moved").unwrap();
        assert_eq!(
            nfs.lookup(&root, "moved").unwrap().0,
            file,
            "a moved file keeps its handle"
        );
        assert_eq!(nfs.read(&file, 0, 9).unwrap().0, b"x");
        assert_eq!(nfs.lookup(&private, "key").unwrap_err(), status::NOENT);
        nfs.create(&root, "over", 0o600).unwrap();
        nfs.rename(&root, "moved", &root, "over").unwrap();
        assert_eq!(nfs.lookup(&root, "over").unwrap().0, file);
        nfs.rename(&root, ".ssh", &root, "renamed").unwrap();
        nfs.create(&private, "in", 0o600).unwrap();
        assert!(
            folder.path().join("renamed/in").exists(),
            "a folder's handle goes with it"
        );
        nfs.remove(&private, "in").unwrap();
        nfs.rmdir(&root, "renamed").unwrap();
        assert_eq!(nfs.getattr(&private).unwrap_err(), status::STALE);
        nfs.remove(&root, "over").unwrap();
        assert_eq!(
            nfs.getattr(&file).unwrap().links,
            1,
            "its other name is still there"
        );
        nfs.remove(&root, "hard").unwrap();
        for name in ["soft", "pipe"] {
            nfs.remove(&root, name).unwrap();
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    });
}

#[test]
fn nothing_leaves_the_folder() {
    isolated("nothing_leaves_the_folder", || {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "secret").unwrap();
        let folder = outside.path().join("export");
        fs::create_dir_all(folder.join("a/b")).unwrap();
        fs::write(folder.join("a/b/file"), "inside").unwrap();
        symlink(outside.path(), folder.join("out")).unwrap();
        let mut nfs = Client::mount(Ipv4Addr::LOCALHOST, start(&folder));
        let root = nfs.root.clone();

        assert_eq!(nfs.lookup(&root, "..").unwrap().0, root);
        assert_eq!(nfs.lookup(&root, ".").unwrap().0, root);
        let (a, _) = nfs.lookup(&root, "a").unwrap();
        let (b, _) = nfs.lookup(&a, "b").unwrap();
        assert_eq!(nfs.lookup(&b, "..").unwrap().0, a);
        assert_eq!(nfs.lookup(&a, "..").unwrap().0, root);
        for name in ["../secret", "a/b", "/etc", "", "a\0b"] {
            assert_eq!(nfs.lookup(&root, name).unwrap_err(), status::INVAL, "{name:?}");
            assert!(nfs.create(&root, name, 0o600).is_err(), "{name:?}");
            assert!(nfs.remove(&root, name).is_err(), "{name:?}");
            assert!(nfs.rename(&a, "b", &root, name).is_err(), "{name:?}");
        }
        for name in [".", ".."] {
            assert!(
                nfs.create(&a, name, 0o600).is_err() && nfs.rmdir(&a, name).is_err(),
                "{name}"
            );
            assert!(
                nfs.rename(&a, "b", &a, name).is_err() && nfs.rename(&a, name, &root, "x").is_err(),
                "{name}"
            );
        }
        assert_eq!(
            nfs.lookup(&root, &"x".repeat(256)).unwrap_err(),
            status::NAMETOOLONG
        );
        nfs.create(&root, &"x".repeat(255), 0o600).unwrap();

        // A link is what it is, not what it points to.
        let (out, link) = nfs.lookup(&root, "out").unwrap();
        assert_eq!(link.kind, 5);
        assert_eq!(nfs.lookup(&out, "secret").unwrap_err(), status::NOTDIR);
        assert_eq!(nfs.create(&out, "new", 0o600).unwrap_err(), status::NOTDIR);
        assert!(nfs.page(&out, 0, 4096, false).is_err());

        // A folder that is swapped for a link while a client holds handles below it.
        let (file, _) = nfs.lookup(&b, "file").unwrap();
        fs::create_dir(outside.path().join("b")).unwrap();
        fs::hard_link(folder.join("a/b/file"), outside.path().join("b/file")).unwrap();
        fs::remove_dir_all(folder.join("a/b")).unwrap();
        symlink(outside.path().join("b"), folder.join("a/b")).unwrap();
        assert_eq!(nfs.getattr(&file).unwrap_err(), status::STALE);
        assert_eq!(nfs.create(&b, "new", 0o600).unwrap_err(), status::STALE);

        // Handles of files elsewhere on the same disk are worth nothing here.
        let mut other = Client::mount(Ipv4Addr::LOCALHOST, start(outside.path()));
        let secret = other.find("secret").unwrap();
        assert_eq!(nfs.read(&secret, 0, 9).unwrap_err(), status::STALE);
        assert_eq!(nfs.getattr(b"").unwrap_err(), status::BADHANDLE);
        assert_eq!(nfs.getattr(&[0xff; 64]).unwrap_err(), status::BADHANDLE);
    });
}

#[test]
fn listings_are_whole_whatever_the_page_and_whatever_changes() {
    isolated(
        "listings_are_whole_whatever_the_page_and_whatever_changes",
        || {
            let (folder, mut nfs) = exported();
            let root = nfs.root.clone();
            let many = folder.path().join("many");
            fs::create_dir(&many).unwrap();
            let names: BTreeSet<String> = (0..3000).map(|i| format!("file-{i:05}")).collect();
            for name in &names {
                fs::write(many.join(name), name).unwrap();
            }
            let (dir, made) = nfs.lookup(&root, "many").unwrap();
            for (count, plus) in [
                (512, false),
                (4096, false),
                (1 << 20, false),
                (4096, true),
                (1 << 20, true),
            ] {
                let all = nfs.list(&dir, count, plus).unwrap();
                assert_eq!(all.len(), 3000, "{count} {plus}");
                assert_eq!(all.iter().map(|e| e.name.clone()).collect::<BTreeSet<_>>(), names);
                for entry in all.iter().step_by(500) {
                    let (handle, attributes) = nfs.lookup(&dir, &entry.name).unwrap();
                    assert_eq!(entry.id, attributes.id);
                    if plus {
                        assert_eq!(
                            (entry.handle.as_ref(), entry.attributes.as_ref()),
                            (Some(&handle), Some(&attributes))
                        );
                    }
                }
            }
            let (dots, _) = nfs.page(&dir, 0, 4096, true).unwrap();
            assert_eq!(
                (dots[0].name.as_str(), dots[0].id, dots[1].name.as_str()),
                (".", made.id, "..")
            );
            assert_eq!(dots[1].handle.as_ref(), Some(&root));
            assert_eq!(nfs.page(&dir, 0, 64, false).err(), Some(status::TOOSMALL));

            // Removing what was listed while listing on, as `rm -r` does, misses none.
            let mut cookie = 0;
            loop {
                let (entries, last) = nfs.page(&dir, cookie, 2048, false).unwrap();
                for entry in &entries {
                    cookie = entry.cookie;
                    if !entry.name.starts_with('.') {
                        nfs.remove(&dir, &entry.name).unwrap();
                    }
                }
                if last {
                    break;
                }
            }
            nfs.rmdir(&root, "many").unwrap();

            // A listing shows a change at once.
            let (dir, _) = nfs.mkdir(&root, "few", 0o755).unwrap();
            for i in 0..20 {
                assert_eq!(nfs.list(&dir, 4096, false).unwrap().len(), i);
                fs::write(folder.path().join(format!("few/{i}")), "").unwrap();
            }
            let file = nfs.find("few/3").unwrap();
            assert_eq!(nfs.page(&file, 0, 4096, false).err(), Some(status::NOTDIR));
        },
    );
}

#[test]
fn handles_outlive_the_server_and_changes_from_outside() {
    isolated("handles_outlive_the_server_and_changes_from_outside", || {
        let (folder, mut nfs) = exported();
        let path = |p: &str| folder.path().join(p);
        let deep: String = (0..60).map(|i| format!("d{i}/")).collect();
        fs::create_dir_all(path("x/y/z")).unwrap();
        fs::create_dir_all(path(&deep)).unwrap();
        for file in ["top", "x/y/z/deep", "x/y/moved"] {
            fs::write(path(file), file).unwrap();
        }
        fs::write(path(&deep).join("bottom"), "bottom").unwrap();
        let mut handles = Vec::new();
        for (file, text) in [
            ("top", "top"),
            ("x/y/z/deep", "x/y/z/deep"),
            ("x/y/moved", "x/y/moved"),
        ] {
            handles.push((nfs.find(file).unwrap(), text));
        }
        handles.push((nfs.find(&format!("{deep}bottom")).unwrap(), "bottom"));
        let z = nfs.find("x/y/z").unwrap();

        let check = |nfs: &mut Client, when: &str| {
            for (handle, text) in &handles {
                let read = nfs.read(handle, 0, 100).map(|r| String::from_utf8(r.0).unwrap());
                assert_eq!(read.as_deref(), Ok(*text), "{when}");
            }
        };
        let restart = || Client::mount(Ipv4Addr::LOCALHOST, start(folder.path()));
        check(&mut nfs, "at first");
        check(&mut restart(), "after a restart");
        fs::rename(path("x/y"), path("x/yy")).unwrap();
        fs::rename(path("top"), path("bottom-up")).unwrap();
        check(&mut nfs, "after renames outside");
        fs::rename(path("x/yy/moved"), path("elsewhere")).unwrap();
        check(&mut nfs, "after a move outside");
        let mut new = restart();
        check(&mut new, "after renames, a move and a restart");
        assert_eq!(
            new.find("elsewhere").unwrap(),
            handles[2].0,
            "the handle that its client holds stays"
        );
        new.create(&z, "new", 0o600).unwrap();
        assert!(path("x/yy/z/new").exists());

        // A reused inode number is another file.
        fs::write(path("short"), "first").unwrap();
        let (file, first) = nfs.lookup(&nfs.root.clone(), "short").unwrap();
        for _ in 0..50 {
            fs::remove_file(path("short")).unwrap();
            fs::write(path("short"), "another").unwrap();
            if fs::metadata(path("short")).unwrap().ino() == first.id {
                break;
            }
        }
        assert_eq!(nfs.read(&file, 0, 9).unwrap_err(), status::STALE);
    });
}

#[test]
fn a_file_in_use_outlives_its_name() {
    isolated("a_file_in_use_outlives_its_name", || {
        let (folder, mut nfs) = exported();
        let root = nfs.root.clone();
        let (file, _) = nfs.create(&root, "log", 0o600).unwrap();
        nfs.write(&file, 0, b"one ", 0).unwrap();
        fs::remove_file(folder.path().join("log")).unwrap();
        nfs.write(&file, 4, b"two", 0).unwrap();
        assert_eq!(nfs.read(&file, 0, 99).unwrap().0, b"one two");
        assert_eq!(nfs.getattr(&file).unwrap().links, 0);
        nfs.setattr(&file, None, Some(3)).unwrap();
        nfs.commit(&file).unwrap();
        // A new file of that name is another.
        let (new, _) = nfs.create(&root, "log", 0o600).unwrap();
        assert_ne!(new, file);
        assert_eq!(nfs.read(&new, 0, 9).unwrap().0, b"");
        assert_eq!(nfs.read(&file, 0, 9).unwrap().0, b"one");
    });
}

#[test]
fn other_users_of_a_guest_read_what_modes_allow_and_change_nothing() {
    isolated(
        "other_users_of_a_guest_read_what_modes_allow_and_change_nothing",
        || {
            const ALL: u32 = 0x3f;
            let (folder, mut nfs) = exported();
            let root = nfs.root.clone();
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
            let (public, _) = nfs.create(&root, "public", 0o644).unwrap();
            let (private, _) = nfs.create(&root, "private", 0o600).unwrap();
            let (closed, _) = nfs.mkdir(&root, "closed", 0o700).unwrap();
            nfs.create(&closed, "in", 0o666).unwrap();
            let (program, _) = nfs.create(&root, "program", 0o711).unwrap();
            assert_eq!(nfs.access(&root, ALL).unwrap(), 0x1f);
            assert_eq!(nfs.access(&public, ALL & !0x20).unwrap(), 0x0d);
            for caller in [Some((4242, 4242)), None] {
                nfs.caller = caller;
                assert_eq!(nfs.access(&root, ALL).unwrap(), 0x03);
                assert_eq!(nfs.access(&public, ALL).unwrap(), 0x01);
                assert_eq!(nfs.access(&private, ALL).unwrap(), 0);
                assert_eq!(nfs.access(&program, ALL).unwrap(), 0x20);
                assert!(nfs.read(&public, 0, 1).is_ok() && nfs.read(&program, 0, 1).is_ok());
                assert!(nfs.getattr(&private).is_ok(), "attributes are for all");
                for refused in [
                    nfs.read(&private, 0, 1).err(),
                    nfs.lookup(&closed, "in").err(),
                    nfs.list(&closed, 4096, true).err(),
                    nfs.write(&public, 0, b"x", 0).err(),
                    nfs.setattr(&public, Some(0o777), None).err(),
                    nfs.create(&root, "new", 0o600).err(),
                    nfs.mkdir(&root, "new", 0o700).err(),
                    nfs.symlink(&root, "new", "x").err(),
                    nfs.link(&public, &root, "new").err(),
                    nfs.remove(&root, "public").err(),
                    nfs.rename(&root, "public", &root, "new").err(),
                    nfs.commit(&public).err(),
                ] {
                    assert_eq!(refused, Some(status::ACCES));
                }
            }
            // By group.
            let gid = fs::metadata(folder.path().join("private")).unwrap().gid();
            nfs.caller = Some((4242, gid));
            assert_eq!(nfs.read(&private, 0, 1).unwrap_err(), status::ACCES);
            fs::set_permissions(folder.path().join("private"), fs::Permissions::from_mode(0o640)).unwrap();
            assert!(nfs.read(&private, 0, 1).is_ok());
        },
    );
}

#[test]
fn only_kernels_and_only_sense_are_answered() {
    isolated("only_kernels_and_only_sense_are_answered", || {
        use std::io::{Read, Write};
        let folder = tempfile::tempdir().unwrap();
        let port = start(folder.path());
        // Any program may have such a port: hung up at once.
        let mut plain = connect(Ipv4Addr::LOCALHOST, port, 2000..2100).unwrap();
        assert!(matches!(plain.read(&mut [0; 4]), Ok(0) | Err(_)));

        // A record larger than any request ends the connection, not the server.
        let mut huge = connect(Ipv4Addr::LOCALHOST, port, 500..600).unwrap();
        huge.write_all(&u32::MAX.to_be_bytes()).unwrap();
        assert!(matches!(huge.read(&mut [0; 4]), Ok(0) | Err(_)));

        let mut nfs = Client::mount(Ipv4Addr::LOCALHOST, port);
        assert_eq!(
            nfs.rpc(100_003, 99, Enc::default()).err(),
            Some(3),
            "no such procedure"
        );
        assert_eq!(
            nfs.rpc(100_227, 0, Enc::default()).err(),
            Some(1),
            "no such program"
        );
        assert_eq!(nfs.rpc(100_003, 1, Enc::default()).err(), Some(4), "no arguments");
        nfs.rpc(100_003, 0, Enc::default()).unwrap().end();
        let mut elsewhere: Dec = nfs.rpc(100_005, 1, Enc::default().bytes(b"/etc")).unwrap();
        assert_eq!(elsewhere.u32(), status::NOENT);

        // Arguments cut short or bent anywhere harm nothing.
        let root = nfs.root.clone();
        let mut seed = 1_u64;
        for round in 0..4000_u32 {
            let mut random = || {
                seed = seed
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (seed >> 33) as u32
            };
            let mut arguments = Enc::default()
                .bytes(&root)
                .bytes(b"name")
                .u32(random() % 4)
                .sattr(Some(0o600), Some(9));
            for _ in 0..random() % 4 {
                let at = random() as usize % arguments.0.len();
                arguments.0[at] = random() as u8;
            }
            arguments.0.truncate(random() as usize % 100);
            if let Err(state) = nfs.rpc(100_003, round % 22, arguments) {
                assert!([3, 4].contains(&state), "{state}");
            }
        }
        assert!(nfs.getattr(&root).is_ok());
    });
}
