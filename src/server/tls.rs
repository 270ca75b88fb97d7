//! TLS: certificate and key from files, read again when they change, so that a renewed certificate needs no restart.

use crate::clock::{BootTime, Clock};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio_rustls::TlsAcceptor;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// What the files were when they were read.
type Stamp = [Option<(SystemTime, u64)>; 2];

struct Loaded {
    acceptor: TlsAcceptor,
    stamp: Stamp,
    looked: BootTime,
}

/// The certificate in force.
pub struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    clock: Clock,
    loaded: Mutex<Loaded>,
}

impl Certificate {
    /// Reads both files.
    ///
    /// # Errors
    /// One line that says which file is wrong, and why.
    pub fn load(chain: &Path, key: &Path, clock: Clock) -> Result<Self, String> {
        let loaded = Loaded { acceptor: read(chain, key)?, stamp: stamp(chain, key), looked: clock.boot() };
        Ok(Self { chain: chain.to_owned(), key: key.to_owned(), clock, loaded: Mutex::new(loaded) })
    }

    /// For the next connection. Files that have changed are read again; when they are wrong, what was read before stays.
    pub fn acceptor(&self) -> TlsAcceptor {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.boot();
        if now.since(loaded.looked) >= LOOK {
            loaded.looked = now;
            let stamp = stamp(&self.chain, &self.key);
            if stamp != loaded.stamp {
                match read(&self.chain, &self.key) {
                    Ok(acceptor) => {
                        tracing::info!("the certificate has changed");
                        loaded.acceptor = acceptor;
                        loaded.stamp = stamp;
                    }
                    Err(error) => tracing::error!(%error, "the new certificate cannot be used, the old one stays"),
                }
            }
        }
        loaded.acceptor.clone()
    }
}

fn stamp(chain: &Path, key: &Path) -> Stamp {
    [chain, key].map(|path| {
        let facts = std::fs::metadata(path).ok()?;
        Some((facts.modified().ok()?, facts.len()))
    })
}

fn read(chain: &Path, key: &Path) -> Result<TlsAcceptor, String> {
    let wrong = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let certificates: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(chain).and_then(Iterator::collect).map_err(|error| wrong(chain, &error))?;
    if certificates.is_empty() {
        return Err(wrong(chain, &"it holds no certificate"));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(chain, &error))?
        .with_no_client_auth()
        .with_single_cert(certificates, private)
        .map_err(|error| wrong(chain, &error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
