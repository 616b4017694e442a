//! One primary after the other dies.

mod support;

use jiff::SignedDuration;
use support::*;
use understudy_decide::failover::snapshot::*;
use understudy_decide::{OrderKind, Reason, Step};
use understudy_wire::evidence::{Aged, ProbeError, Stage};

/// So many failovers went before, the last one so many seconds ago, and its record is open.
fn row(scene: &mut Scene, in_a_row: u32, ago: i64) {
    scene.0.status.in_a_row = in_a_row;
    scene.0.status.last_change = Some(LastChange {
        kind: Kind::Failover,
        epoch: EPOCH,
        from: Some(name("gone")),
        record: Some("m-4".into()),
        cause: Some("ProcessExited".into()),
        at: Some(scene.0.now - SignedDuration::from_secs(ago)),
    });
    scene.0.records = vec![Record {
        name: "m-4".into(),
        kind: Kind::Failover,
        epoch: EPOCH,
        from: Some(name("gone")),
        to: Some(name("a")),
        steps: vec![],
        claimed: vec![],
    }];
}

fn killed(scene: &mut Scene, in_a_row: u32, ago: i64) {
    scene.kill_primary(300);
    row(scene, in_a_row, ago);
}

/// The primary was confirmed so many seconds ago, after the last of the row had taken office.
fn confirmed(scene: &mut Scene, ago: i64) {
    let change = scene.0.status.last_change.as_mut().expect("a change");
    scene.0.status.changed_at = change.at;
    (change.kind, change.record) = (Kind::Confirm, Some("m-5".into()));
    change.at = Some(scene.0.now - SignedDuration::from_secs(ago));
}

#[test]
fn each_further_primary_that_dies_before_the_shard_has_healed_is_followed_more_slowly() {
    type Case = (&'static str, fn(&mut Scene), bool);
    let cases: &[Case] = &[
        ("the first one", |s| killed(s, 0, 5), true),
        ("the second one", |s| killed(s, 1, 5), true),
        ("the third one", |s| killed(s, 2, 29), false),
        ("the third one, half a minute later", |s| killed(s, 2, 30), true),
        ("the fourth one", |s| killed(s, 3, 59), false),
        ("the fourth one, a minute later", |s| killed(s, 3, 60), true),
        ("the thirtieth one", |s| killed(s, 29, 599), false),
        ("the thirtieth one, ten minutes later", |s| killed(s, 29, 600), true),
        ("the thousandth", |s| killed(s, 999, 599), false),
        (
            "the third one, and the shard has healed since the second",
            |s| {
                killed(s, 2, 5);
                s.0.records.clear();
            },
            true,
        ),
        (
            "the third one, and it was confirmed since it took office",
            |s| {
                killed(s, 2, 29);
                confirmed(s, 5);
            },
            false,
        ),
        (
            "the third one, half a minute after it took office, and it was confirmed a moment ago",
            |s| {
                killed(s, 2, 30);
                confirmed(s, 1);
            },
            true,
        ),
        (
            "the third one, confirmed by an operator that did not write down when it took office",
            |s| {
                killed(s, 2, 60);
                confirmed(s, 5);
                s.0.status.changed_at = None;
            },
            false,
        ),
        (
            "the third one, and only the record of a confirmation is open",
            |s| {
                killed(s, 2, 5);
                s.0.records[0].kind = Kind::Confirm;
            },
            true,
        ),
        (
            "the third one, and somebody asks",
            |s| {
                killed(s, 2, 5);
                s.0.requests.push(Request { name: "r".into(), kind: Kind::Failover, target: None, age: 10 });
            },
            true,
        ),
        (
            "the third one, with a cooldown of ten seconds",
            |s| {
                killed(s, 2, 11);
                s.0.policy.thresholds.cooldown = 10_000;
            },
            true,
        ),
        (
            "the clock was set back by an hour",
            |s| {
                killed(s, 2, -3_600);
                s.0.memory.office_known = 30_000;
            },
            true,
        ),
        (
            "the node of the third one is lost, and Kubernetes misses it",
            |s| {
                s.lose_node(3_500);
                row(s, 2, 5);
            },
            true,
        ),
        (
            "the third one is silent, and its node is not missed",
            |s| {
                s.lose_node(3_500);
                row(s, 2, 5);
                s.0.nodes.get_mut("node-1").expect("a node").ready_at = Some(s.0.now);
            },
            false,
        ),
        (
            "and others fell silent with it",
            |s| {
                s.lose_node(3_500);
                row(s, 2, 5);
                s.0.nodes.get_mut("node-1").expect("a node").ready_at = Some(s.0.now);
                s.0.fleet.silent = 3;
            },
            true,
        ),
    ];
    for (case, spoil, acts) in cases {
        let mut scene = Scene::well();
        spoil(&mut scene);
        assert_eq!(
            scene.claim().map(|(kind, _)| kind),
            acts.then_some(Kind::Failover),
            "{case}: {:?}",
            scene.plan().notes
        );
        assert_eq!(scene.gives(Reason::FailoverPaced), !acts, "{case}");
    }
}

#[test]
fn a_confirmation_neither_begins_a_row_nor_ends_one_nor_makes_one_last_longer() {
    // The row of two is over 630 s after the second took office: the cooldown, and the pause of half a minute.
    for (case, kind, before, ago, after) in [
        ("confirmed, and nothing went before", Kind::Confirm, 0, 60, 0),
        ("confirmed within a row", Kind::Confirm, 2, 60, 2),
        ("failed over, and confirmed before that", Kind::Failover, 2, 629, 3),
        ("failed over after a row that is over but for a confirmation", Kind::Failover, 2, 630, 1),
    ] {
        let mut scene = Scene::well();
        killed(&mut scene, before, ago);
        confirmed(&mut scene, 5);
        assert_eq!(published(&mut scene, kind), Some(after), "{case}");
    }
}

#[test]
fn a_judgement_waits_after_a_confirmation_too() {
    let mut scene = Scene::well();
    scene.server("a", |server| server.lsn = Some(Aged { age: 9_500, value: 1 }));
    scene.all_say(&fails(Stage::Commit, ProbeError::Timeout, 9_000));
    row(&mut scene, 0, 3_600);
    assert_eq!(scene.claim().map(|(kind, _)| kind), Some(Kind::Failover));
    confirmed(&mut scene, 5);
    assert_eq!(scene.claim(), None);
    assert!(scene.gives(Reason::Cooldown), "{:?}", scene.reasons());
}

#[test]
fn it_is_said_until_when_a_failover_waits_in_words_that_stay() {
    let mut scene = Scene::well();
    killed(&mut scene, 2, 10);
    let until = scene.0.now + SignedDuration::from_secs(20);
    let said = |scene: &Scene| {
        let plan = scene.plan();
        let note = plan.notes.into_iter().find(|note| note.reason == Reason::FailoverPaced).expect("it waits");
        assert!(note.message.contains(&format!("It is failed over at {until}")), "{}", note.message);
        plan.view.doing
    };
    let doing = said(&scene);
    scene.0.now += SignedDuration::from_millis(1_700);
    assert_eq!(said(&scene), doing);
}

/// How many have followed each other once a change of this kind is published.
fn published(scene: &mut Scene, kind: Kind) -> Option<u32> {
    scene.claimed(kind, "b");
    scene.ordered("b", OrderKind::Promote, 1, 10, OrderOutcome::Done(None));
    scene.steps().into_iter().find_map(|step| match step {
        Step::Publish { in_a_row, .. } => Some(in_a_row),
        _ => None,
    })
}

#[test]
fn what_is_published_counts_only_failovers_before_the_shard_has_healed() {
    for (case, kind, before, healed, after) in [
        ("the first", Kind::Failover, 0, true, 1),
        ("the next", Kind::Failover, 1, false, 2),
        ("the next, and it had healed", Kind::Failover, 5, true, 1),
        ("a switchover", Kind::Switchover, 2, false, 2),
        ("a switchover after it had healed", Kind::Switchover, 2, true, 0),
        ("a confirmation", Kind::Confirm, 2, false, 2),
    ] {
        let mut scene = Scene::well();
        killed(&mut scene, before, 60);
        if healed {
            scene.0.records.clear();
        }
        assert_eq!(published(&mut scene, kind), Some(after), "{case}");
    }
}
