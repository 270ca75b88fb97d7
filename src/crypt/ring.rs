//! Keys, and what they seal and open.

use super::keys::Error;
use aes_gcm::aead::{Aead, Generate, Payload};
use aes_gcm::{Aes256Gcm, Key, KeyInit, Nonce};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

/// The format of what is sealed: this byte, the nonce (12 bytes), the sealed bytes with their tag (16); all in base64.
const FORMAT: u8 = 1;
/// Bytes of a nonce.
const NONCE_BYTES: usize = 12;
/// Bytes of a tag.
const TAG_BYTES: usize = 16;
/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Longest text that is sealed or opened, bytes: tokens are a few KiB.
const TEXT_LIMIT: usize = 64 * 1024;
/// Most keys of a ring.
pub const KEYS_LIMIT: usize = 16;

/// What was opened; wiped from memory when it is dropped.
pub type Opened = Zeroizing<String>;

/// The keys of the vault: the first seals, all open.
pub struct Ring {
    keys: Vec<(String, Zeroizing<[u8; KEY_BYTES]>)>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(self.keys.iter().map(|(id, _)| id)).finish()
    }
}

/// The id of a key: what can be told of it.
fn id(key: &[u8; KEY_BYTES]) -> String {
    let mut hash = Sha256::new();
    hash.update(b"freightliner vault key\0");
    hash.update(key);
    hex::encode(&hash.finalize()[..8])
}

/// What a sealed text is bound to.
fn bound(key_id: &str, registry: &str, username: &str) -> Vec<u8> {
    ["freightliner credential", key_id, registry, username].join("\0").into_bytes()
}

impl Ring {
    /// A key a line, 64 hex digits, the first one first; empty lines and those that begin with `#` are passed over.
    ///
    /// # Errors
    /// The line that is no key, too many, or none. Nothing of a key is in it.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut keys = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut key = Zeroizing::new([0; KEY_BYTES]);
            hex::decode_to_slice(line, key.as_mut_slice())
                .map_err(|_| Error::Invalid(format!("line {number} is no key: a key has 64 hex digits")))?;
            keys.push((id(&key), key));
        }
        match keys.len() {
            0 => Err(Error::Invalid("there is no key in it".to_owned())),
            1..=KEYS_LIMIT => Ok(Self { keys }),
            _ => Err(Error::Invalid(format!("there are more than {KEYS_LIMIT} keys in it"))),
        }
    }

    /// The form that [`Ring::parse`] reads.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(self.keys.len() * (2 * KEY_BYTES + 1)));
        for (_, key) in &self.keys {
            let mut digits = hex::encode(key.as_slice());
            text.push_str(&digits);
            text.push('\n');
            digits.zeroize();
        }
        text
    }

    /// With a new key in front; no other ring has it.
    ///
    /// # Errors
    /// The system has no random bytes, or the ring is full.
    pub fn with_new(mut self) -> Result<Self, Error> {
        if self.keys.len() >= KEYS_LIMIT {
            return Err(Error::Invalid(format!("the ring has {KEYS_LIMIT} keys already: finish the rotation first")));
        }
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(key.as_mut_slice()).map_err(|error| Error::Invalid(format!("no random bytes: {error}")))?;
        self.keys.insert(0, (id(&key), key));
        Ok(self)
    }

    /// A ring of one new key.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub fn generate() -> Result<Self, Error> {
        Self { keys: Vec::new() }.with_new()
    }

    /// Without all keys but this one.
    #[must_use]
    pub fn only(mut self, key_id: &str) -> Self {
        self.keys.retain(|(id, _)| id == key_id);
        self
    }

    /// The id of the key that seals.
    #[must_use]
    pub fn first(&self) -> &str {
        self.keys.first().map_or("", |(id, _)| id)
    }

    /// How many keys there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.keys.len()
    }

    /// There is no key.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    fn cipher(&self, key_id: &str) -> Option<Aes256Gcm> {
        let (_, key) = self.keys.iter().find(|(id, _)| id == key_id)?;
        let mut copy = Key::<Aes256Gcm>::from(**key);
        let cipher = Aes256Gcm::new(&copy);
        copy.as_mut_slice().zeroize();
        Some(cipher)
    }

    /// Seals the password of a user at a registry. The id of the key, and what goes into the row.
    ///
    /// # Errors
    /// It is too long, or the system has no random bytes.
    pub fn seal(&self, registry: &str, username: &str, password: &str) -> Result<(String, String), Error> {
        if password.len() > TEXT_LIMIT {
            return Err(Error::Invalid(format!("a password has at most {TEXT_LIMIT} bytes")));
        }
        let key_id = self.first().to_owned();
        let failed = || Error::Invalid("it cannot be sealed".to_owned());
        let nonce = Nonce::try_generate().map_err(|error| Error::Invalid(format!("no random bytes: {error}")))?;
        let aad = bound(&key_id, registry, username);
        let payload = Payload { msg: password.as_bytes(), aad: &aad };
        let sealed = self.cipher(&key_id).ok_or_else(failed)?.encrypt(&nonce, payload).map_err(|_| failed())?;
        let row = [&[FORMAT][..], nonce.as_slice(), &sealed].concat();
        Ok((key_id, STANDARD.encode(row)))
    }

    /// Opens what was sealed for this user at this registry. None: another key, another place, or changed.
    #[must_use]
    pub fn open(&self, key_id: &str, registry: &str, username: &str, sealed: &str) -> Option<Opened> {
        if sealed.len() > 2 * (TEXT_LIMIT + NONCE_BYTES + TAG_BYTES + 1) {
            return None;
        }
        let row = STANDARD.decode(sealed).ok()?;
        let (nonce, msg) = row.strip_prefix(&[FORMAT])?.split_first_chunk::<NONCE_BYTES>()?;
        if msg.len() < TAG_BYTES {
            return None;
        }
        let aad = bound(key_id, registry, username);
        let opened = self.cipher(key_id)?.decrypt(&(*nonce).into(), Payload { msg, aad: &aad }).ok()?;
        match String::from_utf8(opened) {
            Ok(text) => Some(Zeroizing::new(text)),
            Err(error) => {
                error.into_bytes().zeroize();
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_in_its_place_alone() {
        let ring = Ring::generate().unwrap();
        let (key, sealed) = ring.seal("h.example", "maria", "secret").unwrap();
        assert_eq!(ring.open(&key, "h.example", "maria", &sealed).unwrap().as_str(), "secret");
        assert!(ring.open(&key, "i.example", "maria", &sealed).is_none());
        assert!(ring.open(&key, "h.example", "eve", &sealed).is_none());
        assert!(ring.open("other", "h.example", "maria", &sealed).is_none());
        assert!(Ring::generate().unwrap().open(&key, "h.example", "maria", &sealed).is_none());
        assert_ne!(ring.seal("h.example", "maria", "secret").unwrap().1, sealed, "a nonce is used once");
        assert!(!sealed.contains("secret") && !format!("{ring:?}").contains(&ring.to_text()[..8]));
    }

    #[test]
    fn what_was_cut_or_changed_at_any_byte_does_not_open() {
        let ring = Ring::generate().unwrap();
        let (key, sealed) = ring.seal("h.example", "maria", "secret").unwrap();
        let bytes = STANDARD.decode(&sealed).unwrap();
        for place in 0..bytes.len() {
            let cut = STANDARD.encode(&bytes[..place]);
            assert!(ring.open(&key, "h.example", "maria", &cut).is_none(), "cut at {place}");
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            let changed = STANDARD.encode(changed);
            assert!(ring.open(&key, "h.example", "maria", &changed).is_none(), "changed at {place}");
        }
        let longer = STANDARD.encode([&bytes[..], &[0]].concat());
        assert!(ring.open(&key, "h.example", "maria", &longer).is_none());
        assert!(ring.open(&key, "h.example", "maria", &"A".repeat(10_000_000)).is_none());
        assert!(ring.open(&key, "h.example", "maria", "no base64!").is_none());
    }

    #[test]
    fn a_ring_is_read_as_it_was_written() {
        let old = Ring::generate().unwrap();
        let (key, sealed) = old.seal("h.example", "maria", "secret").unwrap();
        let both = old.with_new().unwrap();
        assert_ne!(both.first(), key);
        let read = Ring::parse(&both.to_text()).unwrap();
        assert_eq!((read.first(), read.len()), (both.first(), 2));
        assert!(read.open(&key, "h.example", "maria", &sealed).is_some());
        let first = read.first().to_owned();
        let one = read.only(&first);
        assert!(one.len() == 1 && one.open(&key, "h.example", "maria", &sealed).is_none());
        for (text, word) in
            [("", "no key"), ("# x\n\n", "no key"), ("xyz", "line 1"), (&format!("{}\nff", "0".repeat(64)), "line 2")]
        {
            assert!(Ring::parse(text).unwrap_err().to_string().contains(word), "{text}");
        }
        assert!(Ring::parse(&format!("{}\n", "0".repeat(64)).repeat(17)).is_err());
    }
}
