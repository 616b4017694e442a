//! A primary that works and had better hand over.

mod support;

use jiff::SignedDuration;
use support::*;
use understudy_decide::failover::snapshot::*;
use understudy_decide::{Cause, Reason, Verdict, assess};
use understudy_wire::evidence::{Fsync, Millis, Phase, Probe, ProbeError, Stage, Volume};

fn fsync(scene: &mut Scene, letter: &str, took: Millis) {
    scene.server(letter, |server| {
        server.fsync = Some(Fsync { succeeded: Some(100), took: Some(took), ..Fsync::default() });
    });
}

/// Commits on `a` have taken 800 ms for this long, and its volume is why.
fn slow(scene: &mut Scene, since: Millis) {
    scene.all_say(&Probe { commit_took: Some(800), ..commits() });
    fsync(scene, "a", 700);
    (scene.0.memory.past.slow_for, scene.0.memory.past.quicker_for) = (since, since);
    scene.0.fleet.slow = 1;
}

#[test]
fn a_slow_primary_hands_over_to_one_that_is_not_and_is_never_failed_over() {
    type Case = (&'static str, fn(&mut Scene), Option<&'static str>);
    let cases: &[Case] = &[
        ("for a minute", |s| slow(s, 60_000), Some("m-b")),
        ("for less", |s| slow(s, 59_000), None),
        (
            "all volumes until a moment ago",
            |s| {
                slow(s, 60_000);
                s.0.memory.past.quicker_for = 4_000;
            },
            None,
        ),
        (
            "and everybody's probes wait in vain for a commit while a consumer's end",
            |s| {
                slow(s, 60_000);
                for observer in [manager("b"), manager("c"), operator()] {
                    s.says(&observer, "a", Some(fails(Stage::Commit, ProbeError::Timeout, 70_000)), None);
                }
            },
            Some("m-b"),
        ),
        (
            "its volume is not: load",
            |s| {
                slow(s, 60_000);
                fsync(s, "a", 3);
            },
            None,
        ),
        (
            "the first standby is slow as well",
            |s| {
                slow(s, 60_000);
                fsync(s, "b", 700);
            },
            Some("m-c"),
        ),
        (
            "every volume is",
            |s| {
                slow(s, 60_000);
                fsync(s, "b", 190);
                fsync(s, "c", 700);
            },
            None,
        ),
        (
            "the last write to the first standby's volume has not ended yet",
            |s| {
                slow(s, 60_000);
                s.server("b", |server| {
                    server.fsync = Some(Fsync { took: Some(2), in_flight: Some(1_500), ..Fsync::default() });
                });
            },
            Some("m-c"),
        ),
        (
            "the first standby would hand over for want of room",
            |s| {
                slow(s, 60_000);
                room(s, "b", 5);
            },
            Some("m-c"),
        ),
        (
            "all others would",
            |s| {
                slow(s, 60_000);
                ["b", "c"].iter().for_each(|letter| room(s, letter, 5));
            },
            None,
        ),
        (
            "and all volumes fill up: room is nowhere, and that is no reason to stay slow",
            |s| {
                slow(s, 60_000);
                ["a", "b", "c"].iter().for_each(|letter| room(s, letter, 4));
            },
            Some("m-b"),
        ),
        (
            "all volumes fill up, and all are slow",
            |s| {
                slow(s, 60_000);
                ["a", "b", "c"].iter().for_each(|letter| room(s, letter, 4));
                ["b", "c"].iter().for_each(|letter| fsync(s, letter, 700));
            },
            None,
        ),
        (
            "another shard is slow too",
            |s| {
                slow(s, 60_000);
                s.0.fleet.slow = 2;
            },
            None,
        ),
        (
            "one of a hundred other shards is slow too",
            |s| {
                slow(s, 60_000);
                (s.0.fleet.slow, s.0.fleet.shards) = (2, 101);
            },
            Some("m-b"),
        ),
        (
            "within the cooldown",
            |s| {
                slow(s, 60_000);
                let at = Some(s.0.now);
                s.0.status.last_change =
                    Some(LastChange { kind: Kind::Failover, epoch: EPOCH, from: None, record: None, cause: None, at });
            },
            None,
        ),
        (
            "a person decides",
            |s| {
                slow(s, 60_000);
                s.0.policy.mode = Mode::Manual;
            },
            None,
        ),
        (
            "no standby keeps up",
            |s| {
                slow(s, 60_000);
                for letter in ["b", "c"] {
                    s.server(letter, |server| {
                        server.replication.as_mut().expect("replicates").value.delay = Some(60_000);
                    });
                }
            },
            None,
        ),
    ];
    for (case, spoil, expected) in cases {
        let mut scene = Scene::well();
        spoil(&mut scene);
        assert_eq!(assess(&scene.0, &name("a")).verdict, Verdict::Slow, "{case}");
        let expected = expected.map(|to| (Kind::Switchover, to.to_owned()));
        assert_eq!(scene.claim(), expected, "{case}: {:?}", scene.plan().notes);
        let told = scene.0.memory.past.slow_for >= 60_000;
        assert_eq!(scene.gives(Reason::SwitchoverWithheld), told && expected.is_none(), "{case}");
    }
}

/// All consumers were started this long ago, and none has reached `a` since.
fn newcomers(scene: &mut Scene, since: Millis) {
    scene.consumers_cut_off(since);
    for observer in [consumer(), other_consumer()] {
        let never = Probe { committed: None, selected: None, ..unreachable(since) };
        scene.says(&observer, "a", Some(never), None);
    }
}

#[test]
fn a_primary_that_no_consumer_reaches_hands_over_and_is_never_failed_over() {
    type Case = (&'static str, fn(&mut Scene), Option<&'static str>);
    let cases: &[Case] = &[
        ("for five seconds", |s| s.consumers_cut_off(5_000), Some("m-b")),
        ("for less", |s| s.consumers_cut_off(4_900), None),
        (
            "they have failed for long, and a moment ago they still came as far as a lock",
            |s| {
                s.consumers_cut_off(600_000);
                s.0.memory.past.cut_off_for = 2_900;
            },
            None,
        ),
        ("they were started a moment ago, and have never reached it", |s| newcomers(s, 29_000), None),
        ("and half a minute ago", |s| newcomers(s, 30_000), Some("m-b")),
        (
            "but one, which commits",
            |s| {
                s.consumers_cut_off(60_000);
                s.says(&consumer(), "a", Some(commits()), None);
            },
            None,
        ),
        (
            "but one, which is let in and waits",
            |s| {
                s.consumers_cut_off(60_000);
                s.says(&consumer(), "a", Some(fails(Stage::Commit, ProbeError::Timeout, 60_000)), None);
            },
            None,
        ),
        (
            "there is one consumer",
            |s| s.says(&consumer(), "a", Some(fails(Stage::Tcp, ProbeError::Timeout, 60_000)), None),
            None,
        ),
        (
            "both run on one node",
            |s| {
                s.consumers_cut_off(60_000);
                s.report(&other_consumer()).node = Some("node-4".into());
            },
            None,
        ),
        (
            "the other one has not been heard for long",
            |s| {
                s.consumers_cut_off(60_000);
                s.report(&other_consumer()).age = 10_000;
            },
            None,
        ),
        (
            "the first standby is on the same node",
            |s| {
                s.consumers_cut_off(60_000);
                let node = s.0.node_of(&name("a")).map(ToOwned::to_owned);
                s.replica("b", |replica| {
                    if let Fact::Present(pod) = &mut replica.pod {
                        pod.node = node;
                    }
                });
            },
            Some("m-c"),
        ),
        (
            "the first standby would hand back for want of room",
            |s| {
                s.consumers_cut_off(60_000);
                room(s, "b", 5);
            },
            Some("m-c"),
        ),
        (
            "all standbys would",
            |s| {
                s.consumers_cut_off(60_000);
                ["b", "c"].iter().for_each(|letter| room(s, letter, 5));
            },
            None,
        ),
        (
            "nor do those of another shard reach theirs",
            |s| {
                s.consumers_cut_off(60_000);
                s.0.fleet.partitioned = 2;
            },
            None,
        ),
        (
            "a person decides",
            |s| {
                s.consumers_cut_off(60_000);
                s.0.policy.mode = Mode::Manual;
            },
            None,
        ),
    ];
    for (case, spoil, expected) in cases {
        let mut scene = Scene::well();
        scene.0.fleet.partitioned = 1;
        spoil(&mut scene);
        assert_eq!(assess(&scene.0, &name("a")).verdict, Verdict::ObserverPartition, "{case}");
        let expected = expected.map(|to| (Kind::Switchover, to.to_owned()));
        assert_eq!(scene.claim(), expected, "{case}: {:?}", scene.plan().notes);
    }
}

#[test]
fn a_change_that_did_not_help_the_consumers_is_not_made_again_soon_however_short_the_cooldown_is() {
    type Case = (&'static str, &'static str, i64, bool);
    let cases: &[Case] = &[
        ("it was for them", "CutOff", 599, false),
        ("ten minutes ago", "CutOff", 600, true),
        ("it came to nothing", "SwitchoverAborted", 599, false),
        ("it was for something else", "Requested", 31, true),
        ("within the cooldown", "Requested", 29, false),
    ];
    for (case, cause, ago, expected) in cases {
        let mut scene = Scene::well();
        scene.0.fleet.partitioned = 1;
        scene.0.policy.thresholds.cooldown = 30_000;
        scene.0.status.last_change = Some(LastChange {
            kind: Kind::Switchover,
            epoch: EPOCH,
            from: Some(name("b")),
            record: Some("m-4".into()),
            cause: Some((*cause).into()),
            at: Some(scene.0.now - SignedDuration::from_secs(*ago)),
        });
        scene.consumers_cut_off(20_000);
        assert_eq!(scene.claim().is_some(), *expected, "{case}: {:?}", scene.plan().notes);
        assert_eq!(scene.gives(Reason::SwitchoverWithheld), !expected, "{case}");
    }
}

/// So many of a hundred parts of a volume are free.
fn room(scene: &mut Scene, letter: &str, free: u64) {
    scene.server(letter, |server| server.volume = Some(Volume { total: 1_000, free: free * 10 }));
}

/// The volume of `a` answers that it is full, and nobody has committed for two seconds.
fn full(scene: &mut Scene) {
    room(scene, "a", 0);
    scene.all_say(&fails(Stage::Commit, ProbeError::Server { code: 1114, message: "full".into() }, 2_000));
}

#[test]
fn a_primary_whose_volume_fills_up_gives_way_to_one_that_has_room_and_to_nobody_else() {
    type Case = (&'static str, fn(&mut Scene), Option<(Kind, &'static str)>);
    let cases: &[Case] = &[
        ("a twentieth is free", |s| room(s, "a", 5), Some((Kind::Switchover, "m-b"))),
        ("more is", |s| room(s, "a", 6), None),
        (
            "the first standby has no room",
            |s| {
                room(s, "a", 5);
                room(s, "b", 20);
            },
            Some((Kind::Switchover, "m-c")),
        ),
        ("all fill up", |s| ["a", "b", "c"].iter().for_each(|letter| room(s, letter, 5)), None),
        ("it is full and commits: it hands over", |s| room(s, "a", 0), Some((Kind::Switchover, "m-b"))),
        ("it is full and does not", full, Some((Kind::Failover, "m-b"))),
        (
            "the probe says so",
            |s| {
                full(s);
                room(s, "a", 4);
                s.server("a", |server| server.fsync = Some(Fsync { error: Some("ENOSPC".into()), ..Fsync::default() }));
            },
            Some((Kind::Failover, "m-b")),
        ),
        (
            "it is full, and only the other standby has room",
            |s| {
                full(s);
                room(s, "b", 3);
            },
            Some((Kind::Failover, "m-c")),
        ),
        (
            "all are full",
            |s| {
                full(s);
                room(s, "b", 0);
                room(s, "c", 3);
            },
            None,
        ),
    ];
    for (case, spoil, expected) in cases {
        let mut scene = Scene::well();
        spoil(&mut scene);
        let expected = expected.map(|(kind, to)| (kind, to.to_owned()));
        assert_eq!(scene.claim(), expected, "{case}: {:?}", scene.plan().notes);
    }
    let mut scene = Scene::well();
    full(&mut scene);
    assert_eq!(assess(&scene.0, &name("a")).verdict, Verdict::Stuck(Cause::VolumeFull));
    room(&mut scene, "b", 3);
    room(&mut scene, "c", 3);
    assert!(scene.gives(Reason::NoCandidate) && scene.gives(Reason::VolumeLow), "{:?}", scene.reasons());
}

#[test]
fn a_full_volume_hides_no_other_trouble_of_a_primary() {
    type Case = (&'static str, fn(&mut Scene), Option<(Kind, &'static str)>);
    let cases: &[Case] = &[
        (
            "it refuses writes and has everything: it is confirmed",
            |s| {
                s.server("a", |server| (server.read_only, server.serving) = (Some(true), None));
                s.all_say(&fails(Stage::Commit, ProbeError::ReadOnly, 3_000));
            },
            Some((Kind::Confirm, "m-a")),
        ),
        (
            "its process is stopped",
            |s| {
                s.server("a", |server| server.process_state = Some('T'));
                s.all_say(&fails(Stage::Greeting, ProbeError::Timeout, 3_500));
            },
            Some((Kind::Failover, "m-b")),
        ),
        (
            "nobody is greeted",
            |s| s.all_say(&fails(Stage::Greeting, ProbeError::Timeout, 3_500)),
            Some((Kind::Failover, "m-b")),
        ),
        (
            "its volume hangs",
            |s| {
                s.server("a", |server| {
                    server.fsync = Some(Fsync { in_flight: Some(5_500), ..Fsync::default() });
                    server.lsn = None;
                });
                s.all_say(&fails(Stage::Commit, ProbeError::Timeout, 5_500));
            },
            Some((Kind::Failover, "m-b")),
        ),
        (
            "the pod is stopping",
            |s| {
                s.server("a", |server| server.phase = Phase::Stopping);
                s.all_say(&refused(2_000));
            },
            Some((Kind::Failover, "m-b")),
        ),
    ];
    for (case, spoil, expected) in cases {
        let mut scene = Scene::well();
        ["a", "b", "c"].iter().for_each(|letter| room(&mut scene, letter, 0));
        spoil(&mut scene);
        let expected = expected.map(|(kind, to)| (kind, to.to_owned()));
        assert_eq!(scene.claim(), expected, "{case}: {:?}", scene.plan().notes);
    }
}

#[test]
fn one_commit_that_took_long_beside_quick_ones_makes_nobody_slow() {
    let mut scene = Scene::well();
    scene.says(&consumer(), "a", Some(Probe { commit_took: Some(4_000), ..commits() }), None);
    assert_eq!(assess(&scene.0, &name("a")).verdict, Verdict::Healthy);
}

#[test]
fn a_primary_was_slow_for_some_seconds_after_it_has_ceased_to_be() {
    let mut scene = Scene::well();
    let mut course = Course::default();
    let healthy = assess(&scene.0, &name("a"));
    slow(&mut scene, 0);
    let slow = assess(&scene.0, &name("a"));
    course.see(&scene.0, &healthy, 9_800);
    assert!(!course.past(10_000).was_slow);
    course.see(&scene.0, &slow, 10_000);
    course.see(&scene.0, &healthy, 10_200);
    assert!(course.past(10_400).was_slow);
    course.see(&scene.0, &healthy, 15_000);
    assert!(!course.past(15_200).was_slow);
    course.see(&scene.0, &slow, 20_000);
    scene.claimed(Kind::Switchover, "b");
    course.see(&scene.0, &slow, 20_200);
    assert!(!course.past(20_400).was_slow, "whoever takes office begins anew");
}

#[test]
fn a_standby_is_quicker_from_the_look_on_at_which_it_was_and_until_one_at_which_it_was_not() {
    let mut scene = Scene::well();
    let mut course = Course::default();
    slow(&mut scene, 0);
    let a = assess(&scene.0, &name("a"));
    let mut at = |now: Millis, its: Millis| {
        fsync(&mut scene, "b", its);
        fsync(&mut scene, "c", 650);
        course.see(&scene.0, &a, now);
        course.past(now).quicker_for
    };
    assert_eq!(at(10_000, 3), 0);
    assert_eq!(at(12_000, 3), 2_000);
    assert_eq!(at(12_200, 400), 0, "for one look it was not");
    assert_eq!(at(12_400, 3), 0);
    assert_eq!(at(17_400, 3), 5_000);
}

#[test]
fn how_long_a_primary_has_been_slow_outlasts_moments_and_no_change_of_office() {
    let mut scene = Scene::well();
    let mut course = Course::default();
    let healthy = assess(&scene.0, &name("a"));
    slow(&mut scene, 0);
    let slow = assess(&scene.0, &name("a"));
    let mut at = |scene: &Scene, slow_now: bool, now: Millis| {
        course.see(&scene.0, if slow_now { &slow } else { &healthy }, now);
        course.past(now).slow_for
    };
    assert_eq!(at(&scene, true, 10_000), 0);
    assert_eq!(at(&scene, true, 14_000), 4_000);
    assert_eq!(at(&scene, false, 17_000), 4_000, "for a moment it is not");
    assert_eq!(at(&scene, true, 19_000), 9_000);
    assert_eq!(at(&scene, false, 24_100), 0, "it has not been for longer");
    assert_eq!(at(&scene, true, 25_000), 0);
    assert_eq!(at(&scene, true, 40_000), 0, "nobody looked for longer");
    assert_eq!(at(&scene, true, 41_000), 1_000);
    scene.0.status.epoch = EPOCH.next();
    assert_eq!(at(&scene, true, 42_000), 0, "another office");
}
