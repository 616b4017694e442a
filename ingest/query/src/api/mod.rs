//! The HTTP API: remote read, series, labels, build information. I/O.

mod error;
mod held;
mod labels;
mod read;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use understudy_model::Tenant;
use understudy_tenant::TokenDirectory;

pub use error::ApiError;

use crate::ask::Asker;
use crate::freshness::{fresh_until_header, served_by_header};
use crate::gather::Gathered;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::selector::Patterns;
use crate::server::Servers;

/// Which server of each shard answered, under which epoch, as what.
pub const SERVED_BY: HeaderName = HeaderName::from_static("x-understudy-served-by");
/// Up to when each shard's data is complete.
pub const FRESH_UNTIL: HeaderName = HeaderName::from_static("x-understudy-fresh-until");
/// How many samples were left out because another of the same series and time was given.
pub const MERGED_SAMPLES: HeaderName = HeaderName::from_static("x-understudy-merged-samples");
/// Shards that a partial answer lacks.
pub const MISSING_SHARDS: HeaderName = HeaderName::from_static("x-understudy-missing-shards");

/// What every handler needs.
pub struct Service<S> {
    /// Asks the shards.
    pub asker: Arc<Asker<S>>,
    /// Who may ask.
    pub tokens: TokenDirectory,
    /// What a request may cost.
    pub limits: Limits,
    /// Partitions of the topic.
    pub partitions: u32,
    /// Counters.
    pub metrics: Metrics,
    /// Requests of each tenant whose answers are not sent yet.
    pub turns: Turns,
}

/// The places of each tenant. There are no more tenants than tokens.
#[derive(Debug, Default)]
pub struct Turns(Mutex<HashMap<Tenant, Arc<Semaphore>>>);

type Shared<S> = Arc<Service<S>>;

/// All routes.
pub fn router<S: Servers>(service: Shared<S>) -> Router {
    Router::new()
        .route("/api/v1/read", post(read::read::<S>))
        .route("/api/v1/series", get(labels::series::<S>).post(labels::series::<S>))
        .route("/api/v1/labels", get(labels::names::<S>).post(labels::names::<S>))
        .route("/api/v1/label/{name}/values", get(labels::values::<S>))
        .route("/api/v1/status/buildinfo", get(labels::build::<S>))
        .fallback(async || ApiError::NotFound.json())
        .layer(from_fn_with_state(Arc::clone(&service), count::<S>))
        .with_state(service)
}

/// Counts and times every request under a name from a closed set.
async fn count<S: Servers>(State(service): State<Shared<S>>, request: Request, next: Next) -> Response {
    let endpoint = match request.uri().path() {
        "/api/v1/read" => "read",
        "/api/v1/series" => "series",
        "/api/v1/labels" => "labels",
        "/api/v1/status/buildinfo" => "buildinfo",
        path if path.starts_with("/api/v1/label/") => "label_values",
        _ => "other",
    };
    let began = Instant::now();
    let response = next.run(request).await;
    service.metrics.answered(endpoint, response.status().as_u16(), began.elapsed());
    response
}

impl<S: Servers> Service<S> {
    /// Who asks, and a place among that tenant's requests.
    async fn admit(&self, headers: &HeaderMap) -> Result<(Tenant, OwnedSemaphorePermit), ApiError> {
        let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let tenant = header.and_then(|header| self.tokens.tenant_of_header(header)).ok_or(ApiError::Unauthorized)?;
        let places = self.turns.places(&tenant, self.limits.tenant_requests);
        match timeout(self.limits.tenant_wait, places.acquire_owned()).await {
            Ok(Ok(place)) => Ok((tenant, place)),
            _ => {
                Err(ApiError::Busy("too many queries of this tenant run already, or their answers are not read".into()))
            }
        }
    }

    /// The patterns of a request, none yet.
    fn patterns(&self) -> Patterns {
        Patterns::new(&self.limits, self.asker.hold_nothing())
    }

    /// The whole body, within its limit and its time.
    async fn body(&self, body: Body) -> Result<Bytes, ApiError> {
        let most = self.limits.request_bytes;
        match timeout(self.limits.body_timeout, to_bytes(body, most)).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(_)) => Err(ApiError::TooLarge(format!("the body was cut off or has more than {most} bytes"))),
            Err(_) => Err(ApiError::BadData("the body did not arrive in time".into())),
        }
    }
}

/// Does what keeps a processor busy where no other request waits for it.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| ApiError::Internal("the request could not be worked on".into()))
}

impl Turns {
    fn places(&self, tenant: &Tenant, most: usize) -> Arc<Semaphore> {
        let mut tenants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(tenants.entry(tenant.clone()).or_insert_with(|| Arc::new(Semaphore::new(most))))
    }
}

/// What an answer says about itself.
fn headers_of(gathered: &Gathered) -> HeaderMap {
    let missing: Vec<&str> = gathered.missing.iter().map(|(shard, _)| shard.as_str()).collect();
    let texts = [
        (SERVED_BY, served_by_header(&gathered.provenance)),
        (FRESH_UNTIL, fresh_until_header(&gathered.provenance)),
        (MERGED_SAMPLES, gathered.found.duplicates.to_string()),
        (MISSING_SHARDS, missing.join(", ")),
    ];
    let mut headers = HeaderMap::new();
    for (name, text) in texts {
        if let Ok(value) = HeaderValue::try_from(text)
            && !value.is_empty()
        {
            headers.insert(name, value);
        }
    }
    headers
}
