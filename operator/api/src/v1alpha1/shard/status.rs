//! What a Shard shows: its route, the verdict, each replica, the last change of primary.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{AsRefStr, Display, IntoStaticStr};

use super::super::{Availability, AvailabilityLedger, Role, Verdict};

/// What the operator saw and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShardStatus {
    /// The generation of the spec that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The replica that takes writes under [`Self::epoch`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// Its `ip:port`; with primary and epoch, the route of the shard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_address: Option<String>,
    /// The replica that is to take writes under `epoch`; equal to `primary` when nothing is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_primary: Option<String>,
    /// The highest epoch that was ever claimed. While `transition` is there, nobody serves under it yet.
    #[serde(default)]
    pub epoch: i64,
    /// The change of primary that is under way; with it, a restarted operator goes on where the last one stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transition: Option<Transition>,
    /// The permission to initialise a volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<Bootstrap>,
    /// The `server_id` that the next replica gets; the first gets 1. Only grows.
    #[serde(default)]
    pub next_server_id: i64,
    /// State of the primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// What each observer sees of the primary. Written when the verdict or what one of them sees changes, and not for age alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub observers: Vec<ObserverSummary>,
    /// What is being done, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doing: Option<String>,
    /// What would be done else and is not, and why; 16 at most. It stays as long as that holds, when the event of the same reason is long
    /// gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withheld: Vec<Withheld>,
    /// The last suspicion of the primary that a commit ended before anything was done about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_suspicion: Option<LastSuspicion>,
    /// Each replica of the shard, condemned ones included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub replicas: Vec<ReplicaSummary>,
    /// Replicas that serve or replicate, of those asked for, such as `3/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// Replicas whose pods and volumes are as the spec and the operator would make them now, of those that were not condemned, such as
    /// `2/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_to_date: Option<String>,
    /// How many replicas serve or replicate.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Standbys that could take over now.
    #[serde(default)]
    pub promotable: i32,
    /// Replication delay of the best standby, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<f64>,
    /// The same for a person, such as `0s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<String>,
    /// The last change of primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failover: Option<LastFailover>,
    /// How long no writes were taken, and how often it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub availability: Option<Availability>,
    /// What `availability` rests on, but for records that are not in it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub availability_ledger: Option<AvailabilityLedger>,
    /// Ready, Progressing, Degraded, Provisioned, UpToDate, PrimaryHealthy, Promotable, Redundant, ConsumersCurrent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// The permission to initialise a volume: one replica's at a time. Another one is named only when that one was condemned or is gone before any
/// served, and no replica may hold data; once completed it never changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bootstrap {
    /// The one replica that may.
    pub replica: String,
    /// The uid of the Shard it was given for.
    pub shard_uid: String,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// Whether the replica has served since; from then on the shard counts as never empty.
    #[serde(default)]
    pub completed: bool,
}

/// A change of primary that is under way: written with the claim of its epoch, before anything irreversible.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Transition {
    /// What kind of change.
    pub kind: TransitionKind,
    /// The epoch it claimed.
    pub epoch: i64,
    /// The primary until now; unset at bootstrap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The primary to be.
    pub to: String,
    /// Name of the Failover that is its record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    /// Name of the Failover by which a person asked for the change; unset when nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// What named the death of the old primary; PascalCase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// When the epoch was claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<MicroTime>,
}

/// What kind of change of primary is under way.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Display, AsRefStr, IntoStaticStr,
)]
pub enum TransitionKind {
    /// The first primary of the shard.
    Bootstrap,
    /// Unplanned.
    #[default]
    Failover,
    /// Planned.
    Switchover,
    /// The same primary again, under a new epoch.
    Confirm,
    /// What a later version wrote and this one does not know.
    #[serde(other)]
    Unknown,
}

/// One replica, as `kubectl get shard -o yaml` shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaSummary {
    /// Name of the Replica, its pod and its volume.
    pub name: String,
    /// What it is to the shard.
    pub role: Role,
    /// MySQL's `server_id`.
    #[serde(default)]
    pub server_id: i64,
    /// The node it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The node's zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The pod's IP address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Transactions it has executed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executed_gtid: Option<String>,
    /// How far it is behind its source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_seconds: Option<f64>,
    /// Whether it serves or replicates.
    #[serde(default)]
    pub ready: bool,
    /// Whether it could take over now.
    #[serde(default)]
    pub promotable: bool,
    /// Where it is in its life: Pending, Empty, Building, Starting, Running, Exited, Stopping, Unusable, Unknown, Condemned, Quarantined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// State of its volume: Pending, Bound, Quarantined, Deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// What is wrong with it, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Something that would be done else and is not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Withheld {
    /// Why, as the event and the metric name it, such as `LastCopyKept`.
    pub reason: String,
    /// The replica that it is about, when one reason can hold for several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// For a person, with what was seen; 512 bytes at most. Written anew once in five minutes at most.
    pub message: String,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// When it is looked at again, and what ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_check: Option<String>,
}

/// A suspicion that came to nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastSuspicion {
    /// The replica that was suspected.
    pub replica: String,
    /// When that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleared_at: Option<Time>,
    /// How far it went: `Suspect`, `Stuck` or `Gone`.
    pub state: String,
    /// What was suspected; PascalCase.
    pub cause: String,
    /// How old its first sign was when it ended.
    pub lasted_ms: i64,
    /// What was seen then, and by whom; 512 bytes at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How many suspicions have come to nothing since the Shard was made.
    #[serde(default)]
    pub count: i64,
}

/// What one observer sees of the primary.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObserverSummary {
    /// What it is.
    pub kind: ObserverKind,
    /// The replica whose manager it is, or the name of its pod.
    pub name: String,
    /// The node it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What fails as a whole with it: two observers of one domain are one voice. `pod` of the manager beside the primary; `node` and its name;
    /// or a kind of observer, while all of them run on one node.
    pub domain: String,
    /// For or against the primary.
    pub stance: Stance,
    /// What it sees, for a person.
    pub says: String,
    /// The stage at which its probes fail: Tcp, Greeting, Auth, Select or Commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// Since when: the first failure of a run, else when it was seen to change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Whether its word counts for the verdict.
    pub counts: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_counted: Option<String>,
}

/// What an observer is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Display, AsRefStr, IntoStaticStr,
)]
pub enum ObserverKind {
    /// The instance manager beside the primary.
    #[default]
    Manager,
    /// The instance manager of another replica.
    Peer,
    /// A consumer's pod.
    Consumer,
    /// The operator.
    Operator,
    /// What a later version wrote and this one does not know.
    #[serde(other)]
    Unknown,
}

/// Where an observer stands.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Display, AsRefStr, IntoStaticStr,
)]
pub enum Stance {
    /// It sees commits succeed.
    Commits,
    /// It sees the primary fail.
    Accuses,
    /// What it met is no accusation, or it has no voice.
    Abstains,
    /// It has seen nothing yet that counts, or nothing has come from it lately.
    #[default]
    Silent,
    /// What a later version wrote and this one does not know.
    #[serde(other)]
    Unknown,
}

/// The last change of primary.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastFailover {
    /// Name of its record.
    pub name: String,
    /// What kind of change.
    #[serde(default)]
    pub kind: TransitionKind,
    /// The epoch under which the new primary took office.
    #[serde(default)]
    pub epoch: i64,
    /// The primary before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// When the new primary took over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// The write gap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap_seconds: Option<f64>,
    /// The same for a person, such as `4.1s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many failovers have followed each other before the shard had all its copies again, this one included.
    #[serde(default)]
    pub in_a_row: i32,
    /// When another replica took office last; a confirmation of the same primary leaves it as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<Time>,
}
