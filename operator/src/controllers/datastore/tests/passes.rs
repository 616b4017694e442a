//! Whole passes over a Datastore, by an API server in memory that grants what the chart does.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::super::*;
use super::object;
use crate::fake::FakeApi;
use crate::recent::Recent;
use crate::topics::{Found, Topics, Wanted};

const DATASTORE: &str = "datastores/metrics";

/// A Datastore as a person applied it, but for the finalizer, which takes a pass of its own.
fn api(spec: Value) -> FakeApi {
    let mut object = object(spec);
    object["metadata"]["finalizers"] = json!([farewell::FINALIZER]);
    FakeApi::with([object])
}

async fn passes(api: &FakeApi, count: usize) {
    for _ in 0..count {
        let context = api.context().await;
        let datastore = context.caches.datastores.get("prod", "metrics").expect("the Datastore");
        pass(datastore, &context).await.unwrap();
    }
}

fn status(api: &FakeApi) -> Value {
    api.object(DATASTORE).unwrap()["status"].clone()
}

fn placements(api: &FakeApi) -> usize {
    status(api)["placements"].as_array().map_or(0, Vec::len)
}

/// Status and reason of a condition.
fn condition(api: &FakeApi, kind: &str) -> (String, String) {
    let status = status(api);
    let found = status["conditions"].as_array().unwrap().iter().find(|condition| condition["type"] == kind).unwrap();
    let text = |key: &str| found[key].as_str().unwrap().to_owned();
    (text("status"), text("reason"))
}

fn message(api: &FakeApi, kind: &str) -> String {
    let status = status(api);
    let found = status["conditions"].as_array().unwrap().iter().find(|condition| condition["type"] == kind).unwrap();
    found["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_a_datastore_asks_for_is_made_and_its_placements_are_written_first() {
    let api = api(json!({}));
    passes(&api, 1).await;
    assert_eq!(placements(&api), 4);
    assert!(api.object("shards/metrics-0").is_none(), "they come after the placements: {:?}", api.writes());
    passes(&api, 1).await;
    for made in ["shards/metrics-0", "shards/metrics-1", "consumers/metrics-store", "deployments/metrics-gateway"] {
        assert!(api.object(made).is_some(), "{made}: {:?}", api.writes());
    }
    assert_eq!(condition(&api, "Placed"), ("True".to_owned(), "Placed".to_owned()));
}

#[tokio::test]
async fn placements_that_are_gone_are_not_made_up_once_a_shard_has_served() {
    let api = api(json!({}));
    passes(&api, 2).await;
    let before = status(&api);
    api.change(DATASTORE, |datastore| datastore["status"]["placements"] = json!([]));
    passes(&api, 1).await;
    assert_eq!(placements(&api), 4, "no shard has served, so nothing is lost");

    api.change("shards/metrics-1", |shard| {
        shard["status"] = json!({ "primary": "metrics-1-a", "epoch": 1, "nextServerId": 4 });
    });
    api.change(DATASTORE, |datastore| datastore["status"]["placements"] = json!([]));
    passes(&api, 2).await;
    assert_eq!(placements(&api), 0);
    let lost = ("False".to_owned(), "PlacementsLost".to_owned());
    assert_eq!((condition(&api, "Placed"), condition(&api, "Ready")), (lost.clone(), lost));
    assert!(api.object("deployments/metrics-gateway").is_some(), "what runs goes on");

    api.change(DATASTORE, |datastore| datastore["status"]["placements"] = before["placements"].clone());
    passes(&api, 1).await;
    assert_eq!((placements(&api), condition(&api, "Placed").0.as_str()), (4, "True"));
}

#[tokio::test]
async fn a_query_service_that_is_not_asked_for_any_more_goes_with_its_rights() {
    const RIGHTS: [&str; 3] = ["serviceaccounts/metrics-query", "roles/metrics-query", "rolebindings/metrics-query"];
    let api = api(json!({}));
    passes(&api, 2).await;
    let there = || RIGHTS.map(|object| api.object(object).is_some());
    assert_eq!(there(), [true; 3]);
    api.change(DATASTORE, |datastore| {
        datastore["metadata"]["generation"] = json!(4);
        datastore["spec"].as_object_mut().unwrap().remove("query");
    });
    passes(&api, 1).await;
    assert!(api.object("deployments/metrics-query").is_none());
    assert_eq!(there(), [false; 3]);
}

/// Another one with the same topic of the same brokers, that came first.
fn older() -> Value {
    let mut older = object(json!({}));
    let names = json!({ "name": "older", "uid": "22222222-0000", "creationTimestamp": "2026-01-01T00:00:00Z" });
    for (key, value) in names.as_object().unwrap() {
        older["metadata"][key] = value.clone();
    }
    older
}

fn is_deleted(object: &mut Value) {
    object["metadata"]["deletionTimestamp"] = json!("2026-03-01T00:00:00Z");
}

#[tokio::test]
async fn nothing_is_made_for_a_datastore_whose_topic_is_an_older_ones_until_that_is_gone() {
    let api = api(json!({}));
    api.change(DATASTORE, |datastore| datastore["metadata"]["creationTimestamp"] = json!("2026-02-01T00:00:00Z"));
    api.add(older());
    passes(&api, 3).await;
    assert_eq!(placements(&api), 0);
    for made in ["shards/metrics-0", "consumers/metrics-store", "deployments/metrics-gateway"] {
        assert!(api.object(made).is_none(), "{made}: {:?}", api.writes());
    }
    let shared = ("False".to_owned(), "TopicShared".to_owned());
    assert_eq!((condition(&api, "TopicReady"), condition(&api, "Ready")), (shared.clone(), shared));
    let messages = ["TopicReady", "Ready"].map(|kind| message(&api, kind));
    assert_eq!(messages[0], messages[1], "and no more than that");
    assert!(messages[0].starts_with("topic metrics is that of Datastore prod/older too"), "{messages:?}");
    assert_eq!(api.writes().len(), 1, "it is said once: {:?}", api.writes());

    api.change("datastores/older", is_deleted);
    passes(&api, 2).await;
    assert!(placements(&api) == 4 && api.object("shards/metrics-0").is_some(), "{:?}", api.writes());
    assert_eq!(condition(&api, "TopicReady").0, "True");
}

#[tokio::test]
async fn a_datastore_that_runs_goes_on_when_its_topic_is_found_to_be_an_older_ones_and_says_so() {
    let api = api(json!({}));
    api.change(DATASTORE, |datastore| datastore["metadata"]["creationTimestamp"] = json!("2026-02-01T00:00:00Z"));
    let recent = Recent::default();
    let pass_again = async || {
        let context = Context { recent: recent.clone(), ..api.context().await };
        let datastore = context.caches.datastores.get("prod", "metrics").expect("the Datastore");
        pass(datastore, &context).await.unwrap();
    };
    pass_again().await;
    pass_again().await;
    assert_eq!(condition(&api, "TopicReady").0, "True");

    let placement = json!({ "partition": 0, "fromOffset": 0, "shard": "older-0" });
    api.add(older());
    api.change("datastores/older", |older| older["status"] = json!({ "placements": [placement], "placedShards": 1 }));
    api.change(DATASTORE, |datastore| datastore["spec"]["gateway"]["replicas"] = json!(3));
    pass_again().await;
    assert_eq!(condition(&api, "TopicReady"), ("False".to_owned(), "TopicShared".to_owned()));
    assert_eq!(condition(&api, "Degraded"), ("True".to_owned(), "TopicShared".to_owned()));
    assert_eq!(api.object("deployments/metrics-gateway").unwrap()["spec"]["replicas"], 3);

    api.change("datastores/older", is_deleted);
    pass_again().await;
    assert_eq!(condition(&api, "TopicReady").0, "True", "it is looked at, though it was a moment ago");
}

/// Brokers that have gone away since the topic was looked at.
struct Gone;

#[async_trait]
impl Topics for Gone {
    async fn ensure(&self, _: &Wanted) -> Result<Found, AdminError> {
        Ok(Found::default())
    }

    async fn ends(&self, _: &str, _: &str) -> Result<BTreeMap<i32, i64>, AdminError> {
        Err(AdminError::Deadline(Duration::from_secs(10)))
    }
}

#[tokio::test]
async fn brokers_that_do_not_answer_hold_up_nothing_but_the_placements() {
    let api = api(json!({ "query": null }));
    passes(&api, 2).await;
    api.change(DATASTORE, |datastore| {
        datastore["metadata"]["generation"] = json!(4);
        datastore["spec"]["shards"] = json!(3);
    });
    passes(&api, 1).await;
    api.change("shards/metrics-2", |shard| {
        shard["status"] = json!({ "primary": "metrics-2-a", "epoch": 1, "nextServerId": 4 });
    });
    api.change(DATASTORE, |datastore| datastore["metadata"]["generation"] = json!(5));

    let mut context = api.context().await;
    context.topics = Arc::new(Gone);
    let mut settings = (*context.settings).clone();
    settings.image = "understudy:next".to_owned();
    context.settings = Arc::new(settings);
    let datastore = context.caches.datastores.get("prod", "metrics").expect("the Datastore");
    let outcome = pass(datastore, &context).await;

    assert!(matches!(outcome, Err(DatastoreError::Ends(_))), "it is tried again: {outcome:?}");
    let gateway = api.object("deployments/metrics-gateway").unwrap();
    assert_eq!(gateway["spec"]["template"]["spec"]["containers"][0]["image"], "understudy:next");
    let status = status(&api);
    assert_eq!((status["observedGeneration"].as_i64(), placements(&api)), (Some(5), 4));
    let conditions = status["conditions"].as_array().unwrap();
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready").unwrap();
    let message = ready["message"].as_str().unwrap();
    assert!(message.contains("no data goes to the new shards yet: waiting for Kafka"), "{message}");
}
