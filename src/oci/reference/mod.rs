//! The reference grammar (distribution spec, "Pulling manifests"; docker's short names) and `oci:` layout references.
//!
//! Written by hand rather than as one regular expression, because a regular expression can only say "invalid reference";
//! a person needs to know which part is wrong and what it should look like. Every error names the part (host, repository,
//! tag, digest, directory, name, transport) and quotes it.
//!
//! Display is canonical, and what it prints parses to the same value again: rows, locks and comparisons rely on that.
//! Nothing here asks whether anything exists.

mod error;
mod layout;
mod repository;
mod tag;
mod transport;

pub use error::ReferenceError;
pub use layout::LayoutReference;
pub use repository::Repository;
pub use tag::Tag;

use super::Digest;
use error::Part;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// The tag that is meant when neither tag nor digest is written.
const DEFAULT_TAG: &str = "latest";

/// Which manifest of a repository: what stands after `manifests/` in the URL. Display gives just that.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Selector {
    /// Whatever the tag names now.
    Tag(Tag),
    /// Exactly this content.
    Digest(Digest),
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// `HOST[:PORT]/REPO[:TAG][@DIGEST]`; at least one of tag and digest is set after parsing (default tag `latest`).
/// Display is the canonical form: `docker.io/library/alpine:latest`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Where the manifest is.
    pub repository: Repository,
    /// The tag, when one was written, or `latest` when neither tag nor digest was.
    pub tag: Option<Tag>,
    /// The digest, when one was written.
    pub digest: Option<Digest>,
}

impl Reference {
    /// What to ask the registry for: the digest wins over the tag.
    #[must_use]
    pub fn selector(&self) -> Selector {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => Selector::Digest(digest.clone()),
            (None, Some(tag)) => Selector::Tag(tag.clone()),
            (None, None) => Selector::Tag(Tag::latest()),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.repository.fmt(f)?;
        match (&self.tag, &self.digest) {
            (Some(tag), Some(digest)) => write!(f, ":{tag}@{digest}"),
            (Some(tag), None) => write!(f, ":{tag}"),
            (None, Some(digest)) => write!(f, "@{digest}"),
            (None, None) => write!(f, ":{DEFAULT_TAG}"),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let pieces = repository::split(transport::registry_text(text)?)?;
        let digest = pieces.digest.map(digest_part).transpose()?;
        let tag = match pieces.tag {
            Some(tag) => Some(tag.parse()?),
            None if digest.is_none() => Some(Tag::latest()),
            None => None,
        };
        Ok(Self { repository: pieces.repository()?, tag, digest })
    }
}

/// The digest of a reference, from the text after its `@`.
fn digest_part(text: &str) -> Result<Digest, ReferenceError> {
    if text.is_empty() {
        return Err(ReferenceError::of(Part::Digest, text, "is empty; write @sha256:HEX, or leave the '@' out"));
    }
    text.parse().map_err(|cause: super::DigestError| ReferenceError::plain(cause.to_string()))
}

/// What SRC and DST may be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ImageReference {
    /// A manifest in a registry.
    Registry(Reference),
    /// An image in a local directory.
    Layout(LayoutReference),
}

impl ImageReference {
    /// Registry host, or None for a layout.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Registry(reference) => Some(reference.repository.host()),
            Self::Layout(_) => None,
        }
    }

    /// Layout paths made absolute against `base` (itself absolute), lexically normalised; registry references unchanged.
    ///
    /// # Errors
    /// When the absolute path cannot be written down as an `oci:` reference again, for example because `base` contains a
    /// colon: stored as text, it would name another directory.
    pub fn absolute(self, base: &Path) -> Result<Self, ReferenceError> {
        match self {
            Self::Registry(reference) => Ok(Self::Registry(reference)),
            Self::Layout(reference) => Ok(Self::Layout(reference.absolute(base)?)),
        }
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => reference.fmt(f),
            Self::Layout(reference) => reference.fmt(f),
        }
    }
}

impl FromStr for ImageReference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with(transport::LAYOUT_PREFIX) {
            text.parse().map(Self::Layout)
        } else {
            text.parse().map(Self::Registry)
        }
    }
}

#[cfg(test)]
mod tests;
