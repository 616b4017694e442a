//! Pods that ended and stay there: evicted, or their node was shut down. Nobody but the operator starts anything in their place.

mod support;

use support::*;
use understudy_decide::decision::Sentence;
use understudy_decide::failover::snapshot::*;
use understudy_decide::{Fact, Reason, Step};
use understudy_wire::evidence::Phase;

/// Its pod ended this long after it was made, and its manager has been silent for ten seconds.
fn ended(scene: &mut Scene, letter: &str, age: u64) {
    scene.silent(letter, 10_000);
    scene.replica(letter, |replica| {
        if let Fact::Present(pod) = &mut replica.pod {
            pod.phase = PodPhase::Ended;
            pod.age = age;
        }
    });
}

fn all_ended(scene: &mut Scene) {
    for letter in ["a", "b", "c"] {
        ended(scene, letter, 600_000);
    }
    // The other managers went with their pods.
    for observer in [consumer(), operator()] {
        scene.says(&observer, "a", Some(unreachable(9_000)), None);
    }
}

/// A shard that never had a primary, or forgot it.
fn without_primary(scene: &mut Scene) {
    scene.0.status = Status { next_server_id: 4, ..Status::default() };
}

fn starts_again(scene: &Scene) -> Vec<String> {
    let steps = scene.steps().into_iter().filter_map(|step| match step {
        Step::DeletePod { replica, restart: true, .. } => Some(replica.to_string()),
        _ => None,
    });
    steps.collect()
}

#[test]
fn a_standby_whose_pod_ended_is_replaced() {
    type Case = (&'static str, fn(&mut Scene), bool);
    let cases: &[Case] = &[
        ("it ended", |s| ended(s, "b", 600_000), true),
        ("its node would not have it", |s| ended(s, "b", 3_000), true),
        (
            "its manager was heard a moment ago",
            |s| {
                ended(s, "b", 600_000);
                s.report(&manager("b")).age = 500;
            },
            false,
        ),
        (
            "it is on its way out, as when its node is drained",
            |s| {
                ended(s, "b", 600_000);
                s.replica("b", |replica| {
                    if let Fact::Present(pod) = &mut replica.pod {
                        pod.terminating = true;
                    }
                });
            },
            false,
        ),
        (
            "it may be the last copy",
            |s| {
                ended(s, "b", 600_000);
                ended(s, "c", 600_000);
                s.server("a", |server| server.serving = None);
            },
            false,
        ),
    ];
    for (case, spoil, expected) in cases {
        let mut scene = Scene::well();
        spoil(&mut scene);
        let condemned = scene.steps().into_iter().any(
            |step| matches!(step, Step::Condemn { replica, reason: Sentence::Exited, .. } if replica == name("b")),
        );
        assert_eq!(condemned, *expected, "{case}: {:?}", scene.reasons());
        assert_eq!(starts_again(&scene), [""; 0], "{case}");
    }
}

#[test]
fn when_no_copy_runs_the_pods_that_ended_are_made_again_on_their_volumes() {
    type Case = (&'static str, fn(&mut Scene), &'static [&'static str]);
    let cases: &[Case] = &[
        ("every node was shut down", all_ended, &["m-a"]),
        (
            "nobody but the operator probes the primary",
            |s| {
                all_ended(s);
                s.0.reports.retain(|received| received.report.observer != consumer());
            },
            &["m-a"],
        ),
        (
            "the primary was evicted and has no standby",
            |s| {
                all_ended(s);
                s.0.policy.replicas = 1;
                s.0.replicas.retain(|replica, _| *replica == name("a"));
            },
            &["m-a"],
        ),
        (
            "the primary runs again and a standby does not",
            |s| {
                all_ended(s);
                s.report(&manager("a")).age = 50;
                s.server("a", |server| server.phase = Phase::Starting);
            },
            &["m-b"],
        ),
        (
            "its node ends it as soon as it is made",
            |s| {
                all_ended(s);
                s.replica("a", |replica| {
                    if let Fact::Present(pod) = &mut replica.pod {
                        pod.age = 2_000;
                    }
                });
            },
            &["m-b"],
        ),
        (
            "the operator was started a moment ago",
            |s| {
                all_ended(s);
                s.0.memory.awake = 3_000;
            },
            &[],
        ),
        (
            "the status was lost",
            |s| {
                all_ended(s);
                without_primary(s);
                s.replica("a", |replica| replica.server_uuid = Some(uuid("a").to_string()));
            },
            &["m-a"],
        ),
        (
            "the status was lost, and only one copy ended",
            |s| {
                without_primary(s);
                s.0.memory.awake = 20_000;
                ended(s, "c", 600_000);
            },
            &["m-c"],
        ),
        (
            "the shard never had a primary",
            |s| {
                all_ended(s);
                without_primary(s);
                s.0.reports.clear();
            },
            &["m-a"],
        ),
        (
            "under a claimed epoch",
            |s| {
                all_ended(s);
                s.claimed(Kind::Failover, "b");
                s.reprobed(ReprobeOutcome::Failed("refused".into()));
            },
            &["m-a"],
        ),
    ];
    for (case, spoil, expected) in cases {
        let mut scene = Scene::well();
        spoil(&mut scene);
        assert_eq!(starts_again(&scene), *expected, "{case}: {:?}", scene.plan().assessment);
        assert!(!scene.steps().iter().any(|step| matches!(step, Step::DeleteVolume { .. })), "{case}");
        assert_eq!(scene.gives(Reason::LastCopyRestarted), !expected.is_empty(), "{case}");
    }
}

#[test]
fn one_whose_pod_ended_is_no_candidate_however_lately_it_spoke() {
    let mut scene = Scene::well();
    scene.kill_primary(700);
    for letter in ["b", "c"] {
        ended(&mut scene, letter, 600_000);
        scene.report(&manager(letter)).age = 100;
    }
    assert_eq!(scene.claim(), None, "{:?}", scene.steps());
}
