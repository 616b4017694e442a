//! What a record tells of a change: since when it was suspected and agreed on, how each replica stood, and what came after it.

mod support;

use support::*;
use understudy_decide::OrderKind;
use understudy_decide::failover::record::{Entry, Milestone, Phase as RecordPhase};
use understudy_decide::failover::snapshot::*;
use understudy_wire::Epoch;
use understudy_wire::evidence::*;

/// What is told of this step now.
fn told(scene: &Scene, step: Milestone) -> Option<Entry> {
    scene.plan().records.into_iter().flat_map(|record| record.entries).find(|entry| entry.step == step)
}

fn ago(scene: &Scene, step: Milestone) -> Option<Millis> {
    told(scene, step).map(|entry| entry.ago)
}

/// `a` took office from `b`, and its record is open.
fn published(kind: Kind) -> Scene {
    let mut scene = Scene::well();
    let (from, record) = (Some(name("b")), "m-4".to_owned());
    let at = Some(scene.0.now - jiff::SignedDuration::from_secs(3));
    scene.0.status.last_change =
        Some(LastChange { kind, epoch: EPOCH, from: from.clone(), record: Some(record.clone()), cause: None, at });
    let steps = vec!["Routed".to_owned(), "FirstCommit".to_owned(), "Following".to_owned()];
    scene.0.records.push(Record {
        name: record,
        kind,
        epoch: EPOCH,
        from,
        to: Some(name("a")),
        steps,
        claimed: vec![],
    });
    scene
}

#[test]
fn the_first_sign_is_the_first_that_anybody_met_and_the_quorum_the_moment_the_second_domain_met_it() {
    let mut scene = Scene::well();
    scene.silent("a", 4_000);
    scene.all_say(&unreachable(2_200));
    scene.says(&manager("b"), "a", Some(unreachable(3_500)), None);
    scene.says(&operator(), "a", Some(unreachable(2_300)), None);
    scene.0.memory.suspected = Some(2_400);
    assert_eq!(scene.claim(), Some((Kind::Failover, "m-b".into())));
    assert_eq!(ago(&scene, Milestone::FirstSign), Some(3_550));
    assert_eq!(ago(&scene, Milestone::Suspected), Some(2_400));
    assert_eq!(ago(&scene, Milestone::Quorum), Some(2_350));
    let votes: Vec<_> = scene.plan().records[0].grounds.as_ref().expect("grounds").votes.clone();
    let first = votes.iter().find(|vote| vote.observer == "peer m-b").expect("a vote of b");
    assert_eq!(first.age, 3_550, "since when each observer met it");
}

#[test]
fn who_waits_behind_the_lock_of_a_commit_that_hangs_makes_the_quorum_of_a_hung_volume() {
    let mut scene = Scene::well();
    scene.server("a", |server| {
        server.fsync = Some(Fsync { succeeded: Some(6_000), in_flight: Some(5_500), ..Fsync::default() });
        server.lsn = Some(Aged { age: 5_500, value: 1 });
    });
    scene.all_say(&fails(Stage::Commit, lock_wait(), 4_000));
    assert_eq!(scene.claim(), Some((Kind::Failover, "m-b".into())), "nobody accuses");
    assert_eq!(ago(&scene, Milestone::Quorum), Some(4_050));
}

#[test]
fn a_planned_change_has_neither_suspicion_nor_quorum() {
    let mut scene = Scene::well();
    scene.0.requests.push(Request { name: "please".into(), kind: Kind::Switchover, target: None, age: 10 });
    assert_eq!(scene.claim().map(|(kind, _)| kind), Some(Kind::Switchover));
    let entries: Vec<_> = scene.plan().records[0].entries.iter().map(|entry| entry.step).collect();
    assert_eq!(entries, [Milestone::Decided, Milestone::Claimed]);
}

#[test]
fn the_record_tells_how_each_replica_stood_also_of_one_that_is_not_fit() {
    let mut scene = Scene::well();
    scene.kill_primary(500);
    scene.server("c", |server| {
        server.phase = Phase::Starting;
        server.volume = Some(Volume { total: 100, free: 7 });
        server.offsets = Some(Aged { age: 50, value: vec![offset(300), StoredOffset { partition: 1, ..offset(40) }] });
        server.replication.as_mut().expect("replicates").value.delay = Some(1_200);
    });
    scene.report(&manager("c")).age = 100;
    let grounds = scene.plan().records[0].grounds.clone().expect("what was known");
    let stood = &grounds.standings[&name("c")];
    assert_eq!((stood.offsets, stood.free, stood.delay), (Some(340), Some(7), Some(1_350)));
    assert!(grounds.ranking.unfit.iter().any(|(unfit, _)| *unfit == name("c")), "{:?}", grounds.ranking);
}

#[test]
fn the_answer_of_a_fenced_primary_is_written_down_whenever_it_comes() {
    let mut scene = Scene::well();
    scene.kill_primary(500);
    scene.claimed(Kind::Failover, "b");
    scene.reprobed(ReprobeOutcome::Failed("refused".into()));
    assert_eq!(told(&scene, Milestone::Fenced), None, "not told yet");
    scene.ordered("a", OrderKind::Fence, 1, 20, OrderOutcome::InFlight);
    assert_eq!(told(&scene, Milestone::Fenced), None, "not answered yet");
    scene.ordered("a", OrderKind::Fence, 1, 20, OrderOutcome::Done(None));
    assert_eq!(told(&scene, Milestone::Fenced).map(|entry| entry.epoch), Some(Epoch(5)), "while it is under way");
    let mut scene = published(Kind::Failover);
    scene.ordered("b", OrderKind::Fence, 1, 900, OrderOutcome::Done(None));
    assert!(told(&scene, Milestone::Fenced).is_some(), "after the route was moved");
    scene.0.records[0].steps.push("Fenced".into());
    assert_eq!(told(&scene, Milestone::Fenced), None, "once");
}

#[test]
fn consumers_have_caught_up_when_all_is_stored_that_the_topic_held_at_the_promotion() {
    let ended = |scene: &mut Scene, end: i64| scene.0.memory.ends.insert(("samples".into(), 0), end);
    type Case = (&'static str, i64, fn(&mut Scene), bool);
    let cases: [Case; 6] = [
        ("exactly", 500, |_| {}, true),
        ("one is missing", 501, |_| {}, false),
        ("nothing is stored of the partition", 10, |s| s.server("a", |server| server.offsets = None), false),
        ("the topic is empty", 0, |s| s.server("a", |server| server.offsets = None), true),
        (
            "the rest feeds another shard",
            900,
            |s| drop(s.0.feeds.insert(("samples".into(), 0), vec![Span { from: 0, until: Some(500) }])),
            true,
        ),
        (
            "what a consumer that is gone has left counts for nothing",
            500,
            |s| {
                let gone = StoredOffset { consumer: "gone".into(), ..offset(1) };
                s.server("a", |server| server.offsets = Some(Aged { age: 50, value: vec![gone, offset(500)] }));
            },
            true,
        ),
    ];
    for (case, end, change, expected) in cases {
        let mut scene = published(Kind::Failover);
        ended(&mut scene, end);
        change(&mut scene);
        assert_eq!(told(&scene, Milestone::ConsumersCaughtUp).is_some(), expected, "{case}");
    }
    let scene = published(Kind::Failover);
    assert_eq!(told(&scene, Milestone::ConsumersCaughtUp), None, "nobody tells of the topic");
}

#[test]
fn a_record_waits_half_a_minute_for_consumers_that_catch_up_and_no_longer() {
    let closes = |scene: &Scene| scene.plan().records.iter().any(|record| record.phase == RecordPhase::Closed);
    let mut scene = published(Kind::Switchover);
    assert!(closes(&scene), "nobody tells of the topic");
    scene.0.memory.ends.insert(("samples".into(), 0), 900);
    assert!(!closes(&scene), "they are behind");
    scene.server("a", |server| server.offsets = Some(Aged { age: 50, value: vec![offset(900)] }));
    assert!(closes(&scene), "they have caught up");
    scene.server("a", |server| server.offsets = Some(Aged { age: 50, value: vec![offset(500)] }));
    let last = scene.0.status.last_change.as_mut().expect("a change");
    last.at = Some(scene.0.now - jiff::SignedDuration::from_secs(30));
    assert!(closes(&scene), "they do not catch up for long");
}
