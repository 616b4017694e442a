//! How fast replicas are replaced: slower and slower when each replacement fails as well, and at last not at all. Pure.
//!
//! Nothing here holds a promotion, or the replacement of a primary that was failed over.

use jiff::{SignedDuration, Timestamp};
use strum::IntoEnumIterator;

use crate::decision::Sentence;
use crate::failover::snapshot::{Fact, Replica, Snapshot};

/// How many times the first pause the longest one is.
const LONGEST: u64 = 60;
/// A replica that was condemned sooner than this many seconds after it was made was never of use.
const SHORT_LIFE: i64 = 3_600;
/// So many volumes of replicas that were replaced on a judgement are kept in one shard before no more are replaced.
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

/// How many volumes are kept of replicas that were replaced on a judgement.
pub(crate) fn kept(s: &Snapshot) -> usize {
    let soft = |reason: &str| Sentence::iter().any(|sentence| sentence.is_soft() && reason == <&str>::from(sentence));
    let condemned = s.replicas.values().filter(|replica| replica.condemned.as_ref().is_some_and(|c| soft(&c.reason)));
    condemned.filter(|replica| matches!(replica.volume, Fact::Present(_))).count()
}
