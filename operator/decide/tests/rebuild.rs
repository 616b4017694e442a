//! A rebuild that comes no further holds nobody up, and one that hangs is begun anew.

mod support;

use support::*;
use understudy_decide::decision::Sentence;
use understudy_decide::failover::snapshot::*;
use understudy_decide::rebuild::Standstill;
use understudy_decide::{Fact, Reason, Step, pace};
use understudy_wire::evidence::{BuildProgress, Millis, Phase};

const MIB: u64 = 1 << 20;
const MINUTE: Millis = 60_000;
/// How often it is looked at here.
const STEP: Millis = 4_000;

/// `letter` replaces another one and has not joined yet; its volume is being filled.
fn fills(scene: &mut Scene, letter: &str, stage: &str, done: u64) {
    scene.replica(letter, |replica| {
        replica.replaces = Some(name("x"));
        if let Fact::Present(volume) = &mut replica.volume {
            volume.role = None;
        }
    });
    scene.server(letter, |server| {
        server.phase = Phase::Building;
        (server.executed, server.replication) = (None, None);
        let (stage, donor) = (stage.to_owned(), Some(name("b")));
        server.build = Some(BuildProgress { stage, done, total: 9_000 * MIB, eta: None, donor, error: None });
    });
}

fn is_in(scene: &mut Scene, letter: &str, phase: Phase) {
    fills(scene, letter, "", 0);
    scene.server(letter, |server| (server.phase, server.build) = (phase, None));
}

/// It has come no further for so long, in any try and in this one.
fn stands(scene: &mut Scene, letter: &str, ever: Millis, in_this_try: Millis) {
    scene.0.memory.past.standstill.insert(name(letter), Standstill { ever, in_this_try });
}

/// How long `c` has come no further after so long, in which `at` says how it is at each moment.
fn after(long: Millis, at: impl Fn(&mut Scene, Millis)) -> (Scene, Standstill) {
    let (mut course, mut scene) = (Course::default(), Scene::well());
    for ago in 0..=long / STEP {
        scene = Scene::well();
        at(&mut scene, ago * STEP);
        let now = 1_000_000 + ago * STEP;
        course.see(&scene.0, &scene.plan().assessment, now);
        scene.0.memory.past = course.past(now);
    }
    let standstill = scene.0.memory.past.standstill.get(&name("c")).copied().unwrap_or_default();
    (scene, standstill)
}

#[test]
fn a_rebuild_counts_for_as_long_as_it_comes_further_however_long_that_takes() {
    type Case = (&'static str, fn(&mut Scene, Millis), bool);
    let cases: &[Case] = &[
        ("it copies as slowly as may be", |s, ago| fills(s, "c", "FILE COPY", ago / 1_000 * MIB), true),
        ("it hangs", |s, _| fills(s, "c", "FILE COPY", 512 * MIB), false),
        ("a byte comes now and then", |s, ago| fills(s, "c", "FILE COPY", 512 * MIB + ago / 1_000), false),
        (
            "two stages take turns",
            |s, ago| {
                let stage = if (ago / STEP).is_multiple_of(2) { "wait for the donor" } else { "DROP DATA" };
                fills(s, "c", stage, 0);
            },
            false,
        ),
        (
            "each try ends where the one before ended",
            |s, ago| match ago % (2 * MINUTE) {
                0 => is_in(s, "c", Phase::Empty),
                since => fills(s, "c", "FILE COPY", (since / 1_000).min(60) * MIB),
            },
            false,
        ),
        (
            "each try comes further than the one before",
            |s, ago| match ago % (2 * MINUTE) {
                0 => is_in(s, "c", Phase::Empty),
                since => fills(s, "c", "FILE COPY", (since / 1_000).min(60) * MIB * (1 + ago / (2 * MINUTE))),
            },
            true,
        ),
        ("its server starts and starts", |s, _| is_in(s, "c", Phase::Starting), false),
        (
            "it has only just begun to start",
            |s, ago| {
                if ago < 20 * MINUTE {
                    fills(s, "c", "FILE COPY", ago / 1_000 * MIB);
                } else {
                    is_in(s, "c", Phase::Starting);
                }
            },
            true,
        ),
    ];
    for (case, at, counts) in cases {
        let (scene, standstill) = after(25 * MINUTE, at);
        assert_eq!(pace::rebuilding(&scene.0), usize::from(*counts), "{case}: {standstill:?}");
        assert_eq!(pace::is_filling(&scene.0, &name("c")), *counts && is_building(&scene), "{case}: on its node");
        assert_eq!(scene.gives(Reason::BuildStalled), !counts, "{case}: {:?}", scene.reasons());
    }
}

fn is_building(scene: &Scene) -> bool {
    scene.0.fresh_report(&name("c")).is_some_and(|(server, _)| server.phase == Phase::Building)
}

#[test]
fn what_nobody_saw_counts_for_nobody_and_a_new_primary_changes_nothing() {
    let mut scene = Scene::well();
    fills(&mut scene, "c", "FILE COPY", 512 * MIB);
    let assessment = scene.plan().assessment;
    let mut course = Course::default();
    let still = |course: &Course, now| course.past(now).standstill.get(&name("c")).copied();
    let both = |long| Some(Standstill { ever: long, in_this_try: long });
    course.see(&scene.0, &assessment, 10_000);
    course.see(&scene.0, &assessment, 14_000);
    assert_eq!(still(&course, 14_000), both(4_000));
    course.see(&scene.0, &assessment, 3_614_000);
    assert_eq!(still(&course, 3_614_000), both(4_000), "the operator was paused for an hour");
    scene.0.status.epoch = EPOCH.next();
    course.see(&scene.0, &assessment, 3_618_000);
    assert_eq!(still(&course, 3_618_000), both(8_000), "another office");
    is_in(&mut scene, "c", Phase::Empty);
    course.see(&scene.0, &assessment, 3_620_000);
    let between = Some(Standstill { ever: 10_000, in_this_try: 0 });
    assert_eq!(still(&course, 3_620_000), between, "the next try has its own time");
    scene = Scene::well();
    course.see(&scene.0, &assessment, 3_621_000);
    assert_eq!(still(&course, 3_621_000), None, "it runs");
}

fn condemned(scene: &Scene) -> Option<(String, Sentence)> {
    scene.steps().into_iter().find_map(|step| match step {
        Step::Condemn { replica, reason, .. } => Some((replica.to_string(), reason)),
        _ => None,
    })
}

#[test]
fn one_that_hangs_is_replaced_unless_it_may_be_the_last_copy() {
    type Case = (&'static str, fn(&mut Scene), Option<&'static str>);
    let cases: &[Case] = &[
        (
            "it has hung for less than half an hour",
            |s| {
                fills(s, "c", "FILE COPY", MIB);
                stands(s, "c", 1_799_000, 1_799_000);
            },
            None,
        ),
        (
            "it has hung for half an hour",
            |s| {
                fills(s, "c", "FILE COPY", MIB);
                stands(s, "c", 1_800_000, 1_800_000);
            },
            Some("m-c"),
        ),
        (
            "its tries have ended at the same point for a day: the next one may not, and a longer one needs its time",
            |s| {
                fills(s, "c", "FILE COPY", MIB);
                stands(s, "c", 86_400_000, 1_000);
            },
            None,
        ),
        (
            "its server has been starting for half an hour, and it was a standby before",
            |s| {
                s.server("c", |server| (server.phase, server.executed) = (Phase::Starting, None));
                stands(s, "c", 1_800_000, 1_800_000);
            },
            Some("m-c"),
        ),
        (
            "and nobody else has the data",
            |s| {
                s.server("c", |server| (server.phase, server.executed) = (Phase::Starting, None));
                stands(s, "c", 1_800_000, 1_800_000);
                s.silent("b", 10_000);
                s.server("a", |server| server.serving = None);
            },
            None,
        ),
        (
            "the fleet rebuilds as many as may be",
            |s| {
                fills(s, "c", "FILE COPY", MIB);
                stands(s, "c", 1_800_000, 1_800_000);
                s.0.fleet.rebuilding = 2;
            },
            None,
        ),
    ];
    for (case, spoil, expected) in cases {
        let mut scene = Scene::well();
        spoil(&mut scene);
        let expected = expected.map(|name| (name.to_owned(), Sentence::Stuck));
        assert_eq!(condemned(&scene), expected, "{case}: {:?}", scene.plan().notes);
    }
}

#[test]
fn a_rebuild_that_hangs_holds_no_place_in_a_small_fleet() {
    for (still, replaced) in [(599_000, None), (600_000, Some(("m-b".to_owned(), Sentence::Exited)))] {
        let mut scene = Scene::well();
        fills(&mut scene, "c", "FILE COPY", MIB);
        stands(&mut scene, "c", still, still);
        scene.server("b", |server| server.phase = Phase::Exited { code: Some(1), signal: None, age: 2_000 });
        scene.0.fleet.replicas = 3;
        scene.0.fleet.rebuilding = pace::rebuilding(&scene.0);
        assert_eq!(condemned(&scene), replaced, "{still}: {:?}", scene.plan().notes);
        assert_eq!(scene.gives(Reason::ReplacementWaits), replaced.is_none(), "{still}: what waits is said");
    }
}

#[test]
fn it_is_said_how_far_one_that_comes_no_further_is_and_what_becomes_of_it() {
    type Case = (&'static str, fn(&mut Scene), &'static str);
    let cases: &[Case] = &[
        ("filled", |s| fills(s, "c", "FILE COPY", 512 * MIB), "it is being filled (FILE COPY, 512 of 9000 MiB)"),
        ("starting", |s| is_in(s, "c", Phase::Starting), "its server starts"),
        ("between two tries", |s| is_in(s, "c", Phase::Empty), "it waits to be filled again"),
    ];
    for (case, spoil, words) in cases {
        let mut scene = Scene::well();
        spoil(&mut scene);
        stands(&mut scene, "c", 600_000, 0);
        let notes = scene.plan().notes;
        let note = notes.iter().find(|note| note.reason == Reason::BuildStalled).expect("it is said");
        assert_eq!(note.about, Some(name("c")), "{case}");
        for word in
            [*words, "no further for 10 min", "hangs for 30 min ends with a replacement", "kubectl logs m-c -c mysql"]
        {
            assert!(note.message.contains(word), "{case}: {}", note.message);
        }
    }
}
