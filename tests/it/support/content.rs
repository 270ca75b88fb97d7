//! Bytes and their digests: literal, or generated from a seed so that a gigabyte needs no memory.

use bytes::Bytes;
use sha2::{Digest as _, Sha256, Sha512};
use std::ops::Range;
use std::sync::Arc;

/// Length of the pattern that seeded content repeats, bytes; each repetition begins with its own number.
const BLOCK: u64 = 64 * 1024;

/// How much is generated at a time when content is hashed or sent, bytes.
pub const CHUNK: u64 = 256 * 1024;

/// A digest algorithm registered by the OCI image specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    Sha256,
    Sha512,
}

impl Algorithm {
    /// The algorithm a digest string begins with; None for others.
    pub fn of(digest: &str) -> Option<Self> {
        match digest.split_once(':')?.0 {
            "sha256" => Some(Self::Sha256),
            "sha512" => Some(Self::Sha512),
            _ => None,
        }
    }

    /// `algorithm:hex` of the bytes.
    pub fn digest(self, bytes: &[u8]) -> String {
        let mut hasher = Hasher::new(self);
        hasher.update(bytes);
        hasher.finish()
    }
}

/// `sha256:hex` of the bytes.
pub fn sha256(bytes: &[u8]) -> String {
    Algorithm::Sha256.digest(bytes)
}

/// A running digest of either algorithm.
#[derive(Clone)]
pub enum Hasher {
    Sha256(Sha256),
    Sha512(Box<Sha512>),
}

impl Hasher {
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Box::new(Sha512::new())),
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// `algorithm:hex` of all that was fed.
    pub fn finish(self) -> String {
        match self {
            Self::Sha256(hasher) => format!("sha256:{}", hex::encode(hasher.finalize())),
            Self::Sha512(hasher) => format!("sha512:{}", hex::encode(hasher.finalize())),
        }
    }
}

/// The bytes of a blob. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Content {
    /// Held in memory.
    Bytes(Bytes),
    /// Made when asked for: incompressible, equal for an equal seed, different in every block.
    Seeded { seed: u64, size: u64, block: Arc<[u8]> },
    /// Was received, hashed and thrown away; only its size is known.
    Discarded { size: u64 },
}

impl Content {
    /// Content of `size` bytes made from `seed`.
    pub fn seeded(seed: u64, size: u64) -> Self {
        Self::Seeded { seed, size, block: pattern(seed) }
    }

    /// Number of bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Seeded { size, .. } | Self::Discarded { size } => *size,
        }
    }

    /// The bytes of a range, which must lie within the content. Panics for discarded content.
    pub fn slice(&self, range: Range<u64>) -> Bytes {
        match self {
            Self::Bytes(bytes) => bytes.slice(to_usize(range.start)..to_usize(range.end)),
            Self::Seeded { seed, block, .. } => generate(*seed, block, range),
            Self::Discarded { .. } => panic!("the bytes of this blob were discarded"),
        }
    }

    /// All bytes at once; for content that fits into memory.
    pub fn to_bytes(&self) -> Bytes {
        self.slice(0..self.len())
    }

    /// `algorithm:hex` of the content, in bounded memory.
    pub fn digest(&self, algorithm: Algorithm) -> String {
        let mut hasher = Hasher::new(algorithm);
        for chunk in self.chunks() {
            hasher.update(&chunk);
        }
        hasher.finish()
    }

    /// The content in pieces of at most `CHUNK` bytes.
    pub fn chunks(&self) -> impl Iterator<Item = Bytes> + '_ {
        let size = self.len();
        let mut position = 0;
        std::iter::from_fn(move || {
            let end = size.min(position + CHUNK);
            (position < size).then(|| self.slice(std::mem::replace(&mut position, end)..end))
        })
    }
}

impl<T: Into<Bytes>> From<T> for Content {
    fn from(bytes: T) -> Self {
        Self::Bytes(bytes.into())
    }
}

/// `size` bytes from a seed, in memory.
pub fn random_bytes(seed: u64, size: usize) -> Bytes {
    Content::seeded(seed, size as u64).to_bytes()
}

/// The repeated pattern of a seed (splitmix64).
fn pattern(seed: u64) -> Arc<[u8]> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(to_usize(BLOCK));
    while (bytes.len() as u64) < BLOCK {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bytes.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    bytes.into()
}

fn generate(seed: u64, block: &[u8], range: Range<u64>) -> Bytes {
    let first = range.start / BLOCK;
    let mut bytes = Vec::with_capacity(to_usize(range.end - first * BLOCK));
    for number in first..range.end.div_ceil(BLOCK) {
        bytes.extend_from_slice(&(seed ^ number.wrapping_mul(0x2545_F491_4F6C_DD1D)).to_le_bytes());
        bytes.extend_from_slice(&block[8..]);
    }
    let start = to_usize(range.start - first * BLOCK);
    Bytes::from(bytes).slice(start..start + to_usize(range.end - range.start))
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).expect("fits into memory")
}
