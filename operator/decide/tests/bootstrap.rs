//! A shard without a primary: who initialises, and what stops everybody from it.

mod support;

use support::*;
use understudy_decide::decision::Sentence;
use understudy_decide::failover::snapshot::*;
use understudy_decide::{Fact, Order, Reason, Step};
use understudy_wire::Epoch;
use understudy_wire::evidence::{Aged, Phase};
use understudy_wire::order::Origin;

fn build_of(scene: &Scene, letter: &str) -> Option<Origin> {
    scene.steps().into_iter().find_map(|step| match step {
        Step::Order { replica, order: Order::Build(build) } if replica == name(letter) => Some(build.origin),
        _ => None,
    })
}

fn condemned(scene: &Scene) -> Option<(String, Sentence)> {
    scene.steps().into_iter().find_map(|step| match step {
        Step::Condemn { replica, reason, .. } => Some((replica.to_string(), reason)),
        _ => None,
    })
}

fn condemn(scene: &mut Scene, letter: &str, reason: &str) {
    scene.replica(letter, |replica| {
        replica.condemned = Some(Condemned { reason: reason.into(), ..Condemned::default() });
    });
}

/// Makes a replica one that was just made.
fn empty(scene: &mut Scene, letter: &str) {
    scene.server(letter, |server| {
        server.phase = Phase::Empty;
        server.replication = None;
        server.executed = None;
    });
    scene.label(letter, "spare");
}

/// Nobody has ever heard the manager of a replica.
fn never_heard(scene: &mut Scene, letter: &str) {
    scene.0.reports.retain(|received| received.report.observer != manager(letter));
    scene.replica(letter, |replica| replica.link.connected = false);
}

/// A shard whose replicas are there and empty.
fn unborn() -> Scene {
    let mut scene = Scene::well();
    scene.0.status = Status { next_server_id: 4, ..Status::default() };
    for letter in ["a", "b", "c"] {
        empty(&mut scene, letter);
        scene.server(letter, |server| {
            server.epoch = Epoch(0);
            server.serving = None;
        });
    }
    scene
}

#[test]
fn the_first_primary_step_by_step() {
    let mut scene = unborn();
    assert_eq!(scene.steps(), vec![Step::IntendBootstrap { replica: name("a") }], "the intent comes first");
    scene.0.status.bootstrap = Some(Bootstrap { replica: name("a"), completed: false });
    assert!(matches!(build_of(&scene, "a"), Some(Origin::Initialise { .. })));
    assert_eq!(build_of(&scene, "b"), None, "nobody else is told to do anything");
    scene.server("a", |server| server.phase = Phase::Building);
    assert_eq!(scene.steps(), vec![]);
    scene.server("a", |server| server.phase = Phase::Running);
    assert_eq!(scene.claim(), Some((Kind::Bootstrap, "m-a".into())));
}

/// Whether somebody is allowed or told to initialise, or taken for the first primary.
fn begins(scene: &Scene) -> bool {
    scene.steps().iter().any(|step| match step {
        Step::IntendBootstrap { .. } => true,
        Step::Claim(claim) => claim.kind == Kind::Bootstrap,
        Step::Order { order: Order::Build(build), .. } => matches!(build.origin, Origin::Initialise { .. }),
        _ => false,
    })
}

#[test]
fn a_volume_is_never_initialised_on_a_shard_that_may_hold_data() {
    type Case = (&'static str, fn(&mut Scene));
    let cases: &[Case] = &[
        ("the intent was completed", |s| {
            s.0.status.bootstrap = Some(Bootstrap { replica: name("a"), completed: true })
        }),
        ("a manager knows an epoch", |s| s.server("b", |server| server.epoch = Epoch(3))),
        ("a replica holds data", |s| s.server("c", |server| server.phase = Phase::Running)),
        ("a primary changed once", |s| {
            s.0.status.last_change = Some(LastChange {
                kind: Kind::Failover,
                epoch: EPOCH,
                from: None,
                record: None,
                cause: None,
                at: None,
            });
        }),
        ("a replica had a server and was not heard since the operator was started", |s| {
            never_heard(s, "c");
            s.replica("c", |replica| replica.server_uuid = Some(uuid("c").to_string()));
        }),
        ("a replica had executed something and has no pod", |s| {
            never_heard(s, "c");
            s.replica("c", |replica| {
                replica.last_executed = Some(gtids("a", 9));
                replica.pod = Fact::Absent;
            });
        }),
        ("a replica had a server and fell silent", |s| {
            s.replica("c", |replica| replica.server_uuid = Some(uuid("c").to_string()));
            s.silent("c", 90_000);
        }),
        ("a replica had a server and its volume is empty", |s| {
            s.replica("c", |replica| replica.server_uuid = Some(uuid("c").to_string()));
        }),
        ("a replica was replaced after it had a server", |s| {
            s.replica("c", |replica| replica.server_uuid = Some(uuid("c").to_string()));
            condemn(s, "c", "FailedOver");
            never_heard(s, "c");
        }),
        ("a volume holds something that is no data directory", |s| {
            s.server("c", |server| server.phase = Phase::Unusable { reason: "half".into() });
        }),
        ("what a manager says only a later version knows", |s| s.server("c", |server| server.phase = Phase::Unknown)),
        ("mysqld of a replica is starting", |s| s.server("c", |server| server.phase = Phase::Starting)),
        ("a replica was never heard and its volume was there before it", |s| {
            never_heard(s, "c");
            s.replica("c", |replica| replica.age = 5_000);
        }),
        ("a replica was never heard and the status does not count it", |s| {
            never_heard(s, "c");
            s.0.status.next_server_id = 0;
        }),
        ("a replica was never heard and its volume cannot be read", |s| {
            never_heard(s, "c");
            s.replica("c", |replica| replica.volume = Fact::Unknown);
        }),
    ];
    for (case, spoil) in cases {
        for phase in [None, Some(Phase::Empty), Some(Phase::Running)] {
            let mut scene = unborn();
            if let Some(phase) = &phase {
                scene.0.status.bootstrap = Some(Bootstrap { replica: name("a"), completed: false });
                scene.server("a", |server| server.phase = phase.clone());
            }
            spoil(&mut scene);
            assert!(!begins(&scene), "{case}, a is {phase:?}: {:?}", scene.steps());
            let waits = scene.plan().view.doing.expect("something is being done");
            assert!(waits.contains("waiting"), "{case}: {waits}");
        }
    }
}

#[test]
fn a_replica_that_is_only_late_stops_nobody() {
    type Case = (&'static str, fn(&mut Scene));
    let cases: &[Case] = &[
        ("its pod is not there yet", |s| s.replica("c", |replica| replica.pod = Fact::Absent)),
        ("its manager has not spoken yet", |_| {}),
        ("its pod cannot be placed", |s| {
            s.replica("c", |replica| {
                if let Fact::Present(pod) = &mut replica.pod {
                    pod.unschedulable = Some("no room".into());
                }
            });
            s.replica("c", |replica| {
                if let Fact::Present(volume) = &mut replica.volume {
                    volume.bound = false;
                }
            });
            s.0.status.next_server_id = 0;
        }),
        ("it has no volume yet", |s| {
            s.replica("c", |replica| {
                replica.volume = Fact::Absent;
                replica.pod = Fact::Absent;
            });
        }),
        ("it was to be the first, ran, and never served", |s| {
            s.replica("c", |replica| replica.server_uuid = Some(uuid("c").to_string()));
            condemn(s, "c", "NeverServed");
        }),
    ];
    for (case, spoil) in cases {
        let mut scene = unborn();
        never_heard(&mut scene, "c");
        spoil(&mut scene);
        assert!(begins(&scene), "{case}: {:?}", scene.plan().notes);
    }
}

#[test]
fn what_may_be_done_by_hand_is_said_when_nobody_may_initialise() {
    let mut scene = unborn();
    never_heard(&mut scene, "c");
    scene.replica("c", |replica| replica.server_uuid = Some(uuid("c").to_string()));
    let notes = scene.plan().notes;
    let held = notes.iter().find(|note| note.reason == Reason::BootstrapHeld).expect("it is said");
    assert!(held.message.contains("m-c: it held data when it was heard last"), "{}", held.message);
    assert!(held.message.contains("`kubectl delete replica m-c`"), "{}", held.message);
    scene.0.replicas.remove(&name("c"));
    assert!(begins(&scene), "and it helps");
    let mut scene = unborn();
    scene.server("c", |server| server.phase = Phase::Starting);
    assert!(scene.gives(Reason::BootstrapHeld), "its manager has been looking at its volume for long");
    scene.replica("c", |replica| replica.age = 5_000);
    assert!(!scene.gives(Reason::BootstrapHeld), "it will soon have looked at it");
}

#[test]
fn how_a_shard_of_which_nothing_is_left_is_made_anew_is_said_and_of_no_other() {
    type Case = (&'static str, Reason, fn() -> Scene, bool);
    fn lost() -> Scene {
        let mut scene = Scene::well();
        scene.all_say(&refused(500));
        for letter in ["a", "b", "c"] {
            scene.replica(letter, |replica| replica.server_uuid = Some(uuid(letter).to_string()));
            empty(&mut scene, letter);
            scene.server(letter, |server| server.serving = None);
        }
        scene
    }
    let cases: &[Case] = &[
        (
            "it had a primary, and its replicas were made anew",
            Reason::BootstrapHeld,
            || {
                let mut scene = unborn();
                scene.0.status.bootstrap = Some(Bootstrap { replica: name("z"), completed: true });
                scene
            },
            true,
        ),
        ("the primary is in the status, and every volume is empty", Reason::NoCandidate, lost, true),
        (
            "one replica is silent that held data",
            Reason::NoCandidate,
            || {
                let mut scene = lost();
                never_heard(&mut scene, "c");
                scene
            },
            false,
        ),
        (
            "the primary was never heard, and its Replica tells nothing",
            Reason::NoCandidate,
            || {
                let mut scene = lost();
                scene.lose_node(90_000);
                scene.0.reports.retain(|received| received.report.observer != manager("a"));
                scene.replica("a", |replica| replica.server_uuid = None);
                scene
            },
            false,
        ),
    ];
    for (case, reason, scene, said) in cases {
        let plan = scene().plan();
        let note = plan.notes.iter().find(|note| note.reason == *reason);
        let note = note.unwrap_or_else(|| panic!("{case}: {:?}", plan.notes));
        assert_eq!(note.message.contains("`kubectl delete shard m`"), *said, "{case}: {}", note.message);
        let doing = plan.view.doing.unwrap_or_default();
        assert_eq!(doing.contains("kubectl delete shard m"), *said, "{case}: {doing}");
    }
}

#[test]
fn one_that_was_only_initialised_is_not_taken_for_a_copy_of_what_is_lost() {
    let mut scene = unborn();
    scene.0.status.bootstrap = Some(Bootstrap { replica: name("a"), completed: false });
    scene.server("a", |server| {
        server.phase = Phase::Running;
        server.executed = Some(Aged { age: 50, value: Default::default() });
    });
    never_heard(&mut scene, "c");
    scene.replica("c", |replica| replica.server_uuid = Some(uuid("c").to_string()));
    assert_eq!(scene.claim(), None, "{:?}", scene.plan().notes);
}

#[test]
fn a_lost_status_takes_the_best_copy_once_everybody_had_time_to_come_forward() {
    let mut scene = Scene::well();
    scene.0.status = Status { next_server_id: 4, ..Status::default() };
    for letter in ["a", "b", "c"] {
        scene.server(letter, |server| {
            server.serving = None;
            server.read_only = Some(true);
        });
    }
    scene.server("b", |server| server.executed = Some(Aged { age: 50, value: gtids("a", 1001) }));
    assert_eq!(scene.claim(), Some((Kind::Failover, "m-b".into())));
    let Some(Step::Claim(claim)) = scene.steps().into_iter().find(|step| matches!(step, Step::Claim(_))) else {
        panic!()
    };
    assert_eq!(claim.epoch(), Epoch(5), "beyond what the servers know");
    scene.silent("c", 3_000);
    scene.0.memory.awake = 10_000;
    assert_eq!(scene.claim(), None, "c may have more");
    scene.0.memory.awake = 61_000;
    assert_eq!(scene.claim(), Some((Kind::Failover, "m-b".into())));
}

#[test]
fn a_replica_that_was_to_be_first_and_is_lost_is_given_up_and_another_named() {
    let mut scene = unborn();
    scene.0.status.bootstrap = Some(Bootstrap { replica: name("a"), completed: false });
    scene.server("a", |server| server.phase = Phase::Unusable { reason: "interrupted".into() });
    assert_eq!(condemned(&scene), Some(("m-a".into(), Sentence::NeverServed)));
    condemn(&mut scene, "a", "NeverServed");
    assert!(scene.steps().contains(&Step::IntendBootstrap { replica: name("b") }));
}

#[test]
fn one_that_cannot_be_first_is_given_up_where_nobody_else_can_be() {
    type Case = (&'static str, fn(&mut Scene), Option<Sentence>);
    let (lost, unplaceable) = (Some(Sentence::LostUnserved), Some(Sentence::Unplaceable));
    let cases: &[Case] = &[
        ("Kubernetes misses its node", |_| {}, lost),
        ("the node is not there any more", |s| s.0.nodes.retain(|node, _| node != "node-1"), lost),
        ("no node is known", |s| s.0.nodes.clear(), None),
        ("it was heard once, when it was empty", |s| s.report(&manager("a")).age = 180_000, lost),
        ("it was heard a moment ago", |s| s.report(&manager("a")).age = 179_000, None),
        ("its pod is new", |s| pod(s, |pod| pod.age = 179_000), None),
        ("its pod has no node", |s| pod(s, |pod| pod.node = None), None),
        ("the operator is new", |s| s.0.memory.awake = 179_000, None),
        ("its pod ended, and is started again", |s| pod(s, |pod| pod.phase = PodPhase::Ended), None),
        ("its pod cannot be placed where its volume is", |s| cannot_be_placed(s, true), lost),
        ("its pod cannot be placed, and its volume has no place", |s| cannot_be_placed(s, false), None),
        (
            "nor can one that avoids a node that is well",
            |s| {
                cannot_be_placed(s, false);
                s.replica("a", |replica| replica.avoid_nodes = vec!["node-4".into()]);
            },
            unplaceable,
        ),
        ("it may hold data", |s| s.replica("a", |replica| replica.server_uuid = Some(uuid("a").to_string())), None),
    ];
    for (case, spoil, expected) in cases {
        let mut scene = unborn();
        scene.0.policy.replicas = 1;
        for letter in ["b", "c"] {
            scene.0.replicas.remove(&name(letter));
            scene.0.reports.retain(|received| received.report.observer != manager(letter));
        }
        if !case.starts_with("it was heard") {
            never_heard(&mut scene, "a");
        }
        spoil(&mut scene);
        let given_up = expected.map(|sentence| ("m-a".to_owned(), sentence));
        assert_eq!(condemned(&scene), given_up, "{case}: {:?}", scene.plan().notes);
        let ready_at = Some(scene.0.now);
        scene.0.nodes.entry("node-1".into()).or_default().ready_at = ready_at;
        let given_up = given_up.filter(|_| case.contains("placed") || case.contains("avoids"));
        assert_eq!(condemned(&scene), given_up, "{case}, and its node is ready: it may fetch its image");
    }
    let mut scene = unborn();
    never_heard(&mut scene, "a");
    assert_eq!(scene.steps(), vec![Step::IntendBootstrap { replica: name("b") }], "another is there");
}

fn cannot_be_placed(scene: &mut Scene, bound: bool) {
    pod(scene, |pod| (pod.node, pod.unschedulable) = (None, Some("no room".into())));
    scene.replica("a", |replica| {
        if let Fact::Present(volume) = &mut replica.volume {
            volume.bound = bound;
        }
    });
}

fn pod(scene: &mut Scene, change: impl FnOnce(&mut Pod)) {
    scene.replica("a", |replica| {
        if let Fact::Present(pod) = &mut replica.pod {
            change(pod);
        }
    });
}
