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
