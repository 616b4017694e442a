//! When a drill begins, whom it hits, what keeps it from that, and how it ends.

use std::collections::BTreeSet;
use std::path::Path;

use jiff::civil::{Weekday, time};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use strum::IntoEnumIterator;
use understudy_decide::drill::schedule::{Schedule, announced};
use understudy_decide::drill::snapshot::*;
use understudy_decide::drill::{DrillDecision, DrillSnapshot, Due, Ending, Report, Rule, plan};
use understudy_decide::failover::record::Outcome;
use understudy_decide::failover::snapshot::Mode;
use understudy_wire::order::Fault;
use understudy_wire::{Epoch, ReplicaName, ShardName};

const WEDGE: Exercise = Exercise::Fault(Fault::Wedge);
const KILL: Exercise = Exercise::Fault(Fault::Kill);

/// A Monday, at ten in the morning.
fn monday() -> Timestamp {
    "2026-03-02T10:00:00Z".parse().expect("a time")
}

fn later(seconds: i64) -> Timestamp {
    monday() + SignedDuration::from_secs(seconds)
}

fn shard(node: &str, zone: &str, primary: &str) -> Shard {
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
    }
}

/// A Drill of which a run is due now on three shards that are well: two primaries on one node, all in one zone but one.
fn scene(exercise: Exercise, scope: Scope) -> DrillSnapshot {
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
    }
}

fn one() -> Scope {
    Scope::Shard(ShardName::new("m-0"))
}

fn of<'a>(s: &'a mut DrillSnapshot, name: &str) -> &'a mut Shard {
    s.shards.get_mut(&ShardName::new(name)).expect("a shard")
}

fn begun(s: &DrillSnapshot, now: Timestamp) -> Run {
    match plan(s, now) {
        DrillDecision::Start { run, .. } => run,
        other => panic!("{other:?}"),
    }
}

fn skipped(s: &DrillSnapshot, now: Timestamp) -> Rule {
    match plan(s, now) {
        DrillDecision::Skip { why, .. } => why.rule,
        other => panic!("{other:?}"),
    }
}

fn finished(s: &DrillSnapshot, now: Timestamp) -> Report {
    match plan(s, now) {
        DrillDecision::Finish(report) => report,
        other => panic!("{other:?}"),
    }
}

fn whom(run: &Run) -> Vec<&str> {
    run.victims.iter().map(|victim| victim.shard.as_str()).collect()
}

/// The run that was written down, with these of its victims hit so long after it was begun.
fn running(mut s: DrillSnapshot, struck: &[(usize, i64)]) -> DrillSnapshot {
    let mut run = begun(&s, monday());
    for (place, seconds) in struck {
        run.victims[*place].struck_at = Some(later(*seconds));
    }
    s.status = Status { run: Some(run), ..Status::default() };
    s
}

/// The record of a change that the run caused.
fn change(s: &DrillSnapshot, place: usize, made: i64) -> Change {
    let run = s.status.run.as_ref().expect("a run");
    let victim = &run.victims[place];
    Change {
        name: format!("{}-{}", run.id, victim.shard),
        shard: victim.shard.clone(),
        from: Some(victim.replica.clone()),
        made: later(made),
        moved_at: Some(later(made + 1)),
        outcome: None,
        gap: Some(2.5),
        message: None,
    }
}

type Spoil = fn(&mut DrillSnapshot);

/// What must keep a wedge of m-0 from beginning, each by one change to a scene in which it would begin.
const HINDRANCES: &[(&str, Rule, Spoil)] = &[
    ("there is no such Datastore", Rule::Absent, |s| s.absent = Some("there is no Datastore m".to_owned())),
    ("suspended", Rule::Suspended, |s| s.policy.suspended = true),
    ("a month of 13", Rule::ScheduleUnusable, |s| s.policy.schedule = Some("0 10 * 13 *".to_owned())),
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
    ("soft evidence does not count", Rule::CoolingDown, |s| of(s, "m-0").cooling_until = Some(later(3600))),
];

fn window(day: Weekday, from: i8, to: i8) -> Window {
    Window { days: vec![day], hours: Some((time(from, 0, 0, 0), time(to, 0, 0, 0))) }
}

fn past(name: &str, shard: &str, made: i64, gap: f64) -> Change {
    Change {
        name: name.to_owned(),
        shard: ShardName::new(shard),
        from: None,
        made: later(made),
        moved_at: Some(later(made)),
        outcome: Some(Outcome::Succeeded),
        gap: Some(gap),
        message: None,
    }
}

#[test]
fn each_rule_keeps_a_run_from_beginning() {
    assert_eq!(
        whom(&begun(&scene(WEDGE, one()), monday())),
        ["m-0"],
        "nothing stands in the way but for what a case adds"
    );
    for (case, rule, spoil) in HINDRANCES {
        let mut s = scene(WEDGE, one());
        spoil(&mut s);
        assert_eq!(skipped(&s, later(5)), *rule, "{case}");
    }
}

#[test]
fn each_rule_is_asked_again_right_before_the_fault() {
    let s = running(scene(WEDGE, one()), &[]);
    assert_eq!(plan(&s, later(1)), DrillDecision::Strike(vec![0]));
    for (case, rule, spoil) in HINDRANCES.iter().filter(|(_, rule, _)| *rule != Rule::NoVictim) {
        let mut s = s.clone();
        spoil(&mut s);
        let report = finished(&s, later(1));
        assert_eq!(report.ending, Ending::Aborted, "{case}");
        assert!(report.message.starts_with(&format!("{rule}: ")), "{case}: {}", report.message);
        assert!(!report.heal && report.gaps.is_empty(), "{case}: nothing was done");
    }
    let changed: [(&str, Spoil); 3] = [
        ("another primary", |s| of(s, "m-0").primary = Some(ReplicaName::new("m-0-b"))),
        ("the same under another epoch", |s| of(s, "m-0").epoch = Epoch(5)),
        ("no shard", |s| drop(s.shards.remove(&ShardName::new("m-0")))),
    ];
    for (case, spoil) in changed {
        let mut s = s.clone();
        spoil(&mut s);
        assert!(finished(&s, later(1)).message.starts_with("PrimaryChanged: "), "{case}");
    }
}

#[test]
fn what_is_not_required_stands_in_nobodys_way_but_that_of_the_shard_that_is_hit() {
    let calm = |spoil: Spoil| {
        let mut s = scene(KILL, one());
        (s.policy.require_healthy, s.policy.require_redundancy) = (false, false);
        spoil(&mut s);
        s
    };
    let harmless: [(&str, Spoil); 6] = [
        ("another is stuck", |s| of(s, "m-2").health = Health::Unwell("Stuck".to_owned())),
        ("another has no standby", |s| of(s, "m-2").promotable = 0),
        ("one of three copies is missing", |s| of(s, "m-0").redundant = false),
        ("hard evidence counts at any time", |s| of(s, "m-0").cooling_until = Some(later(3600))),
        ("another shard's budget", |s| s.changes = vec![past("m-1-3", "m-1", -60, 900.0)]),
        ("a gap of long ago", |s| s.changes = vec![past("m-0-3", "m-0", -31 * 86_400, 900.0)]),
    ];
    for (case, spoil) in harmless {
        assert_eq!(whom(&begun(&calm(spoil), monday())), ["m-0"], "{case}");
    }
    assert_eq!(skipped(&calm(|s| of(s, "m-0").health = Health::Unknown), monday()), Rule::Unhealthy);
    assert_eq!(skipped(&calm(|s| of(s, "m-0").promotable = 0), monday()), Rule::NotRedundant);
}

#[test]
fn a_switchover_needs_no_permission_and_no_more_than_manual() {
    let mut s = scene(Exercise::Switchover, one());
    s.policy.allowed = BTreeSet::new();
    of(&mut s, "m-0").equipped = BTreeSet::new();
    of(&mut s, "m-0").mode = Mode::Manual;
    assert_eq!(whom(&begun(&s, monday())), ["m-0"]);
}

#[test]
fn a_scope_names_its_victims() {
    let node = |name: Option<&str>| Scope::Node(name.map(str::to_owned));
    let zone = |name: Option<&str>| Scope::Zone(name.map(str::to_owned));
    for (case, scope, expected) in [
        ("a shard", one(), vec!["m-0"]),
        ("a node", node(Some("n1")), vec!["m-0", "m-1"]),
        ("another node", node(Some("n2")), vec!["m-2"]),
        ("a zone", zone(Some("z1")), vec!["m-0", "m-1"]),
    ] {
        assert_eq!(whom(&begun(&scene(KILL, scope), monday())), expected, "{case}");
    }
    for scope in [Scope::Random, node(None), zone(None)] {
        let of_week = |week: i64| {
            let mut s = scene(KILL, scope.clone());
            let at = later(week * 7 * 86_400);
            s.status.next_run = Some(at);
            let run = begun(&s, at);
            assert_eq!(
                begun(&s, at + SignedDuration::from_secs(9)).victims,
                run.victims,
                "the same run, the same victims"
            );
            whom(&run).join(" ")
        };
        let hit: BTreeSet<_> = (0..50).map(of_week).collect();
        let expected: &[&str] = if scope == Scope::Random { &["m-0", "m-1", "m-2"] } else { &["m-0 m-1", "m-2"] };
        assert_eq!(
            hit.iter().map(String::as_str).collect::<Vec<_>>(),
            expected,
            "{scope:?}: nobody is left out for ever"
        );
    }
}

#[test]
fn a_run_begins_when_it_was_announced_for_and_within_a_minute() {
    let s = scene(KILL, one());
    assert_eq!(plan(&s, later(-1)), DrillDecision::Wait { until: Some(monday()), because: None });
    assert_eq!(begun(&s, later(59)).id, format!("weekly-{}", monday().as_second()));
    assert_eq!(skipped(&s, later(60)), Rule::Missed);
    let unannounced = DrillSnapshot { status: Status::default(), ..s.clone() };
    let next = Some(later(7 * 86_400));
    assert_eq!(plan(&unannounced, later(5)), DrillDecision::Wait { until: next, because: None });
    for (case, decision, expected) in [
        ("it waits", plan(&s, later(-1)), Some(monday())),
        ("it begins", plan(&s, later(5)), next),
        ("it was missed", plan(&s, later(60)), next),
        ("a run goes on over it", DrillDecision::GoOn { doing: String::new() }, Some(monday())),
    ] {
        assert_eq!(announced(&s, &decision, later(60)), expected, "{case}");
    }
}

#[test]
fn an_operator_that_has_just_begun_to_look_waits_until_it_has_looked() {
    let s = DrillSnapshot { awake: SignedDuration::from_secs(5), ..scene(KILL, one()) };
    assert_eq!(plan(&s, later(2)), DrillDecision::Wait { until: Some(later(12)), because: None });
}

#[test]
fn what_a_person_asks_for_is_begun_once_whatever_the_schedule() {
    let mut s = scene(KILL, one());
    (s.policy.schedule, s.status.next_run, s.policy.requested) = (None, None, Some(monday()));
    let due = |s: &DrillSnapshot, now| match plan(s, now) {
        DrillDecision::Start { due, .. } | DrillDecision::Skip { due, .. } => Some(due),
        _ => None,
    };
    assert_eq!(due(&s, later(-1)), None);
    assert_eq!(due(&s, later(300)), Some(Due::Requested(monday())));
    assert_eq!(skipped(&s, later(600)), Rule::Missed, "it was asked for in another situation");
    s.status.last_requested = Some(monday());
    assert_eq!(due(&s, later(5)), None);
    s.policy.requested = Some(later(4));
    assert_eq!(due(&s, later(5)), Some(Due::Requested(later(4))));
    s.policy.suspended = true;
    assert_eq!(skipped(&s, later(5)), Rule::Suspended);
}

#[test]
fn a_schedule_is_read_in_its_time_zone() {
    for (fields, zone, expected) in [
        ("0 10 * * MON", None, "2026-03-09T10:00:00Z"),
        ("0 10 * * 1", Some("Europe/Paris"), "2026-03-09T09:00:00Z"),
        ("30 3 * * *", Some("America/New_York"), "2026-03-03T08:30:00Z"),
        ("*/15 * * * *", None, "2026-03-02T10:15:00Z"),
        // The clocks go from 2 to 3 in the night to March 29.
        ("0 10 29 3 *", Some("Europe/Paris"), "2026-03-29T08:00:00Z"),
    ] {
        let schedule = Schedule::parse(fields, zone).expect("a schedule");
        assert_eq!(schedule.next(monday()).map(|at| at.to_string()).as_deref(), Some(expected), "{fields} {zone:?}");
    }
    for (fields, zone, says) in
        [("0 10 * *", None, "needs five"), ("61 * * * *", None, "61"), ("0 0 * * *", Some("Mars"), "Mars")]
    {
        let words = Schedule::parse(fields, zone).expect_err(fields);
        assert!(words.contains(says) && !words.contains('\n'), "{words}");
    }
}

#[test]
fn a_window_may_reach_over_midnight() {
    let mut s = scene(KILL, one());
    s.policy.zone = Some("Europe/Paris".to_owned());
    s.policy.windows = vec![window(Weekday::Sunday, 22, 2)];
    for (at, is_open) in [
        ("2026-03-01T20:59:00Z", false),
        ("2026-03-01T21:00:00Z", true),
        ("2026-03-02T00:59:00Z", true),
        ("2026-03-02T01:00:00Z", false),
        ("2026-03-02T21:30:00Z", false),
    ] {
        let now: Timestamp = at.parse().expect("a time");
        s.status.next_run = Some(now);
        assert_eq!(matches!(plan(&s, now), DrillDecision::Start { .. }), is_open, "{at}");
    }
}

#[test]
fn a_fault_hits_all_at_once_and_a_switchover_one_after_the_other() {
    let node = Scope::Node(Some("n1".to_owned()));
    assert_eq!(plan(&running(scene(KILL, node.clone()), &[]), later(1)), DrillDecision::Strike(vec![0, 1]));

    let mut s = running(scene(Exercise::Switchover, node), &[]);
    assert_eq!(plan(&s, later(1)), DrillDecision::Strike(vec![0]));
    s = running(scene(Exercise::Switchover, Scope::Node(Some("n1".to_owned()))), &[(0, 1)]);
    assert!(matches!(plan(&s, later(2)), DrillDecision::GoOn { .. }), "the first is under way");
    s.changes = vec![change(&s, 0, 1)];
    assert_eq!(plan(&s, later(3)), DrillDecision::Strike(vec![1]));
    of(&mut s, "m-0").redundant = false;
    assert!(matches!(plan(&s, later(3)), DrillDecision::GoOn { .. }), "the first needs a moment");
    assert!(finished(&s, later(700)).message.starts_with("NotRedundant: "));
    of(&mut s, "m-0").redundant = true;
    s.policy.suspended = true;
    let report = finished(&s, later(3));
    assert_eq!((report.ending, report.heal), (Ending::Aborted, false));
    assert_eq!(report.gaps.len(), 1, "what the first felt is told: {report:?}");
}

#[test]
fn a_run_ends_when_every_victim_was_replaced_and_its_gap_is_known() {
    let mut s = running(scene(WEDGE, one()), &[(0, 1)]);
    assert!(matches!(plan(&s, later(20)), DrillDecision::GoOn { .. }), "it is held");
    s.changes = vec![Change { gap: None, ..change(&s, 0, 9) }];
    assert!(matches!(plan(&s, later(20)), DrillDecision::GoOn { .. }), "no consumer has committed yet");
    let late = finished(&s, later(300));
    assert_eq!((late.ending, late.gaps[0].seconds), (Ending::Succeeded, None));
    s.changes = vec![change(&s, 0, 9)];
    let report = finished(&s, later(20));
    assert_eq!((report.ending, report.heal), (Ending::Succeeded, false));
    assert_eq!((report.gaps[0].seconds, report.gaps[0].shard.as_str()), (Some(2.5), "m-0"));
    assert_eq!(report.gaps[0].failover.as_deref(), Some(s.changes[0].name.as_str()));
}

#[test]
fn a_record_from_before_the_fault_is_not_that_of_the_run() {
    let mut s = running(scene(WEDGE, one()), &[(0, 1)]);
    s.changes = vec![change(&s, 0, 0)];
    assert!(matches!(plan(&s, later(20)), DrillDecision::GoOn { .. }));
}

#[test]
fn a_run_fails_when_a_victim_is_not_replaced_and_what_is_held_is_let_go() {
    let held = running(scene(WEDGE, one()), &[(0, 1)]);
    assert!(matches!(plan(&held, later(90)), DrillDecision::GoOn { .. }));
    let report = finished(&held, later(91));
    assert_eq!((report.ending, report.heal), (Ending::Failed, true), "{}", report.message);
    for outcome in [Outcome::Refused, Outcome::Failed, Outcome::Confirmed] {
        let mut s = running(scene(Exercise::Switchover, one()), &[(0, 1)]);
        s.changes = vec![Change { outcome: Some(outcome), moved_at: None, ..change(&s, 0, 1) }];
        let report = finished(&s, later(5));
        assert_eq!((report.ending, report.heal), (Ending::Failed, false), "{outcome:?}");
    }
    let mut s = running(scene(KILL, one()), &[(0, 1)]);
    if let Some(run) = &mut s.status.run {
        run.victims[0].error = Some("its manager refused".to_owned());
    }
    let report = finished(&s, later(2));
    assert!(report.ending == Ending::Failed && report.message.contains("its manager refused"), "{report:?}");
}

#[test]
fn what_is_held_is_let_go_when_somebody_else_suffers_or_it_costs_too_much() {
    let cases: &[(&str, &str, Spoil)] = &[
        ("a bystander is stuck", "Unhealthy", |s| of(s, "m-2").health = Health::Unwell("Stuck".to_owned())),
        ("suspended", "Suspended", |s| s.policy.suspended = true),
        ("the budget ends while it is held", "BudgetSpent", |s| s.policy.max_unavailable = 10.0),
    ];
    for (case, rule, spoil) in cases {
        let mut s = running(scene(WEDGE, one()), &[(0, 1)]);
        of(&mut s, "m-0").health = Health::Unwell("Stuck".to_owned());
        assert!(matches!(plan(&s, later(12)), DrillDecision::GoOn { .. }), "the victim is meant to be");
        spoil(&mut s);
        let report = finished(&s, later(12));
        assert_eq!((report.ending, report.heal), (Ending::Aborted, true), "{case}");
        assert!(report.message.starts_with(rule), "{case}: {}", report.message);
        // What is dead cannot be healed, and its failover goes on.
        let mut killed = running(scene(KILL, one()), &[(0, 1)]);
        spoil(&mut killed);
        assert!(matches!(plan(&killed, later(12)), DrillDecision::GoOn { .. }), "{case}");
    }
}

#[test]
fn a_spec_that_was_changed_while_a_run_goes_on_does_not_change_the_run() {
    let mut s = running(scene(WEDGE, one()), &[]);
    s.policy.exercise = Exercise::Switchover;
    s.policy.allowed = BTreeSet::new();
    assert!(finished(&s, later(1)).message.starts_with("NotAllowed: "), "the run is still a wedge");
}

/// One way to spoil a scene, any of them and any number.
fn spoiled() -> impl Strategy<Value = (DrillSnapshot, i64)> {
    let exercise = prop_oneof![Just(Exercise::Switchover), Just(KILL), Just(WEDGE)];
    let scope = prop_oneof![Just(one()), Just(Scope::Random), Just(Scope::Node(None)), Just(Scope::Zone(None))];
    let harms = prop::collection::vec(0..HINDRANCES.len(), 0..3);
    let struck = prop::option::of(prop::collection::vec(prop::option::of(0..40_i64), 3));
    (exercise, scope, harms, struck, any::<bool>(), 0..200_i64).prop_map(
        |(exercise, scope, harms, struck, recorded, now)| {
            let mut s = scene(exercise, scope);
            if let Some(struck) = struck {
                s = running(s, &[]);
                if let Some(run) = &mut s.status.run {
                    for (victim, at) in run.victims.iter_mut().zip(struck) {
                        victim.struck_at = at.map(later);
                    }
                }
                if recorded {
                    s.changes = vec![change(&s, 0, 30)];
                }
            }
            for harm in harms {
                HINDRANCES[harm].2(&mut s);
            }
            (s, now)
        },
    )
}

/// What must hold of the shards that are hit, by looking at them again without the code under test.
fn may_be_hit(s: &DrillSnapshot, exercise: Exercise, victims: &[&Victim]) -> bool {
    let fault = match exercise {
        Exercise::Switchover => None,
        Exercise::Fault(fault) => Some(fault),
    };
    let allowed = fault.is_none_or(|fault| s.policy.allowed.contains(&fault));
    let fit = |victim: &&Victim| {
        let Some(shard) = s.shards.get(&victim.shard) else { return false };
        let spent: f64 =
            s.changes.iter().filter(|change| change.shard == victim.shard).filter_map(|change| change.gap).sum();
        shard.primary.as_ref() == Some(&victim.replica)
            && shard.epoch == victim.epoch
            && shard.promotable > 0
            && !shard.paused
            && shard.mode != Mode::Paused
            && (fault.is_none() || shard.mode == Mode::Automatic)
            && fault.is_none_or(|fault| shard.equipped.contains(&fault))
            && spent < s.policy.max_unavailable
    };
    let company = s
        .shards
        .values()
        .all(|shard| shard.health == Health::Healthy && !shard.changing && shard.redundant && shard.promotable > 0);
    let quiet = s.others.is_empty() && s.absent.is_none() && !s.policy.suspended;
    allowed && company && quiet && victims.iter().all(fit)
}

proptest! {
    #[test]
    fn nobody_is_hit_against_a_rule_nor_twice_nor_while_another_drill_runs((s, seconds) in spoiled()) {
        let now = later(seconds);
        let decision = plan(&s, now);
        prop_assert_eq!(&decision, &plan(&s.clone(), now), "the same snapshot, the same decision");
        match &decision {
            DrillDecision::Start { run, .. } => {
                prop_assert!(s.status.run.is_none(), "one run at a time");
                let victims: Vec<_> = run.victims.iter().collect();
                prop_assert!(!victims.is_empty() && may_be_hit(&s, run.exercise, &victims));
                prop_assert!(victims.iter().all(|victim| victim.struck_at.is_none()), "it is written down before anything is done");
            }
            DrillDecision::Strike(places) => {
                let run = s.status.run.as_ref().expect("only a run that was written down strikes");
                let victims: Vec<_> = places.iter().map(|place| &run.victims[*place]).collect();
                prop_assert!(!victims.is_empty() && may_be_hit(&s, run.exercise, &victims));
                prop_assert!(victims.iter().all(|victim| victim.struck_at.is_none()), "nobody is hit twice");
                prop_assert!(run.exercise != Exercise::Switchover || victims.len() == 1);
            }
            _ => {}
        }
    }
}

#[test]
fn every_rule_stands_in_the_docs() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/drill.md");
    let text = std::fs::read_to_string(file).expect("docs/drill.md");
    let missing: Vec<_> = Rule::iter().filter(|rule| !text.contains(&format!("`{rule}`"))).collect();
    assert!(missing.is_empty(), "docs/drill.md does not name {missing:?}");
}
