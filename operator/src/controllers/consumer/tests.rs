//! What a Consumer's children and status are, case by case.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use understudy_api::conditions;
use understudy_api::v1alpha1::{ConsumerStatus, VerdictState};
use understudy_api::{Consumer, Datastore};
use understudy_kafka::AdminError;

use super::super::datastore::Pods;
use super::build::{Unresolved, environment, resolve};
use super::group::{Common, Taken};
use super::letters::{LETTERS_READY, Letters};
use super::status::{self, Observed, Stopped};
use crate::fake::FakeApi;

fn consumer(spec: Value) -> Consumer {
    serde_json::from_value(json!({
        "apiVersion": "understudy.dev/v1alpha1", "kind": "Consumer",
        "metadata": { "name": "metrics-store", "namespace": "prod", "uid": "11111111-0000", "generation": 2 },
        "spec": spec,
    }))
    .unwrap()
}

fn datastore() -> Datastore {
    serde_json::from_value(json!({
        "apiVersion": "understudy.dev/v1alpha1", "kind": "Datastore",
        "metadata": { "name": "metrics", "namespace": "prod" },
        "spec": {
            "shards": 2,
            "shardTemplate": { "mysql": { "image": "m" }, "storage": { "size": "1Gi" } },
            "kafka": { "bootstrapServers": "kafka:9092", "topic": "metrics", "partitions": 4 },
        },
    }))
    .unwrap()
}

#[tokio::test]
async fn a_consumer_gets_all_that_it_needs_with_no_more_rights_than_the_chart_grants() {
    let consumer = consumer(json!({ "datastore": "metrics" }));
    let api = FakeApi::with([serde_json::to_value(datastore()).unwrap(), serde_json::to_value(consumer).unwrap()]);
    let context = api.context().await;
    let consumer = context.caches.consumers.get("prod", "metrics-store").expect("the Consumer");
    super::pass(consumer, &context).await.unwrap();
    for made in [
        "secrets/metrics-store.consumer-tls",
        "serviceaccounts/metrics-store-consumer",
        "roles/metrics-store-consumer",
        "rolebindings/metrics-store-consumer",
        "deployments/metrics-store.metrics-0",
        "poddisruptionbudgets/metrics-store.metrics-1",
    ] {
        assert!(api.object(made).is_some(), "{made}: {:?}", api.writes());
    }
    let status = api.object("consumers/metrics-store").unwrap()["status"].clone();
    assert!(status["conditions"].is_array(), "{status}");
}

fn partition(number: i32, state: &str, records: i64, seconds: f64) -> Value {
    json!({
        "partition": number, "shard": "metrics-0", "state": state, "lagRecords": records, "lagSeconds": seconds,
        "deadLetters": 3, "message": "duplicate key",
    })
}

fn observed(ready: i32) -> Observed {
    let pods = Some(Pods { ready, desired: 2 });
    Observed {
        workloads: vec![("metrics-0".to_owned(), pods, VerdictState::Healthy)],
        partitions: Some(4),
        ..Observed::default()
    }
}

fn of(spec: Value, reported: Vec<Value>, observed: &Observed) -> ConsumerStatus {
    let mut consumer = consumer(spec);
    consumer.status = Some(serde_json::from_value(json!({ "partitions": reported })).unwrap());
    status::of(&consumer, observed, Timestamp::UNIX_EPOCH)
}

fn message(status: &ConsumerStatus) -> &str {
    status.message.as_deref().unwrap_or_default()
}

#[test]
fn a_consumer_of_a_datastore_reads_its_topic_into_its_shards() {
    let resolved = resolve(&consumer(json!({ "datastore": "metrics" })), Some(&datastore())).unwrap();
    assert_eq!(resolved.shards, ["metrics-0", "metrics-1"]);
    assert_eq!(resolved.kafka.topic, "metrics");
    assert_eq!(resolved.partitions, Some(4));
}

#[test]
fn a_consumer_keeps_samples_as_long_as_its_datastore_says() {
    let mut datastore = datastore();
    let keep = |datastore: &Datastore| {
        resolve(&consumer(json!({ "datastore": "metrics" })), Some(datastore)).unwrap().keep_seconds
    };
    assert_eq!(keep(&datastore), None);
    datastore.spec.sample_retention_days = Some(2);
    assert_eq!(keep(&datastore), Some(172_800));
}

#[test]
fn missing_offsets_are_accepted_only_where_the_spec_says_so() {
    let topic = json!({ "bootstrapServers": "k:1", "topic": "t" });
    for (case, spec, told) in [
        ("of a Datastore", json!({ "datastore": "metrics" }), "false"),
        ("of a topic", json!({ "shards": ["a"], "kafka": topic }), "false"),
        ("of a topic that transactions write", json!({ "shards": ["a"], "kafka": topic, "acceptGaps": true }), "true"),
    ] {
        let consumer = consumer(spec);
        let resolved = resolve(&consumer, Some(&datastore())).unwrap();
        let variables = environment(&consumer, &resolved, "a");
        let found = variables.iter().find(|variable| variable.name == "UNDERSTUDY_ACCEPT_GAPS").unwrap();
        assert_eq!(found.value.as_deref(), Some(told), "{case}");
    }
}

#[test]
fn a_consumer_of_a_datastore_reads_no_other_topic_as_the_placements_count_in_the_datastores() {
    let spec = json!({ "datastore": "metrics", "kafka": { "bootstrapServers": "k:1", "topic": "events" } });
    let unresolved = resolve(&consumer(spec), Some(&datastore())).unwrap_err();
    assert_eq!(unresolved, Unresolved::OtherTopic("metrics".to_owned()));
}

#[test]
fn a_consumer_that_is_not_accepted_names_the_one_that_has_its_group_or_its_schema() {
    let late = consumer(json!({ "datastore": "metrics", "group": "g" }));
    for (what, reason, says) in [
        (Common::Group("g".to_owned()), "GroupTaken", "under the group g"),
        (Common::Schema("store".to_owned()), "SchemaTaken", "the time-series store of metrics-0"),
        (Common::Schema("view_v".to_owned()), "SchemaTaken", "the schema view_v of metrics-0"),
    ] {
        let taken = Taken { by: "older".to_owned(), what, shards: vec!["metrics-0".to_owned()] };
        let status = status::of(&late, &Observed::stopped(Stopped::taken(&taken)), Timestamp::UNIX_EPOCH);
        for kind in [conditions::ACCEPTED, conditions::READY] {
            let condition = status.conditions.iter().find(|condition| condition.type_ == kind).unwrap();
            assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", reason), "{kind}");
            assert!(condition.message.contains("Consumer older"), "{kind}: {}", condition.message);
            assert!(condition.message.contains(says), "{kind}: {}", condition.message);
        }
    }
    let running = status::of(&late, &observed(2), Timestamp::UNIX_EPOCH);
    assert!(conditions::holds(&running.conditions, conditions::ACCEPTED));
}

#[test]
fn a_consumer_of_a_missing_datastore_says_which() {
    let missing = resolve(&consumer(json!({ "datastore": "metrics" })), None).unwrap_err();
    assert_eq!(missing, Unresolved::Datastore("metrics".to_owned()));
}

#[test]
fn lag_is_that_of_the_partition_furthest_behind() {
    let reported = vec![partition(0, "Running", 10, 0.2), partition(1, "Fenced", 500, 7.25)];
    let status = of(json!({ "datastore": "metrics" }), reported, &observed(2));
    assert_eq!(status.running.as_deref(), Some("1/2"));
    assert_eq!(status.lag_records, Some(510));
    assert_eq!(status.lag.as_deref(), Some("7.2s"));
    assert_eq!(status.dead_letters, Some(6), "those of all partitions");
    assert!(status.partitions.is_empty(), "the partitions are the pods' to write");
}

#[test]
fn lag_is_told_only_while_it_is_known_of_every_partition() {
    let unknown = || {
        let mut partition = partition(1, "Paused", 500, 0.0);
        partition.as_object_mut().unwrap().remove("lagSeconds");
        partition
    };
    let status = of(json!({ "datastore": "metrics" }), vec![partition(0, "Running", 10, 9.0), unknown()], &observed(2));
    assert_eq!((status.lag_records, status.lag_seconds, status.lag), (Some(510), None, None));
}

#[test]
fn a_consumer_that_is_ready_says_how_many_of_its_partitions_are_paused() {
    let reported = vec![partition(0, "Running", 0, 0.0), partition(1, "Paused", 500, 7.0)];
    let status = of(json!({ "datastore": "metrics" }), reported, &observed(2));
    assert_eq!(message(&status), "1 of 2 partitions are paused, as the spec says");
    let ready = status.conditions.iter().find(|condition| condition.type_ == conditions::READY).unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("True", "Paused"));
}

#[test]
fn a_dead_letter_topic_that_is_not_there_is_said_until_it_is() {
    let kafka = json!({ "bootstrapServers": "k:1", "topic": "t" });
    let mut consumer = consumer(json!({ "shards": ["metrics-0"], "kafka": kafka }));
    let topic = "t.dead-letter".to_owned();
    let look = |ends: Result<(), AdminError>| Some(Letters::of(topic.clone(), &ends.map(|()| [(0, 7)].into())));
    let missing = || Err(AdminError::NoSuchTopic(topic.clone()));
    let silent = || Err(AdminError::Brokers("no answer".to_owned()));
    for (case, letters, condition, ready) in [
        ("it is not looked for yet", None, None, true),
        ("it is not there", look(missing()), Some(("False", "TopicMissing")), false),
        ("the last finding stands", None, Some(("False", "TopicMissing")), false),
        ("nobody answers", look(silent()), Some(("Unknown", "KafkaUnreachable")), true),
        ("it is there", look(Ok(())), Some(("True", "Present")), true),
        ("it still is", None, Some(("True", "Present")), true),
    ] {
        let status = status::of(&consumer, &Observed { letters, ..observed(2) }, Timestamp::UNIX_EPOCH);
        let found = status.conditions.iter().find(|condition| condition.type_ == LETTERS_READY);
        assert_eq!(found.map(|found| (found.status.as_str(), found.reason.as_str())), condition, "{case}");
        assert_eq!(conditions::holds(&status.conditions, conditions::READY), ready, "{case}");
        assert_eq!(message(&status).contains("there is no topic t.dead-letter"), !ready, "{case}");
        consumer.status = Some(status);
    }
}

#[test]
fn what_stopped_pods_said_last_is_not_told_as_if_it_were_so() {
    let two = Observed {
        workloads: ["metrics-0", "metrics-1"]
            .map(|shard| (shard.to_owned(), Some(Pods { ready: 1, desired: 2 }), VerdictState::Healthy))
            .to_vec(),
        ..observed(2)
    };
    let with = |ready_of_first| {
        let mut observed = two.clone();
        observed.workloads[0].1 = ready_of_first;
        observed
    };
    let mut other = partition(1, "Running", 5, 9.0);
    other["shard"] = json!("metrics-1");
    let reported = |state| vec![partition(0, state, 10, 0.2), other.clone()];
    let gone = Observed { workloads: two.workloads[1..].to_vec(), ..two.clone() };
    let none = |desired| with(Some(Pods { ready: 0, desired }));
    for (case, state, observed, running, lag, records) in [
        ("both are read", "Running", two.clone(), Some("2/2"), Some("9.0s"), Some(15)),
        ("no pod of the first is there", "Running", none(2), Some("1/2"), None, None),
        ("the pods of the first are cut off and say so", "Fenced", none(2), Some("1/2"), Some("9.0s"), Some(15)),
        ("the first was scaled to nothing", "Fenced", none(0), Some("1/2"), None, None),
        ("the first has no workload", "Running", with(None), Some("1/2"), None, None),
        ("the first shard is not this Consumer's any more", "Running", gone, Some("1/1"), Some("9.0s"), Some(5)),
    ] {
        let status = of(json!({ "datastore": "metrics" }), reported(state), &observed);
        assert_eq!(status.running.as_deref(), running, "{case}");
        assert_eq!(status.lag.as_deref(), lag, "{case}");
        assert_eq!((status.lag_records, status.lag_seconds.is_some()), (records, lag.is_some()), "{case}");
        assert!(status.dead_letters.is_some(), "{case}: they do not become fewer");
    }
}

#[test]
fn what_is_wrong_is_said() {
    let paused_nowhere = json!({ "datastore": "metrics", "pausedPartitions": [1, 7] });
    let plain = json!({ "datastore": "metrics" });
    let missing = Observed { missing: vec!["metrics-1".to_owned()], ..observed(2) };
    for (case, spec, reported, observed, says) in [
        ("all is well", plain.clone(), vec![], observed(2), ""),
        ("a pod is missing", plain.clone(), vec![], observed(1), "1 of 2 pods ready"),
        ("nobody reads", plain.clone(), vec![], observed(0), "no ready pod for metrics-0"),
        ("an unknown partition", paused_nowhere, vec![], observed(2), "partition 7"),
        ("a shard is missing", plain.clone(), vec![], missing, "no Shard metrics-1"),
        ("a partition is stuck", plain, vec![partition(3, "Stuck", 1, 1.0)], observed(2), "is stuck: duplicate key"),
    ] {
        let status = of(spec, reported, &observed);
        assert!(message(&status).contains(says), "{case}: {}", message(&status));
        let ready = conditions::holds(&status.conditions, conditions::READY);
        assert_eq!(ready, says.is_empty(), "{case}");
    }
}

#[test]
fn a_paused_partition_that_the_topic_of_named_shards_does_not_have_is_said() {
    let shards = ["a".to_owned(), "b".to_owned(), "c".to_owned()];
    let spec = |paused: &[i32]| {
        let kafka = json!({ "bootstrapServers": "k:1", "topic": "t" });
        json!({ "shards": shards, "kafka": kafka, "pausedPartitions": paused })
    };
    for (case, reported, paused, says) in [
        ("nobody reports yet", &[][..], &[999][..], ""),
        ("all report", &[("a", 0), ("a", 3), ("b", 1), ("b", 4), ("c", 2)], &[4], ""),
        ("it is the next one", &[("a", 0), ("a", 3), ("b", 1), ("b", 4), ("c", 2)], &[1, 5], "partition 5"),
        ("one reports, and it may be another's", &[("a", 0), ("a", 3)], &[5], ""),
        ("one reports, and it is nobody's", &[("a", 0), ("a", 3)], &[999], "partition 999"),
        ("fewer partitions than shards", &[("a", 0)], &[3], "partition 3"),
        ("another shard's report", &[("old", 0)], &[999], ""),
    ] {
        let partition = |(shard, partition): &(&str, i32)| json!({ "partition": partition, "shard": shard });
        let reported: Vec<Value> = reported.iter().map(partition).collect();
        let parsed: ConsumerStatus = serde_json::from_value(json!({ "partitions": reported })).unwrap();
        let partitions = status::partitions_by_reports(&shards, &parsed.partitions);
        let status = of(spec(paused), reported, &Observed { partitions, ..observed(2) });
        assert!(message(&status).contains(says), "{case}: {}", message(&status));
        assert_eq!(conditions::holds(&status.conditions, conditions::READY), says.is_empty(), "{case}");
    }
}
