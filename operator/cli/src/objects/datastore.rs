//! A Datastore and its Consumers as read. Pure.

use kube::ResourceExt;
use kube::api::DynamicObject;
use serde::Serialize;

use super::Facts;
use super::shard::{Availability, Condition, conditions};

/// All shards of one store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Datastore {
    /// Its name.
    pub name: String,
    /// `spec.paused`.
    pub paused: bool,
    /// Shards that are ready, of those asked for.
    pub shards_ready: Option<String>,
    /// The worst verdict.
    pub worst: Option<String>,
    /// The shard that has it.
    pub worst_shard: Option<String>,
    /// From the topic into the shards.
    pub delay: Option<String>,
    /// Its services.
    pub workloads: Workload,
    /// Over the last days.
    pub availability: Option<Availability>,
    /// `metav1.Condition`s.
    pub conditions: Vec<Condition>,
}

/// Pods that are ready, of those asked for, of each service that there is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// What takes samples in.
    pub gateway: Option<String>,
    /// What answers queries.
    pub query: Option<String>,
    /// What reads the topic into the shards.
    pub consumer: Option<String>,
}

impl Datastore {
    /// From an object of the kind.
    pub fn read(object: &DynamicObject) -> Self {
        let facts = Facts::of(object);
        Self {
            name: object.name_any(),
            paused: facts.flag("/spec/paused"),
            shards_ready: facts.text("/status/shardsReady"),
            worst: facts.text("/status/worst/state"),
            worst_shard: facts.text("/status/worst/shard"),
            delay: facts.text("/status/delay"),
            workloads: Workload {
                gateway: facts.text("/status/gateway/ready"),
                query: facts.text("/status/query/ready"),
                consumer: facts.text("/status/consumer/ready"),
            },
            availability: Availability::within(facts),
            conditions: conditions(facts),
        }
    }
}

/// What reads a topic into shards.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Consumer {
    /// Its name.
    pub name: String,
    /// The Datastore it reads for; none when it names shards.
    pub datastore: Option<String>,
    /// The Shards it names itself.
    pub shards: Vec<String>,
    /// `spec.paused`.
    pub paused: bool,
    /// Pods that are ready, of those asked for.
    pub ready: Option<String>,
    /// Partitions that advance, of all.
    pub running: Option<String>,
    /// Of the partition furthest behind.
    pub lag: Option<String>,
    /// Records not yet stored.
    pub lag_records: Option<i64>,
    /// Records put aside.
    pub dead_letters: Option<i64>,
    /// What is wrong.
    pub message: Option<String>,
    /// `metav1.Condition`s.
    pub conditions: Vec<Condition>,
}

impl Consumer {
    /// From an object of the kind.
    pub fn read(object: &DynamicObject) -> Self {
        let facts = Facts::of(object);
        Self {
            name: object.name_any(),
            datastore: facts.text("/spec/datastore"),
            shards: facts.list("/spec/shards").filter_map(Facts::itself).collect(),
            paused: facts.flag("/spec/paused"),
            ready: facts.text("/status/ready"),
            running: facts.text("/status/running"),
            lag: facts.text("/status/lag"),
            lag_records: facts.count("/status/lagRecords"),
            dead_letters: facts.count("/status/deadLetters"),
            message: facts.text("/status/message"),
            conditions: conditions(facts),
        }
    }
}
