//! `thiao guest`: the guest image as files that OpenNebula's front-end takes, and the commands for
//! that. It needs no OpenNebula, and of settings only where Slurm is, if they say. Nothing is written when something else is in the way.

use super::args::Guest;
use super::place;
use crate::guest::TEMPLATE;
use crate::shell::word as shell_word;
use anyhow::{Context as _, anyhow, bail};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use thiao_cli::output::{Printer, Tone};
use thiao_config::{ConfigError, Places, programs};
use thiao_qemu::image::authorities;

/// Whom this machine trusts, as Debian's ca-certificates writes it.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A file to be in the folder.
struct Piece {
    path: PathBuf,
    from: Source,
}

/// Where its content is.
enum Source {
    File(PathBuf),
    Text(&'static str),
}

impl Source {
    fn open(&self) -> anyhow::Result<Box<dyn Read + '_>> {
        Ok(match self {
            Self::File(path) => {
                Box::new(File::open(path).with_context(|| format!("{} cannot be read", path.display()))?)
            }
            Self::Text(text) => Box::new(text.as_bytes()),
        })
    }
}

/// What is there now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Same,
    Other,
}

pub(super) fn run(file: Option<&Path>, printer: Printer, how: &Guest) -> anyhow::Result<()> {
    let dir =
        std::path::absolute(&how.dir).with_context(|| format!("{} is no usable path", how.dir.display()))?;
    let agent = match &how.agent {
        Some(agent) => agent.clone(),
        None => {
            let thiao = std::env::current_exe().context("this program cannot find its own path")?;
            programs::find(&thiao, "thiao-guest")?
        }
    };
    let places = match thiao_config::places(file) {
        // It is made without settings, too.
        Err(ConfigError::Unreadable { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
            Places::default()
        }
        read => read?,
    };
    let slurm = thiao_config::installed(places.slurm_bin_dir.as_deref(), &places.slurm_plugin_dirs);
    let authorities = trusted(Path::new(SYSTEM_AUTHORITIES), &how.ca)?;
    let say = |words: &str| thiao_cli::tell!("{words}");
    if authorities.is_none() {
        say(&format!(
            "there is no {SYSTEM_AUTHORITIES}: these guests trust no https, OneGate's neither"
        ));
    }
    let image = thiao_qemu::image::prepare(
        &how.cache_dir,
        &agent,
        slurm.as_ref(),
        authorities.as_deref(),
        &say,
    )
    // The error's own text has its cause already.
    .map_err(|error| {
        anyhow!(
            "the guest image cannot be made (cache {}; --cache-dir names another): {error}",
            how.cache_dir.display()
        )
    })?;
    let piece = |name: &str, from: Source| Piece {
        path: dir.join(name),
        from,
    };
    let pieces = [
        piece("vmlinuz", Source::File(image.compressed)),
        piece("initrd", Source::File(image.initramfs)),
        piece("thiao-guest.one", Source::Text(TEMPLATE)),
    ];
    let found = pieces
        .iter()
        .map(|piece| Ok((piece, look(piece)?)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let other: Vec<String> = found
        .iter()
        .filter(|(_, found)| *found == Found::Other)
        .map(|(piece, _)| piece.path.display().to_string())
        .collect();
    if !other.is_empty() && !how.force {
        bail!(
            "nothing was written: {} there already, and not the same; check, then repeat with --force, or \
             name another folder",
            match other.as_slice() {
                [one] => format!("{one} is"),
                many => format!("{} are", many.join(", ")),
            }
        );
    }
    let mut report = format!("Guest with kernel {}:\n", image.kernel_release);
    for (piece, found) in found {
        let (verb, tone) = match found {
            Found::Same => ("is right", Tone::Faint),
            Found::Nothing => ("new", Tone::Good),
            Found::Other => ("replaced", Tone::Busy),
        };
        if found != Found::Same {
            write(piece)?;
        }
        // Writing to a String cannot fail.
        let _ = writeln!(
            report,
            "{} {}",
            printer.toned(&format!("{verb:<9}"), tone),
            thiao_cli::output::clean(&piece.path.to_string_lossy())
        );
    }
    report.push('\n');
    report.push_str(&advice(&dir));
    Ok(printer.print(&report)?)
}

/// The certificates that guests trust, in PEM: this machine's, and those of a site's own authorities.
fn trusted(system: &Path, own: &[PathBuf]) -> anyhow::Result<Option<String>> {
    let mut all = Vec::new();
    let theirs = Some(system).filter(|file| file.exists());
    for file in theirs.into_iter().chain(own.iter().map(PathBuf::as_path)) {
        let pem = fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
        let read = authorities::read(&pem)
            .map_err(|why| anyhow!("{} holds no authorities to trust: {why}", file.display()))?;
        all.extend(read);
    }
    Ok((!all.is_empty()).then(|| authorities::write(&all)))
}

fn look(piece: &Piece) -> anyhow::Result<Found> {
    let path = &piece.path;
    let Some(meta) = place::present(path)? else {
        return Ok(Found::Nothing);
    };
    // A link may lead anywhere, and a pipe never ends: neither is ours.
    if !meta.is_file() {
        return Ok(Found::Other);
    }
    let mut present = Vec::new();
    let mut wanted = Vec::new();
    File::open(path)
        .and_then(|mut file| file.read_to_end(&mut present))
        .with_context(|| format!("{} cannot be read", path.display()))?;
    piece.from.open()?.read_to_end(&mut wanted)?;
    Ok(if present == wanted {
        Found::Same
    } else {
        Found::Other
    })
}

/// Readable for OpenNebula's user: it holds no secret.
fn write(piece: &Piece) -> anyhow::Result<()> {
    place::file(&piece.path, &mut piece.from.open()?)
        .with_context(|| format!("{} cannot be written", piece.path.display()))
}

/// What a person types at the front-end.
fn advice(dir: &Path) -> String {
    let path = |name: &str| shell_word(&dir.join(name).to_string_lossy());
    let (kernel, initrd, template) = (path("vmlinuz"), path("initrd"), path("thiao-guest.one"));
    format!(
        "Next, on OpenNebula's front-end, as oneadmin (its datastore for files takes them from below /var/tmp \
         only, unless its SAFE_DIRS says otherwise: copy the folder there):\n    \
         oneimage create --name thiao-guest-kernel --path {kernel} --type KERNEL -d files\n    \
         oneimage create --name thiao-guest-initrd --path {initrd} --type RAMDISK -d files\n    \
         onetemplate create {template}\n\
         Then, in thiao.toml: template = \"thiao-guest\" and a network for the nodeset.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use thiao_opennebula::syntax::Template;

    fn value<'a>(template: &'a Template, name: &'a str, sub: &str) -> &'a str {
        let mut vectors = template.vectors(name);
        let pairs = vectors.next().expect("the attribute is there");
        assert!(vectors.next().is_none(), "{name} is there once");
        pairs
            .iter()
            .find_map(|(key, value)| (key == sub).then_some(value.as_str()))
            .expect("the sub-attribute is there")
    }

    #[test]
    fn the_template_says_what_oned_and_the_guest_need() {
        let template = Template::parse(TEMPLATE).unwrap();
        template.check().unwrap();
        assert_eq!(template.get("NAME"), Some("thiao-guest"));
        assert_eq!(
            value(&template, "OS", "KERNEL_DS"),
            "$FILE[IMAGE=\"thiao-guest-kernel\", IMAGE_UNAME=\"oneadmin\"]"
        );
        assert_eq!(
            value(&template, "OS", "INITRD_DS"),
            "$FILE[IMAGE=\"thiao-guest-initrd\", IMAGE_UNAME=\"oneadmin\"]"
        );
        assert_eq!(value(&template, "OS", "MACHINE"), "pc");
        assert_eq!(value(&template, "CONTEXT", "DEV_PREFIX"), "hd");
        assert_eq!(value(&template, "NIC_DEFAULT", "MODEL"), "virtio");
        // A card of its own would keep the nodeset's network away.
        assert!(!template.has("NIC"));
        // What oned reads is what we read.
        assert_eq!(Template::parse(&template.to_text()).unwrap(), template);
    }

    #[test]
    fn guests_trust_whom_this_machine_does_and_a_sites_own() {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest/tests/data");
        let (ca, stranger) = (data.join("ca.pem"), data.join("stranger.pem"));
        let both = trusted(&ca, std::slice::from_ref(&stranger)).unwrap().unwrap();
        assert_eq!(both.matches("BEGIN CERTIFICATE").count(), 2);
        let own = trusted(Path::new("/nowhere"), &[stranger]).unwrap().unwrap();
        assert!(both.ends_with(&own), "{both}\n{own}");
        assert_eq!(trusted(Path::new("/nowhere"), &[]).unwrap(), None);
        let key = trusted(&ca, &[data.join("server.key")]).unwrap_err().to_string();
        assert!(key.contains("server.key holds no authorities"), "{key}");
        assert!(trusted(&ca, &[data.join("none.pem")]).is_err());
    }

    #[test]
    fn the_commands_name_what_the_template_names() {
        let text = advice(Path::new("/var/tmp/my guest's"));
        for line in [
            "oneimage create --name thiao-guest-kernel --path '/var/tmp/my guest'\\''s/vmlinuz' --type KERNEL -d files\n",
            "oneimage create --name thiao-guest-initrd --path '/var/tmp/my guest'\\''s/initrd' --type RAMDISK -d files\n",
            "onetemplate create '/var/tmp/my guest'\\''s/thiao-guest.one'\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert_eq!(shell_word("/var/tmp/g-1"), "/var/tmp/g-1");
    }
}
