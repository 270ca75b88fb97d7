//! What an image is: references, digests, manifests, platforms. Pure: no I/O, no tasks, no clock.
//!
//! Our own grammar and our own reading of manifests, rather than a general OCI crate, because this program copies bytes
//! verbatim: it needs to know what a document names, and must never be tempted to write one again from what it understood.
//! Text is parsed once, here, into types that cannot hold nonsense; nothing behind this room validates again.
//!
//! This room never touches a disk, a network or a clock, and never re-serialises a manifest.

pub mod descriptor;
pub mod digest;
pub mod manifest;
pub mod platform;
pub mod reference;

pub use descriptor::Descriptor;
pub use digest::{Algorithm, ContentError, Digest, DigestError, Verifier};
pub use manifest::{Content, Manifest, ManifestError};
pub use platform::{Platform, PlatformError};
pub use reference::{ImageReference, LayoutReference, Reference, ReferenceError, Repository, Selector, Tag};

/// Most characters of foreign text that an error quotes: enough to recognise it, few enough for one line.
const QUOTE_LIMIT_CHARS: usize = 80;

/// `text` in quotes for an error message: control characters escaped (so that the message stays one line), and cut when
/// it is long.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::from("'");
    for (position, character) in text.chars().enumerate() {
        if position == QUOTE_LIMIT_CHARS {
            quoted.push_str("...");
            break;
        }
        if character.is_control() {
            quoted.extend(character.escape_default());
        } else {
            quoted.push(character);
        }
    }
    quoted.push('\'');
    quoted
}
