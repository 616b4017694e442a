//! Whether the topic of a Datastore is another's too. Pure.
//!
//! Each of the two would store what is sent to the other. Brokers are told apart by what the specs call them, so two names of one
//! broker go unnoticed, as does a Datastore of another cluster.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use understudy_api::Datastore;

/// The Datastore that has the topic of this one and goes before it, as `NAMESPACE/NAME`.
pub fn holder<'a>(datastore: &Datastore, all: impl IntoIterator<Item = &'a Datastore>) -> Option<String> {
    let brokers = brokers_of(datastore);
    let goes_before = |other: &&Datastore| {
        let is_another = (other.namespace(), other.name_any()) != (datastore.namespace(), datastore.name_any());
        is_another
            && other.spec.kafka.topic == datastore.spec.kafka.topic
            && !brokers_of(other).is_disjoint(&brokers)
            && rank(other) < rank(datastore)
    };
    let first = all.into_iter().filter(goes_before).min_by_key(|other| rank(other))?;
    Some(format!("{}/{}", first.namespace().unwrap_or_default(), first.name_any()))
}

/// What is to be said of that, for a person.
pub fn note(datastore: &Datastore, holder: &str) -> String {
    let topic = &datastore.spec.kafka.topic;
    let then = match has_begun(datastore) {
        true => "both store what is sent to either. What runs goes on; make one of them anew with a topic of its own",
        false => {
            "each would store what is sent to the other, so nothing is made for this one. Make it with another topic"
        }
    };
    format!("topic {topic} is that of Datastore {holder} too: {then}")
}

/// Whoever has begun goes first, and of two that have, or have not, the older one.
fn rank(datastore: &Datastore) -> (bool, Option<Time>, Option<String>, String) {
    (!has_begun(datastore), datastore.creation_timestamp(), datastore.namespace(), datastore.name_any())
}

fn has_begun(datastore: &Datastore) -> bool {
    datastore.status.as_ref().is_some_and(|status| !status.placements.is_empty())
}

/// Where its brokers are. A host without a dot is a Service of the namespace, and not that of another namespace.
fn brokers_of(datastore: &Datastore) -> BTreeSet<String> {
    let address = |broker: &str| match broker.contains('.') {
        true => broker.to_lowercase(),
        false => format!("{}/{}", datastore.namespace().unwrap_or_default(), broker.to_lowercase()),
    };
    datastore.spec.kafka.bootstrap_servers.split(',').map(address).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const FIRST: &str = "2026-01-01T00:00:00Z";
    const SECOND: &str = "2026-01-02T00:00:00Z";

    /// `NAMESPACE/NAME` and when it was made; its brokers and its topic.
    fn datastore((path, created): (&str, &str), (brokers, topic): (&str, &str)) -> Datastore {
        let (namespace, name) = path.split_once('/').unwrap();
        serde_json::from_value(json!({
            "apiVersion": "understudy.dev/v1alpha1", "kind": "Datastore",
            "metadata": { "name": name, "namespace": namespace, "creationTimestamp": created },
            "spec": {
                "shardTemplate": { "mysql": { "image": "mysql:9.7.4" }, "storage": { "size": "10Gi" } },
                "kafka": { "bootstrapServers": brokers, "topic": topic },
            },
        }))
        .unwrap()
    }

    fn begun(mut datastore: Datastore) -> Datastore {
        let placement = json!({ "partition": 0, "fromOffset": 0, "shard": "s-0" });
        datastore.status = Some(serde_json::from_value(json!({ "placements": [placement] })).unwrap());
        datastore
    }

    #[test]
    fn one_topic_of_the_same_brokers_is_that_of_whoever_began_or_else_came_first() {
        let ours = || datastore(("prod/m", SECOND), ("k.kafka:9092,l.kafka:9092", "metrics"));
        let same = ("k.kafka:9092,l.kafka:9092", "metrics");
        for (case, other, expected) in [
            ("the same, older", datastore(("prod/a", FIRST), same), Some("prod/a")),
            ("of another namespace", datastore(("test/m", FIRST), same), Some("test/m")),
            ("younger", datastore(("prod/a", "2026-01-03T00:00:00Z"), same), None),
            ("younger, and has begun", begun(datastore(("prod/a", "2026-01-03T00:00:00Z"), same)), Some("prod/a")),
            ("of the same second, and its name is first", datastore(("prod/a", SECOND), same), Some("prod/a")),
            ("of the same second, and its name is last", datastore(("prod/z", SECOND), same), None),
            ("of the same second, and its namespace is first", datastore(("dev/z", SECOND), same), Some("dev/z")),
            ("the same one, as it was", begun(datastore(("prod/m", FIRST), same)), None),
            ("another topic", datastore(("prod/a", FIRST), (same.0, "other")), None),
            ("one broker in common", datastore(("prod/a", FIRST), ("L.kafka:9092", "metrics")), Some("prod/a")),
            ("another port", datastore(("prod/a", FIRST), ("k.kafka:9093", "metrics")), None),
            ("other brokers", datastore(("prod/a", FIRST), ("k.test:9092", "metrics")), None),
        ] {
            assert_eq!(holder(&ours(), [&ours(), &other]).as_deref(), expected, "{case}");
        }
    }

    #[test]
    fn one_that_has_begun_gives_way_only_to_an_older_one_that_has_too() {
        let ours = begun(datastore(("prod/m", SECOND), ("k.kafka:9092", "metrics")));
        let older = || datastore(("prod/a", FIRST), ("k.kafka:9092", "metrics"));
        assert_eq!(holder(&ours, [&older()]), None);
        assert_eq!(holder(&ours, [&begun(older())]).as_deref(), Some("prod/a"));
    }

    #[test]
    fn a_name_without_a_dot_is_another_broker_in_another_namespace() {
        let ours = datastore(("prod/m", SECOND), ("kafka:9092", "metrics"));
        for (other, expected) in [("prod/a", Some("prod/a")), ("test/a", None)] {
            let other = datastore((other, FIRST), ("kafka:9092", "metrics"));
            assert_eq!(holder(&ours, [&other]).as_deref(), expected);
        }
    }
}
