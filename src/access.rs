//! Who may do what through the API: keys, roles and the destinations that a key may write to. Pure.
//!
//! A key is `fl_ID_SECRET`: the id finds its row, the secret has 256 random bits. Only the SHA-256 of the whole text is stored;
//! a slow hash would protect nothing here, because nobody guesses 256 bits. Comparing takes the same time wherever two hashes
//! differ.

use crate::clock::UnixMillis;
use crate::job::{rfc3339, rfc3339_option};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;
use subtle::ConstantTimeEq;

/// What every key begins with, so that scanners of secrets know one when they see it.
const PREFIX: &str = "fl_";
/// Random bytes of an id.
const ID_BYTES: usize = 6;
/// Random bytes of a secret.
const SECRET_BYTES: usize = 32;
/// Longest name of a key, characters.
const NAME_LIMIT: usize = 128;
/// Most destinations of a key.
const DESTINATIONS_LIMIT: usize = 100;
/// Shortest key that somebody may choose for the configuration, bytes.
pub const SHORTEST_KEY: usize = 16;

/// What a key may do; each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look.
    Read,
    /// Ask for copies and batches.
    Enqueue,
    /// Cancel, retry, pause, resume; run mirrors and steer schedules.
    Operate,
    /// Everything.
    Admin,
}

impl Role {
    /// The word in rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Enqueue => "enqueue",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Read, Self::Enqueue, Self::Operate, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| format!("unknown role `{text}`: use read, enqueue, operate or admin"))
    }
}

/// The SHA-256 of a key.
#[derive(Clone, Copy)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// Of the text of a key.
    #[must_use]
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    /// From hex digits; None: it is no SHA-256.
    #[must_use]
    pub fn from_hex(digits: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// As rows have it.
    #[must_use]
    pub fn to_hex(self) -> String {
        hex::encode(self.0)
    }

    /// Are they equal? Takes the same time whatever the answer is.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KeyHash(..)")
    }
}

/// A key that is to be: what its row will say.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Finds the row.
    pub id: String,
    /// For people and for the audit trail.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Of the whole key.
    pub hash: KeyHash,
    /// What it may write to; None: everything.
    pub destinations: Option<Vec<Destination>>,
    /// It is good for nothing from then on.
    pub expires_at: Option<UnixMillis>,
}

/// A key as its row has it, without what it is proved by.
#[derive(Debug, Clone, Serialize)]
pub struct ApiKey {
    /// Finds the row.
    pub id: String,
    /// For people and for the audit trail.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Of the whole key; never shown.
    #[serde(skip)]
    pub hash: KeyHash,
    /// What it may write to; None: everything.
    pub destinations: Option<Vec<Destination>>,
    /// When it was made.
    #[serde(serialize_with = "rfc3339")]
    pub created_at: UnixMillis,
    /// Who made it.
    pub created_by: String,
    /// It is good for nothing from then on.
    #[serde(serialize_with = "rfc3339_option")]
    pub expires_at: Option<UnixMillis>,
    /// It is good for nothing since then.
    #[serde(serialize_with = "rfc3339_option")]
    pub revoked_at: Option<UnixMillis>,
    /// Who revoked it.
    pub revoked_by: Option<String>,
}

impl ApiKey {
    /// It is good for something at this moment.
    #[must_use]
    pub fn is_valid(&self, now: UnixMillis) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

impl NewKey {
    /// A new key with the text that its holder gets, which is nowhere else.
    ///
    /// # Errors
    /// The name cannot be, there are too many destinations, or the system has no random bytes.
    pub fn generate(
        name: &str,
        role: Role,
        destinations: Option<Vec<Destination>>,
        expires_at: Option<UnixMillis>,
    ) -> Result<(Self, String), String> {
        if name.is_empty() || name.chars().count() > NAME_LIMIT || name.chars().any(char::is_control) {
            return Err(format!("the name of a key has 1 to {NAME_LIMIT} characters and no control characters"));
        }
        if destinations.as_ref().is_some_and(|all| all.is_empty() || all.len() > DESTINATIONS_LIMIT) {
            return Err(format!("a key is limited to 1 to {DESTINATIONS_LIMIT} destinations"));
        }
        let mut random = [0; ID_BYTES + SECRET_BYTES];
        getrandom::fill(&mut random).map_err(|error| format!("the system has no random bytes: {error}"))?;
        let (id, secret) = random.split_at(ID_BYTES);
        let id = hex::encode(id);
        let key = format!("{PREFIX}{id}_{}", hex::encode(secret));
        let hash = KeyHash::of(&key);
        Ok((Self { id, name: name.to_owned(), role, hash, destinations, expires_at }, key))
    }
}

/// The id within the text of a key; None: it has no such form.
#[must_use]
pub fn key_id(key: &str) -> Option<&str> {
    let (id, secret) = key.strip_prefix(PREFIX)?.split_once('_')?;
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (id.len() == 2 * ID_BYTES && secret.len() == 2 * SECRET_BYTES && is_hex(id) && is_hex(secret)).then_some(id)
}

/// A place that a key may write to: a registry, or what is below a path in it (`HOST[:PORT][/PATH]`). `h/team` holds `h/team`
/// and `h/team/app`, not `h/teams`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Destination {
    host: String,
    path: String,
}

impl Destination {
    /// Is this canonical destination (`HOST/PATH[:TAG][@DIGEST]`, or a prefix `HOST[/PATH]`) below it?
    #[must_use]
    pub fn holds(&self, canonical: &str) -> bool {
        let (host, rest) = canonical.split_once('/').unwrap_or((canonical, ""));
        if host != self.host {
            return false;
        }
        let path = rest.split(['@', ':']).next().unwrap_or_default();
        self.path.is_empty()
            || path.strip_prefix(self.path.as_str()).is_some_and(|below| below.is_empty() || below.starts_with('/'))
    }
}

impl TryFrom<String> for Destination {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (host, path) = crate::mirror::place(text.trim_end_matches('/'))
            .map_err(|error| format!("destination `{text}`: {error}"))?;
        Ok(Self { host, path })
    }
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::try_from(text.to_owned())
    }
}

impl From<Destination> for String {
    fn from(place: Destination) -> Self {
        if place.path.is_empty() { place.host } else { format!("{}/{}", place.host, place.path) }
    }
}

/// A call of the API that changes something, for the audit trail.
#[derive(Debug, Clone)]
pub struct Call {
    /// Of the request.
    pub request_id: String,
    /// Of the key; None: that of the configuration, or none where none is asked for.
    pub key_id: Option<String>,
    /// Of the key.
    pub key_name: String,
    /// Of the key.
    pub role: Role,
    /// Where from.
    pub address: String,
    /// The method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// False: refused for want of rights.
    pub allowed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_by_its_hash_alone() {
        let (row, key) = NewKey::generate("ci", Role::Enqueue, None, None).unwrap();
        assert_eq!(key_id(&key), Some(row.id.as_str()));
        assert!(row.hash.matches(&KeyHash::of(&key)));
        assert!(!row.hash.matches(&KeyHash::of(&key.to_uppercase())));
        assert!(KeyHash::from_hex(&row.hash.to_hex()).unwrap().matches(&row.hash));
        assert!(!format!("{row:?}").contains(&row.hash.to_hex()));
        let (other, _) = NewKey::generate("ci", Role::Enqueue, None, None).unwrap();
        assert_ne!(row.id, other.id);
        assert!(NewKey::generate("", Role::Read, None, None).is_err());
        assert!(NewKey::generate("a\nb", Role::Read, None, None).is_err());
        assert!(NewKey::generate("a", Role::Read, Some(Vec::new()), None).is_err());
    }

    #[test]
    fn what_has_not_the_form_of_a_key_has_no_id() {
        let (_, key) = NewKey::generate("ci", Role::Read, None, None).unwrap();
        for text in ["", "fl_", "fl__", "secret", &key[1..], &key[..key.len() - 1], &format!("{key}0"), "fl_é_x"] {
            assert_eq!(key_id(text), None, "{text}");
        }
    }

    #[test]
    fn roles_hold_each_other() {
        assert!(Role::Read < Role::Enqueue && Role::Enqueue < Role::Operate && Role::Operate < Role::Admin);
        for role in [Role::Read, Role::Enqueue, Role::Operate, Role::Admin] {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        assert!("root".parse::<Role>().is_err());
    }

    #[test]
    fn a_destination_is_a_path_and_no_prefix_of_letters() {
        let team: Destination = "registry.example.com/team/".parse().unwrap();
        for inside in
            ["registry.example.com/team:1", "registry.example.com/team/app@sha256:00", "registry.example.com/team/a"]
        {
            assert!(team.holds(inside), "{inside}");
        }
        for outside in [
            "registry.example.com/teams:1",
            "registry.example.com/x",
            "registry.example.com:443/team",
            "team",
            "oci:/x",
        ] {
            assert!(!team.holds(outside), "{outside}");
        }
        let all: Destination = "localhost:5000".parse().unwrap();
        assert!(all.holds("localhost:5000/x:1") && !all.holds("localhost/x:1"));
        assert_eq!(String::from(team), "registry.example.com/team");
    }
}
