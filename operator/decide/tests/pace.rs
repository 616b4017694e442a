//! How fast replicas are replaced that fail again and again.

mod support;

use jiff::SignedDuration;
use support::*;
use understudy_decide::decision::Sentence;
use understudy_decide::failover::snapshot::*;
use understudy_decide::{Fact, Reason, Step};
use understudy_wire::evidence::{Aged, Millis, Phase};

/// Seconds ago at which each of a row of replicas was condemned, the last one first; each was made half a minute before, and
/// replaced the one before it.
fn condemned_in_a_row(scene: &mut Scene, ago: &[i64]) {
    scene.0.replicas.remove(&name("c"));
    for (number, seconds) in (0_u32..).zip(ago.iter().rev()) {
        let letter = |number: u32| format!("x{number}");
        let mut condemned = replica(10 + number, &letter(number));
        condemned.condemned = Some(Condemned {
            reason: "Exited".into(),
            at: Some(scene.0.now - SignedDuration::from_secs(*seconds)),
            ..Condemned::default()
        });
        condemned.pod = Fact::Absent;
        condemned.age = Millis::try_from(*seconds + 30).expect("seconds ago") * 1_000;
        condemned.replaces = number.checked_sub(1).map(|before| name(&letter(before)));
        scene.0.replicas.insert(name(&letter(number)), condemned);
    }
}

fn made(scene: &Scene) -> usize {
    let made = scene.steps().into_iter().find_map(|step| match step {
        Step::Grow { replicas, .. } => Some(replicas.len()),
        _ => None,
    });
    made.unwrap_or(0)
}

#[test]
fn each_replacement_that_fails_is_followed_more_slowly() {
    type Case = (&'static str, &'static [i64], usize);
    let cases: &[Case] = &[
        ("the first one is replaced at once", &[0], 1),
        ("its replacement failed as well", &[29, 60], 0),
        ("and half a minute has passed", &[30, 60], 1),
        ("the third in a row", &[59, 120, 180], 0),
        ("and a minute has passed", &[60, 120, 180], 1),
        ("the fifth", &[239, 500, 600, 700, 800], 0),
        ("and four minutes have passed", &[240, 500, 600, 700, 800], 1),
        (
            "the ninth waits no longer than half an hour",
            &[1_799, 1_900, 2_000, 2_100, 2_200, 2_300, 2_400, 2_500, 2_600],
            0,
        ),
        ("and it has passed", &[1_800, 1_900, 2_000, 2_100, 2_200, 2_300, 2_400, 2_500, 2_600], 1),
    ];
    for (case, ago, expected) in cases {
        let mut scene = Scene::well();
        condemned_in_a_row(&mut scene, ago);
        assert_eq!(made(&scene), *expected, "{case}: {:?}", scene.plan().notes);
        assert_eq!(scene.gives(Reason::ReplacementWaits), *expected == 0, "{case}");
    }
}

#[test]
fn one_that_was_in_office_or_on_a_lost_node_is_replaced_at_once_however_many_went_before() {
    for (reason, expected) in [("FailedOver", 1), ("Lost", 1), ("Exited", 0)] {
        let mut scene = Scene::well();
        condemned_in_a_row(&mut scene, &[1, 60, 120, 180]);
        for letter in ["x0", "x1", "x2", "x3"] {
            scene.replica(letter, |replica| {
                replica.condemned = replica.condemned.take().map(|of| Condemned { reason: reason.into(), ..of });
            });
        }
        assert_eq!(made(&scene), expected, "{reason}");
    }
}

#[test]
fn it_is_said_when_the_next_one_is_made_and_the_words_stay_the_same() {
    let mut scene = Scene::well();
    condemned_in_a_row(&mut scene, &[10, 60, 120]);
    let doing = |scene: &Scene| scene.plan().view.doing.expect("it waits");
    let said = doing(&scene);
    assert_eq!(said, "waiting until 2027-01-15T08:00:50Z before m-x2 is replaced: 3 in a row failed");
    scene.0.now += SignedDuration::from_secs(20);
    assert_eq!(doing(&scene), said);
}

#[test]
fn only_the_place_that_fails_waits() {
    let mut scene = Scene::well();
    condemned_in_a_row(&mut scene, &[10, 60]);
    scene.0.policy.replicas = 4;
    assert_eq!(made(&scene), 1, "more are asked for");
    scene.0.policy.replicas = 3;
    scene.replica("b", |replica| {
        replica.condemned = Some(Condemned { reason: "FailedOver".into(), ..Condemned::default() });
        replica.pod = Fact::Absent;
    });
    let replaced = scene.steps().into_iter().find_map(|step| match step {
        Step::Grow { replicas, .. } => Some(replicas.into_iter().map(|new| new.replaces).collect::<Vec<_>>()),
        _ => None,
    });
    assert_eq!(replaced, Some(vec![Some(name("b"))]), "the old primary is another matter");
    let mut scene = Scene::well();
    condemned_in_a_row(&mut scene, &[10, 60]);
    scene.replica("x1", |replica| replica.age = 3_700_000);
    assert_eq!(made(&scene), 1, "it was of use for an hour");
}

fn condemned(scene: &Scene) -> Option<Sentence> {
    scene.steps().into_iter().find_map(|step| match step {
        Step::Condemn { reason, .. } => Some(reason),
        _ => None,
    })
}

/// Volumes of so many replaced replicas are there.
fn quarantined(scene: &mut Scene, count: u32, reason: &str) {
    (0..count).for_each(|number| quarantined_as(scene, &format!("q{number}"), reason));
}

fn quarantined_as(scene: &mut Scene, letter: &str, reason: &str) {
    let number = 20 + u32::try_from(scene.0.replicas.len()).expect("a few");
    let condemned = Some(Condemned { reason: reason.into(), ..Condemned::default() });
    scene.0.replicas.insert(name(letter), Replica { condemned, pod: Fact::Absent, ..replica(number, letter) });
}

/// The successor of a replaced replica caught up so many seconds ago.
fn kept_for(scene: &mut Scene, letter: &str, seconds: i64) {
    let since = scene.0.now - SignedDuration::from_secs(seconds);
    scene.replica(letter, |replica| {
        replica.condemned.as_mut().expect("it is condemned").successor_ready_at = Some(since);
    });
}

#[test]
fn when_too_many_volumes_are_kept_it_is_said_which_and_how_they_go() {
    let mut scene = Scene::well();
    quarantined(&mut scene, 8, "Exited");
    quarantined_as(&mut scene, "p", "FailedOver");
    scene.server("b", |server| server.phase = Phase::Exited { code: Some(1), signal: None, age: 2_000 });
    let notes = scene.plan().notes;
    let said = &notes.iter().find(|note| note.reason == Reason::QuarantineFull).expect("it is full").message;
    let command = "kubectl delete pvc m-q0 m-q1 m-q2 m-q3 m-q4 m-q5 m-q6 m-q7.";
    assert!(said.contains(command), "{said}");
}

#[test]
fn many_volumes_that_are_kept_hold_replacements_on_a_judgement_and_nothing_else() {
    type Case = (&'static str, fn(&mut Scene), Option<Sentence>);
    let exits = |s: &mut Scene| {
        s.server("b", |server| server.phase = Phase::Exited { code: Some(1), signal: None, age: 2_000 });
    };
    let cases: &[(Case, bool)] = &[
        (("seven are kept", |s| quarantined(s, 7, "Exited"), Some(Sentence::Exited)), true),
        (("eight are kept", |s| quarantined(s, 8, "Exited"), None), true),
        (("eight of former primaries", |s| quarantined(s, 8, "FailedOver"), Some(Sentence::Exited)), true),
        (
            (
                "eight whose volumes are gone",
                |s| {
                    quarantined(s, 8, "Lost");
                    s.0.replicas.values_mut().filter(|r| r.condemned.is_some()).for_each(|r| r.volume = Fact::Absent);
                },
                Some(Sentence::Exited),
            ),
            true,
        ),
        (
            (
                "eight, of which one has a successor for longer than it is to be kept",
                |s| {
                    quarantined(s, 8, "Exited");
                    kept_for(s, "q3", 86_400);
                },
                Some(Sentence::Exited),
            ),
            true,
        ),
        (
            (
                "eight, all with a successor, and not for so long",
                |s| {
                    quarantined(s, 8, "Exited");
                    (0..8).for_each(|number| kept_for(s, &format!("q{number}"), 86_399));
                },
                None,
            ),
            true,
        ),
        (
            (
                "a standby that is of no use for certain",
                |s| {
                    quarantined(s, 8, "Exited");
                    s.server("b", |server| {
                        server.executed = Some(Aged { age: 50, value: gtids("a", 1000).union(&gtids("b", 2)) });
                    });
                },
                Some(Sentence::Errant),
            ),
            false,
        ),
        (
            (
                "fewer are asked for",
                |s| {
                    quarantined(s, 8, "Exited");
                    s.0.policy.replicas = 2;
                },
                Some(Sentence::ScaledDown),
            ),
            false,
        ),
    ];
    for ((case, spoil, expected), standby_exits) in cases {
        let mut scene = Scene::well();
        spoil(&mut scene);
        if *standby_exits {
            exits(&mut scene);
        }
        assert_eq!(condemned(&scene), *expected, "{case}: {:?}", scene.plan().notes);
        assert_eq!(scene.gives(Reason::QuarantineFull), expected.is_none(), "{case}");
    }
    let mut scene = Scene::well();
    quarantined(&mut scene, 20, "Exited");
    scene.kill_primary(200);
    assert_eq!(scene.claim(), Some((Kind::Failover, "m-b".into())), "a promotion is held by nothing");
}

#[test]
fn of_former_primaries_eight_volumes_are_kept_and_the_first_goes_early_once_all_copies_are_there() {
    type Case = (&'static str, u32, &'static str, fn(&mut Scene), Option<&'static str>);
    let nothing: fn(&mut Scene) = |_| {};
    let cases: &[Case] = &[
        ("eight", 8, "FailedOver", nothing, None),
        ("nine", 9, "FailedOver", nothing, Some("q0")),
        ("nine that were replaced on a judgement", 9, "Exited", nothing, None),
        (
            "nine, and the volume of a later one is gone",
            9,
            "FailedOver",
            |s| s.replica("q8", |replica| replica.volume = Fact::Absent),
            None,
        ),
        (
            "nine, and a copy is missing",
            9,
            "FailedOver",
            |s| s.server("b", |server| server.phase = Phase::Starting),
            None,
        ),
    ];
    for (case, count, reason, spoil, expected) in cases {
        let mut scene = Scene::well();
        quarantined(&mut scene, *count, reason);
        for number in 0..*count {
            let letter = format!("q{number}");
            kept_for(&mut scene, &letter, 60);
            let at = scene.0.now - SignedDuration::from_secs(3_600 - i64::from(number));
            scene.replica(&letter, |replica| replica.condemned.as_mut().expect("it is condemned").at = Some(at));
        }
        spoil(&mut scene);
        let deleted: Vec<_> = scene
            .steps()
            .into_iter()
            .filter_map(|step| match step {
                Step::DeleteVolume { replica, .. } => Some(replica),
                _ => None,
            })
            .collect();
        assert_eq!(deleted, expected.map(name).into_iter().collect::<Vec<_>>(), "{case}");
    }
}
