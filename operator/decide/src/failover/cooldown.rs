//! How soon after a change of primary the next one may follow. Pure.
//!
//! A judgement waits for the cooldown. A fact does not, and once it acts within the cooldown as well; when the next primary dies of a
//! fact before the shard has healed, whatever kills them may kill the next, too, and each pause is twice as long as the one before.
//! A pause ends by itself, so a shard whose primary is dead comes back by itself.
//!
//! It never holds what a person asked for, a node that is lost, nor the next candidate within one incident.

use jiff::{SignedDuration, Timestamp};
use understudy_wire::ReplicaName;
use understudy_wire::evidence::Millis;

use super::signature::Cause;
use super::snapshot::{Kind, Record, Snapshot};
use super::transition::SWITCHOVER_ABORTED;

/// The first pause, after the second failover in a row; milliseconds. A new copy of a small shard takes about as long.
const FIRST: Millis = 30_000;
/// The longest.
const LONGEST: Millis = 600_000;

/// That a failover waits although the primary is dead for certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pause {
    /// How many failovers went before it, one soon after the other.
    pub(crate) in_a_row: u32,
    /// Until when.
    pub(crate) until: Timestamp,
}

/// Until when a change of primary that is a judgement has to wait; None: it need not. It counts from a confirmation as well: most follow
/// a judgement that was wrong a moment ago.
pub(crate) fn until(s: &Snapshot) -> Option<Timestamp> {
    ends(s, s.status.last_change.as_ref()?.at?, s.policy.thresholds.cooldown)
}

/// The same of a change for this cause, which may stay when the primary goes: one that was made for it before and did not help, or did not
/// succeed, is not made again soon, however short the cooldown was made.
pub(crate) fn until_again(s: &Snapshot, cause: &str) -> Option<Timestamp> {
    let last = s.status.last_change.as_ref()?;
    let was_tried = last.cause.as_deref().is_some_and(|last| last == cause || last == SWITCHOVER_ABORTED);
    let least = if was_tried { LONGEST } else { 0 };
    ends(s, last.at?, s.policy.thresholds.cooldown.max(least))
}

/// The pause before a primary that is dead for certain is failed over; None: it is over, or there is none.
pub(crate) fn pause(s: &Snapshot, cause: Cause, primary: &ReplicaName) -> Option<Pause> {
    if cause == Cause::Unreachable && is_lost_with_its_node(s, primary) {
        return None;
    }
    let in_a_row = present_row(s);
    let until = ends(s, changed_at(s)?, length(s, in_a_row))?;
    Some(Pause { in_a_row, until })
}

/// How many failovers have followed each other once this change is published.
pub(crate) fn row_after(s: &Snapshot, kind: Kind) -> u32 {
    let before = present_row(s);
    match kind {
        Kind::Failover => before.saturating_add(1),
        // They bring no new server into office that has not died yet.
        Kind::Confirm | Kind::Switchover => before,
        Kind::Bootstrap => 0,
    }
}

/// How many failovers have followed each other until now. A shard that has all its copies again has healed, and one that has had its
/// primary for long enough as well: the next death is another matter.
fn present_row(s: &Snapshot) -> u32 {
    let in_a_row = s.status.in_a_row;
    // A confirmation is over at once and heals nothing, so its record says nothing of the failovers before it.
    let under_way = s.status.transition.as_ref().and_then(|change| change.record.as_ref());
    let tells = |open: &Record| open.kind != Kind::Confirm && Some(&open.name) != under_way;
    let has_healed = !s.records.iter().any(tells);
    let lasts = s.policy.thresholds.cooldown.saturating_add(length(s, in_a_row));
    let is_recent = changed_at(s).is_some_and(|at| ends(s, at, lasts).is_some());
    if has_healed || !is_recent { 0 } else { in_a_row }
}

/// When another replica took office last. A confirmation changes no primary, so it neither begins a row of failovers, nor makes one last
/// longer, nor ends it. Where that was not written down, as by an operator that did not know of it, the last change of any kind counts.
fn changed_at(s: &Snapshot) -> Option<Timestamp> {
    s.status.changed_at.or_else(|| s.status.last_change.as_ref()?.at)
}

/// How long the pause after so many failovers in a row is. Never longer than the cooldown.
fn length(s: &Snapshot, in_a_row: u32) -> Millis {
    let Some(doublings) = in_a_row.checked_sub(2) else { return 0 };
    let times = 2_u64.checked_pow(doublings).unwrap_or(u64::MAX);
    FIRST.saturating_mul(times).min(LONGEST).min(s.policy.thresholds.cooldown)
}

/// When this long after a change is; None: it is over.
///
/// By the wall clock, which outlives the operator. Where that was set back, by how long this process has known the office.
fn ends(s: &Snapshot, at: Timestamp, pause: Millis) -> Option<Timestamp> {
    let passed = Millis::try_from(s.now.as_millisecond().saturating_sub(at.as_millisecond()));
    let left = pause.checked_sub(passed.unwrap_or(s.memory.office_known)).filter(|left| *left > 0)?;
    let until = s.now.checked_add(SignedDuration::from_millis(i64::try_from(left).ok()?)).ok()?;
    // Whole seconds: it is shown, and must be the same in every pass.
    Timestamp::from_second(until.as_second()).ok()
}

/// Whether more than the primary went: Kubernetes misses its node, or other managers fell silent with it.
fn is_lost_with_its_node(s: &Snapshot, primary: &ReplicaName) -> bool {
    let node = s.node_of(primary);
    let missed = node.is_some_and(|node| s.nodes.get(node).is_none_or(|facts| facts.ready_at.is_none()));
    missed || s.fleet.silent > 1
}
