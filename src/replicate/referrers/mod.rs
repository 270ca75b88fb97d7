//! Referrers: signatures, attestations and SBOMs that say of themselves which manifest they are about (`subject`), and those of
//! cosign that are named after it (`sha256-HEX.sig`).
//!
//! They are found at the source ([`find`]), level by level, since a referrer may have referrers; compared with what the
//! destination lists, because a copy that has nothing else to do must still notice a new signature; and brought like images
//! of their own ([`bring`]), by digest, before the tag of what they refer to moves. Where the destination keeps no list of
//! them, the list is a tag: it is written last ([`Followed::publish`]), as all tags are.
//!
//! What cannot be told is an error, not an empty list: a signature that stays behind without a word is found out when an
//! image is refused somewhere, by somebody else. A source that has no API for referrers is no error, in whatever way it says
//! so; and what its list names and it does not have any more is gone there too, and passed over.

mod bring;
mod compare;
mod end;
mod list;
mod memory;
mod publish;
mod unlisted;

pub(super) use bring::Bringing;
pub(super) use compare::{Comparison, Mode};
pub(super) use end::{End, subject};
pub(super) use memory::Memory;
pub(super) use publish::Followed;
pub(super) use unlisted::Unlisted;

use super::source::Source;
use super::tasks::side_by_side;
use super::{Error, Limits};
use crate::job::{Class, CopyOptions, Referrers, Stage};
use crate::oci::manifest::{DOCKER_LIST, OCI_INDEX};
use crate::oci::{Content, Descriptor, Digest, Manifest};
use end::Question;
use memory::Tags;
use std::collections::BTreeSet;
use std::sync::Arc;

/// How deep referrers of referrers are followed: two are in use.
const DEPTH: usize = 8;

/// Which referrers are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    all: bool,
    types: BTreeSet<String>,
}

impl Wanted {
    /// None: no referrers.
    pub fn of(options: &CopyOptions) -> Option<Self> {
        let which = options.referrers.unwrap_or_default();
        let types = options.artifact_types.iter().cloned().collect();
        (which != Referrers::None).then_some(Self { all: which == Referrers::All, types })
    }

    /// Those of the manifests below an index too.
    pub fn all(&self) -> bool {
        self.all
    }

    fn takes(&self, artifact_type: &str) -> bool {
        self.types.is_empty() || self.types.contains(artifact_type)
    }

    /// What is listed without a type has to be read to know it.
    fn may_take(&self, listed: &Descriptor) -> bool {
        listed.artifact_type.as_deref().filter(|told| !told.is_empty()).is_none_or(|told| self.takes(told))
    }

    /// The one type that is wanted, when it is one.
    fn only(&self) -> Option<String> {
        self.types.first().filter(|_| self.types.len() == 1).cloned()
    }
}

/// A referrer as the source lists it.
#[derive(Debug, Clone)]
struct Referrer {
    descriptor: Descriptor,
    subject: Digest,
}

/// What refers to an image at its source.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The referrers of the image, then theirs, and so on; each once.
    levels: Vec<Vec<Referrer>>,
    /// Tags of cosign that may be there.
    tags: Vec<String>,
}

/// Looks for all that refers to one of `subjects`, and for what refers to that. Reads lists only.
///
/// # Errors
/// A list cannot be read or is broken; Refused beyond a limit.
pub(super) async fn find(
    source: &Source,
    subjects: Vec<Digest>,
    wanted: &Wanted,
    memory: &Memory,
    limits: &Arc<Limits>,
) -> Result<Found, Error> {
    let question = Question {
        end: source.end(),
        stage: Stage::Resolve,
        only: wanted.only(),
        is_source: true,
        memory: memory.clone(),
        limits: limits.clone(),
    };
    let refused = |why: String| {
        let message = format!("what refers to {} cannot be copied: {why}", source.name());
        way_out(Error::new(Stage::Resolve, Class::Refused, message))
    };
    let mut found = Found::default();
    // What is copied anyway is no referrer to bring.
    let copied: BTreeSet<Digest> = subjects.iter().cloned().collect();
    let (mut seen, mut pairs) = (copied.clone(), BTreeSet::new());
    let mut next = subjects;
    while !next.is_empty() {
        let is_first = found.levels.is_empty();
        let questions = next.into_iter().map(|subject| {
            let question = question.clone();
            async move {
                let (listed, tags) =
                    tokio::join!(question.referrers_of(&subject), question.cosign_tags(&subject, is_first));
                Ok((subject, listed?, tags))
            }
        });
        let mut level = Vec::new();
        for (subject, listed, tags) in side_by_side(questions, limits.blobs_at_once).await.map_err(way_out)? {
            found.tags.extend(tags);
            for descriptor in listed.into_iter().filter(|listed| wanted.may_take(listed)) {
                // A list may name what refers to something else, which is in another list then: both count until it is read.
                if !copied.contains(&descriptor.digest) && pairs.insert((subject.clone(), descriptor.digest.clone())) {
                    level.push(Referrer { descriptor, subject: subject.clone() });
                }
            }
        }
        if pairs.len() > limits.manifests {
            return Err(refused(format!("there are more than {}", limits.manifests)));
        }
        if found.levels.len() == DEPTH && !level.is_empty() {
            return Err(refused(format!("they refer to each other more than {DEPTH} deep")));
        }
        let digests = level.iter().map(|referrer| referrer.descriptor.digest.clone());
        next = digests.filter(|digest| seen.insert(digest.clone())).collect();
        found.levels.push(level);
    }
    Ok(found)
}

impl Question {
    /// The tags of cosign that are there for `image`, or may be there when the registry lists no tags. In that case only what
    /// is copied itself is asked for.
    async fn cosign_tags(&self, image: &Digest, is_first: bool) -> Vec<String> {
        let names = list::cosign_tags(image);
        let End::Registry { session, repository } = &self.end else { return names };
        if names.is_empty() {
            return names;
        }
        match self.memory.tags(session, repository).await {
            Tags::Listed(tags) => names.into_iter().filter(|name| tags.contains(name)).collect(),
            Tags::Unlisted if is_first => names,
            Tags::Unlisted => Vec::new(),
        }
    }
}

/// The digests of all manifests below an index, of its own entries only the `chosen` ones. Reads indexes only.
///
/// # Errors
/// As [`Source::child`]; Refused beyond a limit.
pub(super) async fn below(
    source: &Source,
    root: &Manifest,
    chosen: Option<&BTreeSet<Digest>>,
    limits: &Limits,
) -> Result<Vec<Digest>, Error> {
    let entries = |manifest: &Manifest| match &manifest.content {
        Content::Index { manifests, .. } => manifests.clone(),
        Content::Image { .. } => Vec::new(),
    };
    let mut found = BTreeSet::new();
    let is_chosen = |entry: &Descriptor| chosen.is_none_or(|chosen| chosen.contains(&entry.digest));
    let mut next: Vec<Descriptor> = entries(root).into_iter().filter(is_chosen).collect();
    for _ in 0..=limits.index_depth {
        let mut indexes = Vec::new();
        for entry in std::mem::take(&mut next) {
            let is_index = [OCI_INDEX, DOCKER_LIST].contains(&entry.media_type.as_str());
            if entry.is_manifest() && found.insert(entry.digest.clone()) && is_index {
                indexes.push(entry);
            }
        }
        if found.len() > limits.manifests {
            let message = format!("{} has more than {} manifests", source.name(), limits.manifests);
            return Err(Error::new(Stage::Resolve, Class::Refused, message));
        }
        for index in indexes {
            next.extend(source.child(&index, limits).await?.iter().flat_map(&entries));
        }
    }
    Ok(found.into_iter().collect())
}

/// The error of a step that `--no-referrers` leaves out. One that passes needs no advice.
fn way_out(error: Error) -> Error {
    if matches!(error.class, Class::Retry { .. }) {
        return error;
    }
    let message =
        format!("{}; --no-referrers copies the image without its signatures and other referrers", error.message);
    Error { message, ..error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn what_is_wanted_is_said_by_the_options() {
        let wanted = |referrers, types: &[&str]| {
            let artifact_types = types.iter().map(ToString::to_string).collect();
            Wanted::of(&CopyOptions { referrers, artifact_types, ..CopyOptions::default() })
        };
        assert_eq!(wanted(Some(Referrers::None), &[]), None);
        let root = wanted(None, &[]).unwrap();
        assert!(!root.all() && root.takes("a/b") && root.only().is_none());
        assert!(wanted(Some(Referrers::All), &[]).unwrap().all());
        let one = wanted(None, &["a/b"]).unwrap();
        assert_eq!(one.only().as_deref(), Some("a/b"));
        assert_eq!(wanted(None, &["a/b", "c/d"]).unwrap().only(), None);
        let listed = |artifact_type: Option<&str>| Descriptor {
            media_type: String::new(),
            digest: Digest::of(Algorithm::Sha256, b""),
            size: 0,
            urls: Vec::new(),
            platform: None,
            artifact_type: artifact_type.map(str::to_owned),
        };
        assert!(one.may_take(&listed(Some("a/b"))) && !one.may_take(&listed(Some("c/d"))));
        assert!(one.may_take(&listed(None)) && one.may_take(&listed(Some(""))), "it has to be read");
    }

    #[test]
    fn what_does_not_pass_comes_with_a_way_out() {
        let error = |class| way_out(Error::new(Stage::Resolve, class, "no")).message;
        assert_eq!(error(Class::RETRY), "no");
        assert!(error(Class::Denied).contains("--no-referrers"));
    }
}
