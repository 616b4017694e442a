//! A gateway on a real listener, requests down to the byte, and what arrived.
#![allow(dead_code, clippy::unwrap_used, reason = "tests: each target uses a part of this, and a failure may panic")]

pub mod proto;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use understudy_gateway::admission::Budget;
use understudy_gateway::limits::Limits;
use understudy_gateway::metrics::Metrics;
use understudy_gateway::quota::Quota;
use understudy_gateway::write::{Gateway, router};
use understudy_http::{Connections, serve};
use understudy_kafka::Produce;
use understudy_kafka::fake::MemoryLog;
use understudy_model::tokens::Tokens;
use understudy_model::{Frame, Sample};
use understudy_tenant::TokenDirectory;

/// Of tenant acme.
pub const TOKEN: &str = "agent.secret";
const DIGEST: &str = "cecc05b29ae140bae8e9dc95877ec61e196273f1e2bed00495ca78650da2522d";
/// Partitions of the topic.
pub const PARTITIONS: u32 = 4;
/// Longer than anything here takes.
pub const WAIT: Duration = Duration::from_secs(20);

/// A gateway under test. Stops when dropped.
pub struct Running {
    pub address: SocketAddr,
    pub log: Arc<MemoryLog>,
    pub metrics: Metrics,
    pub budget: Budget,
    pub stop: CancellationToken,
    pub draining: CancellationToken,
    pub served: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Limits that a test can reach.
pub fn small_limits() -> Limits {
    Limits {
        compressed_bytes: 256 << 10,
        decompressed_bytes: 1 << 20,
        inflight_bytes: 64 << 20,
        series: 2000,
        samples: 20_000,
        header_timeout: Duration::from_millis(400),
        body_timeout: Duration::from_millis(800),
        body_idle_timeout: Duration::from_millis(300),
        produce_timeout: Duration::from_millis(500),
        ..Limits::default()
    }
}

pub async fn start() -> Running {
    start_with(small_limits()).await
}

pub async fn start_with(limits: Limits) -> Running {
    let log = Arc::new(MemoryLog::new(PARTITIONS));
    start_on(limits, log.clone(), log).await
}

pub async fn start_on(limits: Limits, log: Arc<MemoryLog>, producer: Arc<dyn Produce>) -> Running {
    let mut tokens = Tokens::default();
    tokens.insert("agent", &format!("acme sha256:{DIGEST}")).unwrap();
    let metrics = Metrics::default();
    let budget = Budget::new(limits.inflight_bytes);
    let (stop, draining) = (CancellationToken::new(), CancellationToken::new());
    let connections = Connections {
        most: limits.connections,
        header_timeout: limits.header_timeout,
        drain_timeout: Duration::from_secs(5),
        ..Connections::of_admin()
    };
    let gateway = Gateway {
        tokens: TokenDirectory::fixed(tokens),
        producer,
        partitions: PARTITIONS,
        budget: budget.clone(),
        quota: Arc::new(Quota::new(limits.tenant_samples_per_second)),
        metrics: metrics.clone(),
        draining: draining.clone(),
        limits: Arc::new(limits),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = serve(listener, router(gateway), connections, metrics.connections.clone(), stop.clone());
    let served = tokio::spawn(serving);
    Running { address, log, metrics, budget, stop, draining, served }
}

/// Waits for something to become so, or fails saying what did not.
pub async fn until(within: Duration, what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !so() {
        assert!(Instant::now() < deadline, "it never came to be that {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// A remote-write request with the usual headers, some of them changed: `None` leaves a header out.
pub fn request(body: &[u8], changed: &[(&str, Option<&str>)]) -> Vec<u8> {
    let authorization = format!("Bearer {TOKEN}");
    let length = body.len().to_string();
    let mut headers: Vec<(&str, &str)> = vec![
        ("host", "gateway"),
        ("authorization", &authorization),
        ("content-type", "application/x-protobuf"),
        ("content-encoding", "snappy"),
        ("x-prometheus-remote-write-version", "0.1.0"),
        ("content-length", &length),
    ];
    for (name, value) in changed {
        let replaced = !name.starts_with('+');
        let name = name.trim_start_matches('+');
        headers.retain(|(known, _)| !replaced || *known != name);
        headers.extend(value.map(|value| (name, value)));
    }
    let mut bytes = b"POST /api/v1/write HTTP/1.1\r\n".to_vec();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// Sends raw bytes on a connection of its own and reads one answer.
pub async fn exchange(address: SocketAddr, bytes: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The gateway may answer and close before it has read everything.
    stream.write_all(bytes).await.unwrap_or(());
    read_answer(&mut stream).await.expect("an answer")
}

/// Sends a body as a remote-write request.
pub async fn post(running: &Running, body: &[u8]) -> Answer {
    exchange(running.address, &request(body, &[])).await
}

/// The next answer on a connection, or nothing if it ends without one.
pub async fn read_answer(stream: &mut TcpStream) -> Option<Answer> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        if read_some(stream, &mut bytes).await == 0 {
            assert!(bytes.is_empty(), "half an answer: {:?}", String::from_utf8_lossy(&bytes));
            return None;
        }
    };
    let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
    let mut lines = text.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: BTreeMap<String, String> = lines
        .map(|line| line.split_once(':').unwrap())
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let length: usize = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    while bytes.len() < head + 4 + length {
        assert_ne!(read_some(stream, &mut bytes).await, 0, "an answer without its end");
    }
    let body = String::from_utf8(bytes[head + 4..head + 4 + length].to_vec()).unwrap();
    Some(Answer { status, headers, body })
}

async fn read_some(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> usize {
    let read = tokio::time::timeout(WAIT, stream.read_buf(bytes)).await.expect("an answer in time");
    read.unwrap_or(0)
}

/// Everything in the log: series as text, with its samples. Also holds each record against the promises of its place.
pub fn stored(log: &MemoryLog) -> BTreeMap<String, Vec<Sample>> {
    let mut found: BTreeMap<String, Vec<Sample>> = BTreeMap::new();
    for partition in 0..PARTITIONS {
        for record in log.records(partition as i32) {
            let frame = Frame::decode(&record.value).unwrap();
            assert_eq!(frame.tenant().as_str(), "acme");
            let group = frame.group().id();
            assert_eq!(record.key, group.0.as_slice());
            assert_eq!(partition, understudy_model::partition_of(group, PARTITIONS));
            for series in frame.series() {
                found.entry(series.labels.to_string()).or_default().extend(series.samples());
            }
        }
    }
    found
}

/// The value of a metric line that starts so.
pub fn metric(metrics: &Metrics, start: &str) -> Option<f64> {
    let text = metrics.text().unwrap();
    let line = text.lines().find(|line| line.starts_with(start))?;
    line.rsplit(' ').next()?.parse().ok()
}
