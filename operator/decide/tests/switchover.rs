//! A planned change of primary: it waits for everything, and goes back when it cannot go on.

mod support;

use support::*;
use understudy_decide::failover::record::Phase as RecordPhase;
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
    assert_eq!(scene.steps(), vec![], "the target lacks three");
    scene.server("c", |server| server.replication.as_mut().expect("replicates").value.received = gtids("a", 1003));
    assert!(scene.order_to("c", OrderKind::Promote).is_some());
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
        });
        change(&mut scene);
        let records = scene.plan().records;
        let closed = records.iter().any(|record| record.phase == RecordPhase::Closed);
        assert_eq!(closed, *closes, "{case}: {records:?}");
    }
}

fn quiet(scene: &mut Scene) {
    scene.says(&consumer(), "a", Some(Probe { committing_since: None, ..commits() }), None);
}
