//! The admin port: is the process alive, should it get requests, what has it counted. I/O.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use understudy_http::metrics::answer;
use understudy_kafka::Produce;

use crate::metrics::Metrics;

/// How often Kafka is asked.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// How long Kafka may take to answer a check.
const CHECK_WITHIN: Duration = Duration::from_secs(3);

/// Whether the gateway wants requests.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    /// As last found out.
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

#[derive(Clone)]
struct Admin {
    readiness: Readiness,
    draining: CancellationToken,
    metrics: Metrics,
}

/// The routes of the admin port.
pub fn router(readiness: Readiness, draining: CancellationToken, metrics: Metrics) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .with_state(Admin { readiness, draining, metrics })
}

async fn readyz(State(admin): State<Admin>) -> (StatusCode, &'static str) {
    if admin.draining.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    } else if !admin.readiness.get() {
        (StatusCode::SERVICE_UNAVAILABLE, "Kafka has not answered yet, or the topic is not as configured\n")
    } else {
        (StatusCode::OK, "ok\n")
    }
}

async fn metrics_text(State(admin): State<Admin>) -> Response {
    answer(admin.metrics.text())
}

/// Keeps the readiness current until cancelled: ready once Kafka has answered and the topic has at least the
/// partitions that records are sent to, no longer ready when it answers that the topic has fewer. Silence changes
/// nothing: if all gateways were taken out of their Service for it, senders would find nobody to tell them 503.
pub async fn keep_ready(
    producer: Arc<dyn Produce>,
    partitions: u32,
    readiness: Readiness,
    metrics: Metrics,
    stop: CancellationToken,
) {
    let mut ticks = interval(CHECK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let found = tokio::select! {
            () = stop.cancelled() => return,
            found = producer.partitions(CHECK_WITHIN) => found,
        };
        if let Ok(found) = found {
            readiness.set(found >= partitions);
        }
        let finding = match found {
            Ok(found) if found < partitions => Some(format!("the topic has {found} partitions, not {partitions}")),
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        };
        metrics.kafka_reachable.set(i64::from(finding.is_none()));
        if said.as_ref() != Some(&finding) {
            match &finding {
                None => tracing::info!("Kafka answers and the topic is as configured"),
                Some(why) => tracing::warn!(why, "requests cannot be stored"),
            }
            said = Some(finding);
        }
    }
}
