//! Why a step failed: data for a row, not a debug string.
//!
//! One struct rather than an enum, because nobody branches on more than stage and class; the class comes from the door
//! where the error arose and is passed on unread. The message is complete in itself, one line, and holds no credential,
//! since the doors put none into theirs.

use crate::job::{Class, Stage};
use crate::oci::Digest;
use crate::{layout, registry};
use std::fmt;

/// Why stage, publish or preview failed. Display is one line: what was being done, on what, and why.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The step that failed.
    pub stage: Stage,
    /// What kind of failure it is, and so whether trying again later makes sense.
    pub class: Class,
    /// One line for people.
    pub message: String,
    /// A manifest was refused because the registry does not have what it names.
    pub(super) misses: bool,
    /// Of what the manifest names, that which the registry says it does not have. Empty: it does not say.
    pub(super) missing: Vec<Digest>,
}

/// An error of a door: it prints on one line, and knows its class.
pub(super) trait Cause: fmt::Display {
    fn class(&self) -> Class;
}

impl Cause for registry::Error {
    fn class(&self) -> Class {
        Self::class(self)
    }
}

impl Cause for layout::Error {
    fn class(&self) -> Class {
        Self::class(self)
    }
}

impl Error {
    /// Of this step and class; `message`: one line.
    pub fn new(stage: Stage, class: Class, message: impl Into<String>) -> Self {
        Self { stage, class, message: message.into(), misses: false, missing: Vec::new() }
    }

    /// What was being done, and the door's reason, in the door's class.
    pub(super) fn because(stage: Stage, doing: impl fmt::Display, cause: &impl Cause) -> Self {
        Self::new(stage, cause.class(), format!("{doing}: {cause}"))
    }
}
