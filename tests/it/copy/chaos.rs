//! Copies between registries that answer at random: whatever they say, no tag ever names what is not there.
//!
//! Each seed draws an image, the habits of both registries and a script of bad answers. The run must end; then what the
//! destination really holds is looked at, past HTTP. Then both registries are well again, and the same copy must succeed:
//! nothing that was remembered of the bad days may stand in its way.
//!
//! `FREIGHTLINER_TEST_SEED=N` replays one seed and shows what happened; `FREIGHTLINER_TEST_SEEDS=N` runs so many, from
//! `FREIGHTLINER_TEST_FIRST_SEED` on.

use super::{binary, replicate};
use crate::support::binary::{Binary, Output};
use crate::support::chaos::{self, Dice, Honesty};
use crate::support::content::{Algorithm, Content};
use crate::support::fake::{Fake, LoggedRequest};
use crate::support::image::{self, Image, ImageBuilder, media};
use serde_json::Value;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Seeds of a normal run of the suite.
const SEEDS: u64 = 40;
/// Runs at a time: they mostly wait.
const AT_ONCE: usize = 8;
/// Bytes of a chunk, so that the large layer has several.
const CHUNK: u64 = 512 * 1024;
/// Attempts of a job.
const ATTEMPTS: &str = "4";
/// Most requests to one registry in one run: the attempts, each with all there is to ask, and the tries of bad answers.
const REQUESTS: usize = 320;

/// One run's surroundings.
struct Run {
    source: Fake,
    destination: Fake,
    image: Image,
    /// What the tag named before.
    before: Option<String>,
    binary: Binary,
    script: Vec<String>,
}

impl Run {
    fn draw(seed: u64, honesty: Honesty) -> Self {
        let mut dice = Dice::new(seed);
        let habits = chaos::source_habits(&mut dice);
        // Who does not say what a tag's digest is may say anything, and nobody can tell.
        let provable = habits.digest_header;
        let source = Fake::start_with(habits);
        let destination = Fake::start_with(chaos::destination_habits(&mut dice));
        let image = draw_image(&mut dice);
        source.put_image("a", "v1", &image);
        if dice.one_in(2) {
            destination.put_image("b", "v1", &ImageBuilder::oci(77).layer(500).build());
        }
        if dice.one_in(3) {
            let blob = image.all_blobs()[0];
            destination.put_blob("b", blob.content.clone());
        }
        let mut script = Vec::new();
        let (reading, writing) = (dice.below(4), dice.below(7));
        script.extend(chaos::source(&source, &mut dice, reading, provable));
        script.extend(chaos::destination(&destination, &mut dice, writing, honesty));
        let binary = binary()
            .env("FREIGHTLINER_RETRY_BASE_MS", "10")
            .env("FREIGHTLINER_REGISTRY_TRIES", dice.pick(&["1", "2", "3"]));
        let config = format!("[registries.\"{}\"]\nchunk_bytes = {CHUNK}\n", destination.authority());
        std::fs::write(binary.home().join("config.toml"), config).unwrap();
        let before = destination.digest_of("b", "v1");
        Self { source, destination, image, before, binary, script }
    }

    fn copy(&self) -> Output {
        let config = self.binary.home().join("config.toml");
        let (from, to) = (self.source.reference("a", "v1"), self.destination.reference("b", "v1"));
        let more = ["--config", config.to_str().unwrap(), "--max-attempts", ATTEMPTS];
        replicate(&self.binary, &from, &to, &more)
    }

    /// What every end of a run must be like.
    fn check_end(&self, output: &Output) -> Result<bool, String> {
        let job: Value = serde_json::from_slice(&output.stdout).map_err(|error| format!("no job: {error}"))?;
        let (state, error) = (job["state"].as_str(), output.errors());
        demand(!error.contains("panicked"), "it panicked")?;
        let completed = match (output.code(), state) {
            (Some(0), Some("completed")) => true,
            (Some(1), Some("failed")) => false,
            other => return Err(format!("it ended as {other:?}")),
        };
        let message = job["failure"]["message"].as_str().unwrap_or_default();
        demand(completed || !message.is_empty(), "it failed without saying why")?;
        for fake in [&self.source, &self.destination] {
            let count = fake.requests().len();
            demand(count <= REQUESTS, &format!("{count} requests to one registry"))?;
        }
        demand(self.binary.leftovers().is_empty(), &format!("left behind: {:?}", self.binary.leftovers()))?;
        if completed {
            self.check_transfers(&job)?;
        }
        Ok(completed)
    }

    /// The rows of the audit say what the report says.
    fn check_transfers(&self, job: &Value) -> Result<(), String> {
        let query = format!(
            "SELECT how, COUNT(*) FROM audit_transfers WHERE job_id = {} AND attempt = {} GROUP BY how",
            job["id"], job["attempt"]
        );
        let Some(rows) = self.binary.sql(&query) else { return Ok(()) };
        for (how, field) in [("copied", "blobs_copied"), ("mounted", "blobs_mounted"), ("resumed", "blobs_resumed")] {
            let row = rows.iter().find_map(|row| row.strip_prefix(&format!("{how}|"))).unwrap_or("0");
            let said = job["report"][field].to_string();
            demand(row == said, &format!("{field} is {said}, but there are {row} rows: {rows:?}"))?;
        }
        Ok(())
    }

    /// What the destination holds after a run in which it did not lie about content.
    fn check_content(&self, completed: bool) -> Result<(), String> {
        let now = self.destination.digest_of("b", "v1");
        // Moved, and the answer lost or wrong: that can only be seen at the next look.
        let published = |seen: &LoggedRequest| seen.method == "PUT" && seen.path.contains("/manifests/v1");
        let spoiled = self.script.iter().any(|fault| fault.contains("WrongDigestHeader"));
        let lost = self.destination.requests().iter().any(|seen| published(seen) && (spoiled || seen.status.is_none()));
        let right = now.as_deref() == Some(&*self.image.digest);
        demand(right || !completed, &format!("completed, but the tag names {now:?}"))?;
        demand(completed || now == self.before || (right && lost), &format!("failed, but the tag names {now:?}"))?;
        check_store(&self.destination)
    }
}

fn demand(kept: bool, otherwise: &str) -> Result<(), String> {
    if kept { Ok(()) } else { Err(otherwise.to_owned()) }
}

fn draw_image(dice: &mut Dice) -> Image {
    let small = |seed| ImageBuilder::oci(seed).layers(3, 3_000).build();
    match dice.below(4) {
        0 => small(1),
        1 => {
            let arm = ImageBuilder::oci(2).platform("linux", "arm64", None).layer(4_000).build();
            image::index(vec![small(1), arm])
        }
        2 => ImageBuilder::oci(3).layer(2_000).raw_layer(media::OCI_LAYER, Content::seeded(9, 5 * CHUNK + 999)).build(),
        _ => ImageBuilder::docker(4).raw_layer(media::OCI_LAYER, Content::seeded(8, CHUNK + 1)).layer(0).build(),
    }
}

/// Panics never: says what is wrong with what the registry holds. All blobs are what their digests say, and all that a tag
/// names is there.
fn check_store(fake: &Fake) -> Result<(), String> {
    for repository in fake.repositories() {
        for digest in fake.blobs(&repository) {
            let content = fake.blob(&repository, &digest).ok_or("a blob went away")?;
            demand(is(&digest, &content.to_bytes()), &format!("other bytes are held as {digest}"))?;
        }
        for tag in fake.tags(&repository) {
            check_below(fake, &repository, &tag)?;
        }
    }
    Ok(())
}

fn check_below(fake: &Fake, repository: &str, reference: &str) -> Result<(), String> {
    let (_, bytes) = fake.manifest(repository, reference).ok_or_else(|| format!("no manifest {reference}"))?;
    let digest =
        if reference.contains(':') { Some(reference.to_owned()) } else { fake.digest_of(repository, reference) };
    demand(digest.is_some_and(|digest| is(&digest, &bytes)), &format!("other bytes are held as {reference}"))?;
    let manifest: Value = serde_json::from_slice(&bytes).map_err(|error| format!("{reference} is no JSON: {error}"))?;
    let named = |field: &str| -> Vec<String> {
        let list = manifest[field].as_array().cloned().unwrap_or_default();
        list.iter().chain(manifest.get(field)).filter_map(|entry| entry["digest"].as_str().map(str::to_owned)).collect()
    };
    for child in named("manifests") {
        check_below(fake, repository, &child)?;
    }
    for blob in [named("config"), named("layers")].concat() {
        demand(fake.has_blob(repository, &blob), &format!("{reference} names {blob}, which is not there"))?;
    }
    Ok(())
}

fn is(digest: &str, bytes: &[u8]) -> bool {
    Algorithm::of(digest).is_some_and(|algorithm| algorithm.digest(bytes) == digest)
}

/// One seed: a bad run, then a good one.
fn run(seed: u64, honesty: Honesty) -> Result<bool, String> {
    let run = Run::draw(seed, honesty);
    let told = |what: &str, output: &Output| {
        let requests: Vec<String> = [("source", &run.source), ("destination", &run.destination)]
            .iter()
            .flat_map(|(side, fake)| {
                let line = |seen: &LoggedRequest| format!("{side} {} {} {:?}", seen.method, seen.path, seen.status);
                fake.requests().iter().map(line).collect::<Vec<_>>()
            })
            .collect();
        format!("seed {seed} ({honesty:?}): {what}\nscript: {:#?}\nrequests: {requests:#?}\n{output}", run.script)
    };
    let output = run.copy();
    let completed = run.check_end(&output).map_err(|why| told(&why, &output))?;
    if honesty == Honesty::NeverOfContent {
        run.check_content(completed).map_err(|why| told(&why, &output))?;
    }
    for fake in [&run.source, &run.destination] {
        fake.heal();
        fake.clear_requests();
    }
    let again = run.copy();
    let healed = run.check_end(&again).and_then(|healed| {
        demand(healed, "the copy fails although all is well again")?;
        run.check_content(true)
    });
    healed.map_err(|why| told(&format!("after it was healed: {why}\nfirst: {output}"), &again))?;
    Ok(completed)
}

/// Runs all seeds that are asked for; panics with the story of each that failed.
fn run_all(honesty: Honesty) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let one = number("FREIGHTLINER_TEST_SEED");
    let first = one.or_else(|| number("FREIGHTLINER_TEST_FIRST_SEED")).unwrap_or(0);
    let count = one.map_or_else(|| number("FREIGHTLINER_TEST_SEEDS").unwrap_or(SEEDS), |_| 1);
    let (next, completed, failed) = (AtomicU64::new(first), AtomicU64::new(0), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed >= first + count {
                return;
            }
            let outcome = std::panic::catch_unwind(|| run(seed, honesty))
                .unwrap_or_else(|_| Err(format!("seed {seed}: the rig panicked, see above")));
            match outcome {
                Ok(done) => drop(completed.fetch_add(u64::from(done), Ordering::SeqCst)),
                Err(story) => failed.lock().unwrap().push(story),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {count} seeds failed\n{}", failed.len(), failed.join("\n\n"));
    let completed = completed.into_inner();
    eprintln!("{completed} of {count} bad runs completed");
    // Else the scripts are too mild, or so harsh that nothing is tried.
    assert!(one.is_some() || (completed > 0 && completed < count), "{completed} of {count} bad runs completed");
}

#[test]
fn no_tag_names_what_is_not_there_whatever_registries_answer() {
    run_all(Honesty::NeverOfContent);
}

#[test]
fn registries_that_lie_about_content_are_survived_and_healed() {
    run_all(Honesty::None);
}
