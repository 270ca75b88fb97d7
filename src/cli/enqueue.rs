//! `enqueue SRC DST` and `enqueue --from-file FILE`: insert rows, print ids.
//!
//! A file is read whole and checked whole before anything is inserted. Then it goes in by transactions of
//! [`BATCH`] jobs, each with an idempotency key made from the content, the number of the load, and the line. So a load that
//! was interrupted adds only what is missing when it is repeated, and one that was finished is a new request.

use super::copy::CopyArgs;
use super::error::{Error, Result};
use super::lines::{BadLine, Defaults, Lines};
use super::output::{Output, Rows};
use super::{Context, replicate, tree};
use crate::job::{Enqueued, NewJob};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Jobs inserted in one transaction: few enough that claims get their turn between them.
const BATCH: usize = 1000;
/// References in one call, bytes: a call is one transaction, and each reference is written several times.
const BATCH_BYTES: usize = 1024 * 1024;
/// Largest file, bytes: over a million lines. It is read whole, because all of it is checked before any of it counts.
const FILE_LIMIT_BYTES: u64 = 256 * 1024 * 1024;
/// Bad lines that are reported one by one; the rest is counted.
const BAD_LINES_SHOWN: usize = 100;

/// Put copies into the queue.
#[derive(Debug, clap::Args)]
pub struct EnqueueArgs {
    /// Where from: [docker://]HOST[:PORT]/REPO[:TAG][@DIGEST] or oci:DIR[:TAG].
    #[arg(value_name = "SRC", required_unless_present = "from_file", requires = "destination")]
    source: Option<String>,
    /// Where to, in the same form.
    #[arg(value_name = "DST")]
    destination: Option<String>,
    /// Many jobs: `SRC DST` a line or JSON Lines, `-` for standard input; the options hold for every line.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["source", "destination", "idempotency_key"])]
    from_file: Option<PathBuf>,
    #[command(flatten)]
    copy: CopyArgs,
}

/// Does it.
///
/// # Errors
/// Wrong usage, bad lines (nothing was inserted then), or the database cannot be written.
pub async fn run(context: &mut Context, arguments: EnqueueArgs) -> Result {
    let EnqueueArgs { source, destination, from_file, copy } = arguments;
    if let Some(path) = from_file {
        if copy.several().is_some() {
            return Err(Error::not_implemented("--tags and --all-tags with --from-file; write a line for each"));
        }
        return load(context, &copy, &path).await;
    }
    let (Some(source), Some(destination)) = (source, destination) else {
        return Err(Error::usage("enqueue takes SRC and DST, or --from-file FILE"));
    };
    if copy.several().is_some() {
        return tree::tags(context, &source, &destination, &copy, true).await;
    }
    let job = copy.job(context, &source, &destination)?;
    if copy.dry_run {
        return replicate::preview(context, &job).await;
    }
    let store = context.store().await?;
    let enqueued = store.enqueue(vec![job], &context.actor()).await?;
    enqueued.into_iter().try_for_each(|enqueued| print_one(&mut context.output, enqueued))
}

/// The id for people, the object for programs.
///
/// # Errors
/// Stdout cannot be written.
pub fn print_one(output: &mut Output, enqueued: Enqueued) -> Result {
    if output.format().is_json() { output.compact(&enqueued) } else { output.line(&enqueued.id.to_string()) }
}

async fn load(context: &mut Context, copy: &CopyArgs, path: &Path) -> Result {
    let name = if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
    let content = read(path, &name).await?;
    let defaults = Defaults {
        copy,
        base: context.config.base.clone(),
        max_attempts: context.config.max_attempts(),
        now: context.clock.now(),
    };
    let lines = Lines::new(&content, &defaults);
    let checked = lines.check().map_err(|bad| report_bad(context, &name, &bad))?;
    if copy.dry_run {
        return preview(context, &lines);
    }
    if checked.jobs == 0 {
        context.notes.note(&format!("{name} asks for no job"));
        return if context.format().is_json() { context.output.rows::<Enqueued>([]) } else { Ok(()) };
    }
    let hash = content_hash(&content, copy, checked.has_layouts.then_some(&context.config.base));
    let store = context.store().await?;
    let number = store.load_number(&hash).await?;
    let actor = context.actor();
    let mut rows = Rows::new(context.format());
    let mut inserted = 0_usize;
    let mut batch = Vec::with_capacity(BATCH);
    let mut bytes = 0;
    let mut jobs = lines.jobs().peekable();
    while let Some((line, job)) = jobs.next() {
        let mut job: NewJob = job?;
        job.idempotency_key.get_or_insert_with(|| format!("file:{hash}:{number}:{line}"));
        bytes += job.source.len() + job.destination.len();
        batch.push(job);
        if batch.len() < BATCH && bytes < BATCH_BYTES && jobs.peek().is_some() {
            continue;
        }
        bytes = 0;
        let enqueued = match store.enqueue(std::mem::take(&mut batch), &actor).await {
            Ok(enqueued) => enqueued,
            Err(error) => {
                // The rows that are in have been told about; the array must still be one.
                rows.end(&mut context.output)?;
                return Err(stopped(error.into(), &name, inserted, checked.jobs));
            }
        };
        inserted += enqueued.len();
        for enqueued in enqueued {
            if context.format().is_json() {
                rows.add(&mut context.output, &enqueued)?;
            } else {
                context.output.line(&enqueued.id.to_string())?;
            }
        }
    }
    rows.end(&mut context.output)?;
    // Only who has read all ids has the whole answer: before that, repeating must find the same jobs.
    context.output.flush()?;
    Ok(store.load_finished(&hash, number).await?)
}

fn stopped(error: Error, name: &str, inserted: usize, jobs: usize) -> Error {
    let message = format!("{name}: {inserted} of {jobs} jobs are in, then: {}", error.message);
    let hint = "repeat the same command: it adds only what is missing";
    Error { message, hint: error.hint.clone().or_else(|| Some(hint.to_owned())), ..error }
}

fn preview(context: &mut Context, lines: &Lines<'_>) -> Result {
    let mut rows = Rows::new(context.format());
    for (line, job) in lines.jobs() {
        let NewJob { source, destination, .. } = job?;
        if context.format().is_json() {
            let row = serde_json::json!({"line": line, "source": source, "destination": destination});
            rows.add(&mut context.output, &row)?;
        } else {
            context.output.line(&format!("{source} -> {destination}"))?;
        }
    }
    rows.end(&mut context.output)
}

/// Says which lines are bad; the error that ends the command.
fn report_bad(context: &Context, name: &str, bad: &[BadLine]) -> Error {
    let shown = bad.iter().take(BAD_LINES_SHOWN);
    for BadLine { line, message } in shown.clone() {
        context.notes.note(&format!("{name}: line {line}: {message}"));
    }
    if bad.len() > BAD_LINES_SHOWN {
        context.notes.note(&format!("{name}: and {} more", bad.len() - BAD_LINES_SHOWN));
    }
    let plural = if bad.len() == 1 { "line is" } else { "lines are" };
    let message = format!("{name}: {} {plural} bad; nothing was inserted", bad.len());
    let lines = shown.map(|bad| serde_json::json!({"line": bad.line, "message": bad.message})).collect();
    let only_absent = bad.iter().all(|bad| bad.message.contains("not implemented: "));
    let error = if only_absent {
        Error::failed("not_implemented", message)
    } else {
        Error { code: "invalid".to_owned(), ..Error::usage(message) }
    };
    error.lines(serde_json::Value::Array(lines))
}

/// What a load is known by: the content, and whatever else of the command decides what its lines mean.
fn content_hash(content: &[u8], copy: &CopyArgs, base: Option<&PathBuf>) -> String {
    let mut hash = Sha256::new();
    hash.update(content);
    let unchanged = CopyArgs { dry_run: false, ..copy.clone() };
    let meaning = format!("{unchanged:?}");
    if meaning != format!("{:?}", CopyArgs::default()) {
        hash.update([0]);
        hash.update(meaning.as_bytes());
    }
    if let Some(base) = base {
        hash.update([0]);
        hash.update(base.as_os_str().as_encoded_bytes());
    }
    hex::encode(hash.finalize())
}

/// The whole file, or standard input.
async fn read(path: &Path, name: &str) -> Result<Vec<u8>> {
    let path = path.to_owned();
    let name_inside = name.to_owned();
    let read = move || -> Result<Vec<u8>> {
        let failed = |error: std::io::Error| Error::usage(format!("cannot read {name_inside}: {error}"));
        let mut content = Vec::new();
        if path == Path::new("-") {
            std::io::stdin().lock().take(FILE_LIMIT_BYTES + 1).read_to_end(&mut content).map_err(failed)?;
        } else {
            let file = std::fs::File::open(&path).map_err(failed)?;
            file.take(FILE_LIMIT_BYTES + 1).read_to_end(&mut content).map_err(failed)?;
        }
        Ok(content)
    };
    // Standard input may keep us waiting; a signal must still end the command.
    let content = tokio::task::spawn_blocking(read)
        .await
        .map_err(|error| Error::failed("io", format!("reading {name} failed: {error}")))??;
    if u64::try_from(content.len()).unwrap_or(u64::MAX) > FILE_LIMIT_BYTES {
        return Err(Error::usage(format!("{name} is larger than {FILE_LIMIT_BYTES} bytes: split it")));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_known_by_what_its_lines_mean() {
        let plain = CopyArgs::default();
        let hash = content_hash(b"a b\n", &plain, None);
        assert_eq!(hash, hex::encode(Sha256::digest(b"a b\n")));
        assert_eq!(hash, content_hash(b"a b\n", &CopyArgs { dry_run: true, ..plain.clone() }, None));
        assert_ne!(hash, content_hash(b"a c\n", &plain, None));
        assert_ne!(hash, content_hash(b"a b\n", &CopyArgs { priority: Some(5), ..plain.clone() }, None));
        assert_ne!(hash, content_hash(b"a b\n", &plain, Some(&PathBuf::from("/work"))));
    }
}
