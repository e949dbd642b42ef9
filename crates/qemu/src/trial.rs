//! An image of the site's own, started once and asked what is in it: by cloud-init, as its VMs will be told.

use crate::accel;
use crate::context_disk::write_disk;
use crate::error::Error;
use crate::image::{Brought, System};
use crate::machine::{Accel, Machine, Memory, Start};
use crate::process;
use crate::seed;
use crate::vmdir::CONSOLE_FILE;
use serde_json::json;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// How each answer begins on the console.
pub const MARK: &str = "thiao-check:";

/// What is asked, by a shell of the image's. It is one text that nothing is put into.
const QUESTIONS: &str = "\
say() { echo \"thiao-check: $*\" > /dev/ttyS0; }\n\
say kernel \"$(uname -r)\"\n\
say system \"$(. /etc/os-release && echo \"$PRETTY_NAME\")\"\n\
for name in systemctl slurmd slurmstepd srun scontrol munged useradd; do\n\
    if command -v $name > /dev/null; then say has $name; else say lacks $name; fi\n\
done\n\
say slurm \"$(slurmd -V 2>&1)\"\n\
say slurm_uid \"$(id -u slurm 2>&1)\"\n\
say cgroup \"$(stat -fc %T /sys/fs/cgroup 2>&1)\"\n\
modprobe nfsv3 2> /dev/null && say has nfs || say lacks nfs\n\
say end\n\
sync; systemctl poweroff --force --force\n";

/// The memory of the machine, in MiB: cloud-init takes about 200.
const MEMORY_MB: u64 = 768;

/// What an image's console showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    /// The answers, without [`MARK`].
    pub lines: Vec<String>,
    /// The last words of the console, for one that did not answer.
    pub last_words: String,
    /// How long it took.
    pub took: Duration,
}

/// Starts it on a throw-away disk and asks; nothing of it stays. `work` is an empty folder.
///
/// # Errors
/// When it cannot be started. One that does not answer within `limit`, or until `stop` says so, is no error.
pub fn ask(
    image: &Brought,
    cache: &Path,
    work: &Path,
    limit: Duration,
    stop: &dyn Fn() -> bool,
) -> Result<Answers, Error> {
    let system = System::Brought(image.clone());
    system.lay_over(work)?;
    let user_data = json!({ "users": [], "locale": false, "runcmd": [["sh", "-c", QUESTIONS]] });
    write_disk(
        work,
        &seed::seed("thiao-check", "thiao-check", &user_data.to_string(), None)?,
    )?;
    let known = accel::remembered(cache);
    let machine = Machine {
        name: "thiao-check".into(),
        cpus: 1,
        memory_mb: MEMORY_MB,
        accel: known.as_ref().map_or(Accel::Tcg, |choice| choice.accel),
        tsc_khz: known.map_or(0, |choice| choice.tsc_khz),
        memory: Memory::Private,
        start: Start::Asked,
        mac: [0; 6],
        tap: None,
    };
    let started = Instant::now();
    let mut child = process::foreground(work, system.file_limit()?)?
        .args(machine.arguments(&system, work))
        .stdin(Stdio::null())
        .spawn()
        .map_err(|e| Error::io("run", Path::new(crate::machine::PROGRAM), e))?;
    let console = work.join(CONSOLE_FILE);
    let said = || String::from_utf8_lossy(&fs::read(&console).unwrap_or_default()).into_owned();
    let over = |text: &str| answers(text).iter().any(|line| line == "end");
    while started.elapsed() < limit && !stop() && !over(&said()) && matches!(child.try_wait(), Ok(None)) {
        std::thread::sleep(Duration::from_millis(100));
    }
    let took = started.elapsed();
    let _ = child.kill();
    let _ = child.wait();
    Ok(Answers {
        lines: answers(&said()),
        last_words: process::tail(&console),
        took,
    })
}

/// The answers in what a console showed, which has words of others on the same lines.
fn answers(console: &str) -> Vec<String> {
    let after = |line: &str| Some(line.split_once(MARK)?.1.trim().to_owned());
    console.lines().filter_map(after).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn answers_stand_among_other_words() {
        let text = "login: [ 3.1] x thiao-check: has slurmd\r\nthiao-check: end\r\nbye\n";
        assert_eq!(answers(text), ["has slurmd", "end"]);
    }

    proptest! {
        #[test]
        fn no_console_makes_the_reader_panic(text in "(?s).{0,200}") {
            answers(&text);
        }
    }
}
