//! What the process is told, by environment or flags.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::limits::Limits;

/// Takes Prometheus remote write and puts it into Kafka.
#[derive(Debug, Clone, Parser)]
#[command(name = "understudy-gateway", version)]
pub struct Config {
    /// Where requests come in.
    #[arg(long, env = "UNDERSTUDY_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Where /livez, /readyz and /metrics are.
    #[arg(long, env = "UNDERSTUDY_ADMIN_LISTEN", default_value = "0.0.0.0:8081")]
    pub admin_listen: SocketAddr,
    /// The datastore this gateway belongs to; names the client in Kafka's logs.
    #[arg(long, env = "UNDERSTUDY_DATASTORE", default_value = "understudy")]
    pub datastore: String,
    /// Kafka brokers, host:port, several with commas.
    #[arg(long, env = "UNDERSTUDY_KAFKA_BOOTSTRAP")]
    pub kafka_bootstrap: String,
    /// The topic that samples go to. It must exist.
    #[arg(long, env = "UNDERSTUDY_TOPIC")]
    pub topic: String,
    /// How many partitions of the topic samples are spread over; it must have at least as many.
    #[arg(long, env = "UNDERSTUDY_PARTITIONS", value_parser = clap::value_parser!(u32).range(1..))]
    pub partitions: u32,
    /// A directory with one file per token: its name is the token's id, its content `<tenant> sha256:<hex>`.
    #[arg(long, env = "UNDERSTUDY_TOKENS_DIR")]
    pub tokens_dir: PathBuf,
    /// The largest compressed body in bytes.
    #[arg(long, env = "UNDERSTUDY_MAX_COMPRESSED_BYTES", default_value_t = Limits::default().compressed_bytes)]
    pub max_compressed_bytes: usize,
    /// The largest decompressed body in bytes.
    #[arg(long, env = "UNDERSTUDY_MAX_DECOMPRESSED_BYTES", default_value_t = Limits::default().decompressed_bytes)]
    pub max_decompressed_bytes: usize,
    /// The memory that all requests together may hold, in bytes.
    #[arg(long, env = "UNDERSTUDY_MAX_INFLIGHT_BYTES", default_value_t = Limits::default().inflight_bytes)]
    pub max_inflight_bytes: usize,
    /// The most series in a request.
    #[arg(long, env = "UNDERSTUDY_MAX_SERIES", default_value_t = Limits::default().series)]
    pub max_series: usize,
    /// The most samples in a request.
    #[arg(long, env = "UNDERSTUDY_MAX_SAMPLES", default_value_t = Limits::default().samples)]
    pub max_samples: usize,
    /// The oldest sample that is taken, in seconds before now.
    #[arg(long, env = "UNDERSTUDY_MAX_SAMPLE_AGE_SECONDS", default_value_t = Limits::default().sample_age.as_secs())]
    pub max_sample_age_seconds: u64,
    /// The newest sample that is taken, in seconds after now.
    #[arg(long, env = "UNDERSTUDY_MAX_SAMPLE_AHEAD_SECONDS", default_value_t = Limits::default().sample_ahead.as_secs())]
    pub max_sample_ahead_seconds: u64,
    /// How long Kafka may take to confirm a request, in milliseconds.
    #[arg(long, env = "UNDERSTUDY_PRODUCE_TIMEOUT_MS", default_value_t = 10_000)]
    pub produce_timeout_ms: u64,
    /// The most connections at once.
    #[arg(long, env = "UNDERSTUDY_MAX_CONNECTIONS", default_value_t = Limits::default().connections)]
    pub max_connections: usize,
    /// Samples per second that each tenant may send; 0 = no limit.
    #[arg(long, env = "UNDERSTUDY_TENANT_SAMPLES_PER_SECOND", default_value_t = 0)]
    pub tenant_samples_per_second: u32,
    /// How long requests are still taken after the signal to stop, in milliseconds: until nobody sends here any more.
    #[arg(long, env = "UNDERSTUDY_DRAIN_MS", default_value_t = 5_000)]
    pub drain_ms: u64,
    /// Which log lines are written.
    #[arg(long, env = "UNDERSTUDY_LOG", default_value = "info")]
    pub log: String,
}

impl Config {
    /// The limits it describes.
    pub fn limits(&self) -> Limits {
        Limits {
            compressed_bytes: self.max_compressed_bytes,
            decompressed_bytes: self.max_decompressed_bytes,
            inflight_bytes: self.max_inflight_bytes,
            series: self.max_series,
            samples: self.max_samples,
            sample_age: Duration::from_secs(self.max_sample_age_seconds),
            sample_ahead: Duration::from_secs(self.max_sample_ahead_seconds),
            produce_timeout: Duration::from_millis(self.produce_timeout_ms),
            connections: self.max_connections,
            tenant_samples_per_second: (self.tenant_samples_per_second > 0).then_some(self.tenant_samples_per_second),
            ..Limits::default()
        }
    }
}
