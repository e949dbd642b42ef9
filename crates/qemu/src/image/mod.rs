//! The guest image: a kernel and a first file system in memory, made from this
//! machine's own Debian packages. The same inputs give the same bytes, and the
//! image's name is their digest: it is made once.

mod cpio;
mod kernel;
mod lz4;
mod packages;

use crate::error::Error;
use cpio::{Node, Tree};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A guest image in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Digest of all that went in, in hexadecimal.
    pub digest: String,
    /// The kernel, an ELF file.
    pub kernel: PathBuf,
    /// The first file system, a cpio archive.
    pub initramfs: PathBuf,
    /// The kernel's release.
    pub kernel_release: String,
}

/// Makes the image, or finds it in the cache. Needs neither root nor, once the
/// kernel's package is in the cache, the network.
pub fn prepare(cache: &Path, agent: &Path, progress: &dyn Fn(&str)) -> Result<Image, Error> {
    let kernel = kernel::find(cache, progress)?;
    let mut tree = Tree::default();
    packages::skeleton(&mut tree);
    packages::programs(&mut tree)?;
    kernel.add_modules(&mut tree)?;
    let content = fs::read(agent).map_err(|e| Error::io("read the guests' agent", agent, e))?;
    tree.add("init", Node::File(0o755, content));
    let archive = tree.archive();

    let compressed = fs::read(&kernel.compressed).map_err(|e| Error::io("read", &kernel.compressed, e))?;
    let mut digest = Sha256::new();
    digest.update((compressed.len() as u64).to_le_bytes());
    digest.update(&compressed);
    digest.update(&archive);
    let digest = hex(&digest.finalize());

    let folder = cache.join("images").join(&digest[..32]);
    let image = Image {
        digest,
        kernel: folder.join("vmlinux"),
        initramfs: folder.join("initramfs.cpio"),
        kernel_release: kernel.release.clone(),
    };
    fs::create_dir_all(&folder).map_err(|e| Error::io("make", &folder, e))?;
    if !image.kernel.exists() {
        progress("unpacking the guests' kernel");
        place(&image.kernel, &kernel.unpack()?)?;
    }
    if !image.initramfs.exists() {
        progress(&format!("writing the guest image, {} MiB", archive.len() >> 20));
        place(&image.initramfs, &archive)?;
    }
    Ok(image)
}

/// Writes a file that is there whole or not at all.
fn place(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    let written = fs::File::create(&fresh)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&fresh, path));
    written.map_err(|e| {
        let _ = fs::remove_file(&fresh);
        Error::io("write", path, e)
    })
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
