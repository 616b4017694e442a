//! What rules of Failovers must refuse.

use serde_json::json;

use super::{Base, Case, change, long, new};

/// Each with the words of its rule.
pub fn cases() -> Vec<Case> {
    use Base::Failover as F;
    vec![
        new("no shard", F, vec![("/spec/shard", json!(""))], "name of a Shard in this namespace"),
        new(
            "a shard's name too long to be one",
            F,
            vec![("/spec/shard", long(41))],
            "name of a Shard in this namespace",
        ),
        change("another target", F, vec![], vec![("/spec/target", json!("metrics-0-q9mm"))], "create another"),
    ]
}
