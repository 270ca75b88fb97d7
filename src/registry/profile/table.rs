//! The table itself, from the services' documents and from reports; each line is a quirk somebody met.

use super::{Ceiling, ChunkBytes, Counted, Mount, Profile};
use crate::registry::pacing::Kind;
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// A chunk where a registry does not care: a second or so of a usual line is sent again after a break, and the requests of a
/// gigabyte stay few.
const CHUNK: u64 = 32 * MIB;

const fn per_second(kind: Kind, requests: u32) -> Ceiling {
    Ceiling { kind: Some(kind), requests, per: Duration::from_secs(1) }
}

/// The profile of a registry of which nothing is known.
#[must_use]
pub fn generic() -> Profile {
    Profile {
        name: "generic",
        chunked: true,
        chunk_bytes: ChunkBytes { least: 1, default: CHUNK, most: 1024 * MIB },
        max_parts: 10_000,
        reports_offset: true,
        single_put_limit: None,
        mount: Mount::Yes,
        verifies_manifests: false,
        referrers_api: None,
        ceilings: Vec::new(),
        counted: Counted::OfKind,
    }
}

const fn mib(least: u64, default: u64, most: u64) -> ChunkBytes {
    ChunkBytes { least: least * MIB, default: default * MIB, most: most * MIB }
}

/// The names of the table, for messages.
pub const NAMES: [&str; 11] =
    ["acr", "distribution", "docker-hub", "ecr", "ecr-public", "gar", "generic", "ghcr", "harbor", "quay", "zot"];

/// The profile of that name. `gcr` is another name of `gar`.
#[must_use]
pub fn named(name: &str) -> Option<Profile> {
    Some(match name {
        "generic" => generic(),
        // 2.8 and 3: looks at all that a manifest names, children of an index too.
        "distribution" => Profile { name: "distribution", verifies_manifests: true, ..generic() },
        // Its storage is Distribution; the API before it has referrers. Whether all of it looks at what a manifest names was not
        // tried: until then it is not relied on, because a wrong guess would publish an image with holes.
        "harbor" => Profile { name: "harbor", referrers_api: Some(true), ..generic() },
        "zot" => Profile { name: "zot", referrers_api: Some(true), ..generic() },
        "quay" => Profile { name: "quay", mount: Mount::NeedsFrom, ..generic() },
        // HEAD costs nothing there, fetched manifests are counted. Storage as in Distribution.
        "docker-hub" => Profile {
            name: "docker-hub",
            mount: Mount::SameNamespace,
            verifies_manifests: true,
            counted: Counted::Manifests,
            ..generic()
        },
        // A second PATCH overwrites what the first one brought.
        "ghcr" => Profile {
            name: "ghcr",
            chunked: false,
            ceilings: vec![Ceiling { kind: None, requests: 2_000, per: Duration::from_secs(60) }],
            counted: Counted::Everything,
            ..generic()
        },
        "gar" | "gcr" => Profile { name: "gar", chunked: false, ..generic() },
        // Bodies of more than about 20 MB are refused; its own tools send 4 MiB.
        "acr" => Profile {
            name: "acr",
            chunk_bytes: mib(1, 4, 16),
            single_put_limit: Some(20_000_000),
            referrers_api: Some(true),
            ..generic()
        },
        "ecr" => Profile {
            name: "ecr",
            chunk_bytes: mib(5, 10, 10),
            max_parts: 4_200,
            reports_offset: false,
            referrers_api: Some(true),
            ceilings: vec![
                per_second(Kind::ManifestWrite, 10),
                per_second(Kind::Upload, 100),
                per_second(Kind::UploadData, 500),
                per_second(Kind::BlobRead, 1_000),
            ],
            ..generic()
        },
        "ecr-public" => Profile {
            name: "ecr-public",
            chunk_bytes: mib(5, 10, 10),
            max_parts: 1_000,
            reports_offset: false,
            ceilings: vec![
                per_second(Kind::ManifestWrite, 10),
                per_second(Kind::Upload, 10),
                per_second(Kind::UploadData, 260),
                per_second(Kind::BlobRead, 200),
            ],
            ..generic()
        },
        _ => return None,
    })
}

/// The name of the profile that a host (`host[:port]`) cannot but have. None: the host says nothing.
#[must_use]
pub fn of_host(host: &str) -> Option<&'static str> {
    let host = host.to_ascii_lowercase();
    let name = host.split(':').next().unwrap_or_default().trim_end_matches('.');
    let ends = |suffix: &str| name.strip_suffix(suffix).is_some_and(|before| !before.is_empty());
    let amazon = ends(".amazonaws.com") || ends(".amazonaws.com.cn");
    Some(match name {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => "docker-hub",
        "public.ecr.aws" | "ecr-public.aws.com" => "ecr-public",
        "ghcr.io" => "ghcr",
        "quay.io" => "quay",
        "gcr.io" | "docker.pkg.dev" => "gar",
        "mcr.microsoft.com" => "acr",
        _ if ends(".gcr.io") || ends("-docker.pkg.dev") => "gar",
        _ if ends(".azurecr.io") || ends(".azurecr.cn") || ends(".azurecr.us") => "acr",
        _ if amazon && (name.contains(".dkr.ecr.") || name.contains(".dkr.ecr-fips.")) => "ecr",
        _ if ends(".on.aws") && name.contains(".dkr-ecr") => "ecr",
        _ => return None,
    })
}
