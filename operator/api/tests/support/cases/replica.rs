//! What rules of Replicas must refuse.

use serde_json::json;

use super::{Base, Case, change, new};

/// Each with the words of its rule.
pub fn cases() -> Vec<Case> {
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
