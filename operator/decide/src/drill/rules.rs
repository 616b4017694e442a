//! Whether anything may be done. Pure.
//!
//! The same rules are asked when a run is due, right before each fault, and, those that can change, while a fault is held.

use jiff::{SignedDuration, Timestamp};
use understudy_wire::ShardName;
use understudy_wire::order::Fault;

use super::decision::{Due, Hindrance, Rule};
use super::snapshot::{DrillSnapshot, Exercise, Health, Run, Shard, Victim};
use super::{ASKED_WITHIN, BEGINS_WITHIN, after, schedule};
use crate::failover::snapshot::Mode;

/// The budget of unavailability is counted over this long.
pub const BUDGET_OVER: SignedDuration = SignedDuration::from_hours(30 * 24);

/// A shard that had no commit for so many seconds over [`BUDGET_OVER`] is left in peace, whatever the spec of a Drill says: who may write a Drill is
/// not who answers for the Datastore.
pub const MOST_UNAVAILABLE: f64 = 3600.0;
/// Primaries that one run may hit: what it does is bounded, and what is written of it.
pub const MOST_VICTIMS: usize = 40;
/// What a wedge leaves is soft evidence, and the breaker over the fleet takes that of three shards at once for a shared cause.
const MOST_WEDGED: usize = 2;

/// What stands in the way of every run, until somebody changes something.
pub fn standing(s: &DrillSnapshot) -> Option<Hindrance> {
    if s.leaving {
        return Some(Hindrance::new(
            Rule::Deleted,
            "the Drill was deleted: it goes when nothing that it did is held any more",
        ));
    }
    if let Some(words) = &s.absent {
        return Some(Hindrance::new(Rule::Absent, words.clone()));
    }
    if s.policy.suspended {
        return Some(Hindrance::new(Rule::Suspended, "suspend is set: nothing is begun until it is taken away"));
    }
    if let Some(words) = schedule::unusable(&s.policy) {
        return Some(Hindrance::new(Rule::ScheduleUnusable, words));
    }
    not_allowed(s, s.policy.exercise)
}

fn not_allowed(s: &DrillSnapshot, exercise: Exercise) -> Option<Hindrance> {
    let Exercise::Fault(fault) = exercise else { return None };
    if s.policy.allowed.contains(&fault) {
        return None;
    }
    let words = format!(
        "put {fault} into spec.drills.faults of {} to allow it, or take the fault Switchover",
        s.policy.allowed_by
    );
    Some(Hindrance::new(Rule::NotAllowed, words))
}

/// Whether it is too late to begin a run.
pub fn late(due: Due, now: Timestamp) -> Option<Hindrance> {
    let (within, what) = match due {
        Due::Scheduled(_) => (BEGINS_WITHIN, "the schedule asked for"),
        Due::Requested(_) => (ASKED_WITHIN, "spec.requestedAt asked for"),
    };
    let is_late = now.duration_since(due.at()) >= within;
    let words = || {
        let (at, seconds) = (due.at(), within.as_secs());
        format!("{what} a run at {at}, and it could not begin within {seconds} s: it is not made up for")
    };
    is_late.then(|| Hindrance::new(Rule::Missed, words()))
}

/// What stands in the way of doing this to these now; nobody of them has been hit yet.
pub fn hindrance(s: &DrillSnapshot, exercise: Exercise, victims: &[Victim], now: Timestamp) -> Option<Hindrance> {
    standing(s)
        .or_else(|| not_allowed(s, exercise))
        .or_else(|| too_many(exercise, victims))
        .or_else(|| closed(s, now))
        .or_else(|| another_runs(s))
        .or_else(|| victims.iter().find_map(|victim| of_victim(s, exercise, victim, now)))
        .or_else(|| s.shards.iter().find_map(|(name, shard)| of_company(s, name, shard)))
}

fn too_many(exercise: Exercise, victims: &[Victim]) -> Option<Hindrance> {
    let count = victims.len();
    let why = match exercise {
        Exercise::Fault(Fault::Wedge) if count > MOST_WEDGED => {
            format!("nobody would replace more than {MOST_WEDGED} that are wedged at once")
        }
        _ if count > MOST_VICTIMS => {
            format!("one run changes {MOST_VICTIMS} at most: take the scope Node, Shard or Random")
        }
        _ => return None,
    };
    Some(Hindrance::new(Rule::TooMany, format!("{count} shards are in the scope, and {why}")))
}

fn closed(s: &DrillSnapshot, now: Timestamp) -> Option<Hindrance> {
    // A zone that is not known was found out before.
    let is_open = schedule::zone(&s.policy).is_ok_and(|zone| schedule::is_open(&s.policy.windows, &zone, now));
    (!is_open).then(|| Hindrance::new(Rule::OutsideWindow, "none of abort.windows is open"))
}

fn another_runs(s: &DrillSnapshot) -> Option<Hindrance> {
    let other = s.others.first()?;
    let words = format!("Drill {other} has a run on the same shards that goes on: one at a time");
    Some(Hindrance::new(Rule::AnotherRuns, words))
}

/// What stands in the way of hitting one primary.
fn of_victim(s: &DrillSnapshot, exercise: Exercise, victim: &Victim, now: Timestamp) -> Option<Hindrance> {
    let name = &victim.shard;
    let no = |rule, words: String| Some(Hindrance::new(rule, words));
    let Some(shard) = s.shards.get(name) else {
        return no(Rule::PrimaryChanged, format!("Shard {name} is not there any more"));
    };
    if shard.primary.as_ref() != Some(&victim.replica) || shard.epoch != victim.epoch {
        let replica = &victim.replica;
        return no(
            Rule::PrimaryChanged,
            format!("{replica} is not the primary of {name} under epoch {} any more", victim.epoch),
        );
    }
    if shard.paused {
        return no(Rule::Paused, format!("spec.paused stops every action on {name}"));
    }
    match (shard.mode, exercise) {
        (Mode::Paused, _) => {
            return no(Rule::LeftToPerson, format!("failover.mode of {name} is Paused: its primary is not changed"));
        }
        (Mode::Manual, Exercise::Fault(_)) => {
            let words = format!("failover.mode of {name} is Manual: nobody would replace the primary that was hit");
            return no(Rule::LeftToPerson, words);
        }
        (Mode::Automatic | Mode::Manual, _) => {}
    }
    if let Exercise::Fault(fault) = exercise
        && !shard.equipped.contains(&fault)
    {
        let words = format!(
            "{} was made before {fault} was allowed, and its manager refuses it: replicas that are made from now on take it (a switchover to \
             one of them is enough)",
            victim.replica
        );
        return no(Rule::NotEquipped, words);
    }
    unwell(name, shard)
        .or_else(|| alone(name, shard))
        .or_else(|| over_budget(s, name, shard.unavailable, 0.0, now))
        .or_else(|| cooling(name, shard, exercise, now))
}

/// What stands in the way at any shard of the Datastore, those that are hit among them.
fn of_company(s: &DrillSnapshot, name: &ShardName, shard: &Shard) -> Option<Hindrance> {
    let health = s.policy.require_healthy.then(|| unwell(name, shard)).flatten();
    let copies = || s.policy.require_redundancy.then(|| alone(name, shard).or_else(|| short(name, shard))).flatten();
    health.or_else(copies)
}

fn unwell(name: &ShardName, shard: &Shard) -> Option<Hindrance> {
    if shard.changing {
        let words = format!("the primary of {name} is being changed");
        return Some(Hindrance::new(Rule::ChangeUnderWay, words));
    }
    let words = match &shard.health {
        Health::Healthy => return None,
        Health::Unwell(verdict) => format!("{name} is {verdict}"),
        Health::Unknown => format!("nobody says how {name} is"),
    };
    Some(Hindrance::new(Rule::Unhealthy, words))
}

fn alone(name: &ShardName, shard: &Shard) -> Option<Hindrance> {
    let words = || format!("no standby of {name} could take over now");
    (shard.promotable == 0).then(|| Hindrance::new(Rule::NotRedundant, words()))
}

fn short(name: &ShardName, shard: &Shard) -> Option<Hindrance> {
    let words = || format!("{name} has not all its intact copies");
    (!shard.redundant).then(|| Hindrance::new(Rule::NotRedundant, words()))
}

/// `told` is what was counted without the records: whichever is more counts. `more` is what goes on.
fn over_budget(s: &DrillSnapshot, name: &ShardName, told: f64, more: f64, now: Timestamp) -> Option<Hindrance> {
    let lately = |at: Timestamp| now.duration_since(at) <= BUDGET_OVER;
    let its = s.changes.iter().filter(|change| change.shard == *name && lately(change.made));
    let seconds = its.filter_map(|change| change.gap).sum::<f64>().max(told) + more;
    let most = s.policy.max_unavailable.min(MOST_UNAVAILABLE);
    let words = || {
        format!(
            "{name} had no commit for {seconds:.1} s over the last 30 days, and {most:.0} s is what drills may cost \
             (abort.maxUnavailableSeconds, {MOST_UNAVAILABLE:.0} at most)"
        )
    };
    (seconds >= most).then(|| Hindrance::new(Rule::BudgetSpent, words()))
}

/// What a wedge leaves is soft evidence, and that does not count so soon after a change of primary.
fn cooling(name: &ShardName, shard: &Shard, exercise: Exercise, now: Timestamp) -> Option<Hindrance> {
    let until = shard.cooling_until.filter(|until| *until > now && exercise == Exercise::Fault(Fault::Wedge))?;
    let words =
        format!("the primary of {name} was changed a while ago: until {until} a wedged one would not be replaced");
    Some(Hindrance::new(Rule::CoolingDown, words))
}

/// Why what is held must be let go: those were hit and are not replaced yet, since then.
pub fn to_be_ended(s: &DrillSnapshot, run: &Run, held: &[(&Victim, Timestamp)], now: Timestamp) -> Option<Hindrance> {
    if s.leaving {
        return Some(Hindrance::new(Rule::Deleted, "the Drill was deleted"));
    }
    if s.policy.suspended {
        return Some(Hindrance::new(Rule::Suspended, "suspend was set"));
    }
    let budget = held.iter().find_map(|(victim, struck_at)| {
        let since = now.duration_since(*struck_at).as_secs_f64();
        // The status may tell of the present time already.
        over_budget(s, &victim.shard, 0.0, since, now)
    });
    let is_victim = |name: &ShardName| run.victims.iter().any(|victim| victim.shard == *name);
    let bystander = || {
        let others = s.shards.iter().filter(|(name, _)| s.policy.require_healthy && !is_victim(name));
        others
            .filter(|(_, shard)| matches!(shard.health, Health::Unwell(_)))
            .find_map(|(name, shard)| unwell(name, shard))
    };
    budget.or_else(bystander)
}

/// How long a run that was begun may wait for what passes by itself.
pub fn recovered_by(since: Timestamp) -> Timestamp {
    after(since, SignedDuration::from_secs(600))
}
