//! A token server whose tokens a real Distribution registry accepts: ES256 JWTs with the certificate in `x5c`.
//!
//! Who is granted what is said when it is started; every question asked of it is kept. Distribution forgives an
//! expired token for 60 s; the tokens made here say an end that much earlier, so that a lifetime is what it says.

use super::server::{Answered, HttpServer};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use rcgen::{CertificateParams, KeyPair, SigningKey as _};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Named in the registry's configuration and in tokens alike.
pub const ISSUER: &str = "test-rig-issuer";
/// The name of the service tokens are for.
pub const SERVICE: &str = "test-rig-registry";
/// What Distribution forgives after the end of a token, seconds (`registry/auth/token`, Leeway).
const LEEWAY_SECS: i64 = 60;

/// Somebody tokens are given to.
#[derive(Debug, Clone)]
pub struct Account {
    /// None: everybody who gives no credentials.
    pub credentials: Option<(String, String)>,
    /// Scope resource (`repository:name`, `registry:catalog`; a trailing `*` fits any rest) to actions (`*`: all).
    pub grants: Vec<(String, Vec<String>)>,
}

impl Account {
    pub fn user(name: &str, password: &str) -> Self {
        Self { credentials: Some((name.to_owned(), password.to_owned())), grants: Vec::new() }
    }

    pub fn anonymous() -> Self {
        Self { credentials: None, grants: Vec::new() }
    }

    /// `may("repository:team/*", "pull,push")`
    pub fn may(mut self, resource: &str, actions: &str) -> Self {
        self.grants.push((resource.to_owned(), actions.split(',').map(str::to_owned).collect()));
        self
    }

    /// The part of a scope that this account is granted.
    fn granted(&self, scope: &str) -> Option<Value> {
        let (resource, wanted) = scope.rsplit_once(':')?;
        let fits = |pattern: &str| match pattern.strip_suffix('*') {
            Some(start) => resource.starts_with(start),
            None => resource == pattern,
        };
        let allows = |action: &str| {
            let mut held = self.grants.iter().filter(|(pattern, _)| fits(pattern)).flat_map(|(_, actions)| actions);
            held.any(|held| held == "*" || held == action)
        };
        let actions: Vec<&str> = wanted.split(',').filter(|action| allows(action)).collect();
        let (kind, name) = resource.split_once(':')?;
        (!actions.is_empty()).then(|| json!({ "type": kind, "name": name, "actions": actions }))
    }
}

/// A question that was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    /// None for anonymous.
    pub user: Option<String>,
    pub service: Option<String>,
    pub scopes: Vec<String>,
    pub status: u16,
}

struct Shared {
    accounts: Vec<Account>,
    key: KeyPair,
    /// The certificate of the key, DER in base64.
    certificate: String,
    lifetime: Mutex<Duration>,
    asked: Mutex<Vec<Asked>>,
}

/// A running token server; stopped on drop.
pub struct TokenServer {
    shared: Arc<Shared>,
    server: HttpServer,
    folder: tempfile::TempDir,
}

impl TokenServer {
    pub fn start(accounts: Vec<Account>) -> Self {
        let key = KeyPair::generate().expect("a P-256 key");
        let parameters = CertificateParams::new(Vec::new()).expect("parameters");
        let certificate = parameters.self_signed(&key).expect("a certificate");
        let folder = tempfile::tempdir().expect("a temp folder");
        std::fs::write(folder.path().join("root.pem"), certificate.pem()).expect("write PEM");
        let shared = Arc::new(Shared {
            accounts,
            key,
            certificate: STANDARD.encode(certificate.der()),
            lifetime: Mutex::new(Duration::from_secs(300)),
            asked: Mutex::default(),
        });
        let serving = shared.clone();
        let handler = Arc::new(move |request| {
            let future: futures_util::future::BoxFuture<'static, _> = Box::pin(answer(serving.clone(), request));
            future
        });
        Self { shared, server: HttpServer::start(None, handler), folder }
    }

    /// Where registries send their clients.
    pub fn realm(&self) -> String {
        format!("http://{}/token", self.server.address)
    }

    /// What registries must trust.
    pub fn root_certificate(&self) -> PathBuf {
        self.folder.path().join("root.pem")
    }

    /// How long tokens given out from now on live, whole seconds.
    pub fn set_lifetime(&self, lifetime: Duration) {
        *self.shared.lifetime.lock().expect("no handler panicked") = lifetime;
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().expect("no handler panicked").clone()
    }

    /// A token for these scopes, past HTTP and past all grants.
    pub fn mint(&self, scopes: &[&str]) -> String {
        let all = Account::anonymous().may("*", "*");
        self.shared.token("rig", scopes.iter().filter_map(|scope| all.granted(scope)).collect())
    }
}

impl Shared {
    fn token(&self, subject: &str, access: Vec<Value>) -> String {
        let now = super::unix_seconds();
        let lifetime = i64::try_from(self.lifetime.lock().expect("no handler panicked").as_secs()).expect("short");
        let header = json!({ "typ": "JWT", "alg": "ES256", "x5c": [self.certificate] });
        let claims = json!({
            "iss": ISSUER, "sub": subject, "aud": SERVICE, "iat": now, "nbf": now - 1,
            "exp": now + lifetime - LEEWAY_SECS, "jti": format!("{subject}-{now}"), "access": access,
        });
        let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = self.key.sign(signed.as_bytes()).expect("a signature");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(fixed_signature(&signature)))
    }

    fn reply(&self, method: &str, credentials: Option<(String, String)>, fields: &[(String, String)]) -> (u16, Value) {
        let named = |name: &'static str| fields.iter().filter(move |(key, _)| key == name).map(|(_, value)| value);
        let scopes: Vec<String> = named("scope").flat_map(|text| text.split(' ')).map(str::to_owned).collect();
        let service = named("service").next().cloned();
        let account = self.accounts.iter().find(|account| account.credentials == credentials);
        let user = credentials.map(|(user, _)| user);
        let (status, value) = match account {
            None => (401, json!({ "errors": [{ "code": "UNAUTHORIZED", "message": "wrong user or password" }] })),
            Some(account) => {
                let access = scopes.iter().filter_map(|scope| account.granted(scope)).collect();
                let token = self.token(user.as_deref().unwrap_or(""), access);
                let lifetime = self.lifetime.lock().expect("no handler panicked").as_secs();
                (200, json!({ "token": token, "access_token": token, "expires_in": lifetime }))
            }
        };
        let asked = Asked { method: method.to_owned(), user, service, scopes, status };
        self.asked.lock().expect("no handler panicked").push(asked);
        (status, value)
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Answered {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let text = if parts.method == "POST" { &body[..] } else { parts.uri.query().unwrap_or_default().as_bytes() };
    let fields: Vec<(String, String)> = url::form_urlencoded::parse(text).into_owned().collect();
    let field = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let header = parts.headers.get("authorization").and_then(|value| value.to_str().ok());
    let from_form = || Some((field("username")?, field("password")?));
    let credentials = super::fake::basic_credentials(header).or_else(from_form);
    let (status, value) = shared.reply(parts.method.as_str(), credentials, &fields);
    let body = Full::new(Bytes::from(value.to_string())).map_err(|never| match never {}).boxed_unsync();
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(body).map_err(std::io::Error::other)
}

/// An ECDSA signature as JOSE wants it (RFC 7518, 3.4: two numbers of 32 bytes) from its DER form.
fn fixed_signature(der: &[u8]) -> Vec<u8> {
    // SEQUENCE, length (one byte for this size), then two INTEGERs with perhaps a leading zero.
    let mut rest = &der[2..];
    let mut fixed = Vec::with_capacity(64);
    for _ in 0..2 {
        let (number, after) = rest[2..].split_at(usize::from(rest[1]));
        let number = &number[number.len().saturating_sub(32)..];
        fixed.resize(fixed.len() + 32 - number.len(), 0);
        fixed.extend_from_slice(number);
        rest = after;
    }
    fixed
}
