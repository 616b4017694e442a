//! What the record of a change of primary should say. Pure.
//!
//! A record is a Failover object. Every pass says what the record should hold as far as this pass knows; the shell adds what
//! is missing and changes nothing that is there, so a restarted operator completes the record of the one before.

use std::collections::BTreeMap;

use strum::{Display, EnumIter, IntoStaticStr};
use understudy_wire::Epoch;
use understudy_wire::ReplicaName;
use understudy_wire::evidence::{Millis, StoredOffset};

use super::assess::{Assessment, Ballot};
use super::candidate::Ranking;
use super::snapshot::{Kind, Snapshot};

/// What one record should say.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordUpdate {
    /// Name of the Failover object.
    pub name: String,
    /// What kind of change it records; for making the object where there is none.
    pub kind: Kind,
    /// The latest epoch of the incident.
    pub epoch: Epoch,
    /// The old primary.
    pub from: Option<ReplicaName>,
    /// The new primary, or the one that is to be.
    pub to: Option<ReplicaName>,
    /// Why, as a stable word.
    pub cause: Option<String>,
    /// For a person.
    pub message: Option<String>,
    /// How far it is.
    pub phase: Phase,
    /// How it ended.
    pub result: Option<Outcome>,
    /// Steps of the timeline.
    pub entries: Vec<Entry>,
    /// What was known at the moment of the decision.
    pub grounds: Option<Box<Grounds>>,
    /// The offsets that the new primary began with.
    pub offsets_after: Option<Vec<StoredOffset>>,
}

/// How far a change of primary is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The epoch is taken.
    Claimed,
    /// The old primary is made to refuse writes, as far as it can be reached.
    Fencing,
    /// The target is told to become primary.
    Promoting,
    /// The route points at the new primary; redundancy is not back.
    Rebuilding,
    /// It is over.
    Closed,
}

/// How a change of primary ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Another replica is primary.
    Succeeded,
    /// The primary turned out to live and was confirmed.
    Confirmed,
    /// It was turned down.
    Refused,
    /// It could not be completed.
    Failed,
}

/// One step of the timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which.
    pub step: Milestone,
    /// The epoch it belongs to: with a second candidate, some steps happen twice.
    pub epoch: Epoch,
    /// How long ago it happened.
    pub ago: Millis,
    /// For a person.
    pub detail: Option<String>,
}

/// The steps of a timeline, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Display, EnumIter, IntoStaticStr)]
pub enum Milestone {
    /// The first sign of what the verdict names.
    FirstSign,
    /// The verdict.
    Decided,
    /// The epoch was taken.
    Claimed,
    /// The probe after the claim ended.
    Reprobed,
    /// The old primary is known to refuse writes.
    Fenced,
    /// The target has everything (switchover).
    CaughtUp,
    /// The target takes writes.
    Promoted,
    /// The route points at it.
    Routed,
    /// A consumer committed on it.
    FirstCommit,
    /// The others replicate from it.
    Following,
    /// The old primary is condemned.
    Condemned,
    /// As many intact copies as asked for.
    Redundant,
}

/// What was known at the moment of the decision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grounds {
    /// Who accused.
    pub votes: Vec<Ballot>,
    /// Who had seen a commit.
    pub vetoes: Vec<Ballot>,
    /// Whose word did not count.
    pub abstained: Vec<Ballot>,
    /// What the manager of the old primary said.
    pub own: String,
    /// Age of its last word.
    pub own_age: Millis,
    /// The replicas that were considered.
    pub ranking: Ranking,
    /// The zones of the replicas, where they are known.
    pub zones: BTreeMap<ReplicaName, String>,
    /// The offsets stored on the old primary, as last heard.
    pub offsets_before: Vec<StoredOffset>,
}

impl Grounds {
    /// What is known now.
    pub fn of(s: &Snapshot, a: &Assessment, old: Option<&ReplicaName>, ranking: Ranking) -> Box<Self> {
        let stored = old.and_then(|old| s.own_report(old)).and_then(|(server, _)| server.offsets.as_ref());
        Box::new(Self {
            votes: a.votes.clone(),
            vetoes: a.vetoes.clone(),
            abstained: a.abstained.clone(),
            own: a.own.clone(),
            own_age: a.own_age,
            ranking,
            zones: s.replicas.keys().filter_map(|name| Some((name.clone(), s.zone_of(name)?.to_owned()))).collect(),
            offsets_before: stored.map(|read| read.value.clone()).unwrap_or_default(),
        })
    }
}

impl Entry {
    /// A step that happens now.
    pub fn now(step: Milestone, epoch: Epoch) -> Self {
        Self { step, epoch, ago: 0, detail: None }
    }

    /// A step that happened before.
    pub fn ago(step: Milestone, epoch: Epoch, ago: Millis) -> Self {
        Self { step, epoch, ago, detail: None }
    }

    /// With words.
    #[must_use]
    pub fn saying(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}
