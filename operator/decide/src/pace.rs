//! How fast replicas are replaced: one standby of a shard and few of the fleet at a time, slower and slower when each replacement fails
//! as well, and at last not at all. Pure.
//!
//! Nothing here holds a promotion. The budget of the fleet holds every replacement, the rest not that of a primary that was failed over.

use jiff::{SignedDuration, Timestamp};
use strum::IntoEnumIterator;
use understudy_wire::ReplicaName;
use understudy_wire::evidence::Phase;

use crate::decision::Sentence;
use crate::failover::snapshot::{Condemned, Fact, Replica, Snapshot};
use crate::following::replicates;
use crate::{rebuild, sick_standby};

/// One of so many replicas of the fleet may be rebuilt at a time, and one in any case: a rebuild reads a whole copy and writes another.
const FLEET_SHARE: usize = 10;
/// So many copies are filled on a node at a time.
pub(crate) const FILLED_ON_A_NODE: usize = 2;
/// How many times the first pause the longest one is.
const LONGEST: u64 = 60;
/// A replica that was condemned sooner than this many seconds after it was made was never of use.
const SHORT_LIFE: i64 = 3_600;
/// So many volumes of replicas that were replaced on a judgement are kept in one shard before no more are replaced, and so many of
/// former primaries before the first of them goes.
pub(crate) const KEPT_AT_MOST: usize = 8;

/// How many replicas of this shard are being made in the place of others and have not joined yet. One that comes to nothing does not
/// count: its pod finds no room, nobody has heard of it for long, it comes no further, or it is of no use as it is. Whether it is replaced may depend on the
/// others, so they must not wait for it.
pub fn rebuilding(s: &Snapshot) -> usize {
    s.cast().filter(|(name, replica)| is_rebuilding(s, name, replica)).count()
}

fn is_rebuilding(s: &Snapshot, name: &ReplicaName, replica: &Replica) -> bool {
    // The volume's label tells one that has joined before.
    let label = replica.volume.present().and_then(|volume| volume.role.as_deref());
    let joined = matches!(label, Some("standby" | "primary")) || s.status.primary.as_ref() == Some(name);
    if replica.replaces.is_none() || joined || sick_standby::comes_to_nothing(s, name) {
        return false;
    }
    let is_young = replica.age < s.policy.thresholds.unheard_after;
    let has_room = replica.pod.present().is_none_or(|pod| pod.unschedulable.is_none());
    match s.fresh_report(name).map(|(server, _)| server) {
        Some(server) => match server.phase {
            Phase::Building | Phase::Starting => true,
            Phase::Running => !replicates(s, server),
            Phase::Empty | Phase::Unknown => is_young,
            Phase::Unusable { .. } | Phase::Exited { .. } | Phase::Stopping => false,
        },
        None => is_young && has_room,
    }
}

/// Whether the volume of a replica is being filled, and gets on.
pub fn is_filling(s: &Snapshot, name: &ReplicaName) -> bool {
    let is_filled = s.fresh_report(name).is_some_and(|(server, _)| server.phase == Phase::Building);
    is_filled && !rebuild::stands_still(s, name)
}

/// How many may be rebuilt in the fleet at a time.
fn budget(s: &Snapshot) -> usize {
    (s.fleet.replicas / FLEET_SHARE).max(1)
}

/// How many more rebuilds may begin now, as far as this operator counts those of the fleet. What a shard needs to get its first primary
/// is no rebuild.
pub(crate) fn room(s: &Snapshot) -> usize {
    if s.status.primary.is_none() {
        return usize::MAX;
    }
    budget(s).saturating_sub(s.fleet.rebuilding)
}

/// That there is none, for a person.
pub(crate) fn budget_spent(s: &Snapshot) -> String {
    format!(
        "of the {} replicas of the fleet {} are being rebuilt, and {} may be at a time. It goes on as soon as one of them is a standby, or has come no \
         further for {} min",
        s.fleet.replicas,
        s.fleet.rebuilding,
        budget(s),
        s.policy.thresholds.idle_rebuild_after / 60_000
    )
}

/// Why a standby that should be replaced is not condemned yet; None: it may be. It may still be of some use, so it stays for as long as
/// its replacement would not be made at once.
pub(crate) fn waits(s: &Snapshot, name: &ReplicaName, sentence: Sentence) -> Option<String> {
    let others = s.cast().filter(|(other, _)| *other != name);
    let rebuilt: Vec<_> = others.filter(|(other, its)| is_rebuilding(s, other, its)).map(|(other, _)| other).collect();
    // What is on a lost node is lost, and what the others do is no reason to wait for it.
    if sentence != Sentence::Lost {
        if let Some(other) = rebuilt.first() {
            return Some(format!(
                "one standby of a shard is replaced at a time, and {other} is being built. It goes on once that is a standby, or has come no \
                 further for {} min",
                s.policy.thresholds.idle_rebuild_after / 60_000
            ));
        }
        if let Some(other) = due(s) {
            return Some(format!("one standby of a shard is replaced at a time, and {other} comes first"));
        }
    }
    (room(s) == 0).then(|| budget_spent(s))
}

/// A condemned replica whose replacement is to be made now.
fn due(s: &Snapshot) -> Option<&ReplicaName> {
    if s.cast().count() >= s.policy.replicas {
        return None;
    }
    let is_due = |(name, replica): &(&ReplicaName, &Replica)| {
        let condemned = replica.condemned.as_ref().filter(|of| of.reason != Sentence::ScaledDown.to_string());
        let succeeded = || s.replicas.values().any(|other| other.replaces.as_ref() == Some(*name));
        condemned.is_some() && s.status.primary.as_ref() != Some(*name) && !succeeded() && pause(s, replica).is_none()
    };
    s.replicas.iter().find(is_due).map(|(name, _)| name)
}

/// That the replacement of a condemned replica waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pause {
    /// How many in a row were condemned, this one included.
    pub(crate) failed: usize,
    /// Until when.
    pub(crate) until: Timestamp,
}

/// The pause before a condemned replica is replaced; None: it is over, or there is none.
pub(crate) fn pause(s: &Snapshot, replica: &Replica) -> Option<Pause> {
    let at = replica.condemned.as_ref().filter(|condemned| Sentence::failed_by_itself(&condemned.reason))?.at?;
    let failed = in_a_row(s, replica);
    let doublings = u32::try_from(failed.checked_sub(2)?).unwrap_or(u32::MAX);
    let times = 2_u64.checked_pow(doublings).map_or(LONGEST, |times| times.min(LONGEST));
    let pause = i64::try_from(s.policy.thresholds.replacement_pause.saturating_mul(times)).ok()?;
    let until = at.checked_add(SignedDuration::from_millis(pause)).ok()?;
    (s.now < until).then_some(Pause { failed, until })
}

/// How many replicas that failed by themselves replaced each other without any of them living long, this one included.
fn in_a_row(s: &Snapshot, replica: &Replica) -> usize {
    let mut last = replica;
    for count in 1..=s.replicas.len() {
        let before = last.replaces.as_ref().and_then(|before| s.replicas.get(before));
        let failed = |replica: &Replica| {
            replica.condemned.as_ref().is_some_and(|condemned| Sentence::failed_by_itself(&condemned.reason))
        };
        match before.filter(|before| failed(before) && lived_shortly(s, last)) {
            Some(before) => last = before,
            None => return count,
        }
    }
    s.replicas.len()
}

fn lived_shortly(s: &Snapshot, replica: &Replica) -> bool {
    let Some(at) = replica.condemned.as_ref().and_then(|condemned| condemned.at) else { return false };
    let since = s.now.as_millisecond().saturating_sub(at.as_millisecond());
    let made = i64::try_from(replica.age).unwrap_or(i64::MAX);
    made.saturating_sub(since) < SHORT_LIFE * 1_000
}

/// Whose volumes are kept of those that were replaced on a judgement. One whose successor has caught up and whose time is over is not
/// kept any more: it goes as soon as the shard has all its copies again, and must not be what keeps it from getting them.
pub(crate) fn kept(s: &Snapshot) -> Vec<&ReplicaName> {
    let soft = |reason: &str| Sentence::iter().any(|sentence| sentence.is_soft() && reason == <&str>::from(sentence));
    let is_kept = |replica: &Replica| {
        let there = matches!(replica.volume, Fact::Present(_));
        let condemned = replica.condemned.as_ref().filter(|condemned| there && soft(&condemned.reason));
        condemned.is_some_and(|condemned| !is_over(s, condemned))
    };
    s.replicas.iter().filter(|(_, replica)| is_kept(replica)).map(|(name, _)| name).collect()
}

/// Whether as many former primaries that were failed over later are kept. A record or a statement that ends every server that takes it
/// costs a primary for each rebuild, and must not fill the storage: the first of them tell as much as the last.
pub(crate) fn makes_room(s: &Snapshot, name: &ReplicaName, condemned: &Condemned) -> bool {
    let is_primary = |condemned: &Condemned| condemned.reason == Sentence::FailedOver.to_string();
    let is_later = |(other, replica): &(&ReplicaName, &Replica)| {
        let there = matches!(replica.volume, Fact::Present(_));
        let later = replica.condemned.as_ref().filter(|other| there && is_primary(other));
        later.is_some_and(|later| (later.at, *other) > (condemned.at, name))
    };
    is_primary(condemned) && s.replicas.iter().filter(is_later).count() >= KEPT_AT_MOST
}

/// Whether the successor of a condemned replica has caught up, and its quarantine is over.
pub(crate) fn is_over(s: &Snapshot, condemned: &Condemned) -> bool {
    let since = condemned.successor_ready_at.map(|at| s.now.as_second().saturating_sub(at.as_second()));
    since.is_some_and(|seconds| seconds >= s.policy.quarantine_seconds)
}
