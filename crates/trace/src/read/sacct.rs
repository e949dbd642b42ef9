//! What `sacct --parsable2` says of a site's jobs: a head with the names of the columns, then a line per
//! job. The columns may be in any order, and more than are needed. The facts are of sacct(1) and of
//! `src/sacct/print.c`, in Slurm 20.11 to 26.05.

use super::log::{LONGEST, Need, Processors, Record};
use super::names::Book;
use super::odd::{Odd, Oddity};
use super::options::Options;
use super::rules;
use super::slurm_words::{Per, When, memory, moment, span, tres};
use jiff::tz::TimeZone;

/// What to type to get a log; the time is that from which on jobs are told of.
///
/// All users' jobs (`-a`), not their steps (`-X`), each run of those that were requeued (`-D`), with `|`
/// between columns (`-P`) and sizes as they are (`--noconvert`). `SLURM_TIME_FORMAT` makes times seconds
/// since 1970, which no change of clocks confuses (sacct(1), "ENVIRONMENT VARIABLES").
pub const COMMAND: &str = "SLURM_TIME_FORMAT=%s sacct -a -X -D -P --noconvert -S 2026-01-01 \
     -o JobIDRaw,User,Partition,Submit,Eligible,Start,ElapsedRaw,TimelimitRaw,NNodes,NCPUS,ReqMem,AllocTRES,State";

/// Where the columns are.
#[derive(Debug, Default)]
struct Columns {
    id: Option<usize>,
    user: Option<usize>,
    partition: Option<usize>,
    submit: Option<usize>,
    eligible: Option<usize>,
    start: Option<usize>,
    end: Option<usize>,
    elapsed_raw: Option<usize>,
    elapsed: Option<usize>,
    limit_raw: Option<usize>,
    limit: Option<usize>,
    nodes: Option<usize>,
    cpus: Option<usize>,
    cpus_asked: Option<usize>,
    memory: Option<usize>,
    tres_asked: Option<usize>,
    tres_got: Option<usize>,
    state: Option<usize>,
}

impl Columns {
    /// Of the head of a log.
    fn of(head: &str) -> Self {
        let mut columns = Self::default();
        for (at, name) in head.split('|').enumerate() {
            let place = match name.trim().to_ascii_lowercase().as_str() {
                "jobidraw" => {
                    columns.id = Some(at);
                    continue;
                }
                // The raw number of an array's job is its own.
                "jobid" if columns.id.is_none() => &mut columns.id,
                "user" => &mut columns.user,
                "partition" => &mut columns.partition,
                "submit" => &mut columns.submit,
                "eligible" => &mut columns.eligible,
                "start" => &mut columns.start,
                "end" => &mut columns.end,
                "elapsedraw" => &mut columns.elapsed_raw,
                "elapsed" => &mut columns.elapsed,
                "timelimitraw" => &mut columns.limit_raw,
                "timelimit" => &mut columns.limit,
                "nnodes" | "allocnodes" => &mut columns.nodes,
                "ncpus" | "alloccpus" => &mut columns.cpus,
                "reqcpus" => &mut columns.cpus_asked,
                "reqmem" => &mut columns.memory,
                "reqtres" => &mut columns.tres_asked,
                "alloctres" => &mut columns.tres_got,
                "state" => &mut columns.state,
                _ => continue,
            };
            *place = Some(at);
        }
        columns
    }

    /// The first column that is missed.
    fn missed(&self) -> Option<&'static str> {
        let there = [
            ("JobIDRaw", self.id.is_some()),
            ("Submit", self.submit.is_some()),
            ("Start", self.start.is_some()),
            (
                "ElapsedRaw",
                self.elapsed_raw.or(self.elapsed).or(self.end).is_some(),
            ),
            ("NCPUS", self.cpus.or(self.tres_got).is_some()),
            ("State", self.state.is_some()),
        ];
        there.into_iter().find(|(_, there)| !there).map(|(name, _)| name)
    }
}

/// Whether a line is the head of such a log, or might be the best that there is.
#[must_use]
pub fn is_head(line: &str) -> bool {
    let columns = Columns::of(line);
    line.contains('|') && columns.id.is_some() && columns.missed().is_none_or(|missed| missed != "JobIDRaw")
}

/// A log after its head.
#[derive(Debug)]
pub struct Reader {
    head: String,
    width: usize,
    columns: Columns,
    zone: TimeZone,
    /// The users that were met.
    pub users: Book,
    /// The partitions that were met.
    pub partitions: Book,
}

/// A line, cut into columns.
struct Row<'a> {
    words: Vec<&'a str>,
    columns: &'a Columns,
    zone: &'a TimeZone,
}

impl Reader {
    /// Behind this head. Names are shown as digests under the key, if there is one.
    ///
    /// # Errors
    /// If a column is missing.
    pub fn new(head: &str, options: &Options, key: Option<[u8; 32]>) -> Result<Self, String> {
        let columns = Columns::of(head);
        if let Some(missed) = columns.missed() {
            return Err(format!("the head has no {missed}; type\n  {COMMAND}"));
        }
        Ok(Self {
            head: head.to_owned(),
            width: head.split('|').count(),
            columns,
            zone: options.zone.clone().unwrap_or_else(TimeZone::system),
            users: Book::new("user", key),
            partitions: Book::new("partition", key),
        })
    }

    /// The job of a line, if there is one that ran. Times are seconds since 1970. Nothing that is wrong is
    /// quoted: it may be a name.
    ///
    /// # Errors
    /// What is wrong with the line.
    pub fn job(&mut self, line: &str, odd: &mut Odd) -> Result<Option<Record>, String> {
        // Several outputs, one behind another.
        if line == self.head {
            return Ok(None);
        }
        let words: Vec<&str> = line.split('|').map(str::trim).collect();
        if words.len() != self.width {
            return Err(format!("{} columns, not {}", words.len(), self.width));
        }
        let row = Row {
            words,
            columns: &self.columns,
            zone: &self.zone,
        };
        let ran = match row.ran()? {
            Ok(ran) => ran,
            Err(gone) => {
                odd.count(gone);
                return Ok(None);
            }
        };
        let (limit, need) = (row.limit()?, row.need()?);
        let (submit, wait) = row.arrival(ran.start, odd)?;
        let user = row.get(self.columns.user);
        if user.is_empty() {
            odd.count(Oddity::NoUser);
        }
        Ok(Some(Record {
            id: ran.id,
            submit,
            wait,
            run: ran.run,
            limit: rules::limit(limit, ran.run, odd),
            need: Need::Processors(rules::processors(need, odd)),
            user: self.users.number(user),
            partition: self.partitions.number(row.get(self.columns.partition)),
            efficiency: 1000,
        }))
    }
}

/// A job that ran.
struct Ran {
    id: u64,
    start: When,
    run: u64,
}

impl<'a> Row<'a> {
    fn get(&self, column: Option<usize>) -> &'a str {
        column
            .and_then(|column| self.words.get(column))
            .copied()
            .unwrap_or_default()
    }

    fn number(&self, column: Option<usize>, name: &str) -> Result<u32, String> {
        match self.get(column) {
            "" => Ok(0),
            word => word.parse().map_err(|_| format!("{name} is no number")),
        }
    }

    fn moment(&self, column: Option<usize>, name: &str) -> Result<Option<When>, String> {
        moment(self.get(column), self.zone)
            .filter(|when| when.is_none_or(|when| when.late <= LONGEST))
            .ok_or_else(|| format!("{name} is no time"))
    }

    /// The job, or why there is none.
    fn ran(&self) -> Result<Result<Ran, Oddity>, String> {
        let id = self.get(self.columns.id);
        if id.contains('.') {
            return Ok(Err(Oddity::Step));
        }
        // `7_3` is of an array, `7+1` of a heterogeneous job, `7_[4-9]` all of an array that wait.
        let digits = id.bytes().take_while(u8::is_ascii_digit).count();
        let id = id[..digits]
            .parse()
            .map_err(|_| "the job has no number".to_owned())?;
        // `CANCELLED by 1000`; `CANCELLED+` where the column was cut.
        let state = self
            .get(self.columns.state)
            .split([' ', '+'])
            .next()
            .unwrap_or_default();
        if unfinished(state) {
            return Ok(Err(Oddity::Unfinished));
        }
        let Some(start) = self.moment(self.columns.start, "Start")? else {
            return Ok(Err(Oddity::NeverRan));
        };
        let run = self.run(start)?;
        if run == 0 {
            // Of a job that was cancelled while it waited, start and end are the same.
            let never = matches!(state, "CANCELLED" | "DEADLINE" | "BOOT_FAIL" | "REVOKED");
            return Ok(Err(if never { Oddity::NeverRan } else { Oddity::NoRun }));
        }
        Ok(Ok(Ran { id, start, run }))
    }

    fn run(&self, start: When) -> Result<u64, String> {
        let run = match (self.get(self.columns.elapsed_raw), self.get(self.columns.elapsed)) {
            ("", "") => {
                let end = self.moment(self.columns.end, "End")?;
                end.map(|end| end.not_before(start.early).saturating_sub(start.early))
            }
            ("", elapsed) => Some(span(elapsed).ok_or("Elapsed is no span")?),
            (raw, _) => Some(raw.parse().map_err(|_| "ElapsedRaw is no number")?),
        };
        match run.unwrap_or(0) {
            run if run > LONGEST => Err("it ran for thousands of years".into()),
            run => Ok(run),
        }
    }

    /// When it came, and how long it waited. A job that a dependency or its user held counts from the moment
    /// on at which it might run.
    fn arrival(&self, start: When, odd: &mut Odd) -> Result<(u64, Option<u64>), String> {
        let submit = self
            .moment(self.columns.submit, "Submit")?
            .ok_or("Submit is unknown")?;
        let started = start.not_before(submit.early);
        let eligible = self.moment(self.columns.eligible, "Eligible")?;
        let eligible = eligible.map(|eligible| eligible.not_before(submit.early));
        if submit.in_doubt() || start.in_doubt() {
            odd.count(Oddity::ClockChange);
        }
        let came = match eligible {
            Some(eligible) if eligible > submit.early && eligible <= started => {
                odd.count(Oddity::Held);
                eligible
            }
            _ => submit.early,
        };
        Ok((came, started.checked_sub(came)))
    }

    fn limit(&self) -> Result<Option<u64>, String> {
        let known = |column| {
            Some(self.get(column)).filter(|word| !matches!(*word, "" | "UNLIMITED" | "Partition_Limit"))
        };
        let limit = if let Some(minutes) = known(self.columns.limit_raw) {
            let minutes: u32 = minutes
                .parse()
                .map_err(|_| "TimelimitRaw is no number of minutes")?;
            Some(u64::from(minutes) * 60)
        } else if let Some(limit) = known(self.columns.limit) {
            Some(span(limit).ok_or("Timelimit is no span")?)
        } else {
            None
        };
        Ok(limit.filter(|limit| *limit <= LONGEST))
    }

    fn need(&self) -> Result<Processors, String> {
        let (tres_asked, tres_got) = (self.get(self.columns.tres_asked), self.get(self.columns.tres_got));
        let count = |list, name| tres(list, name).and_then(|word| word.parse().ok()).unwrap_or(0);
        let or = |number: u32, other: u32| if number > 0 { number } else { other };
        let got = or(self.number(self.columns.cpus, "NCPUS")?, count(tres_got, "cpu"));
        let asked = or(
            self.number(self.columns.cpus_asked, "ReqCPUS")?,
            count(tres_asked, "cpu"),
        );
        let nodes = or(
            self.number(self.columns.nodes, "NNodes")?,
            count(tres_got, "node"),
        );
        let size = |list| tres(list, "mem").map_or(Some((0, Per::Job)), memory);
        let all =
            |size: Option<(u64, Per)>, name: &str| match size.ok_or_else(|| format!("{name} is no size"))? {
                (each, Per::Job) => Ok(each),
                (each, Per::Node) => Ok(each.saturating_mul(u64::from(nodes.max(1)))),
                (each, Per::Cpu) => Ok::<_, String>(each.saturating_mul(u64::from(got.max(asked)))),
            };
        let need = Processors {
            asked,
            got,
            nodes,
            memory_asked: match all(memory(self.get(self.columns.memory)), "ReqMem")? {
                0 => all(size(tres_asked), "the memory of ReqTRES")?,
                asked => asked,
            },
            memory_got: all(size(tres_got), "the memory of AllocTRES")?,
        };
        if need.count() == 0 {
            Err("it ran, on no CPU".into())
        } else {
            Ok(need)
        }
    }
}

/// Whether a job in this state has not ended (`job_state_string` of Slurm, and sacct(1), "JOB STATE CODES").
/// A state that is not known is taken for one of the ends.
fn unfinished(state: &str) -> bool {
    const STATES: [&str; 11] = [
        "PENDING",
        "RUNNING",
        "SUSPENDED",
        "COMPLETING",
        "CONFIGURING",
        "RESIZING",
        "STAGE_OUT",
        "STOPPED",
        "SIGNALING",
        "EXPEDITING",
        "RESV_DEL_HOLD",
    ];
    STATES.contains(&state)
}

#[cfg(test)]
mod tests;
