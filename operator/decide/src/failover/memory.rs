//! What the operator itself did and saw of a shard. Pure.

use std::collections::{BTreeMap, BTreeSet};

use understudy_wire::evidence::Millis;
use understudy_wire::{Epoch, GtidSet, ReplicaName};

pub use super::course::{Cleared, Course, Dissenter, Dissents, Past};
use crate::decision::{OrderKind, Subject};

/// What this process did and saw; empty after a restart, and nothing is lost with it but a little time.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Time since this process started or last had a pause of its own: nobody counts as silent for longer.
    pub awake: Millis,
    /// How long this process has known the present transition.
    pub transition_known: Millis,
    /// Whether that was under way when this process first looked, so that its claim may be much older.
    pub transition_found: bool,
    /// How long this process has known the present primary to be in office under the present epoch.
    pub office_known: Millis,
    /// How long this process has taken the primary for Suspect, Stuck or Gone without a break; not set while it does not.
    pub suspected: Option<Millis>,
    /// Where each partition, by topic and number, ended when the present primary took office, as far as consumers told.
    pub ends: BTreeMap<(String, i32), i64>,
    /// The probe after the claim.
    pub reprobe: Option<Reprobe>,
    /// The last order of each kind to each replica.
    pub orders: BTreeMap<(ReplicaName, OrderKind), OrderFact>,
    /// Steps that could not be taken a moment ago. They are held back for a while, and stand in nobody's way.
    pub held_back: BTreeSet<Subject>,
    /// What earlier passes came to.
    pub past: Past,
}

/// The probe after the claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reprobe {
    /// The claim it belongs to.
    pub epoch: Epoch,
    /// How it went.
    pub outcome: ReprobeOutcome,
}

/// How the probe after the claim went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReprobeOutcome {
    /// It is under way for this long.
    Running(Millis),
    /// The server committed.
    Committed,
    /// It did not.
    Failed(String),
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderFact {
    /// The epoch it was given under.
    pub epoch: Epoch,
    /// Time since it was sent.
    pub sent: Millis,
    /// How often in a row it was sent under this epoch.
    pub tries: u32,
    /// What came of it.
    pub outcome: OrderOutcome,
}

/// What came of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderOutcome {
    /// No answer yet, and its deadline has not passed.
    InFlight,
    /// Carried out; the executed transactions where the answer has them.
    Done(Option<GtidSet>),
    /// Refused, failed or not answered.
    Failed(String),
}

impl OrderFact {
    /// Whether an answer may still come.
    pub fn in_flight(&self) -> bool {
        matches!(self.outcome, OrderOutcome::InFlight)
    }
}
