//! Logs of clusters, of any kind that is known, each recognised by what is in it.
//!
//! A log is read as it is ([`any`]); what its jobs need of which hosts is said afterwards
//! ([`Shape`]), since few logs tell. A line that cannot be read never stops the reading: it is
//! counted, and the first few are shown.

pub mod job_set;
mod log;
mod odd;
pub mod published;
mod shape;
pub mod swf;

pub use log::{Format, Header, LONGEST, Log, Need, Processors, Record, Trace};
pub use odd::{Malformed, Odd, Oddity};
pub use shape::{MemoryOf, Shape, Tasks, Unit};

use anyhow::{Context as _, bail};
use flate2::bufread::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// A longer line is malformed, and is never in memory as a whole.
const LONGEST_LINE: u64 = 64 * 1024;

/// How to read.
#[derive(Debug, Clone, Default)]
pub struct Options {}

/// Reads a log in whichever format it is, plain or gzip.
///
/// # Errors
/// If the file cannot be read, or no line of it is a job.
pub fn any(path: &Path, options: &Options) -> anyhow::Result<Log> {
    let file = File::open(path).with_context(|| format!("cannot read the log {}", path.display()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    stream(title(&name), file, options).with_context(|| format!("cannot use the log {}", path.display()))
}

/// The name of a log, from that of its file.
fn title(file: &str) -> &str {
    let endings = [".gz", ".swf", ".txt", "-cln"];
    endings
        .into_iter()
        .fold(file, |name, ending| name.strip_suffix(ending).unwrap_or(name))
}

/// Reads a log from wherever it comes.
///
/// # Errors
/// If it cannot be read to its end, or no line of it is a job.
pub fn stream(name: &str, source: impl Read, options: &Options) -> anyhow::Result<Log> {
    let mut source = BufReader::with_capacity(1 << 17, source);
    let mut reading = Reading::new(options);
    if source
        .fill_buf()
        .context("cannot begin to read")?
        .starts_with(&[0x1f, 0x8b])
    {
        lines(
            BufReader::with_capacity(1 << 17, MultiGzDecoder::new(source)),
            &mut reading,
        )?;
    } else {
        lines(source, &mut reading)?;
    }
    reading.finish(name)
}

/// Takes line by line, none of them longer than [`LONGEST_LINE`].
fn lines(mut source: impl BufRead, reading: &mut Reading) -> anyhow::Result<()> {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let whole = next_line(&mut source, &mut line)
            .with_context(|| format!("cannot read on after line {}", number - 1))?;
        match whole {
            None => break,
            Some(true) => reading.line(number, &String::from_utf8_lossy(&line)),
            Some(false) => reading
                .odd
                .malformed(number, format!("over {LONGEST_LINE} bytes long")),
        }
    }
    Ok(())
}

/// The next line, and whether it is whole.
fn next_line(source: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<bool>> {
    let read = source.by_ref().take(LONGEST_LINE).read_until(b'\n', line)?;
    if read == 0 {
        return Ok(None);
    }
    let whole = line.last() == Some(&b'\n') || (read as u64) < LONGEST_LINE;
    if !whole {
        source.skip_until(b'\n')?;
    }
    Ok(Some(whole))
}

/// A log of which a part was read.
struct Reading {
    format: Option<Format>,
    header: Header,
    odd: Odd,
    traces: Vec<Trace>,
}

impl Reading {
    fn new(_options: &Options) -> Self {
        Self {
            format: None,
            header: Header::default(),
            odd: Odd::default(),
            traces: Vec::new(),
        }
    }

    fn line(&mut self, number: u64, line: &str) {
        let line = line.trim_start_matches('\u{feff}').trim();
        if line.is_empty() {
            return;
        }
        if line.starts_with(';') {
            swf::comment(&mut self.header, line);
            return;
        }
        if let Err(why) = self.job(line) {
            self.odd.malformed(number, why);
        }
    }

    fn job(&mut self, line: &str) -> Result<(), String> {
        let format = match self.format {
            Some(format) => format,
            None => *self.format.insert(self.recognise(line)?),
        };
        let (trace, job) = match format {
            Format::Swf => ("", swf::job(line, &mut self.odd)?),
            Format::Published => ("", published::job(line, &mut self.odd)?),
            Format::JobSet => {
                let (trace, job) = job_set::job(line, &mut self.odd)?;
                (trace, Some(job))
            }
            Format::Sacct => ("", None),
        };
        if let Some(job) = job {
            self.push(trace, job);
        }
        Ok(())
    }

    /// What a log is written in, by the first line that is no comment.
    fn recognise(&self, line: &str) -> Result<Format, String> {
        if line.split_ascii_whitespace().count() == job_set::FIELDS
            && job_set::job(line, &mut Odd::default()).is_ok()
        {
            return Ok(Format::JobSet);
        }
        match swf::numbers(line) {
            Ok(_) if published::wrote(&self.header) => Ok(Format::Published),
            Ok(_) => Ok(Format::Swf),
            Err(why) => Err(format!("no job of any log that is known: {why}")),
        }
    }

    fn push(&mut self, name: &str, job: Record) {
        // Traces stand one after another, mostly.
        let found = self.traces.iter().rposition(|trace| trace.name == name);
        let at = found.unwrap_or_else(|| {
            self.traces.push(Trace {
                name: name.to_owned(),
                jobs: Vec::new(),
            });
            self.traces.len() - 1
        });
        self.traces[at].jobs.push(job);
    }

    fn finish(mut self, name: &str) -> anyhow::Result<Log> {
        let Some(format) = self.format.filter(|_| !self.traces.is_empty()) else {
            bail!("{}", self.nothing())
        };
        for trace in &mut self.traces {
            if trace.name.is_empty() {
                name.clone_into(&mut trace.name);
            }
            if format != Format::Published {
                let behind = trace
                    .jobs
                    .windows(2)
                    .filter(|pair| pair[1].submit < pair[0].submit)
                    .count();
                (0..behind).for_each(|_| self.odd.count(Oddity::Disordered));
            }
            trace.jobs.sort_by_key(|job| (job.submit, job.id));
        }
        let Self {
            header, odd, traces, ..
        } = self;
        let (users, partitions) = (Vec::new(), Vec::new());
        Ok(Log {
            name: name.to_owned(),
            format,
            header,
            traces,
            odd,
            users,
            partitions,
        })
    }

    /// Why there is no job.
    fn nothing(&self) -> String {
        if self.odd == Odd::default() {
            return "it is empty".into();
        }
        format!("no line of it is a job that ran:\n{}", self.odd)
    }
}

/// The limit that counts.
fn limit(limit: Option<u64>, run: u64, odd: &mut Odd) -> u64 {
    match limit {
        None => {
            odd.count(Oddity::NoLimit);
            run
        }
        Some(limit) if limit < run => {
            odd.count(Oddity::OverLimit);
            run
        }
        Some(limit) => limit,
    }
}

/// Counts what is odd about what a job needs.
fn processors(need: Processors, odd: &mut Odd) -> Processors {
    if need.asked > 0 && need.got > 0 && need.asked != need.got {
        odd.count(Oddity::ProcessorsDiffer);
    }
    if need.memory_asked == 0 && need.memory_got == 0 {
        odd.count(Oddity::NoMemory);
    }
    need
}
