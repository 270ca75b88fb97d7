//! A repository: a registry's host and a name on it, both canonical.

use super::error::{Part, ReferenceError};
use super::transport;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Most bytes of `host/name`: what widespread clients and registries accept (distribution spec, "Pulling manifests").
const REPOSITORY_LIMIT_BYTES: usize = 255;

/// The host that is meant when none is written, and where its API really is.
const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_OLD: &str = "index.docker.io";
const DOCKER_HUB_API: &str = "registry-1.docker.io";

/// Where Docker Hub keeps the repositories that are written with one component.
const DOCKER_HUB_LIBRARY: &str = "library/";

/// A repository on a registry: canonical host (`docker.io`, `localhost:5000`, `[::1]:5000`) and name (`library/alpine`).
/// Display is `host/name`.
///
/// There is no constructor but parsing, so that every value obeys the grammar and `host/name` has at most 255 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository {
    host: String,
    name: String,
}

impl Repository {
    /// `HOST[:PORT]/REPO` without tag or digest (for list-tags); docker's short names are normalised.
    ///
    /// # Errors
    /// When a part does not obey the grammar, or a tag or digest is written.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let pieces = split(transport::registry_text(text)?)?;
        if let Some(digest) = pieces.digest {
            return Err(ReferenceError::of(Part::Digest, digest, "is not wanted here; write HOST/REPOSITORY alone"));
        }
        if let Some(tag) = pieces.tag {
            return Err(ReferenceError::of(Part::Tag, tag, "is not wanted here; write HOST/REPOSITORY alone"));
        }
        pieces.repository()
    }

    /// The registry's canonical host, with its port when one was written.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host that answers the registry API: another one than `host` only for Docker Hub.
    #[must_use]
    pub fn api_host(&self) -> &str {
        if self.host == DOCKER_HUB { DOCKER_HUB_API } else { &self.host }
    }

    /// The name on the registry, without the host.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.name)
    }
}

impl FromStr for Repository {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// The parts of a registry reference, not checked yet.
pub(super) struct Pieces<'a> {
    host: Option<&'a str>,
    name: &'a str,
    pub(super) tag: Option<&'a str>,
    pub(super) digest: Option<&'a str>,
}

/// Splits at the characters that cannot be part of a name.
pub(super) fn split(text: &str) -> Result<Pieces<'_>, ReferenceError> {
    let (named, digest) = match text.split_once('@') {
        Some((_, after)) if after.contains('/') => {
            // Somebody wrote user:password@host/... : neither half is quoted.
            let message = "a reference holds no user name or password (there is a '/' after its '@'); \
                           use a credentials file or login";
            return Err(ReferenceError::plain(message.to_owned()));
        }
        Some((named, digest)) => (named, Some(digest)),
        None => (text, None),
    };
    if digest.is_none() && is_bare_digest(named) {
        let why = "looks like a digest without a repository; write HOST/REPOSITORY@sha256:HEX";
        return Err(ReferenceError::of(Part::Repository, named, why));
    }
    let (host, path) = match named.split_once('/') {
        Some((first, rest)) if is_host(first) => (Some(first), rest),
        _ => (None, named),
    };
    let (name, tag) = match path.split_once(':') {
        Some((name, tag)) => (name, Some(tag)),
        None => (path, None),
    };
    Ok(Pieces { host, name, tag, digest })
}

/// Docker's rule for telling a host from the first component of a repository on Docker Hub.
fn is_host(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':', '[']) || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_bare_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

impl Pieces<'_> {
    /// The repository they name, checked and canonical.
    pub(super) fn repository(&self) -> Result<Repository, ReferenceError> {
        let mut host = match self.host {
            Some(host) => canonical_host(host)?,
            None => DOCKER_HUB.to_owned(),
        };
        if host == DOCKER_HUB_OLD {
            DOCKER_HUB.clone_into(&mut host);
        }
        check_name(self.name)?;
        let name = if host == DOCKER_HUB && !self.name.contains('/') {
            format!("{DOCKER_HUB_LIBRARY}{}", self.name)
        } else {
            self.name.to_owned()
        };
        if host.len() + 1 + name.len() > REPOSITORY_LIMIT_BYTES {
            let why = "is too long: with its host and a '/' it may have 255 bytes";
            return Err(ReferenceError::of(Part::Repository, &name, why));
        }
        Ok(Repository { host, name })
    }
}

/// The host in lower case, its port as a plain number, an IPv6 address in its shortest form.
fn canonical_host(text: &str) -> Result<String, ReferenceError> {
    let wrong = |why: &str| ReferenceError::of(Part::Host, text, why);
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (inside, after) = rest.split_once(']').ok_or_else(|| wrong("has no ']' after its IPv6 address"))?;
        let address: Ipv6Addr = inside.parse().map_err(|_| wrong("has no valid IPv6 address between '[' and ']'"))?;
        let port = match after.strip_prefix(':') {
            Some(port) => Some(port),
            None if after.is_empty() => None,
            None => return Err(wrong("has something other than ':PORT' after its ']'")),
        };
        (format!("[{address}]"), port)
    } else {
        let (name, port) = match text.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err(wrong("has more than one ':'; write an IPv6 address in brackets, as in [::1]:5000"));
            }
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        };
        (canonical_host_name(text, name)?, port)
    };
    match port {
        None => Ok(host),
        Some(port) => {
            let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
            let number = port.parse::<u16>().ok().filter(|&number| digits && number != 0);
            number
                .map(|number| format!("{host}:{number}"))
                .ok_or_else(|| wrong("has a port that is not a number from 1 to 65535"))
        }
    }
}

/// `name` is the host without its port, `text` the whole of it for messages.
fn canonical_host_name(text: &str, name: &str) -> Result<String, ReferenceError> {
    let wrong = |why: &str| Err(ReferenceError::of(Part::Host, text, why));
    if name.is_empty() {
        return wrong("has no name before its ':'");
    }
    for label in name.split('.') {
        if label.is_empty() {
            return wrong("has a '.' at its begin or end, or two in a row");
        }
        if !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return wrong("has a character that is not a letter, a digit, '-' or '.'");
        }
        if label.starts_with('-') || label.ends_with('-') {
            return wrong("has a '-' at the begin or end of a label");
        }
    }
    let lower = name.to_ascii_lowercase();
    if ends_in_a_number(&lower) && lower.parse::<Ipv4Addr>().is_err() {
        return wrong("ends in a number, so it must be an IPv4 address: four numbers from 0 to 255");
    }
    // A single upper-case word counts as a host only because of its case: in lower case it would be read as the first
    // component of a repository on Docker Hub.
    let stands_alone = is_host(&lower) || text.contains(':');
    Ok(if stands_alone { lower } else { name.to_owned() })
}

/// URLs take such a host for an IPv4 address in whatever notation, so that it would become another one or none at all (URL
/// standard, "ends in a number").
fn ends_in_a_number(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or(host);
    let hex = last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    hex || last.bytes().all(|byte| byte.is_ascii_digit())
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, several with `/` between them.
fn check_name(name: &str) -> Result<(), ReferenceError> {
    let wrong = |why: &str| Err(ReferenceError::of(Part::Repository, name, why));
    if name.is_empty() {
        return wrong("is empty; write HOST/REPOSITORY:TAG");
    }
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return wrong("has upper-case letters; repository names are written in lower case");
    }
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    for component in name.split('/') {
        if component.is_empty() {
            return wrong("has an empty component: a '/' at its begin or end, or two in a row");
        }
        if !component.bytes().all(|byte| alphanumeric(byte) || b"._-".contains(&byte)) {
            return wrong("has a character that is not a lower-case letter, a digit, '.', '_', '-' or '/'");
        }
        let mut separators = component.split(|character: char| character.is_ascii_alphanumeric());
        let (first, last) = (separators.next(), separators.next_back());
        if first.is_some_and(|run| !run.is_empty()) || last.is_some_and(|run| !run.is_empty()) {
            return wrong("has a component that does not begin and end with a letter or a digit");
        }
        let allowed = |run: &str| matches!(run, "" | "." | "_" | "__") || run.bytes().all(|byte| byte == b'-');
        if !separators.all(allowed) {
            return wrong("has a separator that is not '.', '_', '__' or dashes");
        }
    }
    Ok(())
}
