//! What a Datastore's children and status are, case by case; [`passes`]: and what whole passes make of one.

mod passes;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use understudy_api::Datastore;
use understudy_api::conditions;
use understudy_api::v1alpha1::{Availability, ConsumerStatus, ShardStatus, VerdictState};

use super::placement::Placing;
use super::status::{Observed, PLACED, Pods, SecretFact, TOPIC_READY};
use super::topic::Fact;
use super::*;
use crate::fake::FakeApi;
use crate::troubles::Trouble;

fn datastore(spec: Value) -> Datastore {
    serde_json::from_value(object(spec)).unwrap()
}

fn object(spec: Value) -> Value {
    let mut object = json!({
        "apiVersion": "understudy.dev/v1alpha1", "kind": "Datastore",
        "metadata": { "name": "metrics", "namespace": "prod", "uid": "11111111-0000", "generation": 3 },
        "spec": {
            "shards": 2,
            "shardTemplate": { "mysql": { "image": "mysql:9.7.4" }, "storage": { "size": "10Gi" } },
            "kafka": { "bootstrapServers": "kafka:9092", "topic": "metrics", "partitions": 4 },
            "gateway": { "tokens": { "name": "metrics-tokens" } },
            "query": {},
        },
    });
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    object
}

fn shard_status(ready: bool, verdict: &str) -> ShardStatus {
    serde_json::from_value(json!({
        "verdict": { "state": verdict },
        "conditions": [{
            "type": "Ready", "status": if ready { "True" } else { "False" }, "reason": "R", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }],
    }))
    .unwrap()
}

fn shard(name: &str) -> ShardFact {
    ShardFact { name: name.to_owned(), status: Some(shard_status(true, "Healthy")), is_current: true }
}

fn observed() -> Observed {
    let consumer: ConsumerStatus = serde_json::from_value(json!({
        "ready": "4/4", "lag": "0s", "lagSeconds": 0.0,
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
        }],
    }))
    .unwrap();
    Observed {
        shards: vec![shard("metrics-0"), shard("metrics-1")],
        consumer: Some(consumer),
        gateway: Some(Pods { ready: 2, desired: 2 }),
        query: Some(Pods { ready: 2, desired: 2 }),
        topic: Some(Fact::Ready),
        placing: Placing::Keep,
        secrets: SecretFact::Present,
        trouble: None,
    }
}

fn condition<'a>(status: &'a DatastoreStatus, kind: &str) -> (&'a str, &'a str) {
    let found = status.conditions.iter().find(|condition| condition.type_ == kind).unwrap();
    (&found.status, &found.message)
}

#[test]
fn a_shard_takes_what_the_template_says() {
    let shard = build::shard(&datastore(json!({ "deletionPolicy": "Delete" })), 1);
    let parsed: understudy_api::v1alpha1::ShardSpec = serde_json::from_value(shard["spec"].clone()).unwrap();
    assert_eq!(parsed.mysql.image, "mysql:9.7.4");
    assert_eq!(shard["metadata"]["name"], "metrics-1");
    assert_eq!(shard["metadata"]["labels"]["understudy.dev/datastore"], "metrics");
    assert_eq!(shard["metadata"]["ownerReferences"][0]["kind"], "Datastore");
    assert_eq!(shard["spec"]["deletionPolicy"], "Delete");
    assert!(shard["spec"]["drills"].is_null(), "no drill does harm unless that was said");
    let shard = build::shard(&datastore(json!({ "drills": { "faults": ["Kill"] } })), 1);
    assert_eq!(shard["spec"]["drills"]["faults"], json!(["Kill"]));
}

#[test]
fn the_levers_of_one_shard_stay_a_persons_until_the_datastore_pulls_them() {
    let shard = build::shard(&datastore(json!({})), 0);
    assert_eq!((&shard["spec"]["paused"], &shard["spec"]["failover"]["mode"]), (&Value::Null, &Value::Null));
    let pulled = build::shard(&datastore(json!({ "paused": true })), 0);
    assert_eq!(pulled["spec"]["paused"], true);
    let mut manual = datastore(json!({}));
    manual.spec.shard_template.failover.mode = understudy_api::v1alpha1::FailoverMode::Manual;
    assert_eq!(build::shard(&manual, 0)["spec"]["failover"]["mode"], "Manual");
}

#[test]
fn a_gateway_takes_nothing_that_is_too_old_to_be_kept() {
    for (case, days, age) in [("for ever", None, None), ("a day", Some(1), Some(82_800)), ("a year", Some(365), None)] {
        let spec = days.map_or(json!({}), |days| json!({ "sampleRetentionDays": days }));
        assert_eq!(build::oldest_taken(&datastore(spec)), age, "{case}");
    }
}

#[test]
fn a_datastore_took_no_writes_for_as_long_as_its_shards_together() {
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let mut seen = observed();
    assert_eq!(status::of(&datastore(json!({})), seen.clone(), now).availability, None, "no shard tells of it yet");
    for (shard, unavailable_seconds) in seen.shards.iter_mut().zip([4.0, 7.5]) {
        let told = Availability { failovers: 1, unavailable_seconds, ..Availability::default() };
        shard.status.as_mut().unwrap().availability = Some(told);
    }
    let sum = status::of(&datastore(json!({})), seen, now).availability.unwrap();
    assert_eq!((sum.failovers, sum.unavailable_seconds, sum.window_days), (2, 11.5, 30));
}

fn variable<'a>(environment: &'a [k8s_openapi::api::core::v1::EnvVar], name: &str) -> Option<&'a str> {
    environment.iter().find(|variable| variable.name == name)?.value.as_deref()
}

#[test]
fn what_services_plan_with_fits_into_the_memory_of_their_pods() {
    let memory = |limit: Value| json!({ "limits": { "memory": limit } });
    for (case, resources, wanted, inflight, query) in [
        ("no limit", json!({}), None, "134217728", None),
        ("only a limit of processors", json!({ "limits": { "cpu": "500m" } }), None, "134217728", None),
        ("much", memory(json!("4Gi")), None, "134217728", Some("2147483648")),
        ("little", memory(json!("128Mi")), None, "67108864", Some("67108864")),
        ("little, as a number", memory(json!(134_217_728)), None, "67108864", Some("67108864")),
        ("little, in decimal units", memory(json!("200M")), None, "100000000", Some("100000000")),
        ("more is asked for", memory(json!("4Gi")), Some(3_i64 << 30), "2147483648", Some("2147483648")),
        ("less is asked for", memory(json!("4Gi")), Some(64 << 20), "67108864", Some("2147483648")),
    ] {
        let limits = wanted.map_or(json!({}), |bytes| json!({ "maxInflightBytes": bytes }));
        let gateway = json!({ "tokens": { "name": "t" }, "resources": resources, "limits": limits });
        let datastore = datastore(json!({ "gateway": gateway, "query": { "resources": resources } }));
        let told = build::gateway_environment(&datastore, datastore.spec.gateway.as_ref().unwrap());
        assert_eq!(variable(&told, "UNDERSTUDY_MAX_INFLIGHT_BYTES"), Some(inflight), "{case}");
        let told = build::query_environment(&datastore, datastore.spec.query.as_ref().unwrap());
        assert_eq!(variable(&told, "UNDERSTUDY_MAX_MEMORY_BYTES"), query, "{case}");
    }
}

#[test]
fn a_tenant_has_a_quota_when_the_spec_gives_it_one() {
    for (case, limits, quota) in
        [("none", json!({}), None), ("some", json!({ "samplesPerSecondPerTenant": 5000 }), Some("5000"))]
    {
        let datastore = datastore(json!({ "gateway": { "tokens": { "name": "t" }, "limits": limits } }));
        let told = build::gateway_environment(&datastore, datastore.spec.gateway.as_ref().unwrap());
        assert_eq!(variable(&told, "UNDERSTUDY_TENANT_SAMPLES_PER_SECOND"), quota, "{case}");
    }
}

#[test]
fn tokens_are_named_once_however_many_services_use_them() {
    assert_eq!(build::token_secrets(&datastore(json!({}))), ["metrics-tokens"]);
    let apart = datastore(json!({ "query": { "tokens": { "name": "readers" } } }));
    assert_eq!(build::token_secrets(&apart), ["metrics-tokens", "readers"]);
    let neither = datastore(json!({ "query": null, "gateway": null }));
    assert!(build::token_secrets(&neither).is_empty());
}

#[test]
fn a_service_gets_the_password_of_its_own_account_only() {
    let volume = build::credentials(&["metrics-0".to_owned(), "metrics-1".to_owned()], "understudy_reader", false);
    insta::assert_yaml_snapshot!("reader_credentials", volume);
}

#[tokio::test]
async fn the_query_service_starts_though_the_passwords_of_a_shard_are_gone() {
    let context = FakeApi::default().context().await;
    let query = build::query(&datastore(json!({})), &context).unwrap();
    let (credentials, _) = query.mounts.iter().find(|(volume, _)| volume.name == "credentials").unwrap();
    let sources = credentials.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    let optional: Vec<_> = sources.map(|source| source.secret.as_ref().unwrap().optional).collect();
    assert_eq!(optional, [Some(true); 2]);
}

#[test]
fn a_new_shard_is_read_once_no_pod_of_the_query_service_is_left_from_before_it() {
    let query = |shards: &[&str], generation: i64, updated: i32, all: i32| {
        let shards: Vec<_> = shards.iter().map(|shard| (*shard).to_owned()).collect();
        let deployment: Deployment = serde_json::from_value(json!({
            "metadata": { "generation": generation },
            "spec": { "selector": {}, "template": { "spec": {
                "containers": [],
                "volumes": [build::secret("tokens", "t"), build::credentials(&shards, "understudy_reader", false)],
            }}},
            "status": { "observedGeneration": 2, "updatedReplicas": updated, "replicas": all },
        }))
        .unwrap();
        deployment
    };
    for (case, deployment, expected) in [
        ("all are new", query(&["m-0", "m-1"], 2, 2, 2), true),
        ("it was not told yet", query(&["m-0"], 2, 2, 2), false),
        ("it was told, and nothing came of it yet", query(&["m-0", "m-1"], 3, 2, 2), false),
        ("one is of before", query(&["m-0", "m-1"], 2, 2, 3), false),
        ("there is none yet", Deployment { status: None, ..query(&["m-0", "m-1"], 2, 0, 0) }, false),
    ] {
        assert_eq!(status::all_have_password(&deployment, "m-1"), expected, "{case}");
    }
}

#[test]
fn a_datastore_is_ready_when_all_its_parts_are() {
    let status = status::of(&datastore(json!({})), observed(), Timestamp::UNIX_EPOCH);
    assert_eq!(condition(&status, conditions::READY).0, "True");
    assert_eq!(condition(&status, TOPIC_READY).0, "True");
    assert_eq!(status.shards_ready.as_deref(), Some("2/2"));
    assert_eq!(status.worst.unwrap().state, VerdictState::Healthy);
    assert_eq!(status.delay.as_deref(), Some("0s"));
    assert_eq!(status.observed_generation, Some(3));
}

#[test]
fn what_is_wanting_is_named() {
    type Change = fn(&mut Observed);
    let cases: [(&str, Change, &str); 12] = [
        ("a shard", |o| o.shards[1].status = Some(shard_status(false, "Gone")), "not ready: metrics-1"),
        ("a shard that has not answered its spec", |o| o.shards[1].is_current = false, "not ready: metrics-1"),
        ("a shard without status", |o| o.shards[0].status = None, "not ready: metrics-0"),
        ("a gateway pod", |o| o.gateway = Some(Pods { ready: 1, desired: 2 }), "gateway 1/2"),
        ("the consumer", |o| o.consumer = None, "consumer is being made"),
        ("the ends of the partitions", |o| o.placing = Placing::NeedEnds, "no data goes to the new shards yet"),
        (
            "a consumer that does not know of a move",
            |o| o.placing = Placing::Settle { placements: vec![], waiting: ["metrics-store".to_owned()].into() },
            "waiting to hear from metrics-store",
        ),
        ("the tokens", |o| o.secrets = SecretFact::Missing("metrics-tokens".to_owned()), "Secret metrics-tokens"),
        ("tokens that are none", |o| o.secrets = SecretFact::Unusable("Secret t has".to_owned()), "Secret t has"),
        ("the topic as it should be", |o| o.topic = Some(Fact::Differs("retention 1h".to_owned())), "retention 1h"),
        ("a topic of its own", |o| o.topic = Some(Fact::Shared("topic m is".to_owned())), "topic m is"),
        ("the brokers", |o| o.topic = Some(Fact::Unreachable("no answer".to_owned())), "kafka: no answer"),
    ];
    for (case, change, says) in cases {
        let mut observed = observed();
        change(&mut observed);
        let status = status::of(&datastore(json!({})), observed, Timestamp::UNIX_EPOCH);
        let (ready, message) = condition(&status, conditions::READY);
        assert!(ready == "False" && message.contains(says), "{case}: {ready} {message}");
    }
}

#[test]
fn what_stops_a_pass_is_said_in_the_words_of_the_api_server_and_is_written_once() {
    let trouble =
        Trouble { reason: Reason::NameTaken, message: "gateway: Service metrics-gateway is there".to_owned() };
    let stopped =
        || Observed { trouble: Some(trouble.clone()), topic: None, secrets: SecretFact::Unknown, ..observed() };
    let mut datastore = datastore(json!({}));
    datastore.status = Some(status::of(&datastore, observed(), Timestamp::UNIX_EPOCH));
    let first = status::of(&datastore, stopped(), Timestamp::UNIX_EPOCH);
    for kind in [conditions::READY, conditions::PROGRESSING] {
        assert_eq!(condition(&first, kind), ("False", "gateway: Service metrics-gateway is there"), "{kind}");
    }
    datastore.status = Some(first.clone());
    assert_eq!(status::of(&datastore, stopped(), Timestamp::from_second(1000).unwrap()), first);
}

#[test]
fn the_worst_verdict_names_its_shard() {
    let mut observed = observed();
    observed.shards[0].status = Some(shard_status(true, "Slow"));
    observed.shards[1].status = Some(shard_status(false, "Stuck"));
    let worst = status::of(&datastore(json!({})), observed, Timestamp::UNIX_EPOCH).worst.unwrap();
    assert_eq!((worst.state, worst.shard.as_deref()), (VerdictState::Stuck, Some("metrics-1")));
}

#[test]
fn a_status_that_says_the_same_is_the_same() {
    let mut datastore = datastore(json!({}));
    let first = status::of(&datastore, observed(), Timestamp::UNIX_EPOCH);
    datastore.status = Some(first.clone());
    let later = Timestamp::from_second(1000).unwrap();
    assert_eq!(status::of(&datastore, observed(), later), first);
    let no_look = Observed { topic: None, ..observed() };
    assert_eq!(status::of(&datastore, no_look, later), first);
}

#[test]
fn a_topic_that_differs_goes_on_to_differ_until_a_look_says_otherwise() {
    let mut datastore = datastore(json!({}));
    let differs = Observed { topic: Some(Fact::Differs("retention 1h".to_owned())), ..observed() };
    let first = status::of(&datastore, differs, Timestamp::UNIX_EPOCH);
    assert_eq!(condition(&first, conditions::DEGRADED), ("True", "retention 1h"));
    datastore.status = Some(first.clone());
    let no_look = Observed { topic: None, ..observed() };
    assert_eq!(status::of(&datastore, no_look, Timestamp::from_second(1000).unwrap()), first);
    let last = status::of(&datastore, observed(), Timestamp::from_second(2000).unwrap());
    assert_eq!((condition(&last, conditions::DEGRADED).0, condition(&last, conditions::READY).0), ("False", "True"));
}

#[test]
fn a_datastore_says_which_shards_have_replicas_of_an_earlier_spec() {
    let mut observed = observed();
    let status = status::of(&datastore(json!({})), observed.clone(), Timestamp::UNIX_EPOCH);
    assert_eq!(condition(&status, conditions::UP_TO_DATE).0, "True");
    let behind = observed.shards[1].status.as_mut().unwrap();
    behind.up_to_date = Some("1/3".to_owned());
    behind.conditions[0].type_ = "UpToDate".to_owned();
    behind.conditions[0].status = "False".to_owned();
    let status = status::of(&datastore(json!({})), observed, Timestamp::UNIX_EPOCH);
    let (holds, message) = condition(&status, conditions::UP_TO_DATE);
    assert!(holds == "False" && message.ends_with("metrics-1 1/3"), "{message}");
}

#[test]
fn placements_that_were_lost_are_said_to_be_and_are_not_made_up() {
    let mut datastore = datastore(json!({}));
    let lost = || Observed { placing: Placing::Lost { served: vec!["metrics-0".to_owned()] }, ..observed() };
    let status = status::of(&datastore, lost(), Timestamp::UNIX_EPOCH);
    assert!(status.placements.is_empty());
    for kind in [PLACED, conditions::READY, conditions::PROGRESSING] {
        let found = status.conditions.iter().find(|condition| condition.type_ == kind).unwrap();
        assert_eq!((found.status.as_str(), found.reason.as_str()), ("False", "PlacementsLost"), "{kind}");
        assert!(found.message.contains("though metrics-0 served already"), "{kind}: {}", found.message);
    }
    datastore.status = Some(status);
    let again = status::of(&datastore, lost(), Timestamp::from_second(1000).unwrap());
    assert_eq!(datastore.status, Some(again), "it is written once");

    let placing = placement::begin("metrics", 2, 4, &DatastoreStatus::default(), vec![]).unwrap();
    let put_back = status::of(&datastore, Observed { placing, ..observed() }, Timestamp::UNIX_EPOCH);
    assert_eq!((condition(&put_back, PLACED).0, condition(&put_back, conditions::READY).0), ("True", "True"));
}

#[test]
fn placements_are_added_to_and_kept_in_order() {
    let mut datastore = datastore(json!({}));
    let placing = placement::begin("metrics", 2, 4, &DatastoreStatus::default(), vec![]).unwrap();
    let first = status::of(&datastore, Observed { placing, ..observed() }, Timestamp::UNIX_EPOCH);
    assert_eq!((first.placements.len(), first.placed_shards), (4, 2));
    datastore.status = Some(first);
    let shard = "metrics-2".to_owned();
    let entry = understudy_api::v1alpha1::Placement { partition: 0, from_offset: 50, shard, pending: false };
    let placing = Placing::Write { entries: vec![entry], shards: 3 };
    let second = status::of(&datastore, Observed { placing, ..observed() }, Timestamp::UNIX_EPOCH);
    let of_0: Vec<_> = second.placements.iter().filter(|entry| entry.partition == 0).map(|e| e.from_offset).collect();
    assert_eq!(of_0, [0, 50]);
    assert_eq!(second.placed_shards, 3);

    let mut placements = second.placements.clone();
    placements.iter_mut().filter(|entry| entry.from_offset == 50).for_each(|entry| entry.from_offset = 70);
    datastore.status = Some(second);
    let placing = Placing::Settle { placements: placements.clone(), waiting: ["metrics-store".to_owned()].into() };
    let third = status::of(&datastore, Observed { placing, ..observed() }, Timestamp::UNIX_EPOCH);
    assert_eq!(third.placements, placements, "one that was pending moved on");
}

#[test]
fn a_pause_is_said_when_it_begins_and_when_it_ends_and_not_in_between() {
    let mut datastore = datastore(json!({}));
    let mut say = |paused: bool| {
        datastore.spec.paused = paused;
        let said = status::lever(&datastore).map(|(reason, _)| reason);
        datastore.status = Some(status::of(&datastore, observed(), Timestamp::UNIX_EPOCH));
        said
    };
    let said = [false, true, true, false, false].map(&mut say);
    assert_eq!(said, [None, Some(Reason::Paused), None, Some(Reason::Resumed), None]);
}
