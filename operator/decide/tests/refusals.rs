//! What is not done is said: with a reason that tools match on, what was seen, and when it is looked at again or what ends it.

mod support;

use jiff::SignedDuration;
use support::*;
use understudy_decide::failover::snapshot::*;
use understudy_decide::{Fact, Reason};
use understudy_wire::evidence::{Aged, Millis, Phase, ProbeError, Stage, Volume};

fn deadlock(scene: &mut Scene) {
    scene.server("a", |server| server.lsn = Some(Aged { age: 9_500, value: 1 }));
    scene.all_say(&fails(Stage::Commit, ProbeError::Timeout, 9_000));
}

fn changed(scene: &mut Scene, seconds: i64) {
    scene.0.status.last_change = Some(LastChange {
        kind: Kind::Failover,
        epoch: EPOCH,
        from: None,
        record: Some("m-4".into()),
        cause: None,
        at: Some(scene.0.now - SignedDuration::from_secs(seconds)),
    });
}

fn silent_standbys(scene: &mut Scene, since: Millis) {
    scene.silent("b", since);
    scene.silent("c", since);
}

#[test]
fn each_refusal_says_what_was_seen_and_when_it_is_looked_at_again() {
    type Case = (&'static str, fn(&mut Scene), Reason, &'static [&'static str]);
    const AGAIN: &str = "It is looked at again with every report";
    let cases: &[Case] = &[
        (
            "the cooldown",
            |s| {
                deadlock(s);
                changed(s, 100);
            },
            Reason::Cooldown,
            &["looked at again at 2027-01-15T08:08:20Z", "no answer at commit", "kubectl create -f -"],
        ),
        (
            "a pause between failovers",
            |s| {
                s.kill_primary(300);
                changed(s, 10);
                s.0.status.in_a_row = 2;
                let to = Some(name("a"));
                let (kind, epoch) = (Kind::Failover, EPOCH);
                s.0.records.push(Record {
                    name: "m-4".into(),
                    kind,
                    epoch,
                    from: None,
                    to,
                    steps: vec![],
                    claimed: vec![],
                });
            },
            Reason::FailoverPaced,
            &["failed over at 2027-01-15T08:00:20Z", "ended by signal 9", "kubectl create -f -"],
        ),
        (
            "the breaker of the fleet",
            |s| {
                deadlock(s);
                s.0.fleet.suspect = 4;
            },
            Reason::FleetBreaker,
            &["4 of 8 shards", AGAIN, "no answer at commit", "kubectl create -f -"],
        ),
        (
            "the mode",
            |s| {
                s.kill_primary(300);
                s.0.policy.mode = Mode::Manual;
            },
            Reason::FailoverLeftToPerson,
            &["failover.mode is Manual", "ended by signal 9", "kubectl create -f -"],
        ),
        (
            "no candidate is heard",
            |s| {
                s.kill_primary(300);
                silent_standbys(s, 9_000);
                s.says(&consumer(), "a", Some(refused(300)), None);
            },
            Reason::NoCandidate,
            &["m-b: its manager is silent", AGAIN],
        ),
        (
            "Kafka no longer has it",
            |s| {
                s.kill_primary(300);
                s.far_behind();
                s.server("a", |server| server.offsets = Some(Aged { age: 50, value: vec![offset(900)] }));
                s.0.log.insert(("samples".into(), 0), 600);
            },
            Reason::RetentionViolated,
            &["it needs offset 500 of samples/0 and Kafka begins at 600", AGAIN],
        ),
        (
            "nobody to hand over to",
            |s| {
                silent_standbys(s, 9_000);
                s.replica("a", |replica| {
                    if let Fact::Present(pod) = &mut replica.pod {
                        pod.terminating = true;
                    }
                });
            },
            Reason::NoCandidate,
            &["m-c: its manager is silent", AGAIN],
        ),
        (
            "a volume that fills up beside others that do",
            |s| {
                for letter in ["a", "b", "c"] {
                    s.server(letter, |server| server.volume = Some(Volume { total: 1_000, free: 20 }));
                }
            },
            Reason::SwitchoverWithheld,
            &["less than a twentieth of its volume is free", "m-b: its volume has no room either", AGAIN],
        ),
        (
            "the budget of rebuilds",
            |s| {
                s.server("b", |server| server.phase = Phase::Exited { code: Some(1), signal: None, age: 2_000 });
                s.0.fleet.rebuilding = 2;
            },
            Reason::ReplacementWaits,
            &["mysqld exited with code 1", "2 are being rebuilt", "It goes on as soon as one of them is a standby"],
        ),
        (
            "the last copy",
            |s| {
                s.server("b", |server| server.phase = Phase::Unusable { reason: "half".into() });
                s.server("a", |server| server.serving = None);
                s.silent("c", 10_000);
            },
            Reason::LastCopyKept,
            &["half", AGAIN],
        ),
        (
            "most of the fleet is silent",
            |s| {
                s.silent("b", 61_000);
                s.0.fleet.silent = 20;
            },
            Reason::ObserverSuspect,
            &["20 of 24 managers are silent", AGAIN],
        ),
        (
            "one observer contradicts the others",
            |s| {
                s.says(&operator(), "a", Some(unreachable(30_000)), None);
                let (observer, dissents) = ("operator understudy-0".to_owned(), Dissents::For(30_000));
                s.0.memory.past.dissenters = vec![Dissenter { observer, dissents }];
            },
            Reason::ObserverSuspect,
            &["operator understudy-0 (for 30.0 s)", "once they see a commit themselves"],
        ),
        (
            "a commit after the claim",
            |s| {
                s.kill_primary(700);
                s.claimed(Kind::Failover, "b");
                s.reprobed(ReprobeOutcome::Committed);
            },
            Reason::NearMiss,
            &["m-a committed after epoch 5 was claimed"],
        ),
    ];
    for (case, spoil, reason, words) in cases {
        let mut scene = Scene::well();
        spoil(&mut scene);
        let notes = scene.plan().notes;
        let note = notes.iter().find(|note| note.reason == *reason);
        let note = note.unwrap_or_else(|| panic!("{case}: {notes:?}"));
        for word in *words {
            assert!(note.message.contains(word), "{case}: {}", note.message);
        }
        let begins = scene.claim().filter(|(kind, _)| *kind == Kind::Failover);
        assert_eq!(begins, None, "{case}");
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
                changed(s, 0);
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
