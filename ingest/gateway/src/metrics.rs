//! What the gateway counts. Names are contracts: `ingest/docs/data-path.md` lists them.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use understudy_http::metrics::text;

use crate::write::Outcome;

/// The label of request counters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    outcome: &'static str,
}

/// The label of counters by tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TenantLabel {
    tenant: String,
}

/// The label of counters by tenant and reason.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RejectedLabel {
    tenant: String,
    reason: &'static str,
}

/// The label of what is accepted and not kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabel {
    kind: &'static str,
}

/// All metrics of the gateway. Clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    requests: Family<OutcomeLabel, Counter>,
    request_seconds: Histogram,
    produce_seconds: Histogram,
    samples: Family<TenantLabel, Counter>,
    rejected: Family<RejectedLabel, Counter>,
    ignored: Family<KindLabel, Counter>,
    /// Memory that requests hold.
    pub inflight_bytes: Gauge,
    /// Open connections.
    pub connections: Gauge,
    /// Whether Kafka answered lately: 1 or 0.
    pub kafka_reachable: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 15));
        let mut registry = Registry::with_prefix("understudy_gateway");
        let (request_seconds, produce_seconds) = (seconds(), seconds());
        let requests = Family::default();
        let samples = Family::default();
        let rejected = Family::default();
        let ignored = Family::default();
        let inflight_bytes = Gauge::default();
        let connections = Gauge::default();
        let kafka_reachable = Gauge::default();
        registry.register("requests", "Write requests by how they were answered", Family::clone(&requests));
        registry.register("request_seconds", "Time from headers to answer", request_seconds.clone());
        registry.register("produce_seconds", "Time until Kafka confirmed a request", produce_seconds.clone());
        registry.register("samples", "Samples that Kafka confirmed", Family::clone(&samples));
        registry.register("rejected_samples", "Samples refused, by reason", Family::clone(&rejected));
        registry.register("ignored", "Parts of requests that are accepted and not kept", Family::clone(&ignored));
        registry.register("inflight_bytes", "Memory set aside for requests", inflight_bytes.clone());
        registry.register("connections", "Open connections", connections.clone());
        registry.register("kafka_reachable", "Whether Kafka answered lately", kafka_reachable.clone());
        Self {
            registry: Arc::new(registry),
            requests,
            request_seconds,
            produce_seconds,
            samples,
            rejected,
            ignored,
            inflight_bytes,
            connections,
            kafka_reachable,
        }
    }
}

impl Metrics {
    /// A request was answered.
    pub fn answered(&self, outcome: &Outcome, seconds: f64) {
        self.requests.get_or_create(&OutcomeLabel { outcome: outcome.label() }).inc();
        self.request_seconds.observe(seconds);
    }

    /// Kafka confirmed the samples of a request.
    pub fn stored(&self, tenant: &str, samples: u64, seconds: f64) {
        self.samples.get_or_create(&TenantLabel { tenant: tenant.to_owned() }).inc_by(samples);
        self.produce_seconds.observe(seconds);
    }

    /// Samples were refused.
    pub fn rejected(&self, tenant: &str, reason: &'static str, count: u64) {
        self.rejected.get_or_create(&RejectedLabel { tenant: tenant.to_owned(), reason }).inc_by(count);
    }

    /// Something was accepted and not kept.
    pub fn ignored(&self, kind: &'static str, count: u64) {
        if count > 0 {
            self.ignored.get_or_create(&KindLabel { kind }).inc_by(count);
        }
    }

    /// In OpenMetrics text.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        text(&self.registry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alerts_are_about_metrics_that_there_are() {
        let text = Metrics::default().text().unwrap();
        let of_operator = include_str!("../../../operator/docs/metrics.md");
        let rules = include_str!("../../docs/alerts/gateway.yaml");
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let named: Vec<_> = rules.split(|c| !word(c)).filter(|name| name.starts_with("understudy_")).collect();
        assert!(named.len() >= 3, "{named:?}");
        for name in named {
            let is_told = text.contains(&format!("\n{name} ")) || of_operator.contains(&format!("| `{name}` |"));
            assert!(is_told, "{name}: {text}");
        }
    }
}
