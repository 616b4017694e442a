//! A Shard and its Replicas as read. Pure.

use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::DynamicObject;
use serde::Serialize;
use understudy_api::labels;
use understudy_api::v1alpha1::VerdictState;

use super::Facts;

/// One primary and its standbys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shard {
    /// Its name.
    pub name: String,
    /// The Datastore that made it; none when a person did.
    pub datastore: Option<String>,
    /// Whether anybody has looked at it yet.
    pub has_status: bool,
    /// Whether the status answers the present spec, if it says so.
    pub is_current: Option<bool>,
    /// `spec.paused`.
    pub paused: bool,
    /// `spec.failover.mode`.
    pub mode: Option<String>,
    /// `spec.failover.cooldownSeconds`.
    pub cooldown: Option<i64>,
    /// The replica that takes writes.
    pub primary: Option<String>,
    /// The highest epoch that was claimed.
    pub epoch: Option<i64>,
    /// The change of primary that is under way.
    pub transition: Option<Transition>,
    /// State of the primary.
    pub verdict: Option<Verdict>,
    /// What the operator says that it is doing.
    pub doing: Option<String>,
    /// What is not done, and why.
    pub withheld: Vec<Withheld>,
    /// The last suspicion that came to nothing.
    pub last_suspicion: Option<LastSuspicion>,
    /// Replicas that serve, of those asked for.
    pub ready: Option<String>,
    /// Standbys that could take over now.
    pub promotable: Option<i64>,
    /// Delay of the best standby.
    pub lag: Option<String>,
    /// The last change of primary.
    pub last_failover: Option<LastFailover>,
    /// Each replica.
    pub replicas: Vec<ReplicaSummary>,
    /// What each observer says.
    pub observers: Vec<Observer>,
    /// Over the last days.
    pub availability: Option<Availability>,
    /// `metav1.Condition`s.
    pub conditions: Vec<Condition>,
}

impl Shard {
    /// From an object of the kind.
    pub fn read(object: &DynamicObject) -> Self {
        let facts = Facts::of(object);
        let seen = facts.count("/status/observedGeneration");
        Self {
            name: object.name_any(),
            datastore: object.labels().get(labels::DATASTORE).cloned(),
            has_status: facts.within("/status").is_some(),
            is_current: seen.zip(object.metadata.generation).map(|(seen, asked)| seen >= asked),
            paused: facts.flag("/spec/paused"),
            mode: facts.text("/spec/failover/mode"),
            cooldown: facts.count("/spec/failover/cooldownSeconds"),
            primary: facts.text("/status/primary"),
            epoch: facts.count("/status/epoch"),
            transition: facts.within("/status/transition").map(Transition::read),
            verdict: Verdict::within(facts),
            doing: facts.text("/status/doing"),
            withheld: facts.list("/status/withheld").filter_map(Withheld::read).collect(),
            last_suspicion: facts.within("/status/lastSuspicion").map(LastSuspicion::read),
            ready: facts.text("/status/ready"),
            promotable: facts.count("/status/promotable"),
            lag: facts.text("/status/lag"),
            last_failover: facts.within("/status/lastFailover").map(LastFailover::read),
            replicas: facts.list("/status/replicas").map(ReplicaSummary::read).collect(),
            observers: facts.list("/status/observers").map(Observer::read).collect(),
            availability: Availability::within(facts),
            conditions: conditions(facts),
        }
    }

    /// State of the primary: `Unknown` while nobody has said anything.
    pub fn state(&self) -> &str {
        self.verdict.as_ref().map_or("Unknown", |verdict| verdict.state.as_str())
    }

    /// The state, when it is one that this program knows.
    pub fn known_state(&self) -> Option<VerdictState> {
        match &self.verdict {
            Some(verdict) => verdict.known(),
            None => Some(VerdictState::Unknown),
        }
    }

    /// Whether commits succeed, as the operator counts it: then it refuses a failover.
    pub fn commits(&self) -> bool {
        use VerdictState::{Healthy, ObserverPartition, Slow};
        matches!(self.known_state(), Some(Healthy | Slow | ObserverPartition))
    }
}

/// What is concluded of a primary.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The conclusion.
    pub state: String,
    /// What named it.
    pub cause: Option<String>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// What was seen, by whom.
    pub message: Option<String>,
}

impl Verdict {
    fn within(facts: Facts<'_>) -> Option<Self> {
        let facts = facts.within("/status/verdict")?;
        Some(Self {
            state: facts.text("/state")?,
            cause: facts.text("/cause"),
            since: facts.time("/since"),
            message: facts.text("/message"),
        })
    }

    /// The state, when it is one that this program knows.
    pub fn known(&self) -> Option<VerdictState> {
        let read: Option<VerdictState> = serde_json::from_value(self.state.as_str().into()).ok();
        // What is not known is read as Unknown, and that is another word.
        read.filter(|state| state.to_string() == self.state)
    }

    /// State and cause.
    pub fn words(&self) -> String {
        match &self.cause {
            Some(cause) => format!("{} ({cause})", self.state),
            None => self.state.clone(),
        }
    }
}

/// Something that is not done, and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Withheld {
    /// Why, as the event names it.
    pub reason: String,
    /// The replica that it is about.
    pub about: Option<String>,
    /// For a person.
    pub message: Option<String>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// When it is looked at again, and what ends it.
    pub next_check: Option<String>,
}

impl Withheld {
    fn read(facts: Facts<'_>) -> Option<Self> {
        Some(Self {
            reason: facts.text("/reason")?,
            about: facts.text("/about"),
            message: facts.text("/message"),
            since: facts.time("/since"),
            next_check: facts.text("/nextCheck"),
        })
    }
}

/// A suspicion that came to nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LastSuspicion {
    /// The replica that was suspected.
    pub replica: Option<String>,
    /// When that ended.
    pub cleared_at: Option<Timestamp>,
    /// How far it went.
    pub state: Option<String>,
    /// What was suspected.
    pub cause: Option<String>,
    /// How old its first sign was when it ended.
    pub lasted_ms: Option<i64>,
    /// What was seen then.
    pub message: Option<String>,
    /// How many there were.
    pub count: Option<i64>,
}

impl LastSuspicion {
    fn read(facts: Facts<'_>) -> Self {
        Self {
            replica: facts.text("/replica"),
            cleared_at: facts.time("/clearedAt"),
            state: facts.text("/state"),
            cause: facts.text("/cause"),
            lasted_ms: facts.count("/lastedMs"),
            message: facts.text("/message"),
            count: facts.count("/count"),
        }
    }
}

/// A change of primary that is under way.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Transition {
    /// What kind of change.
    pub kind: Option<String>,
    /// The epoch it claimed.
    pub epoch: Option<i64>,
    /// The primary until now.
    pub from: Option<String>,
    /// The primary to be.
    pub to: Option<String>,
    /// Name of its record.
    pub record: Option<String>,
    /// When the epoch was claimed.
    pub since: Option<Timestamp>,
}

impl Transition {
    fn read(facts: Facts<'_>) -> Self {
        Self {
            kind: facts.text("/kind"),
            epoch: facts.count("/epoch"),
            from: facts.text("/from"),
            to: facts.text("/to"),
            record: facts.text("/record"),
            since: facts.time("/since"),
        }
    }
}

/// The last change of primary.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LastFailover {
    /// Name of its record.
    pub name: Option<String>,
    /// What kind of change.
    pub kind: Option<String>,
    /// When the new primary took over.
    pub time: Option<Timestamp>,
    /// The write gap, for a person.
    pub gap: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

impl LastFailover {
    fn read(facts: Facts<'_>) -> Self {
        Self {
            name: facts.text("/name"),
            kind: facts.text("/kind"),
            time: facts.time("/time"),
            gap: facts.text("/gap"),
            reason: facts.text("/reason"),
        }
    }
}

/// One replica, as its Shard shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaSummary {
    /// Its name.
    pub name: String,
    /// What it is to the shard.
    pub role: Option<String>,
    /// Where it is in its life.
    pub phase: Option<String>,
    /// The node it runs on.
    pub node: Option<String>,
    /// How far it is behind its source.
    pub delay_seconds: Option<f64>,
    /// Whether it serves or replicates.
    pub ready: bool,
    /// Whether it could take over now.
    pub promotable: bool,
    /// What is wrong with it.
    pub message: Option<String>,
}

impl ReplicaSummary {
    fn read(facts: Facts<'_>) -> Self {
        Self {
            name: facts.text("/name").unwrap_or_default(),
            role: facts.text("/role"),
            phase: facts.text("/phase"),
            node: facts.text("/node"),
            delay_seconds: facts.number("/delaySeconds"),
            ready: facts.flag("/ready"),
            promotable: facts.flag("/promotable"),
            message: facts.text("/message"),
        }
    }

    /// Whether it was replaced, so that nobody expects anything of it.
    pub fn is_condemned(&self) -> bool {
        self.role.as_deref() == Some("condemned")
    }
}

/// What one observer says of the primary.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Observer {
    /// Manager, Peer, Consumer or Operator.
    pub kind: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// What fails as a whole with it.
    pub domain: Option<String>,
    /// For or against the primary.
    pub stance: Option<String>,
    /// What it sees.
    pub says: Option<String>,
    /// Since when it says so.
    pub since: Option<Timestamp>,
    /// Whether its word counts now, if that is told.
    pub counts: Option<bool>,
    /// Why not.
    pub not_counted: Option<String>,
}

impl Observer {
    fn read(facts: Facts<'_>) -> Self {
        Self {
            kind: facts.text("/kind"),
            name: facts.text("/name"),
            domain: facts.text("/domain"),
            stance: facts.text("/stance"),
            says: facts.text("/says"),
            since: facts.time("/since"),
            counts: facts.answer("/counts"),
            not_counted: facts.text("/notCounted"),
        }
    }
}

/// How long nothing could be written, over the last days.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Availability {
    /// How many days.
    pub window_days: Option<f64>,
    /// Seconds without a commit.
    pub unavailable_seconds: Option<f64>,
    /// Failovers in that time.
    pub failovers: Option<i64>,
    /// Switchovers in that time.
    pub switchovers: Option<i64>,
    /// Rehearsed changes in that time.
    pub drills: Option<i64>,
    /// Mean time between failures, in seconds.
    pub mtbf_seconds: Option<f64>,
    /// Mean time to recovery, in seconds.
    pub mttr_seconds: Option<f64>,
}

impl Availability {
    pub(super) fn within(facts: Facts<'_>) -> Option<Self> {
        let facts = facts.within("/status/availability")?;
        Some(Self {
            window_days: facts.number("/windowDays"),
            unavailable_seconds: facts.number("/unavailableSeconds"),
            failovers: facts.count("/failovers"),
            switchovers: facts.count("/switchovers"),
            drills: facts.count("/drills"),
            mtbf_seconds: facts.number("/mtbfSeconds"),
            mttr_seconds: facts.number("/mttrSeconds"),
        })
    }
}

/// A `metav1.Condition`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: Option<String>,
    /// PascalCase and stable.
    pub reason: Option<String>,
    /// For a person.
    pub message: Option<String>,
    /// Since when.
    pub since: Option<Timestamp>,
}

/// Those of a status.
pub(super) fn conditions(facts: Facts<'_>) -> Vec<Condition> {
    let read = |facts: Facts<'_>| {
        Some(Condition {
            kind: facts.text("/type")?,
            status: facts.text("/status"),
            reason: facts.text("/reason"),
            message: facts.text("/message"),
            since: facts.time("/lastTransitionTime"),
        })
    };
    facts.list("/status/conditions").filter_map(read).collect()
}

/// Whether the condition of this type holds; none when it is not there, or not known.
pub fn holds(conditions: &[Condition], kind: &str) -> Option<bool> {
    match conditions.iter().find(|condition| condition.kind == kind)?.status.as_deref() {
        Some("True") => Some(true),
        Some("False") => Some(false),
        _ => None,
    }
}

/// One server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replica {
    /// Its name.
    pub name: String,
    /// The Shard it belongs to.
    pub shard: Option<String>,
    /// Whether it is to be replaced, or was.
    pub condemned: bool,
    /// What it is to the shard.
    pub role: Option<String>,
    /// Where it is in its life.
    pub phase: Option<String>,
    /// The node it runs on.
    pub node: Option<String>,
    /// How far it is behind its source.
    pub delay: Option<String>,
    /// Progress of its build.
    pub build: Option<String>,
    /// When it was made.
    pub made: Option<Timestamp>,
    /// `metav1.Condition`s.
    pub conditions: Vec<Condition>,
}

impl Replica {
    /// From an object of the kind.
    pub fn read(object: &DynamicObject) -> Self {
        let facts = Facts::of(object);
        Self {
            name: object.name_any(),
            shard: facts.text("/spec/shard"),
            condemned: facts.within("/spec/condemned").is_some(),
            role: facts.text("/status/role"),
            phase: facts.text("/status/phase"),
            node: facts.text("/status/node"),
            delay: facts.text("/status/delay"),
            build: facts.text("/status/rebuild/summary").or_else(|| facts.text("/status/rebuild/stage")),
            made: object.metadata.creation_timestamp.as_ref().map(|made| made.0),
            conditions: conditions(facts),
        }
    }
}
