//! What rules of Datastores must refuse.

use serde_json::{Value, json};

use super::{Base, Case, change, elsewhere, labels, long, new};

/// Each with the words of its rule.
pub fn cases() -> Vec<Case> {
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
            "a deadline by which a lock looks like a stall",
            D,
            vec![(at("/failover"), json!({"detection": {"commitDeadlineMs": 1249}}))],
            "at least 1250",
        ),
        new(
            "silences that are old before they are told of again",
            D,
            vec![(at("/failover"), json!({"detection": {"stageDeadlineMs": 1501}}))],
            "told of again",
        ),
        new(
            "one silence as evidence",
            D,
            vec![(at("/failover"), json!({"detection": {"stageDeadlineMs": 1501}}))],
            "at least twice stageDeadlineMs",
        ),
        new(
            "stuck before the deadline",
            D,
            vec![(at("/failover"), json!({"detection": {"stuckAfterMs": 1400}}))],
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
