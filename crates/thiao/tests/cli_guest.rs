//! `thiao guest`, with the image made of this machine's packages.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use thiao_opennebula::syntax::Template;
use thiao_testkit::process::run;

/// Where the image is kept between runs.
fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest-cache")
}

fn guest(dir: &Path, agent: &Path, more: &[&str]) -> (i32, String, String) {
    run(Command::new(env!("CARGO_BIN_EXE_thiao"))
        .arg("guest")
        .arg(dir)
        .arg("--cache-dir")
        .arg(cache())
        .arg("--agent")
        .arg(agent)
        .args(more)
        // It needs no settings.
        .env("THIAO_CONFIG", "/nonexistent/thiao.toml"))
}

#[test]
fn files_and_commands_come_and_nothing_is_overwritten_unasked() {
    let place = tempfile::tempdir().unwrap();
    let agent = place.path().join("agent");
    std::fs::write(&agent, "no agent\n").unwrap();
    let dir = place.path().join("new/guest");
    let path = |name: &str| dir.join(name);

    let (code, out, err) = guest(&dir, &agent, &[]);
    assert_eq!(code, 0, "{err}");
    for name in ["vmlinuz", "initrd", "thiao-guest.one"] {
        assert!(
            out.contains(&format!("new       {}\n", path(name).display())),
            "{out}"
        );
    }
    for (name, kind) in [("vmlinuz", "KERNEL"), ("initrd", "RAMDISK")] {
        let end = format!("--path {} --type {kind} -d files\n", path(name).display());
        assert!(out.contains(&end), "{out}");
    }
    let kernel = std::fs::read(path("vmlinuz")).unwrap();
    assert_eq!(&kernel[0x202..0x206], b"HdrS", "a bzImage");
    assert!(
        std::fs::read(path("initrd")).unwrap().starts_with(b"070701"),
        "a cpio archive"
    );

    let (code, out, _) = guest(&dir, &agent, &[]);
    assert_eq!((code, out.matches("is right").count()), (0, 3), "{out}");

    std::fs::write(path("thiao-guest.one"), "NAME = \"mine\"\n").unwrap();
    std::fs::remove_file(path("initrd")).unwrap();
    let (code, out, err) = guest(&dir, &agent, &[]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(
        err.contains("nothing was written")
            && err.contains("thiao-guest.one is there")
            && err.contains("--force"),
        "{err}"
    );
    assert!(!path("initrd").exists());
    let (code, out, err) = guest(&dir, &agent, &["--force"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("replaced") && path("initrd").exists(), "{out}");

    // An authority of the site's goes into the first file system, and what is none is refused.
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest/tests/data");
    let file = |name: &str| data.join(name).display().to_string();
    let (code, out, err) = guest(&dir, &agent, &["--force", "--ca", &file("ca.pem")]);
    assert!(code == 0 && out.contains("replaced"), "{out}{err}");
    let pem = std::fs::read(data.join("ca.pem")).unwrap();
    let initrd = std::fs::read(path("initrd")).unwrap();
    assert!(initrd.windows(pem.len()).any(|part| part == pem));
    let (code, _, err) = guest(&dir, &agent, &["--force", "--ca", &file("server.key")]);
    assert!(
        code == 1 && err.contains("server.key holds no authorities to trust"),
        "{err}"
    );

    let (code, _, err) = guest(&dir, &place.path().join("none"), &[]);
    assert!(code == 1 && err.contains("the guests' agent"), "{err}");
}

/// OpenNebula's drivers make this machine of the template. That the context is nonsense ends it, once it was read.
#[test]
fn what_the_template_describes_boots_and_reads_its_context() {
    let agent = thiao_testkit::program("thiao-guest");
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    let (code, _, err) = guest(dir, &agent, &[]);
    assert_eq!(code, 0, "{err}");
    let template = Template::parse(&std::fs::read_to_string(dir.join("thiao-guest.one")).unwrap()).unwrap();
    let os: BTreeMap<String, String> = template.vectors("OS").flatten().cloned().collect();
    let context = "ETH0_IP='10.0.2.15'\nETH0_MAC='02:00:0a:00:02:0f'\nETH0_MASK='255.255.255.0'\n\
                   THIAO_CONTEXT='e30='\nVMID='7'\n";
    let files = BTreeMap::from([("context.sh", context.as_bytes())]);
    std::fs::write(
        dir.join("context.iso"),
        thiao_qemu::iso::disc("CONTEXT", &files).unwrap(),
    )
    .unwrap();
    let status = Command::new("timeout")
        .current_dir(dir)
        .args(["120", "qemu-system-x86_64"])
        .args([
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-m",
            "400",
            "-nodefaults",
        ])
        .args(["-display", "none", "-no-reboot", "-M", &os["MACHINE"]])
        .args(["-drive", "if=none,id=c,format=raw,readonly=on,file=context.iso"])
        .args(["-device", "ide-cd,drive=c", "-serial", "file:console.log"])
        .args(["-device", "virtio-net-pci,mac=02:00:0a:00:02:0f"])
        .args([
            "-kernel",
            "vmlinuz",
            "-initrd",
            "initrd",
            "-append",
            &os["KERNEL_CMD"],
        ])
        .stdin(Stdio::null())
        .status()
        .unwrap();
    let console = std::fs::read_to_string(dir.join("console.log")).unwrap();
    assert!(
        status.success() && console.contains("THIAO_CONTEXT is not what this guest knows"),
        "{status}: {console}"
    );
}
