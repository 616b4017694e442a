//! `POST /api/v1/write`: the steps of a request and its answer. I/O.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{Response, StatusCode};
use axum::routing::post;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use understudy_kafka::{Produce, SendError};
use understudy_model::Tenant;
use understudy_tenant::TokenDirectory;

use crate::admission::{Budget, Reservation};
use crate::batch::Batch;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::prepare::{Prepared, Work, denied, prepare};
use crate::quota::Quota;

/// What all requests share.
#[derive(Clone)]
pub struct Gateway {
    /// Who may come in.
    pub tokens: TokenDirectory,
    /// Where records go.
    pub producer: Arc<dyn Produce>,
    /// How many partitions the topic has.
    pub partitions: u32,
    /// What a request may cost.
    pub limits: Arc<Limits>,
    /// The memory that is left.
    pub budget: Budget,
    /// Samples per second of each tenant.
    pub quota: Arc<Quota>,
    /// What is counted.
    pub metrics: Metrics,
    /// Cancelled when the gateway is about to stop: answers then ask clients for a new connection.
    pub draining: CancellationToken,
}

/// The routes of the write port.
pub fn router(gateway: Gateway) -> Router {
    Router::new().route("/api/v1/write", post(write)).with_state(gateway)
}

/// How a request ended. Each has one status code.
#[derive(Debug, Clone, PartialEq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Outcome {
    /// 204: Kafka has everything.
    Stored,
    /// 400: Kafka has the good part; this was refused.
    PartlyStored(String),
    /// 400: not a remote-write request; nothing was kept.
    Malformed(String),
    /// 401: no valid token.
    Unauthorized,
    /// 503: the body did not come in time. Not 408: Prometheus drops what is answered 4xx, and the network is not its fault.
    BodyTimeout,
    /// 413: over a size limit.
    TooLarge(String),
    /// 415: not a protocol that is spoken here.
    Unsupported(String),
    /// 429: over the tenant's own quota.
    OverQuota(Duration),
    /// 503: no memory for it now.
    Overloaded,
    /// 503: Kafka did not confirm everything.
    Unconfirmed(String),
    /// 500: a mistake of ours; clients repeat it.
    Failed(String),
}

impl Outcome {
    /// The name in metrics.
    pub fn label(&self) -> &'static str {
        self.into()
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Stored => StatusCode::NO_CONTENT,
            Self::PartlyStored(_) | Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unsupported(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::OverQuota(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Overloaded | Self::Unconfirmed(_) | Self::BodyTimeout => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Stored => String::new(),
            Self::PartlyStored(text)
            | Self::Malformed(text)
            | Self::TooLarge(text)
            | Self::Unsupported(text)
            | Self::Unconfirmed(text)
            | Self::Failed(text) => format!("{text}\n"),
            Self::Unauthorized => "a valid bearer token is needed\n".to_owned(),
            Self::BodyTimeout => "the body did not arrive in time\n".to_owned(),
            Self::OverQuota(_) => "the tenant sends more samples per second than it may\n".to_owned(),
            Self::Overloaded => "no memory for this request now, send it again\n".to_owned(),
        }
    }

    /// When to come back. Short, because Kafka has everything that was answered 2xx and senders buffer the rest.
    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::OverQuota(wait) => Some(wait.as_secs_f64().ceil().max(1.0) as u64),
            Self::Overloaded | Self::Unconfirmed(_) | Self::BodyTimeout => Some(1),
            _ => None,
        }
    }

    fn into_response(self, close: bool) -> Response<Body> {
        let mut response = Response::new(Body::from(self.text()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        if self.status() != StatusCode::NO_CONTENT {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        }
        if let Some(seconds) = self.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self == Self::Unauthorized {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // Another pod may reach Kafka where this one does not, and is found by a new connection only.
        if close || matches!(self, Self::BodyTimeout | Self::Unconfirmed(_)) {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// The handler.
async fn write(State(gateway): State<Gateway>, request: Request) -> Response<Body> {
    let started = Instant::now();
    let outcome = match gateway.take(request).await {
        Ok(outcome) | Err(outcome) => outcome,
    };
    match &outcome {
        Outcome::Failed(why) => tracing::error!(why, "a request failed by a mistake of ours"),
        Outcome::Unconfirmed(why) => tracing::warn!(why, "a request was not confirmed"),
        _ => {}
    }
    gateway.metrics.answered(&outcome, started.elapsed().as_secs_f64());
    gateway.metrics.inflight_bytes.set(i64::try_from(gateway.budget.used_bytes()).unwrap_or(i64::MAX));
    outcome.into_response(gateway.draining.is_cancelled())
}

impl Gateway {
    /// The steps. `Err` ends early, `Ok` went the whole way; both are answers.
    async fn take(&self, request: Request) -> Result<Outcome, Outcome> {
        let headers = request.headers();
        let tenant = self.authenticate(headers).ok_or(Outcome::Unauthorized)?;
        check_protocol(headers)?;
        let mut reservation = self.budget.reserve_nothing();
        let body = self.read_body(request, &mut reservation).await?;
        let work = Work {
            tenant: tenant.clone(),
            body,
            reservation,
            turn: self.budget.turn(self.limits.turn_timeout).await.map_err(denied)?,
            limits: self.limits.clone(),
            quota: self.quota.clone(),
            partitions: self.partitions,
        };
        let prepared = match tokio::task::spawn_blocking(move || prepare(work)).await {
            Ok(prepared) => prepared?,
            Err(panic) => return Err(Outcome::Failed(panic.to_string())),
        };
        // Held until the answer.
        let Prepared { batch, metadata, reservation: _reservation } = prepared;
        self.metrics.ignored("metadata", metadata);
        self.metrics.ignored("exemplar", batch.exemplars);
        let Batch { records, samples, rejections, .. } = batch;
        if !records.is_empty() {
            let produced = Instant::now();
            let deadline = produced + self.limits.produce_timeout;
            self.producer.send(records, deadline).await.map_err(unconfirmed)?;
            self.metrics.stored(tenant.as_str(), samples, produced.elapsed().as_secs_f64());
        }
        // Only now: a request that is repeated because Kafka failed must not count its bad part twice.
        for (reason, count) in rejections.iter() {
            self.metrics.rejected(tenant.as_str(), reason.reason(), count);
        }
        if rejections.is_empty() {
            return Ok(Outcome::Stored);
        }
        let refused = rejections.total();
        Ok(Outcome::PartlyStored(format!("{samples} samples were stored, {refused} were refused: {rejections}")))
    }

    /// The tenant of the one token that the request shows.
    fn authenticate(&self, headers: &HeaderMap) -> Option<Tenant> {
        self.tokens.tenant_of_header(only(headers, &AUTHORIZATION).ok()??)
    }

    /// Reads the compressed body: reserved before it is taken, limited in size and in time.
    async fn read_body(&self, request: Request, reservation: &mut Reservation) -> Result<Bytes, Outcome> {
        let most = self.limits.compressed_bytes;
        let too_large = || Outcome::TooLarge(format!("the compressed body has more than {most} bytes"));
        // hyper has checked the number and removes it where the body is chunked.
        let declared = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let declared: usize = declared.unwrap_or(0);
        if declared > most {
            return Err(too_large());
        }
        reservation.grow(declared).map_err(denied)?;
        let mut reserved = declared;
        let mut body = BytesMut::with_capacity(declared);
        let mut stream = request.into_body();
        let deadline = Instant::now() + self.limits.body_timeout;
        loop {
            let idle = Instant::now() + self.limits.body_idle_timeout;
            let frame = match tokio::time::timeout_at(deadline.min(idle), stream.frame()).await {
                Err(_) => return Err(Outcome::BodyTimeout),
                Ok(None) => return Ok(body.freeze()),
                Ok(Some(Err(error))) => return Err(Outcome::Malformed(format!("the body broke off: {error}"))),
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(data) = frame.into_data() else { continue };
            if body.len() + data.len() > most {
                return Err(too_large());
            }
            let needed = body.len() + data.len();
            if needed > reserved {
                // In steps as large as what is there, as the buffer grows.
                let more = (needed - reserved).max(reserved.min(most - reserved));
                reservation.grow(more).map_err(denied)?;
                reserved += more;
            }
            body.extend_from_slice(&data);
        }
    }
}

/// Remote write 1.0 and nothing else. A sender that speaks several falls back when it is told 415.
fn check_protocol(headers: &HeaderMap) -> Result<(), Outcome> {
    let unsupported = |why: String| Outcome::Unsupported(why);
    let header = |name: &HeaderName| {
        only(headers, name).map_err(|()| unsupported(format!("{name} occurs twice or is not readable")))
    };
    let content_type = header(&CONTENT_TYPE)?.ok_or_else(|| unsupported("content-type is missing".to_owned()))?;
    let mut parts = content_type.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    if !media.eq_ignore_ascii_case("application/x-protobuf") {
        return Err(unsupported(format!("content-type must be application/x-protobuf, not {media:?}")));
    }
    for parameter in parts {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if name.trim().eq_ignore_ascii_case("proto") && value.trim() != "prometheus.WriteRequest" {
            return Err(unsupported(format!("only prometheus.WriteRequest is taken, not {value:?}")));
        }
    }
    match header(&CONTENT_ENCODING)? {
        Some(encoding) if encoding.eq_ignore_ascii_case("snappy") => Ok(()),
        Some(encoding) => Err(unsupported(format!("content-encoding must be snappy, not {encoding:?}"))),
        None => Err(unsupported("content-encoding must be snappy".to_owned())),
    }
}

/// The value of a header that may occur once. `Err` if it occurs more often or is not plain text.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| ()),
        (Some(_), Some(_)) => Err(()),
    }
}

fn unconfirmed(error: SendError) -> Outcome {
    Outcome::Unconfirmed(format!("not stored, send it again: {error}"))
}
