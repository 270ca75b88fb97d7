//! A certificate authority of the rig's own, and server certificates for this machine signed by it.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Names that server certificates are made for.
const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

/// An authority with one server certificate, as PEM files in a temp folder that goes with the value.
pub struct Authority {
    folder: tempfile::TempDir,
}

impl Authority {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temp folder");
        let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        ca.distinguished_name.push(DnType::CommonName, "test rig authority");
        let ca_key = KeyPair::generate().expect("a key");
        let ca_certificate = ca.self_signed(&ca_key).expect("a certificate");

        let key = KeyPair::generate().expect("a key");
        let mut server = CertificateParams::new(NAMES.map(String::from)).expect("parameters");
        server.distinguished_name.push(DnType::CommonName, "localhost");
        server.use_authority_key_identifier_extension = true;
        let certificate = server.signed_by(&key, &Issuer::new(ca, ca_key)).expect("a certificate");

        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).expect("write PEM");
        write("ca.pem", ca_certificate.pem());
        write("server.pem", certificate.pem());
        write("server.key", key.serialize_pem());
        Self { folder }
    }

    /// The authority's certificate: what a client must trust.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("server.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.folder.path().join("server.key")
    }

    /// What a server of the rig offers.
    pub fn server_config(&self) -> Arc<rustls::ServerConfig> {
        let certificate = CertificateDer::from_pem_file(self.certificate()).expect("our certificate");
        let key = PrivateKeyDer::from_pem_file(self.key()).expect("our key");
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a key that fits");
        Arc::new(config)
    }
}

/// What a client uses that trusts the authority in `ca` and nobody else.
pub fn client_config(ca: &Path) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).expect("a CA file")).expect("a CA certificate");
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("protocol versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}
