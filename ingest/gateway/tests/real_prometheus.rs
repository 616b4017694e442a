//! A real Prometheus sends to the gateway, the gateway to a real Kafka; what is in the log is then held against what
//! that Prometheus has in its own database. `UNDERSTUDY_TEST_KAFKA` names the brokers, `UNDERSTUDY_TEST_PROMETHEUS`
//! the program.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use serde_json::Value;
use support::proto::now_ms;
use support::{PARTITIONS, metric, start_on, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use understudy_gateway::limits::Limits;
use understudy_kafka::fake::MemoryLog;
use understudy_kafka::{
    Admin, Connection, Event, KafkaProducer, Position, ProducerConfig, Reader, ReaderConfig, Stop, TopicSpec,
};
use understudy_model::{Frame, Labels, Sample};

const WAIT: Duration = Duration::from_secs(120);
/// Samples of a series by time.
type Series = BTreeMap<Labels, BTreeMap<i64, u64>>;

fn needed(name: &str, what: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} must name {what}; `cargo lab test` sets it"))
}

/// Ends with the test.
struct Prometheus {
    process: Child,
    address: SocketAddr,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

async fn prometheus(directory: &Path, gateway: SocketAddr) -> Prometheus {
    let program = needed("UNDERSTUDY_TEST_PROMETHEUS", "the prometheus program");
    // Free when asked, and taken again at once.
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let config = format!(
        "global: {{scrape_interval: 1s}}\n\
         scrape_configs:\n- job_name: self\n  static_configs: [{{targets: ['{address}']}}]\n\
         - job_name: nobody\n  static_configs: [{{targets: ['127.0.0.1:1']}}]\n\
         remote_write:\n- url: http://{gateway}/api/v1/write\n  \
           authorization: {{type: Bearer, credentials: {}}}\n  queue_config: {{max_shards: 1}}\n",
        support::TOKEN
    );
    let path = directory.join("prometheus.yml");
    std::fs::write(&path, config).unwrap();
    let process = Command::new(program)
        .arg(format!("--config.file={}", path.display()))
        .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
        .arg(format!("--web.listen-address={address}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start prometheus");
    Prometheus { process, address }
}

/// The bits that Prometheus means by the text of a value.
fn bits(text: &str) -> u64 {
    match text {
        // Text has one NaN only; of all that there are, Prometheus stores this one (its stale marker is never shown).
        "NaN" => 0x7ff8_0000_0000_0001,
        number => number.parse::<f64>().unwrap().to_bits(),
    }
}

/// Everything that Prometheus has of the last ten minutes.
async fn own_samples(prometheus: &Prometheus) -> Series {
    let query = "query=%7B__name__%3D~%22.%2B%22%7D%5B10m%5D";
    // In HTTP/1.0 the answer is neither chunked nor packed and ends with the connection.
    let text = format!("GET /api/v1/query?{query} HTTP/1.0\r\n\r\n");
    let mut stream = TcpStream::connect(prometheus.address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    timeout(WAIT, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
    let body = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let answer: Value = serde_json::from_slice(&bytes[body..]).unwrap();
    let mut found = Series::new();
    for series in answer["data"]["result"].as_array().unwrap() {
        let labels = series["metric"].as_object().unwrap();
        let labels = Labels::from_pairs(labels.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())));
        let samples = series["values"].as_array().unwrap().iter().map(|pair| {
            let at = (pair[0].as_f64().unwrap() * 1000.0).round() as i64;
            (at, bits(pair[1].as_str().unwrap()))
        });
        found.insert(labels.unwrap(), samples.collect());
    }
    found
}

/// A topic that goes with its test.
struct Doomed(String, Connection);

impl Drop for Doomed {
    fn drop(&mut self) {
        let (name, bootstrap) = (self.0.clone(), self.1.bootstrap.clone());
        let deleted = std::thread::spawn(move || {
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", bootstrap);
            let client: AdminClient<DefaultClientContext> = config.create().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            drop(runtime.block_on(client.delete_topics(&[&name], &AdminOptions::new())));
        });
        drop(deleted.join());
    }
}

async fn logged_samples(connection: &Connection, topic: &str) -> Series {
    let ends = Admin::new(connection).unwrap().end_offsets(topic, WAIT).await.unwrap();
    let (reader, mut events) = Reader::start(ReaderConfig::new(connection.clone(), topic, topic)).unwrap();
    let positions = ends.keys().map(|&partition| Position { partition, offset: 0 }).collect();
    reader.assign(positions).await.unwrap();
    let mut found = Series::new();
    for _ in 0..ends.values().sum() {
        let Event::Record(record) = timeout(WAIT, events.recv()).await.unwrap().unwrap() else {
            panic!("a partition broke");
        };
        for series in Frame::decode(&record.value).unwrap().series() {
            let samples = found.entry(series.labels.clone()).or_default();
            for sample in series.samples() {
                let other = samples.insert(sample.timestamp_ms, sample.bits);
                assert!(other.is_none_or(|bits| bits == sample.bits), "two values at one time: {}", series.labels);
            }
        }
    }
    assert_eq!(reader.stop(WAIT).await, Stop::Clean);
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn what_prometheus_has_is_in_the_log_bit_for_bit() {
    let connection = Connection::new(needed("UNDERSTUDY_TEST_KAFKA", "the brokers of a real Kafka"), "test");
    let topic = format!("understudy-test-prometheus-{}-{}", now_ms(), std::process::id());
    let admin = Admin::new(&connection).unwrap();
    let replicas = admin.brokers(WAIT).await.unwrap().min(3) as i32;
    let spec = TopicSpec::durable(&topic, PARTITIONS as i32, replicas, Duration::from_secs(3600));
    assert_eq!(admin.ensure_topic(&spec, WAIT).await.unwrap().differences, []);
    let _doomed = Doomed(topic.clone(), connection.clone());
    let producer = KafkaProducer::new(ProducerConfig::new(connection.clone(), &topic)).unwrap();
    let unused = Arc::new(MemoryLog::new(PARTITIONS));
    let running = start_on(Limits::default(), unused, Arc::new(producer)).await;

    let directory = tempfile::tempdir().unwrap();
    let prometheus = prometheus(directory.path(), running.address).await;
    let stored = || metric(&running.metrics, r#"understudy_gateway_samples_total{tenant="acme"}"#).unwrap_or(0.0);
    until(WAIT, "the first samples are stored", || stored() >= 8000.0).await;
    let cut = now_ms();
    let own = own_samples(&prometheus).await;
    // One shard sends in order of time, so a good number of later samples means that all earlier ones have passed.
    let later = stored() + 4000.0;
    until(WAIT, "later ones are too", || stored() >= later).await;
    drop(prometheus);
    assert!(metric(&running.metrics, "understudy_gateway_rejected_samples_total").is_none());

    let logged = logged_samples(&connection, &topic).await;
    let before = |series: &Series| -> BTreeSet<(String, i64, u64)> {
        let flat = series.iter().flat_map(|(labels, samples)| {
            samples.iter().map(move |(&timestamp_ms, &bits)| (labels, Sample { timestamp_ms, bits }))
        });
        // The query API leaves stale markers out.
        flat.filter(|(_, sample)| sample.timestamp_ms < cut - 1000 && !sample.is_stale_marker())
            .map(|(labels, sample)| (labels.to_string(), sample.timestamp_ms, sample.bits))
            .collect()
    };
    let (own, logged) = (before(&own), before(&logged));
    assert!(own.len() > 3000, "{} samples", own.len());
    let missing: Vec<_> = own.difference(&logged).take(5).collect();
    let foreign: Vec<_> = logged.difference(&own).take(5).collect();
    assert!(missing.is_empty() && foreign.is_empty(), "missing {missing:?}, foreign {foreign:?}");
}
