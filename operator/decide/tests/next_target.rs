//! The target of a change does not take office: the next one is chosen as the first one was.

mod support;

use support::*;
use understudy_decide::failover::candidate::Unfit;
use understudy_decide::failover::snapshot::*;
use understudy_decide::{Cause, OrderKind, Reason};
use understudy_wire::evidence::{Fsync, ProbeError, Stage, Volume};

/// So many of a hundred parts of a volume are free.
fn room(scene: &mut Scene, letter: &str, free: u64) {
    scene.server(letter, |server| server.volume = Some(Volume { total: 1_000, free: free * 10 }));
}

/// `a` was left because its volume was full, or about to be, and `b` has refused to take over twice.
fn refuses(kind: Kind, cause: &str) -> Scene {
    let mut scene = Scene::well();
    scene.all_say(&fails(Stage::Commit, ProbeError::Server { code: 1114, message: "full".into() }, 2_000));
    room(&mut scene, "a", 0);
    scene.claimed(kind, "b");
    scene.0.status.transition.as_mut().expect("claimed").cause = Some(cause.into());
    scene.reprobed(ReprobeOutcome::Failed("full".into()));
    scene.ordered("b", OrderKind::Promote, 2, 300, OrderOutcome::Failed("error 1290".into()));
    scene
}

#[test]
fn who_follows_a_full_primary_has_room_however_many_refuse_before() {
    type Case = (&'static str, fn(&mut Scene), Option<(Kind, &'static str)>);
    let cases: &[Case] = &[
        ("the other has room", |_| {}, Some((Kind::Failover, "m-c"))),
        ("the other has none either", |s| room(s, "c", 3), None),
        (
            "and it has received more",
            |s| {
                room(s, "c", 20);
                s.server("c", |server| {
                    server.replication.as_mut().expect("replicates").value.received = gtids("a", 1_010)
                });
            },
            None,
        ),
        (
            "the old primary was fenced, and looks restarted",
            |s| {
                room(s, "c", 3);
                s.server("a", |server| (server.read_only, server.serving) = (Some(true), None));
                s.all_say(&fails(Stage::Commit, ProbeError::ReadOnly, 1_000));
            },
            None,
        ),
        (
            "room was made on the volume of the old primary: it has everything",
            |s| {
                room(s, "c", 3);
                room(s, "a", 6);
            },
            Some((Kind::Confirm, "m-a")),
        ),
        (
            "a little was made, and it would be full again at once",
            |s| {
                room(s, "c", 3);
                room(s, "a", 5);
            },
            None,
        ),
        (
            "the old primary has died since: whoever can takes over",
            |s| {
                room(s, "c", 3);
                s.kill_primary(300);
            },
            Some((Kind::Failover, "m-c")),
        ),
    ];
    for (case, spoil, expected) in cases {
        let mut scene = refuses(Kind::Failover, "VolumeFull");
        spoil(&mut scene);
        let expected = expected.map(|(kind, to)| (kind, to.to_owned()));
        assert_eq!(scene.claim(), expected, "{case}: {:?}", scene.plan().notes);
        assert_eq!(scene.gives(Reason::NoCandidate), expected.is_none(), "{case}: {:?}", scene.reasons());
        let told = scene.order_to("b", OrderKind::Promote).is_some();
        assert_eq!(told, expected.is_none(), "{case}: who was to take over is the only hope");
    }
}

#[test]
fn a_planned_change_away_from_a_volume_that_has_filled_up_meanwhile_goes_on_to_one_that_has_room() {
    for (free, expected) in [(50, Some((Kind::Failover, "m-c".to_owned()))), (20, None)] {
        let mut scene = refuses(Kind::Switchover, "VolumeFilling");
        scene.server("a", |server| server.fsync = Some(Fsync { error: Some("ENOSPC".into()), ..Fsync::default() }));
        room(&mut scene, "c", free);
        assert_eq!(scene.plan().assessment.verdict.cause(), Some(Cause::VolumeFull));
        assert_eq!(scene.claim(), expected, "{free} %: {:?}", scene.plan().notes);
    }
}

#[test]
fn a_record_that_the_next_operator_begins_tells_who_had_no_room() {
    let mut scene = refuses(Kind::Failover, "VolumeFull");
    scene.ordered("b", OrderKind::Promote, 1, 300, OrderOutcome::InFlight);
    scene.0.memory.transition_known = 2_000;
    room(&mut scene, "c", 3);
    let records = scene.plan().records;
    let grounds = records.iter().find_map(|record| record.grounds.clone()).expect("it is begun");
    let why = grounds.ranking.unfit.iter().find(|(unfit, _)| *unfit == name("c")).map(|(_, why)| why);
    assert!(matches!(why, Some(Unfit::Volume(_))), "{:?}", grounds.ranking);
}

#[test]
fn a_first_primary_that_refuses_is_named_with_what_it_says_and_told_again() {
    for (sent, told) in [(300, false), (3_000, true)] {
        let mut scene = Scene::well();
        scene.claimed(Kind::Bootstrap, "a");
        scene.0.status.primary = None;
        scene.ordered("a", OrderKind::Promote, 2, sent, OrderOutcome::Failed("error 1290".into()));
        let notes = scene.plan().notes;
        let note = notes.iter().find(|note| note.reason == Reason::CandidateFailed).expect("it is said");
        assert!(note.message.contains("error 1290"), "{}", note.message);
        assert_eq!(scene.order_to("a", OrderKind::Promote).is_some(), told, "{sent}");
    }
}

#[test]
fn a_primary_that_takes_writes_and_has_no_address_is_what_is_waited_for() {
    let mut scene = Scene::well();
    scene.kill_primary(700);
    scene.claimed(Kind::Failover, "b");
    scene.ordered("b", OrderKind::Promote, 1, 10, OrderOutcome::Done(None));
    scene.replica("b", |replica| {
        if let understudy_decide::Fact::Present(pod) = &mut replica.pod {
            pod.ip = None;
        }
    });
    let doing = scene.plan().view.doing;
    assert_eq!(doing.as_deref(), Some("waiting for the address of m-b, which takes writes under epoch 5"));
}
