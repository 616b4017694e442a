//! Objects as an API server answers with them, for tests.

use jiff::Timestamp;
use kube::api::DynamicObject;
use serde_json::{Value, json};

use crate::leader::Leader;
use crate::objects::Shard;

/// An operator that acts.
pub fn leading() -> Leader {
    Leader::Leading { lease: "understudy-system/understudy".into(), holder: "understudy-a".into() }
}

/// One that has said nothing for twelve minutes.
pub fn silent() -> Leader {
    Leader::Silent { lease: "understudy-system/understudy".into(), holder: "understudy-a".into(), for_seconds: 720 }
}

/// That many seconds after the moment at which all tests look.
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// From its JSON.
pub fn object(json: Value) -> DynamicObject {
    serde_json::from_value(json).unwrap()
}

/// The same as read.
pub fn shard(object: &DynamicObject) -> Shard {
    Shard::read(object)
}

/// The same with other fields.
pub fn with(mut object: DynamicObject, fields: &[(&str, Value)]) -> DynamicObject {
    for (pointer, value) in fields {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let parent = object.data.pointer_mut(parent).unwrap();
        parent[name] = value.clone();
    }
    object
}

/// The same under another name.
pub fn named(mut object: DynamicObject, name: &str) -> DynamicObject {
    object.metadata.name = Some(name.to_owned());
    object
}

/// The same as part of a Datastore.
pub fn of_datastore(mut object: DynamicObject, datastore: &str) -> DynamicObject {
    let labels = object.metadata.labels.get_or_insert_default();
    labels.insert(understudy_api::labels::DATASTORE.to_owned(), datastore.to_owned());
    object
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({ "type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": at(-40) })
}

fn summary(name: &str, role: &str, node: &str) -> Value {
    json!({
        "name": name, "role": role, "node": node, "phase": "Running", "ready": true, "promotable": role == "standby",
        "delaySeconds": 0.2,
    })
}

/// A shard named `m` of which nothing is wrong.
pub fn healthy() -> DynamicObject {
    object(json!({
        "apiVersion": "understudy.dev/v1alpha1", "kind": "Shard",
        "metadata": { "name": "m", "namespace": "prod", "generation": 3 },
        "spec": { "replicas": 3, "paused": false, "failover": { "mode": "Automatic", "cooldownSeconds": 600 } },
        "status": {
            "observedGeneration": 3, "primary": "m-a", "primaryAddress": "10.1.2.3:3306", "targetPrimary": "m-a", "epoch": 4,
            "nextServerId": 4, "ready": "3/3", "readyReplicas": 3, "promotable": 2, "lag": "0s",
            "verdict": { "state": "Healthy", "since": at(-12 * 86_400) },
            "replicas": [summary("m-a", "primary", "n1"), summary("m-b", "standby", "n2"), summary("m-c", "standby", "n3")],
            "lastFailover": { "name": "m-4", "kind": "Failover", "epoch": 4, "time": at(-12 * 86_400), "gap": "4.1s", "reason": "Stopped" },
            "conditions": [
                condition("Ready", "True", "Ready", "3/3 replicas"),
                condition("PrimaryHealthy", "True", "Commits", "commits succeed"),
                condition("Promotable", "True", "Candidates", "2 standbys could take over now"),
                condition("Redundant", "True", "AllIntact", "3/3 replicas"),
                condition("Degraded", "False", "NotDegraded", "no copy is missing"),
                condition("UpToDate", "False", "Older", "0/3 are as the spec asks"),
            ],
        },
    }))
}

/// Its primary is stuck, and is being failed over.
pub fn stuck() -> DynamicObject {
    let observers = json!([
        { "kind": "Manager", "name": "m-a", "domain": "pod", "stance": "Accuses", "says": "fsync hangs for 6 s", "since": at(-12), "counts": true },
        { "kind": "Peer", "name": "m-b", "domain": "node n2", "stance": "Accuses", "says": "no answer at commit", "since": at(-11), "counts": true },
        { "kind": "Operator", "name": "understudy", "says": "nothing", "counts": false, "notCounted": "was paused" },
    ]);
    let conditions = json!([
        condition("Ready", "False", "PrimaryNotHealthy", "3/3 replicas"),
        condition("PrimaryHealthy", "False", "Stuck", "see the verdict"),
        condition("Redundant", "False", "CopiesMissing", "2/3 replicas"),
    ]);
    let verdict = json!({
        "state": "Stuck", "cause": "VolumeStalled", "since": at(-7), "message": "fsync hangs, seen by manager m-a and peer m-b",
    });
    let transition = json!({
        "kind": "Failover", "epoch": 5, "from": "m-a", "to": "m-b", "record": "m-5", "since": at(-2),
    });
    with(
        healthy(),
        &[
            ("/status/verdict", verdict),
            ("/status/transition", transition),
            ("/status/epoch", 5.into()),
            ("/status/ready", "2/3".into()),
            ("/status/doing", "failover to m-b, epoch 5".into()),
            ("/status/observers", observers),
            ("/status/conditions", conditions),
        ],
    )
}

/// Its primary is stuck by a judgement, and was changed a moment ago.
pub fn withheld() -> DynamicObject {
    let verdict = json!({ "state": "Stuck", "cause": "Deadlocked", "since": at(-40), "message": "nothing moves" });
    let last =
        json!({ "name": "m-4", "kind": "Failover", "epoch": 4, "time": at(-100), "gap": "4.1s", "reason": "Stopped" });
    with(healthy(), &[("/status/verdict", verdict), ("/status/lastFailover", last)])
}

/// One that a person has paused.
pub fn paused() -> DynamicObject {
    let fields: [(&str, Value); 2] = [("/spec/paused", true.into()), ("/status/doing", "nothing: spec.paused".into())];
    with(healthy(), &fields)
}

/// One that no operator has seen.
pub fn unseen() -> DynamicObject {
    object(json!({
        "apiVersion": "understudy.dev/v1alpha1", "kind": "Shard", "metadata": { "name": "m", "namespace": "prod" },
        "spec": { "replicas": 3 },
    }))
}

/// The record of a failover that succeeded.
pub fn record() -> DynamicObject {
    let step = |step: &str, elapsed: i64, detail: &str| json!({ "step": step, "at": at(-60), "elapsedMs": elapsed, "detail": detail });
    let offset = |partition: i64, next: i64| json!({ "consumer": "metrics-store", "topic": "samples", "partition": partition, "nextOffset": next });
    object(json!({
        "apiVersion": "understudy.dev/v1alpha1", "kind": "Failover",
        "metadata": { "name": "m-5", "namespace": "prod", "creationTimestamp": at(-60) },
        "spec": { "shard": "m", "kind": "Failover", "epoch": 5 },
        "status": {
            "phase": "Closed", "result": "Succeeded", "cause": "VolumeStalled", "from": "m-a", "to": "m-b", "epoch": 5,
            "startedAt": at(-60), "promotedAt": at(-55), "finishedAt": at(-20), "writeGapSeconds": 4.1, "gap": "4.1s",
            "replayedRecords": 42,
            "timeline": [
                step("FirstSign", 0, "epoch 5"), step("Decided", 2_000, "epoch 5: Stuck"), step("Claimed", 2_100, "epoch 5"),
                step("Promoted", 3_000, "epoch 5"), step("FirstCommit", 4_000, "epoch 5"), step("Redundant", 40_000, "epoch 5"),
            ],
            "votes": [{ "observer": "peer m-b", "says": "no answer at commit", "ageMs": 120 }],
            "vetoes": [],
            "evidence": [{ "observer": "manager m-a", "subject": "m-a", "fact": "fsync hangs", "ageMs": 90 }],
            "candidates": [
                { "replica": "m-b", "zone": "z2", "executedGtid": "u:1-90" },
                { "replica": "m-c", "zone": "z3", "executedGtid": "u:1-80", "rejected": "has fewer transactions" },
            ],
            "offsetsBefore": [offset(0, 100), offset(1, 50)],
            "offsetsAfter": [offset(0, 58), offset(1, 50)],
            "rebuild": { "replica": "m-d", "startedAt": at(-50), "finishedAt": at(-20), "seconds": 40.0 },
            "stacks": [{ "thread": "ib_log_writer", "stack": "fsync\nlog_write\nstart" }],
        },
    }))
}
