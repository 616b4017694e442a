//! Whether a drill begins, strikes, goes on or ends. Pure: no I/O, no clock.
//!
//! [`plan`] takes a [`DrillSnapshot`] and the time and gives a [`DrillDecision`]; the same two always give the same decision. Nothing is
//! remembered but what is in the snapshot, which holds what the Drill's status says: a run is written there before anything is done, and the
//! moment of the fault before the fault. So a restarted operator neither repeats a run nor forgets one. `operator/docs/drill.md` has the rules,
//! under the same names.
//!
//! - [`snapshot`]: what is known; [`decision`]: what follows
//! - [`schedule`]: when; [`scope`]: whom; [`rules`]: whether; [`progress`]: a run that was begun

pub mod decision;
pub mod progress;
pub mod rules;
pub mod schedule;
pub mod scope;
pub mod snapshot;

use jiff::{SignedDuration, Timestamp};

pub use decision::{DrillDecision, Due, End, Ending, Gap, Hindrance, Report, Rule};
pub use snapshot::DrillSnapshot;

use snapshot::Run;

/// A run that is not begun within this is not made up for: a drill at another time than people expect is no drill.
pub const BEGINS_WITHIN: SignedDuration = SignedDuration::from_secs(60);
/// What a person asked for longer ago than this was asked for in another situation.
pub const ASKED_WITHIN: SignedDuration = SignedDuration::from_secs(600);
/// Statuses may be the last words of an operator that is no more. By then this one has looked at every shard and written what it saw.
pub const SETTLES_WITHIN: SignedDuration = SignedDuration::from_secs(15);

/// Decides what to do now.
pub fn plan(s: &DrillSnapshot, now: Timestamp) -> DrillDecision {
    if let Some(run) = &s.status.run {
        return progress::plan(s, run, now);
    }
    let Some(due) = schedule::due(s, now) else {
        return DrillDecision::Wait { until: schedule::wake(s, now), because: rules::standing(s) };
    };
    if let Some(why) = rules::late(due, now).or_else(|| rules::standing(s)) {
        return DrillDecision::Skip { due, why };
    }
    if s.awake < SETTLES_WITHIN {
        return DrillDecision::Wait { until: Some(after(now, SETTLES_WITHIN - s.awake)), because: None };
    }
    let id = due.run_of(&s.name);
    let victims = match scope::victims(s, &id) {
        Ok(victims) => victims,
        Err(why) => return DrillDecision::Skip { due, why },
    };
    match rules::hindrance(s, s.policy.exercise, &victims, now) {
        Some(why) => DrillDecision::Skip { due, why },
        None => {
            let (exercise, hold) = (s.policy.exercise, s.policy.hold);
            let run = Run { id, started_at: now, exercise, hold, victims, ending: None };
            DrillDecision::Start { due, run }
        }
    }
}

/// The time so much later; the end of time when there is none.
fn after(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}
