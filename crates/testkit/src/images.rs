//! Images for VMs with a whole system: one that Thiao builds, and one as a distribution has it, with a boot
//! loader and cloud-init. Both are made once and kept; one test at a time makes them.

use crate::{kept, lab};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What is in the image that Thiao builds, beside what each has.
const PACKAGES: &str = "python3";

/// The name of the image that Thiao builds.
pub const BUILT: &str = "test";

/// The file system's label in the image with cloud-init.
const LABEL: &str = "cloudroot";

/// Where its boot loader is on Debian.
const GRUB: &str = "/usr/lib/grub/i386-pc";

/// Where its one partition begins, in MiB.
const PARTITION_MB: u64 = 1;

/// The folder of the images, with the one that `thiao image build` makes in it.
#[must_use]
pub fn cache() -> PathBuf {
    let cache = kept().join("image-cache");
    fs::create_dir_all(&cache).unwrap();
    let _one_at_a_time = locked("built.lock");
    let thiao = |words: &[&str]| {
        let mut command = Command::new(lab::thiao());
        command.args(["image", "--cache-dir"]).arg(&cache).args(words);
        command.stdin(Stdio::null()).output().unwrap()
    };
    if !thiao(&["show", BUILT]).status.success() {
        let output = thiao(&["build", BUILT, "--packages", PACKAGES]);
        assert!(output.status.success(), "{}", lab::text(&output));
    }
    cache
}

/// An image with cloud-init, made the way a distribution makes one: packages, a partition, a boot loader.
#[must_use]
pub fn with_cloud_init() -> PathBuf {
    let image = kept().join("cloud.qcow2");
    fs::create_dir_all(kept()).unwrap();
    let _one_at_a_time = locked("cloud.lock");
    if image.exists() {
        return image;
    }
    let work = tempfile::tempdir_in(kept()).unwrap();
    let at = |name: &str| work.path().join(name);
    bootstrap(&at("root.tar"));
    fs::create_dir(at("root")).unwrap();
    run(Command::new("tar")
        .arg("-xpf")
        .arg(at("root.tar"))
        .args(["--numeric-owner", "-C"])
        .arg(at("root")));
    run(Command::new("mkfs.ext4")
        .args(["-q", "-F", "-L", LABEL, "-d"])
        .arg(at("root"))
        .arg(at("part"))
        .arg("1600M"));
    fs::remove_dir_all(at("root")).unwrap();
    run(Command::new("grub-mkimage")
        .args(["-O", "i386-pc", "-p", "(hd0,msdos1)/boot/grub", "-o"])
        .arg(at("core.img"))
        .args([
            "biosdisk",
            "part_msdos",
            "ext2",
            "search",
            "search_label",
            "normal",
            "linux",
        ]));
    let disk = at("disk");
    File::create(&disk).unwrap().set_len(1700 << 20).unwrap();
    run(Command::new("sh")
        .args([
            "-c",
            "echo start=2048, type=83, bootable | sfdisk -q \"$1\"",
            "sh",
        ])
        .arg(&disk));
    // The loader's first sector, without the partition table; the rest follows it at once.
    copy(&Path::new(GRUB).join("boot.img"), &disk, &["bs=440", "count=1"]);
    copy(&at("core.img"), &disk, &["bs=512", "seek=1"]);
    copy(
        &at("part"),
        &disk,
        &["bs=1M", &format!("seek={PARTITION_MB}"), "conv=sparse"],
    );
    run(Command::new("qemu-img")
        .args(["convert", "-O", "qcow2"])
        .arg(&disk)
        .arg(at("cloud.qcow2")));
    fs::rename(at("cloud.qcow2"), &image).unwrap();
    image
}

/// Debian with what an image of a site's has.
fn bootstrap(archive: &Path) {
    let hooks = [
        "chroot \"$1\" systemctl enable systemd-networkd",
        "rm -f \"$1\"/etc/munge/munge.key",
        "echo 'LABEL=cloudroot / ext4 rw,noatime 0 1' > \"$1\"/etc/fstab",
        "mkdir -p \"$1\"/boot/grub",
        "printf 'search --label cloudroot --set root\\nlinux /vmlinuz root=LABEL=cloudroot ro console=ttyS0 quiet\\n\
         initrd /initrd.img\\nboot\\n' > \"$1\"/boot/grub/grub.cfg",
    ];
    run(Command::new("mmdebstrap")
        .args(["--variant=minbase", "--format=tar"])
        .arg(
            "--include=cloud-init,systemd-sysv,udev,dbus,netplan.io,linux-image-cloud-amd64,initramfs-tools,slurmd,\
             slurm-client,munge,iproute2,procps",
        )
        .args(hooks.map(|hook| format!("--customize-hook={hook}")))
        .arg("bookworm")
        .arg(archive));
}

/// Copies into a file that is there.
fn copy(from: &Path, to: &Path, how: &[&str]) {
    let operand = |word: &str, path: &Path| format!("{word}={}", path.display());
    run(Command::new("dd")
        .args([operand("if", from), operand("of", to), "conv=notrunc".into()])
        .args(how));
}

fn run(command: &mut Command) {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", lab::text(&output));
}

/// Waits until no other test is at it.
fn locked(name: &str) -> File {
    let file = File::create(kept().join(name)).unwrap();
    file.lock().unwrap();
    file
}
