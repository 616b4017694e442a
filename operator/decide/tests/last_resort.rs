//! The primary is gone and only replicas with transactions of their own are left.

mod support;

use support::*;
use understudy_decide::Reason;
use understudy_decide::failover::snapshot::*;
use understudy_wire::evidence::{Aged, Phase, ProbeError, Stage};

/// The node of the primary has been lost for so long, and both standbys have transactions of their own.
fn only_errant(scene: &mut Scene, lost: u64) {
    scene.lose_node(lost);
    for (letter, own) in [("b", 5), ("c", 3)] {
        scene.server(letter, |server| {
            server.executed = Some(Aged { age: 50, value: gtids("a", 1000).union(&gtids(letter, own)) });
        });
    }
}

/// The manager of the primary speaks again.
fn primary_says(scene: &mut Scene, phase: Phase) {
    scene.report(&manager("a")).age = 50;
    scene.server("a", |server| {
        server.phase = phase;
        server.serving = None;
        server.read_only = Some(true);
    });
}

/// One more replica, without transactions of its own.
fn fourth(scene: &mut Scene, phase: Phase) {
    scene.0.replicas.insert(name("d"), replica(4, "d"));
    scene.says(&manager("d"), "d", None, Some(server("d", phase)));
}

/// The primary had got further than the standbys, and Kafka begins where they cannot go on.
fn far_ahead(scene: &mut Scene) {
    scene.server("a", |server| {
        server.offsets = Some(Aged { age: 50, value: vec![offset(900)] });
        server.executed = Some(Aged { age: 50, value: gtids("a", 1900) });
    });
    scene.0.log.insert(("samples".into(), 0), 600);
}

#[test]
fn one_with_transactions_of_its_own_takes_over_only_when_nobody_else_will() {
    type Case = (&'static str, fn(&mut Scene), Option<(Kind, &'static str)>);
    const BEST: Option<(Kind, &str)> = Some((Kind::Failover, "m-b"));
    let cases: &[Case] = &[
        ("the node of the primary is lost for a minute", |s| only_errant(s, 61_000), BEST),
        ("it may come back", |s| only_errant(s, 58_000), None),
        (
            "the operator has been awake for a moment only",
            |s| {
                only_errant(s, 61_000);
                s.0.memory.awake = 30_000;
            },
            None,
        ),
        (
            "somebody saw it commit half a minute ago",
            |s| {
                only_errant(s, 61_000);
                s.says(&consumer(), "a", Some(unreachable(30_000)), None);
            },
            None,
        ),
        (
            "its volume is empty",
            |s| {
                only_errant(s, 6_000);
                primary_says(s, Phase::Empty);
            },
            BEST,
        ),
        (
            "its Replica is gone",
            |s| {
                only_errant(s, 6_000);
                s.0.replicas.remove(&name("a"));
            },
            BEST,
        ),
        (
            "it was restarted and is there",
            |s| {
                only_errant(s, 61_000);
                primary_says(s, Phase::Running);
                s.all_say(&fails(Stage::Commit, ProbeError::ReadOnly, 61_000));
            },
            Some((Kind::Confirm, "m-a")),
        ),
        (
            "it is in crash recovery",
            |s| {
                only_errant(s, 170_000);
                primary_says(s, Phase::Starting);
            },
            None,
        ),
        (
            "its crash recovery does not end",
            |s| {
                only_errant(s, 181_000);
                primary_says(s, Phase::Starting);
            },
            BEST,
        ),
        (
            "one without is there",
            |s| {
                only_errant(s, 61_000);
                fourth(s, Phase::Running);
            },
            Some((Kind::Failover, "m-d")),
        ),
        (
            "one without has been silent for a moment",
            |s| {
                only_errant(s, 61_000);
                fourth(s, Phase::Running);
                s.silent("d", 20_000);
            },
            None,
        ),
        (
            "one without is lost as well",
            |s| {
                only_errant(s, 61_000);
                fourth(s, Phase::Running);
                s.silent("d", 61_000);
            },
            BEST,
        ),
        (
            "one that is being built has nothing to come back with",
            |s| {
                only_errant(s, 61_000);
                fourth(s, Phase::Building);
            },
            BEST,
        ),
        (
            "Kafka no longer has what the best one needs",
            |s| {
                only_errant(s, 61_000);
                far_ahead(s);
                s.server("c", |server| server.offsets = Some(Aged { age: 50, value: vec![offset(800)] }));
            },
            Some((Kind::Failover, "m-c")),
        ),
        (
            "and neither what the other one needs",
            |s| {
                only_errant(s, 61_000);
                far_ahead(s);
            },
            None,
        ),
        (
            "failover is left to a person",
            |s| {
                only_errant(s, 61_000);
                s.0.policy.mode = Mode::Manual;
            },
            None,
        ),
    ];
    for (case, spoil, expected) in cases {
        let mut scene = Scene::well();
        spoil(&mut scene);
        let expected = expected.map(|(kind, to)| (kind, to.to_owned()));
        assert_eq!(scene.claim(), expected, "{case}: {:?}", scene.plan().notes);
        let is_errant = expected.as_ref().is_some_and(|(_, to)| to == "m-b" || to == "m-c");
        assert_eq!(scene.gives(Reason::LastResort), is_errant, "{case}");
    }
}

#[test]
fn it_is_said_for_whom_one_with_transactions_of_its_own_waits() {
    let mut scene = Scene::well();
    only_errant(&mut scene, 58_000);
    let doing = scene.plan().view.doing.expect("something is being done");
    assert!(doing.starts_with("waiting for m-a: m-b has transactions of its own"), "{doing}");
}

#[test]
fn the_next_one_after_a_target_that_is_lost_may_be_errant_too() {
    let mut scene = Scene::well();
    only_errant(&mut scene, 200_000);
    scene.server("b", |server| server.executed = Some(Aged { age: 50, value: gtids("a", 1000) }));
    scene.claimed(Kind::Failover, "b");
    scene.reprobed(ReprobeOutcome::Failed("no answer".into()));
    scene.silent("b", 61_000);
    scene.0.memory.transition_known = 30_000;
    assert_eq!(scene.claim(), None, "b may come back");
    scene.0.memory.transition_known = 62_000;
    assert_eq!(scene.claim(), Some((Kind::Failover, "m-c".into())), "{:?}", scene.plan().notes);
}

#[test]
fn the_other_errant_ones_are_replaced_once_one_of_them_is_in_office() {
    let mut scene = Scene::well();
    only_errant(&mut scene, 200_000);
    scene.0.replicas.remove(&name("a"));
    scene.0.reports.retain(|received| received.report.observer != manager("a"));
    scene.0.status.primary = Some(name("b"));
    scene.0.status.primary_address = Some("10.0.0.2:3306".into());
    scene.server("b", |server| {
        server.serving = Some(EPOCH);
        server.read_only = Some(false);
        server.replication = None;
    });
    for observer in [manager("c"), consumer(), operator()] {
        scene.says(&observer, "b", Some(commits()), None);
    }
    let condemned = scene.steps().into_iter().find_map(|step| match step {
        understudy_decide::Step::Condemn { replica, reason, .. } => Some((replica, reason)),
        _ => None,
    });
    assert_eq!(condemned, Some((name("c"), understudy_decide::decision::Sentence::Errant)));
}
