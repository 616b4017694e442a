//! What one request, one connection and all of them together may cost. Pure.

use std::time::Duration;

use understudy_model::rules::LabelRules;

/// All limits of the gateway. Sizes in bytes.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The largest compressed body.
    pub compressed_bytes: usize,
    /// The largest body once decompressed, as it declares itself.
    pub decompressed_bytes: usize,
    /// The memory that all requests together may hold.
    pub inflight_bytes: usize,
    /// The most series in a request.
    pub series: usize,
    /// The most samples in a request.
    pub samples: usize,
    /// What a label set must satisfy.
    pub labels: LabelRules,
    /// How old a sample may be.
    pub sample_age: Duration,
    /// How far in the future a sample may be.
    pub sample_ahead: Duration,
    /// How long a client may take for its headers; also how long an idle connection is kept.
    pub header_timeout: Duration,
    /// How long a client may take for its whole body.
    pub body_timeout: Duration,
    /// How long a client may pause within its body.
    pub body_idle_timeout: Duration,
    /// How long a request may wait for its turn to be decoded.
    pub turn_timeout: Duration,
    /// How long Kafka may take to confirm all records of a request.
    pub produce_timeout: Duration,
    /// The most connections at once.
    pub connections: usize,
    /// Samples per second of one tenant; `None` = no limit.
    pub tenant_samples_per_second: Option<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            compressed_bytes: 4 << 20,
            decompressed_bytes: 32 << 20,
            inflight_bytes: 128 << 20,
            series: 1 << 16,
            samples: 1 << 18,
            labels: LabelRules::default(),
            sample_age: Duration::from_secs(31 * 24 * 3600),
            sample_ahead: Duration::from_secs(24 * 3600),
            header_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(15),
            body_idle_timeout: Duration::from_secs(5),
            turn_timeout: Duration::from_secs(5),
            produce_timeout: Duration::from_secs(10),
            connections: 4096,
            tenant_samples_per_second: None,
        }
    }
}
