//! `tsub`, `thiao submit`: sbatch, with options for the job's own VMs.
//!
//! Slurm's options are sbatch's alone to read: our words are taken out of what
//! was typed, and this process becomes sbatch with the rest.

use anyhow::Context as _;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use thiao_api::JobNames;
use thiao_api::client::Client;
use thiao_cli::exit::Malformed;
use thiao_cli::output::Printer;
use thiao_config::{ConfigError, Places};
use thiao_core::options::{VARIABLE, VmOptions};

/// What `tsub --help` says.
pub(super) const HELP: &str = "\
Submit a job as sbatch does, with options for the job's own VMs

Usage: tsub [sbatch's options] [--vm-...] SCRIPT [ARGS...]
       tsub [--vm-...] JOBID
       thiao submit ... (the same)

All of sbatch's options work, in every form: this program becomes sbatch (see
`man sbatch`; `tsub --usage` lists them). It adds:

      --vm-template NAME    another VM template than the partition's
      --vm-image NAME       another image for the first disc
      --vm-share PERCENT    the share of a core for each CPU, 1 to 100
      --vm-keep-on-failure  keep the VMs for a while if the job fails
  -h, --help                print this

Your administrator says who may use them in which partition. NAME and PERCENT
may also follow a '='. All words that begin with --vm- are taken, wherever they
stand, up to a word `--` or the job's script: the first word that does not begin
with '-' and is the path of a file that begins with '#!'. What follows belongs
to the script. So it is safest to write the options for VMs first.

With JOBID (17; 17_3 for a task of an array) a job that is already queued gets
VMs of its own. If there is a file of that name, it is the script.

If the controller does not answer, tsub says so, and queues the job anyway. Exit
codes are sbatch's; 2: a --vm- option makes no sense.
";

/// How long the controller may take to let us in before it is said to be away.
const PATIENCE: Duration = Duration::from_millis(200);

/// What begins our words.
const OURS: &[u8] = b"--vm-";

/// The words after the program's name or `submit`, and the settings file that was named
/// before, if these arguments are for us. The parser of the other commands must not see them.
pub(super) fn called(args: &[OsString]) -> Option<(Option<PathBuf>, &[OsString])> {
    let (program, mut rest) = args.split_first()?;
    let environment = std::env::var_os("THIAO_CONFIG").filter(|file| !file.is_empty());
    let mut file = environment.map(PathBuf::from);
    if Path::new(program).file_name() == Some("tsub".as_ref()) {
        return Some((file, rest));
    }
    loop {
        let (word, after) = rest.split_first()?;
        rest = if word == "submit" {
            return Some((file, after));
        } else if word == "--config" {
            let (named, after) = after.split_first()?;
            file = Some(named.into());
            after
        } else {
            let named = word.as_bytes().strip_prefix(b"--config=")?;
            file = Some(OsStr::from_bytes(named).into());
            after
        };
    }
}

/// Becomes sbatch; or gives a queued job VMs, and returns.
pub(super) fn run(file: Option<&Path>, words: &[OsString]) -> anyhow::Result<()> {
    let Taken { options, help, rest } = take(words, is_script).map_err(Malformed)?;
    if help {
        return Ok(Printer::stdout().print(HELP)?);
    }
    let places = places(file)?;
    let client = Client::new(&places.state_dir);
    if let Some(jobs) = queued(&rest) {
        for job in jobs.each() {
            let accepted = client.give(*job, &options)?;
            Printer::stdout().say(&accepted.message)?;
        }
        return Ok(());
    }
    let (sbatch, mut command) = slurm_program(&places, "sbatch")?;
    if client.is_absent(PATIENCE) {
        thiao_cli::tell!(
            "thiao: the controller does not answer: the job is queued, and gets its VMs when the controller is back"
        );
    }
    command.args(rest).env(VARIABLE, options.to_string());
    // Returns only if it fails.
    Err(command.exec()).with_context(|| format!("{} cannot be run", sbatch.display()))
}

/// A program of Slurm's, to become it, and its path: it asks the slurmctld of these settings, unless the user has named
/// another.
pub(super) fn slurm_program(places: &Places, name: &str) -> anyhow::Result<(PathBuf, Command)> {
    let path = thiao_slurm::find(name, places.slurm_bin_dir.as_deref())?;
    let mut command = Command::new(&path);
    command.arg0(name);
    if let Some(conf) = &places.slurm_conf
        && std::env::var_os("SLURM_CONF").is_none()
    {
        command.env("SLURM_CONF", conf);
    }
    Ok((path, command))
}

/// Users may not be let read the settings: then the default places hold. A file that was
/// named must be readable: it may be about another cluster.
pub(super) fn places(file: Option<&Path>) -> Result<Places, ConfigError> {
    match thiao_config::places(file) {
        Err(ConfigError::Unreadable { error, .. })
            if file.is_none() && error.kind() == io::ErrorKind::PermissionDenied =>
        {
            Ok(Places::default())
        }
        read => read,
    }
}

/// What was typed, our words taken out.
#[derive(Debug, PartialEq, Eq)]
struct Taken {
    options: VmOptions,
    help: bool,
    /// What sbatch gets, as typed.
    rest: Vec<OsString>,
}

/// Takes our words out of those before the script. What separates the script from the value
/// of an option only sbatch knows; so it is looked at what could be a script.
fn take(words: &[OsString], is_script: impl Fn(&OsStr) -> bool) -> Result<Taken, String> {
    let mut options: Vec<String> = Vec::new();
    let (mut help, mut rest) = (false, Vec::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if let Some(name) = word.as_bytes().strip_prefix(OURS) {
            options.push(option(name, &mut words)?);
            continue;
        }
        help |= word == "-h" || word == "--help";
        rest.push(word.clone());
        if word == "--" || !word.as_bytes().starts_with(b"-") && is_script(word) {
            break;
        }
    }
    rest.extend(words.cloned());
    Ok(Taken {
        options: VmOptions::parse(&options.join(" ")).map_err(typed)?,
        help,
        rest,
    })
}

/// One of our options as the controller reads it: `--vm-NAME`, and its value if it takes one.
fn option<'a>(name: &[u8], words: &mut impl Iterator<Item = &'a OsString>) -> Result<String, String> {
    let text = String::from_utf8_lossy(name);
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (&*text, None),
    };
    match (name, value) {
        ("keep-on-failure", None) => Ok(name.to_owned()),
        ("keep-on-failure", Some(_)) => Err(format!("--vm-{name} takes no value")),
        ("template" | "image" | "share", value) => {
            let next = || words.next().map(|word| word.to_string_lossy().into_owned());
            let value = value
                .or_else(next)
                .filter(|value| !value.is_empty() && !value.starts_with('-'))
                .ok_or_else(|| format!("--vm-{name} needs a value"))?;
            match value.contains(|c: char| c.is_ascii_whitespace()) {
                true => Err(format!("--vm-{name} {value:?}: a value can have no spaces")),
                false => Ok(format!("{name}={value}")),
            }
        }
        _ => Err(format!(
            "there is no option --vm-{name}: there are --vm-template, --vm-image, --vm-share and \
             --vm-keep-on-failure (see `tsub --help`)"
        )),
    }
}

/// A complaint about `share=0` as one about what was typed.
fn typed(complaint: String) -> String {
    format!("--vm-{complaint}")
}

/// Whether sbatch would take it for a script: it wants `#!` at its start.
fn is_script(word: &OsStr) -> bool {
    // Not of a pipe or a device: opening it could wait, or take what is for sbatch.
    let regular = Path::new(word).metadata().is_ok_and(|meta| meta.is_file());
    let mut start = [0; 2];
    regular
        && File::open(word)
            .and_then(|mut file| file.read_exact(&mut start))
            .is_ok()
        && start == *b"#!"
}

/// The queued job that is named, if it is nothing else.
fn queued(rest: &[OsString]) -> Option<JobNames> {
    match rest {
        [word] if Path::new(word).symlink_metadata().is_err() => word.to_str()?.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_is_as_wide_as_a_terminal() {
        let wide: Vec<&str> = HELP.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(wide.is_empty(), "{wide:#?}");
    }

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    fn taken(text: &str) -> Result<(String, String), String> {
        let taken = take(&words(text), |word| word.as_bytes().ends_with(b".sh"))?;
        let rest: Vec<_> = taken.rest.iter().map(|word| word.to_str().unwrap()).collect();
        Ok((taken.options.to_string(), rest.join(" ")))
    }

    #[track_caller]
    fn good(text: &str, options: &str, rest: &str) {
        assert_eq!(taken(text), Ok((options.to_owned(), rest.to_owned())), "{text}");
    }

    #[test]
    fn our_words_are_taken_out_and_the_others_left() {
        good("", "", "");
        good("job.sh a b", "", "job.sh a b");
        good("--vm-share 50 job.sh", "share=50", "job.sh");
        good("--vm-share=50 job.sh", "share=50", "job.sh");
        good(
            "-n2 --vm-image=i -o out.txt --vm-template t --mem 5 --vm-keep-on-failure job.sh -x",
            "template=t image=i keep-on-failure",
            "-n2 -o out.txt --mem 5 job.sh -x",
        );
        good("--wrap hostname --vm-share=50", "share=50", "--wrap hostname");
        good("-n1 --vm-share=5 : -n2 job.sh", "share=5", "-n1 : -n2 job.sh");
    }

    #[test]
    fn what_follows_the_script_is_the_scripts() {
        good("job.sh --vm-share=50 --help", "", "job.sh --vm-share=50 --help");
        good("-- --vm-share=50", "", "-- --vm-share=50");
        good("--vm-share=9 -- job.sh --vm-x", "share=9", "-- job.sh --vm-x");
        // Not to be told apart from a script: sbatch will say that it does not know ours.
        good(
            "-o old.sh --vm-share=50 job.sh",
            "",
            "-o old.sh --vm-share=50 job.sh",
        );
        // No words of ours.
        good(
            "-vm-share=5 --vmx --vm job.sh",
            "",
            "-vm-share=5 --vmx --vm job.sh",
        );
    }

    #[test]
    fn options_that_make_no_sense_are_refused() {
        for (text, part) in [
            ("--vm-shares=5", "there is no option --vm-shares"),
            ("--vm-", "there is no option --vm-:"),
            ("--vm-share", "--vm-share needs a value"),
            ("--vm-share=", "--vm-share needs a value"),
            ("--vm-template --vm-share=5", "--vm-template needs a value"),
            ("--vm-share=0 job.sh", "--vm-share=0 is not a percentage"),
            ("--vm-share=5 --vm-share=6", "--vm-share is there twice"),
            ("--vm-image=a/b", "--vm-image=a/b: use"),
            ("--vm-keep-on-failure=yes", "takes no value"),
        ] {
            let refused = taken(text).unwrap_err();
            assert!(refused.contains(part), "{text}: {refused}");
        }
        let sneaky = [OsString::from("--vm-template=a share=100")];
        let refused = take(&sneaky, |_| false).unwrap_err();
        assert!(refused.contains("no spaces"), "{refused}");
    }

    #[test]
    fn a_job_is_named_by_one_word_that_is_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("17");
        assert!(queued(&words("17")).is_some() && queued(&words("17_3")).is_some());
        assert_eq!(queued(&words("17_[1-2]")).unwrap().each().len(), 2);
        for other in ["", "17 18", "-n 17", "job.sh", "17_", "17_[2-1]"] {
            assert_eq!(queued(&words(other)), None, "{other}");
        }
        File::create(&file).unwrap();
        assert_eq!(queued(&[file.into()]), None);
    }

    #[test]
    fn scripts_begin_as_sbatch_wants_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            is_script(path.as_os_str())
        };
        assert!(file("a", "#!/bin/sh\n"));
        assert!(!file("b", "echo\n") && !file("c", "#") && !file("d", ""));
        assert!(!is_script(dir.path().as_os_str()) && !is_script(OsStr::new("/dev/zero")));
        assert!(!is_script(OsStr::new("/no/such/file")));
    }

    #[test]
    fn the_words_are_found_whatever_it_is_called() {
        let found =
            |text: &str| called(&words(text)).map(|(file, rest)| (file.unwrap_or_default(), rest.len()));
        let none = PathBuf::from(std::env::var_os("THIAO_CONFIG").unwrap_or_default());
        assert_eq!(found("/usr/bin/tsub --config x"), Some((none.clone(), 2)));
        assert_eq!(found("thiao submit --version"), Some((none, 1)));
        assert_eq!(found("thiao --config f submit a b"), Some(("f".into(), 2)));
        assert_eq!(found("thiao --config=f submit"), Some(("f".into(), 0)));
        for other in [
            "thiao",
            "thiao jobs submit",
            "thiao --config",
            "thiao --config f",
            "thiao -h submit",
        ] {
            assert_eq!(found(other), None, "{other}");
        }
    }
}
