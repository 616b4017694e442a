//! A Failover as read: the request, and the record of what happened. Pure.

use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::Value;

use super::Facts;

/// The label of a record that was made for a Drill.
const DRILL: &str = "understudy.dev/drill";

/// A change of primary.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Failover {
    /// Its name.
    pub name: String,
    /// The Shard.
    pub shard: Option<String>,
    /// What was asked for, or what it became.
    pub kind: Option<String>,
    /// The Drill that it was rehearsed for.
    pub drill: Option<String>,
    /// Who was asked to take over.
    pub target: Option<String>,
    /// Why, as whoever asked said it.
    pub asked_because: Option<String>,
    /// When the object was made.
    pub made: Option<Timestamp>,
    /// How far it is.
    pub phase: Option<String>,
    /// How it ended.
    pub result: Option<String>,
    /// What named the death of the old primary.
    pub cause: Option<String>,
    /// The cause in words.
    pub explanation: Option<String>,
    /// For a person.
    pub message: Option<String>,
    /// The old primary.
    pub from: Option<String>,
    /// The new primary.
    pub to: Option<String>,
    /// The epoch it took.
    pub epoch: Option<i64>,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// What was done, in order.
    pub timeline: Vec<Step>,
    /// Observers that said the primary is dead.
    pub votes: Vec<Word>,
    /// Observers that said it lives.
    pub vetoes: Vec<Word>,
    /// Observers whose word did not count.
    pub abstentions: Vec<Word>,
    /// The facts at the moment of the decision.
    pub evidence: Vec<Said>,
    /// The replicas that were considered, best first.
    pub candidates: Vec<Candidate>,
    /// The last offsets known to be stored on the old primary.
    pub offsets_before: Vec<Offset>,
    /// Those that the new primary began with.
    pub offsets_after: Vec<Offset>,
    /// The write gap in seconds.
    pub write_gap: Option<f64>,
    /// Records that were written again.
    pub replayed: Option<i64>,
    /// The replacement of the old primary.
    pub rebuild: Option<Rebuild>,
    /// Stacks of the stuck server, as the record has them.
    pub stacks: Option<Value>,
}

impl Failover {
    /// From an object of the kind.
    pub fn read(object: &DynamicObject) -> Self {
        let facts = Facts::of(object);
        Self {
            name: object.name_any(),
            shard: facts.text("/spec/shard"),
            kind: facts.text("/spec/kind"),
            drill: facts.text("/spec/drill").or_else(|| object.labels().get(DRILL).cloned()),
            target: facts.text("/spec/target"),
            asked_because: facts.text("/spec/reason"),
            made: object.metadata.creation_timestamp.as_ref().map(|made| made.0),
            phase: facts.text("/status/phase"),
            result: facts.text("/status/result"),
            cause: facts.text("/status/cause"),
            explanation: facts.text("/status/explanation"),
            message: facts.text("/status/message"),
            from: facts.text("/status/from"),
            to: facts.text("/status/to"),
            epoch: facts.count("/status/epoch"),
            started: facts.time("/status/startedAt"),
            finished: facts.time("/status/finishedAt"),
            timeline: facts.list("/status/timeline").map(Step::read).collect(),
            votes: facts.list("/status/votes").map(Word::read).collect(),
            vetoes: facts.list("/status/vetoes").map(Word::read).collect(),
            abstentions: facts.list("/status/abstentions").map(Word::read).collect(),
            evidence: facts.list("/status/evidence").map(Said::read).collect(),
            candidates: facts.list("/status/candidates").map(Candidate::read).collect(),
            offsets_before: facts.list("/status/offsetsBefore").map(Offset::read).collect(),
            offsets_after: facts.list("/status/offsetsAfter").map(Offset::read).collect(),
            write_gap: facts.number("/status/writeGapSeconds"),
            replayed: facts.count("/status/replayedRecords"),
            rebuild: facts.within("/status/rebuild").map(Rebuild::read),
            stacks: facts.value("/status/stacks"),
        }
    }

    /// Whether nothing more will happen.
    pub fn is_closed(&self) -> bool {
        self.phase.as_deref() == Some("Closed")
    }
}

/// One step of what was done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// Its name.
    pub step: String,
    /// When.
    pub at: Option<Timestamp>,
    /// Since the first step.
    pub elapsed_ms: Option<i64>,
    /// For a person.
    pub detail: Option<String>,
}

impl Step {
    fn read(facts: Facts<'_>) -> Self {
        Self {
            step: facts.text("/step").unwrap_or_default(),
            at: facts.time("/at"),
            elapsed_ms: facts.count("/elapsedMs"),
            detail: facts.text("/detail"),
        }
    }
}

/// What one observer said for or against.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Word {
    /// Its kind and name.
    pub observer: String,
    /// What it saw.
    pub says: Option<String>,
    /// How old that was.
    pub age_ms: Option<i64>,
}

impl Word {
    fn read(facts: Facts<'_>) -> Self {
        Self {
            observer: facts.text("/observer").unwrap_or_default(),
            says: facts.text("/says"),
            age_ms: facts.count("/ageMs"),
        }
    }
}

/// One observer's fact about one replica.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    /// Its kind and name.
    pub observer: String,
    /// The replica.
    pub subject: Option<String>,
    /// The fact.
    pub fact: Option<String>,
    /// How old it was.
    pub age_ms: Option<i64>,
    /// What kind of fact.
    pub kind: Option<String>,
    /// How long it had lasted, in milliseconds.
    pub lasted_ms: Option<i64>,
}

impl Said {
    fn read(facts: Facts<'_>) -> Self {
        Self {
            observer: facts.text("/observer").unwrap_or_default(),
            subject: facts.text("/subject"),
            fact: facts.text("/fact"),
            age_ms: facts.count("/ageMs"),
            kind: facts.text("/kind"),
            lasted_ms: facts.count("/lastedMs"),
        }
    }
}

/// One replica that was considered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Candidate {
    /// The replica.
    pub replica: String,
    /// Its zone.
    pub zone: Option<String>,
    /// Why it was not taken.
    pub rejected: Option<String>,
    /// Sum of its stored offsets.
    pub offsets: Option<i64>,
    /// How far its applier was behind, in milliseconds.
    pub delay_ms: Option<i64>,
    /// Transactions it had executed.
    pub executed: Option<String>,
}

impl Candidate {
    fn read(facts: Facts<'_>) -> Self {
        Self {
            replica: facts.text("/replica").unwrap_or_default(),
            zone: facts.text("/zone"),
            rejected: facts.text("/rejected"),
            offsets: facts.count("/offsets"),
            delay_ms: facts.count("/delayMs"),
            executed: facts.text("/executedGtid"),
        }
    }
}

/// A stored offset.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Offset {
    /// Group, topic and partition.
    pub of: (String, String, Option<i64>),
    /// The offset of the next record.
    pub next: Option<i64>,
}

impl Offset {
    fn read(facts: Facts<'_>) -> Self {
        let text = |pointer| facts.text(pointer).unwrap_or_default();
        Self { of: (text("/consumer"), text("/topic"), facts.count("/partition")), next: facts.count("/nextOffset") }
    }
}

/// The replacement of the old primary.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rebuild {
    /// The new replica.
    pub replica: Option<String>,
    /// When it could be promoted.
    pub finished: Option<Timestamp>,
    /// Time to redundancy.
    pub seconds: Option<f64>,
}

impl Rebuild {
    fn read(facts: Facts<'_>) -> Self {
        Self { replica: facts.text("/replica"), finished: facts.time("/finishedAt"), seconds: facts.number("/seconds") }
    }
}
