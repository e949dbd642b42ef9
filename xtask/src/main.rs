//! Thiao's chores: `cargo xtask demo|test|inside|sim|golden|chaos|fuzz|bench|dist|install`.
//!
//! Depends on next to nothing, so that it is built in seconds; it only starts
//! cargo, apt and our own binaries.

mod chaos;
mod fuzz;
mod golden;
mod install;
mod packages;
mod report;
mod site;
mod slurm;
mod steps;
mod testing;
mod tools;

use anyhow::{Result, bail};
use packages::For;
use std::io::Write as _;
use std::process::ExitCode;

const HELP: &str = "\
Usage: cargo xtask COMMAND

  demo [--yes] [ARGS...]   Show Slurm jobs that get virtual machines of their own.
                           ARGS are those of `thiao lab demo`, e.g. --keep;
                           --job-mode: jobs of three users, each in VMs of its
                           own, as big as it asks;
                           --opennebula: VMs are made through OpenNebula's
                           XML-RPC, by a stand-in for its front-end; with
                           --people: what somebody at its console does to VMs
                           under running jobs
  demo [--yes] --site [--built]
                           Put Thiao beside a cluster that is there already, on
                           a machine with systemd of its own (systemd-nspawn),
                           by the README's steps: jobs in VMs of a built and of
                           a brought image, and on the physical node; then take
                           it away again. Ten minutes or more; needs root.
                           --built: as `dist` left it
  test [--yes] [--fast] [--slurm VERSION|all] [--fresh]
                           Run every check and test, the whole system included.
                           --fast leaves the labs with real VMs out.
                           --slurm: instead, run what another Slurm may change,
                           with 24.11 or 26.05, in a root file system of Debian
                           13 or forky. Making that takes 3 minutes; it is made
                           again after a week, or with --fresh; needs root. all:
                           everything with the machine's own Slurm, then that
  inside VERSION COMMAND [ARGS...]
                           Run a command in such a root file system
  fuzz [TARGET...] [--runs N]
                           Feed made-up input to everything that reads from
                           outside: N inputs (10000000) for each target, or for
                           those named
  chaos [--yes] [--minutes N] [--seed N]
                           Kill the controller, slurmctld, slurmds and VMs of a
                           lab at random moments for N minutes (10), under a
                           stream of jobs; then every job must complete, and
                           nothing may be left
  bench [--yes] [NAME...] [--jobs N]
                           Measure: all benches, or those named; N jobs are
                           queued and drained in job mode (200)
  sim [--seeds N] [--seed FIRST] [--hours H] [--nodes K] [--faults PROFILE]
                           Run simulated worlds where things go wrong: N of
                           them (1000), an hour each, on all cores; all
                           profiles in turn. As `thiao sim run`, and quicker
                           to build. --planted: how soon planted faults are found
  golden                   Run the planner of sharing on whole logs, and compare
                           with published and recomputed figures: the wait of
                           each job, and each column of the DFRS papers'
                           simulator. They are in the folder THIAO_TRACES, by
                           default ../shared/traces
  dist                     Put binaries and their links, manual pages,
                           completions and docs into target/dist
  install [--built] [--force] [--destdir DIR]
                           Make that, and install it on this machine, as root:
                           programs in /usr/local/bin and /usr/lib/thiao, the
                           systemd unit, manual pages, docs. --built: as
                           `dist` left it, for another user's build. Files of
                           others are left alone, unless --force says so
  install --remove         Remove all that it installed

demo, test, inside, chaos and bench name the Debian packages that are missing. As root they
install them after asking; --yes, or CI=true, answers yes. Otherwise they print
the command to run.
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    run(&args).unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}

/// Whether help is asked for, before anything else is done; what comes behind `inside` is another program's.
fn asks_for_help(command: &str, rest: &[String]) -> bool {
    let help = |word: &str| matches!(word, "-h" | "--help");
    let ours = match command {
        "inside" => &rest[..rest.len().min(1)],
        slurm::inside::ENTER | slurm::inside::ENTERED => &[],
        _ => rest,
    };
    command == "help" || help(command) || ours.iter().any(|word| help(word))
}

fn run(args: &[String]) -> Result<ExitCode> {
    let Some((command, rest)) = args.split_first() else {
        bail!("which command?\n\n{HELP}")
    };
    if asks_for_help(command, rest) {
        // A reader who leaves early is no mistake.
        let _ = std::io::stdout().write_all(HELP.as_bytes());
        return Ok(ExitCode::SUCCESS);
    }
    match command.as_str() {
        slurm::inside::ENTER => return slurm::inside::enter(rest),
        slurm::inside::ENTERED => return slurm::inside::entered(rest),
        _ => {}
    }
    let ci = std::env::var("CI").is_ok_and(|ci| ci == "true" || ci == "1");
    let yes = ci || rest.iter().any(|arg| arg == "--yes");
    let rest: Vec<String> = rest.iter().filter(|arg| *arg != "--yes").cloned().collect();
    std::env::set_current_dir(steps::root())?;
    match command.as_str() {
        "demo" if rest.iter().any(|word| word == "--site") => {
            let built = match rest.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
                ["--site"] => false,
                ["--site", "--built"] => true,
                _ => bail!("demo --site stands alone, or with --built"),
            };
            packages::ensure(yes, For::Site)?;
            site::demo(built)
        }
        "demo" => {
            packages::ensure(yes, For::Own)?;
            steps::demo(&rest)
        }
        "test" => {
            let wanted = testing::TestArgs::read(&rest)?;
            let purpose = match wanted.suites.as_slice() {
                [] => For::Own,
                [_, ..] => For::Roots,
            };
            packages::ensure(yes, purpose)?;
            testing::test(&wanted)
        }
        "inside" => match rest.as_slice() {
            [version, command @ ..] if !command.is_empty() => {
                packages::ensure(yes, For::Roots)?;
                slurm::run(version, command)
            }
            _ => bail!("inside takes a version of Slurm's and a command\n\n{HELP}"),
        },
        "fuzz" => fuzz::fuzz(&rest),
        "chaos" => {
            let chaos = chaos::Chaos::read(&rest)?;
            packages::ensure(yes, For::Own)?;
            chaos::chaos(&chaos)
        }
        "bench" => {
            packages::ensure(yes, For::Own)?;
            let (names, jobs) = steps::bench_args(&rest)?;
            steps::bench(names, jobs)
        }
        "sim" => steps::sim(&rest),
        "golden" if rest.is_empty() => golden::golden(),
        "golden" => bail!("golden takes no arguments"),
        "dist" => steps::dist(),
        "install" => install::install(&install::Wanted::read(&rest)?),
        other => bail!("there is no command {other}\n\n{HELP}"),
    }
}

#[cfg(test)]
mod tests {
    use super::asks_for_help;

    #[test]
    fn help_comes_before_anything_else() {
        let asked = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            asks_for_help(&words[0], &words[1..])
        };
        for line in [
            "help",
            "--help",
            "demo --help",
            "test --fast -h",
            "bench -h",
            "inside --help",
        ] {
            assert!(asked(line), "{line}");
        }
        for line in ["demo", "test --fast", "inside 26.05 thiao --help"] {
            assert!(!asked(line), "{line}");
        }
    }
}
