//! What the process is told, by environment or flags.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use understudy_store::matcher::COMPILED_BYTES;

use crate::budget::samples_within;
use crate::limits::Limits;

/// Reads the time-series store: Prometheus remote read, series and labels.
#[derive(Clone, Debug, Parser)]
#[command(name = "understudy-query", version)]
pub struct Config {
    /// Where requests come in.
    #[arg(long, env = "UNDERSTUDY_LISTEN", default_value = "0.0.0.0:8090")]
    pub listen: SocketAddr,
    /// Where /livez, /readyz and /metrics are.
    #[arg(long, env = "UNDERSTUDY_ADMIN_LISTEN", default_value = "0.0.0.0:8091")]
    pub admin_listen: SocketAddr,
    /// Namespace of the Datastore.
    #[arg(long, env = "UNDERSTUDY_NAMESPACE")]
    pub namespace: String,
    /// The Datastore whose shards are read.
    #[arg(long, env = "UNDERSTUDY_DATASTORE")]
    pub datastore: String,
    /// The topic that feeds them.
    #[arg(long, env = "UNDERSTUDY_TOPIC")]
    pub topic: String,
    /// How many partitions of it samples are spread over.
    #[arg(long, env = "UNDERSTUDY_PARTITIONS", value_parser = clap::value_parser!(u32).range(1..))]
    pub partitions: u32,
    /// The name under which the store's consumer keeps its offsets.
    #[arg(long, env = "UNDERSTUDY_CONSUMER")]
    pub consumer: String,
    /// A directory with one file per token: its name is the token's id, its content `<tenant> sha256:<hex>`.
    #[arg(long, env = "UNDERSTUDY_TOKENS_DIR")]
    pub tokens_dir: PathBuf,
    /// A directory of `SHARD/understudy_reader` password files.
    #[arg(long, env = "UNDERSTUDY_CREDENTIALS_DIR")]
    pub credentials_dir: PathBuf,
    /// A directory with `ca.crt`, the authority that signed the servers' certificates.
    #[arg(long, env = "UNDERSTUDY_TLS_DIR")]
    pub tls_dir: PathBuf,
    /// The most series that a request may find.
    #[arg(long, env = "UNDERSTUDY_MAX_SERIES", default_value_t = Limits::default().series)]
    pub max_series: usize,
    /// The most samples that a request may find.
    #[arg(long, env = "UNDERSTUDY_MAX_SAMPLES", default_value_t = Limits::default().samples)]
    pub max_samples: usize,
    /// The largest answer before it is packed, in bytes.
    #[arg(long, env = "UNDERSTUDY_MAX_ANSWER_BYTES", default_value_t = Limits::default().answer_bytes)]
    pub max_answer_bytes: usize,
    /// The memory in bytes that patterns, series and samples of all requests together may take, and answers until they are
    /// sent.
    #[arg(long, env = "UNDERSTUDY_MAX_MEMORY_BYTES", default_value_t = Limits::default().memory_bytes)]
    pub max_memory_bytes: usize,
    /// Requests of one tenant at once, until their answers are sent.
    #[arg(long, env = "UNDERSTUDY_MAX_TENANT_REQUESTS", default_value_t = Limits::default().tenant_requests)]
    pub max_tenant_requests: usize,
    /// How long a server may take to say where it stands, in milliseconds.
    #[arg(long, env = "UNDERSTUDY_BEGIN_TIMEOUT_MS", default_value_t = 500)]
    pub begin_timeout_ms: u64,
    /// How long a statement may run, in milliseconds.
    #[arg(long, env = "UNDERSTUDY_STATEMENT_TIMEOUT_MS", default_value_t = 10_000)]
    pub statement_timeout_ms: u64,
    /// How far behind a standby may be that answers in place of its primary, in seconds.
    #[arg(long, env = "UNDERSTUDY_STANDBY_BEHIND_SECONDS", default_value_t = Limits::default().standby_behind.as_secs())]
    pub standby_behind_seconds: u64,
    /// How long requests are still taken after the signal to stop, in milliseconds: until nobody asks here any more.
    #[arg(long, env = "UNDERSTUDY_DRAIN_MS", default_value_t = 5_000)]
    pub drain_ms: u64,
    /// Which log lines are written.
    #[arg(long, env = "UNDERSTUDY_LOG", default_value = "info")]
    pub log: String,
}

impl Config {
    /// The limits it describes.
    pub fn limits(&self) -> Limits {
        let statement = Duration::from_millis(self.statement_timeout_ms);
        let limits = Limits::default();
        Limits {
            // The other half is for what they find.
            patterns: limits.patterns.min(self.max_memory_bytes / 2 / COMPILED_BYTES),
            series: self.max_series,
            // A request that does not fit when it is alone is too large, and not one to come again.
            samples: self.max_samples.min(samples_within(self.max_memory_bytes)),
            answer_bytes: self.max_answer_bytes,
            memory_bytes: self.max_memory_bytes,
            tenant_requests: self.max_tenant_requests,
            begin: Duration::from_millis(self.begin_timeout_ms),
            statement,
            run: statement + Duration::from_secs(2),
            request: statement + Duration::from_secs(5),
            standby_behind: Duration::from_secs(self.standby_behind_seconds),
            ..limits
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Config::command().debug_assert();
    }

    #[test]
    fn a_request_may_have_no_more_patterns_and_find_no_more_samples_than_there_is_memory_for() {
        let most = |bytes: usize| {
            let memory = format!("--max-memory-bytes={bytes}");
            let needed = ["--namespace=n", "--datastore=d", "--topic=t", "--partitions=1", "--consumer=c"];
            let dirs = ["--tokens-dir=/t", "--credentials-dir=/c", "--tls-dir=/l", &memory];
            let limits = Config::parse_from(["query"].iter().chain(&needed).chain(&dirs)).limits();
            (limits.samples, limits.patterns)
        };
        assert_eq!(most(512 << 20), (2_000_000, 16));
        assert_eq!(most(112 << 20), (1 << 20, 14));
    }
}
