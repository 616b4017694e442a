//! Replica: one MySQL server with one identity that is never reused.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{AsRefStr, Display, IntoStaticStr};

use super::{Role, Verdict};

/// One MySQL server of a shard.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "understudy.dev",
    version = "v1alpha1",
    kind = "Replica",
    plural = "replicas",
    shortname = "rep",
    category = "understudy",
    namespaced,
    status = "ReplicaStatus",
    derive = "PartialEq",
    doc = "One MySQL server: one pod, one volume, one identity that is never reused. Made by a Shard; delete one to have it replaced.",
    selectable = ".spec.shard",
    printcolumn(name = "Shard", type_ = "string", json_path = ".spec.shard"),
    printcolumn(name = "Role", type_ = "string", json_path = ".status.role"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.node"),
    printcolumn(name = "Zone", type_ = "string", json_path = ".status.zone"),
    printcolumn(name = "Delay", type_ = "string", json_path = ".status.delay", description = "Behind its source"),
    printcolumn(
        name = "Build",
        type_ = "string",
        json_path = ".status.rebuild.summary",
        description = "Progress of a build"
    ),
    printcolumn(
        name = "UpToDate",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"UpToDate\")].status",
        description = "Whether its pod and volume are as the spec and the operator would make them now"
    ),
    printcolumn(name = "Volume", type_ = "string", json_path = ".status.volume.state"),
    printcolumn(
        name = "Kept-Until",
        type_ = "string",
        json_path = ".status.volume.quarantinedUntil",
        description = "Until when the volume of a condemned replica is kept, if 8 later primaries that were failed over do not take its place before; empty until its successor has caught up"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Verdict",
        type_ = "string",
        json_path = ".status.verdict.state",
        priority = 1,
        description = "State of the primary"
    ),
    printcolumn(name = "Condemned", type_ = "string", json_path = ".spec.condemned.reason", priority = 1),
    printcolumn(name = "Server-Id", type_ = "integer", json_path = ".spec.serverId", priority = 1),
    printcolumn(name = "Gtid", type_ = "string", json_path = ".status.executedGtid", priority = 1)
)]
#[x_kube(validation = Rule::new("self.shard == oldSelf.shard && self.serverId == oldSelf.serverId && self.origin == oldSelf.origin && (has(self.avoidNodes) ? self.avoidNodes : []) == (has(oldSelf.avoidNodes) ? oldSelf.avoidNodes : [])").message("a Replica cannot be changed, only condemned or deleted: its shard then makes another"))]
#[x_kube(validation = Rule::new("!has(oldSelf.condemned) || (has(self.condemned) && self.condemned == oldSelf.condemned)").message("a condemned Replica stays condemned: it is replaced, never rescued"))]
#[serde(rename_all = "camelCase")]
pub struct ReplicaSpec {
    /// The Shard it belongs to.
    #[schemars(length(min = 1, max = 63))]
    pub shard: String,
    /// MySQL's `server_id`, unique in the shard for ever.
    #[x_kube(validation = Rule::new("self >= 1 && self <= 4294967295").message("serverId must be between 1 and 4294967295"))]
    pub server_id: i64,
    /// Why it was made.
    #[serde(default)]
    pub origin: ReplicaOrigin,
    /// Nodes that its pod must not run on, such as the one that was lost; decided when it is made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 253)))]
    pub avoid_nodes: Vec<String>,
    /// Set once, when it is to be replaced: by the operator, or by a person who wants it replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condemned: Option<Condemned>,
}

/// Why a replica was made, and instead of which.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaOrigin {
    /// The reason.
    #[serde(default)]
    pub reason: OriginReason,
    /// The condemned replica that it replaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub replaces: Option<String>,
}

/// Why a replica was made.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Display, AsRefStr, IntoStaticStr,
)]
pub enum OriginReason {
    /// The first ones of the shard.
    Bootstrap,
    /// More were asked for.
    #[default]
    ScaleUp,
    /// Another was condemned or deleted.
    Replacement,
    /// What a later version wrote and this one does not know.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// What the operator saw and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaStatus {
    /// The generation of the spec that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What it is to the shard.
    #[serde(default)]
    pub role: Role,
    /// Where it is in its life.
    #[serde(default)]
    pub phase: ReplicaPhase,
    /// The node it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The node's zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The pod's IP address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The pod's uid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// MySQL's `server_uuid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_uuid: Option<String>,
    /// State of the server, while it is the primary: the others are not judged by observers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// The replica it replicates from, or is cloned from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Transactions it has executed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executed_gtid: Option<String>,
    /// How far it is behind its source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_seconds: Option<f64>,
    /// The same for a person, such as `0s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<String>,
    /// Progress of the build, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebuild: Option<RebuildProgress>,
    /// Its volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeStatus>,
    /// Ready, Progressing, Degraded, Provisioned, UpToDate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Where a replica is in its life.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Display, AsRefStr, IntoStaticStr,
)]
pub enum ReplicaPhase {
    /// Its pod does not run yet.
    #[default]
    Pending,
    /// Its volume holds nothing yet.
    Empty,
    /// Its volume is being filled.
    Building,
    /// mysqld was started and does not answer yet.
    Starting,
    /// mysqld answers.
    Running,
    /// mysqld ended.
    Exited,
    /// Its pod was asked to stop.
    Stopping,
    /// Its volume holds something that is no complete data directory.
    Unusable,
    /// It is to be replaced, or was: its volume is kept until its successor has caught up.
    Condemned,
    /// Its successor has caught up: its volume is kept until `status.volume.quarantinedUntil`, or until 8 later primaries are kept.
    Quarantined,
    /// Its manager does not answer, or says what this version does not know.
    #[serde(other)]
    Unknown,
}

/// Progress of a build.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RebuildProgress {
    /// The stage, in the words of the instance manager.
    pub stage: String,
    /// Bytes copied.
    #[serde(default)]
    pub done_bytes: i64,
    /// Bytes to copy; 0 while unknown.
    #[serde(default)]
    pub total_bytes: i64,
    /// Estimated time left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<i64>,
    /// Why the last try failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// All of it for a person, such as `43%, 20s left`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
}

/// State of a replica's volume.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeStatus {
    /// The PersistentVolumeClaim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// Where it is in its life.
    #[serde(default)]
    pub state: VolumeState,
    /// Since when the successor has caught up; the quarantine counts from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub successor_ready_at: Option<Time>,
    /// When it may be deleted; it is once the shard has as many intact copies as asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantined_until: Option<Time>,
    /// Size of the file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<i64>,
    /// Free space on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<i64>,
    /// Whether it is nearly full: less than a tenth of it was free, or less than 1 GiB if that is less, and not a quarter more since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub low: bool,
}

/// Where a volume is in its life.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Display, AsRefStr, IntoStaticStr,
)]
pub enum VolumeState {
    /// There is none yet.
    #[default]
    Pending,
    /// It is there.
    Bound,
    /// Kept until the successor has caught up, then until its time is over.
    Quarantined,
    /// Deleted.
    Deleted,
    /// What a later version wrote and this one does not know.
    #[serde(other)]
    Unknown,
}

/// That and why a replica is to be replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condemned {
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// The epoch that took the office from it; 0 when it was not the primary.
    #[serde(default)]
    pub epoch: i64,
    /// PascalCase and stable.
    #[schemars(length(min = 1, max = 128))]
    pub reason: String,
    /// For a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub message: Option<String>,
}
