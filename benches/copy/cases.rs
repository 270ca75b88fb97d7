//! What is copied, by whom, and what should come out.

use crate::corpus::Corpus;
use crate::lab::{Ends, Network};
use crate::process::{Cost, run};
use crate::report::{Run, mebibytes};
use crate::tools::{Ours, curl_pipe, file_copy, skopeo_copy, skopeo_sync};
use crate::{Bench, Measured};
use std::path::Path;
use std::time::Duration;

/// The repository of the large layer.
pub const ONE: &str = "one/large";
const MANY: &str = "one/many";
const SMALL_LAYER_BYTES: u64 = 256 * 1024;
/// Most memory that a copy may take, MiB.
const PEAK_MIB: f64 = 48.0;
/// Requests of the 200 images that are allowed for each of the fewest possible.
const OVER_FLOOR: f64 = 2000.0 / 1830.0;

/// The corpora, made when they are first asked for.
pub struct Sources {
    folder: tempfile::TempDir,
    large: Option<Corpus>,
    many: Option<Corpus>,
}

impl Sources {
    /// None yet.
    ///
    /// # Errors
    /// There is no temporary folder.
    pub fn new() -> Measured<Self> {
        Ok(Self { folder: tempfile::tempdir()?, large: None, many: None })
    }

    /// The folder of a registry.
    pub fn at(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn storage(&self, name: &str) -> std::path::PathBuf {
        self.at(name).join("storage/docker/registry/v2")
    }

    /// One image with one layer of so many bytes.
    ///
    /// # Errors
    /// The storage cannot be written.
    pub fn large(&mut self, bytes: u64) -> Measured<Corpus> {
        if self.large.is_none() {
            let mut corpus = Corpus::new(self.storage("large"));
            corpus.image_of(ONE, 1, bytes)?;
            self.large = Some(corpus);
        }
        Ok(self.large.clone().unwrap_or_default())
    }

    fn many(&mut self, layers: usize) -> Measured<Corpus> {
        if self.many.is_none() {
            let mut corpus = Corpus::new(self.storage("many"));
            corpus.image_of(MANY, layers, SMALL_LAYER_BYTES)?;
            self.many = Some(corpus);
        }
        Ok(self.many.clone().unwrap_or_default())
    }
}

fn ratio(ours: Duration, other: Duration) -> f64 {
    ours.as_secs_f64() / other.as_secs_f64().max(f64::EPSILON)
}

impl Bench {
    /// Bytes of the large layer.
    pub const fn large_bytes(&self) -> u64 {
        if self.quick { 256 << 20 } else { 1 << 30 }
    }

    fn memory(&mut self, what: &str, cost: Cost) -> Measured {
        self.report.goal(format!("{what}: peak memory"), mebibytes(cost.peak_bytes), "MiB", PEAK_MIB)
    }

    /// One layer of 1 GiB.
    ///
    /// # Errors
    /// A tool failed.
    pub async fn layer(&mut self, network: Network) -> Measured {
        let corpus = self.sources.large(self.large_bytes())?;
        let digest = corpus.blob_of(self.large_bytes()).ok_or("the large layer has no digest")?.to_owned();
        let image = format!("{ONE}:1");
        let (mut ours, mut skopeo, mut curl, mut plain) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let source = self.sources.at("large");
        let nothing = Corpus::default();
        for _ in 0..self.runs(network) {
            let ends = Ends::new(&source, network).await?;
            let state = ends.folder("state")?;
            let copy = Ours { state: &state };
            ours.push(ends.measure("layer", "freightliner", &corpus, copy.replicate(&ends, &image)).await?);
            let ends = Ends::new(&source, network).await?;
            let home = ends.folder("home")?;
            skopeo.push(ends.measure("layer", "skopeo copy", &corpus, skopeo_copy(&home, &ends, &image)).await?);
            let ends = Ends::new(&source, network).await?;
            curl.push(ends.measure("layer", "curl pipe", &nothing, curl_pipe(&ends, ONE, &digest)).await?);
            plain.push(self.plain("layer", &ends, &source).await?);
        }
        let (ours, _) = (self.report.add(ours)?, self.report.add(skopeo)?);
        let (curl, _) = (self.report.add(curl)?, self.report.add(plain)?);
        let name = format!("one large layer, {}", network.name());
        self.report.goal(format!("{name}: wall"), ratio(ours.wall, curl.wall), "x curl pipe", 0.95)?;
        if network == Network::Local {
            let limit = mebibytes(self.large_bytes()) / 1024.0;
            self.report.goal(format!("{name}: processor time"), ours.cpu.as_secs_f64(), "s", limit)?;
        }
        self.memory(&name, ours)
    }

    /// One layer of 1 GiB from a source that gives each connection only little: in one stream, and in parts side by side.
    ///
    /// # Errors
    /// The program failed.
    pub async fn layer_narrow(&mut self) -> Measured {
        let size = self.large_bytes();
        let corpus = self.sources.large(size)?;
        let mut costs = Vec::new();
        for (at_once, tool) in [("1", "one stream"), ("4", "4 parts at once")] {
            let ends = Ends::new(&self.sources.at("large"), Network::Narrow).await?;
            let state = ends.folder("state")?;
            let ours = Ours { state: &state };
            let (from, to) = (format!("{}/{ONE}:1", ends.source.address()), format!("{}/{ONE}:1", ends.to()));
            let mut command = ours.command(&["replicate", "--no-referrers", &from, &to]);
            command.env("FREIGHTLINER_COPY_RANGES_FROM_BYTES", size.to_string());
            command.env("FREIGHTLINER_COPY_RANGES_AT_ONCE", at_once);
            let run = ends.measure("layer", tool, &corpus, run(&mut command)).await?;
            costs.push(self.report.add(vec![run])?);
        }
        let [stream, parts] = costs.as_slice() else { return Err("two copies are compared".into()) };
        self.report.goal("one large layer, 32 MiB/s: wall", ratio(parts.wall, stream.wall), "x one stream", 0.5)?;
        self.memory("one large layer in parts", *parts)
    }

    async fn plain(&self, case: &'static str, ends: &Ends, source: &Path) -> Measured<Run> {
        let to = ends.folder("plain")?;
        ends.measure(case, "cp", &Corpus::default(), file_copy(&source.join("storage"), &to)).await
    }

    /// One image of 60 small layers.
    ///
    /// # Errors
    /// A tool failed.
    pub async fn layers(&mut self, network: Network) -> Measured {
        let corpus = self.sources.many(60)?;
        let image = format!("{MANY}:1");
        let (mut ours, mut skopeo) = (Vec::new(), Vec::new());
        for _ in 0..self.runs(network) {
            let ends = Ends::new(&self.sources.at("many"), network).await?;
            let state = ends.folder("state")?;
            let copy = Ours { state: &state };
            ours.push(ends.measure("layers", "freightliner", &corpus, copy.replicate(&ends, &image)).await?);
            let ends = Ends::new(&self.sources.at("many"), network).await?;
            let home = ends.folder("home")?;
            skopeo.push(ends.measure("layers", "skopeo copy", &corpus, skopeo_copy(&home, &ends, &image)).await?);
        }
        let ours = self.report.add(ours)?;
        let requests = self.report.last().map_or(0, |run| run.requests_source + run.requests_destination);
        let skopeo = self.report.add(skopeo)?;
        let name = format!("60 small layers, {}", network.name());
        self.report.goal(format!("{name}: wall"), ratio(ours.wall, skopeo.wall), "x skopeo copy", 0.6)?;
        // A configuration is a blob too: 61 of them; first contact with two registries.
        self.report.goal(format!("{name}: requests"), f64::from(u32::try_from(requests)?), "", 3.0 * 61.0 + 10.0)?;
        self.memory(&name, ours)
    }

    /// 200 images, the same again, and again with 5 % changed.
    ///
    /// # Errors
    /// A tool failed.
    pub async fn corpus(&mut self, network: Network) -> Measured {
        let images = if self.quick { 40 } else { 200 };
        let mut runs: [[Vec<Run>; 2]; 3] = Default::default();
        let mut plain = Vec::new();
        let (mut floor, mut tags) = (0, 0);
        for _ in 0..self.runs(network) {
            for (who, kept) in [0, 1].into_iter().zip(["ours", "skopeo"]) {
                // Each starts from the same corpus, and changes it.
                let folder = tempfile::tempdir()?;
                let mut corpus = Corpus::new(folder.path().join("storage/docker/registry/v2"));
                corpus.fleet(images)?;
                (floor, tags) = (corpus.floor(), corpus.tags.len());
                let ends = Ends::new(folder.path(), network).await?;
                let home = ends.folder(kept)?;
                for (round, case) in ["cold", "unchanged", "5 % changed"].into_iter().enumerate() {
                    if round == 2 {
                        corpus.change(images)?;
                    }
                    let run = if who == 0 {
                        let copy = Ours { state: &home };
                        ends.measure(case, "freightliner", &corpus, copy.drain(&ends, &corpus, case)).await?
                    } else {
                        ends.measure(case, "skopeo sync", &corpus, skopeo_sync(&home, &ends, &corpus)).await?
                    };
                    runs[round][who].push(run);
                }
                if who == 0 {
                    plain.push(self.plain("changed corpus", &ends, folder.path()).await?);
                }
            }
        }
        self.report.add(plain)?;
        self.judge_corpus(network, runs, floor, tags)
    }

    fn judge_corpus(&mut self, network: Network, runs: [[Vec<Run>; 2]; 3], floor: usize, tags: usize) -> Measured {
        let far = network == Network::Far;
        let limits = if far { [Some(0.07), Some(0.03), None] } else { [Some(0.30), Some(0.12), None] };
        for (index, [ours, skopeo]) in runs.into_iter().enumerate() {
            let ours = self.report.add(ours)?;
            let (case, at_source, at_destination) = self
                .report
                .last()
                .map(|run| (run.case, run.requests_source, run.requests_destination))
                .ok_or("nothing was measured")?;
            let skopeo = self.report.add(skopeo)?;
            let name = format!("corpus {case}, {}", network.name());
            if let Some(limit) = limits[index] {
                self.report.goal(format!("{name}: wall"), ratio(ours.wall, skopeo.wall), "x skopeo sync", limit)?;
            }
            if case == "cold" {
                self.report.goal(
                    format!("{name}: processor time"),
                    ratio(ours.cpu, skopeo.cpu),
                    "x skopeo sync",
                    0.2,
                )?;
                let limit = f64::from(u32::try_from(floor)?) * OVER_FLOOR;
                let name = format!("{name}: requests at the destination (at least {floor})");
                self.report.goal(name, f64::from(u32::try_from(at_destination)?), "", limit)?;
            }
            if case == "unchanged" {
                let requests = f64::from(u32::try_from(at_source + at_destination)?);
                let tags = f64::from(u32::try_from(tags)?);
                self.report.goal(format!("{name}: requests"), requests / tags, "a tag", 2.0)?;
            }
            self.memory(&name, ours)?;
        }
        Ok(())
    }
}
