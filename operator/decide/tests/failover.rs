//! A primary in office: what ends its office, what does not, and what is said about it.

mod support;

use support::*;
use understudy_decide::failover::record::{Milestone, Phase as RecordPhase};
use understudy_decide::failover::snapshot::*;
use understudy_decide::{Fact, Reason, Step};
use understudy_wire::Epoch;
use understudy_wire::evidence::{Aged, Limit, Phase, ProbeError, Stage};

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
                    replica.condemned = Some(Condemned { reason: "Wanted".into(), ..Condemned::default() });
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
fn a_restarted_primary_that_has_everything_is_confirmed_in_every_mode_and_replaced_only_where_the_mode_says_so() {
    let restarted = |mode, executed| {
        let mut scene = Scene::well();
        scene.0.policy.mode = mode;
        scene.server("a", |server| {
            server.serving = None;
            server.read_only = Some(true);
            server.executed = Some(Aged { age: 50, value: gtids("a", executed) });
        });
        scene.all_say(&fails(Stage::Commit, ProbeError::ReadOnly, 1_000));
        scene.claim()
    };
    let whole = 1_000;
    for (mode, replaced) in
        [(Mode::Automatic, Some((Kind::Failover, "m-b".to_owned()))), (Mode::Manual, None), (Mode::Paused, None)]
    {
        assert_eq!(restarted(mode, whole), Some((Kind::Confirm, "m-a".to_owned())), "{mode}");
        assert_eq!(restarted(mode, whole - 100), replaced, "{mode}, with less than a standby has");
    }
}

#[test]
fn where_a_person_decides_it_is_said_what_they_have_to_do() {
    type Case = (&'static str, Mode, fn(&mut Scene), &'static str, Option<&'static str>);
    let dies: fn(&mut Scene) = |s| s.kill_primary(500);
    let leaves: fn(&mut Scene) = |s| {
        s.replica("a", |replica| {
            if let Fact::Present(pod) = &mut replica.pod {
                pod.terminating = true;
            }
        });
    };
    let failover = Some("waiting for a person to create a Failover with spec.shard m and spec.kind Failover");
    let cases: &[Case] = &[
        ("dead", Mode::Manual, dies, r#""spec":{"shard":"m","kind":"Failover"}}' | kubectl create -f -"#, failover),
        ("leaving", Mode::Manual, leaves, r#""spec":{"shard":"m","kind":"Switchover"}}' | kubectl create -f -"#, None),
        (
            "dead, and nobody may",
            Mode::Paused,
            dies,
            r#"kubectl patch shard m --type merge -p '{"spec":{"failover":{"mode":"Automatic"}}}'"#,
            Some("nothing: failover.mode is Paused"),
        ),
    ];
    for (case, mode, spoil, says, doing) in cases {
        let mut scene = Scene::well();
        scene.0.policy.mode = *mode;
        spoil(&mut scene);
        let plan = scene.plan();
        let note = plan.notes.iter().find(|note| note.reason == Reason::FailoverLeftToPerson).expect("a note");
        assert!(note.message.contains(says), "{case}: {}", note.message);
        assert_eq!(plan.view.doing.as_deref(), *doing, "{case}");
    }
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
            "manual, and the primary's pod is leaving",
            |s| {
                s.0.policy.mode = Mode::Manual;
                s.replica("a", |replica| {
                    if let Fact::Present(pod) = &mut replica.pod {
                        pod.terminating = true;
                    }
                });
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
        assert!(scene.gives(*expected), "{case}: {:?}", scene.reasons());
        assert_eq!(scene.claim(), None, "{case}");
    }
}

#[test]
fn that_a_shard_is_not_paused_any_more_is_said_until_the_status_knows() {
    let mut scene = Scene::well();
    for (was, is, resumed) in [(false, false, false), (false, true, false), (true, true, false), (true, false, true)] {
        scene.0.status.paused = was;
        scene.0.policy.paused = is;
        assert_eq!((scene.gives(Reason::ShardPaused), scene.gives(Reason::ShardResumed)), (is, resumed), "{was} {is}");
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
    assert_eq!(
        steps,
        [
            (Milestone::FirstSign, 450),
            (Milestone::Suspected, 0),
            (Milestone::Quorum, 420),
            (Milestone::Decided, 0),
            (Milestone::Claimed, 0),
        ]
    );
    let grounds = record.grounds.as_ref().expect("what was known");
    assert_eq!((grounds.votes.len(), grounds.ranking.fit.len(), grounds.offsets_before.len()), (4, 2, 1));
}

#[test]
fn the_record_tells_how_old_each_word_was_and_where_each_replica_is() {
    let mut scene = Scene::well();
    scene.kill_primary(400);
    scene.report(&manager("a")).age = 340;
    scene.server("a", |server| server.phase = Phase::Exited { code: None, signal: Some(9), age: 60 });
    scene.silent("c", 5_000);
    scene.says(
        &consumer(),
        "a",
        Some(fails(Stage::Auth, ProbeError::TooManyConnections { whose: Limit::Server }, 300)),
        None,
    );
    scene.report(&consumer()).age = 70;
    let decision = scene.plan();
    let grounds = decision.records[0].grounds.as_ref().expect("what was known");
    assert_eq!(grounds.own_age, 340);
    let abstained: Vec<_> = grounds.abstained.iter().map(|ballot| (ballot.observer.as_str(), ballot.age)).collect();
    assert_eq!(abstained, [("peer m-c", 5_000), ("consumer store-m-0", 70)]);
    let zones: Vec<_> = grounds.standings.iter().map(|(name, stood)| (name.as_str(), stood.zone.as_deref())).collect();
    assert_eq!(zones, [("m-a", Some("zone-1")), ("m-b", Some("zone-2")), ("m-c", Some("zone-3"))]);
    assert_eq!(grounds.ranking.unfit.len(), 1, "c, and the record says where it is");
}
