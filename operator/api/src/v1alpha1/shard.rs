//! Shard: one primary and its standbys. [`status`] has what the operator says of it.

pub mod status;

use std::collections::BTreeMap;

use kube::core::Rule;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter, IntoStaticStr};

pub use self::status::*;
use super::{DeletionPolicy, DrillPermission, PodTemplate, Resources};
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
    printcolumn(name = "Cause", type_ = "string", json_path = ".status.verdict.cause", description = "What named that state"),
    printcolumn(name = "For", type_ = "date", json_path = ".status.verdict.since", description = "Since when"),
    printcolumn(name = "Promotable", type_ = "integer", json_path = ".status.promotable", description = "Standbys that could take over now"),
    printcolumn(name = "Lag", type_ = "string", json_path = ".status.lag", description = "Replication delay of the best standby"),
    printcolumn(name = "Last Failover", type_ = "date", json_path = ".status.lastFailover.time", description = "When the primary changed last"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.failover.mode", description = "Who may change the primary"),
    printcolumn(name = "Doing", type_ = "string", json_path = ".status.doing", description = "What the operator is doing about it"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Gap", type_ = "string", json_path = ".status.lastFailover.gap", priority = 1, description = "Write gap of that change"),
    printcolumn(name = "UpToDate", type_ = "string", json_path = ".status.upToDate", priority = 1, description = "Replicas whose pods and volumes are as the spec and the operator would make them now"),
    printcolumn(name = "Target", type_ = "string", json_path = ".status.targetPrimary", priority = 1),
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
    /// What Drills may do to the shard. Of a Shard that a Datastore made, the Datastore's counts; set it there.
    #[serde(default, skip_serializing_if = "DrillPermission::is_none")]
    pub drills: DrillPermission,
    /// Stops every action of the operator on this shard, failover included.
    #[serde(default)]
    pub paused: bool,
    /// What becomes of the volumes and passwords when the Shard is deleted: what it says then counts, whenever they were made.
    /// Of a Shard that a Datastore made, the Datastore's deletionPolicy counts; set it there.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

fn three() -> i32 {
    3
}

/// The MySQL servers of a shard. A change reaches replicas that are made from then on; which ones have it is shown as `UpToDate`, with all
/// else that a new replica would have otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MysqlSpec {
    /// A stock MySQL image, 8.4 or later. A change to another patch release of the same series (the first two numbers: 8.4.x, 9.7.x) is
    /// taken up by the replicas that are made from then on. A change to another series is not: MySQL copies no data from one series into
    /// another, so every replica that is made then fails. Another series needs a new Datastore (or Shard).
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^[a-zA-Z0-9][-a-zA-Z0-9._:/@]*$')").message("mysql.image must name an image, such as mysql:8.4"))]
    pub image: String,
    /// Server variables to set: sizes, timeouts and rates, nothing that changes durability, replication or access.
    /// Binary logs are kept for 6 hours unless this says otherwise (`binlog_expire_logs_seconds`, 3600 to 2592000), in files of 128 MiB
    /// (`max_binlog_size`); mysqld has no limit for all of them together.
    /// These can be set: back_log, binlog_cache_size, binlog_expire_logs_seconds, binlog_transaction_compression,
    /// innodb_adaptive_flushing, innodb_adaptive_hash_index, innodb_buffer_pool_instances, innodb_buffer_pool_size, innodb_flush_neighbors,
    /// innodb_io_capacity, innodb_io_capacity_max, innodb_log_buffer_size, innodb_lru_scan_depth,
    /// innodb_max_dirty_pages_pct, innodb_page_cleaners, innodb_print_all_deadlocks, innodb_purge_threads,
    /// innodb_read_io_threads, innodb_redo_log_capacity, innodb_sort_buffer_size, innodb_write_io_threads,
    /// interactive_timeout, join_buffer_size, long_query_time, max_allowed_packet, max_binlog_size, max_connections,
    /// max_execution_time, max_heap_table_size, net_read_timeout, net_write_timeout,
    /// performance_schema_max_digest_length, read_buffer_size, read_rnd_buffer_size, replica_parallel_workers,
    /// slow_query_log, sort_buffer_size, table_definition_cache, table_open_cache, temptable_max_ram,
    /// thread_cache_size, tmp_table_size, wait_timeout.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::short_texts")]
    #[x_kube(validation = only_allowed_config())]
    #[x_kube(validation = binary_logs_end())]
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
    "binlog_expire_logs_seconds",
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
    "max_binlog_size",
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

/// Zero would keep them for ever, and a follower that was away for a moment needs those of that time.
fn binary_logs_end() -> Rule {
    let name = "binlog_expire_logs_seconds";
    let within = format!("int(self['{name}']) >= 3600 && int(self['{name}']) <= 2592000");
    Rule::new(format!("!('{name}' in self) || (self['{name}'].matches('^[0-9]{{4,7}}$') && {within})")).message(
        "binlog_expire_logs_seconds is 3600 to 2592000: kept for less, a standby that was away for a while has to be built anew; kept for longer, binary logs fill the volume",
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
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Display, EnumIter, IntoStaticStr,
)]
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
    /// After any change of primary, a switchover or a confirmation too, how long only hard evidence may cause a failover. Also the longest
    /// pause between failovers that follow each other before the shard has all its copies again.
    #[serde(default = "ten_minutes")]
    #[schemars(range(min = 0, max = 86400))]
    pub cooldown_seconds: i32,
    /// What becomes of a replaced replica's volume.
    #[serde(default)]
    pub quarantine: Quarantine,
    /// Closed Failover records to keep; the oldest beyond them are deleted, ten minutes after their end at the earliest. The last one of
    /// each drill stays.
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

/// Thresholds of detection, in milliseconds. `operator/docs/failover.md` has the table of what is concluded when, and why; the one of what each
/// trades is in `operator/docs/evidence.md`. The operator takes a change at once. A manager takes what it needs from its pod, so only with the
/// next one: replicas whose managers have it are `UpToDate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("self.goneAfterMs >= 2 * self.probeIntervalMs && self.suspectAfterMs >= 2 * self.probeIntervalMs").message("goneAfterMs and suspectAfterMs must be at least twice probeIntervalMs: one missed probe is not evidence"))]
#[x_kube(validation = Rule::new("self.evidenceMaxAgeMs >= (self.commitDeadlineMs < 1250 ? 1250 : self.commitDeadlineMs) + 2 * self.probeIntervalMs").message("evidenceMaxAgeMs must be at least commitDeadlineMs and twice probeIntervalMs together: a commit that hangs is told of when its deadline is over, and that would be out of date before the next probe"))]
#[x_kube(validation = Rule::new("self.evidenceMaxAgeMs >= self.stageDeadlineMs + 2 * self.probeIntervalMs + 250").message("evidenceMaxAgeMs must be at least stageDeadlineMs, twice probeIntervalMs and 250 together: a server that does not answer is told of when the deadline is over, and with the reports in between that would be out of date before it is told of again"))]
#[x_kube(validation = Rule::new("self.stuckAfterMs >= self.commitDeadlineMs").message("stuckAfterMs must be at least commitDeadlineMs"))]
#[x_kube(validation = Rule::new("self.stuckAfterMs >= 2 * self.stageDeadlineMs").message("stuckAfterMs must be at least twice stageDeadlineMs: one attempt that is not answered is not evidence"))]
#[serde(rename_all = "camelCase")]
pub struct Detection {
    /// How often each observer probes. The operator takes a change at once, a manager when its replica is replaced.
    #[serde(default = "ms::<250>")]
    #[schemars(range(min = 100, max = 10000))]
    pub probe_interval_ms: i32,
    /// Deadline of each stage of a probe before the commit; also of the whole probe by which a claim is checked before it is acted on. The operator
    /// takes a change at once, a manager when its replica is replaced.
    #[serde(default = "ms::<500>")]
    #[schemars(range(min = 100, max = 30000))]
    pub stage_deadline_ms: i32,
    /// Deadline of the commit stage. A probe waits for a lock for a second: with a deadline that is not longer than that, a lock which somebody
    /// holds looks like a server that hangs. So 1250 is the least; 1000, which was the default once, is taken for that. The operator takes a
    /// change at once, a manager when its replica is replaced.
    #[serde(default = "ms::<1500>")]
    #[schemars(range(min = 1000, max = 60000))]
    #[x_kube(validation = Rule::new("self == 1000 || self >= 1250").message("commitDeadlineMs must be at least 1250: a probe waits a second for a lock, and one that gives up sooner takes a lock for a server that hangs; 1000, an earlier default, counts as 1250"))]
    pub commit_deadline_ms: i32,
    /// Evidence older than this does not count. A change is taken at once.
    #[serde(default = "ms::<2000>")]
    #[schemars(range(min = 1450, max = 60000))]
    pub evidence_max_age_ms: i32,
    /// Probes that have failed for this long make the primary Suspect. What its manager itself saw end makes it so at once. A change is taken
    /// at once.
    #[serde(default = "ms::<1000>")]
    #[schemars(range(min = 200, max = 60000))]
    pub suspect_after_ms: i32,
    /// For this long observers of two failure domains must have failed to reach the primary before it is Gone (`Unreachable`), and its
    /// manager must have been silent for this and `evidenceMaxAgeMs`. So long must one also have refused writes (`Restarted`), or not
    /// served while its pod stops (`PodStopped`). What its manager saw end is Gone as soon as one other observer cannot use it
    /// (`ProcessExited`, `DataLost`). A change is taken at once.
    #[serde(default = "ms::<750>")]
    #[schemars(range(min = 200, max = 60000))]
    pub gone_after_ms: i32,
    /// A primary that greets nobody is Stuck after this, and one whose manager sees the process stopped 0.5 s sooner (`Stopped`); one whose volume
    /// hangs 2 s later (`VolumeStalled`), one in which nothing moves 5 s later (`Deadlocked`). A volume that answers with errors makes it Stuck at
    /// once (`VolumeFailed`). A change is taken at once.
    #[serde(default = "ms::<3000>")]
    #[schemars(range(min = 1000, max = 600000))]
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
            commit_deadline_ms: 1500,
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
