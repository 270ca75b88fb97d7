//! What goes wrong at a registry or on the way to it, and how a registry's own words are read.
//!
//! One struct rather than an enum: callers branch on the class, and seldom on the status or the registry's code. The
//! message is complete, one line: what was asked, and why it failed. It never holds a credential, a header, or the query
//! of a URL, and the words of a registry only cut short and without control characters.

use crate::job::retry::Class;
use crate::oci::Digest;
use http::StatusCode;
use std::time::Duration;

/// Most bytes of an error's body that are read: enough for several long messages.
pub(super) const ERROR_BODY_LIMIT: u64 = 64 * 1024;
/// Most characters of a registry's message that are repeated: three lines of a terminal.
const MESSAGE_LIMIT: usize = 300;
/// Most characters of a registry's error code: the longest known one has 33.
const CODE_LIMIT: usize = 64;
/// Most errors of one answer that are looked at: a manifest with many missing blobs earns one for each. More do not fit into
/// the body that is read.
const ERRORS_LIMIT: usize = 512;

/// The cause of an error, of whatever kind.
pub(super) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// An error of a registry or on the way to it. Display is one line: what was asked (method, host, repository, never
/// credentials or query secrets), and why it failed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    message: String,
    class: Class,
    status: Option<StatusCode>,
    code: Option<String>,
    /// Whoever returns this has tried again already; trying once more around it would multiply requests.
    exhausted: bool,
    missing: Box<[Digest]>,
    immutable: bool,
    source: Option<Cause>,
}

impl Error {
    /// An error without an answer of the registry behind it.
    pub(super) fn new(class: Class, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            class,
            status: None,
            code: None,
            exhausted: false,
            missing: Box::default(),
            immutable: false,
            source: None,
        }
    }

    /// A failure that may pass, without a wish of the registry about when.
    pub(super) fn passing(message: impl Into<String>) -> Self {
        Self::new(Class::Retry { after: None }, message)
    }

    /// A failure that repeats until somebody changes something.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(Class::Refused, message)
    }

    /// This error with its cause. The cause must not print URLs with their query.
    pub(super) fn caused_by(mut self, cause: impl Into<Cause>) -> Self {
        self.source = Some(cause.into());
        self
    }

    /// This error in another class, for callers that know better what a status means.
    pub(super) fn classed(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// This error with what can be done about it.
    pub(super) fn hinted(mut self, hint: &str) -> Self {
        self.message.push_str("; ");
        self.message.push_str(hint);
        self
    }

    /// This error, not to be tried again by the request loop.
    pub(super) fn exhausted(mut self) -> Self {
        self.exhausted = true;
        self
    }

    /// What the registry answered to `what`, as an error; `hint` goes behind it when access was denied.
    pub(super) fn of_answer(
        what: &str,
        status: StatusCode,
        complaint: Complaint,
        retry_after: Option<Duration>,
        hint: &str,
    ) -> Self {
        let class = classify(status, &complaint.codes, retry_after);
        let code = complaint.codes.into_iter().next();
        let mut message = format!("{what}: the registry answered {status}");
        match (&code, &complaint.message) {
            (Some(code), Some(text)) => message.push_str(&format!(" ({code}: {text})")),
            (Some(text), None) | (None, Some(text)) => message.push_str(&format!(" ({text})")),
            (None, None) => {}
        }
        if class == Class::Denied && !hint.is_empty() {
            message.push_str("; ");
            message.push_str(hint);
        }
        let (missing, immutable) = (complaint.missing.into(), complaint.immutable);
        Self { message, class, status: Some(status), code, exhausted: false, missing, immutable, source: None }
    }

    /// What kind of failure it is, and so whether trying again later makes sense.
    #[must_use]
    pub fn class(&self) -> Class {
        self.class
    }

    /// HTTP status of the answer, if there was one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.status.map(|status| status.as_u16())
    }

    /// The registry's own first error code (`MANIFEST_UNKNOWN`), if it gave one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// The digests that the registry says it does not have, when a manifest was refused because of that. It may name none,
    /// or others than the manifest does.
    #[must_use]
    pub fn missing(&self) -> &[Digest] {
        &self.missing
    }

    /// The registry speaks of what is immutable: a tag that names something stays as it is.
    #[must_use]
    pub fn is_about_immutable(&self) -> bool {
        self.immutable
    }

    /// The request was tried as often as makes sense: trying once more around it would multiply requests.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.exhausted
    }
}

/// The class of an answer that is not a success.
fn classify(status: StatusCode, codes: &[String], after: Option<Duration>) -> Class {
    let code = codes.first().map(String::as_str);
    // Distribution answers some manifests that it will never take with a 500, and says among other things why.
    if status == StatusCode::INTERNAL_SERVER_ERROR && codes.iter().any(|code| is_about_content(code)) {
        return Class::Refused;
    }
    let passes = match status.as_u16() {
        408 | 421 | 425 | 429 => true,
        // Not implemented, HTTP version not supported: these do not pass.
        501 | 505 => false,
        other => other >= 500,
    };
    match (status.as_u16(), code) {
        _ if passes => Class::Retry { after },
        (_, Some("TOOMANYREQUESTS")) => Class::Retry { after },
        (401 | 403, _) | (_, Some("DENIED" | "UNAUTHORIZED")) => Class::Denied,
        (404 | 410, _) => Class::Absent,
        _ => Class::Refused,
    }
}

/// Whether a registry's code says that what was sent is wrong, whatever the status beside it says.
fn is_about_content(code: &str) -> bool {
    let named = ["BLOB_UNKNOWN", "DIGEST_INVALID", "NAME_INVALID", "NAME_UNKNOWN", "SIZE_INVALID", "TAG_INVALID"];
    code.starts_with("MANIFEST_") || code == "UNSUPPORTED" || named.contains(&code)
}

/// What a registry or a token server says in the body of an error.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Complaint {
    /// The codes of all errors, each once, in order.
    pub codes: Vec<String>,
    /// What the first error says, and behind it what others say beside that.
    pub message: Option<String>,
    /// The digests of what the registry does not have, by the errors that are about that.
    pub missing: Vec<Digest>,
    /// It speaks of what is immutable. Registries that have such tags have no code for it in common (ECR, Harbor).
    pub immutable: bool,
}

/// The word for tags that are not to be moved.
const IMMUTABLE: &[u8] = b"immutable";

impl Complaint {
    /// Reads the body of an error: the registry's JSON, the JSON of token servers, or a line of text. HTML says nothing.
    pub fn parse(body: &[u8]) -> Self {
        let immutable = body.windows(IMMUTABLE.len()).any(|word| word.eq_ignore_ascii_case(IMMUTABLE));
        Self { immutable, ..Self::read(body) }
    }

    fn read(body: &[u8]) -> Self {
        let Ok(json) = serde_json::from_slice::<serde_json::Value>(body) else {
            let text = String::from_utf8_lossy(body);
            let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
            let message = if line.starts_with('<') { None } else { cleaned(line) };
            return Self { message, ..Self::default() };
        };
        let errors = json.get("errors").and_then(serde_json::Value::as_array).filter(|errors| !errors.is_empty());
        let errors = errors.map_or(std::slice::from_ref(&json), Vec::as_slice);
        let (mut codes, mut messages, mut missing) = (Vec::new(), Vec::new(), Vec::new());
        for (number, error) in errors.iter().take(ERRORS_LIMIT).enumerate() {
            let (code, message) = code_and_message(error);
            let said = match (&code, message) {
                (Some(code), Some(message)) if number > 0 => Some(format!("{code}: {message}")),
                (_, message) => message,
            };
            let new = said.filter(|said| !messages.iter().any(|before: &String| said.ends_with(before.as_str())));
            messages.extend(new);
            if code.as_deref().is_some_and(|code| MISSES.contains(&code)) {
                missing.extend(error.get("detail").map(named).unwrap_or_default());
            }
            codes.extend(code.filter(|code| !codes.contains(code)));
        }
        missing.truncate(ERRORS_LIMIT);
        Self { codes, message: cleaned(&messages.join("; ")), missing, immutable: false }
    }
}

/// The codes of errors about content that a manifest names and the registry does not have.
const MISSES: [&str; 2] = ["MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"];

/// The digests in an error's detail: the digest itself (Distribution), or an object with it, under whatever name.
fn named(detail: &serde_json::Value) -> Vec<Digest> {
    let texts: Vec<&str> = match detail {
        serde_json::Value::String(text) => vec![text],
        serde_json::Value::Array(all) => all.iter().filter_map(serde_json::Value::as_str).collect(),
        serde_json::Value::Object(fields) => fields.values().filter_map(serde_json::Value::as_str).collect(),
        _ => Vec::new(),
    };
    texts.into_iter().take(ERRORS_LIMIT).filter_map(|text| text.parse().ok()).collect()
}

fn code_and_message(error: &serde_json::Value) -> (Option<String>, Option<String>) {
    let text = |key: &str| error.get(key).and_then(serde_json::Value::as_str);
    // `error` holds a code of OAuth 2 at token servers, a sentence elsewhere.
    let code = text("code").or_else(|| text("error").filter(|error| !error.contains(' '))).and_then(cleaned_code);
    let message = ["message", "error_description", "details", "detail", "error"]
        .into_iter()
        .filter_map(text)
        .find_map(cleaned)
        .filter(|message| Some(message) != code.as_ref());
    (code, message)
}

fn cleaned_code(code: &str) -> Option<String> {
    let fits = !code.is_empty()
        && code.len() <= CODE_LIMIT
        && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
    fits.then(|| code.to_owned())
}

/// The schemes of the Authorization header whose credentials a server may echo.
const SCHEMES: [&str; 2] = ["basic", "bearer"];
/// What follows a scheme's name is a credential from this length on, and a word of a sentence below it. Bytes.
const CREDENTIAL_FROM: usize = 8;
/// How a JSON web token begins: `{"` in base64.
const JWT: &str = "eyJ";

/// Hides what looks like credentials: a server that is set up badly, or means harm, echoes what it was sent.
fn without_credentials(text: &str) -> String {
    let mut hide_next = false;
    let hidden = text.split(' ').map(|word| {
        let credential = |part: &str| {
            part.len() >= CREDENTIAL_FROM
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=_-.~".contains(&byte))
        };
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric() && !"+/=_-~".contains(c));
        let after_scheme = std::mem::replace(
            &mut hide_next,
            SCHEMES.iter().any(|scheme| bare.len() == scheme.len() && bare.eq_ignore_ascii_case(scheme)),
        );
        if (after_scheme && credential(bare)) || word.contains(JWT) && word.len() >= 2 * CREDENTIAL_FROM {
            "[hidden]"
        } else {
            word
        }
    });
    hidden.collect::<Vec<_>>().join(" ")
}

/// `text` as it may stand in a message: no credentials, one line, no control or direction-changing characters, not long. None when nothing
/// is left of it.
pub(super) fn cleaned(text: &str) -> Option<String> {
    let mut characters = text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).filter(|c| {
        !c.is_control() && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    });
    let mut kept: String = characters.by_ref().take(MESSAGE_LIMIT).collect();
    if characters.next().is_some() {
        kept.push_str("...");
    }
    let kept = without_credentials(&kept);
    let kept = kept.trim();
    (!kept.is_empty()).then(|| kept.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_server_echoes_of_our_credentials_is_hidden() {
        for (text, kept) in [
            ("no: Basic cnI6UkVESVJQVy00MjQy FAKE", "no: Basic [hidden] FAKE"),
            ("got \"Authorization: Bearer abcdef123456.x-y_z\"", "got \"Authorization: Bearer [hidden]"),
            ("token eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJ4In0.c2ln is old", "token [hidden] is old"),
            ("basic auth is needed; bearer of bad news", "basic auth is needed; bearer of bad news"),
        ] {
            assert_eq!(cleaned(text).unwrap(), kept);
        }
    }

    fn complaint(code: &str, message: &str) -> Complaint {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Complaint { codes: some(code).into_iter().collect(), message: some(message), ..Complaint::default() }
    }

    #[test]
    fn all_errors_of_an_answer_are_read() {
        let body = br#"{"errors":[{"code":"UNKNOWN","message":"unknown error","detail":{}},{"code":"UNKNOWN","message":
            "unknown error"},{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry"},{"code":"X"}]}"#;
        let complaint = Complaint::parse(body);
        assert_eq!(complaint.codes, ["UNKNOWN", "MANIFEST_BLOB_UNKNOWN", "X"]);
        let message = complaint.message.clone().unwrap();
        assert_eq!(message, "unknown error; MANIFEST_BLOB_UNKNOWN: blob unknown to registry");
        let error = Error::of_answer("PUT x", StatusCode::INTERNAL_SERVER_ERROR, complaint, None, "");
        assert_eq!((error.class(), error.code()), (Class::Refused, Some("UNKNOWN")));
        let many = format!(r#"{{"errors":[{}]}}"#, vec![r#"{"code":"A","message":"b"}"#; 10_000].join(","));
        assert_eq!(Complaint::parse(many.as_bytes()), self::complaint("A", "b"));
    }

    #[test]
    fn what_a_registry_misses_is_read_from_the_details() {
        let digest = |text: &str| Digest::of(crate::oci::Algorithm::Sha256, text.as_bytes());
        let missing = |code: &str, detail: serde_json::Value| {
            let one =
                |detail: &serde_json::Value| serde_json::json!({ "code": code, "message": "m", "detail": detail });
            let errors = vec![one(&detail), one(&serde_json::json!(digest("last").as_str()))];
            let body = serde_json::json!({ "errors": errors }).to_string();
            let complaint = Complaint::parse(body.as_bytes());
            Error::of_answer("PUT x", StatusCode::BAD_REQUEST, complaint, None, "").missing().to_vec()
        };
        let (first, last) = (digest("first"), digest("last"));
        let both = vec![first.clone(), last.clone()];
        for code in ["MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"] {
            assert_eq!(missing(code, serde_json::json!(first.as_str())), both);
            assert_eq!(missing(code, serde_json::json!({ "digest": first.as_str() })), both);
            assert_eq!(missing(code, serde_json::json!({ "Name": "a/b", "Digest": first.as_str() })), both);
            assert_eq!(missing(code, serde_json::json!([first.as_str(), 1])), both);
            for useless in [serde_json::json!(null), serde_json::json!("a blob"), serde_json::json!({ "digest": {} })] {
                assert_eq!(missing(code, useless), both[1..]);
            }
        }
        assert_eq!(missing("MANIFEST_INVALID", serde_json::json!(first.as_str())), []);
        let many = vec![format!(r#"{{"code":"BLOB_UNKNOWN","detail":["{first}","{last}"]}}"#); ERRORS_LIMIT].join(",");
        let many = Complaint::parse(format!(r#"{{"errors":[{many}]}}"#).as_bytes());
        assert_eq!(many.missing.len(), ERRORS_LIMIT);
    }

    #[test]
    fn what_is_immutable_is_said_in_words() {
        let says = |body: &str| Complaint::parse(body.as_bytes()).immutable;
        let long = "x".repeat(2 * MESSAGE_LIMIT);
        assert!(says(&format!(
            r#"{{"errors":[{{"code":"TAG_INVALID","message":"'{long}' exists and is immutable"}}]}}"#
        )));
        assert!(says("Failed: Immutable tag"));
        assert!(
            !says(r#"{"errors":[{"code":"TAG_INVALID","message":"manifest tag did not match URI"}]}"#) && !says("")
        );
    }

    #[test]
    fn a_500_about_the_content_does_not_pass() {
        let class = |status: u16, codes: &[&str]| {
            let codes: Vec<String> = codes.iter().map(|code| (*code).to_owned()).collect();
            classify(StatusCode::from_u16(status).unwrap(), &codes, None)
        };
        for code in ["MANIFEST_INVALID", "MANIFEST_BLOB_UNKNOWN", "DIGEST_INVALID", "NAME_INVALID", "UNSUPPORTED"] {
            assert_eq!(class(500, &["UNKNOWN", code]), Class::Refused, "{code}");
            assert_eq!(class(503, &["UNKNOWN", code]), Class::RETRY, "{code}");
        }
        for code in ["UNKNOWN", "DENIED", "BLOB_UPLOAD_UNKNOWN", "UNAVAILABLE"] {
            assert_eq!(class(500, &[code]), Class::RETRY, "{code}");
        }
    }

    #[test]
    fn the_words_of_registries_and_token_servers() {
        let cases: [(&[u8], Complaint); 9] = [
            (
                br#"{"errors":[{"code":"DENIED","message":"no\u001b[31m way\n","detail":[1]},{"code":"B"}]}"#,
                Complaint { codes: vec!["DENIED".to_owned(), "B".to_owned()], ..complaint("", "no[31m way") },
            ),
            (
                br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#,
                complaint("MANIFEST_UNKNOWN", "manifest unknown"),
            ),
            (br#"{"errors":[]}"#, complaint("", "")),
            (br#"{"details":"incorrect username or password"}"#, complaint("", "incorrect username or password")),
            (br#"{"error":"invalid_grant","error_description":"expired"}"#, complaint("invalid_grant", "expired")),
            (br#"{"error":"not found"}"#, complaint("", "not found")),
            (b"\n  404 page not found\nmore", complaint("", "404 page not found")),
            (b"<html><body>Bad gateway", complaint("", "")),
            (b"\xff\xfe\x00", complaint("", "\u{fffd}\u{fffd}")),
        ];
        for (body, expected) in cases {
            assert_eq!(Complaint::parse(body), expected, "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn classes_follow_status_and_code() {
        let class = |status: u16, code: &str| {
            let code: Vec<String> = (!code.is_empty()).then(|| code.to_owned()).into_iter().collect();
            classify(StatusCode::from_u16(status).unwrap(), &code, Some(Duration::from_secs(7)))
        };
        let retry = Class::Retry { after: Some(Duration::from_secs(7)) };
        for status in [408, 429, 500, 502, 503, 504, 507] {
            assert_eq!(class(status, ""), retry, "{status}");
        }
        assert_eq!(class(403, "TOOMANYREQUESTS"), retry);
        assert_eq!(class(503, "DENIED"), retry);
        assert_eq!(class(401, ""), Class::Denied);
        assert_eq!(class(403, ""), Class::Denied);
        assert_eq!(class(404, "UNAUTHORIZED"), Class::Denied);
        assert_eq!(class(404, "NAME_UNKNOWN"), Class::Absent);
        for status in [302, 400, 405, 413, 415, 416, 422, 501] {
            assert_eq!(class(status, ""), Class::Refused, "{status}");
        }
    }

    #[test]
    fn the_message_is_one_line_and_says_what_to_do() {
        let error = Error::of_answer(
            "GET manifest r.example.com/a:1",
            StatusCode::UNAUTHORIZED,
            complaint("UNAUTHORIZED", "authentication required"),
            None,
            "no credentials were used",
        );
        assert_eq!(
            error.to_string(),
            "GET manifest r.example.com/a:1: the registry answered 401 Unauthorized \
             (UNAUTHORIZED: authentication required); no credentials were used"
        );
        assert_eq!(error.status(), Some(401));
        assert_eq!(error.code(), Some("UNAUTHORIZED"));
        let absent = Error::of_answer("GET x", StatusCode::NOT_FOUND, Complaint::default(), None, "hint");
        assert_eq!(absent.to_string(), "GET x: the registry answered 404 Not Found");
    }

    proptest! {
        #[test]
        fn no_body_makes_a_long_or_broken_line(body in prop::collection::vec(any::<u8>(), 0..2000)) {
            let message = Complaint::parse(&body).message.unwrap_or_default();
            prop_assert!(message.chars().count() <= MESSAGE_LIMIT + 3);
            prop_assert!(!message.chars().any(char::is_control));
        }

        #[test]
        fn long_messages_are_cut(text in "\\PC{300,600}") {
            prop_assert!(cleaned(&text).is_none_or(|kept| kept.chars().count() <= MESSAGE_LIMIT + 3));
        }
    }
}
