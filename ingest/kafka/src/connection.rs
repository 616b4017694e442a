//! What every client of a cluster needs to know. Pure, but for the log lines of librdkafka.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::{ClientContext, consumer::ConsumerContext};

/// How to reach a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// `host:port`, several with commas.
    pub bootstrap: String,
    /// How the client names itself in the brokers' logs and metrics.
    pub client_id: String,
    /// Further librdkafka properties, for example timeouts. They are set first, so they cannot weaken a guarantee
    /// that this crate gives.
    pub properties: BTreeMap<String, String>,
}

impl Connection {
    /// A plain connection.
    pub fn new(bootstrap: impl Into<String>, client_id: impl Into<String>) -> Self {
        Self { bootstrap: bootstrap.into(), client_id: client_id.into(), properties: BTreeMap::new() }
    }

    /// A client configuration with what all clients share: brokers that vanish without a word are given up within
    /// seconds, because librdkafka's own defaults would wait for a minute.
    pub(crate) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("socket.timeout.ms", "4000")
            .set("socket.connection.setup.timeout.ms", "2000")
            .set("socket.keepalive.enable", "true")
            .set("socket.nagle.disable", "true")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            .set("topic.metadata.refresh.interval.ms", "10000")
            .set("topic.metadata.refresh.fast.interval.ms", "100")
            .set("log_level", "5");
        for (key, value) in &self.properties {
            config.set(key, value);
        }
        // A topic that a client made by asking for it would have neither the partitions nor the replicas it needs.
        config.set("allow.auto.create.topics", "false");
        config.set("bootstrap.servers", &self.bootstrap).set("client.id", &self.client_id);
        config.set_log_level(RDKafkaLogLevel::Notice);
        config
    }
}

/// Sends librdkafka's own log lines to `tracing`. They are context, not errors of ours: whoever made the call that
/// failed reports it, so nothing here is above `warn`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Logged;

impl ClientContext for Logged {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => tracing::warn!(facility, "librdkafka: {message}"),
            _ => tracing::debug!(facility, "librdkafka: {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, "librdkafka: {reason}");
    }
}

impl ConsumerContext for Logged {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_that_is_built_in_reads_whatever_a_producer_may_have_compressed_with() {
        let client = Connection::new("nowhere:1", "test").config().create_native_config().unwrap();
        let features = client.get("builtin.features").unwrap();
        let missing: Vec<_> =
            ["gzip", "snappy", "lz4", "zstd"].into_iter().filter(|codec| !features.contains(codec)).collect();
        assert!(missing.is_empty(), "{missing:?} of {features}");
    }
}
