//! Proxies that the environment names, and settings of single registries in the configuration file.

use super::{binary, replicated};
use crate::support::binary::Binary;
use crate::support::fake::{Fake, Options};
use crate::support::image::ImageBuilder;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A proxy that lets nobody through, and the first bytes of whoever came.
struct Gate {
    address: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Gate {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        // Ends with the process of the tests.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                log.lock().unwrap().push(first(stream));
            }
        });
        Self { address, seen }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// The first line of what came, and an answer that ends it.
fn first(mut stream: TcpStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut bytes = [0; 1024];
    let count = stream.read(&mut bytes).unwrap_or(0);
    // The client may be gone already.
    let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
    if bytes[0] == 5 {
        return "SOCKS 5".to_owned();
    }
    String::from_utf8_lossy(&bytes[..count]).lines().next().unwrap_or_default().to_owned()
}

fn asking(variables: &[(&str, String)]) -> Binary {
    let patience = [("FREIGHTLINER_REGISTRY_TRIES", "1"), ("FREIGHTLINER_REGISTRY_CONNECT_TIMEOUT_SECS", "2")];
    let binary = patience.into_iter().fold(Binary::new(), |binary, (name, value)| binary.env(name, value));
    variables.iter().fold(binary, |binary, (name, value)| binary.env(name, value.clone()))
}

#[test]
fn proxies_of_the_environment_are_used_and_no_proxy_is_heeded() {
    for (name, scheme) in [
        ("HTTPS_PROXY", "http"),
        ("https_proxy", "http"),
        ("ALL_PROXY", "http"),
        ("all_proxy", "socks5h"),
        ("HTTPS_PROXY", "socks5"),
    ] {
        let gate = Gate::start();
        let proxy = format!("{scheme}://{}", gate.address);
        // An address of a test network, so that nothing is looked up (RFC 5737).
        let run = |more: &[(&str, String)]| {
            let variables = [&[(name, proxy.clone())], more].concat();
            asking(&variables).run(&["inspect", "192.0.2.7:5443/a:v1"]).expect_code(1)
        };
        run(&[]);
        let expected = if scheme == "http" { "CONNECT 192.0.2.7:5443 HTTP/1.1" } else { "SOCKS 5" };
        assert_eq!(gate.seen(), [expected], "{name}={proxy}");
        for no_proxy in ["NO_PROXY", "no_proxy"] {
            run(&[(no_proxy, "example.com,192.0.2.0/24".to_owned())]);
            assert_eq!(gate.seen().len(), 1, "{name}={proxy} with {no_proxy}");
        }
    }
}

#[test]
fn registries_on_this_machine_are_reached_without_a_proxy() {
    let (gate, source, destination) = (Gate::start(), Fake::start(), Fake::start());
    let image = ImageBuilder::oci(1).layers(1, 1_000).build();
    source.put_image("a", "v1", &image);
    let proxy = format!("http://{}", gate.address);
    let binary = binary().env("HTTP_PROXY", &*proxy).env("HTTPS_PROXY", &*proxy).env("ALL_PROXY", &*proxy);
    replicated(&binary, &source.reference("a", "v1"), &destination.reference("b", "v1"), &[]);
    super::assert_whole(&destination, "b", "v1", &image);
    assert_eq!(gate.seen(), Vec::<String>::new());
}

#[test]
fn settings_of_a_registry_are_read_from_the_file() {
    let source = Fake::start_tls(Options::default());
    let destination = Fake::start();
    let image = ImageBuilder::oci(1).layer(600_000).build();
    source.put_image("a", "v1", &image);
    let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
    let host = from.split('/').next().unwrap();
    let binary = binary();
    let file = binary.home().join("freightliner.toml");
    let ca = source.ca().unwrap();
    let text = format!("[registries.\"{host}\"]\nca_files = [\"{}\"]\nbandwidth = \"500kB/s\"\n", ca.display());
    std::fs::write(&file, text).unwrap();
    let started = tokio::time::Instant::now();
    replicated(&binary, &from, &to, &["--config", file.to_str().unwrap()]);
    super::assert_whole(&destination, "b", "v1", &image);
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
}

#[test]
fn wrong_settings_of_a_registry_end_with_two_and_are_all_named() {
    let binary = Binary::new();
    let file = binary.home().join("freightliner.toml");
    let run = |text: &str| {
        std::fs::write(&file, text).unwrap();
        binary.run(&["--config", file.to_str().unwrap(), "inspect", "localhost:1/a:v1"]).expect_code(2).errors()
    };
    let errors = run("[registries.\"r:5000\"]\nprofile = \"hub\"\nclient_cert = \"absent.pem\"\nproxy = \"ftp://p\"\n");
    for word in ["registries.\"r:5000\".profile", "docker-hub", "absent.pem", "client_key", "socks5"] {
        assert!(errors.contains(word), "{word}: {errors}");
    }
    std::fs::write(binary.home().join("empty.pem"), "nothing").unwrap();
    let errors = run("[registries.r]\nclient_cert = \"empty.pem\"\nclient_key = \"empty.pem\"\n");
    assert!(errors.contains("empty.pem") && errors.contains("certificate"), "{errors}");
    assert!(run("[registries.r]\nca_files = [\"empty.pem\"]\n").contains("empty.pem"));
}
