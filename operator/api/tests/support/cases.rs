//! Sound objects, and what each rule must refuse. The end-to-end tests show the same to a real API server.

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

fn datastore_cases() -> Vec<Case> {
    use Base::Datastore as D;
    let template = "/spec/shardTemplate";
    let at = |rest: &str| -> &'static str { format!("{template}{rest}").leak() };
    vec![
        new("too long a name", D, vec![("/metadata/name", long(35))], "at most 34 characters"),
        new("a name that is no Service's", D, vec![("/metadata/name", json!("9lives"))], "begin with a letter"),
        new("no shard", D, vec![("/spec/shards", json!(0))], "1 to 64 shards"),
        new("65 shards", D, vec![("/spec/shards", json!(65))], "1 to 64 shards"),
        change(
            "fewer shards",
            D,
            vec![("/spec/shards", json!(3))],
            vec![("/spec/shards", json!(2))],
            "cannot be taken away",
        ),
        new(
            "more shards than partitions",
            D,
            vec![("/spec/shards", json!(4)), ("/spec/kafka/partitions", json!(2))],
            "more shards than partitions",
        ),
        new("a query service that would let nobody in", D, vec![("/spec/gateway", Value::Null)], "query needs tokens"),
        new("an unknown partition", D, vec![("/spec/consumer", json!({"pausedPartitions": [3, 16]}))], "does not have"),
        new("a negative partition", D, vec![("/spec/consumer", json!({"pausedPartitions": [-1]}))], "does not have"),
        new("samples that are dropped at once", D, vec![("/spec/sampleRetentionDays", json!(0))], "1 to 36500"),
        new("no replica", D, vec![(at("/replicas"), json!(0))], "1 to 9 replicas"),
        new("50 replicas", D, vec![(at("/replicas"), json!(50))], "1 to 9 replicas"),
        new("no image", D, vec![(at("/mysql/image"), json!(""))], "such as mysql:8.4"),
        new(
            "a variable that breaks durability",
            D,
            vec![(at("/mysql/config"), json!({"sync_binlog": "0"}))],
            "may set only sizes",
        ),
        new(
            "a value that ends the line",
            D,
            vec![(at("/mysql/config"), json!({"max_connections": "1\nsync_binlog=0"}))],
            "one word",
        ),
        new(
            "binary logs that are kept for ever",
            D,
            vec![(at("/mysql/config"), json!({"binlog_expire_logs_seconds": "0"}))],
            "3600 to 2592000",
        ),
        new("a size that is none", D, vec![(at("/storage/size"), json!("big"))], "such as 100Gi"),
        new("a size of nothing", D, vec![(at("/storage/size"), json!("0"))], "such as 100Gi"),
        new("a size in bytes by mistake", D, vec![(at("/storage/size"), json!("10"))], "256Mi or more"),
        new(
            "a request that could never be taken",
            D,
            vec![("/spec/gateway/limits", json!({"maxDecompressedBytes": 134_217_728}))],
            "would never be taken",
        ),
        new(
            "a quota that lets nothing in",
            D,
            vec![("/spec/gateway/limits", json!({"samplesPerSecondPerTenant": 0}))],
            "leave it out",
        ),
        new(
            "evidence that is old before the next probe",
            D,
            vec![(at("/failover"), json!({"detection": {"commitDeadlineMs": 2000}}))],
            "before the next probe",
        ),
        change(
            "a smaller volume",
            D,
            vec![(at("/storage/size"), json!("2Gi"))],
            vec![(at("/storage/size"), json!("1500Mi"))],
            "cannot shrink",
        ),
        change(
            "another StorageClass",
            D,
            vec![(at("/storage/storageClassName"), json!("a"))],
            vec![(at("/storage/storageClassName"), json!("b"))],
            "storageClassName cannot be changed",
        ),
        change(
            "a StorageClass taken away",
            D,
            vec![(at("/storage/storageClassName"), json!("a"))],
            vec![],
            "storageClassName cannot be changed",
        ),
        new(
            "one missed probe as evidence",
            D,
            vec![(at("/failover"), json!({"detection": {"probeIntervalMs": 500}}))],
            "one missed probe",
        ),
        new(
            "stuck before the deadline",
            D,
            vec![(at("/failover"), json!({"detection": {"stuckAfterMs": 500}}))],
            "at least commitDeadlineMs",
        ),
        new(
            "labels of ours on replicas",
            D,
            vec![(at("/podTemplate"), json!({"labels": labels()}))],
            "choose another prefix",
        ),
        new("brokers without a port", D, vec![("/spec/kafka/bootstrapServers", json!("kafka"))], "host:port"),
        new("a topic with a blank", D, vec![("/spec/kafka/topic", json!("my topic"))], "letters, digits"),
        new("a topic too long for its dead letters", D, vec![("/spec/kafka/topic", long(238))], "at most 237"),
        change(
            "another topic",
            D,
            vec![("/spec/kafka/topic", json!("a"))],
            vec![("/spec/kafka/topic", json!("b"))],
            "topic cannot be changed",
        ),
        new("no partition", D, vec![("/spec/kafka/partitions", json!(0))], "1 to 1024 partitions"),
        change(
            "more partitions",
            D,
            vec![("/spec/kafka/partitions", json!(16))],
            vec![("/spec/kafka/partitions", json!(32))],
            "partitions cannot be changed",
        ),
        new("no copy", D, vec![("/spec/kafka/replicationFactor", json!(0))], "1 to 7 copies"),
        change(
            "more copies",
            D,
            vec![("/spec/kafka/replicationFactor", json!(3))],
            vec![("/spec/kafka/replicationFactor", json!(5))],
            "Kafka's own tools",
        ),
        new("no copy in sync", D, vec![("/spec/kafka/minInsyncReplicas", json!(0))], "1 to 7"),
        new(
            "more copies in sync than copies",
            D,
            vec![("/spec/kafka/minInsyncReplicas", json!(4))],
            "nothing could be written",
        ),
        new(
            "one copy in sync of three",
            D,
            vec![("/spec/kafka/minInsyncReplicas", json!(1))],
            "survive the loss of a broker",
        ),
        new("no retention", D, vec![("/spec/kafka/retentionHours", json!(0))], "1 to 8760"),
        new("no gateway pod", D, vec![("/spec/gateway/replicas", json!(0))], "1 to 100"),
        new("no query pod", D, vec![("/spec/query/replicas", json!(0))], "1 to 100"),
        new("no consumer pod", D, vec![("/spec/consumer", json!({"replicas": 0}))], "1 to 5 pods"),
        new("a Secret in another namespace", D, vec![("/spec/gateway/tokens", elsewhere())], "copy the Secret here"),
        new(
            "a Secret in another namespace, for query",
            D,
            vec![("/spec/query/tokens", elsewhere())],
            "copy the Secret here",
        ),
        new(
            "a Secret with its namespace in its name",
            D,
            vec![("/spec/gateway/tokens/name", json!("kube-system/tokens"))],
            "without a namespace",
        ),
        new(
            "labels of ours on gateways",
            D,
            vec![("/spec/gateway/podTemplate", json!({"labels": labels()}))],
            "choose another prefix",
        ),
    ]
}

fn shard_cases() -> Vec<Case> {
    use Base::Shard as S;
    vec![
        new("too long a name", S, vec![("/metadata/name", long(41))], "at most 40 characters"),
        new("a name that is no Service's", S, vec![("/metadata/name", json!("0-metrics"))], "begin with a letter"),
        new("no replica", S, vec![("/spec/replicas", json!(0))], "1 to 9 replicas"),
        new("50 replicas", S, vec![("/spec/replicas", json!(50))], "1 to 9 replicas"),
        new("no image", S, vec![("/spec/mysql/image", json!("my sql"))], "such as mysql:8.4"),
        new(
            "a variable that lets anyone write",
            S,
            vec![("/spec/mysql/config", json!({"super_read_only": "OFF"}))],
            "may set only sizes",
        ),
        new(
            "binary logs that go at once",
            S,
            vec![("/spec/mysql/config", json!({"binlog_expire_logs_seconds": "3599"}))],
            "3600 to 2592000",
        ),
        new("a value with a blank", S, vec![("/spec/mysql/config", json!({"max_connections": "1 0"}))], "one word"),
        new("a size in bytes by mistake", S, vec![("/spec/storage/size", json!("10"))], "256Mi or more"),
        new(
            "evidence that is old before the next probe",
            S,
            vec![(
                "/spec/failover",
                json!({"detection": {"probeIntervalMs": 1000, "evidenceMaxAgeMs": 2900, "suspectAfterMs": 2000, "goneAfterMs": 2000}}),
            )],
            "before the next probe",
        ),
        new("a size that is none", S, vec![("/spec/storage/size", json!("10 gigabytes"))], "such as 100Gi"),
        change(
            "a smaller volume",
            S,
            vec![("/spec/storage/size", json!("1Ti"))],
            vec![("/spec/storage/size", json!("999Gi"))],
            "cannot shrink",
        ),
        change(
            "another StorageClass",
            S,
            vec![],
            vec![("/spec/storage/storageClassName", json!("b"))],
            "storageClassName cannot be changed",
        ),
        new(
            "one missed probe as evidence",
            S,
            vec![("/spec/failover", json!({"detection": {"goneAfterMs": 300}}))],
            "one missed probe",
        ),
        new(
            "stuck before the deadline",
            S,
            vec![("/spec/failover", json!({"detection": {"stuckAfterMs": 500}}))],
            "at least commitDeadlineMs",
        ),
        new("labels of ours", S, vec![("/spec/podTemplate", json!({"labels": labels()}))], "choose another prefix"),
    ]
}

fn replica_cases() -> Vec<Case> {
    use Base::Replica as R;
    let condemned = |reason: &str| json!({"reason": reason});
    vec![
        new("server_id 0", R, vec![("/spec/serverId", json!(0))], "between 1 and 4294967295"),
        new(
            "server_id beyond 32 bits",
            R,
            vec![("/spec/serverId", json!(4_294_967_296_i64))],
            "between 1 and 4294967295",
        ),
        change("another shard", R, vec![], vec![("/spec/shard", json!("metrics-1"))], "only condemned or deleted"),
        change("another server_id", R, vec![], vec![("/spec/serverId", json!(8))], "only condemned or deleted"),
        change(
            "another node to avoid",
            R,
            vec![],
            vec![("/spec/avoidNodes", json!(["n1"]))],
            "only condemned or deleted",
        ),
        change(
            "a condemnation taken back",
            R,
            vec![("/spec/condemned", condemned("ProcessExited"))],
            vec![],
            "stays condemned",
        ),
        change(
            "another condemnation",
            R,
            vec![("/spec/condemned", condemned("A"))],
            vec![("/spec/condemned", condemned("B"))],
            "stays condemned",
        ),
    ]
}

fn consumer_cases() -> Vec<Case> {
    use Base::Consumer as C;
    let by_hand =
        || vec![("/spec/datastore", Value::Null), ("/spec/shards", json!(["a", "b"])), ("/spec/kafka", topic("t"))];
    let and = |mut fields: Vec<(&'static str, Value)>, more: (&'static str, Value)| {
        fields.push(more);
        fields
    };
    let view = |schema: &str| json!({"image": "events:1", "schema": schema});
    vec![
        new("too long a name", C, vec![("/metadata/name", long(41))], "at most 40 characters"),
        new(
            "both datastore and shards",
            C,
            vec![("/spec/shards", json!(["a"])), ("/spec/kafka", topic("t"))],
            "either datastore or shards",
        ),
        new(
            "a topic of its own beside a Datastore's placements",
            C,
            vec![("/spec/kafka", topic("t"))],
            "name the shards one by one",
        ),
        new(
            "gaps in a Datastore's own topic",
            C,
            vec![("/spec/acceptGaps", json!(true))],
            "not written by transactions",
        ),
        new("neither datastore nor shards", C, vec![("/spec/datastore", Value::Null)], "either datastore or shards"),
        new(
            "shards without a topic",
            C,
            vec![("/spec/datastore", Value::Null), ("/spec/shards", json!(["a"]))],
            "no Datastore to take the topic from",
        ),
        new(
            "a shard that cannot be one",
            C,
            vec![("/spec/datastore", Value::Null), ("/spec/shards", json!(["a.b"])), ("/spec/kafka", topic("t"))],
            "names of Shards",
        ),
        change(
            "another datastore",
            C,
            vec![],
            vec![("/spec/datastore", json!("other"))],
            "datastore cannot be changed",
        ),
        change(
            "another shard",
            C,
            by_hand(),
            and(by_hand(), ("/spec/shards", json!(["a", "c"]))),
            "shards cannot be changed",
        ),
        change(
            "the same shards in another order",
            C,
            by_hand(),
            and(by_hand(), ("/spec/shards", json!(["b", "a"]))),
            "shards cannot be changed",
        ),
        change(
            "a view where there was none",
            C,
            vec![],
            vec![("/spec/view", view("view_team"))],
            "view cannot be added or taken away",
        ),
        change(
            "another group",
            C,
            vec![("/spec/group", json!("a"))],
            vec![("/spec/group", json!("b"))],
            "group cannot be changed",
        ),
        change("a group added", C, vec![], vec![("/spec/group", json!("b"))], "group cannot be changed"),
        change("a topic added", C, vec![], vec![("/spec/kafka", topic("t"))], "cannot be added or taken away"),
        change("another topic", C, by_hand(), and(by_hand(), ("/spec/kafka", topic("u"))), "topic cannot be changed"),
        new(
            "brokers without a port",
            C,
            vec![("/spec/kafka", json!({"bootstrapServers": "a", "topic": "t"}))],
            "host:port",
        ),
        new("a topic with a blank", C, vec![("/spec/kafka", topic("t t"))], "letters, digits"),
        new("a group with a blank", C, vec![("/spec/group", json!("a b"))], "group has letters"),
        new(
            "a view without an image",
            C,
            vec![("/spec/view", json!({"image": "", "schema": "view_a"}))],
            "must name an image",
        ),
        new("a view in a schema of ours", C, vec![("/spec/view", view("understudy"))], "begin with view_"),
        change(
            "a view in another schema",
            C,
            vec![("/spec/view", view("view_a"))],
            vec![("/spec/view", view("view_b"))],
            "another name or group",
        ),
        new(
            "a setting in lower case",
            C,
            vec![("/spec/view", json!({"image": "a", "schema": "view_a", "settings": {"path": "/"}}))],
            "upper-case",
        ),
        new("no pod", C, vec![("/spec/replicas", json!(0))], "1 to 5 pods"),
        new("a negative partition", C, vec![("/spec/pausedPartitions", json!([-1]))], "0 or more"),
        new("labels of ours", C, vec![("/spec/podTemplate", json!({"labels": labels()}))], "choose another prefix"),
    ]
}

fn failover_cases() -> Vec<Case> {
    use Base::Failover as F;
    vec![
        new("no shard", F, vec![("/spec/shard", json!(""))], "name of a Shard in this namespace"),
        new(
            "a shard's name too long to be one",
            F,
            vec![("/spec/shard", long(41))],
            "name of a Shard in this namespace",
        ),
        new("a drill", F, vec![("/spec/kind", json!("Drill"))], "a rehearsal is asked for by a Drill"),
        change("another target", F, vec![], vec![("/spec/target", json!("metrics-0-q9mm"))], "create another"),
    ]
}

fn drill_cases() -> Vec<Case> {
    use Base::Drill as D;
    let window = |from: &str, to: &str| json!({"windows": [{"days": ["Monday"], "from": from, "to": to}]});
    vec![
        new("too long a name", D, vec![("/metadata/name", long(41))], "at most 40 characters"),
        new("no Datastore", D, vec![("/spec/datastore", Value::Null)], "give datastore"),
        new("six fields", D, vec![("/spec/schedule", json!("0 0 10 * * MON"))], "five fields"),
        new("a word for a schedule", D, vec![("/spec/schedule", json!("@weekly"))], "five fields"),
        new("a time zone with a blank", D, vec![("/spec/timeZone", json!("Europe Paris"))], "tz database"),
        new("a shard without a name", D, vec![("/spec/scope", json!({"kind": "Shard"}))], "the name of the Shard"),
        new("a name by chance", D, vec![("/spec/scope", json!({"kind": "Random", "name": "a"}))], "leave out name"),
        new("a window from the 25th hour", D, vec![("/spec/abort", window("25:00", "17:00"))], "from is a time of day"),
        new("a window up to midnight", D, vec![("/spec/abort", window("09:00", "24:00"))], "to is a time of day"),
        change(
            "a request of yesterday",
            D,
            vec![("/spec/requestedAt", json!("2026-03-02T10:00:00Z"))],
            vec![("/spec/requestedAt", json!("2026-03-01T10:00:00Z"))],
            "cannot be set back",
        ),
    ]
}

/// All of them. A test of this crate sees to it that every rule is broken by one.
pub fn cases() -> Vec<Case> {
    [datastore_cases(), shard_cases(), replica_cases(), consumer_cases(), failover_cases(), drill_cases()]
        .into_iter()
        .flatten()
        .collect()
}
