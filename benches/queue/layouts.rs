//! The real program at work on jobs that are done already: copies between layouts whose destination has the image.

use crate::database::Database;
use crate::rates::{EVENTS_OF_A_LIFE, expect, fill};
use crate::report::Figure;
use crate::timing::Timer;
use crate::{Bench, Measured, program};
use freightliner::job::{CopyOptions, NewJob};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};

/// Jobs, and destinations.
const JOBS: usize = 20_000;
/// The tag everywhere.
const TAG: &str = "1";

/// `freightliner work --drain` with 20,000 waiting copies whose destinations have the image: the worker as it is, from the
/// start of its process to its end, with nothing to transfer.
///
/// # Errors
/// A job was not completed, or rows or events are missing.
pub async fn drain(bench: &mut Bench) -> Measured {
    let jobs = bench.scaled(JOBS);
    let database = bench.place.fresh()?;
    let store = database.open().await?;
    let source = Image::write(&database)?;
    for number in 0..jobs {
        source.copy_to(&database.folder().join("to").join(number.to_string()))?;
    }
    let job = |number| {
        let destination = format!("oci:{}/to/{number}:{TAG}", database.folder().display());
        Ok(NewJob::parse(&source.reference(), &destination, CopyOptions::default(), Path::new("/"))?)
    };
    fill(&store, jobs, job).await?;
    let timer = Timer::start();
    let worked = program::json(&database, &["work", "--drain"])?;
    let (rate, time) = (timer.rate(jobs), timer.elapsed());
    if worked["completed"] != json!(jobs) {
        return Err(format!("drain: the program says {worked}").into());
    }
    expect(&store, "drain", jobs, jobs, EVENTS_OF_A_LIFE * u64::try_from(jobs)?).await?;
    store.close().await;
    let with = json!({"jobs": jobs, "command": "work --drain", "seconds": time.as_secs_f64()});
    let figure = Figure::new("drain", "drain, work --drain, copies that are there already", rate, "jobs/s", with);
    bench.report.add(figure.against(bench.raw.commits(8), "raw commits"))
}

/// The smallest image, as a layout.
struct Image {
    folder: PathBuf,
    blobs: Vec<(String, Vec<u8>)>,
    index: String,
}

impl Image {
    fn write(database: &Database) -> Measured<Self> {
        let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#.to_vec();
        let config_digest = hex::encode(Sha256::digest(&config));
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": [],
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json", "digest": format!("sha256:{config_digest}"),
                "size": config.len(),
            },
        });
        let manifest = manifest.to_string().into_bytes();
        let digest = hex::encode(Sha256::digest(&manifest));
        let index = json!({
            "schemaVersion": 2,
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": format!("sha256:{digest}"),
                "size": manifest.len(), "annotations": {"org.opencontainers.image.ref.name": TAG},
            }],
        });
        let image = Self {
            folder: database.folder().join("from"),
            blobs: vec![(config_digest, config), (digest, manifest)],
            index: index.to_string(),
        };
        image.copy_to(&image.folder)?;
        Ok(image)
    }

    fn copy_to(&self, folder: &Path) -> Measured {
        let blobs = folder.join("blobs/sha256");
        std::fs::create_dir_all(&blobs)?;
        for (digest, content) in &self.blobs {
            std::fs::write(blobs.join(digest), content)?;
        }
        std::fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(std::fs::write(folder.join("index.json"), &self.index)?)
    }

    fn reference(&self) -> String {
        format!("oci:{}:{TAG}", self.folder.display())
    }
}
