//! Logs of clusters, of any kind that is known, each recognised by what is in it.
//!
//! A log is read as it is ([`any`]); what its jobs need of which hosts is said afterwards
//! ([`Shape`]), since few logs tell. A line that cannot be read never stops the reading: it is
//! counted, and the first few are shown.

pub mod job_set;
mod log;
mod names;
mod odd;
mod options;
pub mod published;
mod rules;
pub mod sacct;
mod shape;
mod slurm_words;
pub mod swf;

pub use log::{Format, Header, LONGEST, Log, Need, Processors, Record, Trace};
pub use names::Names;
pub use odd::{Malformed, Odd, Oddity};
pub use options::Options;
pub use shape::{MemoryOf, Shape, Tasks, Unit};

use anyhow::{Context as _, bail};
use flate2::bufread::MultiGzDecoder;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// A longer line is malformed, and is never in memory as a whole.
const LONGEST_LINE: u64 = 64 * 1024;

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
    let mut reading = Reading::new(options, options.names.key()?);
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
fn lines(mut source: impl BufRead, reading: &mut Reading<'_>) -> anyhow::Result<()> {
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

/// Who reads the lines.
enum Reader {
    Swf,
    Published,
    JobSet,
    Sacct(Box<sacct::Reader>),
}

/// A log of which a part was read.
struct Reading<'a> {
    options: &'a Options,
    key: Option<[u8; 32]>,
    reader: Option<Reader>,
    header: Header,
    odd: Odd,
    traces: Vec<Trace>,
    /// Where the trace of a name is.
    at: HashMap<String, usize>,
}

impl<'a> Reading<'a> {
    fn new(options: &'a Options, key: Option<[u8; 32]>) -> Self {
        let (header, odd) = (Header::default(), Odd::default());
        Self {
            options,
            key,
            reader: None,
            header,
            odd,
            traces: Vec::new(),
            at: HashMap::new(),
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
        let reader = match &mut self.reader {
            Some(reader) => reader,
            None if sacct::is_head(line) => {
                let reader = sacct::Reader::new(line, self.options, self.key)?;
                self.reader = Some(Reader::Sacct(Box::new(reader)));
                return Ok(());
            }
            none => none.insert(recognise(&self.header, line)?),
        };
        let (trace, job) = match reader {
            Reader::Swf => ("", swf::job(line, &mut self.odd)?),
            Reader::Published => ("", published::job(line, &mut self.odd)?),
            Reader::JobSet => {
                let (trace, job) = job_set::job(line, &mut self.odd)?;
                (trace, Some(job))
            }
            Reader::Sacct(reader) => ("", reader.job(line, &mut self.odd)?),
        };
        if let Some(job) = job {
            self.push(trace, job);
        }
        Ok(())
    }

    fn push(&mut self, name: &str, job: Record) {
        // Most stand behind one another.
        if let Some(last) = self.traces.last_mut().filter(|last| last.name == name) {
            last.jobs.push(job);
        } else if let Some(at) = self.at.get(name) {
            self.traces[*at].jobs.push(job);
        } else {
            self.at.insert(name.to_owned(), self.traces.len());
            self.traces.push(Trace {
                name: name.to_owned(),
                jobs: vec![job],
            });
        }
    }

    fn finish(mut self, name: &str) -> anyhow::Result<Log> {
        let Some(reader) = self.reader.take().filter(|_| !self.traces.is_empty()) else {
            bail!("{}", self.nothing())
        };
        let Self {
            mut header,
            mut odd,
            mut traces,
            ..
        } = self;
        let (mut users, mut partitions) = (Vec::new(), Vec::new());
        let format = match reader {
            Reader::Swf => Format::Swf,
            Reader::Published => Format::Published,
            Reader::JobSet => Format::JobSet,
            Reader::Sacct(reader) => {
                (users, partitions) = (reader.users.shown(), reader.partitions.shown());
                header.begins = Some(from_first(&mut traces) as i64);
                Format::Sacct
            }
        };
        for trace in &mut traces {
            if trace.name.is_empty() {
                name.clone_into(&mut trace.name);
            }
            // These two are ordered by other things.
            if !matches!(format, Format::Published | Format::Sacct) {
                let behind = trace
                    .jobs
                    .windows(2)
                    .filter(|pair| pair[1].submit < pair[0].submit)
                    .count();
                (0..behind).for_each(|_| odd.count(Oddity::Disordered));
            }
            trace.jobs.sort_by_key(|job| (job.submit, job.id));
        }
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

/// What a log is written in, by the first line that is no comment, if it is not `sacct`'s.
fn recognise(header: &Header, line: &str) -> Result<Reader, String> {
    let words = line.split_ascii_whitespace().count();
    if words == job_set::FIELDS && job_set::job(line, &mut Odd::default()).is_ok() {
        return Ok(Reader::JobSet);
    }
    match swf::numbers(line) {
        Ok(_) if published::wrote(header) => Ok(Reader::Published),
        Ok(_) => Ok(Reader::Swf),
        Err(_) if line.contains('|') => Err(format!(
            "before the head of what sacct says: do not leave that away, and type\n  {}",
            sacct::COMMAND
        )),
        // Not quoted: there may be names in it.
        Err(_) => Err("no line of any log that is known".into()),
    }
}

/// Makes moments spans from the first submission on, and says when that was.
fn from_first(traces: &mut [Trace]) -> u64 {
    let jobs = || traces.iter().flat_map(|trace| &trace.jobs);
    let first = jobs().map(|job| job.submit).min().unwrap_or(0);
    for job in traces.iter_mut().flat_map(|trace| &mut trace.jobs) {
        job.submit -= first;
    }
    first
}
