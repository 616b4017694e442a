//! A run that was begun: whom to hit next, and when it has ended. Pure.

use jiff::{SignedDuration, Timestamp};

use super::after;
use super::decision::{DrillDecision, End, Ending, Gap, Hindrance, Report};
use super::rules;
use super::snapshot::{Change, DrillSnapshot, Exercise, Run, Victim};
use crate::failover::record::Outcome;

/// A primary that was hit is replaced within this, after the end of a fault that is held.
pub const REPLACED_WITHIN: SignedDuration = SignedDuration::from_secs(60);
/// A switchover that was asked for has ended within this.
pub const SWITCHED_WITHIN: SignedDuration = SignedDuration::from_secs(120);
/// The first commit after a change is seen within this, or its gap stays unknown.
pub const MEASURED_WITHIN: SignedDuration = SignedDuration::from_secs(120);
/// An order is with the manager within this after it was written down, or never: three tries of eight seconds, and what a wedge takes. A hold is over
/// by itself so long after its length.
pub const REACHES_WITHIN: SignedDuration = SignedDuration::from_secs(40);

/// Where a victim is.
enum State {
    /// Nothing was done to it.
    Pending,
    /// It was hit then.
    Struck(Timestamp),
    /// Another is primary since then.
    Moved { at: Timestamp, measured: bool },
    /// It could not be hit, or was not replaced.
    Failed(String),
}

/// The name of the Failover by which a run asks for a switchover.
pub fn request_name(run: &str, victim: &Victim) -> String {
    format!("{run}-{}", victim.shard)
}

/// What to do about a run that goes on.
pub fn plan(s: &DrillSnapshot, run: &Run, now: Timestamp) -> DrillDecision {
    if let Some(end) = &run.ending {
        return ends(s, run, end.clone(), now);
    }
    let states: Vec<(&Victim, State)> = run.victims.iter().map(|victim| (victim, state(s, run, victim, now))).collect();
    if let Some(words) = states.iter().find_map(|(_, state)| failure(state)) {
        let end = End { ending: Ending::Failed, rule: None, message: format!("{words}{}", note(s, run)) };
        return ends(s, run, end, now);
    }
    let struck: Vec<(&Victim, Timestamp)> = states
        .iter()
        .filter_map(|(victim, state)| match state {
            State::Struck(at) => Some((*victim, *at)),
            _ => None,
        })
        .collect();
    if run.exercise.is_held()
        && !struck.is_empty()
        && let Some(why) = rules::to_be_ended(s, run, &struck, now)
    {
        return aborted(s, run, &why, now);
    }
    let pending: Vec<usize> = places(&states, |state| matches!(state, State::Pending));
    let next: Vec<usize> = match run.exercise {
        // Of several shards one after the other: what a node that is drained does.
        Exercise::Switchover => pending.into_iter().take(usize::from(struck.is_empty())).collect(),
        // At once: what a node that is lost does.
        Exercise::Fault(_) => pending,
    };
    if !next.is_empty() {
        return strike(s, run, &states, next, now);
    }
    if let Some((victim, _)) = struck.first() {
        let doing = format!("{} of {} was hit; waiting for another primary", victim.replica, victim.shard);
        return DrillDecision::GoOn { doing };
    }
    let unmeasured = |state: &State| match state {
        State::Moved { at, measured } => !measured && now < after(*at, MEASURED_WITHIN),
        _ => false,
    };
    if !s.leaving && states.iter().any(|(_, state)| unmeasured(state)) {
        return DrillDecision::GoOn { doing: "every victim was replaced; waiting for the first commits".to_owned() };
    }
    let end = End { ending: Ending::Succeeded, rule: None, message: format!("{}{}", succeeded(run), note(s, run)) };
    ends(s, run, end, now)
}

/// Hits these, if nothing stands in the way now.
fn strike(
    s: &DrillSnapshot,
    run: &Run,
    states: &[(&Victim, State)],
    next: Vec<usize>,
    now: Timestamp,
) -> DrillDecision {
    let victims: Vec<Victim> = next.iter().filter_map(|place| run.victims.get(*place).cloned()).collect();
    let Some(why) = rules::hindrance(s, run.exercise, &victims, now) else { return DrillDecision::Strike(next) };
    let moved = states.iter().filter_map(|(_, state)| match state {
        State::Moved { at, .. } => Some(*at),
        _ => None,
    });
    match moved.max() {
        // After the first of several, the shard needs a moment until its old primary follows.
        Some(last) if why.rule.passes_by_itself() && now < rules::recovered_by(last) => {
            DrillDecision::GoOn { doing: format!("waiting to go on: {}", why.message) }
        }
        _ => aborted(s, run, &why, now),
    }
}

fn places(states: &[(&Victim, State)], wanted: impl Fn(&State) -> bool) -> Vec<usize> {
    states.iter().enumerate().filter(|(_, (_, state))| wanted(state)).map(|(place, _)| place).collect()
}

fn state(s: &DrillSnapshot, run: &Run, victim: &Victim, now: Timestamp) -> State {
    if let Some(error) = &victim.error {
        return State::Failed(format!("{} of {} could not be hit: {error}", victim.replica, victim.shard));
    }
    let Some(struck_at) = victim.struck_at else { return State::Pending };
    if let Some(change) = change(s, run, victim) {
        let said = || change.message.as_ref().map_or_else(String::new, |words| format!(": {words}"));
        match change.outcome {
            Some(Outcome::Refused) => return State::Failed(format!("{} was refused{}", change.name, said())),
            Some(Outcome::Failed) => return State::Failed(format!("{} failed{}", change.name, said())),
            Some(Outcome::Confirmed) => {
                return State::Failed(format!("{} stayed primary ({}){}", victim.replica, change.name, said()));
            }
            Some(Outcome::Succeeded) | None => {}
        }
        if let Some(at) = change.moved_at {
            return State::Moved { at, measured: change.gap.is_some() };
        }
    }
    let within = match run.exercise {
        Exercise::Switchover => SWITCHED_WITHIN,
        Exercise::Fault(_) if run.exercise.is_held() => run.hold + REPLACED_WITHIN,
        Exercise::Fault(_) => REPLACED_WITHIN,
    };
    if now < after(struck_at, within) {
        return State::Struck(struck_at);
    }
    let seconds = within.as_secs();
    State::Failed(format!("{} of {} was hit, and {seconds} s later it was not replaced", victim.replica, victim.shard))
}

/// What came of hitting a victim.
fn change<'a>(s: &'a DrillSnapshot, run: &Run, victim: &Victim) -> Option<&'a Change> {
    let struck_at = victim.struck_at?;
    // Epochs tell before from after whatever the API server's clock says; by that an object is made in whole seconds.
    let since = |change: &Change| match change.epoch {
        Some(epoch) => epoch > victim.epoch,
        None => change.made.as_second() >= struck_at.as_second(),
    };
    s.changes.iter().find(|change| match run.exercise {
        Exercise::Switchover => change.name == request_name(&run.id, victim),
        Exercise::Fault(_) => {
            change.shard == victim.shard && change.from.as_ref() == Some(&victim.replica) && since(change)
        }
    })
}

fn failure(state: &State) -> Option<&str> {
    match state {
        State::Failed(words) => Some(words),
        _ => None,
    }
}

fn aborted(s: &DrillSnapshot, run: &Run, why: &Hindrance, now: Timestamp) -> DrillDecision {
    let message = format!("{}: {}{}", why.rule, why.message, note(s, run));
    ends(s, run, End { ending: Ending::Aborted, rule: Some(why.rule), message }, now)
}

fn succeeded(run: &Run) -> String {
    let what = match run.exercise {
        Exercise::Switchover => "another is primary, as planned",
        Exercise::Fault(_) => "was hit and replaced",
    };
    let victims: Vec<_> = run.victims.iter().map(|victim| format!("{} of {}", victim.replica, victim.shard)).collect();
    format!("{}: {what}", victims.join(", "))
}

/// What a person should know beside how the run ended: a manager that ends takes its mysqld with it, stopped or not.
fn note(s: &DrillSnapshot, run: &Run) -> String {
    let hit = run.victims.iter().filter(|victim| run.exercise.is_held() && victim.struck_at.is_some());
    let restarted = hit.filter(|victim| is_restarted(s, victim));
    let words =
        restarted.map(|victim| format!("; the manager of {} ended meanwhile, and the fault with it", victim.replica));
    words.collect()
}

fn is_restarted(s: &DrillSnapshot, victim: &Victim) -> bool {
    victim.restarts.zip(s.pods.get(&victim.replica)).is_some_and(|(before, now)| *now > before)
}

/// Whether a fault may still be in a victim: it was not let go of, its pod and its manager are those that were hit, and its time is not over.
fn may_be_held(s: &DrillSnapshot, run: &Run, victim: &Victim, now: Timestamp) -> bool {
    let within = |struck_at| now < after(struck_at, run.hold + REACHES_WITHIN);
    run.exercise.is_held()
        && victim.struck_at.is_some_and(within)
        && victim.released_at.is_none()
        && s.pods.contains_key(&victim.replica)
        && !is_restarted(s, victim)
}

/// A run that did not go well has not ended before what it did has. Who was replaced is let be: it serves nobody, and its pod goes.
fn ends(s: &DrillSnapshot, run: &Run, end: End, now: Timestamp) -> DrillDecision {
    let held = run.victims.iter().enumerate().filter(|(_, victim)| may_be_held(s, run, victim, now));
    let places: Vec<_> = held.map(|(place, _)| place).filter(|_| end.ending != Ending::Succeeded).collect();
    if places.is_empty() { finish(s, run, end) } else { DrillDecision::LetGo { end, places } }
}

fn finish(s: &DrillSnapshot, run: &Run, end: End) -> DrillDecision {
    let gaps = run.victims.iter().filter(|victim| victim.struck_at.is_some()).map(|victim| {
        let change = change(s, run, victim);
        Gap {
            shard: victim.shard.clone(),
            failover: change.map(|change| change.name.clone()),
            seconds: change.and_then(|change| change.gap),
        }
    });
    DrillDecision::Finish(Report { end, gaps: gaps.collect() })
}
