//! Who calls, and what they may do.
//!
//! A key comes as `X-API-Key` or as `Authorization: Bearer`. It is looked up by the id within it, so a revoked one is refused at
//! the next call, and compared by hash in constant time. Addresses and keys with many failures have to wait. What changes
//! something is written down before it has any effect.

use super::App;
use super::error::ApiError;
use crate::access::{Call, Destination, KeyHash, Role, key_id};
use crate::clock::{BootTime, Clock};
use axum::extract::{OriginalUri, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Failures after which an address, or a key, has to wait.
const FAILURES: u32 = 10;
/// How long failures count.
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses and keys that are remembered; beyond it the oldest windows go first.
const REMEMBERED: usize = 10_000;
/// The name that calls have where no key is asked for.
const ANYBODY: &str = "anonymous";
/// The name of the key of the configuration.
const CONFIGURED: &str = "api_key";

/// Who calls.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Of the key; None: that of the configuration, or none.
    pub key_id: Option<String>,
    /// Of the key.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// What it may write to; None: everything.
    pub destinations: Option<Vec<Destination>>,
}

impl Caller {
    /// As it stands in the audit trail.
    #[must_use]
    pub fn actor(&self) -> String {
        format!("api:{}", self.name)
    }

    /// It may write to these canonical destinations, or prefixes.
    ///
    /// # Errors
    /// 403 names the first it may not.
    pub fn may_write<'a>(&self, destinations: impl IntoIterator<Item = &'a str>) -> Result<(), ApiError> {
        let Some(own) = &self.destinations else { return Ok(()) };
        match destinations.into_iter().find(|wanted| !own.iter().any(|place| place.holds(wanted))) {
            Some(wanted) => Err(ApiError::forbidden(format!("this key may not write to {wanted}"))),
            None => Ok(()),
        }
    }

    /// It is not limited to some destinations.
    ///
    /// # Errors
    /// 403.
    pub fn may_write_anywhere(&self) -> Result<(), ApiError> {
        match self.destinations {
            None => Ok(()),
            Some(_) => Err(ApiError::forbidden("this key is limited to some destinations: use another one for this")),
        }
    }
}

/// Where a request came from, and its id. Set by the outermost layer.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The caller's address; behind a configured proxy what that says.
    pub address: IpAddr,
    /// Given by the caller, or made.
    pub request_id: String,
}

/// Whom to let in.
#[derive(Debug, Default)]
pub struct Gate {
    /// No key is asked for.
    pub open: bool,
    /// The key of the configuration.
    pub configured: Option<KeyHash>,
    failures: Mutex<HashMap<String, (u32, BootTime)>>,
}

impl Gate {
    /// Lets everybody in, or those with a key of the database, or with the key of the configuration.
    #[must_use]
    pub fn new(open: bool, configured: Option<KeyHash>) -> Self {
        Self { open, configured, failures: Mutex::default() }
    }

    /// Seconds until this one may try again.
    fn must_wait(&self, who: &str, clock: &Clock) -> Option<u64> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, since) = failures.get(who)?;
        let left = WINDOW.saturating_sub(clock.boot().since(*since));
        (*count >= FAILURES && !left.is_zero()).then(|| left.as_secs() + 1)
    }

    fn failed(&self, who: String, clock: &Clock) {
        let now = clock.boot();
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= REMEMBERED && !failures.contains_key(&who) {
            failures.retain(|_, (_, since)| now.since(*since) < WINDOW);
            if failures.len() >= REMEMBERED
                && let Some(oldest) = failures.iter().min_by_key(|(_, (_, since))| since.0).map(|(who, _)| who.clone())
            {
                failures.remove(&oldest);
            }
        }
        let entry = failures.entry(who).or_insert((0, now));
        if now.since(entry.1) >= WINDOW {
            *entry = (0, now);
        }
        entry.0 += 1;
    }
}

/// The key that a request brings.
fn presented(headers: &HeaderMap) -> Option<&str> {
    let own = headers.get("x-api-key").and_then(|key| key.to_str().ok());
    own.or_else(|| {
        let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    })
}

/// Finds out who calls; those who may not are answered here.
pub async fn authenticate(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let origin = request.extensions().get::<Origin>().cloned();
    let Some(origin) = origin else { return ApiError::bad("the request has no origin").into_response() };
    match identify(&app, request.headers(), &origin).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

async fn identify(app: &App, headers: &HeaderMap, origin: &Origin) -> Result<Caller, ApiError> {
    let gate = &app.gate;
    if gate.open {
        return Ok(Caller { key_id: None, name: ANYBODY.to_owned(), role: Role::Admin, destinations: None });
    }
    let address = format!("address {}", origin.address);
    let too_many = |seconds| {
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too many failed attempts: try again later").after(seconds)
    };
    if let Some(seconds) = gate.must_wait(&address, &app.clock) {
        return Err(too_many(seconds));
    }
    let Some(key) = presented(headers) else {
        app.metrics.auth_failed("missing");
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, "Invalid API key"));
    };
    let hash = KeyHash::of(key);
    if gate.configured.is_some_and(|own| own.matches(&hash)) {
        return Ok(Caller { key_id: None, name: CONFIGURED.to_owned(), role: Role::Admin, destinations: None });
    }
    let id = key_id(key);
    let of_key = id.map(|id| format!("key {id}"));
    if let Some(seconds) = of_key.as_ref().and_then(|who| gate.must_wait(who, &app.clock)) {
        return Err(too_many(seconds));
    }
    let found = match id {
        Some(id) => app.store.keys(Some(id)).await?.pop(),
        None => None,
    };
    let known = found.filter(|row| row.hash.matches(&hash));
    if let Some(row) = known.as_ref().filter(|row| row.is_valid(app.clock.now())) {
        return Ok(Caller {
            key_id: Some(row.id.clone()),
            name: row.name.clone(),
            role: row.role,
            destinations: row.destinations.clone(),
        });
    }
    let kind = match &known {
        Some(row) if row.revoked_at.is_some() => "revoked",
        Some(_) => "expired",
        None => "unknown",
    };
    app.metrics.auth_failed(kind);
    tracing::warn!(address = %origin.address, request_id = %origin.request_id, key = id, kind, "a key was refused");
    gate.failed(address, &app.clock);
    if let (Some(who), None) = (of_key, known) {
        gate.failed(who, &app.clock);
    }
    Err(ApiError::new(StatusCode::UNAUTHORIZED, "Invalid API key"))
}

/// What a group of routes asks for.
#[derive(Clone)]
pub struct Guard {
    /// The program.
    pub app: Arc<App>,
    /// The least role.
    pub role: Role,
}

/// Lets those pass who have the role; what changes something is written down first.
pub async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match asked(&guard, &request) {
        Ok((call, refused)) => {
            if let Some(call) = call
                && let Err(error) = guard.app.store.call_add(call).await
            {
                return ApiError::from(error).into_response();
            }
            match refused {
                None => next.run(request).await,
                Some(error) => error.into_response(),
            }
        }
        Err(error) => error.into_response(),
    }
}

/// What is to be written down of a call, and why it is refused.
fn asked(guard: &Guard, request: &Request) -> Result<(Option<Call>, Option<ApiError>), ApiError> {
    let extensions = request.extensions();
    let (Some(caller), Some(origin)) = (extensions.get::<Caller>(), extensions.get::<Origin>()) else {
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, "Invalid API key"));
    };
    let allowed = caller.role >= guard.role;
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    let call = changes.then(|| Call {
        request_id: origin.request_id.clone(),
        key_id: caller.key_id.clone(),
        key_name: caller.name.clone(),
        role: caller.role,
        address: origin.address.to_string(),
        method: request.method().to_string(),
        path: extensions.get::<OriginalUri>().map_or_else(|| request.uri(), |OriginalUri(uri)| uri).path().to_owned(),
        allowed,
    });
    let refused = (!allowed)
        .then(|| ApiError::forbidden(format!("this asks for the role {}, the key has {}", guard.role, caller.role)));
    Ok((call, refused))
}
