//! Steps that could not be taken a moment ago stand in nobody's way, and a change of primary waits for no other call.

mod support;

use support::*;
use understudy_decide::decision::Subject;
use understudy_decide::failover::snapshot::*;
use understudy_decide::{Fact, Order, OrderKind, Step};
use understudy_wire::evidence::{Phase, Probe};

/// What is to be done but for orders, in order.
fn kinds(scene: &Scene) -> Vec<String> {
    let steps = scene.plan().steps.into_iter().filter(|step| !matches!(step, Step::Order { .. }));
    steps.map(|step| step.subject().to_string()).collect()
}

fn held_back(scene: &mut Scene, step: &'static str, letter: &str) {
    let subject = Subject { step, about: Some(name(letter).to_string()) };
    scene.0.memory.held_back.insert(subject);
}

fn condemn(scene: &mut Scene, letter: &str) {
    scene.replica(letter, |replica| {
        replica.condemned = Some(Condemned { reason: "Exited".into(), ..Condemned::default() });
    });
    scene.label(letter, "condemned");
}

#[test]
fn a_deletion_that_is_refused_does_not_keep_the_rest_waiting() {
    let mut scene = Scene::well();
    condemn(&mut scene, "b");
    condemn(&mut scene, "c");
    assert_eq!(kinds(&scene), ["Grow"], "what is missing comes first");
    for (letter, number) in [("d", 4), ("e", 5)] {
        let replaces = Some(name(if letter == "d" { "b" } else { "c" }));
        scene.0.replicas.insert(name(letter), Replica { replaces, ..replica(number, letter) });
        scene.says(&manager(letter), letter, None, Some(server(letter, Phase::Running)));
    }
    assert_eq!(kinds(&scene), ["DeletePod of m-b"]);
    held_back(&mut scene, "DeletePod", "b");
    assert_eq!(kinds(&scene), ["DeletePod of m-c"]);
    assert_eq!(scene.plan().held, [Step::DeletePod { replica: name("b"), uid: "pod-b".into(), restart: false }]);
    scene.replica("c", |replica| {
        replica.pod = Fact::Absent;
        replica.volume = Fact::Absent;
    });
    assert_eq!(kinds(&scene), ["DeleteReplica of m-c"]);
    held_back(&mut scene, "DeleteReplica", "c");
    scene.replica("d", |replica| replica.pod = Fact::Absent);
    assert_eq!(kinds(&scene), ["MakePod of m-d"]);
}

#[test]
fn what_a_change_of_primary_needs_is_never_held_back() {
    let mut scene = Scene::well();
    scene.kill_primary(700);
    let claims = kinds(&scene);
    for step in ["Claim", "Publish", "IntendBootstrap", "Order", "Reprobe"] {
        for letter in ["a", "b", "c"] {
            held_back(&mut scene, step, letter);
        }
    }
    assert_eq!(kinds(&scene), claims);
    assert!(claims[0].starts_with("Claim"), "{claims:?}");
    scene.claimed(Kind::Failover, "b");
    assert_eq!(kinds(&scene), ["Reprobe of m-a"]);
    scene.reprobed(ReprobeOutcome::Failed("refused".into()));
    assert!(scene.order_to("b", OrderKind::Promote).is_some());
}

#[test]
fn a_change_of_primary_waits_for_no_call_that_makes_something() {
    let mut scene = Scene::well();
    scene.kill_primary(700);
    scene.replica("c", |replica| replica.pod = Fact::Absent);
    scene.label("b", "spare");
    assert_eq!(kinds(&scene).len(), 1, "the claim alone: {:?}", kinds(&scene));
    scene.claimed(Kind::Failover, "b");
    scene.reprobed(ReprobeOutcome::Failed("refused".into()));
    scene.ordered("b", OrderKind::Promote, 1, 100, OrderOutcome::InFlight);
    assert_eq!(kinds(&scene), [""; 0]);
    assert!(scene.0.is_changing_primary(), "nothing is shown either");
    scene.ordered("b", OrderKind::Promote, 1, 100, OrderOutcome::Done(None));
    assert_eq!(kinds(&scene), ["Publish of m-b"]);
    // It may be what the change waits for.
    scene.ordered("b", OrderKind::Promote, 1, 100, OrderOutcome::InFlight);
    scene.0.memory.transition_known = 5_100;
    assert_eq!(kinds(&scene), ["MakePod of m-c"]);
    assert!(!scene.0.is_changing_primary());
    scene.0.memory.transition_known = 0;
    scene.0.status.transition.as_mut().unwrap().kind = Kind::Bootstrap;
    assert!(!scene.0.is_changing_primary(), "nobody is served before the first one");
}

#[test]
fn after_a_failover_a_new_copy_waits_for_the_first_commit_but_not_for_long() {
    let after = |kind: Kind, ago: i64, commits_since: Option<u64>, speaks: bool| {
        let mut scene = Scene::well();
        let at = scene.0.now - jiff::SignedDuration::from_millis(ago);
        scene.0.status.last_change =
            Some(LastChange { kind, epoch: EPOCH, from: None, record: None, cause: None, at: Some(at) });
        scene.replica("c", |replica| replica.pod = Fact::Absent);
        scene.says(&consumer(), "a", Some(Probe { committing_since: commits_since, ..commits() }), None);
        if !speaks {
            scene.0.reports.retain(|received| received.report.observer != consumer());
        }
        kinds(&scene).contains(&"MakePod of m-c".to_owned())
    };
    for (case, kind, ago, commits_since, speaks, made) in [
        ("nothing is committed yet", Kind::Failover, 4_900, None, true, false),
        ("for long", Kind::Failover, 5_000, None, true, true),
        ("it is", Kind::Failover, 900, Some(10), true, true),
        ("nobody would", Kind::Failover, 900, None, false, true),
        ("a planned change", Kind::Switchover, 900, None, true, true),
        ("the clock was set back", Kind::Failover, -60_000, None, true, true),
    ] {
        assert_eq!(after(kind, ago, commits_since, speaks), made, "{case}");
    }
}

/// A change of primary from `b` to `a`, this long ago, that `c` has not followed yet.
fn changed(kind: Kind, ago: i64, commits_since: Option<u64>) -> Scene {
    let mut scene = Scene::well();
    let at = Some(scene.0.now - jiff::SignedDuration::from_millis(ago));
    let from = Some(name("b"));
    scene.0.status.last_change = Some(LastChange { kind, epoch: EPOCH, from, record: None, cause: None, at });
    scene.server("c", |server| {
        server.replication.as_mut().expect("it replicates").value.source = Some("10.0.0.9:3306".into());
    });
    scene.says(&consumer(), "a", Some(Probe { committing_since: commits_since, ..commits() }), None);
    scene
}

#[test]
fn after_a_change_of_primary_the_others_follow_once_something_is_committed_but_one_that_takes_writes_at_once() {
    for (case, kind, ago, commits_since, writes, expected) in [
        ("failover, nothing is committed yet", Kind::Failover, 4_900, None, false, false),
        ("switchover, nothing is committed yet", Kind::Switchover, 4_900, None, false, false),
        ("for long", Kind::Failover, 5_000, None, false, true),
        ("something is", Kind::Switchover, 900, Some(10), false, true),
        ("nothing is, and it takes writes", Kind::Failover, 900, None, true, true),
        ("the primary is the same", Kind::Confirm, 900, None, false, true),
    ] {
        let mut scene = changed(kind, ago, commits_since);
        fence(&mut scene, OrderOutcome::Done(None));
        scene.server("c", |server| server.read_only = Some(!writes));
        assert_eq!(scene.order_to("c", OrderKind::Follow).is_some(), expected, "{case}");
    }
}

#[test]
fn the_others_wait_for_a_commit_only_while_the_old_primary_is_known_to_write_no_more() {
    type Case = (&'static str, fn(&mut Scene), bool);
    let cases: &[Case] = &[
        ("it answered the fence", |s| fence(s, OrderOutcome::Done(Some(gtids("a", 1000)))), true),
        ("it did not obey and was ended", |s| fence(s, OrderOutcome::Done(None)), true),
        ("its manager saw it end", exited, true),
        ("nobody could tell it", |_| (), false),
        ("it has not answered", |s| fence(s, OrderOutcome::InFlight), false),
        ("its manager refused", |s| fence(s, OrderOutcome::Failed("no answer".into())), false),
        (
            "its manager saw it end, and has been silent since",
            |s| {
                exited(s);
                s.silence("b");
            },
            false,
        ),
    ];
    for (case, old, waits) in cases {
        for kind in [Kind::Failover, Kind::Switchover] {
            let mut scene = changed(kind, 900, None);
            old(&mut scene);
            assert_eq!(scene.order_to("c", OrderKind::Follow).is_none(), *waits, "{case}, {kind:?}");
        }
    }
}

fn fence(scene: &mut Scene, outcome: OrderOutcome) {
    scene.ordered("b", OrderKind::Fence, 1, 10, outcome);
}

fn exited(scene: &mut Scene) {
    scene.server("b", |server| server.phase = Phase::Exited { code: None, signal: Some(9), age: 10 });
}

#[test]
fn the_services_follow_a_new_primary_before_the_old_one_is_cleared_away() {
    let mut scene = Scene::well();
    scene.0.status.primary = Some(name("b"));
    scene.0.status.primary_address = Some("10.0.0.2:3306".into());
    scene.0.status.last_change = Some(LastChange {
        kind: Kind::Failover,
        epoch: EPOCH,
        from: Some(name("a")),
        record: None,
        cause: Some("ProcessExited".into()),
        at: None,
    });
    scene.says(&manager("c"), "b", Some(commits()), None);
    let steps = kinds(&scene);
    let at = |step: &str| steps.iter().position(|found| found == step);
    let (label, condemned) = (at("Label of m-b primary"), at("Condemn of m-a"));
    assert!(label.is_some() && label < condemned, "{steps:?}");
    let orders =
        scene.plan().steps.into_iter().filter(|step| matches!(step, Step::Order { order: Order::Follow(_), .. }));
    assert!(orders.count() > 0);
}
