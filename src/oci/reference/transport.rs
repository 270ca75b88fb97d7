//! What may stand in front of a reference: nothing, `docker://`, or `oci:`. Everything else is refused by name.

use super::error::{Part, ReferenceError};
use std::borrow::Cow;

/// Begins a reference to a layout directory.
pub(super) const LAYOUT_PREFIX: &str = "oci:";

/// Longest reference, bytes: a path of the system's limit (4096) with a name and a digest. More is not a reference.
const REFERENCE_LIMIT_BYTES: usize = 8192;

/// Transports of other tools that are not read here, and what to do instead. `docker:` without slashes is not among them:
/// `docker:dind` is an image.
const FOREIGN_TRANSPORTS: [(&str, &str); 10] = [
    ("dir:", "copy it to an OCI layout first and write oci:DIR[:NAME]"),
    ("oci-archive:", "unpack the archive and write oci:DIR[:NAME]"),
    ("docker-archive:", "copy it to an OCI layout first and write oci:DIR[:NAME]"),
    ("docker-daemon:", "push the image to a registry first, or copy it to an OCI layout and write oci:DIR[:NAME]"),
    ("containers-storage:", "push the image to a registry first, or copy it to an OCI layout and write oci:DIR[:NAME]"),
    ("ostree:", "copy it to an OCI layout first and write oci:DIR[:NAME]"),
    ("sif:", "copy it to an OCI layout first and write oci:DIR[:NAME]"),
    ("tarball:", "copy it to an OCI layout first and write oci:DIR[:NAME]"),
    ("atomic:", "write HOST/REPOSITORY:TAG"),
    ("ocidir:", "write oci:DIR[:NAME]"),
];

/// Checks what all references have in common: not empty, not endless, no stray white space, nothing invisible.
pub(super) fn check_text(text: &str) -> Result<(), ReferenceError> {
    let wrong = |why: &str| Err(ReferenceError::of(Part::Reference, &shown(text), why));
    if text.is_empty() {
        return wrong("is empty; write HOST/REPOSITORY:TAG or oci:DIR[:NAME]");
    }
    if text.len() > REFERENCE_LIMIT_BYTES {
        return wrong("is longer than 8192 bytes");
    }
    if text.chars().any(char::is_control) {
        return wrong("contains a control character");
    }
    if text.trim() != text {
        return wrong("begins or ends with white space");
    }
    Ok(())
}

/// The text of a registry reference without its optional `docker://`.
pub(super) fn registry_text(text: &str) -> Result<&str, ReferenceError> {
    check_text(text)?;
    let rest = text.strip_prefix("docker://").unwrap_or(text);
    if rest.is_empty() {
        return Err(ReferenceError::of(Part::Reference, text, "names nothing; write docker://HOST/REPOSITORY:TAG"));
    }
    if rest.len() != text.len() && rest.starts_with(LAYOUT_PREFIX) {
        return Err(ReferenceError::of(Part::Transport, text, "is two transports; write either docker:// or oci:"));
    }
    if let Some((scheme, _)) = rest.split_once("://") {
        return Err(foreign_scheme(scheme));
    }
    if rest.starts_with(LAYOUT_PREFIX) {
        let why = "means a layout directory, but a registry is needed here; write HOST/REPOSITORY \
                   (docker.io/library/oci for the image of that name)";
        return Err(ReferenceError::of(Part::Transport, LAYOUT_PREFIX, why));
    }
    for (transport, instead) in FOREIGN_TRANSPORTS {
        if let Some(name) = rest.strip_prefix(transport) {
            return Err(foreign_transport(transport, name, instead));
        }
    }
    if rest.chars().any(char::is_whitespace) {
        return Err(ReferenceError::of(Part::Reference, &shown(rest), "contains white space"));
    }
    Ok(rest)
}

/// A whole reference for a message, without what might be `user:password@`.
fn shown(text: &str) -> Cow<'_, str> {
    match text.rsplit_once('@') {
        Some((_, after)) if after.contains('/') => Cow::Owned(format!("...@{after}")),
        _ => Cow::Borrowed(text),
    }
}

/// The rest of a URL is not quoted: it may hold a password.
fn foreign_scheme(scheme: &str) -> ReferenceError {
    let why = match scheme.to_ascii_lowercase().as_str() {
        "http" | "https" => {
            "is not part of a reference; write HOST/REPOSITORY:TAG (plain HTTP is a setting of the registry)"
        }
        "oci" => "is ambiguous; write HOST/REPOSITORY:TAG for a registry, or oci:DIR[:NAME] for a layout directory",
        "docker" => "is written in lower case and once: docker://HOST/REPOSITORY:TAG",
        _ => "is not supported; write HOST/REPOSITORY:TAG or oci:DIR[:NAME]",
    };
    ReferenceError::of(Part::Transport, &format!("{scheme}://"), why)
}

fn foreign_transport(transport: &str, name: &str, instead: &str) -> ReferenceError {
    let image = transport.trim_end_matches(':');
    // `dir:latest` may be meant as docker means it: the image called dir.
    let hint = if !name.is_empty() && name.parse::<super::Tag>().is_ok() {
        format!(" (for the image called {image} write docker.io/library/{image}:{name})")
    } else {
        String::new()
    };
    ReferenceError::of(Part::Transport, transport, format!("is not supported; {instead}{hint}"))
}
