//! What the operator counts about itself, and what it tells of each shard ([`shards`]), Datastore ([`datastores`]) and Drill ([`drills`]). Pure,
//! but for the counters.
//!
//! Names are contracts: `operator/docs/metrics.md` lists them.

pub mod datastores;
pub mod drills;
pub mod shards;
#[cfg(test)]
mod tests;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use self::datastores::Datastores;
use self::drills::Drills;
use self::shards::Shards;

/// A kind, from a closed set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfKind {
    /// Its name.
    pub kind: &'static str,
}

/// The outcome of a pass over an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Outcome {
    /// The object's kind.
    pub kind: &'static str,
    /// `ok`, or the step that failed.
    pub outcome: &'static str,
}

/// A step of the timeline of a change of primary.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfStage {
    /// `Failover`, `Switchover` or `Drill`.
    pub kind: &'static str,
    /// The step, as the record has it.
    pub stage: &'static str,
}

/// A request to the API server that writes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Write {
    /// The kind written.
    pub kind: String,
    /// `apply`, `status`, `create`, `delete`.
    pub verb: &'static str,
}

/// The operator's metrics.
pub struct Metrics {
    registry: Registry,
    /// Passes over objects.
    pub reconciles: Family<Outcome, Counter>,
    /// How long they took.
    pub reconcile_seconds: Family<OfKind, Histogram>,
    /// Writes to the API server.
    pub writes: Family<Write, Counter>,
    /// Versions of objects that did not parse.
    pub malformed: Family<OfKind, Counter>,
    /// 1 while this instance acts.
    pub leading: Gauge,
    /// Seconds from the first step of a change of primary to each of its steps, once it is over.
    pub failover_stages: Family<OfStage, Histogram>,
    /// Write gaps, seconds.
    pub write_gaps: Family<OfKind, Histogram>,
    /// Seconds from the loss of a primary until the shard had all its copies again.
    pub rebuilds: Histogram,
    /// What is told of each shard.
    pub shards: Shards,
    /// What is told of each Datastore.
    pub datastores: Datastores,
    /// What is told of each Drill.
    pub drills: Drills,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("understudy_operator");
        let metrics = (
            Family::<Outcome, Counter>::default(),
            Family::<OfKind, Histogram>::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 14))),
            Family::<Write, Counter>::default(),
            Family::<OfKind, Counter>::default(),
            Gauge::default(),
        );
        registry.register("reconciles", "Passes over objects by outcome", metrics.0.clone());
        registry.register("reconcile_seconds", "Duration of passes over objects", metrics.1.clone());
        registry.register("api_writes", "Writing requests to the API server", metrics.2.clone());
        registry.register("malformed_objects", "Versions of objects that did not parse", metrics.3.clone());
        registry.register("leading", "1 while this instance acts", metrics.4.clone());
        let changes = (
            Family::<OfStage, Histogram>::new_with_constructor(|| Histogram::new(exponential_buckets(0.05, 2.0, 16))),
            Family::<OfKind, Histogram>::new_with_constructor(|| Histogram::new(exponential_buckets(0.05, 2.0, 14))),
            Histogram::new(exponential_buckets(1.0, 2.0, 15)),
        );
        let stages = "Time from the first step of a change of primary to each of its steps";
        registry.register("failover_stage_seconds", stages, changes.0.clone());
        registry.register(
            "failover_write_gap_seconds",
            "Time without a commit at a change of primary",
            changes.1.clone(),
        );
        let rebuilds = "Time from the loss of a primary until the shard had all its copies again";
        registry.register("rebuild_seconds", rebuilds, changes.2.clone());
        let shards = Shards::default();
        let datastores = Datastores::default();
        let leading = &metrics.4;
        let of_shards = shards::Telling { shards: shards.clone(), leading: leading.clone() };
        registry.register_collector(Box::new(of_shards));
        let of_datastores = datastores::Telling { datastores: datastores.clone(), leading: leading.clone() };
        registry.register_collector(Box::new(of_datastores));
        let drills = Drills::default();
        registry.register_collector(Box::new(drills::Telling { drills: drills.clone(), leading: leading.clone() }));
        Self {
            registry,
            reconciles: metrics.0,
            reconcile_seconds: metrics.1,
            writes: metrics.2,
            malformed: metrics.3,
            leading: metrics.4,
            failover_stages: changes.0,
            write_gaps: changes.1,
            rebuilds: changes.2,
            shards,
            datastores,
            drills,
        }
    }
}

impl Metrics {
    /// Everything in OpenMetrics' text form.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}
