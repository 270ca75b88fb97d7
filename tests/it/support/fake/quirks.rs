//! What the registries of the profile table do differently, as far as a client can see it.

use super::{LocationStyle, Options};

const MIB: u64 = 1 << 20;

/// What becomes of chunks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Chunks {
    #[default]
    Taken,
    /// 405.
    Refused,
    /// Each PATCH, and a PUT with a body, replaces what came before it; the answers say otherwise.
    Overwriting,
}

/// From where blobs are mounted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MountRule {
    /// From anywhere; without `from` an upload begins.
    #[default]
    Any,
    /// Without `from`: 400.
    NeedsFrom,
    /// From another namespace: 403.
    SameNamespace,
}

/// Habits that Distribution has not.
#[derive(Debug, Clone, Default)]
pub struct Quirks {
    pub chunks: Chunks,
    /// Least and most bytes of a PATCH; the last one may be smaller.
    pub chunk_bytes: Option<(u64, u64)>,
    /// Most PATCH requests of one upload.
    pub max_parts: Option<u64>,
    /// Larger bodies of uploads get a 413, bytes.
    pub body_limit: Option<u64>,
    /// The `Range` of an upload says `0-0`, whatever it has.
    pub hides_offset: bool,
    /// Instead of 202.
    pub patch_status: Option<u16>,
    /// An upload whose PATCH broke off is lost: 404 BLOB_UPLOAD_INVALID.
    pub cut_is_final: bool,
    pub mounts: MountRule,
    /// Uploads go to this repository only; to others: 404 NAME_UNKNOWN.
    pub only_repository: Option<String>,
    /// A tag that is there is never written again, not even with the same manifest.
    pub immutable_tags: Option<&'static Refusal>,
    /// Refuses manifests that do not say their media type.
    pub wants_media_type: bool,
    /// A subject that is not there has no referrers: 404, instead of an empty list.
    pub referrers_need_subject: bool,
    /// The service in the challenge; `fake` otherwise.
    pub service: Option<&'static str>,
    /// A token of another scope gets a 403, instead of another challenge.
    pub denies_other_scopes: bool,
    /// On every answer.
    pub headers: Vec<(&'static str, String)>,
}

/// How something is refused.
#[derive(Debug)]
pub struct Refusal {
    pub status: u16,
    pub code: &'static str,
    pub message: &'static str,
}

/// How ECR refuses to move a tag.
pub const IMMUTABLE_AT_ECR: Refusal = Refusal {
    status: 400,
    code: "TAG_INVALID",
    message: "The image tag 'v1' already exists in the 'b' repository and cannot be overwritten because the tag is immutable.",
};

/// How Harbor does.
pub const IMMUTABLE_AT_HARBOR: Refusal = Refusal {
    status: 412,
    code: "PRECONDITION",
    message: "Failed to process request due to 'b:v1' configured as immutable.",
};

impl Options {
    /// The habits of the registry of that profile.
    pub fn like(profile: &str) -> Self {
        let left = |name, left: &str| vec![(name, left.to_owned())];
        let quirks = match profile {
            "docker-hub" => Quirks {
                mounts: MountRule::SameNamespace,
                headers: [left("ratelimit-limit", "100;w=21600"), left("ratelimit-remaining", "99;w=21600")].concat(),
                ..Quirks::default()
            },
            "ecr" | "ecr-public" => Quirks {
                chunk_bytes: Some((5 * MIB, 10 * MIB)),
                max_parts: Some(if profile == "ecr" { 4_200 } else { 1_000 }),
                hides_offset: true,
                patch_status: Some(201),
                wants_media_type: true,
                immutable_tags: Some(&IMMUTABLE_AT_ECR),
                ..Quirks::default()
            },
            "ghcr" => Quirks {
                chunks: Chunks::Overwriting,
                headers: [left("x-ratelimit-limit", "2000"), left("x-ratelimit-remaining", "1999")].concat(),
                ..Quirks::default()
            },
            "gar" => Quirks { chunks: Chunks::Refused, ..Quirks::default() },
            "acr" => Quirks {
                body_limit: Some(20_000_000),
                cut_is_final: true,
                headers: left("server", "AzureContainerRegistry"),
                ..Quirks::default()
            },
            "quay" => Quirks { mounts: MountRule::NeedsFrom, ..Quirks::default() },
            "harbor" => Quirks {
                immutable_tags: Some(&IMMUTABLE_AT_HARBOR),
                service: Some("harbor-registry"),
                ..Quirks::default()
            },
            "distribution" | "generic" | "zot" => Quirks::default(),
            other => panic!("nobody has said how {other} behaves"),
        };
        let referrers = ["acr", "ecr", "harbor", "zot"].contains(&profile);
        let location = if profile == "zot" { LocationStyle::AbsolutePath } else { LocationStyle::Absolute };
        Self { quirks, referrers, referrers_page: 2, location, ..Self::default() }
    }
}
