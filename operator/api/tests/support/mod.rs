//! Objects to test with, and the rules of a kind evaluated as the API server would.
#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::BTreeSet;
use std::sync::LazyLock;

use kube::CustomResourceExt;
use kube::core::cel::{ErrorKind, ValidationError, Validator};
use serde_json::{Value, json};
use understudy_api::{Consumer, Datastore, Failover, Replica, Shard};

/// The kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    Datastore,
    Shard,
    Replica,
    Consumer,
    Failover,
}

impl Base {
    pub const ALL: [Self; 5] = [Self::Datastore, Self::Shard, Self::Replica, Self::Consumer, Self::Failover];

    pub fn of(kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|base| format!("{base:?}") == kind)
    }
}

/// A valid object with little in it.
pub fn base(kind: Base) -> Value {
    let spec = match kind {
        Base::Datastore => json!({
            "shards": 2,
            "shardTemplate": { "mysql": { "image": "mysql:8.4" }, "storage": { "size": "10Gi" } },
            "kafka": { "bootstrapServers": "kafka-0:9092,kafka-1:9092", "topic": "metrics" },
            "gateway": { "tokens": { "name": "metrics-tokens" } },
            "query": {},
        }),
        Base::Shard => json!({ "mysql": { "image": "mysql:8.4" }, "storage": { "size": "10Gi" } }),
        Base::Replica => json!({ "shard": "metrics-0", "serverId": 7 }),
        Base::Consumer => json!({ "datastore": "metrics" }),
        Base::Failover => json!({ "shard": "metrics-0" }),
    };
    json!({ "apiVersion": "understudy.dev/v1alpha1", "kind": format!("{kind:?}"), "metadata": { "name": "metrics-0" }, "spec": spec })
}

/// The object with these fields set, by JSON pointer; `null` takes a field away.
pub fn with(mut object: Value, fields: &[(&str, Value)]) -> Value {
    for (pointer, value) in fields {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let parent = object.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        match value {
            Value::Null => drop(parent.remove(name)),
            value => drop(parent.insert(name.to_owned(), value.clone())),
        }
    }
    object
}

/// The schema of a kind, made once: it is large.
pub fn schema(kind: Base) -> &'static Value {
    static SCHEMAS: LazyLock<Vec<Value>> = LazyLock::new(|| Base::ALL.into_iter().map(make_schema).collect());
    &SCHEMAS[kind as usize]
}

fn make_schema(kind: Base) -> Value {
    let crd = match kind {
        Base::Datastore => Datastore::crd(),
        Base::Shard => Shard::crd(),
        Base::Replica => Replica::crd(),
        Base::Consumer => Consumer::crd(),
        Base::Failover => Failover::crd(),
    };
    serde_json::to_value(crd.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap()).unwrap()
}

/// The rules that this object, or this change, breaks. Anything but a rule that says no is a fault of the rule.
pub fn breaches(kind: Base, object: &Value, old: Option<&Value>) -> Vec<ValidationError> {
    let found = match Validator::new().validate_with_defaults(schema(kind), object, old) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.into_vec(),
    };
    for error in &found {
        assert!(
            error.kind == ErrorKind::ValidationFailure,
            "{kind:?}: {} at {}: {}",
            error.rule,
            error.field_path,
            error.message
        );
    }
    found
}

/// Every rule of a kind.
pub fn rules_of(kind: Base) -> BTreeSet<String> {
    fn walk(value: &Value, into: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => {
                for rule in object.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten() {
                    into.insert(rule["rule"].as_str().unwrap().to_owned());
                    assert!(rule.get("message").or(rule.get("messageExpression")).is_some(), "{rule} has no message");
                }
                object.values().for_each(|value| walk(value, into));
            }
            Value::Array(items) => items.iter().for_each(|value| walk(value, into)),
            _ => {}
        }
    }
    let mut rules = BTreeSet::new();
    walk(schema(kind), &mut rules);
    rules
}
