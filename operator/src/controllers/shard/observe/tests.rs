//! Whom a stage hears about a shard.

use std::sync::Arc;

use kube::core::DeserializeGuard;
use serde_json::json;

use super::*;

/// A shard with one replica's pod and one consumer's pod.
fn objects() -> Objects {
    let pod = |name: &str, ip: &str, labels: serde_json::Value| {
        let pod = json!({ "metadata": { "name": name, "labels": labels }, "status": { "podIP": ip } });
        let pod: KubePod = serde_json::from_value(pod).expect("a pod");
        Held::new(Arc::new(DeserializeGuard(Ok(pod)))).expect("a well-formed pod")
    };
    let spec = json!({ "mysql": { "image": "mysql:9" }, "storage": { "size": "1Gi" } });
    let mut shard = Shard::new("m-0", serde_json::from_value(spec).expect("a spec"));
    shard.status = Some(api::ShardStatus { epoch: 7, ..api::ShardStatus::default() });
    let consumer = json!({ (labels::CONSUMER): "m-store" });
    Objects {
        shard,
        replicas: vec![],
        pods: [("m-0-a".to_owned(), pod("m-0-a", "10.0.0.7", json!({})))].into(),
        claims: HashMap::new(),
        consumer_pods: vec![pod("m-store-0-x", "10.0.0.8", consumer)],
        consumers: vec![],
        feeds: BTreeMap::new(),
        failovers: vec![],
        nodes: vec![],
        obstacles: vec![],
        fingerprint: String::new(),
    }
}

#[test]
fn whoever_is_dialled_is_known_by_the_name_under_which_it_reports() {
    let Wanted { speakers, epoch } = objects().endpoints();
    assert_eq!((speakers.len(), epoch), (2, Epoch(7)));
    for (pod, observer, address) in [
        ("m-0-a", Observer::Manager { replica: ReplicaName::new("m-0-a") }, "10.0.0.7:8440"),
        ("m-store-0-x", Observer::Consumer { pod: "m-store-0-x".to_owned() }, "10.0.0.8:8450"),
    ] {
        let speaker = &speakers[pod];
        assert_eq!((&speaker.observer, speaker.endpoint.address.to_string()), (&observer, address.to_owned()), "{pod}");
    }
}

#[test]
fn a_pod_that_failed_or_succeeded_ended() {
    for (case, status, expected) in [
        ("evicted", json!({ "phase": "Failed", "reason": "Evicted" }), PodPhase::Ended),
        ("its containers finished", json!({ "phase": "Succeeded" }), PodPhase::Ended),
        ("running", json!({ "phase": "Running" }), PodPhase::Alive),
        ("waiting", json!({ "phase": "Pending" }), PodPhase::Alive),
        ("its node is not heard", json!({ "phase": "Unknown" }), PodPhase::Alive),
        ("nothing known", json!({}), PodPhase::Alive),
    ] {
        let pod = json!({ "metadata": { "name": "m-a" }, "status": status });
        let pod: KubePod = serde_json::from_value(pod).expect("a pod");
        assert_eq!(phase(&pod), expected, "{case}");
    }
}

#[test]
fn a_node_is_barred_by_a_taint_that_is_not_tolerated_and_by_labels_that_it_lacks() {
    let barred = |taints: serde_json::Value, template: serde_json::Value| {
        let node = json!({
            "metadata": { "name": "n-1", "labels": { "disk": "fast", "cores": "16" } },
            "spec": { "taints": taints },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
        });
        let node: KubeNode = serde_json::from_value(node).expect("a node");
        let template: api::PodTemplate = serde_json::from_value(template).expect("a template");
        let Node { schedulable, barred, .. } = super::node(&node, &template);
        assert!(schedulable, "whoever tolerates it may run there");
        barred
    };
    let control_plane = || json!([{ "key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule" }]);
    let team = || json!([{ "key": "team", "value": "store", "effect": "NoExecute" }]);
    let preferred = json!([{ "key": "team", "effect": "PreferNoSchedule" }]);
    let tolerates = |toleration: serde_json::Value| json!({ "tolerations": [toleration] });
    let selects = |disk: &str| json!({ "nodeSelector": { "disk": disk } });
    let wants = |terms: serde_json::Value| {
        let required = json!({ "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } });
        json!({ "affinity": { "nodeAffinity": required } })
    };
    let label = |key: &str, operator: &str, values: &[&str]| {
        let wanted = json!({ "key": key, "operator": operator, "values": values });
        json!({ "matchExpressions": [wanted] })
    };
    let named = |name: &str| json!({ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [name] }] });
    for (case, taints, template, expected) in [
        ("nothing is asked for", json!([]), json!({}), false),
        ("a control plane", control_plane(), json!({}), true),
        (
            "its taint is tolerated",
            control_plane(),
            tolerates(json!({ "key": "node-role.kubernetes.io/control-plane", "operator": "Exists" })),
            false,
        ),
        ("every taint is", control_plane(), tolerates(json!({ "operator": "Exists" })), false),
        ("another effect is", control_plane(), tolerates(json!({ "operator": "Exists", "effect": "NoExecute" })), true),
        ("its value is", team(), tolerates(json!({ "key": "team", "value": "store" })), false),
        ("another value is", team(), tolerates(json!({ "key": "team", "value": "web" })), true),
        ("one that is only to be preferred", preferred, json!({}), false),
        ("it is selected", json!([]), selects("fast"), false),
        ("others are selected", json!([]), selects("slow"), true),
        ("In", json!([]), wants(json!([label("disk", "In", &["fast", "faster"])])), false),
        ("In, and it is another", json!([]), wants(json!([label("disk", "In", &["slow"])])), true),
        ("NotIn", json!([]), wants(json!([label("disk", "NotIn", &["fast"])])), true),
        ("NotIn, and it has none", json!([]), wants(json!([label("gpu", "NotIn", &["a100"])])), false),
        ("Exists", json!([]), wants(json!([label("gpu", "Exists", &[])])), true),
        ("DoesNotExist", json!([]), wants(json!([label("gpu", "DoesNotExist", &[])])), false),
        ("Gt", json!([]), wants(json!([label("cores", "Gt", &["8"])])), false),
        ("Lt", json!([]), wants(json!([label("cores", "Lt", &["8"])])), true),
        ("it is named", json!([]), wants(json!([named("n-1")])), false),
        ("another is named", json!([]), wants(json!([named("n-2")])), true),
        ("one of two alternatives", json!([]), wants(json!([named("n-2"), label("disk", "Exists", &[])])), false),
        ("an alternative that asks for nothing fits nothing", json!([]), wants(json!([{}])), true),
    ] {
        assert_eq!(barred(taints, template), expected, "{case}");
    }
}

#[test]
fn the_record_of_the_last_change_is_to_be_made_for_a_while_when_it_is_not_there() {
    let wall = Timestamp::from_second(1_800_000_000).expect("a time");
    let record = |name: &str, phase: &str| {
        let record = json!({
            "metadata": { "name": name },
            "spec": { "shard": "m-0", "kind": "Failover", "epoch": 7 },
            "status": { "phase": phase },
        });
        let record: Failover = serde_json::from_value(record).expect("a record");
        Held::new(Arc::new(DeserializeGuard(Ok(record)))).expect("a well-formed record")
    };
    let change = |record: Option<&str>, ago: i64| LastChange {
        kind: Kind::Failover,
        epoch: Epoch(7),
        from: Some(ReplicaName::new("m-0-a")),
        record: record.map(ToOwned::to_owned),
        cause: None,
        at: Some(Timestamp::from_second(1_800_000_000 - ago).expect("a time")),
    };
    for (case, last, there, expected) in [
        ("it is not", change(Some("m-0-7"), 20), vec![], Some("m-0-7")),
        ("only an older one is", change(Some("m-0-7"), 20), vec![record("m-0-6", "Closed")], Some("m-0-7")),
        ("it is, and closed", change(Some("m-0-7"), 20), vec![record("m-0-7", "Closed")], None),
        ("it is not, and has not been for long", change(Some("m-0-7"), 600), vec![], None),
        ("the change has none", change(None, 20), vec![], None),
    ] {
        let objects = Objects { failovers: there, ..objects() };
        let primary = Some(ReplicaName::new("m-0-b"));
        let status = Status { primary: primary.clone(), last_change: Some(last), ..Status::default() };
        let found = records(&objects, &status, wall);
        let names: Vec<_> = found.iter().map(|record| record.name.as_str()).collect();
        assert_eq!(names, expected.into_iter().collect::<Vec<_>>(), "{case}");
        assert!(found.iter().all(|record| record.steps.is_empty() && record.to == primary), "{case}");
    }
}

#[test]
fn a_record_tells_which_epochs_were_claimed_in_it() {
    let entry = |step: &str, detail: &str| json!({ "step": step, "at": "2026-01-01T00:00:00.000000Z", "elapsedMs": 0, "detail": detail });
    let there: Failover = serde_json::from_value(json!({
        "metadata": { "name": "m-0-7" },
        "spec": { "shard": "m-0", "kind": "Failover", "epoch": 7 },
        "status": { "phase": "Promoting", "epoch": 9, "timeline": [
            entry("Decided", "epoch 7: Stopped"), entry("Claimed", "epoch 7: for m-0-b"),
            entry("Reprobed", "epoch 8: refused"), entry("Claimed", "epoch 9: for m-0-c"),
        ] },
    }))
    .expect("a record");
    let found = record(&there);
    assert_eq!((found.epoch, found.claimed), (Epoch(9), vec![Epoch(7), Epoch(9)]));
    assert_eq!(found.steps, ["Decided", "Claimed", "Reprobed", "Claimed"]);
}

#[test]
fn a_change_of_a_kind_that_only_a_later_operator_knows_is_brought_to_its_end_and_condemns_nobody_afterwards() {
    for (case, kind_is, to, expected) in [
        ("known", "Switchover", "m-0-b", Kind::Switchover),
        ("another replica", "Handshake", "m-0-b", Kind::Failover),
        ("the same one", "Handshake", "m-0-a", Kind::Confirm),
    ] {
        let mut shard = objects().shard;
        let told = json!({
            "primary": "m-0-a", "epoch": 8,
            "transition": { "kind": kind_is, "epoch": 8, "from": "m-0-a", "to": to },
            "lastFailover": { "name": "m-0-7", "kind": "Handshake", "epoch": 7 },
        });
        shard.status = Some(serde_json::from_value(told).expect("a status"));
        let seen = status(&shard);
        assert_eq!(seen.transition.map(|transition| transition.kind), Some(expected), "{case}");
        assert_eq!(seen.last_change.map(|change| change.kind), Some(Kind::Switchover), "{case}");
    }
}

#[test]
fn what_is_asked_of_a_later_operator_waits_for_it() {
    let asked = |kind: &str| {
        let request = json!({
            "apiVersion": "understudy.dev/v1alpha1", "kind": "Failover", "metadata": { "name": "please" },
            "spec": { "shard": "m-0", "kind": kind },
        });
        let request: Failover = serde_json::from_value(request).expect("a request");
        let there = Held::new(Arc::new(DeserializeGuard(Ok(request)))).expect("a well-formed request");
        let objects = Objects { failovers: vec![there], ..objects() };
        requests(&objects, &Status::default(), Timestamp::UNIX_EPOCH).len()
    };
    assert_eq!((asked("Switchover"), asked("Handshake")), (1, 0));
}
