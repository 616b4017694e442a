//! Datastore: all shards of one store, its topic and its ingest services.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::consumer::two;
use super::{
    Availability, BatchLimits, DeletionPolicy, DrillPermission, FailoverPolicy, MysqlSpec, PodTemplate, Resources,
    SecretRef, StartAt, StorageSpec, VerdictState,
};

/// What a person asks of a store.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "understudy.dev",
    version = "v1alpha1",
    kind = "Datastore",
    plural = "datastores",
    shortname = "dstore",
    category = "understudy",
    namespaced,
    status = "DatastoreStatus",
    derive = "PartialEq",
    doc = "A sharded store of time series: its shards, its topic and its ingest services.",
    validation = Rule::new("self.metadata.name.size() <= 34").message("the name of a Datastore may have at most 34 characters, so that the names of its shards, replicas and Services fit; choose a shorter one"),
    validation = Rule::new("self.metadata.name.matches('^[a-z][-a-z0-9]*$')").message("the name of a Datastore must begin with a letter and have only lower-case letters, digits and dashes: its Services are named after it"),
    printcolumn(name = "Shards", type_ = "string", json_path = ".status.shardsReady", description = "Shards that are ready, of those asked for"),
    printcolumn(name = "Verdict", type_ = "string", json_path = ".status.worst.state", description = "Worst of the shards' verdicts"),
    printcolumn(name = "Of", type_ = "string", json_path = ".status.worst.shard", description = "The shard with the worst verdict"),
    printcolumn(name = "Gateway", type_ = "string", json_path = ".status.gateway.ready"),
    printcolumn(name = "Query", type_ = "string", json_path = ".status.query.ready"),
    printcolumn(name = "Consumer", type_ = "string", json_path = ".status.consumer.ready"),
    printcolumn(name = "Delay", type_ = "string", json_path = ".status.delay", description = "From the topic into the shards"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 1)
)]
#[x_kube(validation = Rule::new("self.shards <= self.kafka.partitions").message("there are more shards than partitions, so some would get no data; give fewer shards or, on a new Datastore, more partitions"))]
#[x_kube(validation = Rule::new("!has(self.query) || has(self.query.tokens) || has(self.gateway)").message("query needs tokens: give query.tokens, or a gateway whose tokens it can share"))]
#[x_kube(validation = Rule::new("!has(self.consumer.pausedPartitions) || self.consumer.pausedPartitions.all(p, p >= 0 && p < self.kafka.partitions)").message("consumer.pausedPartitions names a partition that the topic does not have; partitions are 0 to kafka.partitions - 1"))]
#[serde(rename_all = "camelCase")]
pub struct DatastoreSpec {
    /// How many shards. May grow; new data is spread over the new ones, old data ages out where it is.
    #[serde(default = "one")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 64").message("a Datastore has 1 to 64 shards"))]
    #[x_kube(validation = Rule::new("self >= oldSelf").message("shards cannot be taken away while they hold data; make a smaller Datastore and let this one age out"))]
    pub shards: i32,
    /// What each shard is like.
    pub shard_template: ShardTemplate,
    /// The topic that everything goes through.
    pub kafka: KafkaSpec,
    /// What takes samples in; without it, there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewaySpec>,
    /// How many days samples are kept, by their own time; for ever when unset, and the volumes fill up. Whole tables of two hours are
    /// dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 36500").message("sampleRetentionDays is 1 to 36500; leave it out to keep samples for ever"))]
    pub sample_retention_days: Option<i32>,
    /// What reads the topic into the shards.
    #[serde(default)]
    pub consumer: StoreConsumerSpec,
    /// What answers queries; without it, nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<QuerySpec>,
    /// What Drills may do to the shards.
    #[serde(default, skip_serializing_if = "DrillPermission::is_none")]
    pub drills: DrillPermission,
    /// Stops every action of the operator on this Datastore and on its shards, failover included.
    #[serde(default)]
    pub paused: bool,
    /// What becomes of the volumes and passwords when the Datastore is deleted: what it says then counts, whenever they were made.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

fn one() -> i32 {
    1
}

/// What each shard of a Datastore is like.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShardTemplate {
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
}

fn three() -> i32 {
    3
}

/// The topic of a Datastore. The operator makes it and checks it; it never changes one that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("self.minInsyncReplicas <= self.replicationFactor").message("minInsyncReplicas cannot be above replicationFactor: nothing could be written"))]
#[x_kube(validation = Rule::new("self.replicationFactor == 1 || self.minInsyncReplicas >= 2").message("minInsyncReplicas must be at least 2 when there are several copies: an acknowledged sample must survive the loss of a broker"))]
#[serde(rename_all = "camelCase")]
pub struct KafkaSpec {
    /// Brokers to begin with, `host:port` with commas between them.
    #[schemars(length(max = 2048))]
    #[x_kube(validation = Rule::new("self.matches('^[^,: ]+:[0-9]+(,[^,: ]+:[0-9]+)*$')").message("bootstrapServers must be host:port, with commas and no blanks between several"))]
    pub bootstrap_servers: String,
    /// The topic's name. Dead letters go to `TOPIC.dead-letter`. It is of one Datastore alone: nothing is made for one whose topic is an
    /// older one's, and the condition TopicReady says `TopicShared`.
    #[schemars(length(max = 249))]
    #[x_kube(validation = Rule::new("self.matches('^[a-zA-Z0-9._-]{1,237}$')").message("a topic's name has letters, digits, dots, dashes and underscores, and at most 237 of them: the dead letters get a topic with the same name and more"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("the topic cannot be changed: stored offsets count in the old one; make a new Datastore"))]
    pub topic: String,
    /// Partitions of the topic.
    #[serde(default = "sixteen")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 1024").message("a topic has 1 to 1024 partitions"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("partitions cannot be changed: which partition a series goes to follows from their number; make a new Datastore"))]
    pub partitions: i32,
    /// Copies of each partition.
    #[serde(default = "three")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 7").message("a topic has 1 to 7 copies of each partition"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("replicationFactor cannot be changed here; reassign the topic's partitions with Kafka's own tools"))]
    pub replication_factor: i32,
    /// Copies that must have a record before it is acknowledged. Like `retentionHours` it is set when the topic is made; a topic that is
    /// there is never changed: change it as well, with `--add-config min.insync.replicas=2`.
    #[serde(default = "two")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 7").message("minInsyncReplicas is 1 to 7"))]
    pub min_insync_replicas: i32,
    /// How long records are kept. A shard that is behind by more than this has lost data, so keep days, not minutes. It is set when the
    /// topic is made; a topic that is there is never changed, and as long as it differs the condition TopicReady says `TopicDiffers`.
    /// Change the topic as well: `kafka-configs.sh --bootstrap-server HOST:9092 --alter --entity-type topics --entity-name TOPIC
    /// --add-config retention.ms=259200000` (hours * 3600000).
    #[serde(default = "three_days")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 8760").message("retentionHours is 1 to 8760"))]
    pub retention_hours: i32,
}

fn sixteen() -> i32 {
    16
}
fn three_days() -> i32 {
    72
}

/// What takes samples in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewaySpec {
    /// Pods. The operator keeps their Deployment at this number, so a HorizontalPodAutoscaler of that Deployment would fight it for ever:
    /// whatever scales must write this field.
    #[serde(default = "two")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 100").message("gateway.replicas is 1 to 100; take 2 or more, so that senders are answered while one is replaced"))]
    pub replicas: i32,
    /// The tokens that senders and readers show: each key of the Secret is a token's id, each value `<tenant> sha256:<hex>`.
    pub tokens: SecretRef,
    /// What one request may be.
    #[serde(default)]
    pub limits: GatewayLimits,
    /// Requests and limits of each pod.
    #[serde(default)]
    pub resources: Resources,
    /// Additions to the pods.
    #[serde(default)]
    pub pod_template: PodTemplate,
}

/// What one request may be, and what all of them together and those of one tenant may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("self.maxInflightBytes >= self.maxCompressedBytes + self.maxDecompressedBytes").message("maxInflightBytes must be at least maxCompressedBytes and maxDecompressedBytes together: a request of the largest size would never be taken"))]
#[serde(rename_all = "camelCase")]
pub struct GatewayLimits {
    /// Bytes of a body as it is sent.
    #[serde(default = "four_mebibytes")]
    #[schemars(range(min = 1024, max = 268435456))]
    pub max_compressed_bytes: i64,
    /// Bytes of a body once unpacked.
    #[serde(default = "thirty_two_mebibytes")]
    #[schemars(range(min = 1024, max = 1073741824))]
    pub max_decompressed_bytes: i64,
    /// Bytes that all bodies may take at once in a pod. With a limit of memory in `resources` no more than half of that is used.
    #[serde(default = "a_hundred_and_twenty_eight_mebibytes")]
    #[schemars(range(min = 1048576, max = 17179869184_i64))]
    pub max_inflight_bytes: i64,
    /// Samples per second that a tenant may send to each pod, in bursts of up to ten seconds' worth; what is above is answered 429. Any number
    /// when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 1000000000").message("samplesPerSecondPerTenant is 1 to 1000000000; leave it out to let a tenant send as much as it likes"))]
    pub samples_per_second_per_tenant: Option<i32>,
}

fn four_mebibytes() -> i64 {
    4 << 20
}
fn thirty_two_mebibytes() -> i64 {
    32 << 20
}
fn a_hundred_and_twenty_eight_mebibytes() -> i64 {
    128 << 20
}

impl Default for GatewayLimits {
    fn default() -> Self {
        Self {
            max_compressed_bytes: four_mebibytes(),
            max_decompressed_bytes: thirty_two_mebibytes(),
            max_inflight_bytes: a_hundred_and_twenty_eight_mebibytes(),
            samples_per_second_per_tenant: None,
        }
    }
}

/// What reads the topic into the shards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreConsumerSpec {
    /// Pods per shard. One is active, the others stand by on other nodes.
    #[serde(default = "two")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 5").message("a Consumer has 1 to 5 pods per shard; one is active, so more than 2 only help with losing several nodes at once"))]
    pub replicas: i32,
    /// How much goes into one transaction.
    #[serde(default)]
    pub batch: BatchLimits,
    /// Where a partition begins of which nothing is stored yet. `Earliest` if the topic is older than this Datastore.
    #[serde(default)]
    pub start: StartAt,
    /// Stops reading; the pods stay.
    #[serde(default)]
    pub paused: bool,
    /// Partitions that are not read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub paused_partitions: Vec<i32>,
    /// Requests and limits of each pod.
    #[serde(default)]
    pub resources: Resources,
    /// Additions to the pods.
    #[serde(default)]
    pub pod_template: PodTemplate,
}

impl Default for StoreConsumerSpec {
    fn default() -> Self {
        Self {
            replicas: two(),
            batch: BatchLimits::default(),
            start: StartAt::default(),
            paused: false,
            paused_partitions: Vec::new(),
            resources: Resources::default(),
            pod_template: PodTemplate::default(),
        }
    }
}

/// What answers queries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuerySpec {
    /// Pods. The operator keeps their Deployment at this number, so a HorizontalPodAutoscaler of that Deployment would fight it for ever:
    /// whatever scales must write this field.
    #[serde(default = "two")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 100").message("query.replicas is 1 to 100"))]
    pub replicas: i32,
    /// The tokens that readers show, in the same form as the gateway's; the gateway's own by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<SecretRef>,
    /// Requests and limits of each pod. Half of a limit of memory is for the samples of queries, or 512 MiB without one; a query that does not
    /// get its part is answered 503.
    #[serde(default)]
    pub resources: Resources,
    /// Additions to the pods.
    #[serde(default)]
    pub pod_template: PodTemplate,
}

/// What the operator saw and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatastoreStatus {
    /// The generation of the spec that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Shards that are ready, of those asked for, such as `2/2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards_ready: Option<String>,
    /// Which shard each partition feeds, from which offset on. Entries are only ever added; one that is pending may move on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["partition".into(), "fromOffset".into()]))]
    pub placements: Vec<Placement>,
    /// How many shards the placements spread the topic over.
    #[serde(default)]
    pub placed_shards: i32,
    /// The worst verdict and its shard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst: Option<WorstVerdict>,
    /// Time from the topic into the shards: the lag of the partition furthest behind, such as `0s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<String>,
    /// The same in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_seconds: Option<f64>,
    /// How long its shards took no writes, and how often they failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub availability: Option<Availability>,
    /// The gateway's pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<WorkloadStatus>,
    /// The query service's pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<WorkloadStatus>,
    /// The consumer's pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<WorkloadStatus>,
    /// Ready, Progressing, Degraded, UpToDate, TopicReady, Placed, SecretsReady.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// From `fromOffset` on, until a later entry of the same partition, `partition` feeds `shard`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// The partition.
    pub partition: i32,
    /// The first offset.
    pub from_offset: i64,
    /// The name of the Shard.
    pub shard: String,
    /// The shard of the entry before may not know yet that it ends here: it stops as soon as it does, and until it has said so nobody reads
    /// from here on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pending: bool,
}

/// The worst verdict of a Datastore's shards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorstVerdict {
    /// The verdict.
    pub state: VerdictState,
    /// The shard; unset when all are Healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<String>,
}

/// The pods of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadStatus {
    /// Ready, of those asked for, such as `2/2`.
    pub ready: String,
}
