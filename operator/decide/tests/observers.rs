//! What is shown of each observer, case by case.

mod support;

use support::*;
use understudy_decide::failover::testimony_view::{Seen, Stance, domain_words, observers};
use understudy_wire::Observer;
use understudy_wire::evidence::*;

fn of(scene: &Scene, observer: &Observer) -> Seen {
    let seen = observers(&scene.0, &name("a"));
    seen.into_iter().find(|seen| seen.observer == *observer).expect("an observer of the primary")
}

#[test]
fn each_observer_says_where_it_stands_and_whether_that_counts() {
    type Case = (&'static str, fn(&mut Scene), Stance, &'static str, Option<&'static str>);
    let cases: &[Case] = &[
        ("all well", |_| {}, Stance::Commits, "commits", None),
        ("refused", |s| s.says(&operator(), "a", Some(refused(3_000)), None), Stance::Accuses, "refused at tcp", None),
        (
            "one failure between two commits",
            |s| {
                let probe = Probe { committed: Some(700), ..unreachable(300) };
                s.says(&operator(), "a", Some(probe), None);
            },
            Stance::Commits,
            "commits",
            None,
        ),
        (
            "out of connections",
            |s| {
                let full = ProbeError::TooManyConnections { whose: Limit::Server };
                s.says(&operator(), "a", Some(fails(Stage::Greeting, full, 9_000)), None);
            },
            Stance::Abstains,
            "the server is out of connections",
            Some("the server is out of connections"),
        ),
        (
            "it was paused itself",
            |s| {
                s.says(&operator(), "a", Some(unreachable(2_500)), None);
                s.report(&operator()).report.own_gap = 3_000;
            },
            Stance::Abstains,
            "it was paused itself",
            Some("it was paused itself"),
        ),
        (
            "nothing came from it for a while",
            |s| {
                s.says(&operator(), "a", Some(unreachable(9_000)), None);
                s.report(&operator()).age = 9_000;
            },
            Stance::Silent,
            "nothing has come from it lately",
            Some("its evidence is old"),
        ),
        (
            "it has not probed yet",
            |s| s.says(&operator(), "a", Some(Probe::default()), None),
            Stance::Silent,
            "it has seen no commit lately",
            None,
        ),
    ];
    for (case, spoil, stance, says, not_counted) in cases {
        let mut scene = Scene::well();
        spoil(&mut scene);
        let seen = of(&scene, &operator());
        assert_eq!((seen.stance, seen.says.as_str()), (*stance, *says), "{case}");
        assert_eq!(seen.not_counted.as_deref(), *not_counted, "{case}");
    }
}

#[test]
fn the_manager_beside_the_primary_tells_of_process_volume_and_locks() {
    let held = || Aged {
        age: 10,
        value: LockHolder {
            connection: Some(7),
            user: "someone@10.0.0.9".into(),
            locked: "TABLE store.series".into(),
            ..LockHolder::default()
        },
    };
    let fsync = |fsync: Fsync| move |server: &mut Server| server.fsync = Some(fsync.clone());
    let hangs = fsync(Fsync { in_flight: Some(3_000), ..Fsync::default() });
    let broken = fsync(Fsync { error: Some("EIO".into()), ..Fsync::default() });
    type Spoil<'a> = &'a dyn Fn(&mut Server);
    let cases: [(&str, Spoil<'_>, Stance, &str); 5] = [
        ("stopped", &|server| server.process_state = Some('T'), Stance::Accuses, "its process is stopped"),
        ("its volume hangs", &hangs, Stance::Accuses, "its volume does not answer"),
        ("its volume fails", &broken, Stance::Accuses, "its volume answers EIO"),
        (
            "a lock",
            &|server| server.lock_holder = Some(held()),
            Stance::Abstains,
            "commits wait for someone@10.0.0.9 (connection 7), who holds a lock: TABLE store.series",
        ),
        (
            "it ended",
            &|server| server.phase = Phase::Exited { code: None, signal: Some(9), age: 500 },
            Stance::Accuses,
            "mysqld was ended by signal 9",
        ),
    ];
    for (case, spoil, stance, says) in cases {
        let mut scene = Scene::well();
        scene.server("a", spoil);
        let seen = of(&scene, &manager("a"));
        assert_eq!((seen.stance, domain_words(&seen.domain).as_str()), (stance, "pod"), "{case}");
        assert!(seen.says.contains(says), "{case}: {}", seen.says);
    }
    let mut scene = Scene::well();
    scene.silent("a", 10_000);
    let seen = of(&scene, &manager("a"));
    assert_eq!((seen.stance, seen.not_counted.as_deref()), (Stance::Silent, Some("it is silent")));
}

#[test]
fn what_is_shown_does_not_change_with_age_alone() {
    let mut scene = Scene::well();
    scene.lose_node(4_000);
    let before = observers(&scene.0, &name("a"));
    scene.0.reports.iter_mut().filter(|received| received.age < 1_000).for_each(|received| received.age += 200);
    let after = observers(&scene.0, &name("a"));
    let words = |seen: &[Seen]| -> Vec<_> {
        seen.iter().map(|s| (s.observer.clone(), s.stance, s.says.clone(), s.stage, s.not_counted.clone())).collect()
    };
    assert_eq!(words(&before), words(&after));
    assert!(before.iter().any(|seen| seen.stance == Stance::Accuses));
}
