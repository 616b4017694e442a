//! Refusals, as each endpoint words them: Prometheus' JSON, or plain text for remote read. Pure.

use axum::Json;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::gather::GatherError;
use crate::params::ParamError;
use crate::remote::{AnswerTooLarge, RequestError};
use crate::selector::SelectorError;
use crate::server::ServerError;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiError {
    /// No valid token.
    Unauthorized,
    /// The request is not what it should be.
    BadData(String),
    /// The request is larger than allowed.
    TooLarge(String),
    /// The request is packed in a way that is not served.
    Unsupported(String),
    /// The answer would cost more than allowed.
    TooMuch(String),
    /// Not now; soon perhaps.
    Busy(String),
    /// There is no such endpoint.
    NotFound,
    /// A defect of this service or of what is stored.
    Internal(String),
}

impl ApiError {
    fn parts(&self) -> (StatusCode, &'static str, &str) {
        match self {
            Self::Unauthorized => {
                (StatusCode::UNAUTHORIZED, "unauthorized", "send a valid token: Authorization: Bearer <id>.<secret>")
            }
            Self::BadData(text) => (StatusCode::BAD_REQUEST, "bad_data", text),
            Self::TooLarge(text) => (StatusCode::PAYLOAD_TOO_LARGE, "bad_data", text),
            Self::Unsupported(text) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "bad_data", text),
            Self::TooMuch(text) => (StatusCode::UNPROCESSABLE_ENTITY, "execution", text),
            Self::Busy(text) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", text),
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                "not_found",
                "served are /api/v1/read, series, labels, label/<name>/values and status/buildinfo; for PromQL point a \
                 Prometheus with remote_read at /api/v1/read",
            ),
            Self::Internal(text) => (StatusCode::INTERNAL_SERVER_ERROR, "internal", text),
        }
    }

    /// As Prometheus' API answers.
    pub fn json(&self) -> Response {
        let (status, kind, text) = self.parts();
        let body = Json(json!({ "status": "error", "errorType": kind, "error": text }));
        self.with_headers((status, body).into_response())
    }

    /// As remote read answers.
    pub fn text(&self) -> Response {
        let (status, _, text) = self.parts();
        self.with_headers((status, format!("{text}\n")).into_response())
    }

    fn with_headers(&self, mut response: Response) -> Response {
        match self {
            Self::Unauthorized => {
                response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::Busy(_) => {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

impl From<ParamError> for ApiError {
    fn from(error: ParamError) -> Self {
        match error {
            ParamError::Selector(SelectorError::Memory) => Self::Busy(error.to_string()),
            _ => Self::BadData(error.to_string()),
        }
    }
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::TooLarge { .. } => Self::TooLarge(error.to_string()),
            RequestError::Selector(SelectorError::Memory) => Self::Busy(error.to_string()),
            _ => Self::BadData(error.to_string()),
        }
    }
}

impl From<AnswerTooLarge> for ApiError {
    fn from(error: AnswerTooLarge) -> Self {
        Self::TooMuch(error.to_string())
    }
}

impl From<GatherError> for ApiError {
    fn from(error: GatherError) -> Self {
        let text = error.to_string();
        match error {
            GatherError::NotReady | GatherError::Shard(..) => Self::Busy(text),
            GatherError::NoSuchShard(_) => Self::BadData(text),
            GatherError::Question(ServerError::Memory) => Self::Busy(text),
            GatherError::Question(ServerError::TooMany { .. } | ServerError::TooSlow) => Self::TooMuch(text),
            GatherError::Question(_) => Self::Internal(text),
        }
    }
}
