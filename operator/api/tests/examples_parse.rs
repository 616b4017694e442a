//! Every example is what its kind allows: known fields only, types that parse, no rule broken. Beside our kinds there are pods, and what
//! restricts who may do what.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::path::{Path, PathBuf};

use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use support::{Base, breaches, schema};

fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, into);
        } else if path.extension().is_some_and(|e| e == "yaml") {
            into.push(path);
        }
    }
}

/// Every document of every example, with the file each is from.
fn documents() -> Vec<(PathBuf, Value)> {
    let mut paths = Vec::new();
    files(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples"), &mut paths);
    let mut all = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        all.extend(documents.into_iter().map(|document| (path.clone(), document)));
    }
    all
}

fn is_ours(document: &Value) -> bool {
    document["apiVersion"].as_str().is_some_and(|version| version.starts_with("understudy.dev/"))
}

/// Our objects among them.
fn objects() -> Vec<(PathBuf, Base, Value)> {
    let mut objects = Vec::new();
    for (path, document) in documents().into_iter().filter(|(_, document)| is_ours(document)) {
        let kind = document["kind"].as_str().unwrap();
        let kind = Base::of(kind).unwrap_or_else(|| panic!("{}: {kind}", path.display()));
        objects.push((path, kind, document));
    }
    objects
}

/// Fields that the schema does not know; the API server would drop them.
fn unknown_fields(schema: &Value, value: &Value, at: &str, into: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = format!("{at}.{name}");
                match (&schema["properties"][name], &schema["additionalProperties"]) {
                    (Value::Null, Value::Null) => into.push(path),
                    (Value::Null, any) => unknown_fields(any, value, &path, into),
                    (known, _) => unknown_fields(known, value, &path, into),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| unknown_fields(&schema["items"], item, at, into)),
        _ => {}
    }
}

#[test]
fn examples_parse() {
    let objects = objects();
    assert!(objects.len() >= 4, "{} objects found", objects.len());
    for (path, kind, object) in objects {
        let spec = object["spec"].clone();
        let parsed = match kind {
            Base::Datastore => serde_json::from_value::<understudy_api::v1alpha1::DatastoreSpec>(spec).err(),
            Base::Shard => serde_json::from_value::<understudy_api::v1alpha1::ShardSpec>(spec).err(),
            Base::Replica => serde_json::from_value::<understudy_api::v1alpha1::ReplicaSpec>(spec).err(),
            Base::Consumer => serde_json::from_value::<understudy_api::v1alpha1::ConsumerSpec>(spec).err(),
            Base::Failover => serde_json::from_value::<understudy_api::v1alpha1::FailoverSpec>(spec).err(),
            Base::Drill => serde_json::from_value::<understudy_api::v1alpha1::DrillSpec>(spec).err(),
        };
        assert!(parsed.is_none(), "{}: {}", path.display(), parsed.unwrap());
    }
}

#[test]
fn examples_have_no_unknown_field() {
    for (path, kind, object) in objects() {
        let mut unknown = Vec::new();
        unknown_fields(&schema(kind)["properties"]["spec"], &object["spec"], "spec", &mut unknown);
        assert!(unknown.is_empty(), "{}: {unknown:?}", path.display());
    }
}

#[test]
fn examples_break_no_rule() {
    for (path, kind, object) in objects() {
        let breaches = breaches(kind, &object, None);
        assert!(breaches.is_empty(), "{}: {breaches:?}", path.display());
    }
}

/// What the types of Kubernetes do not know they drop, so a misspelt field does not come back.
fn read<T: DeserializeOwned + Serialize>(path: &Path, document: &Value) -> T {
    let path = path.display();
    let object: T = serde_json::from_value(document.clone()).unwrap_or_else(|e| panic!("{path}: {e}"));
    assert_eq!(&serde_json::to_value(&object).unwrap(), document, "{path}");
    object
}

/// What is not ours, of one kind.
fn of_kind<T: DeserializeOwned + Serialize>(kind: &str) -> Vec<(PathBuf, T)> {
    let others = documents().into_iter().filter(|(_, document)| !is_ours(document) && document["kind"] == kind);
    let found: Vec<_> = others.map(|(path, document)| (path.clone(), read(&path, &document))).collect();
    assert!(!found.is_empty(), "there is no {kind}: this test looks at nothing");
    found
}

#[test]
fn what_is_not_ours_is_of_a_kind_that_a_test_looks_at() {
    let known =
        ["Pod", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "ClusterRole", "ClusterRoleBinding"];
    for (path, document) in documents().into_iter().filter(|(_, document)| !is_ours(document)) {
        let kind = document["kind"].as_str().unwrap();
        assert!(known.contains(&kind), "{}: {kind}", path.display());
    }
}

#[test]
fn policies_and_roles_are_of_known_fields_and_name_each_other() {
    let name = |name: Option<String>| name.unwrap();
    let policies: Vec<_> = of_kind::<ValidatingAdmissionPolicy>("ValidatingAdmissionPolicy")
        .into_iter()
        .map(|(_, of)| name(of.metadata.name))
        .collect();
    for (path, binding) in of_kind::<ValidatingAdmissionPolicyBinding>("ValidatingAdmissionPolicyBinding") {
        let spec = binding.spec.unwrap();
        assert!(policies.contains(&name(spec.policy_name)), "{}", path.display());
        assert_eq!(spec.validation_actions, Some(vec!["Deny".to_owned()]), "{}", path.display());
    }
    let roles: Vec<_> =
        of_kind::<ClusterRole>("ClusterRole").into_iter().map(|(_, of)| name(of.metadata.name)).collect();
    for (path, binding) in of_kind::<ClusterRoleBinding>("ClusterRoleBinding") {
        assert!(roles.contains(&binding.role_ref.name), "{}", path.display());
    }
}

#[test]
fn pods_are_of_known_fields_that_the_restricted_standard_allows() {
    for (path, pod) in of_kind::<Pod>("Pod") {
        let path = path.display();
        let spec = pod.spec.unwrap();
        let of_pod = spec.security_context.unwrap();
        assert!(of_pod.run_as_non_root == Some(true) && of_pod.seccomp_profile.is_some(), "{path}");
        assert!(!spec.containers.is_empty(), "{path}");
        for container in spec.containers {
            let security = container.security_context.unwrap();
            assert_eq!(security.allow_privilege_escalation, Some(false), "{path}");
            assert_eq!(security.capabilities.unwrap().drop, Some(vec!["ALL".to_owned()]), "{path}");
        }
    }
}

#[test]
fn a_misspelt_field_would_be_noticed() {
    let mut unknown = Vec::new();
    let spec = serde_json::json!({ "mysql": { "image": "a", "confg": {} }, "storage": { "size": "1Gi" } });
    unknown_fields(&schema(Base::Shard)["properties"]["spec"], &spec, "spec", &mut unknown);
    assert_eq!(unknown, ["spec.mysql.confg"]);
}
