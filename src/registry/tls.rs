//! Whom TLS connections trust, and the HTTP clients over them.
//!
//! Not the HTTP client's default of the platform's verifier: that one fails to start on a machine without any CA
//! certificates, where a registry on localhost must still be usable. Here an empty list of roots is fine until an HTTPS
//! server has to be believed. `$SSL_CERT_FILE` and `$SSL_CERT_DIR` replace the system's roots when they are set, as they
//! do for OpenSSL; extra CA files are trusted beside either. A registry with a CA, a client certificate or a proxy of its own has
//! clients of its own, so that a redirect away from it takes none of them along. It never talks to a network.

use super::scheme::is_loopback;
use super::settings::{Identity, Proxy, canonical};
use super::{Error, Settings};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// How long an idle connection is kept: less than the 60 s after which common load balancers drop it without a word.
const POOL_IDLE: Duration = Duration::from_secs(30);
/// Where systems keep their CA certificates in one file; the first one that can be read is taken.
const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
];
/// Most files read from `$SSL_CERT_DIR`: the public CAs are about 150, some systems link each twice.
const DIRECTORY_LIMIT: usize = 2_000;

/// The HTTP clients of a process: one for each way to trust and to be routed, and those of registries with settings of their
/// own. Cheap to clone.
#[derive(Clone)]
pub(super) struct Clients {
    /// By verification (no, yes), then by proxy (none, the system's).
    clients: [[reqwest::Client; 2]; 2],
    /// By host; then by verification. Their certificates and proxies are for those hosts alone, wherever a redirect leads.
    own: HashMap<String, [reqwest::Client; 2]>,
    /// For the scheme probe, which ends before certificates matter.
    pub probe: Arc<ClientConfig>,
}

/// How connections are routed.
#[derive(Clone, Copy)]
enum Route<'a> {
    Direct,
    /// As the environment says (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`, in upper or lower case).
    Environment,
    By(&'a Proxy),
}

impl Clients {
    /// # Errors
    /// Refused, when a CA file, a client certificate or its key cannot be read or used.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let provider = Arc::new(ring::default_provider());
        let mut roots = system_roots();
        add_files(&mut roots, &settings.ca_files)?;
        let trusting = config(&provider, None, None)?;
        let verified = config(&provider, Some(roots.clone()), None)?;
        let pair = |tls: &ClientConfig| {
            Ok::<_, Error>([
                client(settings, tls.clone(), Route::Direct)?,
                client(settings, tls.clone(), Route::Environment)?,
            ])
        };
        let mut own = HashMap::new();
        for (host, registry) in settings.registries.iter().filter(|(_, registry)| registry.connects_its_own_way()) {
            let mut roots = roots.clone();
            add_files(&mut roots, &registry.ca_files)?;
            let identity = registry.identity.as_ref().map(read_identity).transpose()?;
            let host = canonical(host);
            let route = match &registry.proxy {
                Some(proxy) => Route::By(proxy),
                None if is_loopback(&host) => Route::Direct,
                None => Route::Environment,
            };
            let one = |roots| client(settings, config(&provider, roots, identity.as_ref())?, route);
            own.insert(host, [one(None)?, one(Some(roots))?]);
        }
        Ok(Self { clients: [pair(&trusting)?, pair(&verified)?], own, probe: Arc::new(trusting) })
    }

    /// The client for a URL that verifies certificates or not.
    pub fn pick(&self, url: &Url, verify_tls: bool) -> &reqwest::Client {
        // A URL does not show a port that its scheme implies; the configuration may.
        let full =
            || format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
        let own = if self.own.is_empty() {
            None
        } else {
            self.own.get(&canonical(url.authority())).or_else(|| self.own.get(&canonical(&full())))
        };
        match own {
            Some(own) => &own[usize::from(verify_tls)],
            None => &self.clients[usize::from(verify_tls)][usize::from(!is_loopback(url.authority()))],
        }
    }
}

fn add_files(roots: &mut RootCertStore, files: &[PathBuf]) -> Result<(), Error> {
    for path in files {
        let certificates =
            read_pem(path).map_err(|why| Error::refused(format!("CA file {}: {why}", path.display())))?;
        if roots.add_parsable_certificates(certificates).0 == 0 {
            return Err(Error::refused(format!("CA file {}: no usable certificate in it", path.display())));
        }
    }
    Ok(())
}

/// A client certificate with its chain, and its key. No Debug: it holds a secret.
type Certified = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn read_identity(identity: &Identity) -> Result<Certified, Error> {
    let Identity { certificate, key } = identity;
    let chain = read_pem(certificate).and_then(|chain| match chain.is_empty() {
        true => Err("no certificate in it".to_owned()),
        false => Ok(chain),
    });
    let chain = chain.map_err(|why| Error::refused(format!("client certificate {}: {why}", certificate.display())))?;
    let secret = PrivateKeyDer::from_pem_file(key);
    // The reader's words could hold what it read.
    let secret = secret.map_err(|_| {
        Error::refused(format!("client key {}: it cannot be read, or holds no private key in PEM", key.display()))
    })?;
    Ok((chain, secret))
}

fn client(settings: &Settings, tls: ClientConfig, route: Route<'_>) -> Result<reqwest::Client, Error> {
    let builder = reqwest::Client::builder()
        .user_agent(concat!("freightliner/", env!("CARGO_PKG_VERSION")))
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .connect_timeout(settings.connect_timeout)
        .pool_idle_timeout(POOL_IDLE);
    let builder = match route {
        Route::Environment => builder,
        Route::Direct | Route::By(Proxy::None) => builder.no_proxy(),
        Route::By(Proxy::Url(url)) => {
            let proxy = reqwest::Proxy::all(url.as_str())
                .map_err(|error| Error::refused("a proxy could not be set up").caused_by(error.without_url()))?;
            builder.no_proxy().proxy(proxy)
        }
    };
    builder
        .build()
        .map_err(|error| Error::refused("the HTTP client could not be set up").caused_by(error.without_url()))
}

/// With roots: verifying. Without: trusting whoever answers.
fn config(
    provider: &Arc<CryptoProvider>,
    roots: Option<RootCertStore>,
    identity: Option<&Certified>,
) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::refused("TLS could not be set up").caused_by(error))?;
    let builder = match roots {
        Some(roots) => builder.with_root_certificates(roots),
        None => {
            let verifier = Arc::new(TrustAnybody { provider: provider.clone() });
            builder.dangerous().with_custom_certificate_verifier(verifier)
        }
    };
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(chain.clone(), key.clone_key()).map_err(|error| {
            Error::refused(format!("a client certificate and its key do not fit together: {error}"))
        })?,
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let file = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let dir = std::env::var_os("SSL_CERT_DIR");
    if file.is_none() && dir.is_none() {
        let bundle = BUNDLES.iter().find_map(|path| read_pem(Path::new(path)).ok());
        roots.add_parsable_certificates(bundle.unwrap_or_default());
        return roots;
    }
    if let Some(file) = file {
        match read_pem(&file) {
            Ok(certificates) => drop(roots.add_parsable_certificates(certificates)),
            Err(why) => tracing::warn!(file = %file.display(), %why, "SSL_CERT_FILE cannot be used"),
        }
    }
    if let Some(dir) = dir {
        add_folders(&mut roots, &dir);
    }
    roots
}

/// Adds what is in the folders of a list as `$PATH` is one.
fn add_folders(roots: &mut RootCertStore, list: &OsStr) {
    let folders = std::env::split_paths(list).filter(|folder| !folder.as_os_str().is_empty());
    let files = folders.flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
    for entry in files.take(DIRECTORY_LIMIT) {
        roots.add_parsable_certificates(read_pem(&entry.path()).unwrap_or_default());
    }
}

fn read_pem(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("not a PEM file of certificates ({error})"))
}

/// Verifies that the peer owns the key of the certificate it shows, but not whose certificate it is: for registries that
/// were named insecure.
#[derive(Debug)]
struct TrustAnybody {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for TrustAnybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::retry::Class;

    #[test]
    fn a_bad_ca_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |path: PathBuf| {
            let settings = Settings { ca_files: vec![path.clone()], ..Settings::default() };
            let error = Clients::new(&settings).err().unwrap();
            assert_eq!(error.class(), Class::Refused);
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        };
        refused(dir.path().join("missing.pem"));
        let empty = dir.path().join("empty.pem");
        std::fs::write(&empty, "no certificate here\n").unwrap();
        refused(empty);
    }

    #[test]
    fn several_folders_of_certificates_are_read() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        for dir in &dirs {
            let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            std::fs::write(dir.path().join("ca.pem"), certified.cert.pem()).unwrap();
            std::fs::write(dir.path().join("README"), "no certificate").unwrap();
        }
        let missing = Path::new("/nonexistent/folder");
        let list = std::env::join_paths([missing, dirs[0].path(), Path::new(""), dirs[1].path()]).unwrap();
        let mut roots = RootCertStore::empty();
        add_folders(&mut roots, &list);
        assert_eq!(roots.len(), 2);
    }

    #[test]
    fn an_extra_ca_is_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(&path, certified.cert.pem()).unwrap();
        assert!(Clients::new(&Settings { ca_files: vec![path], ..Settings::default() }).is_ok());
    }
}
