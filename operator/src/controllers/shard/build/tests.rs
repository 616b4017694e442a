//! What a shard's objects are, case by case.

use serde_json::{Value, json};
use understudy_api::{Replica, Shard};
use understudy_wire::order::Fault;

use super::*;

fn shard(spec: Value) -> Shard {
    let mut object = json!({
        "apiVersion": "understudy.dev/v1alpha1", "kind": "Shard",
        "metadata": {
            "name": "metrics-0", "namespace": "prod", "uid": "11111111-0000",
            "labels": { "understudy.dev/datastore": "metrics" },
        },
        "spec": { "mysql": { "image": "mysql:9.7.4" }, "storage": { "size": "10Gi" } },
    });
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    serde_json::from_value(object).unwrap()
}

fn replica(avoid: &[&str]) -> Replica {
    serde_json::from_value(json!({
        "apiVersion": "understudy.dev/v1alpha1", "kind": "Replica",
        "metadata": { "name": "metrics-0-k7x2", "namespace": "prod", "uid": "22222222-0000" },
        "spec": { "shard": "metrics-0", "serverId": 7, "avoidNodes": avoid },
    }))
    .unwrap()
}

fn surroundings() -> Surroundings {
    Surroundings {
        image: "understudy:0.1.0".to_owned(),
        pull_policy: "IfNotPresent".to_owned(),
        api_server: Some("10.96.0.1:443".to_owned()),
    }
}

#[test]
fn a_pod_is_what_it_was_when_it_was_reviewed() {
    let shard = shard(json!({ "mysql": {
        "image": "mysql:9.7.4",
        "config": { "innodb_buffer_pool_size": "128M" },
        "resources": { "requests": { "cpu": 1, "memory": "1Gi" } },
    }}));
    insta::assert_yaml_snapshot!("pod", pod(&shard, &replica(&["node-3"]), Role::Spare, &surroundings()));
}

#[test]
fn whatever_a_manager_stopped_ends_with_it_and_what_it_wrote_down_stays_as_long_as_the_pod() {
    let spec = pod(&shard(json!({})), &replica(&[]), Role::Spare, &surroundings()).spec.unwrap();
    assert_eq!(
        (spec.share_process_namespace, spec.host_pid),
        (None, None),
        "it is process 1, and the kernel ends the rest"
    );
    assert!(spec.containers[0].command.as_ref().unwrap()[0].ends_with("/understudy-instance"));
    let scratch = spec.volumes.unwrap().into_iter().find(|volume| volume.name == "run").unwrap();
    assert!(scratch.empty_dir.is_some());
}

#[test]
fn everything_around_a_shard_is_what_it_was_when_it_was_reviewed() {
    let shard = shard(json!({}));
    insta::assert_yaml_snapshot!("config", config_map(&shard));
    insta::assert_yaml_snapshot!("primary_service", primary_service(&shard));
    insta::assert_yaml_snapshot!("standbys_service", standbys_service(&shard));
    insta::assert_yaml_snapshot!("budget", budget(&shard));
}

#[test]
fn a_volume_has_no_owner_whatever_the_policy_and_the_uid_of_its_shard() {
    for policy in ["Retain", "Delete"] {
        let claim = claim(&shard(json!({ "deletionPolicy": policy })), &replica(&[]), Role::Spare);
        assert_eq!(claim.metadata.owner_references, None, "{policy}");
        assert_eq!(claim.metadata.labels.unwrap()["understudy.dev/shard-uid"], "11111111-0000", "{policy}");
    }
}

#[test]
fn a_pod_or_a_volume_that_only_has_the_name_is_somebody_elses() {
    let (shard, replica) = (shard(json!({})), replica(&[]));
    let pod = pod(&shard, &replica, Role::Spare, &surroundings());
    let claim = claim(&shard, &replica, Role::Spare);
    assert!(is_pod_of(&pod, &replica) && is_claim_of(&claim, &shard));
    let mut other_pod = pod.clone();
    other_pod.metadata.owner_references = None;
    assert!(!is_pod_of(&other_pod, &replica), "our labels, and nobody's pod");
    let mut other_shard = shard.clone();
    other_shard.metadata.uid = Some("33333333-0000".to_owned());
    assert!(!is_claim_of(&claim, &other_shard), "of an earlier Shard of the name");
    let mut bare = claim.clone();
    bare.metadata.labels = None;
    assert!(!is_claim_of(&bare, &shard), "a person's");
    let mut older = claim;
    older.metadata.labels.as_mut().unwrap().remove("understudy.dev/shard-uid");
    assert!(is_claim_of(&older, &shard), "made before there was this label");
}

#[test]
fn the_last_word_in_the_configuration_is_the_operators() {
    let shard = shard(json!({ "mysql": { "image": "m", "config": { "max_connections": "90", "sync_binlog": "0" } } }));
    let text = config_map(&shard).data.unwrap().remove(config_file()).unwrap();
    let value = |name: &str| {
        let lines = text.lines().filter_map(|line| line.split_once(" = "));
        lines.filter(|(found, _)| *found == name).map(|(_, value)| value.to_owned()).next_back()
    };
    assert_eq!(value("sync_binlog").as_deref(), Some("1"));
    assert_eq!(value("max_connections").as_deref(), Some("90"));
    assert_eq!(value("binlog_expire_logs_seconds").as_deref(), Some("21600"), "six hours, if nobody says otherwise");
    assert_eq!(text.matches("max_connections").count(), 1);
}

#[test]
fn a_pod_avoids_nodes_in_every_alternative_that_the_spec_allows() {
    let shard = shard(json!({ "podTemplate": { "affinity": { "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
            { "matchExpressions": [{ "key": "disk", "operator": "In", "values": ["ssd"] }] },
            { "matchExpressions": [{ "key": "disk", "operator": "In", "values": ["nvme"] }] },
        ]},
    }}}}));
    let pod = pod(&shard, &replica(&["a", "b"]), Role::Spare, &surroundings());
    let affinity = pod.spec.unwrap().affinity.unwrap().node_affinity.unwrap();
    let terms = affinity.required_during_scheduling_ignored_during_execution.unwrap().node_selector_terms;
    assert_eq!(terms.len(), 2);
    for term in terms {
        assert_eq!(term.match_expressions.unwrap().len(), 1);
        let avoided: Vec<_> = term.match_fields.unwrap().into_iter().flat_map(|field| field.values.unwrap()).collect();
        assert_eq!(avoided, ["a", "b"]);
    }
}

#[test]
fn a_fingerprint_changes_with_what_needs_a_new_pod_and_with_nothing_else() {
    let before = pod(&shard(json!({})), &replica(&["node-3"]), Role::Standby, &surroundings());
    let before = &before.annotations()[FINGERPRINT];
    for (case, spec, same) in [
        ("more replicas", json!({ "replicas": 5 }), true),
        ("paused", json!({ "paused": true }), true),
        ("a larger volume, which is no matter of the pod", json!({ "storage": { "size": "20Gi" } }), true),
        ("another mode", json!({ "failover": { "mode": "Manual" } }), true),
        (
            "more memory",
            json!({ "mysql": { "image": "mysql:9.7.4", "resources": { "limits": { "memory": "2Gi" } } } }),
            false,
        ),
        ("another image", json!({ "mysql": { "image": "mysql:9.8.0" } }), false),
        ("a label of a person's", json!({ "podTemplate": { "labels": { "team": "storage" } } }), false),
        ("another interval of probes", json!({ "failover": { "detection": { "probeIntervalMs": 300 } } }), false),
        ("a setting", json!({ "mysql": { "image": "mysql:9.7.4", "config": { "max_connections": "9" } } }), false),
        ("no fault that drills may do", json!({ "drills": { "faults": [] } }), true),
        ("a fault that drills may do", json!({ "drills": { "faults": ["Kill"] } }), false),
    ] {
        assert_eq!(*before == fingerprint(&shard(spec), &surroundings()), same, "{case}");
    }
    let newer = Surroundings { image: "understudy:0.2.0".to_owned(), ..surroundings() };
    assert_ne!(*before, fingerprint(&shard(json!({})), &newer), "the instance manager of a newer operator");
}

#[test]
fn a_manager_is_told_what_drills_may_do_in_words_that_it_reads() {
    let told = |faults: Value| {
        let pod = pod(&shard(json!({ "drills": { "faults": faults } })), &replica(&[]), Role::Spare, &surroundings());
        let variables = pod.spec.unwrap().containers.remove(0).env.unwrap();
        variables.into_iter().find(|variable| variable.name == DRILLS).and_then(|variable| variable.value)
    };
    assert_eq!(told(json!([])), None);
    let told = told(json!(["Kill", "Freeze", "Wedge"])).unwrap();
    let read: Vec<Fault> = told.split(',').map(|word| word.parse().unwrap()).collect();
    assert_eq!(read, Fault::ALL);
}

#[test]
fn a_volume_is_smaller_than_the_spec_asks_by_its_amount_and_not_by_its_spelling() {
    for (made_with, now, expected) in [
        ("10Gi", "10Gi", false),
        ("10Gi", "20Gi", true),
        ("10Gi", "10240Mi", false),
        ("10Gi", "10737418240", false),
        ("10Gi", "10.5Gi", true),
        ("1e9", "1G", false),
        ("500M", "1Gi", true),
        ("30Gi", "20Gi", false),
    ] {
        let claim = claim(&shard(json!({ "storage": { "size": made_with } })), &replica(&[]), Role::Spare);
        let now_asked = shard(json!({ "storage": { "size": now } }));
        assert_eq!(is_smaller(&claim, &now_asked), expected, "{made_with}, and now {now}");
    }
}

#[test]
fn a_person_cannot_take_over_our_labels_on_a_pod() {
    let shard = shard(json!({ "podTemplate": { "labels": { "understudy.dev/role": "primary", "team": "storage" } } }));
    let labels = pod(&shard, &replica(&[]), Role::Spare, &surroundings()).metadata.labels.unwrap();
    assert_eq!(labels["understudy.dev/role"], "spare");
    assert_eq!(labels["team"], "storage");
}

fn config_file() -> &'static str {
    super::config::FILE
}
