//! Why a reference does not parse.

use crate::oci::quote;
use std::fmt;

/// Says which part is wrong, why, and what it should look like. One line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ReferenceError {
    message: String,
}

/// The parts of a reference, as errors call them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Reference,
    Transport,
    Host,
    Repository,
    Tag,
    Digest,
    Directory,
    Name,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reference => "reference",
            Self::Transport => "transport",
            Self::Host => "registry host",
            Self::Repository => "repository",
            Self::Tag => "tag",
            Self::Digest => "digest",
            Self::Directory => "directory",
            Self::Name => "image name",
        })
    }
}

impl ReferenceError {
    /// `part 'text' why`.
    pub(super) fn of(part: Part, text: &str, why: impl fmt::Display) -> Self {
        Self { message: format!("{part} {} {why}", quote(text)) }
    }

    /// A message that is complete as it is.
    pub(super) fn plain(message: String) -> Self {
        Self { message }
    }
}
