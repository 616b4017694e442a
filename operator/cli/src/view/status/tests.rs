//! What `status` shows of stores of many kinds.

use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::*;
use crate::view::fixtures::{self, at, named, object, of_datastore, with};

fn datastore(name: &str, ready: &str) -> DynamicObject {
    object(json!({
        "apiVersion": "understudy.dev/v1alpha1", "kind": "Datastore", "metadata": { "name": name },
        "spec": { "shards": 1 },
        "status": {
            "shardsReady": "1/1", "worst": { "state": "Healthy" }, "delay": "0s", "gateway": { "ready": "2/2" },
            "conditions": [{ "type": "Ready", "status": ready, "reason": "R", "message": "the topic is not there" }],
            "availability": { "windowDays": 30, "unavailableSeconds": 12.4, "failovers": 3, "switchovers": 1 },
        },
    }))
}

fn consumer(name: &str, datastore: &str) -> Consumer {
    Consumer::read(&object(json!({
        "metadata": { "name": name }, "spec": { "datastore": datastore },
        "status": {
            "ready": "2/2", "running": "8/8", "lag": "1s", "lagRecords": 17, "deadLetters": 0,
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    })))
}

fn store(shards: &[DynamicObject]) -> Store {
    Store {
        namespace: "prod".into(),
        operator: fixtures::leading(),
        datastores: vec![Datastore::read(&datastore("metrics", "True"))],
        shards: shards.iter().map(Shard::read).collect(),
        consumers: vec![consumer("metrics-store", "metrics")],
        ..Store::default()
    }
}

fn shown(store: &Store, extent: Extent) -> Vec<String> {
    screen(store, at(0)).text(extent).words()
}

fn has(lines: &[String], expected: &str) {
    assert!(lines.iter().any(|line| line.contains(expected)), "{expected} in {lines:#?}");
}

#[test]
fn a_store_that_is_well_is_one_screen() {
    let store = store(&[of_datastore(fixtures::healthy(), "metrics")]);
    let lines = shown(&store, Extent::Screen);
    assert_eq!(lines[0], format!("1 shard in namespace prod, {}: everything is well", point(at(0))));
    has(&lines, "DATASTORE SHARDS VERDICT GATEWAY DELAY UNAVAILABLE");
    has(&lines, "metrics 1/1 Healthy 2/2 0s 12.4 s in 30d");
    has(&lines, "m m-a 4 3/3 Healthy 12d 2 0s 12d 4.1s");
    has(&lines, "metrics-store 2/2 8/8 1s 17 0");
    assert!(screen(&store, at(0)).is_well());
    assert!(!lines.iter().any(|line| line.contains("not ready") || line.contains("under way")), "{lines:#?}");
}

#[test]
fn what_is_held_back_and_a_mode_that_leaves_it_to_a_person_stand_beside_the_verdict() {
    let fields = [
        ("/spec/failover/mode", json!("Manual")),
        (
            "/status/withheld",
            json!([{ "reason": "LastCopyKept", "about": "m-b" }, { "reason": "LastCopyKept", "about": "m-c" }]),
        ),
    ];
    let lines = shown(&store(&[with(fixtures::healthy(), &fields)]), Extent::Screen);
    has(&lines, "GAP MODE WITHHELD");
    has(&lines, "4.1s Manual LastCopyKept");
}

#[test]
fn what_is_sick_comes_first_and_is_said_in_words() {
    let mut store = store(&[fixtures::healthy(), named(fixtures::stuck(), "z"), named(fixtures::unseen(), "y")]);
    store.failovers = vec![
        Failover::read(&fixtures::record()),
        Failover::read(&named(with(fixtures::record(), &[("/status/phase", "Rebuilding".into())]), "z-5")),
    ];
    let lines = shown(&store, Extent::Screen);
    has(&lines, "2 things are not well");
    has(&lines, "shard z is Stuck (VolumeStalled)");
    has(&lines, "shard y has no verdict");
    let first = lines.iter().position(|line| line.starts_with("SHARD")).unwrap();
    let names: Vec<_> = lines[first + 1..first + 4].iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(names, ["y", "z", "m"]);
    has(&lines, "failover to m-b, epoch 5");
    has(&lines, "z-5 m Failover Rebuilding VolumeStalled m-a m-b 1m");
    assert!(!lines.iter().any(|line| line.starts_with("m-5")), "a closed record is not under way: {lines:#?}");
    assert!(!screen(&store, at(0)).is_well());
}

#[test]
fn one_of_two_datastores_is_shown_alone() {
    let mut store = store(&[
        of_datastore(fixtures::healthy(), "metrics"),
        of_datastore(named(fixtures::stuck(), "logs-0"), "logs"),
        named(fixtures::healthy(), "by-hand"),
    ]);
    store.datastores.push(Datastore::read(&datastore("logs", "False")));
    store.consumers.push(consumer("logs-store", "logs"));
    let both = shown(&store, Extent::Screen);
    has(&both, "datastore logs is not ready: the topic is not there");
    has(&both, "by-hand");
    assert!(store.keep("logs"));
    let one = shown(&store, Extent::Screen);
    has(&one, "logs-0");
    has(&one, "logs-store");
    assert!(!one.iter().any(|line| line.contains("metrics") || line.contains("by-hand")), "{one:#?}");
    assert!(!store.keep("nobody"));
}

#[test]
fn a_store_of_words_that_are_not_known_is_shown_and_is_not_well() {
    let odd = with(
        fixtures::healthy(),
        &[
            ("/status/verdict/state", "Bewitched".into()),
            ("/status/replicas", "none".into()),
            ("/status/epoch", "four".into()),
        ],
    );
    let lines = shown(&store(&[odd]), Extent::Screen);
    has(&lines, "shard m is Bewitched");
}

#[test]
fn an_empty_namespace_says_so() {
    let empty = Store { namespace: "prod".into(), operator: fixtures::leading(), ..Store::default() };
    let lines = shown(&empty, Extent::Screen);
    assert_eq!(lines[0], format!("0 shards in namespace prod, {}: nothing is there", point(at(0))));
    has(&lines, "-n and --context take another place");
    assert!(!screen(&empty, at(0)).is_well(), "who watches the wrong namespace must not hear that all is well");
}

#[test]
fn when_no_operator_acts_that_is_said_first_and_nothing_is_well() {
    let mut store = store(&[of_datastore(fixtures::healthy(), "metrics")]);
    store.operator = fixtures::silent();
    let lines = shown(&store, Extent::Screen);
    has(&lines[..1], "1 thing is not well");
    has(&lines[1..2], "understudy-a holds the Lease understudy-system/understudy and has not renewed it for 12m");
    has(&lines[1..2], "`kubectl get deployments,pods -n understudy-system");
    let screen = screen(&store, at(0));
    assert!(!screen.is_well());
    let json = serde_json::to_value(&screen).unwrap();
    assert_eq!(
        json["operator"],
        json!({
            "state": "Silent", "lease": "understudy-system/understudy", "holder": "understudy-a", "forSeconds": 720,
        })
    );
}

#[test]
fn who_may_not_know_whether_an_operator_acts_is_told_that_and_everything_else() {
    let mut store = store(&[of_datastore(fixtures::healthy(), "metrics")]);
    store.operator = Leader::Unknown { why: "leases is forbidden".into() };
    let lines = shown(&store, Extent::Screen);
    has(&lines[..1], "everything is well");
    has(&lines, "whether an operator acts is not known");
    assert!(screen(&store, at(0)).is_well());
}

#[test]
fn a_huge_store_is_cut_and_the_sick_ones_are_not_cut_off() {
    let mut shards: Vec<_> = (0..64).map(|n| named(fixtures::healthy(), &format!("m-{n:02}"))).collect();
    shards[63] = named(fixtures::stuck(), "m-63");
    let store = store(&shards);
    let lines = shown(&store, Extent::Screen);
    has(&lines, "m-63 m-a 5 2/3 Stuck (VolumeStalled)");
    has(&lines, "… and 44 more; --all shows them");
    assert!(lines.len() < 40, "{}", lines.len());
    assert!(shown(&store, Extent::All).len() > 64);
    let json = serde_json::to_value(screen(&store, at(0))).unwrap();
    assert_eq!(json["shards"].as_array().unwrap().len(), 64, "JSON is complete");
}

#[test]
fn a_replica_that_is_not_ready_says_why_and_a_condemned_one_is_not_waited_for() {
    let replica = |name: &str, more: &[(&str, Value)]| {
        let replica = object(json!({
            "metadata": { "name": name, "creationTimestamp": at(-60) }, "spec": { "shard": "m" },
            "status": {
                "role": "spare", "phase": "Building", "node": "n1", "rebuild": { "stage": "Clone", "summary": "43%, 20s left" },
                "conditions": [{ "type": "Ready", "status": "False", "message": "is being filled" }],
            },
        }));
        Replica::read(&with(replica, more))
    };
    let ready = json!([{ "type": "Ready", "status": "True" }]);
    let mut store = store(&[fixtures::healthy()]);
    store.replicas = vec![
        replica("m-d", &[]),
        replica("m-b", &[("/status/conditions", ready)]),
        replica("m-old", &[("/spec/condemned", json!({ "reason": "Stuck" }))]),
        replica("m-e", &[("/status", Value::Null)]),
    ];
    let lines = shown(&store, Extent::Screen);
    has(&lines, "m-d m spare Building n1 43%, 20s left 1m is being filled");
    has(&lines, "m-e m Pending");
    assert!(!lines.iter().any(|line| line.starts_with("m-b ") || line.starts_with("m-old")), "{lines:#?}");
}

#[test]
fn a_drill_that_comes_next_is_first_and_a_list_that_was_cut_is_told() {
    let drill = |name: &str, next: Option<i64>| Drill {
        name: name.into(),
        fault: Some("freeze".into()),
        next: next.map(at),
        ..Drill::default()
    };
    let mut store = store(&[]);
    store.drills = vec![drill("never", None), drill("later", Some(7_200)), drill("soon", Some(60))];
    store.cut_off = vec!["failovers"];
    let lines = shown(&store, Extent::Screen);
    let begin = lines.iter().position(|line| line == "Drills").unwrap();
    let names: Vec<_> = lines[begin + 2..begin + 5].iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(names, ["soon", "later", "never"]);
    has(&lines, "There are more failovers in this namespace than were read");
}

#[test]
fn json_has_all_of_what_is_shown() {
    let store = store(&[of_datastore(fixtures::stuck(), "metrics")]);
    let json = serde_json::to_value(screen(&store, at(0))).unwrap();
    for (pointer, value) in [
        ("/namespace", json!("prod")),
        ("/unwell/0", json!("shard m is Stuck (VolumeStalled)")),
        ("/datastores/0/gateway", json!("2/2")),
        ("/datastores/0/availability/unavailableSeconds", json!(12.4)),
        ("/shards/0/verdict/cause", json!("VolumeStalled")),
        ("/shards/0/forSeconds", json!(7)),
        ("/shards/0/transition/record", json!("m-5")),
        ("/consumers/0/lagRecords", json!(17)),
        ("/openFailovers", json!([])),
    ] {
        assert_eq!(json.pointer(pointer), Some(&value), "{pointer} in {json:#}");
    }
}
