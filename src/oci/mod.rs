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
    let text = without_password(text);
    for (position, character) in text.chars().enumerate() {
        if position == QUOTE_LIMIT_CHARS {
            quoted.push_str("...");
            break;
        }
        // Characters that turn the direction of text around make a message say something else than it says.
        let turns = matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || turns {
            quoted.extend(character.escape_default());
        } else {
            quoted.push(character);
        }
    }
    quoted.push('\'');
    quoted
}

/// `text` with `***` in place of `user:password` before an `@` that begins no digest.
fn without_password(text: &str) -> std::borrow::Cow<'_, str> {
    let start = text.find("://").map_or(0, |scheme| scheme + 3);
    let rest = &text[start..];
    // A password may hold an `@` of its own; what names the image comes after the last one before the first slash.
    let authority = &rest[..rest.find('/').unwrap_or(rest.len())];
    match authority.rfind('@') {
        Some(at) if authority[..at].contains(':') && rest[at + 1..].parse::<Digest>().is_err() => {
            format!("{}***{}", &text[..start], &rest[at..]).into()
        }
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn passwords_are_not_quoted() {
        assert_eq!(quote("u:URLPW-99@host.example/a:1"), "'***@host.example/a:1'");
        assert_eq!(quote("https://u:p@ss@host.example/a:1"), "'https://***@host.example/a:1'");
        let pinned = format!("alpine:3@sha256:{}", "a".repeat(64));
        assert!(quote(&pinned).starts_with("'alpine:3@sha256:"));
        assert_eq!(quote("host.example:5000/a:1@x"), "'host.example:5000/a:1@x'");
    }

    #[test]
    fn what_would_change_the_message_is_escaped() {
        assert_eq!(quote("a\u{1b}[31m\nb\u{202e}"), "'a\\u{1b}[31m\\nb\\u{202e}'");
    }
}
