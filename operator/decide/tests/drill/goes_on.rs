//! What becomes of a run that was begun.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use understudy_decide::drill::snapshot::*;
use understudy_decide::drill::{DrillDecision, DrillSnapshot, Ending, Rule, plan};
use understudy_decide::failover::record::Outcome;
use understudy_wire::{Epoch, ReplicaName};

use super::scene::*;

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
    assert_eq!(finished(&s, later(700)).end.rule, Some(Rule::NotRedundant));
    of(&mut s, "m-0").redundant = true;
    s.policy.suspended = true;
    let report = finished(&s, later(3));
    assert_eq!(report.end.ending, Ending::Aborted);
    assert_eq!(report.gaps.len(), 1, "what the first felt is told: {report:?}");
}

#[test]
fn a_run_ends_when_every_victim_was_replaced_and_its_gap_is_known() {
    let mut s = running(scene(WEDGE, one()), &[(0, 1)]);
    assert!(matches!(plan(&s, later(20)), DrillDecision::GoOn { .. }), "it is held");
    s.changes = vec![Change { gap: None, ..change(&s, 0, 9) }];
    assert!(matches!(plan(&s, later(20)), DrillDecision::GoOn { .. }), "no consumer has committed yet");
    let late = finished(&s, later(300));
    assert_eq!((late.end.ending, late.gaps[0].seconds), (Ending::Succeeded, None));
    s.changes = vec![change(&s, 0, 9)];
    let report = finished(&s, later(20));
    assert_eq!(report.end.ending, Ending::Succeeded);
    assert_eq!((report.gaps[0].seconds, report.gaps[0].shard.as_str()), (Some(2.5), "m-0"));
    assert_eq!(report.gaps[0].failover.as_deref(), Some(s.changes[0].name.as_str()));
}

#[test]
fn a_record_from_before_the_fault_is_not_that_of_the_run() {
    let mut s = running(scene(WEDGE, one()), &[(0, 1)]);
    s.changes = vec![change(&s, 0, 0)];
    assert!(matches!(plan(&s, later(20)), DrillDecision::GoOn { .. }));
    // The run was begun under epoch 4, and the clock of the API server is a minute behind or ahead.
    for (epoch, made, is_its) in [(5, -60, true), (5, 60, true), (4, 60, false)] {
        s.changes = vec![Change { epoch: Some(Epoch(epoch)), ..change(&s, 0, made) }];
        let decision = plan(&s, later(20));
        assert_eq!(matches!(decision, DrillDecision::Finish(_)), is_its, "{epoch} {made}: {decision:?}");
    }
}

#[test]
fn a_run_fails_when_a_victim_is_not_replaced() {
    let held = running(scene(WEDGE, one()), &[(0, 1)]);
    assert!(matches!(plan(&held, later(90)), DrillDecision::GoOn { .. }));
    let report = finished(&held, later(91));
    assert_eq!(report.end.ending, Ending::Failed, "{}", report.end.message);
    for outcome in [Outcome::Refused, Outcome::Failed, Outcome::Confirmed] {
        let mut s = running(scene(Exercise::Switchover, one()), &[(0, 1)]);
        s.changes = vec![Change { outcome: Some(outcome), moved_at: None, ..change(&s, 0, 1) }];
        let report = finished(&s, later(5));
        assert_eq!(report.end.ending, Ending::Failed, "{outcome:?}");
    }
    let mut s = running(scene(KILL, one()), &[(0, 1)]);
    if let Some(run) = &mut s.status.run {
        run.victims[0].error = Some("its manager refused".to_owned());
    }
    let report = finished(&s, later(2));
    assert!(report.end.ending == Ending::Failed && report.end.message.contains("its manager refused"), "{report:?}");
}

#[test]
fn what_is_held_is_let_go_when_somebody_else_suffers_or_it_costs_too_much() {
    let cases: &[(&str, &str, Spoil)] = &[
        ("a bystander is stuck", "Unhealthy", |s| of(s, "m-2").health = Health::Unwell("Stuck".to_owned())),
        ("suspended", "Suspended", |s| s.policy.suspended = true),
        ("deleted", "Deleted", |s| s.leaving = true),
        ("the budget ends while it is held", "BudgetSpent", |s| s.policy.max_unavailable = 10.0),
    ];
    for (case, rule, spoil) in cases {
        let mut s = running(scene(WEDGE, one()), &[(0, 1)]);
        of(&mut s, "m-0").health = Health::Unwell("Stuck".to_owned());
        assert!(matches!(plan(&s, later(12)), DrillDecision::GoOn { .. }), "the victim is meant to be");
        spoil(&mut s);
        let (places, end) = let_go(&s, later(12));
        assert_eq!((places, end.ending), (vec![0], Ending::Aborted), "{case}");
        assert!(end.message.starts_with(rule), "{case}: {}", end.message);
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
    assert_eq!(finished(&s, later(1)).end.rule, Some(Rule::NotAllowed), "the run is still a wedge");
    let mut held = running(scene(WEDGE, one()), &[(0, 1)]);
    held.policy.hold = SignedDuration::from_secs(5);
    assert!(matches!(plan(&held, later(80)), DrillDecision::GoOn { .. }), "it is held for as long as was ordered");
}

#[test]
fn a_run_has_not_ended_before_everybody_was_let_go_or_the_hold_is_over() {
    let ending = || {
        let mut s = running(scene(WEDGE, Scope::Node(Some("n1".to_owned()))), &[(0, 1), (1, 1)]);
        s.policy.suspended = true;
        let (places, end) = let_go(&s, later(5));
        assert_eq!(places, [0, 1]);
        s.status.run.as_mut().expect("a run").ending = Some(end);
        // What led to it has passed: that changes nothing any more.
        s.policy.suspended = false;
        s
    };
    let victim = |s: &mut DrillSnapshot, place: usize, change: fn(&mut Victim)| {
        change(&mut s.status.run.as_mut().expect("a run").victims[place]);
    };
    let s = ending();
    assert_eq!(let_go(&s, later(70)).0, [0, 1], "nobody could be told");
    assert_eq!(finished(&s, later(71)).end.rule, Some(Rule::Suspended), "both have let go by themselves");

    let mut s = ending();
    victim(&mut s, 0, |victim| victim.released_at = Some(later(6)));
    assert_eq!(let_go(&s, later(7)).0, [1], "the first was told");
    s.pods.remove(&ReplicaName::new("m-1-a"));
    assert_eq!(finished(&s, later(7)).end.ending, Ending::Aborted, "the pod of the second is gone");

    let mut s = ending();
    s.pods.insert(ReplicaName::new("m-0-a"), 1);
    s.pods.insert(ReplicaName::new("m-1-a"), 0);
    assert_eq!(let_go(&s, later(7)).0, [1], "what the first manager held ended with it");
}

#[test]
fn a_manager_that_ended_in_the_middle_is_told_of_however_the_run_ends() {
    let mut s = running(scene(WEDGE, one()), &[(0, 1)]);
    s.pods.insert(ReplicaName::new("m-0-a"), 1);
    assert!(matches!(plan(&s, later(20)), DrillDecision::GoOn { .. }), "its server is gone, and is replaced");
    let says = "the manager of m-0-a ended meanwhile, and the fault with it";
    let late = finished(&s, later(91));
    assert!(late.end.ending == Ending::Failed && late.end.message.ends_with(says), "{late:?}");
    s.changes = vec![change(&s, 0, 9)];
    let report = finished(&s, later(20));
    assert!(report.end.ending == Ending::Succeeded && report.end.message.ends_with(says), "{report:?}");
}

#[test]
fn a_drill_that_was_deleted_does_not_wait_for_a_commit() {
    let mut s = running(scene(KILL, one()), &[(0, 1)]);
    s.leaving = true;
    assert!(matches!(plan(&s, later(20)), DrillDecision::GoOn { .. }), "its failover is not on record yet");
    s.changes = vec![Change { gap: None, ..change(&s, 0, 9) }];
    assert_eq!(finished(&s, later(20)).end.ending, Ending::Succeeded);
}
