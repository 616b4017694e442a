//! A change of primary that a person asked for: it is taken up, or turned down in words that reach its record, or it is said what it
//! waits for.

mod support;

use support::*;
use understudy_decide::decision::Subject;
use understudy_decide::failover::snapshot::*;
use understudy_decide::{Reason, Step};
use understudy_wire::Epoch;
use understudy_wire::evidence::{Aged, Phase, ProbeError, Stage, Volume};

fn asks(scene: &mut Scene, kind: Kind, target: Option<&str>, age: u64) {
    scene.0.requests = vec![Request { name: "please".into(), kind, target: target.map(name), age }];
}

/// What the record of the request says when it is turned down.
fn turned_down(scene: &Scene) -> Option<String> {
    scene.steps().into_iter().find_map(|step| match step {
        Step::Refuse { request, message } if request == "please" => Some(message),
        _ => None,
    })
}

fn said(scene: &Scene, reason: Reason) -> Option<String> {
    scene.plan().notes.into_iter().find(|note| note.reason == reason).map(|note| note.message)
}

/// So many of a hundred parts of a volume are free.
fn room(scene: &mut Scene, letter: &str, free: u64) {
    scene.server(letter, |server| server.volume = Some(Volume { total: 1_000, free: free * 10 }));
}

/// The volume of `a` is full and nobody commits; those of the others have so much room.
fn full(scene: &mut Scene, b: u64, c: u64) {
    scene.all_say(&fails(Stage::Commit, ProbeError::Server { code: 1114, message: "full".into() }, 2_000));
    for (letter, free) in [("a", 0), ("b", b), ("c", c)] {
        room(scene, letter, free);
    }
}

#[test]
fn a_request_for_one_candidate_is_turned_down_while_every_volume_is_full_and_any_other_stays_open() {
    type Case = (&'static str, fn(&mut Scene), bool);
    let cases: &[Case] = &[
        (
            "one that is full",
            |s| {
                full(s, 3, 3);
                asks(s, Kind::Failover, Some("b"), 31_000);
            },
            true,
        ),
        (
            "the same, as a switchover",
            |s| {
                full(s, 20, 3);
                asks(s, Kind::Switchover, Some("b"), 31_000);
            },
            true,
        ),
        (
            "one that the shard does not have",
            |s| {
                full(s, 3, 3);
                asks(s, Kind::Failover, Some("nobody"), 31_000);
            },
            true,
        ),
        (
            "a moment ago: the word of its volume may be old",
            |s| {
                full(s, 3, 3);
                asks(s, Kind::Failover, Some("b"), 29_000);
            },
            false,
        ),
        (
            "whoever can",
            |s| {
                full(s, 3, 3);
                asks(s, Kind::Failover, None, 31_000);
            },
            false,
        ),
        (
            "one that is silent, of a primary that is gone: whoever comes back first takes over",
            |s| {
                s.kill_primary(500);
                s.silent("b", 9_000);
                s.silent("c", 9_000);
                s.all_say(&refused(400));
                asks(s, Kind::Failover, Some("b"), 31_000);
            },
            false,
        ),
    ];
    for (case, spoil, refused) in cases {
        for mode in [Mode::Automatic, Mode::Manual] {
            let mut scene = Scene::well();
            scene.0.policy.mode = mode;
            spoil(&mut scene);
            assert_eq!(scene.claim(), None, "{case}, {mode}");
            assert_eq!(turned_down(&scene).is_some(), *refused, "{case}, {mode}: {:?}", scene.steps());
            assert_eq!(scene.gives(Reason::RequestRefused), *refused, "{case}, {mode}: {:?}", scene.reasons());
            let why = said(&scene, Reason::NoCandidate).expect("it is said that nobody can");
            assert_eq!(why.contains("please stays open until somebody does"), !refused, "{case}, {mode}: {why}");
        }
    }
}

#[test]
fn why_a_candidate_without_room_is_not_taken_is_in_the_record_and_in_the_event() {
    let mut scene = Scene::well();
    full(&mut scene, 3, 3);
    asks(&mut scene, Kind::Failover, Some("b"), 31_000);
    let message = turned_down(&scene).expect("it is turned down");
    for words in ["m-b does not take over from m-a", "its volume has no room either, 20 %", "ask again"] {
        assert!(message.contains(words), "{message}");
    }
    assert_eq!(said(&scene, Reason::RequestRefused), Some(format!("please: {message}")));
}

#[test]
fn a_request_for_a_candidate_without_room_is_carried_out_with_one_that_has_it() {
    let mut scene = Scene::well();
    full(&mut scene, 3, 50);
    asks(&mut scene, Kind::Failover, Some("b"), 31_000);
    assert_eq!(scene.claim(), Some((Kind::Failover, "m-c".into())));
    let grounds = scene.plan().records[0].grounds.clone().expect("what was known");
    let (_, why) = grounds.ranking.unfit.iter().find(|(unfit, _)| *unfit == name("b")).expect("b is not fit");
    assert!(why.words().contains("no room"), "and the record says why it is not the one: {}", why.words());
}

#[test]
fn who_is_too_far_behind_to_be_handed_over_to_is_named() {
    let late = |scene: &mut Scene| {
        for letter in ["b", "c"] {
            scene.server(letter, |server| {
                server.replication.as_mut().expect("replicates").value.delay = Some(60_000);
            });
        }
    };
    let words = "m-b: it is too far behind, or not known to keep up; m-c: it is too far behind";
    let mut scene = Scene::well();
    late(&mut scene);
    asks(&mut scene, Kind::Switchover, None, 31_000);
    let message = turned_down(&scene).expect("it is turned down");
    assert!(message.contains(words), "{message}");
    let mut scene = Scene::well();
    late(&mut scene);
    scene.replica("a", |replica| {
        replica.condemned = Some(Condemned { reason: "Wanted".into(), ..Condemned::default() });
    });
    let message = said(&scene, Reason::NoCandidate).expect("it cannot hand over");
    assert!(message.contains(words), "{message}");
}

#[test]
fn one_that_keeps_up_is_handed_over_to_although_one_that_does_not_has_more() {
    let mut scene = Scene::well();
    scene.server("c", |server| {
        server.executed = Some(Aged { age: 50, value: gtids("a", 1_010) });
        server.replication.as_mut().expect("replicates").value.delay = Some(60_000);
    });
    let mut leaving = scene.clone();
    leaving.replica("a", |replica| {
        replica.condemned = Some(Condemned { reason: "Wanted".into(), ..Condemned::default() });
    });
    assert_eq!(leaving.claim(), Some((Kind::Switchover, "m-b".into())));
    asks(&mut scene, Kind::Switchover, None, 10);
    assert_eq!(scene.claim(), Some((Kind::Switchover, "m-b".into())));
    asks(&mut scene, Kind::Switchover, Some("c"), 31_000);
    assert_eq!(scene.claim(), None, "the one that was asked for does not");
    assert!(turned_down(&scene).is_some_and(|message| message.contains("m-c: it is too far behind")));
}

#[test]
fn a_request_whose_record_cannot_be_written_stands_in_nobodys_way() {
    let mut scene = Scene::well();
    asks(&mut scene, Kind::Failover, None, 31_000);
    let target = Some(name("c"));
    scene.0.requests.push(Request { name: "after".into(), kind: Kind::Switchover, target, age: 10 });
    assert!(turned_down(&scene).is_some_and(|message| message.contains("m-a commits")));
    assert_eq!(scene.claim(), None, "one after the other");
    scene.0.memory.held_back.insert(Subject { step: "Refuse", about: Some("please".into()) });
    assert_eq!(scene.claim(), Some((Kind::Switchover, "m-c".into())), "{:?}", scene.plan().notes);
    assert_eq!(scene.plan().held.len(), 1, "it is due all the same");
}

#[test]
fn a_primary_that_is_leaving_does_not_wait_for_the_target_of_a_request() {
    for (mode, expected) in [(Mode::Automatic, Some((Kind::Switchover, "m-b".to_owned()))), (Mode::Manual, None)] {
        let mut scene = Scene::well();
        scene.0.policy.mode = mode;
        scene.silence("c");
        asks(&mut scene, Kind::Switchover, Some("c"), 10);
        assert_eq!(scene.claim(), None, "{mode}: it waits for c");
        scene.replica("a", |replica| {
            if let Fact::Present(pod) = &mut replica.pod {
                pod.terminating = true;
            }
        });
        assert_eq!(scene.claim(), expected, "{mode}: {:?}", scene.plan().notes);
        assert!(turned_down(&scene).is_none(), "{mode}: it stays open");
    }
}

#[test]
fn a_request_on_a_shard_without_a_primary_is_turned_down() {
    for (age, expected) in [(29_000, false), (30_000, true)] {
        let mut scene = Scene::well();
        let bootstrap = Some(Bootstrap { replica: name("a"), completed: false });
        scene.0.status = Status { next_server_id: 4, bootstrap, ..Status::default() };
        for letter in ["a", "b", "c"] {
            scene.server(letter, |server| {
                (server.phase, server.epoch, server.serving) = (Phase::Empty, Epoch(0), None);
                (server.executed, server.replication) = (None, None);
            });
        }
        scene.server("a", |server| server.phase = Phase::Building);
        asks(&mut scene, Kind::Failover, None, age);
        assert_eq!(turned_down(&scene).is_some(), expected, "{age}: {:?}", scene.steps());
        assert_eq!(scene.gives(Reason::RequestRefused), expected, "{age}");
    }
}

#[test]
fn a_primary_that_is_leaving_and_cannot_be_told_to_hand_over_is_said() {
    type Case = (&'static str, fn(&mut Scene), Option<&'static str>);
    let cases: &[Case] = &[
        (
            "no connection to its manager",
            |s| s.replica("a", |replica| replica.link.connected = false),
            Some("its manager cannot be told. It is looked at again as soon as that is connected"),
        ),
        (
            "it is out of connections",
            |s| {
                let whose = understudy_wire::evidence::Limit::Server;
                s.all_say(&fails(Stage::Auth, ProbeError::TooManyConnections { whose }, 5_000));
            },
            Some("it is Saturated, and only one that commits hands over"),
        ),
        ("it is suspect: that is said, and soon it is dead or commits", |s| s.all_say(&unreachable(1_500)), None),
    ];
    for (case, spoil, words) in cases {
        let mut scene = Scene::well();
        scene.replica("a", |replica| {
            replica.condemned = Some(Condemned { reason: "Wanted".into(), ..Condemned::default() });
        });
        spoil(&mut scene);
        assert_eq!(scene.claim(), None, "{case}");
        let message = said(&scene, Reason::SwitchoverWithheld);
        assert_eq!(message.is_some(), words.is_some(), "{case}: {:?}", scene.reasons());
        if let (Some(message), Some(words)) = (message, words) {
            assert!(message.contains(words) && message.contains("Condemned"), "{case}: {message}");
        }
        let doing = scene.plan().view.doing;
        assert_eq!(doing.as_deref(), Some("waiting to hand over from m-a, which is leaving"), "{case}");
    }
}
