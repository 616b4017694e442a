//! A Drill as read. Pure.

use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::DynamicObject;

use super::Facts;

/// A rehearsal.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Drill {
    /// Its name.
    pub name: String,
    /// The Datastore that it rehearses with, if it names one.
    pub datastore: Option<String>,
    /// Whose primaries are changed: a kind, and a name where one is given.
    pub scope: Option<String>,
    /// What is done to them.
    pub fault: Option<String>,
    /// When it runs by itself, as cron has it.
    pub schedule: Option<String>,
    /// Whether it begins nothing.
    pub suspended: bool,
    /// When a person asked for a run last.
    pub requested: Option<Timestamp>,
    /// The last run, or the one that goes on.
    pub last: Option<LastRun>,
    /// When it runs next.
    pub next: Option<Timestamp>,
    /// What is being done, or why nothing is.
    pub message: Option<String>,
}

/// The last run of a drill.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LastRun {
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it ended; unset while it has not.
    pub finished: Option<Timestamp>,
    /// How it ended.
    pub result: Option<String>,
    /// For a person.
    pub message: Option<String>,
    /// What each shard felt.
    pub gaps: Vec<Gap>,
}

/// What a shard felt of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gap {
    /// The shard.
    pub shard: Option<String>,
    /// The record of its change of primary.
    pub failover: Option<String>,
    /// The write gap; unset when it was not measured.
    pub seconds: Option<f64>,
}

impl Drill {
    /// From an object of the kind.
    pub fn read(object: &DynamicObject) -> Self {
        let facts = Facts::of(object);
        let scope = [facts.text("/spec/scope/kind"), facts.text("/spec/scope/name")];
        let scope: Vec<_> = scope.into_iter().flatten().collect();
        Self {
            name: object.name_any(),
            datastore: facts.text("/spec/datastore"),
            scope: Some(scope.join(" ")).filter(|scope| !scope.is_empty()),
            fault: facts.text("/spec/fault"),
            schedule: facts.text("/spec/schedule"),
            suspended: facts.flag("/spec/suspend"),
            requested: facts.time("/spec/requestedAt"),
            last: facts.within("/status/lastRun").map(LastRun::read),
            next: facts.time("/status/nextRun"),
            message: facts.text("/status/message"),
        }
    }
}

impl LastRun {
    fn read(facts: Facts<'_>) -> Self {
        Self {
            started: facts.time("/startedAt"),
            finished: facts.time("/finishedAt"),
            result: facts.text("/result"),
            message: facts.text("/message"),
            gaps: facts.list("/gaps").map(Gap::read).collect(),
        }
    }

    /// Whether it ended as it should. A word that is not known is not taken for it.
    pub fn is_well(&self) -> bool {
        self.result.as_deref() == Some("Succeeded")
    }
}

impl Gap {
    fn read(facts: Facts<'_>) -> Self {
        Self {
            shard: facts.text("/shard"),
            failover: facts.text("/failover"),
            seconds: facts.number("/writeGapSeconds"),
        }
    }
}
