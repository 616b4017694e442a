//! Changes of primary, case by case.

mod support;

use support::*;
use understudy_decide::failover::record::{Milestone, Outcome, Phase as RecordPhase};
use understudy_decide::failover::snapshot::*;
use understudy_decide::{Fact, Order, OrderKind, Reason, Step};
use understudy_wire::Epoch;
use understudy_wire::evidence::{Aged, Fence, Phase, ProbeError, Stage};

fn says(scene: &Scene, reason: Reason) -> bool {
    scene.plan().notes.iter().any(|note| note.reason == reason)
}

fn order_to(scene: &Scene, letter: &str, kind: OrderKind) -> Option<Order> {
    scene.steps().into_iter().find_map(|step| match step {
        Step::Order { replica, order } if replica == name(letter) && order.kind() == kind => Some(order),
        _ => None,
    })
}

fn published(scene: &Scene) -> Option<String> {
    scene.steps().into_iter().find_map(|step| match step {
        Step::Publish { primary, .. } => Some(primary.to_string()),
        _ => None,
    })
}

fn failed_probe() -> ReprobeOutcome {
    ReprobeOutcome::Failed("refused".into())
}

#[test]
fn a_shard_that_is_well_needs_nothing() {
    let scene = Scene::well();
    let decision = scene.plan();
    assert_eq!(decision.steps, vec![]);
    assert_eq!(decision.notes, vec![]);
    assert_eq!((decision.view.ready, decision.view.promotable, decision.view.redundant), (3, 2, true));
}

#[test]
fn what_begins_a_change_of_primary_and_which() {
    type Case = (&'static str, fn(&mut Scene), Option<(Kind, &'static str)>);
    let cases: &[Case] = &[
        ("process exited", |s| s.kill_primary(200), Some((Kind::Failover, "m-b"))),
        ("node lost", |s| s.lose_node(3_500), Some((Kind::Failover, "m-b"))),
        ("one observer only", |s| s.says(&operator(), "a", Some(unreachable(60_000)), None), None),
        (
            "a fresh commit vetoes",
            |s| {
                s.lose_node(5_000);
                s.says(&consumer(), "a", Some(commits()), None);
            },
            None,
        ),
        (
            "the candidate with the greatest set wins",
            |s| {
                s.kill_primary(200);
                s.server("c", |server| server.executed = Some(Aged { age: 50, value: gtids("a", 1010) }));
            },
            Some((Kind::Failover, "m-c")),
        ),
        (
            "equal sets: the higher stored offset wins",
            |s| {
                s.kill_primary(200);
                s.server("c", |server| server.offsets = Some(Aged { age: 50, value: vec![offset(501)] }));
            },
            Some((Kind::Failover, "m-c")),
        ),
        (
            "equal offsets: more free space wins",
            |s| {
                s.kill_primary(200);
                s.server("c", |server| server.volume.as_mut().expect("a volume").free += 1);
            },
            Some((Kind::Failover, "m-c")),
        ),
        (
            "equal space: another zone than the dead one's wins",
            |s| {
                s.kill_primary(200);
                s.0.nodes.get_mut("node-2").expect("a node").zone = Some("zone-1".into());
            },
            Some((Kind::Failover, "m-c")),
        ),
        (
            "received transactions count when they are applied in time",
            |s| {
                s.kill_primary(200);
                s.server("c", |server| {
                    server.replication.as_mut().expect("replicates").value.received = gtids("a", 1005)
                });
            },
            Some((Kind::Failover, "m-c")),
        ),
        (
            "and do not when the applier is far behind",
            |s| {
                s.kill_primary(200);
                s.server("c", |server| {
                    let replication = &mut server.replication.as_mut().expect("replicates").value;
                    replication.received = gtids("a", 9_000);
                    replication.delay = Some(50_000);
                    server.executed = Some(Aged { age: 50, value: gtids("a", 900) });
                });
            },
            Some((Kind::Failover, "m-b")),
        ),
        (
            "an errant candidate never",
            |s| {
                s.kill_primary(200);
                s.server("c", |server| {
                    server.executed = Some(Aged { age: 50, value: gtids("a", 1010).union(&gtids("c", 1)) });
                });
            },
            Some((Kind::Failover, "m-b")),
        ),
        (
            "a former primary's own transactions are not errant when others have them",
            |s| {
                s.kill_primary(200);
                for letter in ["a", "b", "c"] {
                    s.server(letter, |server| {
                        server.executed = Some(Aged { age: 50, value: gtids("a", 1000).union(&gtids("c", 40)) });
                    });
                }
                s.server("c", |server| server.volume.as_mut().expect("a volume").free += 1);
            },
            Some((Kind::Failover, "m-c")),
        ),
        (
            "a silent candidate never, and it is not waited for",
            |s| {
                s.kill_primary(200);
                s.silent("b", 3_000);
            },
            Some((Kind::Failover, "m-c")),
        ),
        (
            "restarted, has everything, nobody has more: confirmed",
            |s| {
                s.server("a", |server| {
                    server.serving = None;
                    server.read_only = Some(true);
                });
                s.all_say(&fails(Stage::Commit, ProbeError::ReadOnly, 1_000));
            },
            Some((Kind::Confirm, "m-a")),
        ),
        (
            "restarted and still in crash recovery: not waited for",
            |s| {
                s.server("a", |server| server.phase = Phase::Starting);
                s.all_say(&refused(400));
            },
            Some((Kind::Failover, "m-b")),
        ),
        (
            "restarted with less than a standby has: failed over",
            |s| {
                s.server("a", |server| {
                    server.serving = None;
                    server.read_only = Some(true);
                    server.executed = Some(Aged { age: 50, value: gtids("a", 900) });
                });
                s.all_say(&fails(Stage::Commit, ProbeError::ReadOnly, 1_000));
            },
            Some((Kind::Failover, "m-b")),
        ),
        (
            "the pod is leaving: switched over before it goes",
            |s| {
                s.replica("a", |replica| {
                    if let Fact::Present(pod) = &mut replica.pod {
                        pod.terminating = true;
                    }
                });
            },
            Some((Kind::Switchover, "m-b")),
        ),
        (
            "a person condemned the primary: switched over",
            |s| {
                s.replica("a", |replica| {
                    replica.condemned =
                        Some(Condemned { reason: "Wanted".into(), successor_ready_at: None, node: None });
                });
            },
            Some((Kind::Switchover, "m-b")),
        ),
        (
            "spec.paused",
            |s| {
                s.kill_primary(2_000);
                s.0.policy.paused = true;
            },
            None,
        ),
        (
            "failover.mode Manual",
            |s| {
                s.kill_primary(2_000);
                s.0.policy.mode = Mode::Manual;
            },
            None,
        ),
        (
            "failover.mode Paused",
            |s| {
                s.kill_primary(2_000);
                s.0.policy.mode = Mode::Paused;
            },
            None,
        ),
        (
            "Manual, and a person asks",
            |s| {
                s.kill_primary(2_000);
                s.0.policy.mode = Mode::Manual;
                s.0.requests.push(Request {
                    name: "please".into(),
                    kind: Kind::Switchover,
                    target: Some(name("c")),
                    age: 10,
                });
            },
            Some((Kind::Failover, "m-c")),
        ),
        (
            "a soft signature within the cooldown",
            |s| {
                deadlock(s);
                s.0.status.last_change = Some(last_change(Kind::Switchover, s.0.now));
            },
            None,
        ),
        ("a soft signature", deadlock, Some((Kind::Failover, "m-b"))),
        (
            "a soft signature on many shards at once",
            |s| {
                deadlock(s);
                s.0.fleet.suspect = 4;
            },
            None,
        ),
        (
            "a dead process within the cooldown and with half the fleet suspect",
            |s| {
                s.kill_primary(200);
                s.0.status.last_change = Some(last_change(Kind::Switchover, s.0.now));
                s.0.fleet.suspect = 4;
            },
            Some((Kind::Failover, "m-b")),
        ),
        (
            "the status was restored from a backup",
            |s| s.server("c", |server| server.epoch = Epoch(9)),
            Some((Kind::Confirm, "m-a")),
        ),
    ];
    for (case, spoil, expected) in cases {
        let mut scene = Scene::well();
        spoil(&mut scene);
        let expected = expected.map(|(kind, to)| (kind, to.to_owned()));
        assert_eq!(scene.claim(), expected, "{case}: {:?}", scene.reasons());
    }
}

fn deadlock(s: &mut Scene) {
    s.server("a", |server| server.lsn = Some(Aged { age: 9_500, value: 1 }));
    s.all_say(&fails(Stage::Commit, ProbeError::Timeout, 9_000));
}

fn last_change(kind: Kind, at: jiff::Timestamp) -> LastChange {
    LastChange { kind, epoch: EPOCH, from: None, record: None, cause: None, at: Some(at) }
}

#[test]
fn a_decision_not_to_act_has_a_reason() {
    type Case = (&'static str, fn(&mut Scene), Reason);
    let cases: &[Case] = &[
        ("paused", |s| s.0.policy.paused = true, Reason::ShardPaused),
        (
            "manual",
            |s| {
                s.kill_primary(500);
                s.0.policy.mode = Mode::Manual;
            },
            Reason::FailoverLeftToPerson,
        ),
        (
            "retention violated",
            |s| {
                s.kill_primary(500);
                s.server("a", |server| server.offsets = Some(Aged { age: 50, value: vec![offset(900)] }));
                s.far_behind();
                s.0.log.insert(("samples".into(), 0), 600);
            },
            Reason::RetentionViolated,
        ),
        (
            "nobody to take over",
            |s| {
                s.kill_primary(500);
                s.silent("b", 9_000);
                s.silent("c", 9_000);
                s.all_say(&refused(400));
            },
            Reason::NoCandidate,
        ),
        (
            "cooldown",
            |s| {
                deadlock(s);
                s.0.status.last_change = Some(last_change(Kind::Failover, s.0.now));
            },
            Reason::Cooldown,
        ),
        (
            "breaker",
            |s| {
                deadlock(s);
                s.0.fleet.suspect = 4;
            },
            Reason::FleetBreaker,
        ),
        (
            "a request for the primary itself",
            |s| {
                s.0.requests.push(Request {
                    name: "r".into(),
                    kind: Kind::Switchover,
                    target: Some(name("a")),
                    age: 10,
                })
            },
            Reason::RequestRefused,
        ),
        (
            "a request for a replica that the shard does not have, at once",
            |s| {
                s.0.requests.push(Request {
                    name: "r".into(),
                    kind: Kind::Switchover,
                    target: Some(name("nobody")),
                    age: 10,
                })
            },
            Reason::RequestRefused,
        ),
        (
            "a request to fail over a primary that commits",
            |s| s.0.requests.push(Request { name: "r".into(), kind: Kind::Failover, target: None, age: 10 }),
            Reason::RequestRefused,
        ),
        (
            "a request for a replica that cannot take over, after its patience",
            |s| {
                s.silent("c", 9_000);
                s.0.requests.push(Request {
                    name: "r".into(),
                    kind: Kind::Switchover,
                    target: Some(name("c")),
                    age: 31_000,
                });
            },
            Reason::RequestRefused,
        ),
    ];
    for (case, spoil, expected) in cases {
        let mut scene = Scene::well();
        spoil(&mut scene);
        assert!(says(&scene, *expected), "{case}: {:?}", scene.reasons());
        assert_eq!(scene.claim(), None, "{case}");
    }
}

#[test]
fn retention_stands_against_a_promotion_only_when_it_would_lose_something() {
    let mut scene = Scene::well();
    scene.kill_primary(500);
    scene.0.log.insert(("samples".into(), 0), 600);
    // The old primary is at 500 as well: what is gone from Kafka was lost before.
    assert_eq!(scene.claim(), Some((Kind::Failover, "m-b".into())));
    // A consumer that no longer exists needs nothing.
    scene.server("a", |server| server.offsets = Some(Aged { age: 50, value: vec![offset(900)] }));
    scene.far_behind();
    assert_eq!(scene.claim(), None);
    scene.0.consumers.clear();
    assert_eq!(scene.claim(), Some((Kind::Failover, "m-b".into())));
}

#[test]
fn the_claim_begins_the_record() {
    let mut scene = Scene::well();
    scene.kill_primary(400);
    let decision = scene.plan();
    let Some(Step::Claim(claim)) = decision.steps.iter().find(|step| matches!(step, Step::Claim(_))) else {
        panic!("no claim: {:?}", decision.steps)
    };
    assert_eq!((claim.after, claim.epoch()), (EPOCH, Epoch(5)));
    assert_eq!(claim.record.as_deref(), Some("m-5"));
    let record = &decision.records[0];
    assert_eq!(
        (record.name.as_str(), record.phase, record.cause.as_deref()),
        ("m-5", RecordPhase::Claimed, Some("ProcessExited"))
    );
    let steps: Vec<_> = record.entries.iter().map(|entry| (entry.step, entry.ago)).collect();
    assert_eq!(steps, [(Milestone::FirstSign, 450), (Milestone::Decided, 0), (Milestone::Claimed, 0)]);
    let grounds = record.grounds.as_ref().expect("what was known");
    assert_eq!((grounds.votes.len(), grounds.ranking.fit.len(), grounds.offsets_before.len()), (4, 2, 1));
}

#[test]
fn from_claim_to_publication() {
    let mut scene = Scene::well();
    scene.kill_primary(700);
    scene.claimed(Kind::Failover, "b");
    assert_eq!(scene.steps(), vec![Step::Reprobe { replica: name("a"), epoch: Epoch(5) }], "first the probe");
    scene.reprobed(ReprobeOutcome::Running(100));
    assert_eq!(scene.steps(), vec![], "it has its time");
    scene.reprobed(failed_probe());
    assert!(order_to(&scene, "a", OrderKind::Fence).is_some(), "the old one is fenced");
    assert!(order_to(&scene, "b", OrderKind::Promote).is_some(), "and not waited for");
    scene.ordered("a", OrderKind::Fence, 1, 10, OrderOutcome::InFlight);
    scene.ordered("b", OrderKind::Promote, 1, 10, OrderOutcome::InFlight);
    assert_eq!(scene.steps(), vec![], "the promotion is under way");
    scene.server("b", |server| server.serving = Some(Epoch(5)));
    assert_eq!(published(&scene).as_deref(), Some("m-b"), "the evidence proves it");
    scene.server("b", |server| server.serving = None);
    scene.ordered("b", OrderKind::Promote, 1, 10, OrderOutcome::Done(Some(gtids("a", 1000))));
    assert_eq!(published(&scene).as_deref(), Some("m-b"), "and so does the answer");
}

#[test]
fn a_probe_that_hangs_delays_the_promotion_by_its_deadline_only() {
    let mut scene = Scene::well();
    scene.lose_node(4_000);
    scene.claimed(Kind::Failover, "b");
    scene.reprobed(ReprobeOutcome::Running(600));
    assert!(order_to(&scene, "b", OrderKind::Promote).is_some());
    assert!(order_to(&scene, "a", OrderKind::Fence).is_none(), "nobody to tell");
}

#[test]
fn success_after_the_claim_confirms_the_old_primary_under_a_further_epoch() {
    let mut scene = Scene::well();
    scene.kill_primary(700);
    scene.claimed(Kind::Failover, "b");
    scene.reprobed(ReprobeOutcome::Committed);
    assert_eq!(scene.claim(), Some((Kind::Confirm, "m-a".into())));
    assert!(says(&scene, Reason::NearMiss));
    let Some(Step::Claim(claim)) = scene.steps().into_iter().next() else { panic!("no claim") };
    assert_eq!((claim.epoch(), claim.record.as_deref()), (Epoch(6), Some("m-5")), "the same incident");

    scene.reprobed(ReprobeOutcome::Running(10));
    scene.says(&manager("c"), "a", Some(commits()), None);
    assert_eq!(
        scene.claim(),
        Some((Kind::Confirm, "m-a".into())),
        "a commit that somebody else saw after the claim counts as much"
    );
}

#[test]
fn a_confirmation_closes_the_record_as_a_near_miss() {
    let mut scene = Scene::well();
    scene.claimed(Kind::Confirm, "a");
    assert!(order_to(&scene, "a", OrderKind::Promote).is_some());
    scene.server("a", |server| server.serving = Some(Epoch(5)));
    assert_eq!(published(&scene).as_deref(), Some("m-a"));
    let record = scene.plan().records.pop().expect("a record");
    assert_eq!((record.phase, record.result), (RecordPhase::Closed, Some(Outcome::Confirmed)));
}

#[test]
fn a_candidate_that_fails_is_followed_by_the_next_in_the_same_incident() {
    type Case = (&'static str, fn(&mut Scene));
    let cases: &[Case] = &[
        ("its process ended", |s| {
            s.server("b", |server| server.phase = Phase::Exited { code: None, signal: Some(9), age: 10 })
        }),
        ("its manager fell silent", |s| s.silent("b", 3_000)),
        ("it does not answer", |s| s.ordered("b", OrderKind::Promote, 1, 7_000, OrderOutcome::InFlight)),
        ("it refused twice", |s| s.ordered("b", OrderKind::Promote, 2, 300, OrderOutcome::Failed("error 1872".into()))),
        ("its Replica was deleted", |s| drop(s.0.replicas.remove(&name("b")))),
    ];
    for (case, spoil) in cases {
        let mut scene = Scene::well();
        scene.kill_primary(700);
        scene.claimed(Kind::Failover, "b");
        scene.reprobed(failed_probe());
        scene.ordered("b", OrderKind::Promote, 1, 10, OrderOutcome::InFlight);
        spoil(&mut scene);
        assert_eq!(scene.claim(), Some((Kind::Failover, "m-c".into())), "{case}: {:?}", scene.steps());
        let Some(Step::Claim(claim)) = scene.steps().into_iter().find(|step| matches!(step, Step::Claim(_))) else {
            panic!()
        };
        assert_eq!(
            (claim.epoch(), claim.record.as_deref(), claim.from),
            (Epoch(6), Some("m-5"), Some(name("a"))),
            "{case}"
        );
    }
}

#[test]
fn a_candidate_that_refused_once_is_told_again() {
    let mut scene = Scene::well();
    scene.kill_primary(700);
    scene.claimed(Kind::Failover, "b");
    scene.reprobed(failed_probe());
    scene.ordered("b", OrderKind::Promote, 1, 300, OrderOutcome::Failed("busy".into()));
    assert!(order_to(&scene, "b", OrderKind::Promote).is_some());
}

#[test]
fn a_planned_change_waits_for_everything() {
    let mut scene = Scene::well();
    scene.0.requests.push(Request { name: "drain".into(), kind: Kind::Switchover, target: Some(name("c")), age: 10 });
    assert_eq!(scene.claim(), Some((Kind::Switchover, "m-c".into())));
    scene.0.requests.clear();
    scene.claimed(Kind::Switchover, "c");
    let Some(Order::Fence(fence)) = order_to(&scene, "a", OrderKind::Fence) else { panic!("no fence") };
    assert!(fence.planned);
    scene.ordered("a", OrderKind::Fence, 1, 10, OrderOutcome::InFlight);
    assert_eq!(scene.steps(), vec![]);
    // Fenced: it looks like one that was restarted, and is not taken for dead.
    scene.server("a", |server| {
        server.read_only = Some(true);
        server.serving = None;
        server.fenced = Some(Fence::Epoch { epoch: Epoch(5), age: 10 });
    });
    scene.all_say(&fails(Stage::Commit, ProbeError::ReadOnly, 1_000));
    scene.ordered("a", OrderKind::Fence, 1, 10, OrderOutcome::Done(Some(gtids("a", 1003))));
    assert_eq!(scene.steps(), vec![], "the target lacks three");
    scene.server("c", |server| server.replication.as_mut().expect("replicates").value.received = gtids("a", 1003));
    assert!(order_to(&scene, "c", OrderKind::Promote).is_some());
}

#[test]
fn a_planned_change_that_takes_too_long_goes_back() {
    let mut scene = Scene::well();
    scene.claimed(Kind::Switchover, "c");
    scene.ordered("a", OrderKind::Fence, 1, 10, OrderOutcome::Done(Some(gtids("a", 1003))));
    scene.0.memory.transition_known = 11_000;
    assert_eq!(scene.claim(), Some((Kind::Confirm, "m-a".into())));
    assert!(says(&scene, Reason::SwitchoverAborted));
}

#[test]
fn a_planned_change_whose_old_primary_dies_waits_no_more() {
    let mut scene = Scene::well();
    scene.claimed(Kind::Switchover, "c");
    scene.ordered("a", OrderKind::Fence, 1, 10, OrderOutcome::InFlight);
    scene.kill_primary(300);
    assert_eq!(scene.steps(), vec![Step::Reprobe { replica: name("a"), epoch: Epoch(5) }]);
    scene.reprobed(failed_probe());
    assert!(order_to(&scene, "c", OrderKind::Promote).is_some());
}

#[test]
fn a_planned_change_whose_target_dies_goes_back() {
    let mut scene = Scene::well();
    scene.claimed(Kind::Switchover, "c");
    scene.ordered("a", OrderKind::Fence, 1, 10, OrderOutcome::Done(Some(gtids("a", 1000))));
    scene.server("c", |server| server.phase = Phase::Exited { code: None, signal: Some(9), age: 10 });
    assert_eq!(scene.claim(), Some((Kind::Confirm, "m-a".into())));
}

#[test]
fn the_last_copy_is_started_again_and_never_replaced() {
    let mut scene = Scene::well();
    scene.kill_primary(7_000);
    scene.silent("b", 9_000);
    scene.silent("c", 9_000);
    scene.says(&consumer(), "a", Some(refused(6_000)), None);
    scene.says(&operator(), "a", Some(refused(6_000)), None);
    let restarts = vec![Step::DeletePod { replica: name("a"), uid: "pod-a".into(), restart: true }];
    assert_eq!(scene.steps(), restarts);
    scene.server("a", |server| server.phase = Phase::Exited { code: None, signal: Some(9), age: 1_000 });
    scene.says(&consumer(), "a", Some(refused(900)), None);
    scene.says(&operator(), "a", Some(refused(900)), None);
    assert_eq!(scene.steps(), vec![], "others get their time to come forward");
}

#[test]
fn after_a_failover_the_old_primary_is_condemned_whatever_became_of_it() {
    let mut scene = Scene::well();
    scene.0.status.primary = Some(name("b"));
    scene.0.status.primary_address = Some("10.0.0.2:3306".into());
    scene.0.status.epoch = Epoch(5);
    scene.0.status.last_change = Some(LastChange {
        kind: Kind::Failover,
        epoch: Epoch(5),
        from: Some(name("a")),
        record: Some("m-5".into()),
        cause: Some("Unreachable".into()),
        at: Some(scene.0.now),
    });
    scene.0.memory.office_known = 100;
    scene.server("b", |server| {
        server.serving = Some(Epoch(5));
        server.replication = None;
    });
    let condemned = |scene: &Scene| {
        scene.steps().into_iter().any(|step| matches!(step, Step::Condemn { replica, .. } if replica == name("a")))
    };
    assert!(condemned(&scene));
    let Some(Order::Follow(follow)) = order_to(&scene, "c", OrderKind::Follow) else { panic!("c follows") };
    assert_eq!((follow.source, follow.address.as_str()), (name("b"), "10.0.0.2:3306"));
    scene.0.status.last_change.as_mut().expect("set above").kind = Kind::Switchover;
    assert!(!condemned(&scene), "after a planned change it becomes a standby");
    assert!(order_to(&scene, "a", OrderKind::Follow).is_some());
}
