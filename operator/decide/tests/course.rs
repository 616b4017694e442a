//! What one look cannot tell: it takes a course of passes.

mod support;

use support::*;
use understudy_decide::failover::snapshot::*;
use understudy_decide::{Reason, Verdict, plan};
use understudy_wire::evidence::{Millis, Phase, ProbeError, Stage};

/// Passes of one process over one scene.
struct Passes {
    scene: Scene,
    course: Course,
    now: Millis,
}

impl Passes {
    fn new() -> Self {
        Self { scene: Scene::well(), course: Course::default(), now: 1_000_000 }
    }

    /// Lets time go by, a pass every 200 ms, in which `spoil` says how it is at that moment.
    fn go_on(&mut self, long: Millis, spoil: impl Fn(&mut Scene, Millis)) -> Vec<Reason> {
        let begun = self.now;
        let mut reasons = Vec::new();
        while self.now < begun + long {
            self.now += 200;
            let mut scene = self.scene.clone();
            spoil(&mut scene, self.now - begun);
            scene.0.memory.past = self.course.past(self.now);
            let decision = plan(&scene.0);
            self.course.see(&scene.0, &decision.assessment, self.now);
            assert!(scene.claim().is_none(), "{:?}", scene.plan().notes);
            reasons.extend(decision.notes.iter().map(|note| note.reason));
        }
        reasons
    }
}

fn gives(reasons: &[Reason], reason: Reason) -> bool {
    reasons.contains(&reason)
}

#[test]
fn a_suspicion_that_a_commit_ends_leaves_a_word_when_it_was_old_enough() {
    type Case = (&'static str, fn(&mut Scene, Millis), Millis, bool);
    let cases: &[Case] = &[
        ("nobody answered for 2 s", |s, ago| s.all_say(&unreachable(ago)), 2_000, true),
        ("nobody answered for less than a second", |s, ago| s.all_say(&unreachable(ago)), 800, false),
        (
            "its manager alone said that it ended, for a moment",
            |s, _| s.server("a", |server| server.phase = Phase::Exited { code: Some(1), signal: None, age: 40 }),
            400,
            false,
        ),
    ];
    for (case, spoil, long, expected) in cases {
        let mut passes = Passes::new();
        let before = passes.go_on(*long, spoil);
        assert!(!gives(&before, Reason::SuspicionCleared), "{case}: it is not over");
        let after = passes.go_on(1_000, |_, _| {});
        assert_eq!(gives(&after, Reason::SuspicionCleared), *expected, "{case}: {after:?}");
        passes.go_on(5_000, |_, _| {});
        assert!(!gives(&passes.go_on(1_000, |_, _| {}), Reason::SuspicionCleared), "{case}: it is told once");
    }
}

#[test]
fn what_is_told_of_a_suspicion_is_how_far_it_went() {
    let mut passes = Passes::new();
    passes.go_on(2_600, |s, ago| s.all_say(&unreachable(ago)));
    passes.go_on(200, |_, _| {});
    let cleared = passes.course.past(passes.now).cleared.expect("it is told");
    assert_eq!((cleared.state, cleared.cause, cleared.lasted), ("Suspect", "Unexplained", 2_650));
    assert!(cleared.message.contains("accused by peer m-b"), "{}", cleared.message);
}

#[test]
fn an_observer_that_contradicts_the_others_is_named_and_nobody_is_failed_over() {
    type Case = (&'static str, fn(&mut Scene, Millis), bool);
    let cases: &[Case] = &[
        ("always", |s, ago| s.says(&operator(), "a", Some(unreachable(ago)), None), true),
        (
            "it flaps",
            |s, ago| {
                if ago % 4_000 < 2_500 {
                    s.says(&operator(), "a", Some(unreachable(ago % 4_000)), None);
                }
            },
            true,
        ),
        (
            "twice for two seconds",
            |s, ago| {
                if ago < 8_000 && ago % 4_000 < 2_000 {
                    s.says(&operator(), "a", Some(unreachable(ago % 4_000)), None);
                }
            },
            false,
        ),
        ("nobody does", |_, _| {}, false),
    ];
    for (case, spoil, expected) in cases {
        let mut passes = Passes::new();
        let reasons = passes.go_on(15_000, spoil);
        assert_eq!(gives(&reasons, Reason::ObserverSuspect), *expected, "{case}: {reasons:?}");
        if *expected {
            let named: Vec<_> = passes.course.past(passes.now).dissenters.into_iter().map(|of| of.observer).collect();
            assert_eq!(named, ["operator understudy-0"], "{case}");
        }
    }
    let mut scene = Scene::well();
    scene.says(&operator(), "a", Some(unreachable(30_000)), None);
    assert_eq!(scene.plan().assessment.verdict, Verdict::ObserverPartition);
}

#[test]
fn nobody_is_said_to_contradict_others_about_a_primary_that_is_dead() {
    let mut scene = Scene::well();
    scene.says(&operator(), "a", Some(unreachable(30_000)), None);
    let (observer, dissents) = ("operator understudy-0".to_owned(), Dissents::For(30_000));
    scene.0.memory.past.dissenters = vec![Dissenter { observer, dissents }];
    assert!(scene.gives(Reason::ObserverSuspect));
    scene.kill_primary(300);
    assert!(
        scene.plan().assessment.verdict.is_dead() && !scene.gives(Reason::ObserverSuspect),
        "{:?}",
        scene.reasons()
    );
}

/// The consumers' latest failures are this old: the next attempts are under way.
fn between_attempts(scene: &mut Scene) {
    scene.consumers_cut_off(600_000);
    for observer in [consumer(), other_consumer()] {
        let probe = scene.report(&observer).report.evidence[0].probe.as_mut().expect("it tells of its attempts");
        probe.failing.as_mut().expect("they fail").latest = 2_500;
    }
}

fn one_is_let_in(scene: &mut Scene) {
    scene.consumers_cut_off(600_000);
    scene.says(&consumer(), "a", Some(fails(Stage::Commit, ProbeError::Timeout, 600_000)), None);
}

#[test]
fn consumers_do_not_reach_a_primary_from_the_look_on_at_which_none_did_and_until_one_does() {
    let mut course = Course::default();
    let mut at = |spoil: fn(&mut Scene), now: Millis| {
        let mut scene = Scene::well();
        spoil(&mut scene);
        course.see(&scene.0, &scene.plan().assessment, now);
        course.past(now).cut_off_for
    };
    let cut_off: fn(&mut Scene) = |scene| scene.consumers_cut_off(600_000);
    assert_eq!(at(one_is_let_in, 9_800), 0, "they have failed for ten minutes, at a lock");
    assert_eq!(at(cut_off, 10_000), 0);
    assert_eq!(at(cut_off, 12_000), 2_000);
    assert_eq!(at(between_attempts, 12_800), 2_000, "they are heard, and try");
    assert_eq!(at(cut_off, 13_600), 3_600);
    assert_eq!(at(one_is_let_in, 13_800), 0);
    assert_eq!(at(between_attempts, 14_000), 0);
    assert_eq!(at(cut_off, 14_200), 0);
    assert_eq!(at(cut_off, 20_000), 0, "nobody looked for longer");
}

#[test]
fn a_moment_of_trouble_on_the_way_after_a_long_lock_changes_no_primary() {
    let mut passes = Passes::new();
    passes.go_on(10_000, |s, _| {
        for observer in [consumer(), other_consumer()] {
            s.says(&observer, "a", Some(fails(Stage::Commit, ProbeError::Timeout, 600_000)), None);
        }
    });
    passes.go_on(2_400, |s, _| s.consumers_cut_off(600_000));
}

#[test]
fn that_some_do_not_reach_a_primary_goes_on_for_some_seconds_between_their_attempts() {
    let mut course = Course::default();
    let mut at = |spoil: fn(&mut Scene), expected: Verdict, now: Millis| {
        let mut scene = Scene::well();
        spoil(&mut scene);
        let assessment = scene.plan().assessment;
        assert_eq!(assessment.verdict, expected);
        course.see(&scene.0, &assessment, now);
        course.past(now).was_partitioned
    };
    assert!(!at(|_| {}, Verdict::Healthy, 9_800));
    assert!(at(|scene| scene.consumers_cut_off(600_000), Verdict::ObserverPartition, 10_000));
    assert!(at(between_attempts, Verdict::Healthy, 10_800), "the shards of a shared cause count together");
    assert!(!at(|_| {}, Verdict::Healthy, 15_200));
}
