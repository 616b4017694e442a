//! A Drill of which a run is due on shards that are well, to be spoiled by a test in one line.

use std::collections::BTreeSet;

use jiff::civil::{Weekday, time};
use jiff::{SignedDuration, Timestamp};
use understudy_decide::drill::snapshot::*;
use understudy_decide::drill::{DrillDecision, DrillSnapshot, End, Report, Rule, plan};
use understudy_decide::failover::record::Outcome;
use understudy_decide::failover::snapshot::Mode;
use understudy_wire::order::Fault;
use understudy_wire::{Epoch, ReplicaName, ShardName};

pub const WEDGE: Exercise = Exercise::Fault(Fault::Wedge);
pub const KILL: Exercise = Exercise::Fault(Fault::Kill);

/// A Monday, at ten in the morning.
pub fn monday() -> Timestamp {
    "2026-03-02T10:00:00Z".parse().expect("a time")
}

pub fn later(seconds: i64) -> Timestamp {
    monday() + SignedDuration::from_secs(seconds)
}

pub fn shard(node: &str, zone: &str, primary: &str) -> Shard {
    Shard {
        primary: Some(ReplicaName::new(primary)),
        epoch: Epoch(4),
        changing: false,
        health: Health::Healthy,
        redundant: true,
        promotable: 2,
        paused: false,
        mode: Mode::Automatic,
        node: Some(node.to_owned()),
        zone: Some(zone.to_owned()),
        equipped: Fault::ALL.into(),
        cooling_until: None,
        unavailable: 12.0,
    }
}

/// A Drill of which a run is due now on three shards that are well: two primaries on one node, all in one zone but one.
pub fn scene(exercise: Exercise, scope: Scope) -> DrillSnapshot {
    let shards = [("m-0", "n1", "z1"), ("m-1", "n1", "z1"), ("m-2", "n2", "z2")];
    DrillSnapshot {
        name: "weekly".to_owned(),
        uid: "u1".to_owned(),
        policy: Policy {
            schedule: Some("0 10 * * MON".to_owned()),
            zone: None,
            scope,
            exercise,
            hold: SignedDuration::from_secs(30),
            require_healthy: true,
            require_redundancy: true,
            max_unavailable: 300.0,
            windows: Vec::new(),
            suspended: false,
            requested: None,
            allowed: Fault::ALL.into(),
            allowed_by: "Datastore m".to_owned(),
        },
        status: Status { next_run: Some(monday()), ..Status::default() },
        absent: None,
        shards: shards
            .iter()
            .map(|(name, node, zone)| (ShardName::new(*name), shard(node, zone, &format!("{name}-a"))))
            .collect(),
        others: Vec::new(),
        changes: Vec::new(),
        awake: SignedDuration::from_secs(600),
        leaving: false,
        pods: shards.iter().map(|(name, ..)| (ReplicaName::new(format!("{name}-a")), 0)).collect(),
    }
}

pub fn one() -> Scope {
    Scope::Shard(ShardName::new("m-0"))
}

pub fn of<'a>(s: &'a mut DrillSnapshot, name: &str) -> &'a mut Shard {
    s.shards.get_mut(&ShardName::new(name)).expect("a shard")
}

pub fn begun(s: &DrillSnapshot, now: Timestamp) -> Run {
    match plan(s, now) {
        DrillDecision::Start { run, .. } => run,
        other => panic!("{other:?}"),
    }
}

pub fn skipped(s: &DrillSnapshot, now: Timestamp) -> Rule {
    match plan(s, now) {
        DrillDecision::Skip { why, .. } => why.rule,
        other => panic!("{other:?}"),
    }
}

pub fn finished(s: &DrillSnapshot, now: Timestamp) -> Report {
    match plan(s, now) {
        DrillDecision::Finish(report) => report,
        other => panic!("{other:?}"),
    }
}

/// Those that are told to let go, and how the run ends.
pub fn let_go(s: &DrillSnapshot, now: Timestamp) -> (Vec<usize>, End) {
    match plan(s, now) {
        DrillDecision::LetGo { end, places } => (places, end),
        other => panic!("{other:?}"),
    }
}

pub fn whom(run: &Run) -> Vec<&str> {
    run.victims.iter().map(|victim| victim.shard.as_str()).collect()
}

/// The run that was written down, with these of its victims hit so long after it was begun.
pub fn running(mut s: DrillSnapshot, struck: &[(usize, i64)]) -> DrillSnapshot {
    let mut run = begun(&s, monday());
    for (place, seconds) in struck {
        run.victims[*place].struck_at = Some(later(*seconds));
    }
    s.status = Status { run: Some(run), ..Status::default() };
    s
}

/// The record of a change that the run caused.
pub fn change(s: &DrillSnapshot, place: usize, made: i64) -> Change {
    let run = s.status.run.as_ref().expect("a run");
    let victim = &run.victims[place];
    Change {
        name: format!("{}-{}", run.id, victim.shard),
        shard: victim.shard.clone(),
        from: Some(victim.replica.clone()),
        epoch: None,
        made: later(made),
        moved_at: Some(later(made + 1)),
        outcome: None,
        gap: Some(2.5),
        message: None,
    }
}

pub type Spoil = fn(&mut DrillSnapshot);

/// What must keep a wedge of m-0 from beginning, each by one change to a scene in which it would begin.
pub const HINDRANCES: &[(&str, Rule, Spoil)] = &[
    ("there is no such Datastore", Rule::Absent, |s| s.absent = Some("there is no Datastore m".to_owned())),
    ("it was deleted", Rule::Deleted, |s| s.leaving = true),
    ("suspended", Rule::Suspended, |s| s.policy.suspended = true),
    ("a month of 13", Rule::ScheduleUnusable, |s| s.policy.schedule = Some("0 10 * 13 *".to_owned())),
    ("a 30th of February", Rule::ScheduleUnusable, |s| s.policy.schedule = Some("0 10 30 2 *".to_owned())),
    ("no such zone", Rule::ScheduleUnusable, |s| s.policy.zone = Some("Europe/Atlantis".to_owned())),
    ("not allowed", Rule::NotAllowed, |s| s.policy.allowed = [Fault::Kill, Fault::Freeze].into()),
    ("no such shard", Rule::NoVictim, |s| s.policy.scope = Scope::Shard(ShardName::new("m-7"))),
    ("a shard without a primary", Rule::NoVictim, |s| of(s, "m-0").primary = None),
    ("an empty node", Rule::NoVictim, |s| s.policy.scope = Scope::Node(Some("n3".to_owned()))),
    ("the window is on Tuesday", Rule::OutsideWindow, |s| s.policy.windows = vec![window(Weekday::Tuesday, 0, 23)]),
    ("a window nobody can read", Rule::OutsideWindow, |s| {
        s.policy.windows = vec![Window { days: vec![], hours: None }]
    }),
    ("another Drill", Rule::AnotherRuns, |s| s.others = vec!["monthly".to_owned()]),
    ("a paused shard", Rule::Paused, |s| of(s, "m-0").paused = true),
    ("a person decides", Rule::LeftToPerson, |s| of(s, "m-0").mode = Mode::Manual),
    ("nobody decides", Rule::LeftToPerson, |s| of(s, "m-0").mode = Mode::Paused),
    ("an old manager", Rule::NotEquipped, |s| of(s, "m-0").equipped = BTreeSet::new()),
    ("its primary is being changed", Rule::ChangeUnderWay, |s| of(s, "m-0").changing = true),
    ("another primary is being changed", Rule::ChangeUnderWay, |s| of(s, "m-2").changing = true),
    ("it is suspect", Rule::Unhealthy, |s| of(s, "m-0").health = Health::Unwell("Suspect".to_owned())),
    ("another is stuck", Rule::Unhealthy, |s| of(s, "m-2").health = Health::Unwell("Stuck".to_owned())),
    ("nobody knows of another", Rule::Unhealthy, |s| of(s, "m-2").health = Health::Unknown),
    ("no standby", Rule::NotRedundant, |s| of(s, "m-0").promotable = 0),
    ("another has no standby", Rule::NotRedundant, |s| of(s, "m-2").promotable = 0),
    ("a copy is being built", Rule::NotRedundant, |s| of(s, "m-0").redundant = false),
    ("a copy of another is being built", Rule::NotRedundant, |s| of(s, "m-2").redundant = false),
    ("the budget is spent", Rule::BudgetSpent, |s| {
        let gap = |name: &str, seconds| past(name, "m-0", -86_400, seconds);
        s.changes = vec![gap("m-0-3", 200.0), gap("m-0-4", 100.0)];
    }),
    ("the budget is spent, and nothing is on record", Rule::BudgetSpent, |s| of(s, "m-0").unavailable = 300.0),
    ("soft evidence does not count", Rule::CoolingDown, |s| of(s, "m-0").cooling_until = Some(later(3600))),
];

pub fn window(day: Weekday, from: i8, to: i8) -> Window {
    Window { days: vec![day], hours: Some((time(from, 0, 0, 0), time(to, 0, 0, 0))) }
}

pub fn past(name: &str, shard: &str, made: i64, gap: f64) -> Change {
    Change {
        name: name.to_owned(),
        shard: ShardName::new(shard),
        from: None,
        epoch: None,
        made: later(made),
        moved_at: Some(later(made)),
        outcome: Some(Outcome::Succeeded),
        gap: Some(gap),
        message: None,
    }
}
