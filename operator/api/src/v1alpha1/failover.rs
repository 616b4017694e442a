//! Failover: the request for a change of primary, and the record of one.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use kube::{CustomResource, KubeSchema, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{AsRefStr, Display, IntoStaticStr};

use crate::labels;

/// A change of primary.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "understudy.dev",
    version = "v1alpha1",
    kind = "Failover",
    plural = "failovers",
    shortname = "fo",
    category = "understudy",
    namespaced,
    status = "FailoverStatus",
    derive = "PartialEq",
    doc = "A change of a shard's primary. Create one to ask for a switchover; the operator creates one for each failover. Either way it becomes the record of what happened.",
    selectable = ".spec.shard",
    printcolumn(name = "Shard", type_ = "string", json_path = ".spec.shard"),
    printcolumn(name = "Kind", type_ = "string", json_path = ".spec.kind"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Result", type_ = "string", json_path = ".status.result"),
    printcolumn(name = "Cause", type_ = "string", json_path = ".status.cause"),
    printcolumn(name = "From", type_ = "string", json_path = ".status.from"),
    printcolumn(name = "To", type_ = "string", json_path = ".status.to"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.epoch"),
    printcolumn(name = "Gap", type_ = "string", json_path = ".status.gap", description = "Write gap"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1)
)]
#[x_kube(validation = Rule::new("self == oldSelf").message("a Failover cannot be changed once created; create another"))]
#[serde(rename_all = "camelCase")]
pub struct FailoverSpec {
    /// The Shard whose primary is to change.
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self.size() >= 1 && self.size() <= 40").message("shard must be the name of a Shard in this namespace"))]
    pub shard: String,
    /// What kind of change. A rehearsal is asked for by a Drill, a kind of its own.
    #[serde(default)]
    pub kind: FailoverKind,
    /// Why, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
    /// The Replica that is to become primary; without it, the best one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub target: Option<String>,
    /// The Drill that this rehearses for. Written by the operator; leave it out of a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub drill: Option<String>,
    /// The epoch that this is the record of. Written by the operator; leave it out of a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
}

impl Failover {
    /// The Drill that it was rehearsed for: by its spec, or by the label of a record that was there before anybody knew.
    pub fn drill(&self) -> Option<&str> {
        self.spec.drill.as_deref().or_else(|| self.labels().get(labels::DRILL).map(String::as_str))
    }
}

/// What kind of change of primary.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Display, AsRefStr, IntoStaticStr,
)]
pub enum FailoverKind {
    /// Planned: the old primary ends its transactions, the new one has them all.
    #[default]
    Switchover,
    /// Unplanned, or asked for by a person who knows the primary to be dead: the old primary is not waited for.
    Failover,
    /// What a later version wrote and this one does not know.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// What happened.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailoverStatus {
    /// The generation of the spec that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How far it is.
    #[serde(default)]
    pub phase: FailoverPhase,
    /// How it ended; unset while it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<FailoverResult>,
    /// What named the death of the old primary, or `Requested`; PascalCase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The cause in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
    /// For a person: what was seen, by whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The old primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The new primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The epoch it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// When the evidence began, the claim was written or the request was seen, whichever was first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<MicroTime>,
    /// When the new primary took writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted_at: Option<MicroTime>,
    /// When redundancy was back, or it ended otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<MicroTime>,
    /// What was done, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timeline: Vec<TimelineEntry>,
    /// Observers that said the primary is dead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub votes: Vec<Vote>,
    /// Observers that said it lives.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vetoes: Vec<Vote>,
    /// Observers whose word did not count, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub abstentions: Vec<Vote>,
    /// The facts at the moment of the decision.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<EvidenceNote>,
    /// What the threads of the old primary did when it fell sick, those that wait in the same place in one line; 4 KiB at most. Not there when its
    /// process had ended or its manager did not answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stacks: Vec<String>,
    /// The replicas that were considered, best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<CandidateNote>,
    /// The last offsets known to be stored on the old primary.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub offsets_before: Vec<OffsetNote>,
    /// The offsets that the new primary began with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub offsets_after: Vec<OffsetNote>,
    /// Time between the last commit on the old and the first on the new primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_gap_seconds: Option<f64>,
    /// The same for a person, such as `4.1s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<String>,
    /// Records of the topic that were written again because the new primary did not have them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replayed_records: Option<i64>,
    /// The replacement of the old primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebuild: Option<RebuildNote>,
    /// Complete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// How far a change of primary is.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
    Display,
    AsRefStr,
    IntoStaticStr,
)]
pub enum FailoverPhase {
    /// Nothing was decided yet.
    #[default]
    Pending,
    /// The epoch is taken.
    Claimed,
    /// The old primary is made to refuse writes, as far as it can be reached.
    Fencing,
    /// The new primary is being made writable.
    Promoting,
    /// The route points at the new primary; the old one is being replaced.
    Rebuilding,
    /// Redundancy is back, or it ended otherwise.
    Closed,
    /// What a later version wrote and this one does not know.
    #[serde(other)]
    Unknown,
}

/// How a change of primary ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Display, AsRefStr, IntoStaticStr)]
pub enum FailoverResult {
    /// Another replica is primary.
    Succeeded,
    /// A near miss: the primary turned out to live and was confirmed under the new epoch.
    Confirmed,
    /// It was not begun; the message says why.
    Refused,
    /// It was begun and could not be completed.
    Failed,
    /// What a later version wrote and this one does not know.
    #[serde(other)]
    Unknown,
}

/// One step of what was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TimelineEntry {
    /// The step: FirstSign (what the cause names, or the first failure that any observer met), Suspected, Quorum (as many domains as the
    /// cause needs bore it out), Decided, Claimed (the epoch was taken), Reprobed, Fenced (the old primary is known to take no writes),
    /// CaughtUp (the target of a switchover has everything), Promoted, Routed, FirstCommit, ConsumersCaughtUp (all is stored that the topic
    /// held when the new primary took office), Following, Condemned or Redundant.
    pub step: String,
    /// When.
    pub at: MicroTime,
    /// Since the first entry.
    pub elapsed_ms: i64,
    /// For a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What one observer said for or against.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Vote {
    /// Its kind and name, e.g. `peer metrics-0-q9mm`.
    pub observer: String,
    /// What it saw.
    pub says: String,
    /// How old that was: a failure by its first, a commit by the last one.
    pub age_ms: i64,
    /// When that was, by the operator's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<MicroTime>,
}

/// One observer's fact about one replica.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvidenceNote {
    /// Its kind and name.
    pub observer: String,
    /// The replica.
    pub subject: String,
    /// The fact.
    pub fact: String,
    /// How old it was.
    pub age_ms: i64,
    /// What kind of fact; unset on the manager's words as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<EvidenceKind>,
    /// How long it had lasted when it was told: an fsync that had not come back, a log that had not moved, a process that was stopped, a run
    /// of failures, a lock that was held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lasted_ms: Option<i64>,
    /// Of a probe, the stage at which it failed: Tcp, Greeting, Auth, Select or Commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
}

/// What kind of fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Display, AsRefStr, IntoStaticStr)]
pub enum EvidenceKind {
    /// mysqld's process, as the kernel has it.
    Process,
    /// Its threads in uninterruptible sleep, and where they wait.
    Threads,
    /// The manager's own write to the data volume.
    Fsync,
    /// Up to where InnoDB's log is on disk.
    Log,
    /// Who waited for processor, memory and disk.
    Pressure,
    /// Who held the lock that commits waited for.
    Lock,
    /// What the admin port answered, which clients cannot use up.
    AdminPort,
    /// What an observer met on the way that clients take.
    Probe,
    /// What a later version wrote and this one does not know.
    #[serde(other)]
    Unknown,
}

/// One replica that was considered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CandidateNote {
    /// The replica.
    pub replica: String,
    /// Transactions it had executed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executed_gtid: Option<String>,
    /// Sum of its stored offsets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offsets: Option<i64>,
    /// Free bytes on its volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<i64>,
    /// How far its applier was behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<i64>,
    /// Its zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Why it was not taken; unset on the one that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<String>,
}

/// A stored offset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OffsetNote {
    /// The consumer's group.
    pub consumer: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset of the next record.
    pub next_offset: i64,
}

/// The replacement of the old primary.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RebuildNote {
    /// The new replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<String>,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<MicroTime>,
    /// When it could be promoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<MicroTime>,
    /// Time from the loss to here: time to redundancy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}
