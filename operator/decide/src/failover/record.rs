//! What the record of a change of primary should say. Pure.
//!
//! A record is a Failover object. Every pass says what the record should hold as far as this pass knows; the shell adds what
//! is missing and changes nothing that is there, so a restarted operator completes the record of the one before.

use std::collections::BTreeMap;

use strum::{Display, EnumIter, IntoStaticStr};
use understudy_wire::Epoch;
use understudy_wire::ReplicaName;
use understudy_wire::evidence::{Millis, StoredOffset};

use super::assess::{Assessment, Ballot, Cause, Seconds};
use super::candidate::Ranking;
use super::exhibit::{Exhibit, exhibits};
use super::snapshot::{Kind, Snapshot};
use super::testimony::Case;
use super::transition::{NOT_CONFIRMED, SWITCHOVER_ABORTED};

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
    /// The first sign: the fact that the verdict names, or the first observer that met a failure.
    FirstSign,
    /// The primary was taken for Suspect.
    Suspected,
    /// As many domains as the cause needs bore it out.
    Quorum,
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
    /// The consumers have stored all that the topic held when it took office.
    ConsumersCaughtUp,
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
    /// What was known of the old primary, fact by fact.
    pub exhibits: Vec<Exhibit>,
    /// The replicas that were considered.
    pub ranking: Ranking,
    /// How each replica stood, unfit ones included.
    pub standings: BTreeMap<ReplicaName, Standing>,
    /// The offsets stored on the old primary, as last heard.
    pub offsets_before: Vec<StoredOffset>,
}

/// How a replica stood, as last heard; what is not known is not set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The zone of its node.
    pub zone: Option<String>,
    /// Sum of its stored offsets.
    pub offsets: Option<i64>,
    /// Free bytes on its volume.
    pub free: Option<u64>,
    /// How far its applier was behind.
    pub delay: Option<Millis>,
}

impl Standing {
    fn of(s: &Snapshot, name: &ReplicaName) -> Self {
        let told = s.own_report(name);
        let stored = told.and_then(|(server, _)| server.offsets.as_ref());
        let sum = |stored: &Vec<StoredOffset>| stored.iter().map(|one| one.next_offset).fold(0, i64::saturating_add);
        Self {
            zone: s.zone_of(name).map(ToOwned::to_owned),
            offsets: stored.map(|read| sum(&read.value)),
            free: told.and_then(|(server, _)| server.volume).map(|volume| volume.free),
            delay: told.and_then(|(server, age)| {
                let read = server.replication.as_ref()?;
                Some(read.value.delay? + read.age + age)
            }),
        }
    }
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
            exhibits: old.map(|old| exhibits(s, old)).unwrap_or_default(),
            ranking,
            standings: s.replicas.keys().map(|name| (name.clone(), Standing::of(s, name))).collect(),
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

/// What came before the claim of an incident: the first sign, the suspicion, the agreement of the domains, the decision.
pub(crate) fn beginning(
    s: &Snapshot,
    a: &Assessment,
    old: Option<&ReplicaName>,
    epoch: Epoch,
    cause: &str,
) -> Vec<Entry> {
    let mut entries = Vec::new();
    let case = old.filter(|_| a.verdict.is_dead()).map(|old| Case::hear(s, old));
    let first = case.as_ref().and_then(Case::first_accused).unwrap_or(0).max(a.since);
    if first > 0 {
        entries.push(Entry::ago(Milestone::FirstSign, epoch, first).saying(a.own.clone()));
    }
    if let Some(case) = &case {
        entries.push(Entry::ago(Milestone::Suspected, epoch, s.memory.suspected.unwrap_or(0)));
        entries.push(Entry::ago(Milestone::Quorum, epoch, agreed(case, a)));
    }
    entries.push(Entry::now(Milestone::Decided, epoch).saying(format!("{cause}, first sign {} ago", Seconds(a.since))));
    entries
}

/// Since when as many domains as the cause needs bear it out. Of most causes the manager beside the server is the first. Who waits behind
/// the lock of a commit that hangs accuses nobody, and bears it out all the same.
fn agreed(case: &Case<'_>, a: &Assessment) -> Millis {
    let others = match a.verdict.cause() {
        Some(Cause::Unreachable | Cause::Deadlocked) => 2,
        _ => 1,
    };
    let accused = case.accused_since(others, |_| true).or_else(|| case.first_accused());
    match accused.or_else(|| case.first_waited()) {
        Some(borne_out) if a.since > 0 => borne_out.min(a.since),
        Some(borne_out) => borne_out,
        None => a.since,
    }
}

/// A cause in words, for a person who does not have the table of causes at hand; None for a word that no decision gives.
pub fn in_words(cause: &str) -> Option<&'static str> {
    Some(match cause {
        "ProcessExited" => "mysqld of the primary ended; its manager does not start it again",
        "DataLost" => "the volume of the primary held no data, or none that could be used",
        "VolumeFailed" => "the volume of the primary answered writes with errors",
        "VolumeFull" => "the volume of the primary was full, and commits failed",
        "Restarted" => "mysqld of the primary was started again or fenced, and took no writes",
        "PodStopped" => "the pod of the primary stopped, and its server served no more",
        "Unreachable" => "nobody reached the primary or its manager: the pod or the node is gone",
        "Stopped" => "mysqld of the primary was stopped: it accepted connections and did not answer",
        "VolumeStalled" => "writes to the volume of the primary hung, so no commit came back",
        "Deadlocked" => "the primary accepted work, its volume was well, and nothing moved",
        "Unexplained" => "commits on the primary failed, and no known cause fitted",
        "CutOff" => "no consumer reached the primary, and others saw it commit",
        "SlowVolume" => "the volume of the primary was slow, and that of a standby was not",
        "VolumeFilling" => "the volume of the primary was nearly full, and that of a standby was not",
        "Requested" => "a person, or a drill, asked for another primary",
        "NearMiss" => "the primary committed after an epoch was claimed for another",
        "StatusLost" => "the status was lost or put back: a manager knew a higher epoch than the primary's",
        "Condemned" => "the primary was condemned, and handed over",
        "PodLeaving" => "the pod of the primary was asked to stop, and it handed over",
        "CandidateFailed" => "the replica that was to take over did not, and the next one was taken",
        NOT_CONFIRMED => "the primary was to be confirmed under a new epoch and could not be reached",
        SWITCHOVER_ABORTED => "the planned change took too long, and the old primary was confirmed",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;

    #[test]
    fn every_cause_of_a_death_is_told_in_words_and_an_unknown_word_in_none() {
        for cause in Cause::iter() {
            assert!(in_words(cause.into()).is_some_and(|words| words.contains("primary")), "{cause}");
        }
        for cause in
            ["Requested", "NearMiss", "StatusLost", "Condemned", "PodLeaving", NOT_CONFIRMED, SWITCHOVER_ABORTED]
        {
            assert!(in_words(cause).is_some(), "{cause}");
        }
        assert_eq!(in_words("Whatever"), None);
    }
}
