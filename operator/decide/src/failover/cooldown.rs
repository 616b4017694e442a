//! How soon after a change of primary the next one may follow. Pure.
//!
//! It never holds what a person asked for, nor the next candidate within one incident.

use jiff::{SignedDuration, Timestamp};
use understudy_wire::evidence::Millis;

use super::snapshot::Snapshot;

/// Until when a change of primary that is a judgement has to wait; None: it need not.
///
/// By the wall clock, which outlives the operator. Where that was set back, by how long this process has known the office.
pub(crate) fn until(s: &Snapshot) -> Option<Timestamp> {
    ends(s, s.policy.thresholds.cooldown)
}

/// When this long after the last change is; None: it is over, or there was no change.
fn ends(s: &Snapshot, pause: Millis) -> Option<Timestamp> {
    let at = s.status.last_change.as_ref()?.at?;
    let passed = Millis::try_from(s.now.as_millisecond().saturating_sub(at.as_millisecond()));
    let left = pause.checked_sub(passed.unwrap_or(s.memory.office_known)).filter(|left| *left > 0)?;
    let until = s.now.checked_add(SignedDuration::from_millis(i64::try_from(left).ok()?)).ok()?;
    // Whole seconds: it is shown, and must be the same in every pass.
    Timestamp::from_second(until.as_second()).ok()
}
