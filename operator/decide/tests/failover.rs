//! A primary in office: what ends its office, by which kind of change and for whom, and what does not.

mod support;

use support::*;
use understudy_decide::Fact;
use understudy_decide::failover::snapshot::*;
use understudy_wire::Epoch;
use understudy_wire::evidence::{Aged, Phase, ProbeError, Stage};

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
