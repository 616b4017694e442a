//! What a later version of the operator wrote is read: of a few words one that is not known here is a value of its own, so that an object is
//! not taken for malformed because of it. What a person asks for is not guessed.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use understudy_api::{Consumer, Datastore, Drill, Failover, Replica, Shard, crds};

/// Words of statuses that are what a person asked for. An operator that does not know the fault of a Drill leaves the Drill alone.
const ASKED_FOR: [&str; 2] = ["/status/lastRun/fault", "/status/history/0/fault"];

/// One object of each kind, with every word that is one of a few.
fn samples() -> Vec<Value> {
    let object = |kind: &str, spec: Value, status: Value| {
        json!({
            "apiVersion": "understudy.dev/v1alpha1", "kind": kind, "metadata": { "name": "m" },
            "spec": spec, "status": status,
        })
    };
    let shard = json!({ "mysql": { "image": "mysql:9" }, "storage": { "size": "1Gi" } });
    let kafka = json!({ "bootstrapServers": "kafka:9092", "topic": "t" });
    let run = json!({
        "id": "m-1", "startedAt": "2026-03-02T10:00:00.000000Z", "fault": "Kill", "ending": "Succeeded", "result": "Succeeded",
    });
    let observer = json!({
        "kind": "Peer", "name": "m-b", "domain": "node n1", "stance": "Commits", "says": "commits", "counts": true,
    });
    let verdict = json!({ "state": "Healthy" });
    vec![
        object("Datastore", json!({ "shardTemplate": shard, "kafka": kafka }), json!({ "worst": verdict })),
        object(
            "Shard",
            shard.clone(),
            json!({
                "verdict": verdict, "observers": [observer], "replicas": [{ "name": "m-a", "role": "primary" }],
                "transition": { "kind": "Failover", "epoch": 5, "to": "m-b" },
                "lastFailover": { "name": "m-4", "kind": "Switchover" },
            }),
        ),
        object(
            "Replica",
            json!({ "shard": "m", "serverId": 1, "origin": { "reason": "ScaleUp" } }),
            json!({ "role": "standby", "phase": "Running", "verdict": verdict, "volume": { "state": "Bound" } }),
        ),
        object(
            "Consumer",
            json!({ "shards": ["m"], "kafka": kafka }),
            json!({
                "workloads": [{ "shard": "m", "verdict": "Healthy" }],
                "partitions": [{ "partition": 0, "shard": "m", "state": "Running" }],
            }),
        ),
        object(
            "Failover",
            json!({ "shard": "m", "kind": "Failover", "epoch": 5 }),
            json!({
                "phase": "Closed", "result": "Succeeded",
                "evidence": [{ "observer": "manager m-a", "subject": "m-a", "fact": "f", "ageMs": 1, "kind": "Fsync" }],
            }),
        ),
        object(
            "Drill",
            json!({ "datastore": "m", "schedule": "0 3 * * 1", "scope": { "kind": "Random" }, "fault": "Kill" }),
            json!({ "lastRun": run, "history": [run] }),
        ),
    ]
}

/// The object as this version understands it.
fn read(object: &Value) -> Result<Value, serde_json::Error> {
    fn through<K: Serialize + DeserializeOwned>(object: &Value) -> Result<Value, serde_json::Error> {
        serde_json::to_value(serde_json::from_value::<K>(object.clone())?)
    }
    match object["kind"].as_str() {
        Some("Datastore") => through::<Datastore>(object),
        Some("Shard") => through::<Shard>(object),
        Some("Replica") => through::<Replica>(object),
        Some("Consumer") => through::<Consumer>(object),
        Some("Failover") => through::<Failover>(object),
        Some("Drill") => through::<Drill>(object),
        other => panic!("no sample of {other:?}"),
    }
}

/// Where a schema has a word that is one of a few, as pointers into an object, with the words.
fn words(schema: &Value, at: &str, found: &mut Vec<(String, Vec<String>)>) {
    if let Some(words) = schema["enum"].as_array() {
        let words = words.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect();
        found.push((at.to_owned(), words));
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        words(property, &format!("{at}/{name}"), found);
    }
    if schema["items"].is_object() {
        words(&schema["items"], &format!("{at}/0"), found);
    }
}

/// Where the status of an object of this kind has such words.
fn written(sample: &Value) -> Vec<(String, Vec<String>)> {
    let crds = crds::all();
    let kind = sample["kind"].as_str().expect("a kind");
    let crd = crds.iter().find(|crd| crd.spec.names.kind == kind).expect("its definition");
    let schema = serde_json::to_value(&crd.spec.versions[0].schema).expect("a schema");
    let mut found = Vec::new();
    words(&schema["openAPIV3Schema"]["properties"]["status"], "/status", &mut found);
    found
}

/// The sample as it is read when a later version has written a word that is not known here.
fn with_novel(sample: &Value, at: &str) -> Result<Value, serde_json::Error> {
    let mut later = sample.clone();
    *later.pointer_mut(at).unwrap_or_else(|| panic!("the sample of {} has no {at}", sample["kind"])) = json!("Novel");
    read(&later)
}

#[test]
fn every_word_of_a_status_that_only_a_later_version_knows_is_unknown_and_may_be_written_back() {
    for sample in samples() {
        let before = read(&sample).expect("what is known is read");
        for (at, words) in written(&sample).into_iter().filter(|(at, _)| !ASKED_FOR.contains(&at.as_str())) {
            let mut read = with_novel(&sample, &at).unwrap_or_else(|error| panic!("{} {at}: {error}", sample["kind"]));
            let word = read.pointer(&at).and_then(Value::as_str).expect("a word").to_owned();
            assert!(word.eq_ignore_ascii_case("unknown"), "{} {at}: {word}", sample["kind"]);
            assert!(words.contains(&word), "{} {at}: the API server takes only {words:?}", sample["kind"]);
            *read.pointer_mut(&at).expect("a word") = before.pointer(&at).expect("a word").clone();
            assert_eq!(read, before, "{at}: nothing else is lost");
        }
    }
}

#[test]
fn what_an_operator_writes_into_a_spec_is_read_as_well_and_nobody_can_ask_for_what_is_unknown() {
    let crds = serde_json::to_value(crds::all()).expect("definitions");
    for (kind, at) in [("Replica", "/spec/origin/reason"), ("Failover", "/spec/kind")] {
        let sample = samples().into_iter().find(|sample| sample["kind"] == kind).expect("a sample");
        let read = with_novel(&sample, at).expect("it is read");
        assert_eq!(read.pointer(at), Some(&json!("Unknown")), "{kind}");
        let crd = crds.as_array().into_iter().flatten().find(|crd| crd["spec"]["names"]["kind"] == kind);
        let schema = &crd.expect("its definition")["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let property = at.replace('/', "/properties/");
        let words = schema.pointer(&format!("{property}/enum")).and_then(Value::as_array).expect("a few words");
        assert!(!words.contains(&json!("Unknown")), "{kind}: {words:?}");
    }
}

#[test]
fn what_a_person_asks_for_is_not_guessed() {
    for (kind, at, known, novel) in [
        ("Shard", "/spec/failover", json!({ "mode": "Manual" }), json!({ "mode": "Novel" })),
        ("Shard", "/spec/deletionPolicy", json!("Delete"), json!("Novel")),
        ("Datastore", "/spec/drills", json!({ "faults": ["Kill"] }), json!({ "faults": ["Kill", "Novel"] })),
        ("Consumer", "/spec/start", json!("Earliest"), json!("Novel")),
        ("Drill", "/spec/fault", json!("Wedge"), json!("Novel")),
        ("Drill", "/status/lastRun/fault", json!("Wedge"), json!("Novel")),
    ] {
        let mut sample = samples().into_iter().find(|sample| sample["kind"] == kind).expect("a sample");
        let (parent, name) = at.rsplit_once('/').expect("a pointer");
        for (word, is_read) in [(known, true), (novel, false)] {
            sample.pointer_mut(parent).expect("an object")[name] = word;
            assert_eq!(read(&sample).is_ok(), is_read, "{kind}: {}", sample.pointer(at).expect("a word"));
        }
    }
}
