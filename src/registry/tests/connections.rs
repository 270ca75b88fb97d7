//! Client certificates, CA files and proxies of single registries.

use super::server::{Reply, Server};
use super::*;
use crate::job::retry::Class;
use crate::registry::{Identity, Proxy, RegistrySettings};
use rustls::pki_types::PrivateKeyDer;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A certificate in files of `folder`, signed by itself.
struct Certificate {
    certified: rcgen::CertifiedKey<rcgen::KeyPair>,
    identity: Identity,
}

impl Certificate {
    fn new(folder: &Path, name: &str, hosts: &[&str]) -> Self {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let certified = rcgen::generate_simple_self_signed(hosts).unwrap();
        let identity =
            Identity { certificate: folder.join(format!("{name}.pem")), key: folder.join(format!("{name}.key")) };
        std::fs::write(&identity.certificate, certified.cert.pem()).unwrap();
        std::fs::write(&identity.key, certified.signing_key.serialize_pem()).unwrap();
        Self { certified, identity }
    }

    /// A server with this certificate that lets in only who has the certificate `client`, or anybody.
    fn acceptor(&self, client: Option<&Self>) -> tokio_rustls::TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match client {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(client.certified.cert.der().clone()).unwrap();
                let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let key = PrivateKeyDer::try_from(self.certified.signing_key.serialize_der()).unwrap();
        let config = builder.with_single_cert(vec![self.certified.cert.der().clone()], key).unwrap();
        tokio_rustls::TlsAcceptor::from(Arc::new(config))
    }
}

fn with(hosts: Vec<(String, RegistrySettings)>) -> Settings {
    Settings { registries: hosts.into_iter().collect(), tries: 1, ..settings() }
}

async fn head(settings: Settings, host: &str) -> Result<(), Error> {
    let repository = Repository::parse(&format!("{host}/a")).unwrap();
    Asking::new(settings).session.head_manifest(&repository, &tag()).await.map(drop)
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_its_registry_and_to_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let server = Certificate::new(dir.path(), "server", &["127.0.0.1", "localhost"]);
    let client = Certificate::new(dir.path(), "client", &["client"]);
    let other = Server::start_tls(server.acceptor(Some(&client)), |_| Reply::new(200)).await;
    let away = format!("https://{}/v2/a/manifests/1.2", other.host());
    let registry = Server::start_tls(server.acceptor(Some(&client)), move |seen| match seen.path.as_str() {
        "/v2/a/manifests/1.2" => Reply::new(200),
        _ => Reply::new(307).header("location", &away),
    })
    .await;

    let ca_files = vec![server.identity.certificate.clone()];
    let mutual = |host: String| {
        let identity = Some(client.identity.clone());
        (host, RegistrySettings { identity, ca_files: ca_files.clone(), ..RegistrySettings::default() })
    };
    head(with(vec![mutual(registry.host())]), &registry.host()).await.unwrap();
    assert_eq!(registry.log().len(), 1);

    // Without the certificate nobody is let in.
    let without = Settings { ca_files: ca_files.clone(), tries: 1, ..settings() };
    head(without, &registry.host()).await.unwrap_err();
    assert_eq!(registry.log().len(), 1);

    // The other server is trusted, and would let the certificate in.
    let blob = |settings: Settings| {
        let repository = Repository::parse(&format!("{}/a", registry.host())).unwrap();
        async move { Asking::new(settings).session.head_blob(&repository, &digest()).await }
    };
    let trusting = Settings { ca_files: ca_files.clone(), ..with(vec![mutual(registry.host())]) };
    blob(trusting.clone()).await.unwrap_err();
    assert_eq!((registry.log().len(), other.log().len()), (2, 0));
    let both = with(vec![mutual(registry.host()), mutual(other.host())]);
    blob(both).await.unwrap();
    assert_eq!((registry.log().len(), other.log().len()), (3, 1), "it is the certificate that was missing");
}

#[tokio::test]
async fn a_ca_file_of_one_registry_is_believed_there_alone() {
    let dir = tempfile::tempdir().unwrap();
    let certificate = Certificate::new(dir.path(), "server", &["127.0.0.1", "localhost"]);
    let server = Server::start_tls(certificate.acceptor(None), |_| Reply::new(200)).await;
    let ca_files = vec![certificate.identity.certificate.clone()];
    let section = (server.host(), RegistrySettings { ca_files, ..RegistrySettings::default() });
    head(with(vec![section.clone()]), &server.host()).await.unwrap();
    let named = server.host().replace("127.0.0.1", "localhost");
    let error = head(with(vec![section]), &named).await.unwrap_err();
    assert!(error.class() == Class::Refused && error.to_string().contains("certificate"), "{error}");
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let one = Certificate::new(dir.path(), "one", &["a"]).identity;
    let other = Certificate::new(dir.path(), "other", &["b"]).identity;
    let refused = |certificate: &Path, key: &Path| {
        let identity = Some(Identity { certificate: certificate.to_owned(), key: key.to_owned() });
        let section = RegistrySettings { identity, ..RegistrySettings::default() };
        Client::new(with(vec![("r".to_owned(), section)])).err().unwrap().to_string()
    };
    assert!(refused(&one.certificate, &other.key).contains("do not fit together"));
    assert!(
        refused(&one.certificate, &one.certificate).contains("one.pem: it cannot be read, or holds no private key")
    );
    assert!(refused(&one.key, &one.key).contains("one.key: no certificate"));
    assert!(refused(&dir.path().join("missing.pem"), &one.key).contains("missing.pem"));
}

/// A proxy that leads everybody to `target`, and what it was asked for.
struct Way {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Way {
    async fn start(target: String, socks: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, mut tasks) = (asked.clone(), JoinSet::new());
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let (log, target) = (log.clone(), target.clone());
                open.spawn(async move {
                    let wish = if socks { socks_wish(&mut client).await } else { connect_wish(&mut client).await };
                    log.lock().unwrap().push(wish);
                    let mut server = TcpStream::connect(target).await.unwrap();
                    // Whoever hangs up first ends it.
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { address, asked, _tasks: tasks }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// Answers a CONNECT; its first line, and the credentials.
async fn connect_wish(client: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let head = String::from_utf8(head).unwrap();
    let credentials = head.lines().find(|line| line.to_ascii_lowercase().starts_with("proxy-authorization"));
    let secret = credentials.and_then(|line| line.split_whitespace().last()).unwrap_or("nobody");
    format!("{} {secret}", head.lines().next().unwrap())
}

/// Answers a wish to connect by SOCKS 5 (RFC 1928); the host and port of it.
async fn socks_wish(client: &mut TcpStream) -> String {
    let mut greeting = [0; 2];
    client.read_exact(&mut greeting).await.unwrap();
    let mut methods = vec![0; usize::from(greeting[1])];
    client.read_exact(&mut methods).await.unwrap();
    client.write_all(&[5, 0]).await.unwrap();
    let mut wish = [0; 4];
    client.read_exact(&mut wish).await.unwrap();
    let host = match wish[3] {
        1 => Ipv4Addr::from(client.read_u32().await.unwrap()).to_string(),
        3 => {
            let mut name = vec![0; usize::from(client.read_u8().await.unwrap())];
            client.read_exact(&mut name).await.unwrap();
            String::from_utf8(name).unwrap()
        }
        other => panic!("address of type {other}"),
    };
    let port = client.read_u16().await.unwrap();
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
    format!("{host}:{port}")
}

#[tokio::test]
async fn registries_are_reached_through_their_proxies() {
    let dir = tempfile::tempdir().unwrap();
    let certificate = Certificate::new(dir.path(), "server", &["registry.test"]);
    let server = Server::start_tls(certificate.acceptor(None), |_| Reply::new(200)).await;
    let ca_files = vec![certificate.identity.certificate.clone()];
    let section = |proxy: &str| {
        let proxy = Some(proxy.parse::<Proxy>().unwrap());
        let section = RegistrySettings { proxy, ca_files: ca_files.clone(), ..RegistrySettings::default() };
        with(vec![("registry.test".to_owned(), section)])
    };
    let http = Way::start(server.host(), false).await;
    head(section(&format!("http://user:hush@{}", http.address)), "registry.test").await.unwrap();
    assert_eq!(http.asked(), ["CONNECT registry.test:443 HTTP/1.1 dXNlcjpodXNo"]);
    let socks = Way::start(server.host(), true).await;
    head(section(&format!("socks5h://{}", socks.address)), "registry.test").await.unwrap();
    assert_eq!((socks.asked(), server.log().len()), (vec!["registry.test:443".to_owned()], 2));

    // A proxy that is not there: its password is in no message.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = head(section(&format!("http://user:hush@{gone}")), "registry.test").await.unwrap_err();
    assert!(!everything(&error).contains("hush"), "{error:?}");
}

#[tokio::test]
async fn a_registry_on_this_machine_has_a_proxy_only_when_told_so() {
    let server = Server::start(|_| Reply::new(200)).await;
    let proxy = Way::start(server.host(), true).await;
    let socks: Proxy = format!("socks5://{}", proxy.address).parse().unwrap();
    let section = RegistrySettings { proxy: Some(socks), ..RegistrySettings::default() };
    head(with(vec![(server.host(), section.clone())]), &server.host()).await.unwrap();
    assert_eq!(proxy.asked(), [server.host()]);
    head(with(vec![("elsewhere.example.com".to_owned(), section)]), &server.host()).await.unwrap();
    assert_eq!((proxy.asked().len(), server.log().len()), (1, 2));
}
