//! How fast replicas are replaced: slower and slower when each replacement fails as well, and at last not at all. Pure.
//!
//! Nothing here holds a promotion, or the replacement of a primary that was failed over.

use jiff::{SignedDuration, Timestamp};
use strum::IntoEnumIterator;
use understudy_wire::ReplicaName;

use crate::decision::Sentence;
use crate::failover::snapshot::{Condemned, Fact, Replica, Snapshot};

/// How many times the first pause the longest one is.
const LONGEST: u64 = 60;
/// A replica that was condemned sooner than this many seconds after it was made was never of use.
const SHORT_LIFE: i64 = 3_600;
/// So many volumes of replicas that were replaced on a judgement are kept in one shard before no more are replaced, and so many of
/// former primaries before the first of them goes.
pub(crate) const KEPT_AT_MOST: usize = 8;

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
