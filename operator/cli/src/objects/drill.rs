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
    /// What is done to the victim.
    pub fault: Option<String>,
    /// When it runs by itself, as cron has it.
    pub schedule: Option<String>,
    /// When a person asked for a run last.
    pub requested: Option<Timestamp>,
    /// The last run.
    pub last: Option<LastRun>,
    /// When it runs next.
    pub next: Option<Timestamp>,
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
    /// Write gaps in seconds.
    pub gaps: Vec<f64>,
}

impl Drill {
    /// From an object of the kind.
    pub fn read(object: &DynamicObject) -> Self {
        let facts = Facts::of(object);
        Self {
            name: object.name_any(),
            datastore: facts.text("/spec/datastore"),
            fault: facts.text("/spec/fault"),
            schedule: facts.text("/spec/schedule"),
            requested: facts.time("/spec/requestedAt"),
            last: facts.within("/status/lastRun").map(LastRun::read),
            next: facts.time("/status/nextRun"),
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
            gaps: facts.list("/gaps").filter_map(gap).collect(),
        }
    }

    /// Whether it ended as it should. A word that is not known is not taken for it.
    pub fn is_well(&self) -> bool {
        matches!(self.result.as_deref(), Some("Succeeded" | "Passed"))
    }
}

/// A bare number, or one among other facts.
fn gap(facts: Facts<'_>) -> Option<f64> {
    let names = ["/writeGapSeconds", "/gapSeconds", "/seconds"];
    facts.itself_number().or_else(|| names.into_iter().find_map(|name| facts.number(name)))
}
