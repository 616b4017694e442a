//! A planned change of primary: it waits for everything, and goes back when it cannot go on.

mod support;

use support::*;
use understudy_decide::failover::record::{Milestone, Phase as RecordPhase};
use understudy_decide::failover::snapshot::*;
use understudy_decide::{Order, OrderKind, Reason, Step};
use understudy_wire::Epoch;
use understudy_wire::evidence::{Fence, Phase, Probe, ProbeError, Stage};

#[test]
fn a_planned_change_waits_for_everything() {
    let mut scene = Scene::well();
    scene.0.requests.push(Request { name: "drain".into(), kind: Kind::Switchover, target: Some(name("c")), age: 10 });
    assert_eq!(scene.claim(), Some((Kind::Switchover, "m-c".into())));
    scene.0.requests.clear();
    scene.claimed(Kind::Switchover, "c");
    let Some(Order::Fence(fence)) = scene.order_to("a", OrderKind::Fence) else { panic!("no fence") };
    assert!(fence.planned);
    scene.ordered("a", OrderKind::Fence, 1, 10, OrderOutcome::InFlight);
    assert_eq!(scene.steps(), vec![]);
    // Fenced: it looks like one that was restarted, and is not taken for dead.
    scene.server("a", |server| {
        server.read_only = Some(true);
        server.serving = None;
        server.fenced = Some(Fence::Epoch { epoch: Epoch(5), age: 10 });
    });
    scene.all_say(&fails(Stage::Commit, ProbeError::ReadOnly, 1_000));
    scene.ordered("a", OrderKind::Fence, 1, 10, OrderOutcome::Done(Some(gtids("a", 1003))));
    let Some(Order::Promote(promote)) = scene.order_to("c", OrderKind::Promote) else { panic!("not told") };
    assert_eq!(promote.after, Some(gtids("a", 1003)), "the target lacks three and waits for them");
    scene.ordered("c", OrderKind::Promote, 1, 10, OrderOutcome::Failed("get the rest: it was not executed".into()));
    let Some(Order::Promote(again)) = scene.order_to("c", OrderKind::Promote) else { panic!("not told again") };
    assert_eq!(again.after, promote.after);
}

#[test]
fn a_planned_change_whose_target_has_told_twice_that_it_lacks_something_goes_back() {
    let mut scene = Scene::well();
    scene.claimed(Kind::Switchover, "c");
    scene.ordered("a", OrderKind::Fence, 1, 10, OrderOutcome::Done(Some(gtids("a", 1003))));
    scene.ordered("c", OrderKind::Promote, 2, 10, OrderOutcome::Failed("get the rest: it was not executed".into()));
    assert_eq!(scene.claim(), Some((Kind::Confirm, "m-a".into())));
}

#[test]
fn a_target_that_waits_for_a_primary_that_died_is_told_anew_under_another_epoch() {
    let mut scene = Scene::well();
    scene.claimed(Kind::Switchover, "c");
    scene.ordered("a", OrderKind::Fence, 1, 10, OrderOutcome::Done(Some(gtids("a", 1003))));
    scene.ordered("c", OrderKind::Promote, 1, 10, OrderOutcome::InFlight);
    assert_eq!(scene.steps(), vec![]);
    scene.kill_primary(300);
    assert_eq!(scene.claim().map(|(kind, _)| kind), Some(Kind::Failover));
}

#[test]
fn a_planned_change_that_takes_too_long_goes_back() {
    let mut scene = Scene::well();
    scene.claimed(Kind::Switchover, "c");
    scene.ordered("a", OrderKind::Fence, 1, 10, OrderOutcome::Done(Some(gtids("a", 1003))));
    scene.0.memory.transition_known = 11_000;
    assert_eq!(scene.claim(), Some((Kind::Confirm, "m-a".into())));
    assert!(scene.gives(Reason::SwitchoverAborted));
}

#[test]
fn a_target_that_has_everything_goes_on_although_the_old_primary_dies() {
    for (case, outcome) in [("it was told", Some(OrderOutcome::InFlight)), ("it is to be told", None)] {
        let mut scene = Scene::well();
        scene.claimed(Kind::Switchover, "c");
        scene.ordered("a", OrderKind::Fence, 1, 10, OrderOutcome::Done(Some(gtids("a", 1000))));
        let told = outcome.is_some();
        if let Some(outcome) = outcome {
            scene.ordered("c", OrderKind::Promote, 1, 10, outcome);
        }
        scene.kill_primary(300);
        assert_eq!(scene.claim(), None, "{case}");
        assert_eq!(scene.order_to("c", OrderKind::Promote).is_none(), told, "{case}: {:?}", scene.steps());
    }
}

#[test]
fn a_commit_between_the_claim_and_the_fence_does_not_make_a_dead_primary_live() {
    let mut scene = Scene::well();
    scene.claimed(Kind::Switchover, "c");
    scene.0.memory.transition_known = 6_000;
    scene.ordered("a", OrderKind::Fence, 1, 10, OrderOutcome::InFlight);
    scene.kill_primary(3_000);
    scene.says(
        &consumer(),
        "a",
        Some(Probe { committed: Some(3_500), ..fails(Stage::Tcp, ProbeError::Timeout, 3_000) }),
        None,
    );
    scene.reprobed(ReprobeOutcome::Failed("refused".into()));
    assert!(scene.order_to("c", OrderKind::Promote).is_some(), "{:?}", scene.steps());
}

#[test]
fn a_planned_change_is_not_begun_with_a_primary_that_cannot_be_told() {
    type Case = (&'static str, fn(&mut Scene));
    let cases: &[Case] = &[
        ("no connection to its manager", |s| s.replica("a", |replica| replica.link.connected = false)),
        ("its manager is silent", |s| s.silence("a")),
    ];
    for (case, change) in cases {
        let mut scene = Scene::well();
        scene.0.requests.push(Request { name: "drain".into(), kind: Kind::Switchover, target: None, age: 10 });
        change(&mut scene);
        assert_eq!(scene.claim(), None, "{case}");
        scene.0.requests[0].age = 31_000;
        assert!(scene.steps().iter().any(|step| matches!(step, Step::Refuse { .. })), "{case}");
    }
}

#[test]
fn a_planned_change_whose_old_primary_cannot_be_told_any_more_goes_back_and_then_on() {
    let mut scene = Scene::well();
    scene.claimed(Kind::Switchover, "c");
    scene.replica("a", |replica| replica.link.connected = false);
    assert_eq!(scene.steps(), vec![], "it may come back");
    scene.0.memory.transition_known = 11_000;
    assert_eq!(scene.claim(), Some((Kind::Confirm, "m-a".into())));
    // It cannot be confirmed either, although others see it commit: it is not confirmed for ever.
    let mut scene = Scene::well();
    scene.claimed(Kind::Confirm, "a");
    scene.silence("a");
    scene.0.memory.transition_known = 4_000;
    assert_eq!(scene.steps(), vec![], "a connection that broke comes back");
    scene.0.memory.transition_known = 6_000;
    assert_eq!(scene.claim().map(|(kind, _)| kind), Some(Kind::Failover));
}

#[test]
fn who_could_not_be_confirmed_is_not_asked_again() {
    let mut scene = Scene::well();
    scene.claimed(Kind::Failover, "c");
    scene.0.memory.transition_known = 300;
    scene.0.status.transition.as_mut().expect("claimed").cause = Some("NotConfirmed".into());
    scene.silence("a");
    assert!(scene.order_to("c", OrderKind::Promote).is_some(), "{:?}", scene.steps());
}

#[test]
fn a_planned_change_whose_old_primary_dies_waits_no_more() {
    let mut scene = Scene::well();
    scene.claimed(Kind::Switchover, "c");
    scene.ordered("a", OrderKind::Fence, 1, 10, OrderOutcome::InFlight);
    scene.kill_primary(300);
    assert_eq!(scene.steps(), vec![Step::Reprobe { replica: name("a"), epoch: Epoch(5) }]);
    scene.reprobed(ReprobeOutcome::Failed("refused".into()));
    assert!(scene.order_to("c", OrderKind::Promote).is_some());
}

#[test]
fn a_planned_change_whose_target_dies_goes_back() {
    let mut scene = Scene::well();
    scene.claimed(Kind::Switchover, "c");
    scene.ordered("a", OrderKind::Fence, 1, 10, OrderOutcome::Done(Some(gtids("a", 1000))));
    scene.server("c", |server| server.phase = Phase::Exited { code: None, signal: Some(9), age: 10 });
    assert_eq!(scene.claim(), Some((Kind::Confirm, "m-a".into())));
}

#[test]
fn a_record_is_closed_when_a_consumer_has_committed_or_none_will() {
    type Case = (&'static str, fn(&mut Scene), bool);
    let cases: &[Case] = &[
        ("a consumer has committed", |_| (), true),
        ("a consumer reads, and has not committed yet", quiet, false),
        (
            "it has not for long",
            |s| {
                quiet(s);
                let change = s.0.status.last_change.as_mut().expect("a change");
                change.at = Some(jiff::Timestamp::from_second(s.0.now.as_second() - 31).expect("a time"));
            },
            true,
        ),
        ("nobody reads", |s| s.0.reports.retain(|received| received.report.observer != consumer()), true),
    ];
    for (case, change, closes) in cases {
        let mut scene = Scene::well();
        let at = Some(scene.0.now);
        scene.0.status.last_change = Some(LastChange {
            kind: Kind::Switchover,
            epoch: EPOCH,
            from: Some(name("b")),
            record: Some("m-4".into()),
            cause: Some("Requested".into()),
            at,
        });
        scene.0.records.push(Record {
            name: "m-4".into(),
            kind: Kind::Switchover,
            epoch: EPOCH,
            from: Some(name("b")),
            to: Some(name("a")),
            steps: vec!["Routed".into(), "Following".into()],
            claimed: vec![],
        });
        change(&mut scene);
        let records = scene.plan().records;
        let closed = records.iter().any(|record| record.phase == RecordPhase::Closed);
        assert_eq!(closed, *closes, "{case}: {records:?}");
    }
}

#[test]
fn a_record_that_was_never_made_says_when_the_route_was_moved() {
    let mut scene = Scene::well();
    let (from, record) = (Some(name("b")), "m-4".to_owned());
    let at = Some(scene.0.now - jiff::SignedDuration::from_secs(20));
    let (kind, epoch) = (Kind::Switchover, EPOCH);
    scene.0.status.last_change =
        Some(LastChange { kind, epoch, from: from.clone(), record: Some(record.clone()), cause: None, at });
    scene.0.records.push(Record {
        name: record,
        kind,
        epoch,
        from,
        to: Some(name("a")),
        steps: vec![],
        claimed: vec![],
    });
    let entries: Vec<_> = scene.plan().records.into_iter().flat_map(|record| record.entries).collect();
    let routed = entries.iter().find(|entry| entry.step == Milestone::Routed);
    assert_eq!(routed.map(|entry| entry.ago), Some(20_000), "{entries:?}");
}

fn quiet(scene: &mut Scene) {
    scene.says(&consumer(), "a", Some(Probe { committing_since: None, ..commits() }), None);
}
