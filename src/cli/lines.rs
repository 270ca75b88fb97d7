//! The lines of `enqueue --from-file`: `SRC DST`, or JSON Lines; `#` starts a comment line, blank lines are passed over.
//!
//! Lines are parsed twice, once to check them all and once to insert them, so that a million of them are never held as
//! jobs at the same time.

use super::copy::CopyArgs;
use super::when;
use crate::clock::UnixMillis;
use crate::job::{CopyOptions, Invalid, NewJob};
use crate::oci::ImageReference;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::PathBuf;

/// What holds for every line that does not say otherwise.
#[derive(Debug)]
pub struct Defaults<'a> {
    /// The options of the command line.
    pub copy: &'a CopyArgs,
    /// The folder that relative layout paths are taken from.
    pub base: PathBuf,
    /// Attempts of a job when neither line nor command line say.
    pub max_attempts: i64,
    /// What `--in` counts from.
    pub now: UnixMillis,
}

/// A line that asks for nothing that can be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// Counted from 1, comments and blank lines too.
    pub line: usize,
    /// Why.
    pub message: String,
}

/// What checking found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// Lines that ask for a job.
    pub jobs: usize,
    /// Some reference is a directory, which a relative path of may depend on where the command runs.
    pub has_layouts: bool,
}

/// A file of lines.
#[derive(Debug)]
pub struct Lines<'a> {
    content: &'a [u8],
    defaults: &'a Defaults<'a>,
}

/// One JSON line. Unknown names are refused: a misspelled option is a copy that nobody asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    source: String,
    destination: String,
    options: Option<serde_json::Map<String, serde_json::Value>>,
    priority: Option<i64>,
    run_at: Option<When>,
    idempotency_key: Option<String>,
    max_attempts: Option<i64>,
    queue: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum When {
    UnixMillis(i64),
    Text(String),
}

impl<'a> Lines<'a> {
    /// Nothing is parsed yet.
    #[must_use]
    pub const fn new(content: &'a [u8], defaults: &'a Defaults<'a>) -> Self {
        Self { content, defaults }
    }

    /// Checks every line, and that no idempotency key stands for two different jobs.
    ///
    /// # Errors
    /// Every bad line, in order.
    pub fn check(&self) -> Result<Checked, Vec<BadLine>> {
        let mut bad = Vec::new();
        let mut keys: HashMap<String, (usize, [u8; 32])> = HashMap::new();
        let mut checked = Checked { jobs: 0, has_layouts: false };
        for (line, job) in self.jobs() {
            let job = match job {
                Ok(job) => job,
                Err(Invalid(message)) => {
                    bad.push(BadLine { line, message });
                    continue;
                }
            };
            checked.jobs += 1;
            checked.has_layouts |= is_layout(&job.parsed.source) || is_layout(&job.parsed.destination);
            let content = fingerprint(&job);
            let Some(key) = job.idempotency_key else {
                continue;
            };
            match keys.get(&key) {
                Some((first, known)) if *known != content => {
                    let message = format!("idempotency key `{key}` stands for another job on line {first}");
                    bad.push(BadLine { line, message });
                }
                Some(_) => {}
                None => {
                    keys.insert(key, (line, content));
                }
            }
        }
        if bad.is_empty() { Ok(checked) } else { Err(bad) }
    }

    /// The jobs, with the number of their line.
    pub fn jobs(&self) -> impl Iterator<Item = (usize, Result<NewJob, Invalid>)> + '_ {
        let content = self.content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(self.content);
        content.split(|byte| *byte == b'\n').enumerate().filter_map(|(index, line)| {
            let Ok(text) = std::str::from_utf8(line) else {
                return Some((index + 1, Err(Invalid("it is not valid UTF-8".to_owned()))));
            };
            let text = text.trim();
            let job = match text.chars().next() {
                None | Some('#') => return None,
                Some('{') => self.json(text),
                Some(_) => self.words(text),
            };
            Some((index + 1, job))
        })
    }

    fn words(&self, text: &str) -> Result<NewJob, Invalid> {
        let mut words = text.split_whitespace();
        let (Some(source), Some(destination), None) = (words.next(), words.next(), words.next()) else {
            let count = text.split_whitespace().count();
            return Err(Invalid(format!("{count} words, wanted two: SRC DST")));
        };
        let job = self.job(source, destination, self.defaults.copy.options())?;
        job.check()?;
        Ok(job)
    }

    fn json(&self, text: &str) -> Result<NewJob, Invalid> {
        let line: Line = serde_json::from_str(text).map_err(|error| Invalid(format!("JSON: {error}")))?;
        let mut options =
            serde_json::to_value(self.defaults.copy.options()).map_err(|error| Invalid(format!("options: {error}")))?;
        if let (Some(said), Some(options)) = (line.options, options.as_object_mut()) {
            options.extend(said);
        }
        let options = CopyOptions::parse(&options).map_err(Invalid)?;
        let mut job = self.job(&line.source, &line.destination, options)?;
        job.priority = line.priority.unwrap_or(job.priority);
        job.max_attempts = line.max_attempts.unwrap_or(job.max_attempts);
        job.queue = line.queue.unwrap_or(job.queue);
        job.idempotency_key = line.idempotency_key;
        let run_at = line.run_at.map(|at| match at {
            When::UnixMillis(number) => when::unix_ms(number),
            When::Text(text) => when::time(&text),
        });
        if let Some(run_at) = run_at {
            job.run_at = Some(run_at.map_err(|message| Invalid(format!("run_at: {message}")))?);
        }
        job.check()?;
        Ok(job)
    }

    fn job(&self, source: &str, destination: &str, options: CopyOptions) -> Result<NewJob, Invalid> {
        let mut job = NewJob::parse(source, destination, options, &self.defaults.base)?;
        job.max_attempts = self.defaults.max_attempts;
        self.defaults.copy.apply(&mut job, self.defaults.now);
        Ok(job)
    }
}

const fn is_layout(reference: &ImageReference) -> bool {
    matches!(reference, ImageReference::Layout(_))
}

/// Equal for jobs that ask for the same.
fn fingerprint(job: &NewJob) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [&job.parsed.source_key(), &job.parsed.dest_key(), &job.parsed.options.canonical(), &job.queue] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults(copy: &CopyArgs) -> Defaults<'_> {
        Defaults { copy, base: PathBuf::from("/work"), max_attempts: 8, now: UnixMillis(1_790_000_000_000) }
    }

    fn check(text: &str) -> Result<Checked, Vec<BadLine>> {
        let copy = CopyArgs::default();
        Lines::new(text.as_bytes(), &defaults(&copy)).check()
    }

    #[test]
    fn words_and_json_may_be_mixed() {
        let copy = CopyArgs { priority: Some(7), force: true, ..CopyArgs::default() };
        let text = "\u{feff}# comment\n\nalpine:3.20 localhost:5000/alpine:3.20\r\n  \
            {\"source\":\"a\",\"destination\":\"b.example/a\",\"options\":{\"force\":false,\"no_clobber\":true},\
            \"priority\":3,\"run_at\":\"2026-09-21T14:13:20Z\",\"idempotency_key\":\"k\"}  \nx\ty";
        let defaults = defaults(&copy);
        let lines = Lines::new(text.as_bytes(), &defaults);
        assert_eq!(lines.check(), Ok(Checked { jobs: 3, has_layouts: false }));
        let jobs: Vec<_> = lines.jobs().map(|(line, job)| (line, job.unwrap())).collect();
        assert_eq!(jobs.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [3, 4, 5]);
        assert_eq!(
            (jobs[0].1.source.as_str(), jobs[0].1.priority, jobs[0].1.parsed.options.force),
            ("alpine:3.20", 7, true)
        );
        let second = &jobs[1].1;
        assert_eq!((second.priority, second.parsed.options.force, second.parsed.options.no_clobber), (3, false, true));
        assert_eq!(second.run_at, Some(UnixMillis(1_790_000_000_000)));
        assert_eq!(second.idempotency_key.as_deref(), Some("k"));
    }

    #[test]
    fn every_bad_line_is_named() {
        let text = "alpine localhost:5000/alpine\nonly-one\na b c\n{\"source\":\"a\"}\n\
            {\"source\":\"a\",\"destination\":\"b\",\"prio\":1}\nUPPER/case! b\n\
            {\"source\":\"a\",\"destination\":\"b\",\"options\":{\"platforms\":[\"linux\"]}}\n\
            {\"source\":\"a\",\"destination\":\"b\",\"run_at\":17}\n";
        let bad = check(text).unwrap_err();
        assert_eq!(bad.iter().map(|bad| bad.line).collect::<Vec<_>>(), [2, 3, 4, 5, 6, 7, 8]);
        for (bad, word) in
            bad.iter().zip(["1 words", "3 words", "destination", "prio", "source", "no architecture", "run_at"])
        {
            assert!(bad.message.contains(word), "{bad:?}");
        }
        assert!(check("a b\n").is_ok());
        assert_eq!(Lines::new(b"\xff\xfe b", &defaults(&CopyArgs::default())).check().unwrap_err()[0].line, 1);
    }

    #[test]
    fn a_key_stands_for_one_job() {
        let line =
            |source: &str| format!("{{\"source\":\"{source}\",\"destination\":\"b\",\"idempotency_key\":\"k\"}}\n");
        assert!(check(&(line("a") + &line("docker.io/library/a:latest"))).is_ok());
        let bad = check(&(line("a") + &line("c"))).unwrap_err();
        assert_eq!(bad.len(), 1);
        assert!(bad[0].line == 2 && bad[0].message.contains("line 1"), "{bad:?}");
    }

    #[test]
    fn ten_thousand_lines_with_a_bad_one() {
        let mut text: String =
            (0..10_000).map(|number| format!("alpine:{number} localhost:5000/alpine:{number}\n")).collect();
        assert_eq!(check(&text), Ok(Checked { jobs: 10_000, has_layouts: false }));
        text.push_str("bad\n");
        assert_eq!(
            check(&text).unwrap_err(),
            [BadLine { line: 10_001, message: "1 words, wanted two: SRC DST".into() }]
        );
    }
}
