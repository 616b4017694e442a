//! What the admin port says, and when.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use support::proto::{good, packed};
use support::{WAIT, exchange, post, start, until};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use understudy_gateway::admin::{self, Readiness};
use understudy_gateway::metrics::Metrics;
use understudy_http::{Connections, serve};
use understudy_kafka::fake::{MemoryLog, Mood};

struct Admin {
    address: std::net::SocketAddr,
    log: Arc<MemoryLog>,
    draining: CancellationToken,
    stop: CancellationToken,
    readiness: Readiness,
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn admin(partitions_wanted: u32, metrics: Metrics) -> Admin {
    let log = Arc::new(MemoryLog::new(4));
    let (draining, stop) = (CancellationToken::new(), CancellationToken::new());
    let readiness = Readiness::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Connections { most: 4, header_timeout: Duration::from_secs(5), ..Connections::of_admin() };
    let router = admin::router(readiness.clone(), draining.clone(), metrics.clone());
    tokio::spawn(serve(listener, router, connections, Gauge::default(), stop.clone()));
    tokio::spawn(admin::keep_ready(log.clone(), partitions_wanted, readiness.clone(), metrics, stop.clone()));
    Admin { address, log, draining, stop, readiness }
}

async fn get(admin: &Admin, path: &str) -> (u16, String) {
    let text = format!("GET {path} HTTP/1.1\r\nhost: admin\r\n\r\n");
    let answer = exchange(admin.address, text.as_bytes()).await;
    (answer.status, answer.body)
}

async fn until_ready(admin: &Admin, ready: bool) {
    until(WAIT, "the readiness changes", || admin.readiness.get() == ready).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_ready_once_kafka_has_answered_and_no_longer_when_it_stops() {
    let admin = admin(4, Metrics::default()).await;
    until_ready(&admin, true).await;
    assert_eq!(get(&admin, "/readyz").await, (200, "ok\n".to_owned()));
    admin.draining.cancel();
    assert_eq!(get(&admin, "/readyz").await, (503, "stopping\n".to_owned()));
    assert_eq!(get(&admin, "/livez").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_with_too_few_partitions_is_not_ready_but_alive() {
    let metrics = Metrics::default();
    let admin = admin(5, metrics.clone()).await;
    assert_eq!(get(&admin, "/readyz").await.0, 503);
    assert_eq!(get(&admin, "/livez").await.0, 200);
    assert_eq!(support::metric(&metrics, "understudy_gateway_kafka_reachable"), Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_that_stays_silent_ends_the_readiness_after_a_while() {
    let admin = admin(4, Metrics::default()).await;
    until_ready(&admin, true).await;
    admin.log.set_mood(Mood::Dead);
    assert_eq!(get(&admin, "/readyz").await.0, 200, "a broker's replacement is sat out");
    until_ready(&admin, false).await;
    admin.log.set_mood(Mood::Healthy);
    until_ready(&admin, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_counted_is_shown() {
    let running = start().await;
    assert_eq!(post(&running, &packed(&[good("up")])).await.status, 204);
    assert_eq!(post(&running, b"nonsense").await.status, 400);
    let admin = admin(4, running.metrics.clone()).await;
    let (status, text) = get(&admin, "/metrics").await;
    assert_eq!(status, 200);
    for line in [
        r#"understudy_gateway_requests_total{outcome="stored"} 1"#,
        r#"understudy_gateway_requests_total{outcome="malformed"} 1"#,
        r#"understudy_gateway_samples_total{tenant="acme"} 1"#,
        "understudy_gateway_request_seconds_count 2",
        "understudy_gateway_produce_seconds_count 1",
        "# EOF",
    ] {
        assert!(text.contains(line), "no {line:?} in:\n{text}");
    }
}
