//! What registries do differently from the specification and from each other: one table of profiles.
//!
//! A profile is data, not code: the request loop, the uploads and the pacing ask its fields and never a registry's name. It
//! is chosen by the host, because the large services cannot be anything else; where a host says nothing, by what the
//! registry says of itself in answers that were wanted anyway; and above both by the configuration, field by field. Not by
//! asking: no request is ever sent to find out who answers. What is not certain stays with the generic profile, which
//! promises nothing that costs more than a request when it is wrong.

mod table;

pub use table::{NAMES, generic, named, of_host};

use super::pacing::Kind;
use super::settings::canonical;
use http::HeaderMap;
use http::header::{LOCATION, SERVER, WWW_AUTHENTICATE};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What is known of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The name in the table and in the configuration, for example `ecr`.
    pub name: &'static str,
    /// Blobs can be uploaded in chunks (several PATCH requests of one upload). Where not, they go up in one PUT.
    pub chunked: bool,
    /// How large the chunks of an upload may be; the last one may be smaller than the least.
    pub chunk_bytes: ChunkBytes,
    /// Most chunks of one upload.
    pub max_parts: u32,
    /// The `Range` of an answer to a PATCH, and of an upload's status, says what the registry has.
    pub reports_offset: bool,
    /// Largest body of one request of an upload, bytes: larger blobs go up in chunks, or not at all. None: any.
    pub single_put_limit: Option<u64>,
    /// When a blob of another repository can be mounted.
    pub mount: Mount,
    /// A manifest that names what is not there is refused with `MANIFEST_BLOB_UNKNOWN`: so it may be put before anybody has
    /// looked. False also where nobody knows.
    pub verifies_manifests: bool,
    /// Whether it has the referrers API. True: what it answers for one repository says nothing against that. False: it is not
    /// asked. None: asking tells. The table never says false, since a registry gets the API with any update, and signatures
    /// would then stay behind without a word.
    pub referrers_api: Option<bool>,
    /// What may be asked in which time; nothing for the most.
    pub ceilings: Vec<Ceiling>,
    /// What the numbers in `ratelimit-remaining` and its like are about.
    pub counted: Counted,
}

/// Sizes of the chunks of an upload, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkBytes {
    /// The least that the registry takes, but for the last chunk.
    pub least: u64,
    /// The size to use.
    pub default: u64,
    /// The most that the registry takes.
    pub most: u64,
}

impl Profile {
    /// The size of the chunks in which a blob of `size` bytes goes up: the usual one, or a larger one where the usual would
    /// make too many. None, when the blob cannot go up in chunks: the registry takes none, or would need too many.
    #[must_use]
    pub fn chunk_size(&self, size: u64) -> Option<u64> {
        let needed = size.div_ceil(u64::from(self.max_parts.max(1)));
        let ChunkBytes { least, default, most } = self.chunk_bytes;
        let most = most.min(self.single_put_limit.unwrap_or(most));
        let chunk = default.min(most).max(needed);
        (self.chunked && (least..=most).contains(&chunk)).then_some(chunk)
    }

    /// Whether a blob of `size` bytes can go up at all.
    #[must_use]
    pub fn takes(&self, size: u64) -> bool {
        self.single_put_limit.is_none_or(|limit| size <= limit) || self.chunk_size(size).is_some()
    }
}

/// When a blob can be mounted from another repository of a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mount {
    /// From any repository that may be read. Without `from`, a plain upload begins.
    Yes,
    /// The same, but a wish without `from` is an error.
    NeedsFrom,
    /// Only between repositories of one namespace (the first part of their names); others are an error.
    SameNamespace,
    /// Never: the wish is not worth sending.
    No,
}

impl Mount {
    /// Whether asking to mount from `from` into `into`, both names of repositories, can succeed.
    #[must_use]
    pub fn allows(self, from: &str, into: &str) -> bool {
        let namespace = |name: &str| name.split('/').next().map(str::to_owned);
        match self {
            Self::Yes | Self::NeedsFrom => true,
            Self::SameNamespace => namespace(from) == namespace(into),
            Self::No => false,
        }
    }
}

/// At most so many requests in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ceiling {
    /// Of this kind. None: of all kinds together.
    pub kind: Option<Kind>,
    /// So many.
    pub requests: u32,
    /// In this time.
    pub per: Duration,
}

/// Which requests the registry counts in `ratelimit-remaining`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Those of the kind that was answered.
    OfKind,
    /// Manifests that are fetched, whatever was answered.
    Manifests,
    /// All.
    Everything,
}

/// What the headers of an answer of the registry itself say of it beyond doubt.
fn of_headers(headers: &HeaderMap) -> Option<&'static str> {
    let any = |name, is: &dyn Fn(&str) -> bool| {
        headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).any(|text| is(&text.to_ascii_lowercase()))
    };
    if any(SERVER, &|server| server.starts_with("azurecontainerregistry")) {
        return Some("acr");
    }
    if any(WWW_AUTHENTICATE, &|challenge| challenge.contains("service=\"harbor-registry\"")) {
        return Some("harbor");
    }
    // Distribution signs the state of an upload into its Location, and names the upload beside it.
    let signed = headers.contains_key("docker-upload-uuid")
        && any(LOCATION, &|location| location.contains("?_state=") || location.contains("&_state="));
    signed.then_some("distribution")
}

/// Fields of a profile that the configuration sets; None: as the profile has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The profile to begin with, one of [`NAMES`] or `gcr`.
    pub profile: Option<String>,
    /// [`Profile::chunked`].
    pub chunked: Option<bool>,
    /// [`ChunkBytes::default`]; the bounds give way to it.
    pub chunk_bytes: Option<u64>,
    /// [`Profile::max_parts`].
    pub max_parts: Option<u32>,
    /// [`Profile::reports_offset`].
    pub reports_offset: Option<bool>,
    /// [`Profile::single_put_limit`]; 0 is no limit.
    pub single_put_limit_bytes: Option<u64>,
    /// [`Profile::mount`].
    pub mount: Option<Mount>,
    /// [`Profile::verifies_manifests`].
    pub verifies_manifests: Option<bool>,
    /// [`Profile::referrers_api`].
    pub referrers_api: Option<bool>,
    /// Instead of those [`Profile::ceilings`] that are about the same kind (None: about all): requests a second; 0 is none.
    pub requests_per_sec: BTreeMap<Option<Kind>, u32>,
}

impl Overrides {
    fn apply(&self, mut profile: Profile) -> Profile {
        fn set<T: Clone>(field: &mut T, value: Option<&T>) {
            if let Some(value) = value {
                field.clone_from(value);
            }
        }
        set(&mut profile.chunked, self.chunked.as_ref());
        if let Some(chunk) = self.chunk_bytes {
            let ChunkBytes { least, most, .. } = profile.chunk_bytes;
            profile.chunk_bytes = ChunkBytes { least: least.min(chunk), default: chunk, most: most.max(chunk) };
        }
        set(&mut profile.max_parts, self.max_parts.as_ref());
        set(&mut profile.reports_offset, self.reports_offset.as_ref());
        if let Some(limit) = self.single_put_limit_bytes {
            profile.single_put_limit = Some(limit).filter(|limit| *limit > 0);
        }
        set(&mut profile.mount, self.mount.as_ref());
        set(&mut profile.verifies_manifests, self.verifies_manifests.as_ref());
        if self.referrers_api.is_some() {
            profile.referrers_api = self.referrers_api;
        }
        for (kind, requests) in &self.requests_per_sec {
            profile.ceilings.retain(|ceiling| ceiling.kind != *kind);
            if *requests > 0 {
                profile.ceilings.push(Ceiling { kind: *kind, requests: *requests, per: Duration::from_secs(1) });
            }
        }
        profile
    }
}

/// The profiles of all registries that were spoken to.
#[derive(Debug, Default)]
pub(super) struct Profiles {
    overrides: HashMap<String, Overrides>,
    known: Mutex<HashMap<String, Known>>,
}

#[derive(Debug, Clone)]
struct Known {
    profile: Arc<Profile>,
    /// Nothing that the registry says changes it.
    certain: bool,
}

impl Profiles {
    /// `overrides`: by canonical host.
    pub fn new(overrides: HashMap<String, Overrides>) -> Self {
        Self { overrides, known: Mutex::default() }
    }

    /// What is known of the registry `host` (`host[:port]` as in references).
    pub fn of(&self, host: &str) -> Arc<Profile> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(host) {
            return known.profile.clone();
        }
        let chosen = self.overrides(host).and_then(|overrides| overrides.profile.as_deref());
        let name = chosen.or_else(|| of_host(host));
        let known =
            known.entry(host.to_owned()).or_insert_with(|| self.make(host, name.unwrap_or("generic"), name.is_some()));
        known.profile.clone()
    }

    /// Takes in what an answer of the registry `host` itself says of it.
    pub fn hear(&self, host: &str, headers: &HeaderMap) {
        let Some(said) = of_headers(headers) else { return };
        let now = self.of(host).name;
        // Harbor and ACR answer for a Distribution behind them.
        if now == said || (said == "distribution" && now != "generic") {
            return;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(host).is_some_and(|known| !known.certain) {
            tracing::debug!(host, profile = said, "registry recognised");
            let recognised = self.make(host, said, false);
            known.insert(host.to_owned(), recognised);
        }
    }

    /// Takes in what the registry was known as before, by another process: worth as much as what it says itself.
    pub fn remember(&self, host: &str, name: &str) {
        if self.of(host).name != "generic" || named(name).is_none() {
            return;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(host).is_some_and(|known| !known.certain) {
            let remembered = self.make(host, name, false);
            known.insert(host.to_owned(), remembered);
        }
    }

    fn overrides(&self, host: &str) -> Option<&Overrides> {
        self.overrides.get(&canonical(host))
    }

    fn make(&self, host: &str, name: &str, certain: bool) -> Known {
        // The configuration lets only names of the table through.
        let profile = named(name).unwrap_or_else(generic);
        let profile = match self.overrides(host) {
            Some(overrides) => overrides.apply(profile),
            None => profile,
        };
        Known { profile: Arc::new(profile), certain }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_known_by_their_hosts() {
        for (host, name) in [
            ("docker.io", Some("docker-hub")),
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", Some("ecr")),
            ("123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", Some("ecr")),
            ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", Some("ecr")),
            ("123456789012.dkr-ecr.eu-west-1.on.aws", Some("ecr")),
            ("public.ecr.aws", Some("ecr-public")),
            ("GHCR.io", Some("ghcr")),
            ("ghcr.io:443", Some("ghcr")),
            ("gcr.io", Some("gar")),
            ("eu.gcr.io", Some("gar")),
            ("europe-west3-docker.pkg.dev", Some("gar")),
            ("example.azurecr.io", Some("acr")),
            ("quay.io", Some("quay")),
            ("localhost:5000", None),
            ("ghcr.io.example.com", None),
            ("notgcr.io", None),
            (".gcr.io", None),
            ("x.dkr.ecr.eu-west-1.amazonaws.com.example.com", None),
            ("s3.amazonaws.com", None),
        ] {
            assert_eq!(of_host(host), name, "{host}");
        }
    }

    #[test]
    fn the_table_is_consistent() {
        for name in NAMES {
            let profile = named(name).unwrap();
            let ChunkBytes { least, default, most } = profile.chunk_bytes;
            assert_eq!(profile.name, name);
            assert!(least > 0 && least <= default && default <= most && profile.max_parts > 0, "{name}");
            assert!(profile.ceilings.iter().all(|ceiling| ceiling.requests > 0 && !ceiling.per.is_zero()), "{name}");
            // What cannot go up in one PUT must go up in chunks.
            assert!(profile.takes(1 << 30), "{name}");
            assert_ne!(profile.referrers_api, Some(false), "{name}");
        }
        assert_eq!(named("gcr"), named("gar"));
        assert_eq!(named("nonesuch"), None);
    }

    #[test]
    fn chunks_grow_where_there_would_be_too_many() {
        const MIB: u64 = 1 << 20;
        let ecr = named("ecr").unwrap();
        assert_eq!(ecr.chunk_size(1 << 30), Some(10 * MIB));
        assert_eq!(ecr.chunk_size(4_200 * 10 * MIB), Some(10 * MIB));
        assert_eq!(ecr.chunk_size(4_200 * 10 * MIB + 1), None);
        let generic = generic();
        assert_eq!(generic.chunk_size(1 << 30), Some(32 * MIB));
        assert_eq!(generic.chunk_size(10_000 * 40 * MIB), Some(40 * MIB));
        assert_eq!(named("ghcr").unwrap().chunk_size(1 << 30), None);
    }

    #[test]
    fn no_body_is_larger_than_the_registry_takes() {
        const MIB: u64 = 1 << 20;
        let acr = named("acr").unwrap();
        assert_eq!(acr.chunk_size(1 << 30), Some(4 * MIB));
        let limited = |limit| Profile { single_put_limit: Some(limit), ..generic() };
        // The usual chunk would be too large.
        assert_eq!(limited(10 * MIB).chunk_size(1 << 30), Some(10 * MIB));
        assert!(limited(10 * MIB).takes(10_000 * 10 * MIB) && !limited(10 * MIB).takes(10_000 * 10 * MIB + 1));
        // Chunks that are as small as that are none.
        let ecr = Profile { single_put_limit: Some(MIB), ..named("ecr").unwrap() };
        assert_eq!((ecr.chunk_size(2 * MIB), ecr.takes(2 * MIB), ecr.takes(MIB)), (None, false, true));
        let whole = Profile { chunked: false, ..limited(MIB) };
        assert!(whole.takes(MIB) && !whole.takes(MIB + 1));
        assert!(named("ghcr").unwrap().takes(u64::MAX));
    }

    #[test]
    fn mounting_follows_namespaces_where_it_must() {
        assert!(Mount::SameNamespace.allows("org/a", "org/b/c"));
        assert!(!Mount::SameNamespace.allows("library/a", "org/a"));
        assert!(Mount::Yes.allows("a", "b") && Mount::NeedsFrom.allows("a", "b") && !Mount::No.allows("a", "a"));
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn registries_are_recognised_by_what_they_say_in_passing() {
        let profiles = Profiles::default();
        let heard = |host: &str, pairs: &[(&'static str, &str)]| {
            profiles.hear(host, &headers(pairs));
            profiles.of(host).name
        };
        assert_eq!(heard("a:5000", &[("docker-distribution-api-version", "registry/2.0")]), "generic");
        assert_eq!(heard("a:5000", &[("location", "/v2/a/blobs/uploads/1?_state=x")]), "generic");
        let upload = [("location", "/v2/a/blobs/uploads/1?_state=x"), ("docker-upload-uuid", "1")];
        assert_eq!(heard("a:5000", &upload), "distribution");
        let challenge = r#"Bearer realm="https://h/service/token",service="harbor-registry",scope="x""#;
        assert_eq!(heard("h", &[("www-authenticate", challenge)]), "harbor");
        assert_eq!(heard("h", &upload), "harbor", "its storage is a Distribution");
        assert_eq!(heard("custom.example.com", &[("server", "AzureContainerRegistry")]), "acr");
        assert_eq!(heard("quay.io", &upload), "quay", "the host is certain");
    }

    #[test]
    fn the_configuration_has_the_last_word() {
        let ecr = Overrides {
            profile: Some("ecr".to_owned()),
            chunk_bytes: Some(4 << 20),
            single_put_limit_bytes: Some(0),
            mount: Some(Mount::No),
            requests_per_sec: BTreeMap::from([(Some(Kind::ManifestWrite), 50), (Some(Kind::Upload), 0), (None, 99)]),
            ..Overrides::default()
        };
        let fields = Overrides { verifies_manifests: Some(true), referrers_api: Some(false), ..Overrides::default() };
        let profiles = Profiles::new(HashMap::from([("r:5000".to_owned(), ecr), ("s".to_owned(), fields)]));
        let set = profiles.of("R:5000");
        assert_eq!((set.name, set.mount, set.max_parts), ("ecr", Mount::No, 4_200));
        assert_eq!(set.chunk_bytes, ChunkBytes { least: 4 << 20, default: 4 << 20, most: 10 << 20 });
        let rate = |kind| set.ceilings.iter().find(|ceiling| ceiling.kind == kind).map(|ceiling| ceiling.requests);
        assert_eq!(rate(Some(Kind::ManifestWrite)), Some(50));
        assert_eq!((rate(Some(Kind::Upload)), rate(Some(Kind::UploadData)), rate(None)), (None, Some(500), Some(99)));
        profiles.hear("R:5000", &headers(&[("server", "AzureContainerRegistry")]));
        assert_eq!(profiles.of("R:5000").name, "ecr");
        // Single fields stay when the registry is recognised.
        assert!(profiles.of("s").verifies_manifests);
        profiles.hear("s", &headers(&[("server", "AzureContainerRegistry")]));
        assert_eq!((profiles.of("s").name, profiles.of("s").referrers_api), ("acr", Some(false)));
        assert!(profiles.of("s").verifies_manifests);
    }
}
