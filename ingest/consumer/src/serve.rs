//! What a consumer's pod serves: evidence and status to peers of the same authority, health and metrics to anybody. I/O.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use understudy_http::metrics::answer;
use understudy_link::evidence::Publisher;
use understudy_wire::evidence::Millis;

use crate::facts::Facts;
use crate::metrics::Metrics;
use crate::status::Snapshot;

/// A pod that had no contact with the primary for this long is not ready. Nobody routes to it; it is for people and rollouts.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// `GET /v1/evidence` and `GET /v1/status`.
pub fn evidence(facts: Arc<Facts>, board: watch::Receiver<Snapshot>, stop: CancellationToken) -> Router {
    let changed = facts.changed();
    let report = move || facts.report(std::time::Instant::now());
    let status = |State(board): State<watch::Receiver<Snapshot>>| async move { Json(board.borrow().clone()) };
    Router::new()
        .route("/v1/status", get(status))
        .with_state(board)
        .merge(Publisher::new(report, changed, stop).routes())
}

#[derive(Clone)]
struct Admin {
    facts: Arc<Facts>,
    metrics: Metrics,
}

/// `/livez`, `/readyz` and `/metrics`.
pub fn admin(facts: Arc<Facts>, metrics: Metrics) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(text))
        .with_state(Admin { facts, metrics })
}

/// Nothing of MySQL or Kafka is in it: a restart mends neither.
async fn livez() -> &'static str {
    "ok\n"
}

async fn readyz(State(admin): State<Admin>) -> (StatusCode, &'static str) {
    let report = admin.facts.report(std::time::Instant::now());
    let probe = report.evidence.first().and_then(|evidence| evidence.probe.as_ref());
    let within = Millis::try_from(READY_WITHIN.as_millis()).unwrap_or(Millis::MAX);
    match probe.and_then(|probe| probe.selected) {
        Some(age) if age <= within => (StatusCode::OK, "ok\n"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "the primary does not answer\n"),
        None => (StatusCode::SERVICE_UNAVAILABLE, "no contact with a primary yet\n"),
    }
}

async fn text(State(admin): State<Admin>) -> Response {
    answer(admin.metrics.text())
}
