//! What rules of Drills must refuse.

use serde_json::{Value, json};

use super::{Base, Case, change, long, new};

/// Each with the words of its rule.
pub fn cases() -> Vec<Case> {
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
