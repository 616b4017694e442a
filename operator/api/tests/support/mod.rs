//! Objects to test with, and the rules of a kind evaluated as the API server would.
#![allow(dead_code, unused_imports, reason = "each test file uses a part")]

mod cases;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use kube::CustomResourceExt;
use kube::core::cel::{ErrorKind, ValidationError, Validator};
use serde_json::Value;
use understudy_api::{Consumer, Datastore, Drill, Failover, Replica, Shard};

pub use cases::{Base, base, cases, with};

impl Base {
    pub fn of(kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|base| format!("{base:?}") == kind)
    }
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
        Base::Drill => Drill::crd(),
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
