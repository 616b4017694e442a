//! What the operator tells a consumer's pod, by environment. Pure, but for reading it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use understudy_kafka::Connection;
use understudy_link::names;
use understudy_sql::{Login, Tls};
use understudy_wire::ShardName;

use crate::batch::Limits;
use crate::lanes::Start;

/// The account that consumers use.
const ACCOUNT: &str = understudy_wire::account::CONSUMER;

/// Settings of a consumer's pod.
#[derive(Clone, Debug, Parser)]
#[command(version, about = "Reads partitions of a topic into one shard, exactly once")]
pub struct Settings {
    /// Name of this pod.
    #[arg(long, env = "POD_NAME")]
    pub pod: String,
    /// Namespace of the Consumer.
    #[arg(long, env = "UNDERSTUDY_NAMESPACE")]
    pub namespace: String,
    /// Name of the Consumer.
    #[arg(long, env = "UNDERSTUDY_CONSUMER")]
    pub consumer: String,
    /// The name that offsets are stored under.
    #[arg(long, env = "UNDERSTUDY_GROUP")]
    pub group: String,
    /// The shard to feed.
    #[arg(long, env = "UNDERSTUDY_SHARD")]
    pub shard: String,
    /// The Datastore whose placements say what feeds the shard.
    #[arg(long, env = "UNDERSTUDY_DATASTORE", conflicts_with = "shards")]
    pub datastore: Option<String>,
    /// Without a Datastore: all shards of the Consumer, in order.
    #[arg(long, env = "UNDERSTUDY_SHARDS", value_delimiter = ',')]
    pub shards: Vec<String>,
    /// Brokers.
    #[arg(long, env = "UNDERSTUDY_KAFKA_BOOTSTRAP")]
    pub kafka_bootstrap: String,
    /// The topic.
    #[arg(long, env = "UNDERSTUDY_TOPIC")]
    pub topic: String,
    /// Whether the topic is written by transactions, so that offsets may be missing.
    #[arg(long, env = "UNDERSTUDY_ACCEPT_GAPS", default_value_t = false, action = clap::ArgAction::Set)]
    pub accept_gaps: bool,
    /// Where a partition begins of which nothing is stored: where the placement says, or at the earliest record that is there.
    #[arg(long, env = "UNDERSTUDY_START", value_enum, default_value_t)]
    pub start: StartAt,
    /// Most records in a transaction.
    #[arg(long, env = "UNDERSTUDY_BATCH_MAX_RECORDS", default_value_t = 500)]
    pub batch_max_records: usize,
    /// Most bytes in a transaction, with those that its records take in memory once they are understood.
    #[arg(long, env = "UNDERSTUDY_BATCH_MAX_BYTES", default_value_t = 4 << 20)]
    pub batch_max_bytes: usize,
    /// Longest time from the first record of a transaction to its commit.
    #[arg(long, env = "UNDERSTUDY_BATCH_MAX_DELAY_MS", default_value_t = 200)]
    pub batch_max_delay_ms: u64,
    /// Most rows that the view should have to write in a transaction.
    #[arg(long, env = "UNDERSTUDY_BATCH_MAX_ROWS", default_value_t = 20_000)]
    pub batch_max_rows: usize,
    /// Own, but do not read.
    #[arg(long, env = "UNDERSTUDY_PAUSED", default_value_t = false, action = clap::ArgAction::Set)]
    pub paused: bool,
    /// Partitions that are not read, with commas between them.
    #[arg(long, env = "UNDERSTUDY_PAUSED_PARTITIONS", default_value = "")]
    pub paused_partitions: String,
    /// Directory of `SHARD/ACCOUNT` password files.
    #[arg(long, env = "UNDERSTUDY_CREDENTIALS_DIR")]
    pub credentials_dir: PathBuf,
    /// Directory of `ca.crt`, `tls.crt`, `tls.key`.
    #[arg(long, env = "UNDERSTUDY_TLS_DIR")]
    pub tls_dir: PathBuf,
    /// Where evidence is served, over mutual TLS.
    #[arg(long, env = "UNDERSTUDY_EVIDENCE_LISTEN", default_value = "0.0.0.0:8450")]
    pub evidence_listen: SocketAddr,
    /// Where liveness, readiness and metrics are served.
    #[arg(long, env = "UNDERSTUDY_ADMIN_LISTEN", default_value = "0.0.0.0:8451")]
    pub admin_listen: SocketAddr,
    /// The MySQL schema of the view.
    #[arg(long, env = "UNDERSTUDY_SCHEMA", default_value = "store")]
    pub schema: String,
    /// Log filter.
    #[arg(long, env = "UNDERSTUDY_LOG", default_value = "info")]
    pub log: String,
}

/// The words of `UNDERSTUDY_START`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum StartAt {
    /// Where the placement says; if the topic does not go back so far, the partition waits for a person.
    #[default]
    Placement,
    /// At the earliest record that is there.
    Earliest,
}

impl From<StartAt> for Start {
    fn from(start: StartAt) -> Self {
        match start {
            StartAt::Placement => Self::Placement,
            StartAt::Earliest => Self::Earliest,
        }
    }
}

/// A setting that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("UNDERSTUDY_PAUSED_PARTITIONS: {0:?} is no partition's number")]
pub struct PartitionError(String);

impl Settings {
    /// How much goes into a transaction.
    pub fn limits(&self) -> Limits {
        Limits {
            records: self.batch_max_records.max(1),
            bytes: self.batch_max_bytes.max(1),
            weight: self.batch_max_rows.max(1),
            delay: Duration::from_millis(self.batch_max_delay_ms),
        }
    }

    /// Partitions that are not read.
    pub fn paused_partitions(&self) -> Result<Vec<i32>, PartitionError> {
        let words = self.paused_partitions.split(',').map(str::trim).filter(|word| !word.is_empty());
        words.map(|word| word.parse().map_err(|_| PartitionError(word.to_owned()))).collect()
    }

    /// The cluster, as the client named so.
    pub fn kafka(&self) -> Connection {
        Connection::new(&self.kafka_bootstrap, &self.pod)
    }

    /// Reads the shard's password.
    pub fn login(&self) -> Result<Login, String> {
        let path = self.credentials_dir.join(&self.shard).join(ACCOUNT);
        let password =
            std::fs::read_to_string(&path).map_err(|e| format!("{} could not be read: {e}", path.display()))?;
        let name = names::shard(&ShardName::new(&self.shard));
        let tls = Tls { ca: self.tls_dir.join("ca.crt"), name };
        Ok(Login { user: ACCOUNT.to_owned(), password: password.trim_end().to_owned(), tls: Some(tls) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(extra: &[&str]) -> Settings {
        let base = [
            "consumer",
            "--pod=p",
            "--namespace=n",
            "--consumer=c",
            "--group=g",
            "--shard=s",
            "--kafka-bootstrap=k:9092",
            "--topic=t",
            "--credentials-dir=/c",
            "--tls-dir=/t",
        ];
        Settings::try_parse_from(base.iter().chain(extra)).unwrap()
    }

    #[test]
    fn paused_partitions_may_be_none_or_some() {
        assert_eq!(settings(&[]).paused_partitions(), Ok(vec![]));
        assert_eq!(settings(&["--paused-partitions=1, 2,"]).paused_partitions(), Ok(vec![1, 2]));
        assert_eq!(settings(&["--paused-partitions=one"]).paused_partitions(), Err(PartitionError("one".to_owned())));
    }

    #[test]
    fn what_the_operator_leaves_out_has_a_default() {
        let settings = settings(&["--paused=true", "--shards=a,b"]);
        assert!(settings.paused);
        assert_eq!(settings.start, StartAt::Placement);
        assert_eq!(settings.shards, ["a", "b"]);
        assert_eq!(settings.limits(), Limits::default());
    }

    #[test]
    fn where_a_partition_begins_is_said_in_the_words_of_the_spec() {
        assert_eq!(settings(&["--start=Earliest"]).start, StartAt::Earliest);
    }

    #[test]
    fn a_password_that_is_not_there_is_said_so() {
        assert!(settings(&[]).login().unwrap_err().starts_with("/c/s/understudy_consumer could not be read"));
    }
}
