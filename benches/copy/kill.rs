//! One large layer, whose copy is killed at random points and begun again each time.
//!
//! At `docker-registry`, which cannot go on with a chunk that was cut: its Location is signed for another number of bytes. And
//! at registries that can (`chunks`): those that keep what arrived of a cut chunk, and those that drop it.

use crate::cases::ONE;
use crate::chunks::{Chunks, Cut};
use crate::corpus::random;
use crate::lab::{Ends, Network};
use crate::process::{Process, run};
use crate::registry::Registry;
use crate::report::{Run, mebibytes};
use crate::tools::{Ours, uploads};
use crate::{Bench, Measured};
use freightliner::clock::Clock;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Kills of one copy.
const KILLS: u64 = 10;
/// The largest part of a blob that may be sent again for each.
const CHUNK_MIB: f64 = 32.0;
/// An upload that has not grown for so long is over.
const QUIET: Duration = Duration::from_millis(200);
/// How long a copy may take to get to the next kill.
const KILL_LIMIT: Duration = Duration::from_secs(300);

/// The uploads of the large layer, once none of them grows any more.
async fn settled(storage: &Path) -> BTreeMap<OsString, u64> {
    let mut before = uploads(storage, ONE);
    loop {
        tokio::time::sleep(QUIET).await;
        let now = uploads(storage, ONE);
        if now == before {
            return now;
        }
        before = now;
    }
}

/// Where to kill, in ascending order. A copy that has almost ended is over before anybody sees it.
fn points(size: u64) -> Vec<u64> {
    let (last, seed) = (size / 10 * 9, uuid::Uuid::now_v7());
    let mut points: Vec<u64> = (0..KILLS).map(|number| random(&format!("{seed} {number}")) % last).collect();
    points.sort_unstable();
    points
}

fn copy(ours: &Ours<'_>, from: &str, to: &str) -> Command {
    ours.command(&["replicate", "--no-referrers", "--max-attempts", "50", from, to])
}

/// Starts a copy and kills it when it is at byte `point`.
async fn kill_at(mut command: Command, point: u64, position: impl Fn() -> u64) -> Measured {
    let process = Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))?;
    let start = Clock::System.boot();
    while position() < point {
        if process.has_ended()? || Clock::System.boot().since(start) > KILL_LIMIT {
            return Err(format!("the copy did not get to byte {point}").into());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    process.kill()
}

impl Bench {
    /// At `docker-registry`.
    ///
    /// # Errors
    /// The copy failed for another reason.
    pub async fn kill(&mut self) -> Measured {
        let size = self.large_bytes();
        let corpus = self.sources.large(size)?;
        let ends = Ends::new(&self.sources.at("large"), Network::Counted).await?;
        let state = ends.folder("state")?;
        let ours = Ours { state: &state };
        let image = format!("{ONE}:1");
        let (from, to) = (format!("{}/{image}", ends.source.address()), format!("{}/{image}", ends.to()));
        let storage = ends.destination.storage();
        for point in points(size) {
            // What an earlier copy left stands still; the upload that moves is that of this one.
            let before = settled(&storage).await;
            let moving = |(name, size): (OsString, u64)| (before.get(&name) != Some(&size)).then_some(size);
            let position = || uploads(&storage, ONE).into_iter().filter_map(moving).max().unwrap_or(0);
            kill_at(copy(&ours, &from, &to), point, position).await?;
        }
        let run = ends.measure("killed", "freightliner", &corpus, ours.replicate(&ends, &image)).await?;
        let sent = ends.destination.bytes().map_or(0, |(bytes, _)| bytes);
        self.report.add(vec![run])?;
        self.sent_again("docker-registry", size, sent)
    }

    /// At registries that go on with what was cut.
    ///
    /// # Errors
    /// The copy failed for another reason, or what the registry has is not the layer.
    pub async fn kill_chunks(&mut self) -> Measured {
        for (cut, case) in [(Cut::Kept, "killed, cuts kept"), (Cut::Dropped, "killed, cuts dropped")] {
            let size = self.large_bytes();
            let corpus = self.sources.large(size)?;
            let digest = corpus.blob_of(size).ok_or("the large layer has no digest")?;
            let source = Registry::start(&self.sources.at("large"), None).await?;
            let destination = Chunks::start(cut).await?;
            let folder = tempfile::tempdir()?;
            let ours = Ours { state: folder.path() };
            let [from, to] = [source.address(), destination.address()].map(|address| format!("{address}/{ONE}:1"));
            for point in points(size) {
                // Where the copy before was killed is no place of this one: it counts from its first byte on.
                let before = destination.bytes();
                let position = || if destination.bytes() > before { destination.position() } else { 0 };
                kill_at(copy(&ours, &from, &to), point, position).await?;
            }
            let (asked, answered) = (source.asked().await?, destination.requests());
            let cost = run(&mut copy(&ours, &from, &to)).await?;
            if destination.holds(digest) != Some(size) {
                return Err(format!("the registry does not have the layer {digest}").into());
            }
            let manifest = corpus.tags.get(&(ONE.to_owned(), "1".to_owned())).ok_or("the image has no tag")?;
            if !destination.names(ONE, "1", manifest) {
                return Err(format!("the tag does not name {manifest}").into());
            }
            let ended = source.asked().await?;
            self.report.add(vec![Run {
                case,
                network: Network::Local.name(),
                tool: "freightliner",
                cost,
                requests_source: ended.requests - asked.requests,
                requests_destination: destination.requests() - answered,
                bytes_out: Some(ended.bytes_answered - asked.bytes_answered),
                bytes_in: Some(destination.bytes()),
            }])?;
            self.sent_again(case, size, destination.bytes())?;
        }
        Ok(())
    }

    /// `sent`: bytes that went to the destination in all.
    fn sent_again(&mut self, at: &str, size: u64, sent: u64) -> Measured {
        let again = mebibytes(sent.saturating_sub(size)) / CHUNK_MIB;
        let name = format!("{KILLS} kills of a copy of {} MiB ({at}): chunks of 32 MiB sent again", size >> 20);
        self.report.goal(name, again, "", f64::from(u32::try_from(KILLS)?))
    }
}
