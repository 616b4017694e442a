//! Standbys that are there and of no use.

mod support;

use support::*;
use understudy_decide::Step;
use understudy_decide::decision::Sentence;
use understudy_wire::evidence::{Fsync, Phase};

fn condemned(scene: &Scene) -> Option<(String, Sentence)> {
    scene.steps().into_iter().find_map(|step| match step {
        Step::Condemn { replica, reason, .. } => Some((replica.to_string(), reason)),
        _ => None,
    })
}

/// A write to the volume of a standby has not ended for so long.
fn hangs(scene: &mut Scene, letter: &str, age: u64) {
    scene.server(letter, |server| {
        server.fsync = Some(Fsync { succeeded: Some(age + 500), in_flight: Some(age), ..Fsync::default() });
    });
}

/// mysqld of a standby has not answered for so long.
fn unread(scene: &mut Scene, letter: &str, age: u64) {
    scene.server(letter, |server| {
        for read in [&mut server.executed.as_mut().expect("it was read").age, &mut server.lsn.as_mut().expect("so").age]
        {
            *read = age;
        }
        server.replication.as_mut().expect("replicates").age = age;
        server.read_only = None;
    });
}

#[test]
fn a_standby_that_is_stuck_is_replaced_and_not_shown_as_ready() {
    type Case = (&'static str, fn(&mut Scene), bool, Option<Sentence>);
    let cases: &[Case] = &[
        ("it is well", |_| {}, true, None),
        ("its volume hangs for a moment", |s| hangs(s, "b", 2_000), true, None),
        ("its volume hangs", |s| hangs(s, "b", 11_000), false, None),
        ("its volume hangs for a minute", |s| hangs(s, "b", 61_000), false, Some(Sentence::Stuck)),
        (
            "its volume hangs while its server starts",
            |s| {
                s.server("b", |server| server.phase = Phase::Starting);
                hangs(s, "b", 61_000);
            },
            false,
            Some(Sentence::Stuck),
        ),
        (
            "its volume hangs before it is filled",
            |s| {
                s.server("b", |server| {
                    server.phase = Phase::Empty;
                    server.executed = None;
                    server.replication = None;
                });
                hangs(s, "b", 61_000);
            },
            false,
            Some(Sentence::Stuck),
        ),
        ("it does not answer", |s| unread(s, "b", 11_000), false, None),
        ("it does not answer for a minute", |s| unread(s, "b", 61_000), false, Some(Sentence::Stuck)),
        (
            "only its replication does not answer",
            |s| s.server("b", |server| server.replication.as_mut().expect("replicates").age = 61_000),
            false,
            None,
        ),
        (
            "mysqld is stopped",
            |s| {
                unread(s, "b", 61_000);
                s.server("b", |server| server.process_state = Some('T'));
            },
            false,
            Some(Sentence::Stuck),
        ),
        (
            "its manager was paused for as long",
            |s| {
                unread(s, "b", 61_000);
                s.report(&manager("b")).report.own_gap = 60_500;
            },
            false,
            None,
        ),
        (
            "it may be the last good copy",
            |s| {
                hangs(s, "b", 61_000);
                hangs(s, "c", 61_000);
                s.server("a", |server| server.serving = None);
            },
            false,
            None,
        ),
    ];
    for (case, spoil, ready, expected) in cases {
        let mut scene = Scene::well();
        spoil(&mut scene);
        let expected = expected.map(|sentence| ("m-b".to_owned(), sentence));
        assert_eq!(condemned(&scene), expected, "{case}: {:?}", scene.reasons());
        let view = scene.plan().view.replicas.into_iter().find(|view| view.name == name("b")).expect("it is shown");
        assert_eq!(view.ready, *ready, "{case}: {:?}", view.message);
        assert!(!view.promotable || *ready, "{case}");
        assert!(*ready || view.message.is_some(), "{case}");
    }
}

#[test]
fn one_whose_volume_hangs_or_fails_is_no_candidate() {
    type Case = (&'static str, Fsync, bool);
    let fsync = |in_flight, error: Option<&str>| Fsync { in_flight, error: error.map(Into::into), ..Fsync::default() };
    let cases: [Case; 5] = [
        ("it takes writes", fsync(None, None), true),
        ("a write is slow", fsync(Some(1_500), None), true),
        ("a write hangs", fsync(Some(3_000), None), false),
        ("it answers EIO", fsync(None, Some("EIO")), false),
        ("it is full", fsync(None, Some("ENOSPC")), false),
    ];
    for (case, fsync, fit) in cases {
        let mut scene = Scene::well();
        scene.0.policy.replicas = 2;
        scene.0.replicas.remove(&name("c"));
        scene.kill_primary(700);
        scene.server("b", |server| server.fsync = Some(fsync));
        assert_eq!(scene.claim().is_some(), fit, "{case}: {:?}", scene.reasons());
    }
}
