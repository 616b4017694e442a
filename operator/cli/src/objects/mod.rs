//! The custom resources as they are read: leniently, so that an older or newer operator's objects can be shown too. Pure.
//!
//! A field that is missing, or that is something else than expected, is one that nothing is known of. Words of closed sets are kept as
//! text, for there may be ones by now that this program does not know.

mod datastore;
mod drill;
mod facts;
mod failover;
mod lease;
mod shard;

use kube::api::DynamicObject;

pub use self::datastore::{Consumer, Datastore, Workload};
pub use self::drill::{Drill, Gap, LastRun};
use self::facts::Facts;
pub use self::failover::{Candidate, Failover, Offset, Step, Word};
pub use self::lease::Lease;
pub use self::shard::{
    Availability, Condition, LastFailover, LastSuspicion, Observer, Replica, ReplicaSummary, Shard, Transition,
    Verdict, Withheld, holds,
};

/// The kinds, with their names in addresses of the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One primary and its standbys.
    Shard,
    /// All shards of one store.
    Datastore,
    /// One server.
    Replica,
    /// What reads a topic into shards.
    Consumer,
    /// A change of primary.
    Failover,
    /// A rehearsal. Clusters with older definitions have none.
    Drill,
    /// What was said of an object: Kubernetes' own kind.
    Event,
    /// Which instance of the operator acts: Kubernetes' own kind.
    Lease,
}

impl Kind {
    /// As an object calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shard => "Shard",
            Self::Datastore => "Datastore",
            Self::Replica => "Replica",
            Self::Consumer => "Consumer",
            Self::Failover => "Failover",
            Self::Drill => "Drill",
            Self::Event => "Event",
            Self::Lease => "Lease",
        }
    }

    /// As an address has it.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Shard => "shards",
            Self::Datastore => "datastores",
            Self::Replica => "replicas",
            Self::Consumer => "consumers",
            Self::Failover => "failovers",
            Self::Drill => "drills",
            Self::Event => "events",
            Self::Lease => "leases",
        }
    }
}

/// What was said of an object, as Kubernetes keeps it for an hour.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// PascalCase and stable.
    pub reason: String,
    /// For a person.
    pub message: String,
    /// Whether it asks for a person's eyes.
    pub warning: bool,
    /// When it was said last.
    pub at: Option<jiff::Timestamp>,
    /// How often.
    pub count: i64,
}

impl Event {
    /// From an object of the kind.
    pub fn read(object: &DynamicObject) -> Self {
        let facts = Facts::of(object);
        let times = ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/firstTimestamp"];
        Self {
            reason: facts.text("/reason").unwrap_or_default(),
            message: facts.text("/message").unwrap_or_default(),
            warning: facts.text("/type").as_deref() == Some("Warning"),
            at: times.into_iter().filter_map(|pointer| facts.time(pointer)).max(),
            count: facts.count("/series/count").or_else(|| facts.count("/count")).unwrap_or(1).max(1),
        }
    }
}

#[cfg(test)]
mod tests;
