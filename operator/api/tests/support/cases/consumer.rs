//! What rules of Consumers must refuse.

use serde_json::{Value, json};

use super::{Base, Case, change, labels, long, new, topic};

/// Each with the words of its rule.
pub fn cases() -> Vec<Case> {
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
