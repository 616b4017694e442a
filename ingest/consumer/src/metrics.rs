//! What a consumer counts. Names are contracts: `ingest/docs/consumer.md` lists them.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use understudy_http::metrics::text;

use crate::status::{PartitionState, Snapshot};

/// The label of what is counted by partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PartitionLabel {
    partition: i32,
}

/// The labels of a partition that cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FaultLabel {
    partition: i32,
    fault: &'static str,
}

/// The label of what is counted by reason.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    reason: &'static str,
}

/// The label of what is timed by stage.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StageLabel {
    stage: &'static str,
}

/// All metrics of a consumer. Clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    records: Counter,
    bytes: Counter,
    batches: Counter,
    /// Transactions with nothing in them but the beat.
    pub canaries: Counter,
    /// From START TRANSACTION to the answer to COMMIT.
    pub commit_seconds: Histogram,
    takeover_seconds: Family<StageLabel, Histogram>,
    dead_letters: Family<ReasonLabel, Counter>,
    /// Transactions that found another epoch or owner.
    pub fenced: Counter,
    /// Times that the log was read again from what was stored.
    pub rewinds: Counter,
    /// Steps that the primary did not answer, or answered with an error.
    pub failures: Counter,
    /// Connections that were opened.
    pub connections: Counter,
    /// Times that the route was another.
    pub routes: Counter,
    /// Times that a batch could not be stored although the server was well.
    pub holds: Counter,
    /// Times that a partition was found unable to go on.
    pub faults: Counter,
    active: Gauge,
    epoch: Gauge,
    stuck: Gauge,
    faulty: Family<FaultLabel, Gauge>,
    lag_records: Family<PartitionLabel, Gauge>,
    lag_seconds: Family<PartitionLabel, Gauge<f64, AtomicU64>>,
    next_offset: Family<PartitionLabel, Gauge>,
    put_aside: Family<PartitionLabel, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("understudy_consumer");
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let records = counter("records", "Records stored, those put aside included");
        let bytes = counter("bytes", "Bytes of records stored");
        let batches = counter("batches", "Transactions that stored records");
        let canaries = counter("canaries", "Transactions that stored nothing but the beat");
        let fenced = counter("fenced", "Transactions that found another epoch or owner");
        let rewinds = counter("rewinds", "Times that the topic was read again from what was stored");
        let failures = counter("failures", "Steps that the primary did not carry out");
        let connections = counter("connections", "Connections opened to a primary");
        let routes = counter("routes", "Changes of the route to the primary");
        let holds = counter("holds", "Times that a batch could not be stored by a primary that is well");
        let faults = counter("faults", "Times that a partition was found unable to go on");
        let commit_seconds = Histogram::new(exponential_buckets(0.001, 2.0, 13));
        registry.register("commit_seconds", "Time of a committed transaction", commit_seconds.clone());
        let takeover_seconds = Family::<StageLabel, Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.005, 2.0, 14))
        });
        let help = "Time from a route to each stage of what was committed first under it";
        registry.register("takeover_seconds", help, takeover_seconds.clone());
        let dead_letters = Family::default();
        registry.register("dead_letters", "Records, or parts of them, put aside", Family::clone(&dead_letters));
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let active = gauge("active", "Whether this pod is the one that stores records: 1 or 0");
        let epoch = gauge("epoch", "Epoch of the route that is followed");
        let stuck = gauge("stuck_partitions", "Partitions that cannot go on");
        let lag_records = Family::<PartitionLabel, Gauge>::default();
        registry.register("lag_records", "Records of the topic not yet stored", lag_records.clone());
        let lag_seconds = Family::<PartitionLabel, Gauge<f64, AtomicU64>>::default();
        let help = "Age of the oldest record not yet stored; absent while it is not known";
        registry.register("lag_seconds", help, lag_seconds.clone());
        let faulty = Family::<FaultLabel, Gauge>::default();
        registry.register("partition_fault", "1 for each partition that cannot go on, and why", faulty.clone());
        let put_aside = Family::<PartitionLabel, Gauge>::default();
        let help = "Records, or parts of them, put aside since the shard was made";
        registry.register("partition_dead_letters", help, put_aside.clone());
        let next_offset = Family::<PartitionLabel, Gauge>::default();
        registry.register("next_offset", "Offset of the next record to store", next_offset.clone());
        Self {
            registry: Arc::new(registry),
            records,
            bytes,
            batches,
            canaries,
            commit_seconds,
            takeover_seconds,
            dead_letters,
            fenced,
            rewinds,
            failures,
            connections,
            routes,
            holds,
            faults,
            active,
            epoch,
            stuck,
            faulty,
            lag_records,
            lag_seconds,
            next_offset,
            put_aside,
        }
    }
}

impl Metrics {
    /// A transaction with records is committed.
    pub fn stored(&self, records: usize, bytes: usize) {
        self.batches.inc();
        self.records.inc_by(records as u64);
        self.bytes.inc_by(bytes as u64);
    }

    /// A stage of a takeover was reached so long after the route was heard of.
    pub fn reached(&self, stage: &'static str, after: Duration) {
        self.takeover_seconds.get_or_create(&StageLabel { stage }).observe(after.as_secs_f64());
    }

    /// A record, or a part of one, is in the dead-letter topic.
    pub fn put_aside(&self, reason: &'static str) {
        self.dead_letters.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Takes over what is shown elsewhere.
    pub fn show(&self, snapshot: &Snapshot) {
        self.active.set(i64::from(snapshot.active));
        self.epoch.set(snapshot.epoch.map_or(0, |epoch| i64::try_from(epoch).unwrap_or(i64::MAX)));
        let stuck = snapshot.partitions.iter().filter(|p| p.state == PartitionState::Stuck).count();
        self.stuck.set(i64::try_from(stuck).unwrap_or(i64::MAX));
        self.faulty.clear();
        if !snapshot.active {
            // Whoever is active knows them; old numbers would contradict.
            self.lag_records.clear();
            self.lag_seconds.clear();
            self.next_offset.clear();
            self.put_aside.clear();
            return;
        }
        for partition in &snapshot.partitions {
            let label = PartitionLabel { partition: partition.partition };
            self.lag_records.get_or_create(&label).set(partition.lag_records);
            match partition.lag_seconds {
                Some(seconds) => {
                    self.lag_seconds.get_or_create(&label).set(seconds);
                }
                None => {
                    self.lag_seconds.remove(&label);
                }
            }
            self.next_offset.get_or_create(&label).set(partition.next_offset.unwrap_or(0));
            let put_aside = i64::try_from(partition.dead_letters).unwrap_or(i64::MAX);
            self.put_aside.get_or_create(&label).set(put_aside);
            if let Some(fault) = partition.fault {
                self.faulty.get_or_create(&FaultLabel { partition: partition.partition, fault }).set(1);
            }
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
    use crate::status::Partition;

    #[test]
    fn the_alerts_are_about_metrics_that_there_are() {
        let partition = Partition {
            partition: 3,
            state: PartitionState::Stuck,
            next_offset: Some(10),
            end: Some(12),
            lag_records: 2,
            lag_seconds: Some(1.5),
            complete_until_ms: 0,
            until: None,
            dead_letters: 4,
            fault: Some("replaced"),
            message: None,
        };
        let metrics = Metrics::default();
        metrics.show(&Snapshot { active: true, partitions: vec![partition.clone()], ..Snapshot::idle("a") });
        let text = metrics.text().unwrap();
        let rules = include_str!("../../docs/alerts/consumer.yaml");
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let named: Vec<_> = rules.split(|c| !word(c)).filter(|name| name.starts_with("understudy_consumer_")).collect();
        assert!(named.len() >= 3, "{named:?}");
        for name in named {
            let told = [format!("\n{name}{{"), format!("\n{name} ")];
            assert!(told.iter().any(|told| text.contains(told)), "{name}: {text}");
        }
        assert!(text.contains("understudy_consumer_lag_seconds{partition=\"3\"} 1.5"), "{text}");
        assert!(text.contains("understudy_consumer_partition_dead_letters{partition=\"3\"} 4"), "{text}");
        let unknown = Partition { lag_seconds: None, ..partition };
        metrics.show(&Snapshot { active: true, partitions: vec![unknown], ..Snapshot::idle("a") });
        let text = metrics.text().unwrap();
        assert!(!text.contains("understudy_consumer_lag_seconds{"), "what is not known any more is not told: {text}");
        metrics.show(&Snapshot::idle("a"));
        assert!(!metrics.text().unwrap().contains("partition=\"3\""), "whoever is active tells");
    }
}
