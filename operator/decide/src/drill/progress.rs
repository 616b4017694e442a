//! A run that was begun: whom to hit next, and when it has ended. Pure.

use jiff::{SignedDuration, Timestamp};

use super::after;
use super::decision::{DrillDecision, Ending, Gap, Hindrance, Report};
use super::rules;
use super::snapshot::{Change, DrillSnapshot, Exercise, Run, Victim};
use crate::failover::record::Outcome;

/// A primary that was hit is replaced within this, after the end of a fault that is held.
pub const REPLACED_WITHIN: SignedDuration = SignedDuration::from_secs(60);
/// A switchover that was asked for has ended within this.
pub const SWITCHED_WITHIN: SignedDuration = SignedDuration::from_secs(120);
/// The first commit after a change is seen within this, or its gap stays unknown.
pub const MEASURED_WITHIN: SignedDuration = SignedDuration::from_secs(120);

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
    let states: Vec<(&Victim, State)> = run.victims.iter().map(|victim| (victim, state(s, run, victim, now))).collect();
    if let Some(words) = states.iter().find_map(|(_, state)| failure(state)) {
        return finish(s, run, Ending::Failed, words.to_owned());
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
        return aborted(s, run, &why);
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
    if states.iter().any(|(_, state)| unmeasured(state)) {
        return DrillDecision::GoOn { doing: "every victim was replaced; waiting for the first commits".to_owned() };
    }
    finish(s, run, Ending::Succeeded, succeeded(run))
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
        _ => aborted(s, run, &why),
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
        Exercise::Fault(_) if run.exercise.is_held() => s.policy.hold + REPLACED_WITHIN,
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

fn aborted(s: &DrillSnapshot, run: &Run, why: &Hindrance) -> DrillDecision {
    finish(s, run, Ending::Aborted, format!("{}: {}", why.rule, why.message))
}

fn succeeded(run: &Run) -> String {
    let what = match run.exercise {
        Exercise::Switchover => "another is primary, as planned",
        Exercise::Fault(_) => "was hit and replaced",
    };
    let victims: Vec<_> = run.victims.iter().map(|victim| format!("{} of {}", victim.replica, victim.shard)).collect();
    format!("{}: {what}", victims.join(", "))
}

fn finish(s: &DrillSnapshot, run: &Run, ending: Ending, message: String) -> DrillDecision {
    let gaps = run.victims.iter().filter(|victim| victim.struck_at.is_some()).map(|victim| {
        let change = change(s, run, victim);
        Gap {
            shard: victim.shard.clone(),
            failover: change.map(|change| change.name.clone()),
            seconds: change.and_then(|change| change.gap),
        }
    });
    let hit = run.victims.iter().any(|victim| victim.struck_at.is_some());
    let heal = ending != Ending::Succeeded && run.exercise.is_held() && hit;
    DrillDecision::Finish(Report { ending, message, gaps: gaps.collect(), heal })
}
