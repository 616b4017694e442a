//! Which replicas there should be, case by case.

mod support;

use support::*;
use understudy_decide::decision::Sentence;
use understudy_decide::failover::snapshot::*;
use understudy_decide::{Fact, Order, OrderKind, Reason, Step};
use understudy_wire::ReplicaName;
use understudy_wire::evidence::{Aged, BuildProgress, Phase};
use understudy_wire::order::Origin;

fn condemned(scene: &Scene) -> Option<(String, Sentence)> {
    scene.steps().into_iter().find_map(|step| match step {
        Step::Condemn { replica, reason, .. } => Some((replica.to_string(), reason)),
        _ => None,
    })
}

fn build_of(scene: &Scene, letter: &str) -> Option<Origin> {
    scene.steps().into_iter().find_map(|step| match step {
        Step::Order { replica, order: Order::Build(build) } if replica == name(letter) => Some(build.origin),
        _ => None,
    })
}

/// Makes a standby one that was just made.
fn empty(scene: &mut Scene, letter: &str) {
    scene.server(letter, |server| {
        server.phase = Phase::Empty;
        server.replication = None;
        server.executed = None;
    });
    scene.label(letter, "spare");
}

fn condemn(scene: &mut Scene, letter: &str, reason: &str) {
    scene.replica(letter, |replica| {
        replica.condemned = Some(Condemned { reason: reason.into(), ..Condemned::default() });
    });
}

#[test]
fn a_new_shard_makes_its_replicas_and_nothing_else() {
    let mut scene = Scene::well();
    scene.0.status = Status::default();
    scene.0.replicas.clear();
    scene.0.reports.clear();
    let steps = scene.steps();
    assert_eq!(steps.len(), 1);
    let new = scene.grown();
    let ids: Vec<_> = new.iter().map(|new| (new.server_id, new.first, new.replaces.is_none())).collect();
    assert_eq!(ids, [(1, true, true), (2, true, true), (3, true, true)]);
    assert_eq!(scene.grown(), new, "the same names for the same ids");
    let names: std::collections::BTreeSet<_> = new.iter().map(|new| &new.name).collect();
    assert_eq!(names.len(), 3);
    assert!(names.iter().all(|name| name.as_str().len() == "m-xxxx".len()), "{names:?}");
}

fn receive_error(scene: &mut Scene, error: &str) {
    scene.server("b", |server| {
        let replication = &mut server.replication.as_mut().expect("replicates").value;
        replication.receiving = false;
        replication.receive_error = Some(error.into());
        server.lsn = Some(Aged { age: 20_000, value: 1 });
    });
}

fn pod_made(scene: &mut Scene, letter: &str, ago: u64) {
    scene.replica(letter, |replica| {
        if let Fact::Present(pod) = &mut replica.pod {
            pod.age = ago;
        }
    });
}

/// As an operator that was restarted finds a replica whose pod has no room.
fn unplaced(scene: &mut Scene, letter: &str, bound: bool) {
    scene.0.reports.retain(|received| received.report.observer != manager(letter));
    scene.replica(letter, |replica| {
        if let Fact::Present(pod) = &mut replica.pod {
            pod.unschedulable = Some("no room".into());
        }
        if let Fact::Present(volume) = &mut replica.volume {
            volume.bound = bound;
        }
    });
}

fn unreachable_source(attempt: u32) -> String {
    format!(
        "2003: Error connecting to source 'repl@10.0.0.1:3306'. This was attempt {attempt}/86400, with a delay of 1 seconds between \
         attempts. Message: Can't connect to MySQL server on '10.0.0.1:3306' (111)"
    )
}

#[test]
fn what_is_shown_of_a_standby_that_tries_to_connect_does_not_change_with_each_try() {
    let shown = |attempt| {
        let mut scene = Scene::well();
        receive_error(&mut scene, &unreachable_source(attempt));
        scene.plan().view
    };
    assert_eq!(shown(1), shown(2));
    let message = shown(1).replicas.into_iter().find_map(|view| view.message).expect("it is said");
    assert!(message.starts_with("2003: ") && message.ends_with("(111)"), "{message}");
}

#[test]
fn who_is_replaced_and_why() {
    type Case = (&'static str, fn(&mut Scene), Option<(&'static str, Sentence)>);
    let cases: &[Case] = &[
        ("nobody", |_| {}, None),
        (
            "a standby with transactions of its own",
            |s| {
                s.server("c", |server| {
                    server.executed = Some(Aged { age: 50, value: gtids("a", 1000).union(&gtids("c", 2)) })
                })
            },
            Some(("m-c", Sentence::Errant)),
        ),
        (
            "a standby with transactions of a former primary that the present one lacks",
            |s| {
                s.server("c", |server| {
                    server.executed = Some(Aged { age: 50, value: gtids("a", 1000).union(&gtids("x", 2)) })
                })
            },
            Some(("m-c", Sentence::Errant)),
        ),
        (
            "a standby that is ahead of the last word of the primary",
            |s| s.server("c", |server| server.executed = Some(Aged { age: 50, value: gtids("a", 1005) })),
            None,
        ),
        (
            "a standby whose server ended",
            |s| s.server("b", |server| server.phase = Phase::Exited { code: Some(1), signal: None, age: 2_000 }),
            Some(("m-b", Sentence::Exited)),
        ),
        (
            "a standby whose volume holds half a data directory",
            |s| s.server("b", |server| server.phase = Phase::Unusable { reason: "interrupted clone".into() }),
            Some(("m-b", Sentence::Unusable)),
        ),
        (
            "a standby whose applier stopped",
            |s| {
                s.server("b", |server| {
                    let replication = &mut server.replication.as_mut().expect("replicates").value;
                    replication.applying = false;
                    replication.apply_error = Some("duplicate key".into());
                    server.lsn = Some(Aged { age: 20_000, value: 1 });
                });
            },
            Some(("m-b", Sentence::ReplicationBroken)),
        ),
        (
            "a standby whose applier was ended within a transaction",
            |s| {
                s.server("b", |server| {
                    let replication = &mut server.replication.as_mut().expect("replicates").value;
                    replication.applying = false;
                    replication.apply_error =
                        Some("1756: The replica coordinator and worker threads are stopped".into());
                    server.lsn = Some(Aged { age: 20_000, value: 1 });
                });
            },
            None,
        ),
        (
            "a standby whose source has purged what it needs",
            |s| receive_error(s, "13114: Got fatal error 1236 from source when reading data from binary log: 'purged'"),
            Some(("m-b", Sentence::ReplicationBroken)),
        ),
        ("a standby that has tried to connect 1236 times", |s| receive_error(s, &unreachable_source(1236)), None),
        ("a standby that is silent for half a minute", |s| s.silent("b", 30_000), None),
        ("a standby that is silent for longer", |s| s.silent("b", 61_000), Some(("m-b", Sentence::Lost))),
        (
            "a standby whose pod was made anew and starts, silent since the one before it",
            |s| {
                s.silent("b", 170_000);
                pod_made(s, "b", 170_000);
            },
            None,
        ),
        (
            "a standby whose pod was made anew and has not been heard for as long as a first one may take",
            |s| {
                s.silent("b", 190_000);
                pod_made(s, "b", 180_000);
            },
            Some(("m-b", Sentence::Lost)),
        ),
        (
            "a standby that nobody has heard and that cannot be placed where its volume is",
            |s| unplaced(s, "b", true),
            Some(("m-b", Sentence::Lost)),
        ),
        (
            "the same for a short time",
            |s| {
                unplaced(s, "b", true);
                pod_made(s, "b", 170_000);
            },
            None,
        ),
        (
            "the same while the primary is silent",
            |s| {
                unplaced(s, "b", true);
                s.silent("a", 61_000);
            },
            None,
        ),
        ("a standby that cannot be placed and whose volume has no place yet", |s| unplaced(s, "b", false), None),
        (
            "a standby that is silent while the primary is silent as well",
            |s| {
                s.silent("a", 61_000);
                s.silent("b", 61_000);
            },
            None,
        ),
        (
            "a standby that is silent with most of the fleet",
            |s| {
                s.silent("b", 61_000);
                s.0.fleet.silent = 20;
            },
            None,
        ),
        (
            "a standby that is silent for as long as the operator has been awake",
            |s| {
                s.silent("b", 61_000);
                s.0.memory.awake = 5_000;
            },
            None,
        ),
        (
            "nobody while a change of primary is under way",
            |s| {
                s.claimed(Kind::Switchover, "c");
                s.server("b", |server| server.phase = Phase::Exited { code: Some(1), signal: None, age: 2_000 });
            },
            None,
        ),
        ("one too many: the newest", |s| s.0.policy.replicas = 2, Some(("m-c", Sentence::ScaledDown))),
        (
            "one too many: the one that does not replicate",
            |s| {
                s.0.policy.replicas = 2;
                s.server("b", |server| server.replication.as_mut().expect("replicates").value.receiving = false);
            },
            Some(("m-b", Sentence::ScaledDown)),
        ),
        (
            "not while no other standby is intact",
            |s| {
                s.0.policy.replicas = 2;
                s.server("b", |server| server.replication = None);
                s.server("c", |server| server.replication = None);
            },
            None,
        ),
        ("down to the primary alone", |s| s.0.policy.replicas = 1, Some(("m-c", Sentence::ScaledDown))),
        (
            "nobody while the primary is in doubt",
            |s| {
                s.0.policy.replicas = 2;
                s.all_say(&unreachable(5_000));
            },
            None,
        ),
    ];
    for (case, spoil, expected) in cases {
        let mut scene = Scene::well();
        spoil(&mut scene);
        let expected = expected.map(|(name, sentence)| (name.to_owned(), sentence));
        assert_eq!(condemned(&scene), expected, "{case}: {:?}", scene.reasons());
    }
}

#[test]
fn one_that_is_not_replaced_is_not_said_to_be() {
    let mut scene = Scene::well();
    scene.0.policy.replicas = 2;
    assert!(scene.gives(Reason::ReplicaRemoved) && !scene.gives(Reason::ReplicaCondemned), "{:?}", scene.reasons());
    let mut scene = Scene::well();
    scene.server("b", |server| server.phase = Phase::Unusable { reason: "half".into() });
    assert!(scene.gives(Reason::ReplicaCondemned) && !scene.gives(Reason::ReplicaRemoved), "{:?}", scene.reasons());
}

#[test]
fn that_nobody_is_replaced_while_most_of_the_fleet_is_silent_is_said() {
    let mut scene = Scene::well();
    scene.silent("b", 61_000);
    assert!(!scene.gives(Reason::ObserverSuspect));
    scene.0.fleet.silent = 20;
    assert!(scene.gives(Reason::ObserverSuspect), "{:?}", scene.reasons());
}

#[test]
fn a_replica_joins_once_and_not_again_when_it_only_stopped_for_a_moment() {
    let mut scene = Scene::well();
    assert!(!scene.gives(Reason::ReplicaJoined), "it joined long ago");
    scene.label("c", "spare");
    assert!(scene.gives(Reason::ReplicaJoined), "{:?}", scene.reasons());
    scene.label("c", "primary");
    assert!(scene.gives(Reason::ReplicaJoined), "a former primary: {:?}", scene.reasons());
    scene.label("c", "standby");
    scene.replica("c", |replica| {
        if let Fact::Present(pod) = &mut replica.pod {
            pod.role = Some("spare".into());
        }
    });
    assert!(!scene.gives(Reason::ReplicaJoined), "only the pod was labelled otherwise");
    scene.label("c", "spare");
    scene.server("c", |server| server.replication.as_mut().expect("replicates").value.receiving = false);
    assert!(!scene.gives(Reason::ReplicaJoined), "it does not replicate yet");
}

#[test]
fn the_last_good_copy_is_never_condemned() {
    let mut scene = Scene::well();
    // The primary does not serve, and the only other standby is silent.
    scene.server("a", |server| server.serving = None);
    scene.silent("c", 10_000);
    scene.server("b", |server| server.phase = Phase::Unusable { reason: "half".into() });
    assert_eq!(condemned(&scene), None);
    assert!(scene.plan().notes.iter().any(|note| note.reason == Reason::LastCopyKept));
}

#[test]
fn a_frozen_primary_is_no_copy_beside_which_the_only_standby_may_go() {
    let mut scene = Scene::well();
    scene.0.policy.replicas = 2;
    scene.0.replicas.remove(&name("c"));
    scene.0.reports.retain(|received| received.report.observer != manager("c"));
    scene.server("b", |server| server.phase = Phase::Unusable { reason: "half".into() });
    assert!(condemned(&scene).is_some(), "the primary commits");
    // It says that it serves, as it did before, and nobody has seen a commit.
    for received in &mut scene.0.reports {
        for evidence in received.report.evidence.iter_mut().filter(|evidence| evidence.subject == name("a")) {
            evidence.probe = evidence.probe.take().map(|_| unreachable(2_000));
        }
    }
    assert_eq!(condemned(&scene), None);
}

#[test]
fn no_volume_goes_beside_a_primary_that_does_not_commit() {
    let mut scene = Scene::well();
    let long_ago = Some(scene.0.now - jiff::SignedDuration::from_hours(25));
    let condemned = Condemned { reason: "Exited".into(), successor_ready_at: long_ago, ..Condemned::default() };
    let quarantined = Replica { condemned: Some(condemned), pod: Fact::Absent, ..replica(4, "d") };
    scene.0.replicas.insert(name("d"), quarantined);
    assert!(scene.steps().contains(&Step::DeleteVolume { replica: name("d"), uid: "pvc-d".into() }));
    scene.all_say(&unreachable(1_500));
    assert_eq!(scene.steps(), vec![], "{:?}", scene.plan().assessment.verdict);
}

#[test]
fn nothing_is_made_or_taken_away_on_what_is_not_known() {
    let mut scene = Scene::well();
    scene.replica("b", |replica| {
        replica.pod = Fact::Unknown;
        replica.volume = Fact::Unknown;
    });
    assert_eq!(scene.steps(), vec![]);
    condemn(&mut scene, "b", "Lost");
    assert!(
        !scene.steps().iter().any(|step| matches!(
            step,
            Step::DeletePod { .. } | Step::DeleteVolume { .. } | Step::DeleteReplica { .. }
        ))
    );
}

#[test]
fn what_is_left_of_a_condemned_replica_goes_in_order() {
    let mut scene = Scene::well();
    // Its successor d is there already.
    scene.0.replicas.insert(name("d"), Replica { replaces: Some(name("b")), ..replica(4, "d") });
    scene.says(&manager("d"), "d", None, Some(server("d", Phase::Running)));
    scene.acknowledge_peers();
    condemn(&mut scene, "b", "Exited");
    scene.acknowledge_peers();
    let step = |scene: &Scene| scene.steps().into_iter().find(|step| !matches!(step, Step::Order { .. }));
    assert_eq!(step(&scene), Some(Step::DeletePod { replica: name("b"), uid: "pod-b".into(), restart: false }));
    scene.replica("b", |replica| replica.pod = Fact::Absent);
    assert_eq!(step(&scene), Some(Step::StartQuarantine { replica: name("b") }));
    let now = scene.0.now;
    scene.replica("b", |replica| replica.condemned.as_mut().expect("condemned").successor_ready_at = Some(now));
    assert_eq!(step(&scene), None, "its time is not over");
    scene.0.now += jiff::SignedDuration::from_hours(25);
    assert_eq!(step(&scene), Some(Step::DeleteVolume { replica: name("b"), uid: "pvc-b".into() }));
    scene.server("c", |server| server.replication.as_mut().expect("replicates").value.applying = false);
    assert_eq!(step(&scene), None, "not while a copy is missing");
    scene.replica("b", |replica| replica.volume = Fact::Absent);
    assert_eq!(step(&scene), Some(Step::DeleteReplica { replica: name("b"), uid: "uid-b".into() }));
}

#[test]
fn a_standby_is_no_intact_copy_before_anybody_knows_how_far_behind_it_is() {
    let unknown = |scene: &mut Scene, letter: &str| {
        scene.server(letter, |server| server.replication.as_mut().expect("replicates").value.delay = None);
    };
    let mut scene = Scene::well();
    condemn(&mut scene, "b", "Exited");
    scene.replica("b", |replica| replica.pod = Fact::Absent);
    scene.0.replicas.insert(name("d"), Replica { replaces: Some(name("b")), ..replica(4, "d") });
    scene.says(&manager("d"), "d", None, Some(server("d", Phase::Running)));
    scene.0.records.push(Record {
        name: "m-4".into(),
        kind: Kind::Failover,
        epoch: EPOCH,
        from: Some(name("b")),
        to: Some(name("a")),
        steps: vec!["FirstCommit".into()],
        claimed: vec![],
    });
    let quarantines = |scene: &Scene| scene.steps().contains(&Step::StartQuarantine { replica: name("b") });
    let closes = |scene: &Scene| {
        scene.plan().records.iter().any(|update| update.phase == understudy_decide::failover::record::Phase::Closed)
    };
    assert!(quarantines(&scene) && closes(&scene), "{:?}", scene.steps());
    unknown(&mut scene, "d");
    assert!(!quarantines(&scene) && !closes(&scene) && !scene.plan().view.redundant);

    let mut scene = Scene::well();
    scene.0.requests.push(Request { name: "r".into(), kind: Kind::Switchover, target: Some(name("c")), age: 10 });
    assert_eq!(scene.claim(), Some((Kind::Switchover, "m-c".into())));
    unknown(&mut scene, "c");
    assert_eq!(scene.claim(), None, "it may be hours behind");

    let mut scene = Scene::well();
    empty(&mut scene, "c");
    unknown(&mut scene, "b");
    assert_eq!(build_of(&scene, "c"), None, "nobody is cloned from it");
}

#[test]
fn who_is_cloned() {
    let mut scene = Scene::well();
    empty(&mut scene, "c");
    let donor = |origin: Option<Origin>| match origin {
        Some(Origin::Clone { donor, .. }) => Some(donor.to_string()),
        _ => None,
    };
    assert_eq!(donor(build_of(&scene, "c")).as_deref(), Some("m-b"), "a standby rather than the primary");
    scene.server("b", |server| server.phase = Phase::Starting);
    assert_eq!(build_of(&scene, "c"), None, "one that is about to be ready is waited for");
    scene.silent("b", 5_000);
    assert_eq!(donor(build_of(&scene, "c")).as_deref(), Some("m-a"), "the primary if it is the one copy left");
    let mut scene = Scene::well();
    empty(&mut scene, "c");
    scene.0.replicas.insert(name("d"), replica(4, "d"));
    let building =
        BuildProgress { stage: "FILE COPY".into(), done: 1, total: 2, eta: None, donor: Some(name("b")), error: None };
    let server = understudy_wire::evidence::Server { build: Some(building), ..server("d", Phase::Building) };
    scene.says(&manager("d"), "d", None, Some(server));
    assert_eq!(build_of(&scene, "c"), None, "one that is being cloned has enough to do");
    assert!(scene.plan().notes.iter().any(|note| note.reason == Reason::WaitingForDonor));
}

#[test]
fn followers_are_told_again_only_when_they_do_not_follow() {
    let mut scene = Scene::well();
    scene.server("b", |server| {
        server.replication.as_mut().expect("replicates").value.source = Some("10.0.0.9:3306".into())
    });
    let told = |scene: &Scene| {
        scene
            .steps()
            .iter()
            .any(|step| matches!(step, Step::Order { replica, order: Order::Follow(_) } if *replica == name("b")))
    };
    assert!(told(&scene));
    scene.ordered("b", OrderKind::Follow, 1, 500, OrderOutcome::InFlight);
    assert!(!told(&scene));
    scene.ordered("b", OrderKind::Follow, 1, 3_500, OrderOutcome::Failed("busy".into()));
    assert!(told(&scene));
    assert_eq!(ReplicaName::new("m-b"), name("b"));

    for (case, error, again) in [
        ("its applier was ended within a transaction", "1756: the coordinator and worker threads are stopped", true),
        ("its applier cannot go on", "1062: duplicate entry", false),
    ] {
        let mut scene = Scene::well();
        scene.server("b", |server| {
            let replication = &mut server.replication.as_mut().expect("replicates").value;
            (replication.receiving, replication.applying) = (false, false);
            replication.apply_error = Some(error.into());
        });
        assert_eq!(told(&scene), again, "{case}");
    }
}
