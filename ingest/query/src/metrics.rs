//! What the service counts. Names begin with `understudy_query_`.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use understudy_http::metrics::text;

use crate::work::Role;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AnsweredLabels {
    endpoint: &'static str,
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EndpointLabel {
    endpoint: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RoleLabel {
    role: &'static str,
}

/// All counters; clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    requests: Family<AnsweredLabels, Counter>,
    seconds: Family<EndpointLabel, Histogram>,
    answers: Family<RoleLabel, Counter>,
    refused_epochs: Counter,
    samples: Counter,
    merged: Counter,
    /// Shards without an answer, of requests that allow it.
    pub missing_shards: Counter,
    /// Open connections.
    pub connections: Gauge,
    /// Whether the shards are known: 1 or 0.
    pub topology_known: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("understudy_query");
        let seconds = Family::<EndpointLabel, Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.001, 2.0, 15))
        });
        let metrics = Self {
            registry: Arc::default(),
            requests: Family::default(),
            seconds,
            answers: Family::default(),
            refused_epochs: Counter::default(),
            samples: Counter::default(),
            merged: Counter::default(),
            missing_shards: Counter::default(),
            connections: Gauge::default(),
            topology_known: Gauge::default(),
        };
        registry.register("requests", "Requests by endpoint and status", metrics.requests.clone());
        registry.register("request_seconds", "Time from headers to answer", metrics.seconds.clone());
        registry.register("shard_answers", "Answers of shards, by the role of the server", metrics.answers.clone());
        let help = "Servers that were not asked because their epoch was over";
        registry.register("refused_epochs", help, metrics.refused_epochs.clone());
        registry.register("samples", "Samples given", metrics.samples.clone());
        registry.register("merged_samples", "Samples left out because another one was given", metrics.merged.clone());
        let help = "Shards that partial answers lacked";
        registry.register("missing_shards", help, metrics.missing_shards.clone());
        registry.register("connections", "Open connections", metrics.connections.clone());
        registry.register("topology_known", "Whether the shards are known", metrics.topology_known.clone());
        Self { registry: Arc::new(registry), ..metrics }
    }
}

impl Metrics {
    /// A request was answered.
    pub fn answered(&self, endpoint: &'static str, code: u16, took: Duration) {
        self.requests.get_or_create(&AnsweredLabels { endpoint, code }).inc();
        self.seconds.get_or_create(&EndpointLabel { endpoint }).observe(took.as_secs_f64());
    }

    /// A server answered in the name of a shard.
    pub fn answered_by(&self, role: Role) {
        self.answers.get_or_create(&RoleLabel { role: role.as_str() }).inc();
    }

    /// A server stood under an epoch that is over.
    pub fn refused_epoch(&self) {
        self.refused_epochs.inc();
    }

    /// Samples were given.
    pub fn gave(&self, samples: usize, merged: u64) {
        self.samples.inc_by(samples as u64);
        self.merged.inc_by(merged);
    }

    /// In OpenMetrics text.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        text(&self.registry)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_docs_list_each_metric_and_no_other() {
        let metrics = Metrics::default();
        // A family without members is not told.
        metrics.answered("read", 200, Duration::from_millis(1));
        metrics.answered_by(Role::Primary);
        let text = metrics.text().unwrap();
        let told: BTreeSet<String> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
            .map(|(name, kind)| if kind == "counter" { format!("{name}_total") } else { name.to_owned() })
            .collect();
        let docs = include_str!("../../docs/query.md");
        let rows = docs.lines().filter_map(|line| line.strip_prefix("| `understudy_query_")?.split_once('`'));
        let listed: BTreeSet<String> = rows.map(|(name, _)| format!("understudy_query_{name}")).collect();
        assert_eq!(listed, told);
    }
}
