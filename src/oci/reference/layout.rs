//! `oci:DIR[:NAME][@DIGEST]`: an image in an OCI layout directory.

use super::error::{Part, ReferenceError};
use super::{Digest, digest_part, transport};
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

/// Fewest hexadecimal digits that make the text after an `@` a digest rather than a part of a path or name
/// (image spec, descriptor.md: any algorithm's encoded part is at least this long in references).
const DIGEST_HEX_MINIMUM: usize = 32;

/// `oci:DIR[:NAME][@DIGEST]` (split as skopeo does: at the first colon; `@alg:hex` at the end is a digest).
///
/// A directory whose path contains a colon cannot be written; there is no escape for it, as there is none elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LayoutReference {
    /// The layout's directory, as written.
    pub dir: PathBuf,
    /// The entry's name in index.json (annotation `org.opencontainers.image.ref.name`).
    pub name: Option<String>,
    /// The digest of the manifest.
    pub digest: Option<Digest>,
}

impl LayoutReference {
    /// The same with an absolute, lexically normalised directory. See `ImageReference::absolute`.
    pub(super) fn absolute(self, base: &Path) -> Result<Self, ReferenceError> {
        let dir = normalise(&base.join(&self.dir));
        let reference = Self { dir, ..self };
        let shown = reference.dir.to_string_lossy().into_owned();
        match reference.to_string().parse::<Self>() {
            Ok(again) if again == reference => Ok(reference),
            _ => {
                let why = "cannot be written in an oci: reference (it contains a colon, or is not UTF-8); \
                           use a directory without one";
                Err(ReferenceError::of(Part::Directory, &shown, why))
            }
        }
    }
}

/// Takes `.` and `..` out of an absolute path without looking at the disk.
fn normalise(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}

impl fmt::Display for LayoutReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", transport::LAYOUT_PREFIX, self.dir.display())?;
        if let Some(name) = &self.name {
            write!(f, ":{name}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for LayoutReference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        transport::check_text(text)?;
        let Some(rest) = text.strip_prefix(transport::LAYOUT_PREFIX) else {
            return Err(ReferenceError::of(Part::Reference, text, "is not a layout; write oci:DIR[:NAME][@DIGEST]"));
        };
        if rest.starts_with("//") {
            let why =
                "is ambiguous; write HOST/REPOSITORY:TAG for a registry, or oci:DIR[:NAME] for a layout directory";
            return Err(ReferenceError::of(Part::Transport, "oci://", why));
        }
        let (named, digest) = match rest.rsplit_once('@') {
            Some((named, after)) if looks_like_digest(after) => (named, Some(digest_part(after)?)),
            _ => (rest, None),
        };
        let (dir, name) = match named.split_once(':') {
            Some((dir, name)) => (dir, Some(name)),
            None => (named, None),
        };
        if dir.is_empty() {
            return Err(ReferenceError::of(Part::Directory, dir, "is empty; write oci:DIR[:NAME]"));
        }
        if let Some(name) = name {
            check_name(name)?;
        }
        Ok(Self { dir: PathBuf::from(dir), name: name.map(str::to_owned), digest })
    }
}

/// A name and a directory may contain `@`, so that only what can be nothing else is taken for a digest.
fn looks_like_digest(text: &str) -> bool {
    match text.split_once(':') {
        Some(("sha256" | "sha512", _)) => true,
        Some((algorithm, hex)) => {
            let word = |byte: u8| byte.is_ascii_alphanumeric() || b"+._-".contains(&byte);
            !algorithm.is_empty()
                && algorithm.bytes().all(word)
                && hex.len() >= DIGEST_HEX_MINIMUM
                && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
        }
        None => false,
    }
}

/// The grammar of `org.opencontainers.image.ref.name` (image spec, annotations.md): words of letters and digits, joined by
/// one of `-._:@+` or `--`, in components joined by `/`.
fn check_name(name: &str) -> Result<(), ReferenceError> {
    let wrong = |why: &str| Err(ReferenceError::of(Part::Name, name, why));
    if name.is_empty() {
        return wrong("is empty; write oci:DIR:NAME, or oci:DIR alone");
    }
    for component in name.split('/') {
        if !component.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:@+".contains(&byte)) {
            return wrong("has a character that is not a letter, a digit, or one of - . _ : @ + /");
        }
        let word_at = |end: Option<char>| end.is_some_and(|character| character.is_ascii_alphanumeric());
        if !word_at(component.chars().next()) || !word_at(component.chars().next_back()) {
            return wrong("has a component that does not begin and end with a letter or a digit");
        }
        let separators = component.split(|character: char| character.is_ascii_alphanumeric());
        if separators.into_iter().any(|run| run.len() > 1 && run != "--") {
            return wrong("has two separators in a row");
        }
    }
    Ok(())
}
