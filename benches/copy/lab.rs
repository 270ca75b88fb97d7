//! The place of one measurement: two registries with or without distance, and what a tool cost between them.

use crate::Measured;
use crate::corpus::Corpus;
use crate::process::Cost;
use crate::proxy::Line;
use crate::registry::{Asked, Registry};
use crate::report::Run;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// How far the registries are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// On this machine.
    Local,
    /// 10 ms for a round trip to either of them.
    Far,
    /// On this machine, but every byte is counted on its way.
    Counted,
    /// As `Far`, and what comes from a registry is limited for each connection by itself.
    Narrow,
}

/// What a connection of a narrow network gives, bytes a second.
const NARROW_BYTES_PER_SEC: u32 = 32 * 1024 * 1024;

impl Network {
    const fn line(self) -> Option<Line> {
        let (delay, bytes_per_sec) = match self {
            Self::Local => return None,
            Self::Far => (Duration::from_millis(5), None),
            Self::Counted => (Duration::ZERO, None),
            Self::Narrow => (Duration::from_millis(5), Some(NARROW_BYTES_PER_SEC)),
        };
        Some(Line { delay, bytes_per_sec })
    }

    /// For the tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Far => "10 ms",
            Self::Counted => "counted",
            Self::Narrow => "32 MiB/s",
        }
    }
}

/// Source and destination; the destination begins empty.
pub struct Ends {
    /// Has the corpus.
    pub source: Registry,
    /// Gets it.
    pub destination: Registry,
    /// How far both are.
    pub network: Network,
    folder: tempfile::TempDir,
}

/// What both ends counted until a moment.
struct Counted {
    source: Asked,
    destination: Asked,
    bytes_in: Option<u64>,
}

impl Ends {
    /// A source over the storage in `source`, and an empty destination.
    ///
    /// # Errors
    /// A registry does not start.
    pub async fn new(source: &Path, network: Network) -> Measured<Self> {
        let folder = tempfile::tempdir()?;
        Ok(Self {
            source: Registry::start(source, network.line()).await?,
            destination: Registry::start(&folder.path().join("destination"), network.line()).await?,
            network,
            folder,
        })
    }

    /// Where the destination is reached.
    pub fn to(&self) -> SocketAddr {
        self.destination.address()
    }

    /// A folder that goes with the ends: homes, state, copies.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn folder(&self, name: &str) -> Measured<std::path::PathBuf> {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// Lets a tool copy, and counts. What the corpus says must be there afterwards.
    ///
    /// # Errors
    /// The tool failed, or something is missing.
    pub async fn measure(
        &self,
        case: &'static str,
        tool: &'static str,
        corpus: &Corpus,
        copy: impl Future<Output = Measured<Cost>>,
    ) -> Measured<Run> {
        let before = self.counted().await?;
        let cost = copy.await.map_err(|error| format!("{tool}: {error}"))?;
        let after = self.counted().await?;
        corpus.check(&self.destination.storage()).map_err(|error| format!("{tool}: {error}"))?;
        Ok(Run {
            case,
            network: self.network.name(),
            tool,
            cost,
            requests_source: after.source.requests - before.source.requests,
            requests_destination: after.destination.requests - before.destination.requests,
            bytes_out: Some(after.source.bytes_answered - before.source.bytes_answered),
            bytes_in: after.bytes_in.zip(before.bytes_in).map(|(after, before)| after - before),
        })
    }

    async fn counted(&self) -> Measured<Counted> {
        Ok(Counted {
            source: self.source.asked().await?,
            destination: self.destination.asked().await?,
            bytes_in: self.destination.bytes().map(|(bytes, _)| bytes),
        })
    }
}
