//! A job that is to be: what was asked for, parsed once.

use super::{CopyOptions, JobId};
use crate::clock::UnixMillis;
use crate::oci::ImageReference;

/// The default queue.
pub const DEFAULT_QUEUE: &str = "default";
/// The default priority; lower runs first.
pub const DEFAULT_PRIORITY: i64 = 100;
/// Attempts a job has unless it says otherwise: with the default backoff about two minutes of trying.
pub const DEFAULT_MAX_ATTEMPTS: i64 = 8;

/// What a row says, parsed: what intake writes beside it and what an attempt works with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// Where from.
    pub source: ImageReference,
    /// Where to.
    pub destination: ImageReference,
    /// How.
    pub options: CopyOptions,
}

impl Parsed {
    /// The canonical source: equal sources have equal keys.
    #[must_use]
    pub fn source_key(&self) -> String {
        self.source.to_string()
    }

    /// The canonical destination: one target is written by one running job at a time.
    #[must_use]
    pub fn dest_key(&self) -> String {
        self.destination.to_string()
    }

    /// The destination's registry, or `oci` for a layout.
    #[must_use]
    pub fn dest_registry(&self) -> String {
        self.destination.host().unwrap_or("oci").to_owned()
    }
}

/// A job to be inserted. Made by [`NewJob::parse`], so it is known to be valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// As it was typed; layout paths made absolute.
    pub source: String,
    /// As it was typed; layout paths made absolute.
    pub destination: String,
    /// The parsed form of the two and of the options.
    pub parsed: Parsed,
    /// The queue to wait in.
    pub queue: String,
    /// Lower runs first.
    pub priority: i64,
    /// Attempts allowed.
    pub max_attempts: i64,
    /// Not before this; None: now.
    pub run_at: Option<UnixMillis>,
    /// Unique in the database.
    pub idempotency_key: Option<String>,
    /// An equal job that waits already may stand for this one. Not for a key that a user chose: it names a job of its own.
    pub joins_equal: bool,
}

/// What is wrong with a job that was asked for. One line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

/// Longest reference, key or queue name that is stored, bytes: bounds rows and indexes.
const TEXT_LIMIT: usize = 4096;
/// Longest queue name, bytes.
const QUEUE_LIMIT: usize = 128;

impl NewJob {
    /// Parses what was asked for, with defaults for the rest. Relative layout paths are taken from `base`.
    ///
    /// # Errors
    /// [`Invalid`] says which reference or option is wrong and why.
    pub fn parse(
        source: &str,
        destination: &str,
        options: CopyOptions,
        base: &std::path::Path,
    ) -> Result<Self, Invalid> {
        let parsed = parse(source, destination, options)?;
        let parsed = absolute(parsed, base)?;
        let text = |reference: &ImageReference, typed: &str| match reference {
            ImageReference::Registry(_) => typed.to_owned(),
            ImageReference::Layout(_) => reference.to_string(),
        };
        Ok(Self {
            source: text(&parsed.source, source),
            destination: text(&parsed.destination, destination),
            parsed,
            queue: DEFAULT_QUEUE.to_owned(),
            priority: DEFAULT_PRIORITY,
            max_attempts: DEFAULT_MAX_ATTEMPTS,
            run_at: None,
            idempotency_key: None,
            joins_equal: true,
        })
    }

    /// Checks what can be set after parsing.
    ///
    /// # Errors
    /// [`Invalid`] names the field.
    pub fn check(&self) -> Result<(), Invalid> {
        check_queue(&self.queue)?;
        if !(1..=1000).contains(&self.max_attempts) {
            return Err(Invalid(format!("max attempts is {}: use 1 to 1000", self.max_attempts)));
        }
        if i32::try_from(self.priority).is_err() {
            return Err(Invalid(format!("priority is {}: it must fit into 32 bits", self.priority)));
        }
        match &self.idempotency_key {
            Some(key) if key.is_empty() || key.len() > TEXT_LIMIT => {
                Err(Invalid(format!("idempotency key: use 1 to {TEXT_LIMIT} bytes")))
            }
            _ => Ok(()),
        }
    }
}

/// Checks the name of a queue.
///
/// # Errors
/// [`Invalid`] says what a name may be.
pub fn check_queue(name: &str) -> Result<(), Invalid> {
    if name.is_empty() || name.len() > QUEUE_LIMIT || name.chars().any(char::is_control) {
        return Err(Invalid(format!("queue: a name has 1 to {QUEUE_LIMIT} bytes and no control characters")));
    }
    Ok(())
}

/// Parses a row that anybody may have inserted. Layout paths must be absolute there, because a row has no working directory.
///
/// # Errors
/// [`Invalid`] says which part is wrong and why.
pub fn parse_row(source: &str, destination: &str, options: &serde_json::Value) -> Result<Parsed, Invalid> {
    let options = CopyOptions::parse(options).map_err(Invalid)?;
    let parsed = parse(source, destination, options)?;
    for (which, reference) in [("source", &parsed.source), ("destination", &parsed.destination)] {
        if let ImageReference::Layout(layout) = reference
            && !layout.dir.is_absolute()
        {
            return Err(Invalid(format!(
                "{which} {}: the directory must be absolute in a row (oci:/path/to/dir:tag)",
                crate::oci::quote(&reference.to_string())
            )));
        }
    }
    absolute(parsed, std::path::Path::new("/"))
}

fn absolute(parsed: Parsed, base: &std::path::Path) -> Result<Parsed, Invalid> {
    let invalid = |which: &str, error: crate::oci::ReferenceError| Invalid(format!("{which}: {error}"));
    Ok(Parsed {
        source: parsed.source.absolute(base).map_err(|error| invalid("source", error))?,
        destination: parsed.destination.absolute(base).map_err(|error| invalid("destination", error))?,
        options: parsed.options,
    })
}

fn parse(source: &str, destination: &str, options: CopyOptions) -> Result<Parsed, Invalid> {
    let reference = |which: &str, text: &str| {
        if text.len() > TEXT_LIMIT {
            return Err(Invalid(format!(
                "{which}: a reference has at most {TEXT_LIMIT} bytes, this one has {}",
                text.len()
            )));
        }
        text.parse::<ImageReference>().map_err(|error| Invalid(format!("{which} {}: {error}", crate::oci::quote(text))))
    };
    let source = reference("source", source)?;
    let destination = reference("destination", destination)?;
    options.check().map_err(Invalid)?;
    if let (ImageReference::Registry(from), ImageReference::Registry(to)) = (&source, &destination)
        && let (Some(asked), Some(given)) = (&to.digest, &from.digest)
        && asked != given
    {
        return Err(Invalid(format!(
            "destination digest {asked} is not the source digest {given}: a copy keeps its digest"
        )));
    }
    Ok(Parsed { source, destination, options })
}

/// What enqueueing did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Enqueued {
    /// The job that will do, or did, what was asked for.
    pub id: JobId,
    /// False: an equal job was already waiting, or the idempotency key is known.
    pub created: bool,
}
