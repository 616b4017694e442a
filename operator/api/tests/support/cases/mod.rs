//! Sound objects, and what each rule must refuse. The end-to-end tests show the same to a real API server.

mod consumer;
mod datastore;
mod drill;
mod failover;
mod replica;
mod shard;

use serde_json::{Value, json};

/// The kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    Datastore,
    Shard,
    Replica,
    Consumer,
    Failover,
    Drill,
}

impl Base {
    pub const ALL: [Self; 6] =
        [Self::Datastore, Self::Shard, Self::Replica, Self::Consumer, Self::Failover, Self::Drill];
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
        Base::Drill => json!({ "datastore": "metrics", "schedule": "0 10 * * MON", "scope": { "kind": "Random" } }),
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

/// An object (the base of its kind with some fields set; `null` takes one away) that a rule must refuse.
pub struct Case {
    pub name: &'static str,
    pub kind: Base,
    pub old: Option<Vec<(&'static str, Value)>>,
    pub set: Vec<(&'static str, Value)>,
    pub says: &'static str,
}

fn new(name: &'static str, kind: Base, set: Vec<(&'static str, Value)>, says: &'static str) -> Case {
    Case { name, kind, old: None, set, says }
}

fn change(
    name: &'static str,
    kind: Base,
    old: Vec<(&'static str, Value)>,
    set: Vec<(&'static str, Value)>,
    says: &'static str,
) -> Case {
    Case { name, kind, old: Some(old), set, says }
}

fn long(length: usize) -> Value {
    json!("a".repeat(length))
}

fn labels() -> Value {
    json!({"understudy.dev/role": "primary"})
}

fn elsewhere() -> Value {
    json!({"name": "tokens", "namespace": "kube-system"})
}

fn topic(name: &str) -> Value {
    json!({"bootstrapServers": "kafka:9092", "topic": name})
}

/// All of them. A test of this crate sees to it that every rule is broken by one.
pub fn cases() -> Vec<Case> {
    [datastore::cases(), shard::cases(), replica::cases(), consumer::cases(), failover::cases(), drill::cases()]
        .into_iter()
        .flatten()
        .collect()
}
