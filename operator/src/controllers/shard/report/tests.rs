//! What a shard's objects say after a pass, and that a pass in which nothing happened changes none of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::core::DeserializeGuard;
use serde_json::{Value, json};
use understudy_api::v1alpha1::{LastFailover, ReplicaPhase};
use understudy_api::{Consumer, Failover, Shard};
use understudy_decide::failover::snapshot::{Fleet, Memory};
use understudy_decide::plan;
use understudy_wire::Report;

use super::super::observe::{Beside, snapshot};
use super::*;
use crate::cache::Held;
use crate::evidence::Heard;

const MIB: u64 = 1 << 20;

fn shard() -> Shard {
    serde_json::from_value(json!({
        "apiVersion": "understudy.dev/v1alpha1", "kind": "Shard",
        "metadata": { "name": "m", "namespace": "prod", "uid": "u", "generation": 1 },
        "spec": { "replicas": 2, "mysql": { "image": "mysql:9" }, "storage": { "size": "2Gi" } },
        "status": { "primary": "m-a", "primaryAddress": "10.0.0.1:3306", "epoch": 4, "nextServerId": 4 },
    }))
    .unwrap()
}

fn replica(name: &str, spec: Value, status: Value) -> Replica {
    let mut object = json!({
        "apiVersion": "understudy.dev/v1alpha1", "kind": "Replica",
        "metadata": { "name": name, "namespace": "prod", "uid": name, "generation": 1 },
        "spec": { "shard": "m", "serverId": 1 }, "status": status,
    });
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    serde_json::from_value(object).unwrap()
}

fn objects(replicas: Vec<Replica>) -> Objects {
    Objects {
        shard: shard(),
        replicas,
        pods: HashMap::new(),
        claims: HashMap::new(),
        consumer_pods: Vec::new(),
        consumers: Vec::new(),
        feeds: BTreeMap::new(),
        failovers: Vec::new(),
        nodes: Vec::new(),
        obstacles: Vec::new(),
        fingerprint: String::new(),
    }
}

/// What a replica's manager says: it runs, has executed so many transactions, and so much of its 2 GiB is free.
fn heard(name: &str, executed: u64, free: u64, now: Instant) -> (String, Heard) {
    let report: Report = serde_json::from_value(json!({
        "observer": { "kind": "manager", "replica": name }, "seq": 1, "ownGap": 260, "interval": 250,
        "evidence": [{ "subject": name, "server": {
            "phase": { "is": "running" }, "epoch": 4, "readOnly": name != "m-a",
            "executed": { "age": 50, "value": format!("01010101-0101-0101-0101-010101010101:1-{executed}") },
            "volume": { "total": 2048 * MIB, "free": free },
        }}],
    }))
    .unwrap();
    (name.to_owned(), Heard { report: Arc::new(report), at: now })
}

fn pass(reporter: &mut Reporter, objects: &Objects, heard: Vec<(String, Heard)>, now: Instant, wall: Timestamp) {
    let memory = Memory { awake: 3_600_000, office_known: 3_600_000, ..Memory::default() };
    let beside =
        Beside { heard, memory, links: BTreeMap::new(), log: BTreeMap::new(), fleet: Fleet::default(), own_node: None };
    let snapshot = snapshot(objects, beside, now, wall);
    reporter.prepare(&snapshot, &plan(&snapshot), objects, None);
}

/// What was to be written is there.
fn write(reporter: &Reporter, objects: &mut Objects) {
    objects.shard.status.clone_from(&reporter.next);
    for replica in &mut objects.replicas {
        replica.status = reporter.replicas.get(&replica.name_any()).cloned();
    }
}

#[test]
fn a_pass_in_which_only_numbers_moved_writes_nothing() {
    let (now, wall) = (Instant::now() + Duration::from_secs(600), Timestamp::from_second(1_800_000_000).unwrap());
    let cast = ["m-a", "m-b"].map(|name| replica(name, json!({}), json!({})));
    let gone = json!({ "volume": { "successorReadyAt": "2027-01-15T07:00:00Z" } });
    let condemned = replica("m-c", json!({ "condemned": { "reason": "Exited" } }), gone);
    let mut objects = objects(cast.into_iter().chain([condemned]).collect());
    let mut reporter = Reporter::default();
    pass(&mut reporter, &objects, vec![heard("m-a", 10, 200 * MIB, now), heard("m-b", 9, 900 * MIB, now)], now, wall);
    write(&reporter, &mut objects);
    assert!(objects.replicas[0].status.as_ref().unwrap().volume.as_ref().unwrap().low, "a tenth would be 204 MiB");

    let later = now + Duration::from_secs(60);
    let heard = vec![heard("m-a", 70, 230 * MIB, later), heard("m-b", 70, 890 * MIB, later)];
    pass(&mut reporter, &objects, heard, later, wall + SignedDuration::from_secs(60));
    assert_eq!(reporter.next.as_ref().map(gist), objects.shard.status.as_ref().map(gist));
    for replica in &objects.replicas {
        let name = replica.name_any();
        let next = reporter.replicas.get(&name).map(replica::gist);
        assert_eq!(next, replica.status.as_ref().map(replica::gist), "{name}");
    }
}

#[test]
fn a_primary_that_was_slow_a_moment_ago_is_shown_as_slow_and_any_other_trouble_at_once() {
    use understudy_decide::{Cause, Verdict};

    let objects = objects(Vec::new());
    let beside = Beside {
        heard: Vec::new(),
        memory: Memory::default(),
        links: BTreeMap::new(),
        log: BTreeMap::new(),
        fleet: Fleet::default(),
        own_node: None,
    };
    let mut s = snapshot(&objects, beside, Instant::now(), Timestamp::from_second(1_800_000_000).unwrap());
    let mut d = plan(&s);
    for (verdict, was_slow, expected) in [
        (Verdict::Healthy, false, Verdict::Healthy),
        (Verdict::Healthy, true, Verdict::Slow),
        (Verdict::Slow, false, Verdict::Slow),
        (Verdict::Suspect(Cause::Unexplained), true, Verdict::Suspect(Cause::Unexplained)),
    ] {
        (d.assessment.verdict, s.memory.past.was_slow) = (verdict, was_slow);
        assert_eq!(shown(&s, &d), expected);
    }
}

#[test]
fn a_condemned_replica_says_so_and_until_when_its_volume_is_kept_by_the_spec_of_now() {
    let (now, wall) = (Instant::now(), Timestamp::from_second(1_800_000_000).unwrap());
    for (case, status, expected, until) in [
        ("its successor is not there", json!({}), ReplicaPhase::Condemned, None),
        (
            "its successor has caught up",
            json!({ "volume": { "successorReadyAt": "2027-01-15T07:00:00Z", "quarantinedUntil": "2027-01-16T07:00:00Z" } }),
            ReplicaPhase::Quarantined,
            Some("2027-01-15T08:00:00Z"),
        ),
    ] {
        let mut objects = objects(vec![replica("m-c", json!({ "condemned": { "reason": "Exited" } }), status)]);
        objects.shard.spec.failover.quarantine.ttl_seconds = 3_600;
        let mut reporter = Reporter::default();
        pass(&mut reporter, &objects, vec![], now, wall);
        let status = &reporter.replicas["m-c"];
        assert_eq!(status.phase, expected, "{case}");
        let kept = status.volume.as_ref().and_then(|volume| Some(volume.quarantined_until.as_ref()?.0.to_string()));
        assert_eq!(kept.as_deref(), until, "{case}");
        let summary = &reporter.next.as_ref().unwrap().replicas[0];
        assert_eq!(summary.phase.as_deref(), Some(<&str>::from(expected)), "{case}");
    }
}

#[test]
fn what_is_said_of_a_primary_that_is_not_well_is_said_anew_every_half_minute() {
    let (now, wall) = (Instant::now() + Duration::from_secs(600), Timestamp::from_second(1_800_000_000).unwrap());
    let mut objects = objects(vec![replica("m-a", json!({}), json!({}))]);
    let mut reporter = Reporter::default();
    let mut said = |objects: &mut Objects, seconds: u32| {
        let later = now + Duration::from_secs(seconds.into());
        let report: Report = serde_json::from_value(json!({
            "observer": { "kind": "manager", "replica": "m-a" }, "seq": 1, "ownGap": 260, "interval": 250,
            "evidence": [{ "subject": "m-a", "server": { "phase": { "is": "exited", "code": 1, "age": 100 }, "epoch": 4 } }],
        }))
        .unwrap();
        let heard = vec![("m-a".to_owned(), Heard { report: Arc::new(report), at: later })];
        pass(&mut reporter, objects, heard, later, wall + SignedDuration::from_secs(seconds.into()));
        write(&reporter, objects);
        let verdict = objects.shard.status.as_ref().unwrap().verdict.clone().unwrap();
        assert_eq!(verdict.cause.as_deref(), Some("ProcessExited"));
        verdict.message.unwrap()
    };
    let first = said(&mut objects, 0);
    assert!(first.contains("code 1"), "{first}");
    objects.shard.status.as_mut().unwrap().verdict.as_mut().unwrap().message = Some("of before".to_owned());
    assert_eq!(said(&mut objects, 29), "of before");
    assert_eq!(said(&mut objects, 30), first);
    objects.shard.status.as_mut().unwrap().verdict.as_mut().unwrap().message = Some("of before".to_owned());
    assert_eq!(said(&mut objects, 59), "of before", "half a minute from then on");
    assert_eq!(said(&mut objects, 60), first);
}

#[test]
fn the_verdict_is_also_on_the_replica_in_office_and_on_no_other() {
    let now = Instant::now();
    let objects = objects(["m-a", "m-b"].map(|name| replica(name, json!({}), json!({}))).into());
    let mut reporter = Reporter::default();
    pass(&mut reporter, &objects, vec![], now, Timestamp::UNIX_EPOCH);
    assert_eq!(reporter.replicas["m-a"].verdict, reporter.next.as_ref().unwrap().verdict);
    assert_eq!(reporter.replicas["m-b"].verdict, None);
}

fn consumer(ready: i32, partitions: &[Value]) -> Held<Consumer> {
    let consumer: Consumer = serde_json::from_value(json!({
        "apiVersion": "understudy.dev/v1alpha1", "kind": "Consumer",
        "metadata": { "name": "c", "namespace": "prod" },
        "spec": { "shards": ["m"], "kafka": { "bootstrapServers": "k:1", "topic": "t" } },
        "status": { "workloads": [{ "shard": "m", "ready": ready, "desired": 2 }], "partitions": partitions },
    }))
    .unwrap();
    Held::new(Arc::new(DeserializeGuard(Ok(consumer)))).unwrap()
}

fn partition(number: i32, state: &str, seconds: Option<f64>) -> Value {
    json!({ "partition": number, "shard": "m", "state": state, "lagSeconds": seconds })
}

#[test]
fn consumers_are_not_current_once_their_pods_are_gone_whatever_those_said_last() {
    for (case, ready, state, expected) in [
        ("a pod reads", 1, "Running", ("True", "Running")),
        ("the pods ended while all was well", 0, "Running", ("False", "NotRunning")),
        ("the pods are cut off and say so", 0, "Fenced", ("False", "Fenced")),
    ] {
        let mut objects = objects(vec![replica("m-a", json!({}), json!({}))]);
        objects.consumers.push(consumer(ready, &[partition(0, state, Some(0.0))]));
        let mut reporter = Reporter::default();
        pass(&mut reporter, &objects, vec![], Instant::now(), Timestamp::UNIX_EPOCH);
        let conditions = &reporter.next.as_ref().unwrap().conditions;
        let current = conditions.iter().find(|found| found.type_ == conditions::CONSUMERS_CURRENT).unwrap();
        assert_eq!((current.status.as_str(), current.reason.as_str()), expected, "{case}");
    }
}

#[test]
fn what_consumers_do_not_read_is_measured_and_so_is_the_delay_that_is_known() {
    let partitions =
        [partition(0, "Running", Some(0.0)), partition(1, "Paused", Some(7200.0)), partition(2, "Paused", None)];
    let mut objects = objects(vec![replica("m-a", json!({}), json!({}))]);
    objects.consumers.push(consumer(1, &partitions));
    let mut reporter = Reporter::default();
    pass(&mut reporter, &objects, vec![], Instant::now(), Timestamp::UNIX_EPOCH);
    let measures = reporter.measures();
    assert_eq!((measures.paused_partitions, measures.silent_partitions, measures.consumer_delay), (2, 0, Some(7200.0)));
}

/// A closed record of a failover with a write gap of 4 s, half an hour before `wall`.
fn closed(epoch: i64, wall: Timestamp) -> Held<Failover> {
    let at = |minutes: i64| (wall - SignedDuration::from_mins(minutes)).to_string();
    let failover: Failover = serde_json::from_value(json!({
        "apiVersion": "understudy.dev/v1alpha1", "kind": "Failover",
        "metadata": { "name": format!("m-{epoch}"), "namespace": "prod" },
        "spec": { "shard": "m", "kind": "Failover", "epoch": epoch },
        "status": {
            "phase": "Closed", "result": "Succeeded", "epoch": epoch, "from": "m-x", "to": "m-a", "writeGapSeconds": 4.0,
            "startedAt": at(30), "promotedAt": at(30), "finishedAt": at(29),
        },
    }))
    .unwrap();
    Held::new(Arc::new(DeserializeGuard(Ok(failover)))).unwrap()
}

#[test]
fn the_availability_is_that_of_the_records_and_stays_when_they_are_deleted() {
    let (now, wall) = (Instant::now() + Duration::from_secs(600), Timestamp::from_second(1_800_000_000).unwrap());
    let mut objects = objects(vec![replica("m-a", json!({}), json!({}))]);
    objects.failovers = vec![closed(3, wall), closed(4, wall)];
    let mut reporter = Reporter::default();
    let mut told = |objects: &mut Objects| {
        pass(&mut reporter, objects, vec![heard("m-a", 10, 900 * MIB, now)], now, wall);
        write(&reporter, objects);
        let status = objects.shard.status.clone().unwrap();
        let availability = status.availability.unwrap();
        let counted = status.availability_ledger.unwrap().counted_epoch;
        (availability.failovers, availability.unavailable_seconds, counted)
    };
    // Two records tell of the same four seconds.
    assert_eq!(told(&mut objects), (2, 4.0, 4));
    objects.failovers.clear();
    assert_eq!(told(&mut objects), (2, 4.0, 4));
}

#[test]
fn a_primary_that_was_dead_and_came_back_without_a_record_counts_once() {
    let (now, wall) = (Instant::now() + Duration::from_secs(600), Timestamp::from_second(1_800_000_000).unwrap());
    let dead = |seconds: i64| Verdict {
        state: VerdictState::Stuck,
        cause: Some("VolumeStalled".to_owned()),
        since: Some(Time(wall - SignedDuration::from_secs(seconds))),
        message: None,
    };
    let changed = |seconds: i64| {
        let time = Some(Time(wall - SignedDuration::from_secs(seconds)));
        Some(LastFailover { name: "m-4".to_owned(), epoch: 4, time, ..LastFailover::default() })
    };
    for (case, last, expected) in
        [("no change", None, 90.0), ("one of before", changed(3_000), 90.0), ("it was replaced", changed(1), 0.0)]
    {
        let mut objects = objects(vec![replica("m-a", json!({}), json!({}))]);
        let status = objects.shard.status.as_mut().unwrap();
        status.verdict = Some(dead(90));
        status.last_failover = last;
        let mut reporter = Reporter::default();
        for _ in 0..2 {
            pass(&mut reporter, &objects, vec![heard("m-a", 10, 900 * MIB, now)], now, wall);
            write(&reporter, &mut objects);
            let status = objects.shard.status.as_ref().unwrap();
            assert_ne!(status.verdict.as_ref().unwrap().state, VerdictState::Stuck, "{case}");
            assert_eq!(status.availability.as_ref().unwrap().unavailable_seconds, expected, "{case}");
        }
    }
}

#[test]
fn the_newest_word_on_the_primary_of_each_kind_of_observer_is_measured() {
    let now = Instant::now() + Duration::from_secs(600);
    let objects = objects(["m-a", "m-b", "m-c"].map(|name| replica(name, json!({}), json!({}))).into());
    let says = |name: &str, subject: &str, ago: u64| {
        let report: Report = serde_json::from_value(json!({
            "observer": { "kind": "manager", "replica": name }, "seq": 1, "ownGap": 260, "interval": 250,
            "evidence": [{ "subject": subject, "probe": {} }],
        }))
        .unwrap();
        (name.to_owned(), Heard { report: Arc::new(report), at: now - Duration::from_millis(ago) })
    };
    let mut reporter = Reporter::default();
    let said = vec![says("m-a", "m-a", 300), says("m-b", "m-a", 700), says("m-c", "m-b", 100)];
    pass(&mut reporter, &objects, said, now, Timestamp::UNIX_EPOCH);
    let measures = reporter.measures();
    let expected = BTreeMap::from([("manager", 0.3), ("peer", 0.7)]);
    assert_eq!(measures.evidence, expected, "what is said of others is not counted");
    assert_eq!((measures.near_misses, measures.refusals["NoCandidate"]), (0, 0));
}
