//! Passes over Drills against an API server in memory, each with caches of what is there then.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use serde_json::{Value, json};
use understudy_api::Drill;
use understudy_api::v1alpha1::{DrillFault, DrillResult, DrillRun};
use understudy_decide::drill::snapshot::{Exercise, Health};
use understudy_wire::order::Fault;
use understudy_wire::{Epoch, ShardName};

use super::turns::Turns;
use super::{Pass, TURN_TAKEN, finalizer, leave, observe, rehearsing};
use crate::cache::Caches;
use crate::fake::FakeApi;

/// Longer than any wait for an operator that has just begun.
const AWAKE: SignedDuration = SignedDuration::from_secs(600);

fn ago(seconds: i64) -> String {
    let at = Timestamp::now() - SignedDuration::from_secs(seconds);
    k8s_openapi::jiff::fmt::strtime::format("%Y-%m-%dT%H:%M:%SZ", at).unwrap()
}

fn datastore(allowed: Value) -> Value {
    json!({
        "apiVersion": "understudy.dev/v1alpha1", "kind": "Datastore",
        "metadata": { "name": "metrics", "namespace": "prod", "uid": "d1" },
        "spec": {
            "shards": 1, "drills": { "faults": allowed },
            "shardTemplate": { "mysql": { "image": "m" }, "storage": { "size": "1Gi" } },
            "kafka": { "bootstrapServers": "kafka:9092", "topic": "metrics", "partitions": 4 },
        },
    })
}

fn shard() -> Value {
    json!({
        "apiVersion": "understudy.dev/v1alpha1", "kind": "Shard",
        "metadata": {
            "name": "metrics-0", "namespace": "prod", "uid": "s1",
            "labels": { "understudy.dev/datastore": "metrics" },
        },
        "spec": { "mysql": { "image": "m" }, "storage": { "size": "1Gi" } },
        "status": {
            "primary": "metrics-0-a", "epoch": 4, "nextServerId": 4, "promotable": 2,
            "verdict": { "state": "Healthy" },
            "availability": { "windowDays": 30, "unavailableSeconds": 41.5, "failovers": 3, "switchovers": 0 },
            "replicas": [{ "name": "metrics-0-a", "role": "primary", "node": "n1", "zone": "z1" }],
            "conditions": [{
                "type": "Redundant", "status": "True", "reason": "R", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        },
    })
}

/// The primary's pod, with the permission that its manager was started with.
fn pod(drills: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "metrics-0-a", "namespace": "prod", "uid": "p1",
            "labels": { "app.kubernetes.io/managed-by": "understudy" },
        },
        "spec": {
            "nodeName": "n1",
            "containers": [{ "name": "mysql", "env": [{ "name": "UNDERSTUDY_DRILLS", "value": drills }] }],
        },
    })
}

/// A Drill of which a run was announced for a few seconds ago.
fn drill(name: &str, fault: &str) -> Value {
    json!({
        "apiVersion": "understudy.dev/v1alpha1", "kind": "Drill",
        "metadata": { "name": name, "namespace": "prod", "uid": format!("uid-{name}"), "generation": 1 },
        "spec": { "datastore": "metrics", "schedule": "* * * * *", "scope": { "kind": "Random" }, "fault": fault },
        "status": { "observedGeneration": 1, "nextRun": ago(5) },
    })
}

/// A Drill whose freeze of the primary was begun and is held, under its finalizer. There is nobody at the address of its manager.
fn freezing(seconds_ago: i64) -> Value {
    let mut drill = drill("monthly", "Freeze");
    drill["metadata"]["finalizers"] = json!([finalizer::FINALIZER]);
    drill["status"] = json!({ "observedGeneration": 1, "lastRun": {
        "id": "monthly-1", "startedAt": micros(seconds_ago), "fault": "Freeze", "holdSeconds": 30,
        "victims": [{
            "shard": "metrics-0", "replica": "metrics-0-a", "epoch": 4, "struckAt": micros(seconds_ago), "restarts": 0,
        }],
    }});
    drill
}

fn micros(seconds_ago: i64) -> String {
    ago(seconds_ago).replace('Z', ".000000Z")
}

/// The same pod, where its manager cannot be reached and was started again so often.
fn unreachable(restarts: i32) -> Value {
    let mut pod = pod("Freeze");
    pod["status"] = json!({ "podIP": "127.0.0.1", "containerStatuses": [{
        "name": "mysql", "image": "m", "imageID": "", "ready": true, "restartCount": restarts,
    }]});
    pod
}

async fn pass(api: &FakeApi, name: &str) {
    let context = api.context().await;
    let drill = context.caches.drills.get("prod", name).expect("the Drill");
    Pass { context: &context, awake: AWAKE, turns: &Turns::new() }.run(&drill).await.unwrap();
}

fn status(api: &FakeApi, name: &str) -> Value {
    api.object(&format!("drills/{name}")).unwrap()["status"].clone()
}

fn condition(status: &Value, kind: &str) -> (String, String) {
    let all = status["conditions"].as_array().unwrap();
    let found = all.iter().find(|condition| condition["type"] == kind).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&found["status"]), text(&found["reason"]))
}

#[tokio::test]
async fn a_run_is_written_down_before_anything_is_done_and_ends_with_its_gap() {
    let api = FakeApi::with([datastore(json!([])), shard(), drill("weekly", "Switchover")]);
    pass(&api, "weekly").await;
    let begun = status(&api, "weekly");
    let run = &begun["lastRun"];
    assert_eq!((&run["victims"][0]["replica"], &run["victims"][0]["epoch"]), (&json!("metrics-0-a"), &json!(4)));
    assert!(run["victims"][0]["struckAt"].is_null() && run["result"].is_null(), "{run}");
    assert!(!api.writes().iter().any(|write| write.contains("failovers")), "{:?}", api.writes());
    assert_eq!(condition(&begun, "Progressing"), ("True".to_owned(), "Running".to_owned()));

    pass(&api, "weekly").await;
    assert!(status(&api, "weekly")["lastRun"]["victims"][0]["struckAt"].is_string());
    let name = format!("{}-metrics-0", run["id"].as_str().unwrap());
    let request = api.object(&format!("failovers/{name}")).expect("the request");
    assert_eq!((&request["spec"]["shard"], &request["spec"]["kind"]), (&json!("metrics-0"), &json!("Switchover")));
    assert_eq!(request["spec"]["drill"], "weekly");
    let labels = &request["metadata"]["labels"];
    assert_eq!(
        (&labels["understudy.dev/drill"], &labels["understudy.dev/shard"]),
        (&json!("weekly"), &json!("metrics-0"))
    );
    assert!(request["metadata"]["ownerReferences"].is_null(), "a record outlives its Drill");

    // An operator that has just been restarted does nothing again.
    let writes = api.writes().len();
    pass(&api, "weekly").await;
    pass(&api, "weekly").await;
    let again: Vec<_> = api.writes().drain(writes..).filter(|write| write.contains("failovers")).collect();
    assert!(again.is_empty(), "{again:?}");

    api.change(&format!("failovers/{name}"), |failover| {
        failover["status"] = json!({
            "phase": "Closed", "result": "Succeeded", "from": "metrics-0-a", "to": "metrics-0-b",
            "promotedAt": "2026-01-01T00:00:00.000000Z", "writeGapSeconds": 0.42,
        });
    });
    pass(&api, "weekly").await;
    let ended = status(&api, "weekly");
    let run = &ended["lastRun"];
    assert_eq!((&run["result"], &run["gap"]), (&json!("Succeeded"), &json!("0.4s")), "{run}");
    assert_eq!(run["gaps"], json!([{ "shard": "metrics-0", "failover": name, "writeGapSeconds": 0.42 }]));
    assert_eq!(ended["history"].as_array().unwrap().len(), 1);
    assert_eq!(condition(&ended, "Progressing"), ("False".to_owned(), "Idle".to_owned()));
    assert!(ended["nextRun"].is_string(), "{ended}");
}

#[tokio::test]
async fn of_two_drills_of_a_datastore_one_runs() {
    let api = FakeApi::with([datastore(json!([])), shard(), drill("a", "Switchover"), drill("b", "Switchover")]);
    pass(&api, "a").await;
    pass(&api, "b").await;
    assert!(status(&api, "a")["lastRun"]["result"].is_null());
    let run = &status(&api, "b")["lastRun"];
    assert_eq!(run["result"], "Skipped");
    assert!(run["message"].as_str().unwrap().starts_with("AnotherRuns: Drill a "), "{run}");
}

#[tokio::test]
async fn a_write_that_takes_long_in_one_namespace_delays_no_drill_of_another() {
    let turns = Turns::new();
    // A pass over another Drill is at it, for as long as the API server or a manager keeps it waiting.
    let _slow = turns.take("prod").unwrap();
    for (namespace, begins) in [("dev", true), ("prod", false)] {
        let mut objects = [datastore(json!([])), shard(), drill("weekly", "Switchover")];
        objects.iter_mut().for_each(|object| object["metadata"]["namespace"] = json!(namespace));
        let api = FakeApi::with(objects);
        let mut context = api.context().await;
        let client = context.applier.client();
        context.caches = Caches::start(&client, Some(namespace), Arc::new(|_, _| {}), &context.tasks, &context.stop);
        context.caches.filled().await;
        let drill = context.caches.drills.get(namespace, "weekly").expect("the Drill");
        let again = Pass { context: &context, awake: AWAKE, turns: &turns }.run(&drill).await.unwrap();
        assert_eq!(status(&api, "weekly")["lastRun"].is_object(), begins, "{namespace}");
        assert_eq!(again == TURN_TAKEN, !begins, "{namespace}: it comes again soon");
    }
}

#[tokio::test]
async fn what_the_datastore_does_not_allow_is_refused_and_the_condition_says_what_to_set() {
    let api = FakeApi::with([datastore(json!(["Kill"])), shard(), pod("Kill"), drill("monthly", "Freeze")]);
    pass(&api, "monthly").await;
    let refused = status(&api, "monthly");
    assert_eq!(refused["lastRun"]["result"], "Skipped");
    assert_eq!(condition(&refused, "Ready"), ("False".to_owned(), "NotAllowed".to_owned()));
    let says = refused["conditions"].to_string();
    assert!(says.contains("put Freeze into spec.drills.faults of Datastore metrics"), "{says}");
}

#[tokio::test]
async fn a_victim_that_cannot_be_reached_ends_the_run() {
    let api = FakeApi::with([datastore(json!(["Kill"])), shard(), pod("Kill,Wedge"), drill("monthly", "Kill")]);
    for _ in 0..3 {
        pass(&api, "monthly").await;
    }
    let run = &status(&api, "monthly")["lastRun"];
    assert_eq!(run["result"], "Failed", "{run}");
    assert!(run["message"].as_str().unwrap().contains("its manager has no address"), "{run}");
}

#[tokio::test]
async fn a_drill_that_was_deleted_is_there_until_nobody_it_hit_can_be_held_any_more() {
    let mut deleted = freezing(5);
    deleted["metadata"]["deletionTimestamp"] = json!(ago(1));
    let others = [datastore(json!(["Freeze"])), shard(), unreachable(0), drill("weekly", "Switchover")];
    let api = FakeApi::with(others.into_iter().chain([deleted]));
    pass_over_deleted(&api, "monthly").await;
    let waits = status(&api, "monthly");
    assert_eq!((&waits["lastRun"]["ending"], &waits["lastRun"]["reason"]), (&json!("Aborted"), &json!("Deleted")));
    assert!(waits["lastRun"]["result"].is_null(), "nobody could be told: {waits}");
    pass(&api, "weekly").await;
    assert_eq!(status(&api, "weekly")["lastRun"]["reason"], "AnotherRuns");
    let writes = api.writes().len();
    pass_over_deleted(&api, "monthly").await;
    assert_eq!(api.writes().len(), writes, "it waits without a write: {:?}", api.writes());

    // The hold is over by itself.
    api.change("drills/monthly", |drill| {
        let old = freezing(71);
        for field in ["startedAt", "victims"] {
            drill["status"]["lastRun"][field] = old["status"]["lastRun"][field].clone();
        }
    });
    pass_over_deleted(&api, "monthly").await;
    assert!(api.object("drills/monthly").is_none(), "it is held");
}

#[tokio::test]
async fn a_fault_that_ended_with_its_manager_or_its_pod_is_waited_for_by_nobody() {
    for (case, pod) in [("its manager was started again", Some(unreachable(1))), ("its pod is gone", None)] {
        let mut suspended = freezing(5);
        suspended["spec"]["suspend"] = json!(true);
        let there = [datastore(json!(["Freeze"])), shard(), suspended];
        let api = FakeApi::with(there.into_iter().chain(pod));
        pass(&api, "monthly").await;
        let run = &status(&api, "monthly")["lastRun"];
        assert_eq!((&run["result"], &run["reason"]), (&json!("Aborted"), &json!("Suspended")), "{case}");
        let drill = api.object("drills/monthly").unwrap();
        assert_eq!(drill["metadata"]["finalizers"], json!([]), "{case}: nothing holds it any more");
    }
}

#[tokio::test]
async fn a_drill_is_held_from_before_its_run_until_it_has_ended_and_no_longer() {
    let api = FakeApi::with([datastore(json!([])), shard(), drill("weekly", "Switchover")]);
    pass(&api, "weekly").await;
    let finalizers = || api.object("drills/weekly").unwrap()["metadata"]["finalizers"].clone();
    assert_eq!(finalizers(), json!([finalizer::FINALIZER]));
    let first = api.writes()[0].clone();
    assert_eq!(first, "PATCH drills/weekly", "before the run is written down");
    api.change("drills/weekly", |drill| drill["spec"]["suspend"] = json!(true));
    pass(&api, "weekly").await;
    assert_eq!(status(&api, "weekly")["lastRun"]["result"], "Aborted");
    assert_eq!(finalizers(), json!([]));

    // What an operator left that ended between the two.
    api.change("drills/weekly", |drill| {
        drill["metadata"]["finalizers"] = json!(["somebody/else", finalizer::FINALIZER])
    });
    pass(&api, "weekly").await;
    assert_eq!(finalizers(), json!(["somebody/else"]));
}

#[tokio::test]
async fn a_deleted_drill_that_does_not_parse_goes() {
    let mut broken = freezing(5);
    broken["metadata"]["deletionTimestamp"] = json!(ago(1));
    broken["spec"]["scope"] = json!("everything");
    let api = FakeApi::with([broken]);
    pass_over_deleted(&api, "monthly").await;
    assert!(api.object("drills/monthly").is_none(), "it is held");
}

/// As the queue does it: all that is sure to be there are the metadata.
async fn pass_over_deleted(api: &FakeApi, name: &str) {
    let context = api.context().await;
    let metadata = serde_json::from_value(api.object(&format!("drills/{name}")).unwrap()["metadata"].clone()).unwrap();
    leave(&metadata, &context).await.unwrap();
}

#[tokio::test]
async fn a_drill_of_nothing_says_so() {
    let api = FakeApi::with([drill("weekly", "Switchover")]);
    pass(&api, "weekly").await;
    assert_eq!(condition(&status(&api, "weekly"), "Ready"), ("False".to_owned(), "Absent".to_owned()));
}

#[tokio::test]
async fn what_is_known_of_a_shard_is_what_its_status_and_the_pod_of_its_primary_say() {
    let mut by_hand = drill("weekly", "Wedge");
    by_hand["spec"] = json!({ "scope": { "kind": "Shard", "name": "metrics-0" }, "fault": "Wedge", "holdSeconds": 45 });
    let api = FakeApi::with([datastore(json!(["Kill", "Wedge"])), shard(), pod("Kill"), by_hand]);
    let context = api.context().await;
    let drills = context.caches.drills.within("prod");
    let seen = observe::snapshot(&drills[0], drills.iter().map(|drill| &**drill), &context.caches, AWAKE);
    assert_eq!((seen.policy.exercise, seen.policy.hold.as_secs()), (Exercise::Fault(Fault::Wedge), 45));
    assert_eq!(
        seen.policy.allowed,
        BTreeSet::from([Fault::Kill, Fault::Wedge]),
        "those of the Datastore that made the Shard"
    );
    let shard = &seen.shards[&ShardName::new("metrics-0")];
    assert_eq!((shard.epoch, shard.promotable, shard.redundant), (Epoch(4), 2, true));
    assert_eq!(
        (shard.node.as_deref(), shard.zone.as_deref(), &shard.health),
        (Some("n1"), Some("z1"), &Health::Healthy)
    );
    assert!((shard.unavailable - 41.5).abs() < 1e-9, "{}", shard.unavailable);
    assert_eq!(shard.equipped, BTreeSet::from([Fault::Kill]), "those that its manager was started with");
}

#[test]
fn a_failover_is_a_drills_while_its_run_goes_on_and_a_moment_after() {
    let drill = |victim: Value, finished: Value| -> Drill {
        let mut drill = drill("weekly", "Kill");
        drill["status"]["lastRun"] = json!({
            "id": "weekly-1", "startedAt": "2026-03-02T10:00:00.000000Z", "finishedAt": finished, "fault": "Kill", "victims": [victim],
        });
        serde_json::from_value(drill).unwrap()
    };
    let hit = json!({ "shard": "m", "replica": "m-a", "struckAt": "2026-03-02T10:00:01.000000Z" });
    let spared = json!({ "shard": "m", "replica": "m-a" });
    let refused = json!({ "shard": "m", "replica": "m-a", "struckAt": "2026-03-02T10:00:01.000000Z", "error": "no" });
    let at: Timestamp = "2026-03-02T10:05:00Z".parse().unwrap();
    for (case, victim, finished, primary, expected) in [
        ("it goes on", &hit, Value::Null, "m-a", true),
        ("another primary", &hit, Value::Null, "m-b", false),
        ("not hit yet", &spared, Value::Null, "m-a", false),
        ("it could not be hit", &refused, Value::Null, "m-a", false),
        ("it ended a minute ago", &hit, json!("2026-03-02T10:04:00.000000Z"), "m-a", true),
        ("it ended long ago", &hit, json!("2026-03-02T10:02:00.000000Z"), "m-a", false),
    ] {
        let drill = drill(victim.clone(), finished);
        let found = rehearsing([&drill], "m", primary, at);
        assert_eq!(found, expected.then(|| drill.name_any()), "{case}");
    }
    let mut skipped_since = drill(hit.clone(), json!("2026-03-02T10:04:00.000000Z"));
    let status = skipped_since.status.as_mut().unwrap();
    let run = status.last_run.take().unwrap();
    status.last_run = Some(DrillRun { victims: Vec::new(), result: Some(DrillResult::Skipped), ..run.clone() });
    status.history = vec![run];
    assert_eq!(rehearsing([&skipped_since], "m", "m-a", at).as_deref(), Some("weekly"), "another was skipped since");
    let mut planned = drill(hit, Value::Null);
    planned.status.as_mut().unwrap().last_run.as_mut().unwrap().fault = DrillFault::Switchover;
    assert_eq!(rehearsing([&planned], "m", "m-a", at), None, "nobody killed what was switched over");
}
