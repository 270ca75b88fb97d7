//! Many copies asked for as one: trees, tags, files of rules and mirrors, on real processes, killed and refused.

mod expand;
mod mirrors;
mod tree;

use crate::support::binary::{Binary, Output};
use crate::support::fake::{Fake, Options};
use crate::support::image::{Image, ImageBuilder};
use serde_json::Value;

/// Two registries and a program.
pub struct Scene {
    pub binary: Binary,
    pub source: Fake,
    pub destination: Fake,
}

impl Scene {
    pub fn new() -> Self {
        Self::with(Binary::new(), Options::default())
    }

    pub fn with(binary: Binary, options: Options) -> Self {
        let binary = binary.env("FREIGHTLINER_RETRY_BASE_MS", "30").env("FREIGHTLINER_REGISTRY_TRIES", "1");
        Self { binary, source: Fake::start_with(options), destination: Fake::start() }
    }

    /// Puts an image of its own under each tag.
    pub fn fill(&self, repository: &str, tags: &[&str]) -> Vec<Image> {
        let seed = |tag: &str| {
            format!("{repository}:{tag}").bytes().fold(7, |sum: u64, byte| sum * 31 % 1_000_003 + u64::from(byte))
        };
        tags.iter()
            .map(|tag| {
                let image = ImageBuilder::oci(seed(tag)).layers(1, 2000).build();
                self.source.put_image(repository, tag, &image);
                image
            })
            .collect()
    }

    pub fn at_source(&self, path: &str) -> String {
        format!("{}/{path}", self.source.authority()).trim_end_matches('/').to_owned()
    }

    pub fn at_destination(&self, path: &str) -> String {
        format!("{}/{path}", self.destination.authority()).trim_end_matches('/').to_owned()
    }

    /// What the destination has, sorted: `repository:tag`.
    pub fn copied(&self) -> Vec<String> {
        let mut all: Vec<String> = self
            .destination
            .repositories()
            .into_iter()
            .flat_map(|name| {
                self.destination.tags(&name).into_iter().map(move |tag| format!("{name}:{tag}")).collect::<Vec<_>>()
            })
            .collect();
        all.sort();
        all
    }

    pub fn tree(&self, from: &str, to: &str, options: &[&str]) -> Output {
        let (from, to) = (self.at_source(from), self.at_destination(to));
        self.binary.run(&[&["replicate-tree", &from, &to], options].concat())
    }
}

/// The only batch.
pub fn batch(binary: &Binary) -> Value {
    let batches = binary.run(&["batch", "list", "-o", "json"]).success().json();
    assert_eq!(batches.as_array().unwrap().len(), 1, "{batches:#}");
    batches[0].clone()
}

pub fn id(batch: &Value) -> String {
    batch["id"].as_str().unwrap().to_owned()
}

/// A number that a query gives.
pub fn number(binary: &Binary, query: &str) -> i64 {
    let rows = binary.run(&["sql", &format!("SELECT ({query}) AS n"), "-o", "json"]).success().json();
    rows[0]["n"].as_i64().unwrap_or_else(|| panic!("{rows}"))
}
