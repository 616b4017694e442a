//! Records as they are written to an API server in memory, one that is made again under the same name included.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;
use understudy_api::Failover;
use understudy_api::v1alpha1::{FailoverPhase, FailoverStatus};
use understudy_decide::failover::record::{Entry, Milestone, Phase};
use understudy_wire::Epoch;

use super::super::{Registrar, is_leftover};
use super::{job, of_shard, of_uid, steps, update};
use crate::fake::FakeApi;

#[tokio::test]
async fn when_many_shards_change_at_once_each_record_is_written_with_all_of_its_steps() {
    let api = FakeApi::default();
    let context = api.context().await;
    let (registrar, writing) = Registrar::new(&context);
    let shards: Vec<_> = (0..300).map(|number| format!("m-{number}")).collect();
    for (second, phase, step) in [
        (0, Phase::Claimed, Milestone::Claimed),
        (1, Phase::Promoting, Milestone::Fenced),
        (2, Phase::Rebuilding, Milestone::Promoted),
    ] {
        for shard in &shards {
            registrar.note(of_shard(shard, update(phase, vec![Entry::now(step, Epoch(5))]), second));
        }
    }
    let _writing = AbortOnDropHandle::new(tokio::spawn(writing));
    let status = |shard: &str| {
        let record = api.object(&format!("failovers/{shard}-5"))?;
        serde_json::from_value::<FailoverStatus>(record["status"].clone()).ok()
    };
    let is_written = |shard: &str| status(shard).is_some_and(|status| status.phase == FailoverPhase::Rebuilding);
    // Their turns come in the order in which they were told of.
    let all = async {
        while !is_written("m-299") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("the last record");
    for shard in &shards {
        let status = status(shard).expect("a record");
        assert_eq!(steps(&status), ["Claimed", "Fenced", "Promoted"], "{shard}");
    }
}

#[tokio::test]
async fn what_was_told_before_the_operator_was_asked_to_stop_is_written() {
    let api = FakeApi::default();
    let context = api.context().await;
    let (registrar, writing) = Registrar::new(&context);
    registrar.note(of_shard("m", update(Phase::Claimed, vec![Entry::now(Milestone::Claimed, Epoch(5))]), 0));
    context.stop.cancel();
    tokio::time::timeout(Duration::from_secs(60), writing).await.expect("it ends");
    let record = api.object("failovers/m-5").expect("a record");
    assert_eq!(record["status"]["timeline"][0]["step"], "Claimed");
}

/// A record that was closed, as the API server has it.
fn closed(owners: Value) -> Value {
    json!({
        "apiVersion": "understudy.dev/v1alpha1", "kind": "Failover",
        "metadata": { "name": "m-5", "namespace": "prod", "ownerReferences": owners },
        "spec": { "shard": "m", "kind": "Failover", "epoch": 5 }, "status": { "phase": "Closed" },
    })
}

fn owner(kind: &str, uid: &str) -> Value {
    json!({ "apiVersion": "understudy.dev/v1alpha1", "kind": kind, "name": "m", "uid": uid })
}

#[test]
fn a_record_is_left_over_when_it_was_made_for_another_shard() {
    let mut shard = job(update(Phase::Claimed, vec![]), 0).shard;
    shard.metadata.uid = Some("new".into());
    for (case, owners, expected) in [
        ("a person's", json!([]), false),
        ("of this one", json!([owner("Shard", "new")]), false),
        ("of an earlier one", json!([owner("Shard", "old")]), true),
        ("a request that another tool made", json!([owner("Workflow", "w1")]), false),
    ] {
        let record: Failover = serde_json::from_value(closed(owners)).expect("a record");
        assert_eq!(is_leftover(&record, &shard), expected, "{case}");
    }
}

/// Waits until the record is of the Shard of this UID and has a step. Gives its steps.
async fn written_for(api: &FakeApi, uid: &str) -> Vec<String> {
    let steps = || {
        let record =
            api.object("failovers/m-5").filter(|record| record["metadata"]["ownerReferences"][0]["uid"] == uid)?;
        let status: FailoverStatus = serde_json::from_value(record["status"].clone()).ok()?;
        let steps: Vec<_> = status.timeline.into_iter().map(|entry| entry.step).collect();
        Some(steps).filter(|steps| !steps.is_empty())
    };
    until(steps).await
}

async fn until<T>(there: impl Fn() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = there() {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), looking).await.expect("it comes")
}

/// As the garbage collector does.
fn collect(api: &FakeApi) {
    api.change("failovers/m-5", |record| record["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
}

#[tokio::test]
async fn a_shard_that_was_made_again_has_records_of_its_own() {
    let api = FakeApi::default();
    let context = api.context().await;
    let (registrar, writing) = Registrar::new(&context);
    let _writing = AbortOnDropHandle::new(tokio::spawn(writing));
    registrar.note(of_uid("old", Phase::Closed, Milestone::Redundant));
    assert_eq!(written_for(&api, "old").await, ["Redundant"]);
    collect(&api);
    registrar.note(of_uid("new", Phase::Claimed, Milestone::Claimed));
    assert_eq!(written_for(&api, "new").await, ["Claimed"]);
}

#[tokio::test]
async fn a_record_waits_until_that_of_an_earlier_shard_was_collected() {
    let shard = json!({
        "apiVersion": "understudy.dev/v1alpha1", "kind": "Shard",
        "metadata": { "name": "m", "namespace": "prod", "uid": "new" },
        "spec": { "mysql": { "image": "mysql:9" }, "storage": { "size": "1Gi" } },
    });
    let api = FakeApi::with([shard, closed(json!([owner("Shard", "old")]))]);
    let context = api.context().await;
    let (registrar, writing) = Registrar::new(&context);
    let _writing = AbortOnDropHandle::new(tokio::spawn(writing));
    registrar.note(of_uid("new", Phase::Claimed, Milestone::Claimed));
    until(|| api.writes().contains(&"POST failovers/m-5".to_owned()).then_some(())).await;
    collect(&api);
    assert_eq!(written_for(&api, "new").await, ["Claimed"]);
}
