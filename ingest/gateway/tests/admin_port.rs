//! What the admin port says, and when.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use prometheus_client::metrics::gauge::Gauge;
use support::proto::{good, packed};
use support::{WAIT, exchange, post, start, until};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use understudy_gateway::admin::{self, Readiness};
use understudy_gateway::metrics::Metrics;
use understudy_http::{Connections, serve};
use understudy_kafka::fake::MemoryLog;
use understudy_kafka::{Delivered, OutRecord, Produce, SendError};

struct Admin {
    address: std::net::SocketAddr,
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
    tokio::spawn(admin::keep_ready(log, partitions_wanted, readiness.clone(), metrics, stop.clone()));
    Admin { address, draining, stop, readiness }
}

async fn get(admin: &Admin, path: &str) -> (u16, String) {
    let text = format!("GET {path} HTTP/1.1\r\nhost: admin\r\n\r\n");
    let answer = exchange(admin.address, text.as_bytes()).await;
    (answer.status, answer.body)
}

async fn until_ready(admin: &Admin) {
    until(WAIT, "it is ready", || admin.readiness.get()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_ready_once_kafka_has_answered_and_no_longer_when_it_stops() {
    let admin = admin(4, Metrics::default()).await;
    until_ready(&admin).await;
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

/// Kafka as a check sees it: how many partitions it says there are, or that it says nothing.
#[derive(Default)]
struct Said(Mutex<Option<u32>>);

#[async_trait]
impl Produce for Said {
    async fn send(&self, _: Vec<OutRecord>, _: Instant) -> Result<Vec<Delivered>, SendError> {
        Err(SendError::Overloaded)
    }

    async fn partitions(&self, _: Duration) -> Result<u32, SendError> {
        let silence = || SendError::Metadata { topic: "samples".to_owned(), reason: "no answer in time".to_owned() };
        self.0.lock().unwrap().ok_or_else(silence)
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_ready_by_what_kafka_answered_last_however_long_ago_that_was() {
    let kafka = Arc::new(Said::default());
    let (readiness, metrics, stop) = (Readiness::default(), Metrics::default(), CancellationToken::new());
    let checks = tokio::spawn(admin::keep_ready(kafka.clone(), 4, readiness.clone(), metrics.clone(), stop.clone()));
    for (case, said, ready, reachable) in [
        ("it has said nothing yet", None, false, 0.0),
        ("the topic is there", Some(4), true, 1.0),
        ("it is silent, and somebody must answer senders", None, true, 0.0),
        ("it is back, and the topic is another", Some(3), false, 0.0),
        ("it is silent again", None, false, 0.0),
        ("the topic is there again, with more than are used", Some(5), true, 1.0),
    ] {
        *kafka.0.lock().unwrap() = said;
        // Of a clock that stands while somebody works: all checks of a minute.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let reached = support::metric(&metrics, "understudy_gateway_kafka_reachable");
        assert_eq!((readiness.get(), reached), (ready, Some(reachable)), "{case}");
    }
    stop.cancel();
    checks.await.unwrap();
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
