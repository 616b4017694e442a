//! At which pace sick standbys are replaced, and which never are.

mod support;

use support::*;
use understudy_decide::decision::Sentence;
use understudy_decide::failover::snapshot::*;
use understudy_decide::{Fact, OrderKind, Reason, Step, pace};
use understudy_wire::evidence::{Aged, Millis, Phase, Replication};

fn condemned(scene: &Scene) -> Option<(String, Sentence)> {
    scene.steps().into_iter().find_map(|step| match step {
        Step::Condemn { replica, reason, .. } => Some((replica.to_string(), reason)),
        _ => None,
    })
}

fn exits(scene: &mut Scene, letter: &str) {
    scene.server(letter, |server| server.phase = Phase::Exited { code: Some(1), signal: None, age: 2_000 });
}

fn delay(scene: &mut Scene, letter: &str, delay: Option<Millis>) {
    scene.server(letter, |server| server.replication.as_mut().expect("replicates").value.delay = delay);
}

/// `letter` is a replacement that has not joined yet, and its server is in this phase.
fn is_built(scene: &mut Scene, letter: &str, phase: Phase) {
    scene.replica(letter, |replica| {
        replica.replaces = Some(name("x"));
        replica.age = 30_000;
        if let Fact::Present(volume) = &mut replica.volume {
            volume.role = None;
        }
    });
    scene.server(letter, |server| {
        server.phase = phase;
        server.replication = None;
    });
}

/// `letter` is a replacement that has not joined yet, and its replication has been broken for so long.
fn breaks_before_it_joins(scene: &mut Scene, letter: &str, since: Millis) {
    is_built(scene, letter, Phase::Running);
    scene.server(letter, |server| {
        server.lsn = Some(Aged { age: since, value: 1 });
        let apply_error = Some("1062: duplicate entry".to_owned());
        let replication = Replication {
            source: Some("10.0.0.1:3306".into()),
            receiving: true,
            applying: false,
            received: gtids("a", 1000),
            delay: None,
            receive_error: None,
            apply_error,
        };
        server.replication = Some(Aged { age: 50, value: replication });
    });
}

/// `letter` is a replacement that has not joined yet, and has not come closer to its primary for so long.
fn lags_before_it_joins(scene: &mut Scene, letter: &str, since: Millis) {
    is_built(scene, letter, Phase::Running);
    scene.0.memory.past.stray_for.insert(name(letter), since);
}

/// The scene's shard is all of the fleet, so one may be rebuilt at a time.
fn is_alone(scene: &mut Scene) {
    scene.0.fleet.replicas = scene.0.cast().count();
    scene.0.fleet.rebuilding = pace::rebuilding(&scene.0);
}

fn lags(scene: &mut Scene, letter: &str, since: Millis) {
    delay(scene, letter, Some(70_000));
    scene.0.memory.past.stray_for.insert(name(letter), since);
}

#[test]
fn a_sick_standby_is_replaced_unless_it_may_be_the_last_copy_or_another_comes_first() {
    type Case = (&'static str, fn(&mut Scene), Option<(&'static str, Sentence)>);
    let cases: &[Case] = &[
        ("it lags without end", |s| lags(s, "b", 600_000), Some(("m-b", Sentence::Lagging))),
        ("it has lagged for less", |s| lags(s, "b", 599_000), None),
        (
            "nobody keeps up",
            |s| {
                lags(s, "b", 700_000);
                lags(s, "c", 700_000);
            },
            None,
        ),
        (
            "it lags and the primary does not commit",
            |s| {
                lags(s, "b", 700_000);
                s.all_say(&unreachable(1_500));
            },
            None,
        ),
        (
            "one ends because its pod was asked to stop",
            |s| {
                exits(s, "b");
                s.replica("b", |replica| {
                    if let Fact::Present(pod) = &mut replica.pod {
                        pod.terminating = true;
                    }
                });
            },
            None,
        ),
        (
            "two end at once: one after the other",
            |s| {
                exits(s, "b");
                exits(s, "c");
            },
            Some(("m-b", Sentence::Exited)),
        ),
        (
            "another is being built",
            |s| {
                is_built(s, "b", Phase::Building);
                exits(s, "c");
            },
            None,
        ),
        (
            "another that was being built has come to nothing",
            |s| {
                is_built(s, "b", Phase::Unusable { reason: "half".into() });
                exits(s, "c");
            },
            Some(("m-b", Sentence::Unusable)),
        ),
        (
            "another is being built and this one is lost with its node",
            |s| {
                is_built(s, "b", Phase::Building);
                s.silent("c", 61_000);
            },
            Some(("m-c", Sentence::Lost)),
        ),
        (
            "another is about to be made",
            |s| {
                s.replica("b", |replica| {
                    replica.condemned = Some(Condemned { reason: "FailedOver".into(), ..Condemned::default() });
                });
                exits(s, "c");
            },
            None,
        ),
        (
            "the fleet rebuilds as many as may be",
            |s| {
                exits(s, "b");
                s.0.fleet.rebuilding = 2;
            },
            None,
        ),
        (
            "a tenth of the fleet is more",
            |s| {
                exits(s, "b");
                (s.0.fleet.replicas, s.0.fleet.rebuilding) = (30, 2);
            },
            Some(("m-b", Sentence::Exited)),
        ),
        (
            "it was one of those itself until it got stuck",
            |s| {
                is_built(s, "b", Phase::Starting);
                s.server("b", |server| server.fsync.as_mut().expect("probed").in_flight = Some(61_000));
                is_alone(s);
            },
            Some(("m-b", Sentence::Stuck)),
        ),
        (
            "neither of two replacements will join: one after the other",
            |s| {
                breaks_before_it_joins(s, "b", 15_000);
                breaks_before_it_joins(s, "c", 15_000);
                is_alone(s);
            },
            Some(("m-b", Sentence::ReplicationBroken)),
        ),
        (
            "another is being built and has been broken for a moment",
            |s| {
                breaks_before_it_joins(s, "b", 14_000);
                exits(s, "c");
            },
            None,
        ),
        (
            "it may be the last copy",
            |s| {
                exits(s, "b");
                s.server("a", |server| server.serving = None);
                s.silent("c", 10_000);
            },
            None,
        ),
    ];
    for (case, spoil, expected) in cases {
        let mut scene = Scene::well();
        spoil(&mut scene);
        let expected = expected.map(|(name, sentence)| (name.to_owned(), sentence));
        assert_eq!(condemned(&scene), expected, "{case}: {:?}", scene.plan().notes);
    }
}

#[test]
fn what_waits_is_said_with_what_it_waits_for() {
    type Case = (&'static str, fn(&mut Scene), &'static str);
    let cases: &[Case] = &[
        (
            "another is being built",
            |s| {
                is_built(s, "c", Phase::Building);
                exits(s, "b");
            },
            "and m-c is being built. It goes on once that is a standby",
        ),
        (
            "the budget is spent",
            |s| {
                exits(s, "b");
                s.0.fleet.rebuilding = 2;
            },
            "of the 24 replicas of the fleet 2 are being rebuilt, and 2 may be at a time. It goes on as soon as one of them is a standby",
        ),
    ];
    for (case, spoil, words) in cases {
        let mut scene = Scene::well();
        spoil(&mut scene);
        let notes = scene.plan().notes;
        let note = notes.iter().find(|note| note.reason == Reason::ReplacementWaits).expect("it waits");
        assert_eq!(note.about, Some(name("b")), "{case}");
        assert!(note.message.contains(words), "{case}: {}", note.message);
    }
}

#[test]
fn the_budget_of_the_fleet_holds_the_replacement_of_an_old_primary_and_no_promotion() {
    let mut scene = Scene::well();
    scene.replica("c", |replica| {
        replica.condemned = Some(Condemned { reason: "FailedOver".into(), ..Condemned::default() });
        replica.pod = Fact::Absent;
    });
    assert_eq!(scene.grown().len(), 1);
    scene.0.fleet.rebuilding = 2;
    assert_eq!(scene.grown(), vec![]);
    assert!(scene.gives(Reason::ReplacementWaits), "{:?}", scene.reasons());
    scene.kill_primary(300);
    assert_eq!(scene.claim(), Some((Kind::Failover, "m-b".into())));
}

#[test]
fn a_replacement_that_will_not_join_keeps_no_place_from_others() {
    type Case = (&'static str, fn(&mut Scene), bool);
    let cases: &[Case] = &[
        ("it may join yet", |s| breaks_before_it_joins(s, "b", 14_000), false),
        ("it comes after the one that is missing", |s| breaks_before_it_joins(s, "b", 15_000), true),
        ("it comes no closer, and nobody else keeps up", |s| lags_before_it_joins(s, "b", 600_000), true),
        ("it may come closer", |s| lags_before_it_joins(s, "b", 599_000), false),
    ];
    for (case, spoil, made) in cases {
        let mut scene = Scene::well();
        spoil(&mut scene);
        scene.replica("c", |replica| {
            replica.condemned = Some(Condemned { reason: "FailedOver".into(), ..Condemned::default() });
            replica.pod = Fact::Absent;
        });
        is_alone(&mut scene);
        let replaced: Vec<_> = scene.grown().into_iter().filter_map(|new| new.replaces).collect();
        assert_eq!(replaced, made.then(|| name("c")).into_iter().collect::<Vec<_>>(), "{case}");
        assert_eq!(condemned(&scene), None, "{case}: one at a time");
    }
}

#[test]
fn no_more_than_two_volumes_are_filled_on_a_node() {
    for (filling, builds) in [(0, true), (1, true), (2, false)] {
        let mut scene = Scene::well();
        scene.server("c", |server| {
            server.phase = Phase::Empty;
            server.executed = None;
            server.replication = None;
        });
        scene.0.fleet.filling = [("node-3".to_owned(), filling), ("node-2".to_owned(), 7)].into();
        assert_eq!(scene.order_to("c", OrderKind::Build).is_some(), builds, "{filling}");
        assert_eq!(scene.gives(Reason::WaitingForDonor), !builds, "{filling}");
    }
}

#[test]
fn nobody_waits_for_a_donor_that_will_not_be_one() {
    type Case = (&'static str, fn(&mut Scene), bool);
    let cases: &[Case] = &[
        ("it is about to follow", |s| delay(s, "b", None), false),
        (
            "it has been about to for long",
            |s| {
                delay(s, "b", None);
                s.0.memory.past.stray_for.insert(name("b"), 15_000);
            },
            true,
        ),
        (
            "it has transactions of its own, and is not replaced before this one is there",
            |s| {
                s.server("b", |server| server.executed.as_mut().expect("read").value = gtids("b", 3));
                s.replica("c", |replica| replica.replaces = Some(name("x")));
                s.label("c", "spare");
            },
            true,
        ),
    ];
    for (case, spoil, builds) in cases {
        let mut scene = Scene::well();
        scene.server("c", |server| {
            (server.phase, server.executed, server.replication) = (Phase::Empty, None, None);
        });
        spoil(&mut scene);
        assert_eq!(scene.order_to("c", OrderKind::Build).is_some(), *builds, "{case}: {:?}", scene.plan().notes);
    }
}

#[test]
fn a_rebuild_counts_until_it_has_joined_or_comes_to_nothing() {
    type Case = (&'static str, fn(&mut Scene), usize);
    let cases: &[Case] = &[
        ("all have joined", |_| {}, 0),
        ("it is filled", |s| is_built(s, "b", Phase::Building), 1),
        (
            "it is filled for long",
            |s| {
                is_built(s, "b", Phase::Building);
                s.replica("b", |replica| replica.age = 90_000_000);
            },
            1,
        ),
        ("it runs and does not replicate yet", |s| is_built(s, "b", Phase::Running), 1),
        ("it does not come closer for a while", |s| lags_before_it_joins(s, "b", 599_000), 1),
        ("it does not come closer for long", |s| lags_before_it_joins(s, "b", 600_000), 0),
        ("its replication is broken for a moment", |s| breaks_before_it_joins(s, "b", 14_000), 1),
        ("its replication is broken for good", |s| breaks_before_it_joins(s, "b", 15_000), 0),
        (
            "it runs, does not replicate yet, and has transactions of its own",
            |s| {
                is_built(s, "b", Phase::Running);
                s.server("b", |server| server.executed.as_mut().expect("read").value = gtids("b", 3));
            },
            0,
        ),
        (
            "its volume hangs while it is filled",
            |s| {
                is_built(s, "b", Phase::Building);
                s.server("b", |server| server.fsync.as_mut().expect("probed").in_flight = Some(61_000));
            },
            0,
        ),
        (
            "its pod ended",
            |s| {
                is_built(s, "b", Phase::Building);
                s.silent("b", 10_000);
                s.replica("b", |replica| {
                    if let Fact::Present(pod) = &mut replica.pod {
                        pod.phase = PodPhase::Ended;
                    }
                });
            },
            0,
        ),
        ("it waits to be filled", |s| is_built(s, "b", Phase::Empty), 1),
        (
            "it waits for long",
            |s| {
                is_built(s, "b", Phase::Empty);
                s.replica("b", |replica| replica.age = 180_000);
            },
            0,
        ),
        ("it ended", |s| is_built(s, "b", Phase::Exited { code: Some(1), signal: None, age: 10 }), 0),
        (
            "it has joined before, and starts again",
            |s| {
                is_built(s, "b", Phase::Starting);
                s.label("b", "standby");
            },
            0,
        ),
        (
            "it is one of the first",
            |s| {
                is_built(s, "b", Phase::Building);
                s.replica("b", |replica| replica.replaces = None);
            },
            0,
        ),
        (
            "its pod finds no room",
            |s| {
                is_built(s, "b", Phase::Empty);
                s.silent("b", 10_000);
                s.replica("b", |replica| {
                    if let Fact::Present(pod) = &mut replica.pod {
                        pod.unschedulable = Some("no room".into());
                    }
                });
            },
            0,
        ),
    ];
    for (case, spoil, expected) in cases {
        let mut scene = Scene::well();
        spoil(&mut scene);
        assert_eq!(pace::rebuilding(&scene.0), *expected, "{case}");
    }
}

#[test]
fn a_standby_strays_for_as_long_as_it_comes_no_closer() {
    let mut scene = Scene::well();
    let mut course = Course::default();
    let mut now = 1_000_000;
    let mut after = |scene: &Scene, millis: Millis| {
        for _ in 0..millis / 200 {
            now += 200;
            course.see(&scene.0, &scene.plan().assessment, now);
        }
        course.past(now).stray_for.get(&name("b")).copied()
    };
    assert_eq!(after(&scene, 2_000), None);
    delay(&mut scene, "b", Some(80_000));
    assert_eq!(after(&scene, 10_200), Some(10_000));
    delay(&mut scene, "b", Some(79_500));
    assert_eq!(after(&scene, 1_000), Some(11_000), "half a second is no coming closer");
    delay(&mut scene, "b", Some(70_000));
    assert_eq!(after(&scene, 1_200), Some(1_000));
    delay(&mut scene, "b", Some(90_000));
    assert_eq!(after(&scene, 2_000), Some(3_000), "further away is no coming closer");
    delay(&mut scene, "b", None);
    assert_eq!(after(&scene, 2_000), Some(5_000), "nor is what nobody knows");
    delay(&mut scene, "b", Some(9_000));
    assert_eq!(after(&scene, 200), None);
}
