//! The types of the API, as they are written, are read under the same names; and whatever is written otherwise is nothing that is known.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition as ApiCondition, MicroTime, Time};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use understudy_api::v1alpha1 as api;
use understudy_api::v1alpha1::VerdictState;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn dynamic(object: &impl serde::Serialize) -> DynamicObject {
    serde_json::from_value(serde_json::to_value(object).unwrap()).unwrap()
}

fn typed<K: serde::de::DeserializeOwned>(json: Value) -> K {
    serde_json::from_value(json).unwrap()
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn a_shard_is_read_as_the_operator_writes_it() {
    let mut shard: understudy_api::Shard = typed(json!({
        "metadata": { "name": "m", "generation": 4, "labels": { "understudy.dev/datastore": "metrics" } },
        "spec": {
            "mysql": { "image": "mysql:9.7" }, "storage": { "size": "1Gi" }, "paused": true,
            "failover": { "mode": "Manual", "cooldownSeconds": 60 },
        },
    }));
    shard.status = Some(api::ShardStatus {
        observed_generation: Some(3),
        primary: text("m-a"),
        epoch: 5,
        transition: Some(api::Transition {
            kind: api::TransitionKind::Switchover,
            epoch: 5,
            from: text("m-a"),
            to: "m-b".into(),
            record: text("m-5"),
            since: Some(MicroTime(at(20))),
            ..api::Transition::default()
        }),
        verdict: Some(api::Verdict {
            state: VerdictState::Gone,
            cause: text("Unreachable"),
            since: Some(Time(at(10))),
            message: text("nobody hears it"),
        }),
        doing: text("something"),
        withheld: vec![api::Withheld {
            reason: "LastCopyKept".into(),
            about: text("m-b"),
            message: "it may be the last".into(),
            since: Some(Time(at(11))),
            next_check: text("later"),
        }],
        last_suspicion: Some(api::LastSuspicion {
            replica: "m-a".into(),
            cleared_at: Some(Time(at(12))),
            state: "Suspect".into(),
            cause: "Stopped".into(),
            lasted_ms: 900,
            message: text("it was stopped"),
            count: 3,
        }),
        ready: text("2/3"),
        promotable: 1,
        lag: text("0s"),
        last_failover: Some(api::LastFailover {
            name: "m-4".into(),
            kind: api::TransitionKind::Failover,
            time: Some(Time(at(5))),
            gap: text("4.1s"),
            reason: text("Stopped"),
            ..api::LastFailover::default()
        }),
        replicas: vec![api::ReplicaSummary {
            name: "m-b".into(),
            role: api::Role::Condemned,
            node: text("n1"),
            delay_seconds: Some(1.5),
            ready: true,
            promotable: true,
            phase: text("Running"),
            message: text("late"),
            ..api::ReplicaSummary::default()
        }],
        conditions: vec![ApiCondition {
            type_: "Ready".into(),
            status: "True".into(),
            reason: "Ready".into(),
            message: "3/3".into(),
            observed_generation: None,
            last_transition_time: Time(at(7)),
        }],
        ..api::ShardStatus::default()
    });
    let read = Shard::read(&dynamic(&shard));
    let expected = Shard {
        name: "m".into(),
        datastore: text("metrics"),
        has_status: true,
        is_current: Some(false),
        paused: true,
        mode: text("Manual"),
        cooldown: Some(60),
        primary: text("m-a"),
        epoch: Some(5),
        transition: Some(Transition {
            kind: text("Switchover"),
            epoch: Some(5),
            from: text("m-a"),
            to: text("m-b"),
            record: text("m-5"),
            since: Some(at(20)),
        }),
        verdict: Some(Verdict {
            state: "Gone".into(),
            cause: text("Unreachable"),
            since: Some(at(10)),
            message: text("nobody hears it"),
        }),
        doing: text("something"),
        withheld: vec![Withheld {
            reason: "LastCopyKept".into(),
            about: text("m-b"),
            message: text("it may be the last"),
            since: Some(at(11)),
            next_check: text("later"),
        }],
        last_suspicion: Some(LastSuspicion {
            replica: text("m-a"),
            cleared_at: Some(at(12)),
            state: text("Suspect"),
            cause: text("Stopped"),
            lasted_ms: Some(900),
            message: text("it was stopped"),
            count: Some(3),
        }),
        ready: text("2/3"),
        promotable: Some(1),
        lag: text("0s"),
        last_failover: Some(LastFailover {
            name: text("m-4"),
            kind: text("Failover"),
            time: Some(at(5)),
            gap: text("4.1s"),
            reason: text("Stopped"),
        }),
        replicas: vec![ReplicaSummary {
            name: "m-b".into(),
            role: text("condemned"),
            phase: text("Running"),
            node: text("n1"),
            delay_seconds: Some(1.5),
            ready: true,
            promotable: true,
            message: text("late"),
        }],
        observers: Vec::new(),
        availability: None,
        conditions: vec![Condition {
            kind: "Ready".into(),
            status: text("True"),
            reason: text("Ready"),
            message: text("3/3"),
            since: Some(at(7)),
        }],
    };
    assert_eq!(read, expected);
    assert!(read.replicas[0].is_condemned());
    assert_eq!(holds(&read.conditions, understudy_api::conditions::READY), Some(true));
}

#[test]
fn a_record_is_read_as_the_operator_writes_it() {
    let mut failover: understudy_api::Failover =
        typed(json!({ "metadata": { "name": "m-5" }, "spec": { "shard": "m", "kind": "Failover", "reason": "why" } }));
    let offset = |next_offset| api::OffsetNote { consumer: "c".into(), topic: "t".into(), partition: 1, next_offset };
    failover.status = Some(api::FailoverStatus {
        phase: api::FailoverPhase::Closed,
        result: Some(api::FailoverResult::Succeeded),
        cause: text("Stopped"),
        message: text("words"),
        from: text("m-a"),
        to: text("m-b"),
        epoch: Some(5),
        started_at: Some(MicroTime(at(1))),
        finished_at: Some(MicroTime(at(9))),
        timeline: vec![api::TimelineEntry {
            step: "Claimed".into(),
            at: MicroTime(at(2)),
            elapsed_ms: 1_000,
            detail: text("epoch 5"),
        }],
        votes: typed(json!([{ "observer": "peer m-b", "says": "no", "ageMs": 7 }])),
        evidence: typed(json!([
            { "observer": "manager m-a", "subject": "m-a", "fact": "hangs", "ageMs": 8, "kind": "Fsync", "lastedMs": 6_200 },
        ])),
        candidates: typed(json!([{ "replica": "m-b", "executedGtid": "u:1-9", "zone": "z", "rejected": "late" }])),
        offsets_before: vec![offset(9)],
        offsets_after: vec![offset(4)],
        write_gap_seconds: Some(4.1),
        replayed_records: Some(5),
        rebuild: Some(api::RebuildNote {
            replica: text("m-d"),
            finished_at: Some(MicroTime(at(8))),
            seconds: Some(7.0),
            ..api::RebuildNote::default()
        }),
        ..api::FailoverStatus::default()
    });
    let read = Failover::read(&dynamic(&failover));
    assert!(read.is_closed());
    assert_eq!((read.shard, read.kind, read.asked_because), (text("m"), text("Failover"), text("why")));
    assert_eq!((read.result, read.cause, read.message), (text("Succeeded"), text("Stopped"), text("words")));
    assert_eq!((read.from, read.to, read.epoch), (text("m-a"), text("m-b"), Some(5)));
    assert_eq!((read.started, read.finished), (Some(at(1)), Some(at(9))));
    let step = Step { step: "Claimed".into(), at: Some(at(2)), elapsed_ms: Some(1_000), detail: text("epoch 5") };
    assert_eq!(read.timeline, [step]);
    assert_eq!(read.votes, [Word { observer: "peer m-b".into(), says: text("no"), age_ms: Some(7) }]);
    assert_eq!(read.evidence[0].fact, text("hangs"));
    assert_eq!((&read.evidence[0].subject, read.evidence[0].age_ms), (&text("m-a"), Some(8)));
    assert_eq!((&read.evidence[0].kind, read.evidence[0].lasted_ms), (&text("Fsync"), Some(6_200)));
    let candidate = Candidate {
        replica: "m-b".into(),
        zone: text("z"),
        rejected: text("late"),
        executed: text("u:1-9"),
        ..Candidate::default()
    };
    assert_eq!(read.candidates, [candidate]);
    let offset = |next| Offset { of: ("c".into(), "t".into(), Some(1)), next: Some(next) };
    assert_eq!((read.offsets_before, read.offsets_after), (vec![offset(9)], vec![offset(4)]));
    assert_eq!((read.write_gap, read.replayed), (Some(4.1), Some(5)));
    let rebuild = read.rebuild.unwrap();
    assert_eq!((rebuild.replica, rebuild.finished, rebuild.seconds), (text("m-d"), Some(at(8)), Some(7.0)));
}

#[test]
fn a_datastore_a_consumer_and_a_replica_are_read_as_the_operator_writes_them() {
    let mut consumer: understudy_api::Consumer =
        typed(json!({ "metadata": { "name": "c" }, "spec": { "datastore": "metrics", "paused": true } }));
    consumer.status = Some(api::ConsumerStatus {
        ready: text("2/2"),
        running: text("8/8"),
        lag: text("1s"),
        lag_records: Some(17),
        dead_letters: Some(3),
        message: text("words"),
        ..api::ConsumerStatus::default()
    });
    let read = Consumer::read(&dynamic(&consumer));
    assert_eq!(
        (read.datastore, read.paused, read.ready, read.running),
        (text("metrics"), true, text("2/2"), text("8/8"))
    );
    assert_eq!((read.lag, read.lag_records, read.dead_letters), (text("1s"), Some(17), Some(3)));
    assert_eq!(read.message, text("words"));

    let mut replica: understudy_api::Replica = typed(json!({
        "metadata": { "name": "m-b", "creationTimestamp": "1970-01-01T00:00:09Z" },
        "spec": { "shard": "m", "serverId": 2, "condemned": { "reason": "Stuck" } },
    }));
    replica.status = Some(api::ReplicaStatus {
        role: api::Role::Spare,
        phase: api::ReplicaPhase::Building,
        node: text("n1"),
        delay: text("0s"),
        rebuild: Some(api::RebuildProgress {
            stage: "Clone".into(),
            summary: text("43%"),
            ..api::RebuildProgress::default()
        }),
        ..api::ReplicaStatus::default()
    });
    let read = Replica::read(&dynamic(&replica));
    assert_eq!((read.shard, read.condemned, read.role, read.phase), (text("m"), true, text("spare"), text("Building")));
    assert_eq!((read.node, read.delay, read.build, read.made), (text("n1"), text("0s"), text("43%"), Some(at(9))));

    let status = api::DatastoreStatus {
        shards_ready: text("1/2"),
        worst: Some(api::WorstVerdict { state: VerdictState::Slow, shard: text("m") }),
        delay: text("2s"),
        gateway: Some(api::WorkloadStatus { ready: "1/2".into() }),
        query: Some(api::WorkloadStatus { ready: "2/2".into() }),
        consumer: Some(api::WorkloadStatus { ready: "4/4".into() }),
        ..api::DatastoreStatus::default()
    };
    let read = Datastore::read(&dynamic(&json!({ "metadata": { "name": "metrics" }, "spec": {}, "status": status })));
    assert_eq!((read.shards_ready, read.worst, read.worst_shard), (text("1/2"), text("Slow"), text("m")));
    assert_eq!((read.delay, read.paused), (text("2s"), false));
    let pods = Workload { gateway: text("1/2"), query: text("2/2"), consumer: text("4/4") };
    assert_eq!(read.workloads, pods);
}

#[test]
fn fields_that_newer_operators_write_are_read_and_may_be_absent() {
    let object = dynamic(&json!({
        "metadata": { "name": "m" },
        "status": {
            "observers": [{ "kind": "Peer", "name": "m-b", "domain": "node n2", "stance": "Accuses", "says": "no", "since": "1970-01-01T00:00:03Z", "counts": false, "notCounted": "late" }, {}],
            "availability": {
                "windowDays": 30, "unavailableSeconds": 12.5, "failovers": 2, "switchovers": 1, "drills": 4, "mtbfSeconds": 86_400, "mttrSeconds": 6.25,
            },
        },
    }));
    let read = Shard::read(&object);
    let peer = Observer {
        kind: text("Peer"),
        name: text("m-b"),
        domain: text("node n2"),
        stance: text("Accuses"),
        says: text("no"),
        since: Some(at(3)),
        counts: Some(false),
        not_counted: text("late"),
    };
    assert_eq!(read.observers, [peer, Observer::default()]);
    let expected = Availability {
        window_days: Some(30.0),
        unavailable_seconds: Some(12.5),
        failovers: Some(2),
        switchovers: Some(1),
        drills: Some(4),
        mtbf_seconds: Some(86_400.0),
        mttr_seconds: Some(6.25),
    };
    assert_eq!(read.availability, Some(expected));
}

#[test]
fn whatever_an_object_says_it_is_read() {
    let odd = [json!(null), json!(7), json!("text"), json!([1, null, {}]), json!({ "a": { "b": [] } })];
    for field in [
        "verdict",
        "replicas",
        "transition",
        "lastFailover",
        "conditions",
        "observers",
        "withheld",
        "lastSuspicion",
        "evidence",
        "availability",
        "epoch",
        "timeline",
        "rebuild",
    ] {
        for value in &odd {
            let object = dynamic(&json!({ "metadata": { "name": "m" }, "spec": value, "status": { field: value } }));
            assert_eq!(Shard::read(&object).name, "m", "{field}: {value}");
            assert_eq!(Failover::read(&object).name, "m", "{field}: {value}");
            assert_eq!(Datastore::read(&object).name, "m", "{field}: {value}");
            assert_eq!(Drill::read(&object).name, "m", "{field}: {value}");
            assert_eq!(Event::read(&object).count, 1, "{field}: {value}");
        }
    }
}

#[test]
fn an_event_was_said_when_it_was_said_last() {
    let event = dynamic(&json!({
        "metadata": { "name": "e" }, "reason": "FailoverWithheld", "message": "words", "type": "Warning",
        "eventTime": "1970-01-01T00:00:01.000000Z", "series": { "count": 4, "lastObservedTime": "1970-01-01T00:00:09.000000Z" },
    }));
    let read = Event::read(&event);
    assert_eq!((read.at, read.count, read.warning), (Some(at(9)), 4, true));
    assert_eq!((read.reason.as_str(), read.message.as_str()), ("FailoverWithheld", "words"));
}
