//! Our hostlists against the real `scontrol`, on thousands of random
//! expressions. No slurmctld is needed for these commands of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeSet;
use std::io::{ErrorKind, Write as _};
use std::process::{Command, Stdio};
use thiao_core::hostlist::{expand, fold};
use thiao_core::ids::NodeName;

/// A generator of one's own, so that each run tries the same.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }

    /// Well-formed, with everything that a list can have.
    fn list(&mut self) -> String {
        let names: Vec<String> = (0..=self.below(5)).map(|_| self.name()).collect();
        names.join(",")
    }

    fn name(&mut self) -> String {
        let start = self
            .pick(&["a", "a", "b", "fg", "vm-", "B", "a1b", "a01b", "a10b", "n.x_"])
            .to_owned();
        // A number for each 0, ranges for each #.
        let rest = self.pick(&[
            "", "0", "0", "0", "#", "#", "#", "#b#", "##", "#-c#", "#x#2y#", "0-#",
        ]);
        rest.chars().fold(start, |name, part| match part {
            '0' => name + &self.number(130),
            '#' => name + &self.ranges(),
            text => format!("{name}{text}"),
        })
    }

    fn ranges(&mut self) -> String {
        let ranges: Vec<String> = (0..=self.below(3))
            .map(|_| {
                let low = self.number(110);
                match self.below(2) {
                    0 => low,
                    _ => format!(
                        "{low}-{:01$}",
                        low.parse::<u64>().unwrap() + self.below(6),
                        low.len()
                    ),
                }
            })
            .collect();
        format!("[{}]", ranges.join(","))
    }

    fn number(&mut self, end: u64) -> String {
        let width: usize = self.pick(&["1", "1", "1", "2", "3"]).parse().unwrap();
        format!("{:0width$}", self.below(end))
    }

    /// The list with a few bytes changed, taken out or put in.
    fn damaged(&mut self) -> String {
        let mut text = self.list();
        for _ in 0..=self.below(2) {
            let start = usize::try_from(self.below(text.len() as u64 + 1)).unwrap();
            let end = text.len().min(start + usize::try_from(self.below(2)).unwrap());
            let new = self.pick(&["", "a", "0", "3", "[", "]", ",", "-", ":", "x", "+", "/"]);
            text.replace_range(start..end, new);
        }
        text
    }
}

/// What `scontrol show WHAT EXPRESSION` prints for each; no lines for what it refuses.
/// One process for all: it reads commands from its input. Nothing if the test is to be skipped.
fn scontrol(what: &str, expressions: &[String]) -> Option<Vec<Vec<String>>> {
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("slurm.conf");
    std::fs::write(
        &conf,
        "ClusterName=none\nSlurmctldHost=localhost\nNodeName=n\nPartitionName=p Nodes=n\n",
    )
    .unwrap();
    let spawned = Command::new("scontrol")
        .env("SLURM_CONF", conf)
        // Readline scrolls lines that are wider than the terminal.
        .env("TERM", "dumb")
        .env("COLUMNS", "1000")
        .env("INPUTRC", "/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let skip = std::env::var_os("THIAO_SKIP_SLURM").is_some_and(|value| value == "1");
            assert!(
                skip,
                "scontrol is missing: install the package slurm-client, or set THIAO_SKIP_SLURM=1"
            );
            eprintln!("skipped: no scontrol");
            return None;
        }
        Err(error) => panic!("scontrol: {error}"),
    };
    let mut input = child.stdin.take().unwrap();
    let marked = |index| format!("end.of.{index}.end");
    let mut commands = String::new();
    for (index, expression) in expressions.iter().enumerate() {
        let mut argument = expression.clone();
        if what != "hostnames" {
            // These can come by a file too; that is much faster for long ones.
            let file = dir.path().join(index.to_string());
            std::fs::write(&file, expression).unwrap();
            argument = file.to_str().unwrap().to_owned();
        }
        commands += &format!("show {what} {argument}\nshow hostnames {}\n", marked(index));
    }
    let writer = std::thread::spawn(move || input.write_all(commands.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();

    let text = String::from_utf8(output.stdout).unwrap();
    // Built with readline it repeats each command behind its prompt, on a line of its own.
    let lines = text.lines().map(|line| line.trim_start_matches("scontrol: "));
    let mut lines = lines.filter(|line| !line.starts_with("show "));
    let one = |index| {
        lines
            .by_ref()
            .take_while(|line| *line != marked(index))
            .map(str::to_owned)
            .collect()
    };
    let answers: Vec<Vec<String>> = (0..expressions.len()).map(one).collect();
    assert!(
        lines.next().is_none_or(str::is_empty),
        "more answers than questions"
    );
    Some(answers)
}

fn texts(names: &[NodeName]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn set(names: &[NodeName]) -> BTreeSet<&NodeName> {
    names.iter().collect()
}

fn lists(seed: u64, count: usize) -> Vec<String> {
    let mut random = Random(seed);
    (0..count).map(|_| random.list()).collect()
}

#[test]
fn expands_as_scontrol_show_hostnames_does() {
    let lists = lists(0x5EED, 4000);
    let Some(answers) = scontrol("hostnames", &lists) else {
        return;
    };
    for (list, answer) in lists.iter().zip(answers) {
        assert_eq!(texts(&expand(list).unwrap()), answer, "{list}");
    }
}

#[test]
fn what_we_accept_of_damaged_lists_means_the_same_to_scontrol() {
    let mut random = Random(0xDA3A);
    let damaged: Vec<String> = (0..6000).map(|_| random.damaged()).collect();
    let Some(answers) = scontrol("hostnames", &damaged) else {
        return;
    };
    let (mut accepted, mut refused_by_both, mut by_us) = (0, 0, 0);
    for (list, answer) in damaged.iter().zip(answers) {
        match expand(list) {
            Ok(names) => {
                assert_eq!(texts(&names), answer, "{list}");
                accepted += 1;
            }
            Err(_) if answer.is_empty() => refused_by_both += 1,
            Err(_) => by_us += 1,
        }
    }
    println!("{accepted} accepted, {refused_by_both} refused by both, {by_us} by us alone");
    assert!(
        accepted > 500 && refused_by_both > 500,
        "the damage is too great or too small to show anything"
    );
}

#[test]
fn folds_as_scontrol_show_hostlistsorted_does() {
    let lists = lists(0xF01D, 2000);
    let folded: Vec<String> = lists.iter().map(|list| fold(&expand(list).unwrap())).collect();

    // Each name once and in our order: the very same text.
    let names: Vec<String> = folded
        .iter()
        .map(|list| texts(&expand(list).unwrap()).join(","))
        .collect();
    let Some(answers) = scontrol("hostlistsorted", &names) else {
        return;
    };
    for (list, answer) in folded.iter().zip(answers) {
        assert_eq!(std::slice::from_ref(list), answer, "{list}");
    }

    // Any list with each name once: the same set. (With duplicates 22.05 keeps them, and
    // at times loses others: `a[90-103,94-104],a038` comes back without a104 and a038.)
    // The same text too, unless paddings are mixed or digits stand before a bracket:
    // then Slurm's text depends on how the list was written.
    let answers = scontrol("hostlistsorted", &lists).unwrap();
    let mut same = 0;
    for ((list, folded), answer) in lists.iter().zip(&folded).zip(answers) {
        let [answer] = answer.as_slice() else {
            panic!("{list}: {answer:?}")
        };
        let names = expand(list).unwrap();
        if set(&names).len() < names.len() {
            continue;
        }
        assert_eq!(set(&expand(answer).unwrap()), set(&names), "{list}");
        let padded = names.iter().any(|name| {
            let name = name.as_str();
            let digits = &name[name.trim_end_matches(|c: char| c.is_ascii_digit()).len()..];
            digits.len() > 1 && digits.starts_with('0')
        });
        let split = list
            .as_bytes()
            .windows(2)
            .any(|two| two[1] == b'[' && (two[0] == b']' || two[0].is_ascii_digit()));
        if !padded && !split {
            assert_eq!(folded, answer, "{list}");
            same += 1;
        }
    }
    assert!(same > 500, "only {same} lists without duplicates and padding");
}
