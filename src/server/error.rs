//! What callers are told when something is wrong: a status, one line, and when to try again.

use crate::store;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Why a call was refused or failed.
#[derive(Debug, Clone)]
pub struct ApiError {
    /// The status.
    pub status: StatusCode,
    /// One line.
    pub message: String,
    /// When another try makes sense, seconds.
    pub retry_after: Option<u64>,
}

impl ApiError {
    /// A status and its reason.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), retry_after: None }
    }

    /// The caller's fault.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// It is not there.
    pub fn missing(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// The caller has not the right.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    /// Try again after so many seconds.
    #[must_use]
    pub const fn after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }
}

impl From<store::Error> for ApiError {
    fn from(error: store::Error) -> Self {
        use store::Error;
        let status = match &error {
            Error::Invalid(_) => StatusCode::BAD_REQUEST,
            Error::KeyConflict(_) => StatusCode::CONFLICT,
            Error::NotFound(_) => StatusCode::NOT_FOUND,
            Error::Unusable(_) | Error::Outdated(_) | Error::Backend { .. } => StatusCode::SERVICE_UNAVAILABLE,
        };
        let answer = Self::new(status, error.to_string());
        if status == StatusCode::SERVICE_UNAVAILABLE {
            tracing::error!(%error, "a call of the API could not be served");
            return answer.after(if error.is_transient() { 1 } else { 30 });
        }
        answer
    }
}

impl From<crate::job::Invalid> for ApiError {
    fn from(error: crate::job::Invalid) -> Self {
        Self::bad(error.0)
    }
}

impl IntoResponse for ApiError {
    /// The outermost layer writes the body, because it alone knows the id of the request.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// The body of an error.
pub fn body(error: &ApiError, request_id: &str) -> String {
    json!({"error": error.message, "request_id": request_id}).to_string()
}
