//! Reads the settings of the Thiao of 2011, `thiao.cfg`, and the VM files that they name.
//!
//! It was read by Python's `configparser`: sections in brackets, `key = value` or `key: value`, keys in any
//! case, comments after `#` and `;`. VMs were described by one file `<hostname>.one` per node
//! (`VMScriptDir`), or by one file for all (`VMTemplate`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use thiao_core::hostlist;
use thiao_core::ids::NodeName;
use thiao_core::view::Shape;
use thiao_opennebula::settings::TemplateSource;
use thiao_opennebula::syntax::Template;

/// No settings file and no VM file of 2011 is longer.
const MAX_BYTES: u64 = 1 << 20;
/// Where the hand-made parts lay when `ThiaoHome` is not given.
const USUAL_HOME: &str = "/opt/thiao";

/// Why there is nothing to take over.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file could not be read.
    #[error("{}: {error}", file.display())]
    Unreadable { file: PathBuf, error: std::io::Error },
    /// It is no `thiao.cfg`.
    #[error("{}: {why}; it should look like the thiao.cfg of 2011, with sections [Thiao] and [vm]", file.display())]
    Malformed { file: PathBuf, why: String },
}

/// What `thiao.cfg` says, as far as it still means something.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Legacy {
    /// `OneAuth`: the file with `user:password`.
    pub auth: Option<PathBuf>,
    /// `DBfile`, with `ThiaoHome` before it.
    pub database: Option<PathBuf>,
    /// `VMScriptDir`: the folder with the nodes' files.
    pub folder: Option<PathBuf>,
    /// `HostnameIsVMfile`: the folder has a file for each node.
    pub file_per_node: bool,
    /// `VMTemplate`: one file for all nodes.
    pub template: Option<PathBuf>,
    /// Keys that have no meaning any more, or never had one, with their line.
    pub others: Vec<(usize, String)>,
}

/// What was taken over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Imported {
    /// The file with `user:password`.
    pub auth: Option<PathBuf>,
    /// Nodes of one shape each.
    pub sets: Vec<ImportedSet>,
    /// What VMs are made from when no node could be found.
    pub template: Option<TemplateSource>,
    /// A VM's size, by that template.
    pub size: Option<Size>,
    /// What was taken from where, one line each.
    pub taken: Vec<String>,
    /// What is not needed any more, one line each.
    pub dropped: Vec<String>,
    /// What a person should look at, one sentence each.
    pub warnings: Vec<String>,
}

/// Nodes of one shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedSet {
    /// A name made of theirs.
    pub name: String,
    /// The nodes, as a folded hostlist.
    pub nodes: String,
    /// How big their VMs are.
    pub size: Size,
    /// The folder with their files.
    pub source: TemplateSource,
}

/// A VM's size as its file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size {
    /// `VCPU`; 1 if it is not there.
    pub cpus: u32,
    /// `CPU` by `VCPU`, in percent.
    pub share_percent: u32,
    /// What `MEMORY` says, in MiB.
    pub memory_mb: u64,
}

impl Size {
    /// The node's shape: what Slurm promises jobs is less than the VM's memory.
    #[must_use]
    pub fn shape(self, overhead_mb: u64) -> Shape {
        Shape {
            cpus: self.cpus,
            memory_mb: self.memory_mb.saturating_sub(overhead_mb).max(16),
            share_percent: self.share_percent,
        }
    }
}

impl Legacy {
    /// Reads the file's text. The error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let entries = entries(text)?;
        let value = |section: &str, key: &str| {
            let (_, value) = entries.get(&(section.to_owned(), key.to_owned()))?;
            Some(filled(value, |name| {
                entries
                    .get(&(section.to_owned(), name.to_owned()))
                    .map(|(_, value)| value.clone())
            }))
            .filter(|value| !value.is_empty())
        };
        let home = PathBuf::from(value("thiao", "thiaohome").unwrap_or_else(|| USUAL_HOME.to_owned()));
        // Without the odd `/` at its end.
        let path = |section, key| value(section, key).map(|text| home.join(text).components().collect());
        let known = [
            ("thiao", "oneauth"),
            ("vm", "vmscriptdir"),
            ("vm", "hostnameisvmfile"),
            ("vm", "vmtemplate"),
        ];
        if entries.is_empty() {
            return Err("nothing is set in it".to_owned());
        }
        let mut others: Vec<(usize, String)> = entries
            .iter()
            .filter(|((section, key), _)| !known.contains(&(section.as_str(), key.as_str())))
            .map(|((section, key), (line, value))| (*line, format!("[{section}] {key} = {value}")))
            .collect();
        others.sort();
        Ok(Self {
            // In thiao.h it was written as for the environment.
            auth: value("thiao", "oneauth")
                .map(|text| home.join(text.strip_prefix("ONE_AUTH=").unwrap_or(&text))),
            database: path("thiao", "dbfile"),
            folder: path("vm", "vmscriptdir"),
            file_per_node: value("vm", "hostnameisvmfile").is_some_and(|word| is_yes(&word)),
            template: path("vm", "vmtemplate"),
            others,
        })
    }
}

/// Whether configparser's `getboolean` takes it for true.
fn is_yes(word: &str) -> bool {
    ["1", "yes", "true", "on"]
        .iter()
        .any(|yes| word.eq_ignore_ascii_case(yes))
}

type Entries = BTreeMap<(String, String), (usize, String)>;

/// All values by section and key, both in small letters, with their line.
fn entries(text: &str) -> Result<Entries, String> {
    let mut section: Option<String> = None;
    let mut entries = Entries::new();
    for (n, line) in text.lines().enumerate().map(|(n, line)| (n + 1, line)) {
        let line = uncommented(line.trim_start_matches('\u{feff}')).trim();
        if line.is_empty() {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            let name = name
                .strip_suffix(']')
                .ok_or_else(|| format!("line {n}: the section's ] is missing"))?;
            section = Some(name.trim().to_ascii_lowercase());
            continue;
        }
        let (key, value) = line
            .split_once(['=', ':'])
            .ok_or_else(|| format!("line {n} is neither a section nor key = value"))?;
        let section = section
            .clone()
            .ok_or_else(|| format!("line {n} is in no section"))?;
        let key = key.trim().to_ascii_lowercase();
        let value = value.trim().trim_matches('"').to_owned();
        // configparser refuses what is there twice.
        if let Some((first, _)) = entries.insert((section, key.clone()), (n, value)) {
            return Err(format!("line {n}: {key} is in line {first} already"));
        }
    }
    Ok(entries)
}

/// The line without its comment: one that begins the line, or follows a blank.
fn uncommented(line: &str) -> &str {
    let begins = |(at, c): (usize, char)| {
        let blank = line[..at].chars().next_back().is_none_or(char::is_whitespace);
        (matches!(c, '#' | ';') && blank).then_some(at)
    };
    line.char_indices()
        .find_map(begins)
        .map_or(line, |at| &line[..at])
}

/// The value with `%(key)s` replaced, once, as configparser does.
fn filled(value: &str, of: impl Fn(&str) -> Option<String>) -> String {
    let mut text = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once("%(") {
        text.push_str(before);
        match after.split_once(")s") {
            Some((name, behind)) => {
                match of(&name.trim().to_ascii_lowercase()) {
                    Some(found) => text.push_str(&found),
                    // Writing to a String cannot fail.
                    None => _ = write!(text, "%({name})s"),
                }
                rest = behind;
            }
            None => {
                text.push_str("%(");
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text.replace("%%", "%")
}

/// Reads `thiao.cfg` and the files that it names.
///
/// # Errors
/// When it cannot be read or is none. What it names may be missing: that is a warning.
pub fn read(file: &Path) -> Result<Imported, ImportError> {
    let text = text_of(file).map_err(|error| ImportError::Unreadable {
        file: file.to_owned(),
        error,
    })?;
    let legacy = Legacy::parse(&text).map_err(|why| ImportError::Malformed {
        file: file.to_owned(),
        why,
    })?;
    let mut imported = Imported::default();
    for (line, entry) in &legacy.others {
        imported
            .dropped
            .push(format!("{}:{line}: {entry}", file.display()));
    }
    if let Some(auth) = &legacy.auth {
        imported
            .taken
            .push(format!("auth = {} from OneAuth", auth.display()));
        imported.warnings.extend(about_auth(auth));
        imported.auth = Some(auth.clone());
    }
    if let Some(database) = &legacy.database
        && database.metadata().is_ok_and(|meta| meta.mode() & 0o002 != 0)
    {
        imported.warnings.push(format!(
            "everybody may write to {}, the database of 2011: nothing is taken from it; remove it (rm {0})",
            database.display()
        ));
    }
    if legacy.file_per_node {
        match &legacy.folder {
            Some(folder) => per_node(&legacy, folder, &mut imported),
            None => imported
                .warnings
                .push("HostnameIsVMfile is set, but no VMScriptDir".to_owned()),
        }
    }
    if imported.sets.is_empty()
        && let Some(template) = &legacy.template
    {
        for_all(template, &mut imported);
    } else if let Some(template) = &legacy.template {
        imported.dropped.push(format!(
            "[vm] vmtemplate = {}: each node has its own file",
            template.display()
        ));
    }
    if imported.sets.is_empty() && imported.template.is_none() {
        imported
            .warnings
            .push("no VM file was found: name a template and the nodes yourself".to_owned());
    }
    Ok(imported)
}

fn text_of(file: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(file)?
        .take(MAX_BYTES)
        .read_to_end(&mut bytes)?;
    // Comments of 2011 may be in Latin-1.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn about_auth(auth: &Path) -> Option<String> {
    match auth.metadata() {
        Err(error) => Some(format!("{}: {error}", auth.display())),
        Ok(meta) if meta.mode() & 0o077 != 0 => Some(format!(
            "users other than its owner may read or write {}: chmod 600 {0}",
            auth.display()
        )),
        Ok(_) => None,
    }
}

/// One nodeset for each shape among the folder's `<hostname>.one`.
fn per_node(legacy: &Legacy, folder: &Path, imported: &mut Imported) {
    let listed = match std::fs::read_dir(folder) {
        Ok(listed) => listed,
        Err(error) => {
            imported.warnings.push(format!("{}: {error}", folder.display()));
            return;
        }
    };
    let mut files: Vec<PathBuf> = listed
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ext| ext == "one"))
        .collect();
    files.sort();
    let mut by_size: BTreeMap<Size, Vec<NodeName>> = BTreeMap::new();
    for file in files {
        // The file for all lies beside those for each.
        if legacy.template.as_ref() == Some(&file) {
            continue;
        }
        let name = file
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default();
        let node = match NodeName::new(name) {
            Ok(node) if !name.contains('.') => node,
            Ok(_) | Err(_) => {
                imported.warnings.push(format!(
                    "{}: {name:?} is not a host name: left out",
                    file.display()
                ));
                continue;
            }
        };
        match size_of(&file) {
            Ok(size) => by_size.entry(size).or_default().push(node),
            Err(why) => imported
                .warnings
                .push(format!("{}: {why}: {node} is left out", file.display())),
        }
    }
    let mut names: Vec<String> = Vec::new();
    for (size, nodes) in by_size {
        let name = set_name(&nodes, &names);
        let folded = hostlist::fold(&nodes);
        imported.taken.push(format!(
            "nodeset {name}: {folded}, {} CPUs of {} %, {} MiB, from {}/NODE.one",
            size.cpus,
            size.share_percent,
            size.memory_mb,
            folder.display()
        ));
        names.push(name.clone());
        imported.sets.push(ImportedSet {
            name,
            nodes: folded,
            size,
            source: TemplateSource::PerNode(folder.to_owned()),
        });
    }
}

/// The letters that the first node's name begins with; a number behind them where that is taken.
fn set_name(nodes: &[NodeName], taken: &[String]) -> String {
    let prefix: String = nodes
        .first()
        .map(NodeName::as_str)
        .unwrap_or_default()
        .trim_end_matches(|c: char| c.is_ascii_digit())
        .trim_end_matches(['-', '_'])
        .to_owned();
    let base = if prefix.is_empty() {
        "vms".to_owned()
    } else {
        prefix
    };
    let numbered = (2..).map(|n| format!("{base}-{n}"));
    std::iter::once(base.clone())
        .chain(numbered)
        .find(|name| !taken.contains(name))
        .unwrap_or(base)
}

/// One file for all nodes.
fn for_all(template: &Path, imported: &mut Imported) {
    match size_of(template) {
        Ok(size) => {
            imported.taken.push(format!(
                "template_file = {}, {} CPUs of {} %, {} MiB, from VMTemplate",
                template.display(),
                size.cpus,
                size.share_percent,
                size.memory_mb
            ));
            imported.size = Some(size);
            imported.template = Some(TemplateSource::File(template.to_owned()));
        }
        Err(why) => imported.warnings.push(format!("{}: {why}", template.display())),
    }
}

/// What a VM file says of its size.
fn size_of(file: &Path) -> Result<Size, String> {
    let text = text_of(file).map_err(|error| error.to_string())?;
    let template = Template::parse(&text).map_err(|error| error.to_string())?;
    size(&template)
}

fn size(template: &Template) -> Result<Size, String> {
    let memory_mb = match template.get("MEMORY") {
        None => return Err("it has no MEMORY".to_owned()),
        Some(text) => text
            .parse::<u64>()
            .ok()
            .filter(|mb| (16..=1 << 24).contains(mb))
            .ok_or_else(|| format!("MEMORY is {text:?}, not a number of MiB"))?,
    };
    let cpus = match template.get("VCPU") {
        None => 1,
        Some(text) => text
            .parse::<u32>()
            .ok()
            .filter(|n| (1..=1024).contains(n))
            .ok_or_else(|| format!("VCPU is {text:?}, not a number of CPUs"))?,
    };
    let share = match template.get("CPU") {
        // OpenNebula asks for it since 4.0; before, one was meant.
        None => 1.0,
        Some(text) => text
            .parse::<f64>()
            .ok()
            .filter(|share| *share > 0.0 && *share <= 1024.0)
            .ok_or_else(|| format!("CPU is {text:?}, not a share of cores"))?,
    };
    // More than a whole core for each vCPU gives it nothing more.
    let percent = (share * 100.0 / f64::from(cpus)).round().clamp(1.0, 100.0);
    Ok(Size {
        cpus,
        share_percent: percent as u32,
        memory_mb,
    })
}

#[cfg(test)]
mod tests;
