//! What is told of each shard, made anew for each scrape from what its stage said last. Pure, but for the lock.
//!
//! Only the instance that leads tells it, so that no shard is told of twice; a shard that is gone is not told of.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use strum::IntoEnumIterator;
use understudy_api::v1alpha1::{
    Availability, FailoverKind, FailoverMode, FailoverResult, TransitionKind, VerdictState,
};

/// What is told of one shard; `None` is not known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShardFacts {
    /// The Datastore that made it; empty for one made by hand.
    pub datastore: String,
    /// State of the primary.
    pub verdict: VerdictState,
    /// Since when, in seconds since 1970.
    pub verdict_since: Option<i64>,
    /// The highest epoch that was claimed.
    pub epoch: i64,
    /// Replicas asked for.
    pub desired: i32,
    /// Replicas that serve or replicate.
    pub ready: i32,
    /// Standbys that could take over now.
    pub promotable: i32,
    /// Seconds by which the best standby is behind.
    pub replication_delay: Option<f64>,
    /// Seconds by which the partition furthest behind is, of those somebody tells of and knows it of.
    pub consumer_delay: Option<f64>,
    /// Partitions that a Consumer's spec says not to read.
    pub paused_partitions: usize,
    /// Partitions that nobody tells of any more.
    pub silent_partitions: usize,
    /// Replicas whose volumes are nearly full.
    pub low_volumes: usize,
    /// `spec.paused`.
    pub paused: bool,
    /// `spec.failover.mode`.
    pub mode: FailoverMode,
    /// Reasons for not acting, and whether each holds.
    pub withheld: BTreeMap<&'static str, bool>,
    /// The last change of primary: its kind and when, in seconds since 1970.
    pub last_change: Option<(TransitionKind, i64)>,
    /// Its write gap, seconds.
    pub last_gap: Option<f64>,
    /// How old the newest word on the primary is of each kind of observer that is heard, seconds.
    pub evidence: BTreeMap<&'static str, f64>,
    /// How often this stage found a primary alive after it had claimed an epoch for another.
    pub near_misses: u32,
    /// How often this stage saw a suspicion end with a commit before an epoch was claimed.
    pub suspicions_cleared: u32,
    /// How often this stage began not to act, by reason.
    pub refusals: BTreeMap<&'static str, u32>,
    /// The last 30 days.
    pub availability: Option<Availability>,
}

/// A change of primary that ended, or was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// What kind of change.
    pub kind: FailoverKind,
    /// How it ended.
    pub result: FailoverResult,
    /// Why it was begun; empty when it was not.
    pub cause: String,
}

#[derive(Debug, Default)]
struct Told {
    facts: ShardFacts,
    ended: BTreeMap<(&'static str, &'static str), u32>,
    causes: BTreeMap<(&'static str, &'static str, String), u32>,
}

/// All shards that this instance has looked after.
#[derive(Clone, Debug, Default)]
pub struct Shards(Arc<Mutex<BTreeMap<(String, String), Told>>>);

impl Shards {
    fn all(&self) -> MutexGuard<'_, BTreeMap<(String, String), Told>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What holds of a shard now.
    pub fn tell(&self, namespace: &str, shard: &str, facts: ShardFacts) {
        self.all().entry((namespace.to_owned(), shard.to_owned())).or_default().facts = facts;
    }

    /// A change of primary has ended. One of a shard that is not told of is not counted.
    pub fn ended(&self, namespace: &str, shard: &str, ended: Ended) {
        let Ended { kind, result, cause } = ended;
        if let Some(told) = self.all().get_mut(&(namespace.to_owned(), shard.to_owned())) {
            *told.ended.entry((kind.into(), result.into())).or_default() += 1;
            *told.causes.entry((kind.into(), result.into(), cause)).or_default() += 1;
        }
    }

    /// A shard is gone.
    pub fn forget(&self, namespace: &str, shard: &str) {
        self.all().remove(&(namespace.to_owned(), shard.to_owned()));
    }
}

/// Labels beside those of the shard, and a value.
type Series<'a> = (Vec<(&'static str, &'a str)>, f64);

struct Row {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    of: fn(&Told) -> Vec<Series<'_>>,
}

/// One value without further labels, when it is known.
fn one(value: Option<impl Into<f64>>) -> Vec<Series<'static>> {
    value.map(|value| (Vec::new(), value.into())).into_iter().collect()
}

/// One series for each value that a label can have: 1 for the one that holds.
fn set(label: &'static str, all: impl Iterator<Item = (&'static str, bool)>) -> Vec<Series<'static>> {
    all.map(|(value, holds)| (vec![(label, value)], f64::from(u8::from(holds)))).collect()
}

#[allow(clippy::cast_precision_loss, reason = "counts, epochs and seconds are far below 2^52")]
fn number(number: i64) -> f64 {
    number as f64
}

fn count(count: usize) -> Vec<Series<'static>> {
    one(u32::try_from(count).ok())
}

/// One series for each value of a label that something is known of.
fn each(label: &'static str, all: &BTreeMap<&'static str, impl Into<f64> + Copy>) -> Vec<Series<'static>> {
    all.iter().map(|(value, number)| (vec![(label, *value)], (*number).into())).collect()
}

const ROWS: &[Row] = &[
    Row {
        name: "shard_verdict",
        help: "State of the primary: 1 for the one that holds",
        kind: MetricType::Gauge,
        of: |told| set("state", VerdictState::iter().map(|state| (state.into(), state == told.facts.verdict))),
    },
    Row {
        name: "shard_verdict_timestamp_seconds",
        help: "When the state of the primary or its cause changed last",
        kind: MetricType::Gauge,
        of: |told| one(told.facts.verdict_since.map(number)),
    },
    Row {
        name: "shard_epoch",
        help: "The highest epoch that was claimed; 0 before the first primary",
        kind: MetricType::Gauge,
        of: |told| one(Some(number(told.facts.epoch))),
    },
    Row {
        name: "shard_replicas_desired",
        help: "Replicas asked for, the primary included",
        kind: MetricType::Gauge,
        of: |told| one(Some(told.facts.desired)),
    },
    Row {
        name: "shard_replicas_ready",
        help: "Replicas that serve or replicate",
        kind: MetricType::Gauge,
        of: |told| one(Some(told.facts.ready)),
    },
    Row {
        name: "shard_promotable",
        help: "Standbys that could take over now",
        kind: MetricType::Gauge,
        of: |told| one(Some(told.facts.promotable)),
    },
    Row {
        name: "shard_replication_delay_seconds",
        help: "How far the best standby is behind the primary; absent while it is not known",
        kind: MetricType::Gauge,
        of: |told| one(told.facts.replication_delay),
    },
    Row {
        name: "shard_consumer_delay_seconds",
        help: "Age of the oldest record not yet stored, of the partition furthest behind; absent while nobody knows",
        kind: MetricType::Gauge,
        of: |told| one(told.facts.consumer_delay),
    },
    Row {
        name: "shard_paused_partitions",
        help: "Partitions that are not read because a Consumer's spec says so",
        kind: MetricType::Gauge,
        of: |told| count(told.facts.paused_partitions),
    },
    Row {
        name: "shard_silent_partitions",
        help: "Partitions of which no consumer's pod tells any more",
        kind: MetricType::Gauge,
        of: |told| count(told.facts.silent_partitions),
    },
    Row {
        name: "shard_low_volumes",
        help: "Replicas whose volumes are nearly full",
        kind: MetricType::Gauge,
        of: |told| count(told.facts.low_volumes),
    },
    Row {
        name: "shard_paused",
        help: "1 while spec.paused stops every action on the shard",
        kind: MetricType::Gauge,
        of: |told| one(Some(u8::from(told.facts.paused))),
    },
    Row {
        name: "shard_failover_mode",
        help: "Who may change the primary: 1 for the mode that holds",
        kind: MetricType::Gauge,
        of: |told| set("mode", FailoverMode::iter().map(|mode| (mode.into(), mode == told.facts.mode))),
    },
    Row {
        name: "shard_withheld",
        help: "1 for each reason, as the event of the same name gives it, for which something is not done now",
        kind: MetricType::Gauge,
        of: |told| set("reason", told.facts.withheld.iter().map(|(reason, holds)| (*reason, *holds))),
    },
    Row {
        name: "shard_last_failover_timestamp_seconds",
        help: "When the primary changed last, and by what kind of change",
        kind: MetricType::Gauge,
        of: |told| {
            told.facts.last_change.map(|(kind, at)| (vec![("kind", kind.into())], number(at))).into_iter().collect()
        },
    },
    Row {
        name: "shard_last_failover_write_gap_seconds",
        help: "Time without a commit at that change; absent when it was not seen",
        kind: MetricType::Gauge,
        of: |told| one(told.facts.last_gap),
    },
    Row {
        name: "shard_evidence_age_seconds",
        help: "How old the newest word on the primary is, by kind of observer; absent of one that is not heard",
        kind: MetricType::Gauge,
        of: |told| each("observer", &told.facts.evidence),
    },
    Row {
        name: "shard_unavailable_seconds",
        help: "Time in which no writes were taken, today and in the 30 days before",
        kind: MetricType::Gauge,
        of: |told| one(told.facts.availability.as_ref().map(|of| of.unavailable_seconds)),
    },
    Row {
        name: "shard_changes",
        help: "Changes of primary today and in the 30 days before, by kind",
        kind: MetricType::Gauge,
        of: |told| {
            let of = told.facts.availability.iter();
            let kinds =
                of.flat_map(|of| [("Failover", of.failovers), ("Switchover", of.switchovers), ("Drill", of.drills)]);
            kinds.map(|(kind, count)| (vec![("kind", kind)], f64::from(count))).collect()
        },
    },
    Row {
        name: "shard_mtbf_seconds",
        help: "Mean time between failovers over these days; absent without one",
        kind: MetricType::Gauge,
        of: |told| one(told.facts.availability.as_ref().and_then(|of| of.mtbf_seconds)),
    },
    Row {
        name: "shard_mttr_seconds",
        help: "Mean time without writes of a failover over these days; absent without one",
        kind: MetricType::Gauge,
        of: |told| one(told.facts.availability.as_ref().and_then(|of| of.mttr_seconds)),
    },
    Row {
        name: "shard_near_misses",
        help: "How often the primary turned out to live after an epoch was claimed for another",
        kind: MetricType::Counter,
        of: |told| one(Some(told.facts.near_misses)),
    },
    Row {
        name: "shard_suspicions_cleared",
        help: "How often a commit ended a suspicion of the primary before an epoch was claimed for another",
        kind: MetricType::Counter,
        of: |told| one(Some(told.facts.suspicions_cleared)),
    },
    Row {
        name: "shard_refusals",
        help: "How often the operator began not to act, by reason, as the event of the same name gives it",
        kind: MetricType::Counter,
        of: |told| each("reason", &told.facts.refusals),
    },
    Row {
        name: "shard_failover_causes",
        help: "The same changes by cause as well",
        kind: MetricType::Counter,
        of: |told| {
            let series = told.causes.iter().map(|((kind, result, cause), count)| {
                (vec![("kind", *kind), ("result", *result), ("cause", cause.as_str())], f64::from(*count))
            });
            series.collect()
        },
    },
    Row {
        name: "shard_failovers",
        help: "Changes of primary that have ended, and requests for one, by kind and result",
        kind: MetricType::Counter,
        of: |told| {
            let results =
                [FailoverResult::Succeeded, FailoverResult::Confirmed, FailoverResult::Refused, FailoverResult::Failed];
            let kinds = [FailoverKind::Failover, FailoverKind::Switchover];
            let all = kinds.into_iter().flat_map(|kind| results.map(|result| (kind.into(), result.into())));
            let series = all.map(|(kind, result): (&'static str, &'static str)| {
                let count = told.ended.get(&(kind, result)).copied().unwrap_or_default();
                (vec![("kind", kind), ("result", result)], f64::from(count))
            });
            series.collect()
        },
    },
];

/// Tells of the shards while this instance leads.
#[derive(Debug)]
pub(super) struct Telling {
    pub(super) shards: Shards,
    pub(super) leading: Gauge,
}

impl Collector for Telling {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if self.leading.get() == 0 {
            return Ok(());
        }
        let shards = self.shards.all();
        for row in ROWS {
            let mut metric = encoder.encode_descriptor(row.name, row.help, None, row.kind)?;
            for ((namespace, shard), told) in &*shards {
                for (more, value) in (row.of)(told) {
                    let datastore = told.facts.datastore.as_str();
                    let its = [("namespace", namespace.as_str()), ("datastore", datastore), ("shard", shard.as_str())];
                    let labels: Vec<_> = its.into_iter().chain(more).collect();
                    let series = metric.encode_family(&labels)?;
                    match row.kind {
                        MetricType::Counter => ConstCounter::new(value).encode(series)?,
                        _ => ConstGauge::new(value).encode(series)?,
                    }
                }
            }
        }
        Ok(())
    }
}
