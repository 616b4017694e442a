//! Shard: one primary and its standbys.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use kube::core::Rule;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{AsRefStr, Display, IntoStaticStr};

use super::{DeletionPolicy, PodTemplate, Resources, Role, Verdict};
use crate::schema;

/// What a person asks of a shard.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "understudy.dev",
    version = "v1alpha1",
    kind = "Shard",
    plural = "shards",
    shortname = "sh",
    category = "understudy",
    namespaced,
    status = "ShardStatus",
    derive = "PartialEq",
    doc = "One MySQL primary and its standbys. Made by a Datastore, or by hand.",
    validation = Rule::new("self.metadata.name.size() <= 40").message("the name of a Shard may have at most 40 characters, so that the names of its Services, replicas and labels fit; choose a shorter one"),
    validation = Rule::new("self.metadata.name.matches('^[a-z][-a-z0-9]*$')").message("the name of a Shard must begin with a letter and have only lower-case letters, digits and dashes: its Services are named after it"),
    printcolumn(name = "Primary", type_ = "string", json_path = ".status.primary", description = "The replica that takes writes"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.epoch", description = "Grows by one with each promotion"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.ready", description = "Replicas that serve or replicate, of those asked for"),
    printcolumn(name = "Verdict", type_ = "string", json_path = ".status.verdict.state", description = "State of the primary"),
    printcolumn(name = "For", type_ = "date", json_path = ".status.verdict.since", description = "Since when"),
    printcolumn(name = "Promotable", type_ = "integer", json_path = ".status.promotable", description = "Standbys that could take over now"),
    printcolumn(name = "Lag", type_ = "string", json_path = ".status.lag", description = "Replication delay of the best standby"),
    printcolumn(name = "Last Failover", type_ = "date", json_path = ".status.lastFailover.time", description = "When the primary changed last"),
    printcolumn(name = "Gap", type_ = "string", json_path = ".status.lastFailover.gap", description = "Write gap of that change"),
    printcolumn(name = "Doing", type_ = "string", json_path = ".status.doing", description = "What the operator is doing about it"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "UpToDate", type_ = "string", json_path = ".status.upToDate", priority = 1, description = "Replicas with the image, configuration and resources of the spec"),
    printcolumn(name = "Cause", type_ = "string", json_path = ".status.verdict.cause", priority = 1),
    printcolumn(name = "Target", type_ = "string", json_path = ".status.targetPrimary", priority = 1),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.failover.mode", priority = 1),
    printcolumn(name = "Paused", type_ = "boolean", json_path = ".spec.paused", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct ShardSpec {
    /// MySQL servers, the primary included.
    #[serde(default = "three")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 9").message("a shard has 1 to 9 replicas; 3 survive the loss of one with a standby left"))]
    pub replicas: i32,
    /// The servers.
    pub mysql: MysqlSpec,
    /// Their volumes.
    pub storage: StorageSpec,
    /// When and how another replica becomes primary.
    #[serde(default)]
    pub failover: FailoverPolicy,
    /// Additions to the pods.
    #[serde(default)]
    pub pod_template: PodTemplate,
    /// Stops every action of the operator on this shard, failover included.
    #[serde(default)]
    pub paused: bool,
    /// What becomes of the volumes and passwords when the Shard is deleted: what it says then counts, whenever they were made.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

fn three() -> i32 {
    3
}

/// The MySQL servers of a shard. A change reaches replicas that are made from then on; which ones have it is shown as `UpToDate`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MysqlSpec {
    /// A stock MySQL image, 8.4 or later.
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^[a-zA-Z0-9][-a-zA-Z0-9._:/@]*$')").message("mysql.image must name an image, such as mysql:8.4"))]
    pub image: String,
    /// Server variables to set: sizes, timeouts and rates, nothing that changes durability, replication or access.
    /// These can be set: back_log, binlog_cache_size, binlog_transaction_compression, innodb_adaptive_flushing,
    /// innodb_adaptive_hash_index, innodb_buffer_pool_instances, innodb_buffer_pool_size, innodb_flush_neighbors,
    /// innodb_io_capacity, innodb_io_capacity_max, innodb_log_buffer_size, innodb_lru_scan_depth,
    /// innodb_max_dirty_pages_pct, innodb_page_cleaners, innodb_print_all_deadlocks, innodb_purge_threads,
    /// innodb_read_io_threads, innodb_redo_log_capacity, innodb_sort_buffer_size, innodb_write_io_threads,
    /// interactive_timeout, join_buffer_size, long_query_time, max_allowed_packet, max_connections,
    /// max_execution_time, max_heap_table_size, net_read_timeout, net_write_timeout,
    /// performance_schema_max_digest_length, read_buffer_size, read_rnd_buffer_size, replica_parallel_workers,
    /// slow_query_log, sort_buffer_size, table_definition_cache, table_open_cache, temptable_max_ram,
    /// thread_cache_size, tmp_table_size, wait_timeout.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::short_texts")]
    #[x_kube(validation = only_allowed_config())]
    #[x_kube(validation = Rule::new("self.all(k, self[k].matches('^[A-Za-z0-9_.,:+-]{1,128}$'))").message("values of mysql.config are one word of letters, digits and . , : + - _, such as 2G or ON"))]
    pub config: BTreeMap<String, String>,
    /// Requests and limits of the mysql container.
    #[serde(default)]
    pub resources: Resources,
}

/// Variables that change speed and size, none that changes what is durable, what is replicated or who may write.
pub const ALLOWED_CONFIG: &[&str] = &[
    "back_log",
    "binlog_cache_size",
    "binlog_transaction_compression",
    "innodb_adaptive_flushing",
    "innodb_adaptive_hash_index",
    "innodb_buffer_pool_instances",
    "innodb_buffer_pool_size",
    "innodb_flush_neighbors",
    "innodb_io_capacity",
    "innodb_io_capacity_max",
    "innodb_log_buffer_size",
    "innodb_lru_scan_depth",
    "innodb_max_dirty_pages_pct",
    "innodb_page_cleaners",
    "innodb_print_all_deadlocks",
    "innodb_purge_threads",
    "innodb_read_io_threads",
    "innodb_redo_log_capacity",
    "innodb_sort_buffer_size",
    "innodb_write_io_threads",
    "interactive_timeout",
    "join_buffer_size",
    "long_query_time",
    "max_allowed_packet",
    "max_connections",
    "max_execution_time",
    "max_heap_table_size",
    "net_read_timeout",
    "net_write_timeout",
    "performance_schema_max_digest_length",
    "read_buffer_size",
    "read_rnd_buffer_size",
    "replica_parallel_workers",
    "slow_query_log",
    "sort_buffer_size",
    "table_definition_cache",
    "table_open_cache",
    "temptable_max_ram",
    "thread_cache_size",
    "tmp_table_size",
    "wait_timeout",
];

/// The message is fixed: one that names the variable would cost the API server more than it allows a definition.
fn only_allowed_config() -> Rule {
    Rule::new(format!("self.all(k, k in ['{}'])", ALLOWED_CONFIG.join("', '"))).message(
        "mysql.config may set only sizes, timeouts and rates (`kubectl explain shard.spec.mysql.config`), nothing that changes durability, replication or access, such as sync_binlog, gtid_mode or super_read_only",
    )
}

/// The volumes of a shard's replicas.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)").message("storageClassName cannot be changed: replicas of one shard have volumes of one class; make a new Shard"))]
#[serde(rename_all = "camelCase")]
pub struct StorageSpec {
    /// Size of each replica's volume, such as `100Gi`. May grow, not shrink; replicas that are made from then on get the larger one.
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))").message("size must be an amount such as 100Gi"))]
    #[x_kube(validation = Rule::new("!isQuantity(self) || quantity(self).compareTo(quantity('256Mi')) >= 0").message("size must be 256Mi or more, which a MySQL server takes before it holds anything; a number without a unit counts bytes"))]
    #[x_kube(validation = Rule::new("!isQuantity(self) || !isQuantity(oldSelf) || quantity(self).compareTo(quantity(oldSelf)) >= 0").message("a volume cannot shrink; make a new Shard with the smaller size"))]
    pub size: String,
    /// The StorageClass; without it, the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub storage_class_name: Option<String>,
}

/// Whether the operator changes the primary by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FailoverMode {
    /// A dead primary is failed over.
    #[default]
    Automatic,
    /// The operator says what it would do; a person creates the Failover.
    Manual,
    /// No change of primary at all, requested ones included.
    Paused,
}

/// When and how another replica becomes primary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailoverPolicy {
    /// Who decides.
    #[serde(default)]
    pub mode: FailoverMode,
    /// How soon a primary counts as dead.
    #[serde(default)]
    pub detection: Detection,
    /// How long a promotion may apply received transactions before it discards the rest; the topic has them all.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 60))]
    pub apply_relay_log_within_seconds: i32,
    /// After a failover, how long only hard evidence may cause another.
    #[serde(default = "ten_minutes")]
    #[schemars(range(min = 0, max = 86400))]
    pub cooldown_seconds: i32,
    /// What becomes of a replaced replica's volume.
    #[serde(default)]
    pub quarantine: Quarantine,
    /// Closed Failover records to keep.
    #[serde(default = "twenty")]
    #[schemars(range(min = 1, max = 200))]
    pub history_limit: i32,
}

impl Default for FailoverPolicy {
    fn default() -> Self {
        Self {
            mode: FailoverMode::default(),
            detection: Detection::default(),
            apply_relay_log_within_seconds: one(),
            cooldown_seconds: ten_minutes(),
            quarantine: Quarantine::default(),
            history_limit: twenty(),
        }
    }
}

fn one() -> i32 {
    1
}
fn ten_minutes() -> i32 {
    600
}
fn twenty() -> i32 {
    20
}

/// Thresholds of detection, in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("self.goneAfterMs >= 2 * self.probeIntervalMs && self.suspectAfterMs >= 2 * self.probeIntervalMs").message("goneAfterMs and suspectAfterMs must be at least twice probeIntervalMs: one missed probe is not evidence"))]
#[x_kube(validation = Rule::new("self.evidenceMaxAgeMs >= 2 * self.probeIntervalMs").message("evidenceMaxAgeMs must be at least twice probeIntervalMs: evidence would be out of date before the next probe"))]
#[x_kube(validation = Rule::new("self.stuckAfterMs >= self.commitDeadlineMs").message("stuckAfterMs must be at least commitDeadlineMs"))]
#[serde(rename_all = "camelCase")]
pub struct Detection {
    /// How often each observer probes.
    #[serde(default = "ms::<250>")]
    #[schemars(range(min = 100, max = 10000))]
    pub probe_interval_ms: i32,
    /// Deadline of each stage of a probe before the commit.
    #[serde(default = "ms::<500>")]
    #[schemars(range(min = 100, max = 30000))]
    pub stage_deadline_ms: i32,
    /// Deadline of the commit stage.
    #[serde(default = "ms::<1000>")]
    #[schemars(range(min = 200, max = 60000))]
    pub commit_deadline_ms: i32,
    /// Evidence older than this does not count.
    #[serde(default = "ms::<2000>")]
    #[schemars(range(min = 500, max = 60000))]
    pub evidence_max_age_ms: i32,
    /// No success for this long: Suspect.
    #[serde(default = "ms::<1000>")]
    #[schemars(range(min = 200, max = 60000))]
    pub suspect_after_ms: i32,
    /// The process or the pod seen gone by its manager, or nothing reachable seen by the others, for this long: Gone.
    #[serde(default = "ms::<750>")]
    #[schemars(range(min = 200, max = 60000))]
    pub gone_after_ms: i32,
    /// Reachable and nothing served for this long: Stuck.
    #[serde(default = "ms::<3000>")]
    #[schemars(range(min = 500, max = 600000))]
    pub stuck_after_ms: i32,
}

fn ms<const N: i32>() -> i32 {
    N
}

impl Default for Detection {
    fn default() -> Self {
        Self {
            probe_interval_ms: 250,
            stage_deadline_ms: 500,
            commit_deadline_ms: 1000,
            evidence_max_age_ms: 2000,
            suspect_after_ms: 1000,
            gone_after_ms: 750,
            stuck_after_ms: 3000,
        }
    }
}

/// How long a replaced replica's volume is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Quarantine {
    /// Counted from when the successor has caught up.
    #[serde(default = "a_day")]
    #[schemars(range(min = 0, max = 31536000))]
    pub ttl_seconds: i64,
}

fn a_day() -> i64 {
    86400
}

impl Default for Quarantine {
    fn default() -> Self {
        Self { ttl_seconds: a_day() }
    }
}

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
    /// The once-only permission to initialise a volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<Bootstrap>,
    /// The `server_id` that the next replica gets; the first gets 1. Only grows.
    #[serde(default)]
    pub next_server_id: i64,
    /// State of the primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// What is being done, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doing: Option<String>,
    /// Each replica of the shard, condemned ones included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub replicas: Vec<ReplicaSummary>,
    /// Replicas that serve or replicate, of those asked for, such as `3/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// Replicas whose pods have the image, configuration and resources of the spec, of those that were not condemned, such as `2/3`.
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
    /// Ready, Progressing, Degraded, Provisioned, UpToDate, PrimaryHealthy, Promotable, Redundant, ConsumersCurrent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// The once-only permission to initialise a volume. Once written it never changes but for `completed`.
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
    /// Where it is in its life: Pending, Empty, Building, Starting, Running, Exited, Stopping, Unusable, Unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// State of its volume: Bound, Pending, Quarantined, Retained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// What is wrong with it, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
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
}
