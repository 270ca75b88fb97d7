//! A whole database into another one: SQLite into an empty PostgreSQL, for a queue that outgrows one host.
//!
//! One read transaction on the one side, one transaction on the other: whatever fails or is killed, the target is as empty as
//! before. Rows go over as they are, with their ids, seqs and epochs; the triggers of the target sleep meanwhile, because they
//! have done their work at the source already. Then, still in that transaction, the copy is made safe as a restored backup is:
//! nothing that a worker of the old database still holds has any effect on it.

use super::postgres::{Import, KEY_BYTES};
use super::sqlite::Export;
use super::{Copied, Error, Store};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// What is copied, parents before children. Workers and temporary files belong to the old database.
pub(super) const TABLES: [&str; 20] = [
    "queues",
    "queue_changes",
    "jobs",
    "written_targets",
    "job_events",
    "transfers",
    "idempotency_keys",
    "finished_loads",
    "prunes",
    "pruned_jobs",
    "restores",
    "schedules",
    "schedule_occurrences",
    "batches",
    "batch_repositories",
    "api_keys",
    "api_calls",
    "api_call_prunes",
    "credentials",
    "credential_changes",
];
/// Bytes of a source or destination.
const REFERENCE_BYTES: usize = 4096;
/// Characters of a queue's name.
const QUEUE_CHARS: usize = 128;
/// Characters of an idempotency key that had to be changed: as many bytes as an index takes, however long each of them is.
const KEY_CHARS: usize = KEY_BYTES / 4;
/// Hex digits of a hash that keep two names apart which would become the same.
const HASH_CHARS: usize = 16;
/// Changed texts that are told one by one.
const MOST_WARNINGS: u64 = 100;

impl Store {
    /// Copies everything but workers and temporary files into an empty PostgreSQL database, all or nothing. What ran is
    /// scheduled again in the copy, and every epoch there is raised far. This database stays as it is. Nobody may write to it
    /// meanwhile.
    ///
    /// # Errors
    /// [`Error::Invalid`] for other kinds of databases, a target that is not empty, or a source that was written to meanwhile.
    /// Then, and with all other errors, nothing is in the target, unless the message says that this is not known.
    pub async fn copy_to(&self, target: &Self, actor: &str) -> Result<Copied, Error> {
        let (Self::Sqlite(source), Self::Postgres(target)) = (self, target) else {
            return Err(Error::Invalid("a copy goes from SQLite to PostgreSQL".to_owned()));
        };
        let mut export = source.export().await?;
        let mut import = target.import().await?;
        match fill(&mut export, &mut import, actor).await {
            Ok(copied) => {
                let committed = import.commit().await;
                export.close().await;
                committed.map(|()| copied)
            }
            Err(error) => {
                import.abandon().await;
                export.close().await;
                Err(error)
            }
        }
    }
}

async fn fill(export: &mut Export, import: &mut Import, actor: &str) -> Result<Copied, Error> {
    import.prepare().await?;
    let mut texts = Texts::default();
    let mut copied = Copied::default();
    for table in TABLES {
        let (here, there) = (export.columns(table).await?, import.columns(table).await?);
        if here != there {
            return Err(Error::Unusable(format!(
                "table {table} has the columns {} here and {} in the target: bring both to the same version first",
                here.join(", "),
                there.join(", ")
            )));
        }
        let mut after = i64::MIN;
        while let Some(page) = export.page(table, after, &mut texts).await? {
            import.insert(table, &page.rows).await?;
            after = page.last;
        }
        let (here, there) = (export.count(table).await?, import.count(table).await?);
        if here != there {
            return Err(Error::Unusable(format!(
                "table {table} has {here} rows, {there} of them arrived: nothing is kept"
            )));
        }
        match table {
            "jobs" => copied.jobs = there,
            "job_events" => copied.events = there,
            "transfers" => copied.transfers = there,
            _ => {}
        }
    }
    for sequence in export.sequences().await? {
        import.go_on_after(&sequence).await?;
    }
    copied.requeued = import.make_safe(actor).await?;
    copied.replaced = texts.changed;
    if export.has_changed().await? {
        return Err(Error::Invalid(
            "the database was written to while it was copied, so nothing is kept: stop whatever enqueues and works, and copy \
             again"
                .to_owned(),
        ));
    }
    texts.tell_the_rest();
    Ok(copied)
}

/// Rows of a table.
pub(super) struct Page {
    /// A JSON array of objects, by names of columns.
    pub(super) rows: String,
    /// The place of the last one.
    pub(super) last: i64,
}

/// The last number that a table has given to a row.
pub(super) struct Sequence {
    pub(super) table: String,
    pub(super) last: i64,
}

/// Texts as PostgreSQL can hold them, and how many were others before.
#[derive(Default)]
pub(super) struct Texts {
    changed: u64,
}

impl Texts {
    /// The text of a column, from whatever bytes SQLite had there. `job` is whose row it is, where there is one.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a key that is too long: another one in its place would let what it stands for be done twice.
    pub(super) fn value(&mut self, table: &str, column: &str, bytes: &[u8], job: Option<i64>) -> Result<Value, Error> {
        let text = fitting(table, column, bytes);
        if matches!((table, column), ("jobs", "idempotency_key") | ("idempotency_keys", "key"))
            && text.len() > KEY_BYTES
        {
            return Err(key_too_long(text.len(), job.unwrap_or_default()));
        }
        if text.as_bytes() != bytes {
            self.changed += 1;
            if self.changed <= MOST_WARNINGS {
                tracing::warn!(
                    table,
                    column,
                    job,
                    "PostgreSQL cannot hold this text as it is: it was changed in the copy"
                );
            }
        }
        Ok(text.into())
    }

    fn tell_the_rest(&self) {
        if let Some(more) = self.changed.checked_sub(MOST_WARNINGS).filter(|more| *more > 0) {
            tracing::warn!(texts = more, "more texts were changed in the copy");
        }
    }
}

fn key_too_long(bytes: usize, job: i64) -> Error {
    Error::Invalid(format!(
        "job {job} has an idempotency key of {bytes} bytes, PostgreSQL takes {KEY_BYTES} at most: remove the job before the copy \
         (freightliner jobs cancel, then jobs prune) and its key (DELETE FROM idempotency_keys WHERE job_id = {job}), and ask for \
         it again with a shorter one, for example a hash of it"
    ))
}

/// Without NULs and bytes that are no UTF-8, within the limits of its column.
fn fitting(table: &str, column: &str, bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).replace('\0', "\u{fffd}");
    let changed = text.as_bytes() != bytes;
    match (table, column) {
        ("jobs" | "schedules", "options") => options(text),
        ("jobs", "report") | ("job_events", "detail") => document(text),
        ("jobs" | "schedules", "source" | "destination") => shortened(text, REFERENCE_BYTES),
        // What names something stays apart from all others, and the same wherever it stands.
        ("jobs" | "queue_changes" | "schedules", "queue") | ("queues", "name") if changed => {
            distinct(&text, bytes, QUEUE_CHARS)
        }
        ("jobs", "idempotency_key") | ("idempotency_keys", "key") if changed => distinct(&text, bytes, KEY_CHARS),
        _ => text,
    }
}

/// A JSON object. What is none makes an option that nobody knows: such a job must fail, not run with other options.
fn options(text: String) -> String {
    match serde_json::from_str::<serde_json::Map<String, Value>>(&text) {
        Ok(_) => text,
        Err(_) => serde_json::json!({"unreadable": shortened(text, REFERENCE_BYTES)}).to_string(),
    }
}

/// JSON whose strings PostgreSQL can look into. What is none is a string, as it is shown.
fn document(text: String) -> String {
    let text = match serde_json::from_str::<serde::de::IgnoredAny>(&text) {
        Ok(_) if serde_json::from_str::<Value>(&text).is_ok() => text,
        _ => Value::String(text).to_string(),
    };
    text.replace("\\u0000", "\\ufffd")
}

/// At most so many bytes, cut between characters.
fn shortened(mut text: String, bytes: usize) -> String {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.truncate(end);
    text
}

/// A name of at most so many characters that differs where the bytes differ.
fn distinct(text: &str, bytes: &[u8], chars: usize) -> String {
    let hash = hex::encode(Sha256::digest(bytes));
    let start: String = text.chars().take(chars - HASH_CHARS - 1).collect();
    format!("{start}~{}", &hash[..HASH_CHARS])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_fit_stay_as_they_are() {
        for (table, column, text) in [
            ("jobs", "options", r#"{"force": true}"#),
            ("jobs", "report", r#"{"digest":"sha256:0","n":1.50}"#),
            ("jobs", "source", "a.example/x:1"),
            ("queues", "name", "ünï"),
        ] {
            let mut texts = Texts::default();
            assert_eq!(texts.value(table, column, text.as_bytes(), None).unwrap(), text);
            assert_eq!(texts.changed, 0);
        }
    }

    #[test]
    fn others_are_made_to_fit() {
        assert_eq!(fitting("jobs", "failure_message", b"a\0b\xff"), "a\u{fffd}b\u{fffd}");
        assert_eq!(fitting("job_events", "detail", b"no json"), r#""no json""#);
        assert_eq!(fitting("jobs", "report", br#"{"a":"x\u0000y"}"#), r#"{"a":"x\ufffdy"}"#);
        assert_eq!(fitting("jobs", "report", br#"{"a":"\ud800"}"#), r#""{\"a\":\"\\ud800\"}""#);
        assert_eq!(fitting("jobs", "options", b"[1]"), r#"{"unreadable":"[1]"}"#);
        let long = [vec![0xff; REFERENCE_BYTES], vec![]].concat();
        assert!(fitting("jobs", "source", &long).len() <= REFERENCE_BYTES);
        let (one, other) = (fitting("queues", "name", b"a\0"), fitting("queues", "name", b"a\xff"));
        assert_ne!(one, other);
        assert_eq!(one, fitting("jobs", "queue", b"a\0"));
        let long = fitting("jobs", "queue", &[b"a\0".as_slice(), &[b'x'; 500]].concat());
        assert_eq!(long.chars().count(), QUEUE_CHARS);
        let mut texts = Texts::default();
        texts.value("jobs", "source", b"\0", Some(1)).unwrap();
        assert_eq!(texts.changed, 1);
    }

    #[test]
    fn a_key_that_is_too_long_is_refused_and_one_that_must_change_fits() {
        let mut texts = Texts::default();
        for (table, column) in [("jobs", "idempotency_key"), ("idempotency_keys", "key")] {
            assert!(texts.value(table, column, &[b'k'; KEY_BYTES], Some(7)).is_ok());
            let error = texts.value(table, column, &[b'k'; KEY_BYTES + 1], Some(7)).unwrap_err().to_string();
            assert!(error.contains("job 7") && error.contains("2601") && error.contains("2600"), "{error}");
            let changed = texts.value(table, column, &[0xff; 4096], Some(7)).unwrap();
            assert!(changed.as_str().unwrap().len() <= KEY_BYTES);
        }
    }
}
