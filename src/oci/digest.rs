//! Content digests and the streaming check of content against them.
//!
//! A digest is kept as its canonical text rather than as bytes, because text is what URLs, rows, file names and messages
//! need; the hash of received content is compared as text too. The `Verifier` fails at the first byte too many instead of
//! at the end, so that a source which never stops cannot fill a disk.
//!
//! Nothing here accepts upper-case hex or an algorithm it cannot compute: content that cannot be checked is not copied.

use super::quote;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;
use sha2::digest::common::hazmat::SerializableState as _;
use std::fmt;
use std::str::FromStr;

/// A registered digest algorithm (image spec, descriptor.md). Others parse as references but are refused here, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256: 64 hexadecimal digits.
    Sha256,
    /// SHA-512: 128 hexadecimal digits.
    Sha512,
}

impl Algorithm {
    /// The name that stands before the colon.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// How many hexadecimal digits a digest of this algorithm has.
    #[must_use]
    pub fn hex_length(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A validated digest, `algorithm:hex`, lower case. Serialises as that string.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    text: String,
}

/// Why a text is not a digest. One line, quotes the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The text has another shape, an unknown algorithm, or the wrong number or kind of digits.
    #[error("{0}")]
    Invalid(String),
}

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The algorithm it was made with.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        // A digest is only ever made by `FromStr` and `Hasher`, so that its length says which of the two it is.
        if self.hex().len() == Algorithm::Sha512.hex_length() { Algorithm::Sha512 } else { Algorithm::Sha256 }
    }

    /// The hexadecimal digits after the colon, lower case.
    #[must_use]
    pub fn hex(&self) -> &str {
        self.text.split_once(':').map_or("", |(_, hex)| hex)
    }

    /// The whole text, `algorithm:hex`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |why: String| Err(DigestError::Invalid(format!("digest {} {why}", quote(text))));
        let Some((name, hex)) = text.split_once(':') else {
            return invalid("has no ':' (write sha256:HEX)".to_owned());
        };
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            "" => return invalid("has no algorithm before the ':' (write sha256:HEX)".to_owned()),
            other => {
                return invalid(format!("uses the algorithm {}; only sha256 and sha512 are supported", quote(other)));
            }
        };
        if hex.len() != algorithm.hex_length() {
            let expected = algorithm.hex_length();
            return invalid(format!("has {} characters after the ':'; {name} needs {expected}", hex.chars().count()));
        }
        if hex.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return invalid("has upper-case letters; digests are written in lower case".to_owned());
        }
        if !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return invalid("has characters that are not hexadecimal digits".to_owned());
        }
        Ok(Self { text: text.to_owned() })
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The running hash behind both algorithms.
#[derive(Clone)]
enum Hasher {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(sha2::Sha512::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(state) => state.update(bytes),
            Self::Sha512(state) => state.update(bytes),
        }
    }

    fn save(&self) -> Vec<u8> {
        match self {
            Self::Sha256(state) => state.serialize().to_vec(),
            Self::Sha512(state) => state.serialize().to_vec(),
        }
    }

    fn restore(algorithm: Algorithm, state: &[u8]) -> Option<Self> {
        match algorithm {
            Algorithm::Sha256 => sha2::Sha256::deserialize(state.try_into().ok()?).ok().map(Self::Sha256),
            Algorithm::Sha512 => sha2::Sha512::deserialize(state.try_into().ok()?).ok().map(Self::Sha512),
        }
    }

    fn finish(self) -> Digest {
        let text = match self {
            Self::Sha256(state) => format!("sha256:{}", hex::encode(state.finalize())),
            Self::Sha512(state) => format!("sha512:{}", hex::encode(state.finalize())),
        };
        Digest { text }
    }
}

/// Checks a stream of bytes against a digest and, where known, a size. Fails as soon as there are too many bytes.
#[derive(Clone)]
pub struct Verifier {
    expected: Digest,
    size: Option<u64>,
    seen: u64,
    hasher: Hasher,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("expected", &self.expected)
            .field("size", &self.size)
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

/// How content differs from what its descriptor says. One line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// More bytes came than the descriptor says.
    #[error("content is larger than the {expected} bytes its descriptor says")]
    TooLong {
        /// Size in the descriptor, bytes.
        expected: u64,
    },
    /// The content ended early.
    #[error("content ended after {actual} of {expected} bytes")]
    TooShort {
        /// Size in the descriptor, bytes.
        expected: u64,
        /// Bytes that came.
        actual: u64,
    },
    /// The right number of bytes (where that is known), but other ones.
    #[error("content has digest {actual}, expected {expected}")]
    WrongDigest {
        /// The digest in the descriptor.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
}

impl Verifier {
    /// A check of content that should have digest `expected` and, where given, exactly `size` bytes.
    #[must_use]
    pub fn new(expected: Digest, size: Option<u64>) -> Self {
        let hasher = Hasher::new(expected.algorithm());
        Self { expected, size, seen: 0, hasher }
    }

    /// The check as far as it has come, to go on with it in another process: a format tag, the algorithm, how many bytes were
    /// taken (8, big-endian), the state of the hash. It tells nothing but a prefix's hash.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        let mut saved = self.tag();
        saved.extend_from_slice(&self.seen.to_be_bytes());
        saved.extend_from_slice(&self.hasher.save());
        saved
    }

    /// A check that goes on where [`save`](Self::save) was called. None when it is of another format, algorithm or version of
    /// the hash, or has taken more than `size`: the content is to be read from its start then.
    #[must_use]
    pub fn restore(expected: Digest, size: Option<u64>, saved: &[u8]) -> Option<Self> {
        let fresh = Self::new(expected, size);
        let rest = saved.strip_prefix(fresh.tag().as_slice())?;
        let (seen, state) = rest.split_first_chunk()?;
        let seen = u64::from_be_bytes(*seen);
        let hasher = Hasher::restore(fresh.expected.algorithm(), state)?;
        (size.is_none_or(|size| seen <= size)).then_some(Self { seen, hasher, ..fresh })
    }

    /// The states of another version of the hash's crate are not to be read.
    fn tag(&self) -> Vec<u8> {
        format!("sha2-0.11:{}:", self.expected.algorithm()).into_bytes()
    }

    /// Takes the next piece of content.
    ///
    /// # Errors
    /// `TooLong` as soon as there are more bytes than the size; such a piece is not hashed.
    pub fn update(&mut self, bytes: &[u8]) -> Result<(), ContentError> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let seen = self.seen.saturating_add(length);
        if let Some(expected) = self.size
            && seen > expected
        {
            return Err(ContentError::TooLong { expected });
        }
        self.seen = seen;
        self.hasher.update(bytes);
        Ok(())
    }

    /// Bytes taken so far.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Consumes the verifier; Ok means every byte was checked.
    ///
    /// # Errors
    /// `TooShort` when bytes are missing, else `WrongDigest` when they are other bytes.
    pub fn finish(self) -> Result<(), ContentError> {
        if let Some(expected) = self.size
            && self.seen < expected
        {
            return Err(ContentError::TooShort { expected, actual: self.seen });
        }
        let actual = self.hasher.finish();
        if actual == self.expected {
            Ok(())
        } else {
            Err(ContentError::WrongDigest { expected: self.expected, actual })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EMPTY_SHA256: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const ABC_SHA512: &str = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                              2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";

    #[test]
    fn known_answers() {
        assert_eq!(Digest::of(Algorithm::Sha256, b"").as_str(), EMPTY_SHA256);
        assert_eq!(Digest::of(Algorithm::Sha512, b"abc").as_str(), ABC_SHA512);
        let parsed: Digest = ABC_SHA512.parse().unwrap();
        assert_eq!(parsed.algorithm(), Algorithm::Sha512);
        assert_eq!(parsed.hex().len(), 128);
        assert_eq!(EMPTY_SHA256.parse::<Digest>().unwrap().algorithm(), Algorithm::Sha256);
    }

    #[test]
    fn wrong_digests_say_what_is_wrong() {
        let cases = [
            ("", "has no ':'"),
            ("sha256", "has no ':'"),
            (":abc", "no algorithm"),
            ("sha256:abc", "has 3 characters after the ':'; sha256 needs 64"),
            ("md5:d41d8cd98f00b204e9800998ecf8427e", "'md5'; only sha256 and sha512"),
            ("SHA256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "'SHA256'"),
            ("sha256:E3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "upper-case"),
            ("sha256:g3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "not hexadecimal"),
            ("sha512:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "sha512 needs 128"),
        ];
        for (text, part) in cases {
            let message = text.parse::<Digest>().unwrap_err().to_string();
            assert!(message.contains(part), "{text}: {message}");
            assert!(!message.contains('\n'));
        }
    }

    #[test]
    fn a_digest_is_a_string_in_json() {
        let digest: Digest = serde_json::from_str(&format!("\"{EMPTY_SHA256}\"")).unwrap();
        assert_eq!(serde_json::to_string(&digest).unwrap(), format!("\"{EMPTY_SHA256}\""));
        assert!(serde_json::from_str::<Digest>("\"sha256:00\"").is_err());
    }

    #[test]
    fn the_verifier_stops_at_the_first_byte_too_many() {
        let mut verifier = Verifier::new(Digest::of(Algorithm::Sha256, b"abc"), Some(3));
        verifier.update(b"ab").unwrap();
        assert_eq!(verifier.update(b"cd"), Err(ContentError::TooLong { expected: 3 }));
        assert_eq!(verifier.seen(), 2);
        verifier.update(b"c").unwrap();
        assert_eq!(verifier.finish(), Ok(()));
    }

    #[test]
    fn the_verifier_tells_short_from_wrong() {
        let digest = Digest::of(Algorithm::Sha512, b"abc");
        let mut short = Verifier::new(digest.clone(), Some(3));
        short.update(b"ab").unwrap();
        assert_eq!(short.finish(), Err(ContentError::TooShort { expected: 3, actual: 2 }));
        let mut wrong = Verifier::new(digest.clone(), None);
        wrong.update(b"abd").unwrap();
        let actual = Digest::of(Algorithm::Sha512, b"abd");
        assert_eq!(wrong.finish(), Err(ContentError::WrongDigest { expected: digest, actual }));
    }

    proptest! {
        #[test]
        fn any_split_of_the_content_verifies(content in proptest::collection::vec(any::<u8>(), 0..300), piece in 1_usize..50) {
            let size = u64::try_from(content.len()).unwrap();
            for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
                let mut verifier = Verifier::new(Digest::of(algorithm, &content), Some(size));
                for bytes in content.chunks(piece) {
                    verifier.update(bytes).unwrap();
                }
                prop_assert_eq!(verifier.finish(), Ok(()));
            }
        }

        #[test]
        fn a_check_goes_on_from_where_it_was_saved(content in proptest::collection::vec(any::<u8>(), 0..600), cut in 0_usize..600) {
            let size = u64::try_from(content.len()).unwrap();
            let (before, after) = content.split_at(cut.min(content.len()));
            for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
                let digest = Digest::of(algorithm, &content);
                let mut verifier = Verifier::new(digest.clone(), Some(size));
                verifier.update(before).unwrap();
                let saved = verifier.save();
                let mut again = Verifier::restore(digest.clone(), Some(size), &saved).unwrap();
                prop_assert_eq!(again.seen(), u64::try_from(before.len()).unwrap());
                again.update(after).unwrap();
                prop_assert_eq!(again.finish(), Ok(()));
                for broken in [&saved[1..], &saved[..saved.len() - 1], b""] {
                    prop_assert!(Verifier::restore(digest.clone(), Some(size), broken).is_none());
                }
                if !before.is_empty() {
                    prop_assert!(Verifier::restore(digest, Some(0), &saved).is_none(), "more than there is");
                }
            }
        }

        #[test]
        fn parsing_is_total_and_round_trips(text in "(sha256|sha512|md5)?:?[0-9a-fA-F]{0,130}|.{0,40}") {
            if let Ok(digest) = text.parse::<Digest>() {
                prop_assert_eq!(digest.to_string(), text);
                prop_assert_eq!(digest.hex().len(), digest.algorithm().hex_length());
            }
        }
    }
}
