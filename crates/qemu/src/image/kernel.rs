//! The guest's kernel: Debian's cloud kernel, unpacked without being installed,
//! and the modules that guests need, in the order to load them.

use super::cpio::{Node, Tree};
use super::lz4;
use crate::beside::{self, beside};
use crate::error::Error;
use crate::sums;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use thiao_guest::protocol::Modules;

/// The file with the sum of an unpacked kernel's others.
const SUM_FILE: &str = "sum";

/// The package that names the newest cloud kernel by depending on it.
const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// What guests need beside what is built in. A microVM needs the first alone;
/// the rest is for OpenNebula's machines, and loaded where there is a device for
/// it. (The cloud kernel has no driver for SATA controllers.)
const MODULES: [(Modules, &[&str]); 7] = [
    (
        Modules::Always,
        &["virtio_mmio", "virtio_console", "virtio_net", "nfsv3"],
    ),
    (Modules::Pci, &["virtio_pci"]),
    (Modules::VirtioDisk, &["virtio_blk", "isofs"]),
    (Modules::VirtioScsi, &["virtio_scsi", "sr_mod", "sd_mod", "isofs"]),
    (Modules::Ide, &["ata_piix", "sr_mod", "sd_mod", "isofs"]),
    (Modules::Nfs4, &["nfsv4"]),
    (Modules::Button, &["button", "evdev"]),
];

/// A kernel on this machine.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Its release, e.g. `6.1.0-56-cloud-amd64`.
    pub release: String,
    /// Its file as the package has it, compressed.
    pub compressed: PathBuf,
    /// Where its modules are.
    pub modules: PathBuf,
}

/// Finds the kernel: installed, already unpacked in the cache, or fetched now.
pub fn find(cache: &Path, progress: &dyn Fn(&str)) -> Result<Kernel, Error> {
    let kernels = cache.join("kernels");
    fs::create_dir_all(&kernels).map_err(|e| Error::io("make", &kernels, e))?;
    let Some(package) = newest_package() else {
        // Without package lists an older unpacked kernel is as good.
        return newest_unpacked(&kernels).ok_or_else(|| {
            Error::Image(format!(
                "apt does not know {META_PACKAGE}, whose kernel the guests run; run `apt-get update` as root"
            ))
        });
    };
    let release = package.trim_start_matches("linux-image-").to_owned();
    if let Some(installed) = kernel_below(Path::new("/"), &release) {
        return Ok(installed);
    }
    let folder = kernels.join(&release);
    if let Some(unpacked) = unpacked(&kernels, &release) {
        return Ok(unpacked);
    }
    progress(&format!("fetching the guests' kernel, package {package}"));
    fetch(&package, &kernels, &release)?;
    kernel_below(&folder, &release).ok_or_else(|| {
        Error::Image(format!(
            "{} was there and is gone: something else removes what is in it",
            folder.display()
        ))
    })
}

/// The kernel of this release below `root`, if it and its modules are there. Where Debian has
/// them: 12's package (6.1) in `boot` and `lib/modules`, 13's (6.12) in `boot` and
/// `usr/lib/modules`, forky's (7.2) both in `usr/lib/modules`.
pub(super) fn kernel_below(root: &Path, release: &str) -> Option<Kernel> {
    let modules = ["usr/lib/modules", "lib/modules"].map(|place| root.join(place).join(release));
    let modules = modules.into_iter().find(|place| place.is_dir())?;
    let files = [
        root.join(format!("boot/vmlinuz-{release}")),
        modules.join("vmlinuz"),
    ];
    let compressed = files.into_iter().find(|file| fs::File::open(file).is_ok())?;
    Some(Kernel {
        release: release.to_owned(),
        compressed,
        modules,
    })
}

fn newest_package() -> Option<String> {
    dependencies(META_PACKAGE)
        .into_iter()
        .find(|name| name.starts_with("linux-image-"))
}

/// The packages that a kernel is in: the one that names it, and what that depends on of the same
/// release. (forky's `linux-image-...` is empty: kernel and modules are in packages of their own.)
fn carriers(package: &str, release: &str) -> Vec<String> {
    let same = format!("-{release}");
    let others = dependencies(package)
        .into_iter()
        .filter(|name| name.ends_with(&same));
    std::iter::once(package.to_owned()).chain(others).collect()
}

/// What apt says that a package depends on; nothing where apt does not know it.
fn dependencies(package: &str) -> Vec<String> {
    let out = Command::new("apt-cache")
        .args(["depends", package])
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    out.map_or_else(
        |_| Vec::new(),
        |out| parse_depends(&String::from_utf8_lossy(&out.stdout)),
    )
}

fn parse_depends(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.trim().trim_start_matches('|').strip_prefix("Depends: "))
        .filter(|name| !name.contains('/'))
        .map(str::to_owned)
        .collect()
}

/// The kernel of this release that was unpacked in the cache, if its files are as they were then. Of one that has no
/// sum, from before there were any, it is not known: it is used.
fn unpacked(kernels: &Path, release: &str) -> Option<Kernel> {
    let folder = kernels.join(release);
    let kernel = kernel_below(&folder, release)?;
    let written = fs::read_to_string(folder.join(SUM_FILE)).ok();
    let sound = |written: String| sums::of_tree(&folder, SUM_FILE).is_ok_and(|now| now == written);
    written.is_none_or(sound).then_some(kernel)
}

fn newest_unpacked(kernels: &Path) -> Option<Kernel> {
    let entries = fs::read_dir(kernels).ok()?.flatten();
    entries
        .filter_map(|entry| {
            let release = entry.file_name().into_string().ok()?;
            let kernel = unpacked(kernels, &release)?;
            let age = fs::metadata(&kernel.compressed).ok()?.modified().ok()?;
            Some((age, kernel))
        })
        .max_by_key(|(age, _)| *age)
        .map(|(_, kernel)| kernel)
}

/// Downloads the packages and unpacks them, in a folder that gets its name only when it is whole.
fn fetch(package: &str, kernels: &Path, release: &str) -> Result<(), Error> {
    beside::remove_left(kernels);
    let work = beside(&kernels.join(release), "fetch");
    let _ = fs::remove_dir_all(&work);
    fs::create_dir(&work).map_err(|e| Error::io("make", &work, e))?;
    let done = fetch_into(package, &work, release, &kernels.join(release));
    let _ = fs::remove_dir_all(&work);
    done
}

fn fetch_into(package: &str, work: &Path, release: &str, target: &Path) -> Result<(), Error> {
    let packages = carriers(package, release);
    // apt would hand the download to a user that cannot write here.
    run(Command::new("apt-get")
        .args(["-q", "-o", "APT::Sandbox::User=root", "download"])
        .args(&packages)
        .current_dir(work))?;
    let root = work.join("root");
    let archives = fs::read_dir(work)
        .map_err(|e| Error::io("read", work, e))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "deb"));
    for archive in archives {
        run(Command::new("dpkg-deb").arg("-x").arg(archive).arg(&root))?;
    }
    if kernel_below(&root, release).is_none() {
        return Err(Error::Image(format!(
            "there is no kernel {release} with its modules in the packages {}",
            packages.join(", ")
        )));
    }
    place(&root, target, release)
}

/// Gives an unpacked kernel its place, with the sum of its files.
fn place(root: &Path, target: &Path, release: &str) -> Result<(), Error> {
    let sum = sums::of_tree(root, SUM_FILE).map_err(|e| Error::io("read", root, e))?;
    fs::write(root.join(SUM_FILE), sum).map_err(|e| Error::io("write", &root.join(SUM_FILE), e))?;
    let whole = || unpacked(target.parent()?, release);
    if whole().is_none() {
        // Remains of one that was not whole, or is damaged.
        let _ = fs::remove_dir_all(target);
    }
    match fs::rename(root, target) {
        // Somebody else was faster: theirs is the same.
        Err(_) if whole().is_some() => Ok(()),
        other => other.map_err(|e| Error::io("make", target, e)),
    }
}

/// Runs a program to its end; its own words are the error's.
fn run(command: &mut Command) -> Result<(), Error> {
    let name = command.get_program().to_string_lossy().into_owned();
    let out = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| Error::Image(format!("cannot run {name}: {e}")))?;
    if out.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&out.stderr);
    Err(Error::Image(format!(
        "{name} failed ({}): {}",
        out.status,
        words.trim()
    )))
}

impl Kernel {
    /// The kernel as the ELF file that microvms start at once: nothing to unpack under emulation.
    pub fn unpack(&self) -> Result<Vec<u8>, Error> {
        let image = fs::read(&self.compressed).map_err(|e| Error::io("read", &self.compressed, e))?;
        let damaged = |why: &str| Error::Image(format!("{}: {why}", self.compressed.display()));
        let payload = payload(&image).ok_or_else(|| damaged("is not a Linux kernel"))?;
        let elf = match payload {
            [0x02, 0x21, 0x4c, 0x18, ..] => lz4::unpack(payload).ok_or_else(|| damaged("is damaged"))?,
            [0x1f, 0x8b, ..] => filter("gzip", payload)?,
            [0xfd, b'7', b'z', b'X', ..] => filter("xz", payload)?,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => filter("zstd", payload)?,
            _ => payload.to_vec(),
        };
        if elf.starts_with(b"\x7fELF") {
            Ok(elf)
        } else {
            Err(damaged("is packed in an unknown way"))
        }
    }

    /// Adds the needed modules to the image, and the lists that tell their order.
    pub fn add_modules(&self, tree: &mut Tree) -> Result<(), Error> {
        let mut files = BTreeMap::new();
        collect(&self.modules, &mut files)?;
        let builtin = self.modules.join("modules.builtin");
        let builtin = fs::read_to_string(&builtin).map_err(|e| Error::io("read", &builtin, e))?;
        let builtin: Vec<String> = builtin.lines().map(|line| module_name(Path::new(line))).collect();
        for (modules, names) in MODULES {
            let mut order = Vec::new();
            for name in names {
                self.visit(name, &files, &builtin, &mut order)?;
            }
            let mut list = String::new();
            for (name, content) in order {
                let path = format!("usr/lib/modules/{}/{name}.ko", self.release);
                list.push('/');
                list.push_str(&path);
                list.push('\n');
                tree.add(&path, Node::File(0o644, content));
            }
            tree.add(modules.list(), Node::File(0o644, list.into_bytes()));
        }
        Ok(())
    }

    /// Puts a module behind all that it depends on.
    fn visit(
        &self,
        name: &str,
        files: &BTreeMap<String, PathBuf>,
        builtin: &[String],
        order: &mut Vec<(String, Vec<u8>)>,
    ) -> Result<(), Error> {
        if builtin.iter().any(|other| other == name) || order.iter().any(|(other, _)| other == name) {
            return Ok(());
        }
        let path = files.get(name).ok_or_else(|| {
            Error::Image(format!(
                "kernel {} has no module {name}, which guests need",
                self.release
            ))
        })?;
        let content = fs::read(path).map_err(|e| Error::io("read", path, e))?;
        let content = match content.as_slice() {
            [0xfd, b'7', b'z', b'X', ..] => filter("xz", &content)?,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => filter("zstd", &content)?,
            _ => content,
        };
        for needed in depends(&content) {
            self.visit(&needed, files, builtin, order)?;
        }
        order.push((name.to_owned(), unsigned(content)));
        Ok(())
    }
}

/// The compressed part of a bzImage: `setup_sects` at 0x1f1, `payload_offset`
/// and `payload_length` at 0x248 (the kernel's `Documentation/x86/boot.rst`).
fn payload(image: &[u8]) -> Option<&[u8]> {
    if image.get(0x202..0x206)? != b"HdrS" {
        return image.starts_with(b"\x7fELF").then_some(image);
    }
    let number = |at: usize| image.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let sectors = match *image.get(0x1f1)? {
        0 => 4,
        count => usize::from(count),
    };
    let start = (sectors + 1) * 512 + number(0x248)? as usize;
    image.get(start..start.checked_add(number(0x24c)? as usize)?)
}

/// Sends bytes through `program -dc`.
fn filter(program: &str, input: &[u8]) -> Result<Vec<u8>, Error> {
    let fail = |e| {
        Error::Image(format!(
            "cannot unpack the kernel with {program}: {e}; install {program}"
        ))
    };
    let mut child = Command::new(program)
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(fail)?;
    let Some(mut stdin) = child.stdin.take() else {
        return Err(fail(std::io::ErrorKind::BrokenPipe.into()));
    };
    // The kernel's appended size makes the programs complain at the end: their output counts.
    let out = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output()
    });
    Ok(out.map_err(fail)?.stdout)
}

fn collect(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<(), Error> {
    for entry in fs::read_dir(folder)
        .map_err(|e| Error::io("read", folder, e))?
        .flatten()
    {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&path, files)?;
        } else if path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().contains(".ko"))
        {
            files.insert(module_name(&path), path);
        }
    }
    Ok(())
}

/// The kernel treats `-` and `_` in module names alike.
fn module_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split(".ko").next().unwrap_or_default().replace('-', "_")
}

/// A module without its signature, which no guest of ours enforces and whose
/// check takes long under emulation. At the end of a signed module are the
/// signature, 12 bytes about it (the last 4 its length) and a fixed text
/// (`include/linux/module_signature.h`).
fn unsigned(mut module: Vec<u8>) -> Vec<u8> {
    const MARK: &[u8] = b"~Module signature appended~\n";
    const ABOUT: usize = 12;
    let Some(rest) = module.strip_suffix(MARK) else {
        return module;
    };
    let Some(length) = rest
        .last_chunk::<4>()
        .map(|bytes| u32::from_be_bytes(*bytes) as usize)
    else {
        return module;
    };
    if let Some(end) = rest.len().checked_sub(ABOUT + length) {
        module.truncate(end);
    }
    module
}

/// What a module says of itself: NUL-separated `key=value` texts, among them
/// `depends=a,b`. (`modules.dep` exists only on machines where the kernel is installed.)
fn depends(module: &[u8]) -> Vec<String> {
    module
        .split(|byte| *byte == 0)
        .find_map(|text| text.strip_prefix(b"depends="))
        .map(|list| {
            String::from_utf8_lossy(list)
                .split(',')
                .filter(|n| !n.is_empty())
                .map(|n| n.replace('-', "_"))
                .collect()
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_damaged_kernel_is_not_taken_from_the_cache() {
        let cache = tempfile::tempdir().unwrap();
        let kernels = cache.path();
        let fetched = |content: &str| {
            let root = kernels.join(".fetched");
            fs::create_dir_all(root.join("boot")).unwrap();
            fs::create_dir_all(root.join("lib/modules/6-x")).unwrap();
            fs::write(root.join("boot/vmlinuz-6-x"), content).unwrap();
            fs::write(root.join("lib/modules/6-x/a.ko"), "module").unwrap();
            place(&root, &kernels.join("6-x"), "6-x").unwrap();
            let _ = fs::remove_dir_all(root);
        };
        let kept = || fs::read_to_string(kernels.join("6-x/boot/vmlinuz-6-x")).unwrap();
        fetched("kernel");
        assert!(unpacked(kernels, "6-x").is_some() && newest_unpacked(kernels).is_some());
        fetched("theirs");
        assert_eq!(kept(), "kernel", "one that is whole stays");
        for (file, content) in [("boot/vmlinuz-6-x", "kernex"), ("lib/modules/6-x/a.ko", "modulx")] {
            fs::write(kernels.join("6-x").join(file), content).unwrap();
            assert!(
                unpacked(kernels, "6-x").is_none() && newest_unpacked(kernels).is_none(),
                "{file}"
            );
            fetched("again");
            assert_eq!(kept(), "again", "{file}");
        }
        fs::remove_file(kernels.join("6-x").join(SUM_FILE)).unwrap();
        assert!(unpacked(kernels, "6-x").is_some(), "nothing is known of it");
    }

    #[test]
    fn dependencies_are_read_and_never_lead_elsewhere() {
        let text = "linux-image-cloud-amd64\n  Depends: linux-base-cloud-amd64\n |Depends: linux-image-7.2.12+deb14-cloud-amd64\n  \
                    PreDepends: linux-base\n  Depends: linux-image-../../x\n";
        assert_eq!(
            parse_depends(text),
            ["linux-base-cloud-amd64", "linux-image-7.2.12+deb14-cloud-amd64"]
        );
    }

    #[test]
    fn a_kernel_is_found_where_each_debian_has_it() {
        let of = |files: &[&str]| {
            let root = tempfile::tempdir().unwrap();
            for file in files {
                let path = root.path().join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "").unwrap();
            }
            let kernel = kernel_below(root.path(), "6-x")?;
            let below = |path: &Path| path.strip_prefix(root.path()).unwrap().display().to_string();
            Some((below(&kernel.compressed), below(&kernel.modules)))
        };
        let found = |file: &str, modules: &str| Some((file.to_owned(), modules.to_owned()));
        assert_eq!(
            of(&["boot/vmlinuz-6-x", "lib/modules/6-x/modules.builtin"]),
            found("boot/vmlinuz-6-x", "lib/modules/6-x")
        );
        assert_eq!(
            of(&["boot/vmlinuz-6-x", "usr/lib/modules/6-x/modules.builtin"]),
            found("boot/vmlinuz-6-x", "usr/lib/modules/6-x")
        );
        assert_eq!(
            of(&["usr/lib/modules/6-x/vmlinuz"]),
            found("usr/lib/modules/6-x/vmlinuz", "usr/lib/modules/6-x")
        );
        assert_eq!(of(&["boot/vmlinuz-6-x", "lib/modules/5-x/modules.builtin"]), None);
        assert_eq!(of(&["usr/share/doc/linux-image-6-x/changelog.gz"]), None);
    }

    #[test]
    fn modules_say_what_they_need() {
        assert_eq!(
            depends(b"\x7fELF\0license=GPL\0depends=nfs,sunrpc\0x"),
            ["nfs", "sunrpc"]
        );
        assert!(depends(b"\0depends=\0").is_empty());
        assert_eq!(
            module_name(Path::new("kernel/drivers/char/virtio-rng.ko.xz")),
            "virtio_rng"
        );
    }

    #[test]
    fn signatures_are_taken_off() {
        let mut module = b"\x7fELFcodesignature".to_vec();
        module.extend_from_slice(&[0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
        module.extend_from_slice(b"~Module signature appended~\n");
        assert_eq!(unsigned(module), b"\x7fELFcode");
        assert_eq!(unsigned(b"plain".to_vec()), b"plain");
        // A length beyond the beginning: left alone.
        let odd = [&[255_u8; 12][..], b"~Module signature appended~\n"].concat();
        assert_eq!(unsigned(odd.clone()), odd);
    }

    proptest! {
        #[test]
        fn no_file_makes_the_reader_panic(mut image in proptest::collection::vec(any::<u8>(), 0..700)) {
            if image.len() > 0x206 {
                image[0x202..0x206].copy_from_slice(b"HdrS");
            }
            let _ = payload(&image);
            let _ = depends(&image);
        }
    }
}
