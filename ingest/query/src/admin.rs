//! The admin port: is the process alive, should it get requests, what has it counted. I/O.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use understudy_http::metrics::answer;

use crate::metrics::Metrics;
use crate::topology::Topology;

#[derive(Clone)]
struct Admin {
    topology: watch::Receiver<Topology>,
    draining: CancellationToken,
    metrics: Metrics,
}

/// The routes of the admin port. Ready means that the shards are known: a shard that does not answer is told to those
/// who ask and is no reason to send them to another pod, which would meet the same.
pub fn router(topology: watch::Receiver<Topology>, draining: CancellationToken, metrics: Metrics) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .with_state(Admin { topology, draining, metrics })
}

async fn readyz(State(admin): State<Admin>) -> (StatusCode, &'static str) {
    if admin.draining.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    } else if !admin.topology.borrow().is_complete {
        (StatusCode::SERVICE_UNAVAILABLE, "the shards are not known yet\n")
    } else {
        (StatusCode::OK, "ok\n")
    }
}

async fn metrics_text(State(admin): State<Admin>) -> Response {
    admin.metrics.topology_known.set(i64::from(admin.topology.borrow().is_complete));
    answer(admin.metrics.text())
}
