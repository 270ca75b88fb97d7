//! A tag: the movable name of a manifest within its repository.

use super::error::{Part, ReferenceError};
use std::fmt;
use std::str::FromStr;

/// Most characters of a tag (distribution spec, "Pulling manifests").
const TAG_LIMIT_CHARS: usize = 128;

/// A valid tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(String);

impl Tag {
    /// The tag as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tag that is meant when none is written.
    pub(super) fn latest() -> Self {
        Self(super::DEFAULT_TAG.to_owned())
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Tag {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |why: &str| Err(ReferenceError::of(Part::Tag, text, why));
        let Some(first) = text.chars().next() else {
            return wrong("is empty; write :TAG, or leave the ':' out");
        };
        if text.chars().count() > TAG_LIMIT_CHARS {
            return wrong("is longer than 128 characters");
        }
        if !(first.is_ascii_alphanumeric() || first == '_') {
            return wrong("must begin with a letter, a digit or '_'");
        }
        if !text.chars().all(|character| character.is_ascii_alphanumeric() || "._-".contains(character)) {
            return wrong("has a character that is not a letter, a digit, '_', '.' or '-'");
        }
        Ok(Self(text.to_owned()))
    }
}
