//! Who may do what at the fake: anybody, a user by Basic, or whoever holds a token of the fake's own endpoint.

use super::Shared;
use super::exchange::Query;
use super::flow::Answer;
use base64::Engine as _;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// How long a token lives when nothing else was said.
const TOKEN_LIFETIME: Duration = Duration::from_secs(300);

/// How the fake tells its users apart.
#[derive(Debug, Clone)]
pub enum Auth {
    /// Not at all.
    None,
    /// Basic, one user.
    Basic { user: String, password: String },
    /// Bearer tokens of the fake's own `/token` (or of another realm, when one is named). With a user, tokens are
    /// given to that user only; without, to everybody. A token's `expires_in` is told in whole seconds.
    Bearer { user: Option<(String, String)>, realm: Option<String> },
}

impl Auth {
    pub fn basic(user: &str, password: &str) -> Self {
        Self::Basic { user: user.to_owned(), password: password.to_owned() }
    }

    /// Tokens for everybody.
    pub fn bearer() -> Self {
        Self::Bearer { user: None, realm: None }
    }

    /// Tokens for one user.
    pub fn bearer_for(user: &str, password: &str) -> Self {
        Self::Bearer { user: Some((user.to_owned(), password.to_owned())), realm: None }
    }
}

/// What was asked of the token endpoint.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    pub method: String,
    /// One entry a scope, in the order asked, whether repeated or joined by spaces.
    pub scopes: Vec<String>,
    /// The user, when credentials came.
    pub user: Option<String>,
    pub granted: bool,
}

#[derive(Default)]
pub struct Tokens {
    pub requests: Vec<TokenRequest>,
    /// Token to (end of life, scopes).
    pub valid: HashMap<String, (Instant, Vec<String>)>,
    pub lifetime: Option<Duration>,
    pub issued: u64,
}

/// The user and password of a Basic header.
pub fn basic_credentials(header: Option<&str>) -> Option<(String, String)> {
    let encoded = header?.strip_prefix("Basic ")?;
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// Refuses a request that may not pass; None lets it.
pub fn refuse(shared: &Shared, authorization: Option<&str>, scopes: &[String]) -> Option<Answer> {
    let challenge = match &shared.options.auth {
        Auth::None => return None,
        Auth::Basic { user, password } => {
            let given = basic_credentials(authorization);
            if given.is_some_and(|given| given == (user.clone(), password.clone())) {
                return None;
            }
            "Basic realm=\"fake\"".to_owned()
        }
        Auth::Bearer { realm, .. } => {
            let held = authorization.and_then(|value| value.strip_prefix("Bearer "));
            let known = held.and_then(|token| {
                let tokens = shared.tokens.lock().expect("no handler panicked");
                tokens.valid.get(token).filter(|(end, _)| Instant::now() < *end).map(|(_, scopes)| scopes.clone())
            });
            if known.as_ref().is_some_and(|granted| scopes.iter().all(|scope| covers(granted, scope))) {
                return None;
            }
            if known.is_some() && shared.options.quirks.denies_other_scopes {
                return Some(Answer::error(403, "DENIED", "the token is for something else"));
            }
            let realm = realm.clone().unwrap_or_else(|| format!("{}/token", shared.base_url()));
            let service = shared.options.quirks.service.unwrap_or("fake");
            let mut challenge = format!("Bearer realm=\"{realm}\",service=\"{service}\"");
            if let Some(scope) = scopes.first() {
                challenge.push_str(&format!(",scope=\"{scope}\""));
            }
            if held.is_some() {
                let error = if known.is_some() { "insufficient_scope" } else { "invalid_token" };
                challenge.push_str(&format!(",error=\"{error}\""));
            }
            challenge
        }
    };
    let answer = Answer::error(401, "UNAUTHORIZED", "authentication required");
    Some(answer.header("www-authenticate", challenge))
}

/// Whether granted scopes contain every action of `wanted` (`repository:name:pull,push`).
fn covers(granted: &[String], wanted: &str) -> bool {
    let Some((resource, actions)) = wanted.rsplit_once(':') else {
        return true;
    };
    actions.split(',').all(|action| {
        granted.iter().filter_map(|scope| scope.rsplit_once(':')).any(|(held, held_actions)| {
            held == resource && held_actions.split(',').any(|held| held == action || held == "*")
        })
    })
}

/// The token endpoint, GET and POST.
pub fn issue(shared: &Shared, method: &str, authorization: Option<&str>, query: &Query, form: &Query) -> Answer {
    let fields = if method == "POST" { form } else { query };
    let scopes: Vec<String> = fields.all("scope").iter().flat_map(|text| text.split(' ')).map(str::to_owned).collect();
    let from_form = || Some((form.get("username")?.to_owned(), form.get("password")?.to_owned()));
    let credentials = basic_credentials(authorization).or_else(from_form);
    let granted = match &shared.options.auth {
        Auth::Bearer { user: Some(user), .. } => credentials.as_ref() == Some(user),
        _ => true,
    };
    let mut tokens = shared.tokens.lock().expect("no handler panicked");
    let user = credentials.map(|(user, _)| user);
    tokens.requests.push(TokenRequest { method: method.to_owned(), scopes: scopes.clone(), user, granted });
    if !granted {
        return Answer::error(401, "UNAUTHORIZED", "no token for you");
    }
    let lifetime = tokens.lifetime.unwrap_or(TOKEN_LIFETIME);
    tokens.issued += 1;
    let token = format!("fake-token-{}", tokens.issued);
    tokens.valid.insert(token.clone(), (Instant::now() + lifetime, scopes));
    Answer::json(200, &serde_json::json!({ "token": token, "expires_in": lifetime.as_secs() }))
}
