//! What rules of Shards must refuse.

use serde_json::json;

use super::{Base, Case, change, labels, long, new};

/// Each with the words of its rule.
pub fn cases() -> Vec<Case> {
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
            "a deadline by which a lock looks like a stall",
            S,
            vec![("/spec/failover", json!({"detection": {"commitDeadlineMs": 1249}}))],
            "at least 1250",
        ),
        new(
            "silences that are old before they are told of again",
            S,
            vec![("/spec/failover", json!({"detection": {"stageDeadlineMs": 1501}}))],
            "told of again",
        ),
        new(
            "one silence as evidence",
            S,
            vec![("/spec/failover", json!({"detection": {"stageDeadlineMs": 1501}}))],
            "at least twice stageDeadlineMs",
        ),
        new(
            "stuck before the deadline",
            S,
            vec![("/spec/failover", json!({"detection": {"stuckAfterMs": 1400}}))],
            "at least commitDeadlineMs",
        ),
        new("labels of ours", S, vec![("/spec/podTemplate", json!({"labels": labels()}))], "choose another prefix"),
    ]
}
