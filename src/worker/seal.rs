//! Sealing of what would let others write: AES-256-GCM under a key of the state folder.
//!
//! An upload's Location can be all that it takes to go on with it, and the database is read by auditors and carried off in
//! backups. The key never leaves `STATE_DIR/keys`. Another host has another one: what it cannot open counts as unknown.

use aes_gcm::aead::{Aead, Generate, Payload};
use aes_gcm::{Aes256Gcm, Key, KeyInit, Nonce};
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The format of what is sealed: this byte, the nonce (12 bytes), the sealed bytes with their tag (16).
const FORMAT: u8 = 1;
/// Bytes of a nonce.
const NONCE_BYTES: usize = 12;
/// Bytes of a key.
const KEY_BYTES: usize = 32;

/// Seals and opens with the key of a state folder, which is made at the first use.
pub(super) struct Seal {
    folder: PathBuf,
    /// None inside: there is no key to be had, which was told.
    cipher: OnceLock<Option<Aes256Gcm>>,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Seal").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Seal {
    /// Of this state folder. Nothing is read yet.
    pub fn new(state_dir: &Path) -> Self {
        Self { folder: state_dir.join("keys"), cipher: OnceLock::new() }
    }

    /// Seals `text`, for `context` alone. None without a key.
    pub fn seal(&self, text: &str, context: &str) -> Option<Vec<u8>> {
        let nonce = Nonce::try_generate().ok()?;
        let payload = Payload { msg: text.as_bytes(), aad: context.as_bytes() };
        let sealed = self.cipher()?.encrypt(&nonce, payload).ok()?;
        Some([&[FORMAT][..], nonce.as_slice(), &sealed].concat())
    }

    /// Opens what was sealed for `context`. None: with another key, for something else, or changed.
    pub fn open(&self, sealed: &[u8], context: &str) -> Option<String> {
        let (nonce, msg) = sealed.strip_prefix(&[FORMAT])?.split_first_chunk::<NONCE_BYTES>()?;
        let opened = self.cipher()?.decrypt(&(*nonce).into(), Payload { msg, aad: context.as_bytes() }).ok()?;
        String::from_utf8(opened).ok()
    }

    fn cipher(&self) -> Option<&Aes256Gcm> {
        let made = || match key(&self.folder) {
            Ok(key) => Some(Aes256Gcm::new(&Key::<Aes256Gcm>::from(key))),
            Err(error) => {
                let folder = self.folder.display();
                tracing::warn!(%folder, %error, "there is no key to seal with: uploads that are cut begin anew");
                None
            }
        };
        self.cipher.get_or_init(made).as_ref()
    }
}

/// The key in `folder`, made when there is none. Two processes that make one at the same time get the same.
fn key(folder: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let path = folder.join("ledger.key");
    match read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        read => return read,
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let key = <[u8; KEY_BYTES]>::from(Key::<Aes256Gcm>::try_generate().map_err(io::Error::other)?);
    // Whole or not at all: it is linked under its name after it was written.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(&key)?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(&path) {
        Ok(_) => {
            File::open(folder)?.sync_all()?;
            Ok(key)
        }
        Err(refused) if refused.error.kind() == io::ErrorKind::AlreadyExists => read(&path),
        Err(refused) => Err(refused.error),
    }
}

fn read(path: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let mut key = Vec::new();
    File::open(path)?.take(KEY_BYTES as u64 + 1).read_to_end(&mut key)?;
    let wrong = |key: Vec<u8>| {
        let (shown, bytes) = (path.display(), key.len());
        io::Error::other(format!("{shown} has {bytes} bytes or more, a key has {KEY_BYTES}: remove it"))
    };
    key.try_into().map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_was_sealed_opens_for_the_same_thing_with_the_same_key_alone() {
        let folder = tempfile::tempdir().unwrap();
        let seal = Seal::new(folder.path());
        let sealed = seal.seal("https://registry.example/upload?token=secret", "a").unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        let again = Seal::new(folder.path());
        assert_eq!(again.open(&sealed, "a").as_deref(), Some("https://registry.example/upload?token=secret"));
        assert_eq!(again.open(&sealed, "b"), None);
        assert_eq!(again.open(&sealed[..sealed.len() - 1], "a"), None);
        assert_eq!(again.open(&[], "a"), None);
        let mut changed = sealed.clone();
        changed[20] ^= 1;
        assert_eq!(again.open(&changed, "a"), None);
        assert_ne!(seal.seal("x", "a"), seal.seal("x", "a"), "a nonce is used once");
        let other = tempfile::tempdir().unwrap();
        assert_eq!(Seal::new(other.path()).open(&sealed, "a"), None);
        let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(folder.path().join("keys")), 0o700);
        assert_eq!(mode(folder.path().join("keys/ledger.key")), 0o600);
    }

    #[test]
    fn a_key_that_is_none_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("keys")).unwrap();
        std::fs::write(folder.path().join("keys/ledger.key"), "short").unwrap();
        assert_eq!(Seal::new(folder.path()).seal("x", "a"), None);
        assert_eq!(std::fs::read(folder.path().join("keys/ledger.key")).unwrap(), b"short");
    }
}
