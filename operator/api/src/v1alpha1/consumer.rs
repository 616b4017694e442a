//! Consumer: what reads a topic into shards, exactly once.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{AsRefStr, Display, IntoStaticStr};

use super::{KafkaTopic, PodTemplate, Resources, VerdictState};
use crate::schema;

/// What a person asks of a consumer.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "understudy.dev",
    version = "v1alpha1",
    kind = "Consumer",
    plural = "consumers",
    shortname = "con",
    category = "understudy",
    namespaced,
    status = "ConsumerStatus",
    derive = "PartialEq",
    doc = "Reads a topic into shards, exactly once: the time-series store, or a view of your own image.",
    validation = Rule::new("self.metadata.name.size() <= 40").message("the name of a Consumer may have at most 40 characters, so that its labels fit; choose a shorter one"),
    printcolumn(name = "Datastore", type_ = "string", json_path = ".spec.datastore"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.ready", description = "Pods that are ready, of those asked for"),
    printcolumn(name = "Partitions", type_ = "string", json_path = ".status.running", description = "Partitions that advance, of all"),
    printcolumn(name = "Lag", type_ = "string", json_path = ".status.lag", description = "Of the partition furthest behind"),
    printcolumn(name = "Records", type_ = "integer", json_path = ".status.lagRecords", description = "Records not yet stored"),
    printcolumn(name = "Dead letters", type_ = "integer", json_path = ".status.deadLetters", description = "Records put aside because they could not be applied"),
    printcolumn(name = "Paused", type_ = "boolean", json_path = ".spec.paused"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1)
)]
#[x_kube(validation = Rule::new("has(self.datastore) != has(self.shards)").message("give either datastore or shards: a Consumer reads into all shards of a Datastore, or into shards named one by one"))]
#[x_kube(validation = Rule::new("!has(self.shards) || has(self.kafka)").message("a Consumer with shards needs kafka: there is no Datastore to take the topic from"))]
#[x_kube(validation = Rule::new("!has(self.datastore) || !has(self.kafka)").message("a Consumer of a Datastore reads the Datastore's own topic, as the offsets of its placements are that topic's: leave out kafka, or name the shards one by one with shards"))]
#[x_kube(validation = Rule::new("!has(self.datastore) || !has(self.acceptGaps) || !self.acceptGaps").message("acceptGaps is for a topic of somebody else: a Datastore's own topic is not written by transactions, so an offset that is missing there was a record"))]
#[x_kube(validation = Rule::new("has(self.datastore) == has(oldSelf.datastore) && (!has(self.datastore) || self.datastore == oldSelf.datastore)").message("datastore cannot be changed: the stored offsets are in its shards; make a new Consumer"))]
#[x_kube(validation = Rule::new("has(self.group) == has(oldSelf.group) && (!has(self.group) || self.group == oldSelf.group)").message("group cannot be changed: the offsets are stored under it; make a new Consumer"))]
#[x_kube(validation = Rule::new("has(self.view) == has(oldSelf.view)").message("view cannot be added or taken away: the offsets say what the present view has seen; make a new Consumer with another name or group"))]
#[x_kube(validation = Rule::new("has(self.kafka) == has(oldSelf.kafka)").message("kafka cannot be added or taken away: the stored offsets belong to one topic"))]
#[serde(rename_all = "camelCase")]
pub struct ConsumerSpec {
    /// The Datastore whose topic it reads into whose shards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 34))]
    pub datastore: Option<String>,
    /// The Shards it reads into, when there is no Datastore. Partition p feeds the shard at p modulo their number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(max = 40)))]
    #[x_kube(validation = Rule::new("self.all(s, s.matches('^[a-z][-a-z0-9]*$'))").message("shards are names of Shards: lower-case letters, digits and dashes, with a letter first"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("shards cannot be changed: which partition feeds which shard follows from them; make a new Consumer"))]
    pub shards: Option<Vec<String>>,
    /// The topic, with `shards`; a Datastore has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<KafkaTopic>,
    /// The name under which offsets are stored; the Consumer's own by default. Of two Consumers that read into one shard under
    /// one group only the older one runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9._-]+$')").message("group has letters, digits, dots, dashes and underscores"))]
    pub group: Option<String>,
    /// Where a partition begins of which nothing is stored yet.
    #[serde(default)]
    pub start: StartAt,
    /// Whether offsets may be missing in the topic. Only for topics that are written by transactions, whose ends take offsets: elsewhere a
    /// missing offset may have been a record, and its partition is Stuck until a person has seen to it.
    #[serde(default)]
    pub accept_gaps: bool,
    /// A view of your own; the time-series store by default. Of two Consumers that write into one schema of a shard, the store or a
    /// view's, only the older one runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<ViewSpec>,
    /// Pods per shard. One is active, the others stand by on other nodes.
    #[serde(default = "two")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 5").message("a Consumer has 1 to 5 pods per shard; one is active, so more than 2 only help with losing several nodes at once"))]
    pub replicas: i32,
    /// Requests and limits of each pod.
    #[serde(default)]
    pub resources: Resources,
    /// How much goes into one transaction.
    #[serde(default)]
    pub batch: BatchLimits,
    /// Stops reading; the pods stay.
    #[serde(default)]
    pub paused: bool,
    /// Partitions that are not read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    #[x_kube(validation = Rule::new("self.all(p, p >= 0)").message("a partition's number is 0 or more"))]
    pub paused_partitions: Vec<i32>,
    /// Additions to the pods.
    #[serde(default)]
    pub pod_template: PodTemplate,
}

pub(super) fn two() -> i32 {
    2
}

/// Where a partition begins of which nothing is stored yet.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Display, AsRefStr, IntoStaticStr,
)]
pub enum StartAt {
    /// Where the placement says. If the topic does not go back so far any more, records were lost unread: the partition is Stuck and says so.
    #[default]
    Placement,
    /// At the earliest record that the topic still has: for a Consumer that is younger than its topic.
    Earliest,
}

/// A view that a team brings as its own image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ViewSpec {
    /// The image; its own entry point is run.
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^[a-zA-Z0-9][-a-zA-Z0-9._:/@]*$')").message("view.image must name an image"))]
    pub image: String,
    /// The MySQL schema that the view owns. Keep to it: the account of all consumers can write into every `view_…` schema and the `store` of the
    /// shard, and nothing stops a view from that.
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^view_[a-z0-9_]{1,58}$')").message("view.schema must begin with view_ and have lower-case letters, digits and underscores: consumers may write only in such schemas"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("view.schema cannot be changed: the data is in the old one; make a new Consumer with another name or group"))]
    pub schema: String,
    /// Settings of the view, given to it as UNDERSTUDY_VIEW_<NAME>.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::short_texts")]
    #[x_kube(validation = Rule::new("self.all(k, k.matches('^[A-Z][A-Z0-9_]{0,62}$'))").message("names of view.settings are upper-case letters, digits and underscores"))]
    pub settings: BTreeMap<String, String>,
}

/// How much goes into one transaction, whichever limit is met first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BatchLimits {
    /// Records of the topic.
    #[serde(default = "five_hundred")]
    #[schemars(range(min = 1, max = 100000))]
    pub max_records: i32,
    /// Bytes of the topic, and what they take in memory once decoded.
    #[serde(default = "four_mebibytes")]
    #[schemars(range(min = 1024, max = 268435456))]
    pub max_bytes: i64,
    /// Time from the first record of the batch.
    #[serde(default = "two_hundred")]
    #[schemars(range(min = 1, max = 60000))]
    pub max_delay_ms: i32,
}

fn five_hundred() -> i32 {
    500
}
fn four_mebibytes() -> i64 {
    4 << 20
}
fn two_hundred() -> i32 {
    200
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { max_records: five_hundred(), max_bytes: four_mebibytes(), max_delay_ms: two_hundred() }
    }
}

/// What is read, by whom, and how far behind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerStatus {
    /// The generation of the spec that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Each partition. Written by the pod that reads it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["partition".into(), "shard".into()]))]
    pub partitions: Vec<PartitionStatus>,
    /// Each workload.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["shard".into()]))]
    pub workloads: Vec<ConsumerWorkload>,
    /// Pods that are ready, of those asked for, such as `4/4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// Partitions that advance, of all, such as `16/16`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<String>,
    /// Records not yet stored, over all partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_records: Option<i64>,
    /// Age of the oldest record not yet stored; absent while it is not known of one of the partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<f64>,
    /// The same for a person, such as `0s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<String>,
    /// Records, or parts of records, that could not be applied and are in the dead-letter topic, over all partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letters: Option<i64>,
    /// What is wrong, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Accepted, Ready, and with `shards` DeadLettersReady.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// One partition, as the pod that reads it reports it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PartitionStatus {
    /// The partition.
    pub partition: i32,
    /// The shard it feeds.
    pub shard: String,
    /// What it is doing.
    #[serde(default)]
    pub state: PartitionState,
    /// The offset of the next record.
    #[serde(default)]
    pub next_offset: i64,
    /// Records of the topic not yet stored.
    #[serde(default)]
    pub lag_records: i64,
    /// Age of the oldest of them, in seconds; absent while it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<f64>,
    /// Records, or parts of records, that could not be applied and are in the dead-letter topic.
    #[serde(default)]
    pub dead_letters: i64,
    /// The offset from which on another shard is fed. It is told once the partition's row in the shard says so, which binds every pod: nothing
    /// is stored here from there on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    /// The shard's epoch under which it writes.
    #[serde(default)]
    pub epoch: i64,
    /// The pod that reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Since when it has this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// For a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What a partition is doing.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Display, AsRefStr, IntoStaticStr,
)]
pub enum PartitionState {
    /// It advances, or there is nothing to read.
    #[default]
    Running,
    /// The spec says not to read it.
    Paused,
    /// The epoch or the owner in the shard is another; it looks for the new route.
    Fenced,
    /// It cannot advance; the message says why.
    Stuck,
    /// What a later version wrote and this one does not know.
    #[serde(other)]
    Unknown,
}

/// The workload of a Consumer for one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerWorkload {
    /// The shard it reads into.
    pub shard: String,
    /// Pods that are ready.
    #[serde(default)]
    pub ready: i32,
    /// Pods asked for.
    #[serde(default)]
    pub desired: i32,
    /// State of the shard's primary, as the operator sees it.
    #[serde(default)]
    pub verdict: VerdictState,
}
