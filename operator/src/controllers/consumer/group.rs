//! Which of several Consumers may read into a shard under one group and write into one schema of it. Pure.
//!
//! A shard has one owner row and one set of offsets per group, so two Consumers of one group would take each other's offsets
//! for their own: what the one has read, the other never stores. Two that write into one schema write the same rows: each
//! record is there twice, or the second one meets the keys of the first and never passes them.

use std::collections::BTreeSet;

use kube::ResourceExt;
use understudy_api::Consumer;

/// The schema of the time-series store, into which a Consumer without a view of its own writes.
pub const STORE: &str = "store";

/// The group under which the Consumer's offsets are stored.
pub fn group_of(consumer: &Consumer) -> String {
    consumer.spec.group.clone().unwrap_or_else(|| consumer.name_any())
}

/// The schema that the Consumer writes into.
pub fn schema_of(consumer: &Consumer) -> &str {
    consumer.spec.view.as_ref().map_or(STORE, |view| &view.schema)
}

/// What two Consumers have in common and cannot share on one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Common {
    /// The group, and perhaps the schema too.
    Group(String),
    /// The schema.
    Schema(String),
}

/// An older Consumer has on a shard already what this one wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The older Consumer.
    pub by: String,
    /// What it has.
    pub what: Common,
    /// The shards that both read into.
    pub shards: Vec<String>,
}

/// What keeps both of these Consumers from reading into one shard.
pub fn common(one: &Consumer, other: &Consumer) -> Option<Common> {
    let (group, schema) = (group_of(one), schema_of(one));
    if group == group_of(other) {
        return Some(Common::Group(group));
    }
    (schema == schema_of(other)).then(|| Common::Schema(schema.to_owned()))
}

/// Whether an older one of `others`, each with its shards, has the group or the schema of this Consumer on one of `shards`. Of two
/// that were made in the same second the one with the lesser name is older. One that does not run itself counts as well: which of
/// two runs must not change with a third.
pub fn taken<'a>(
    consumer: &Consumer,
    shards: &[String],
    others: impl IntoIterator<Item = (&'a Consumer, Vec<String>)>,
) -> Option<Taken> {
    let age = |consumer: &Consumer| (consumer.creation_timestamp().map(|time| time.0), consumer.name_any());
    let wanted: BTreeSet<_> = shards.iter().collect();
    let overlaps = others.into_iter().filter_map(|(other, theirs)| {
        let is_older = other.uid() != consumer.uid() && age(other) < age(consumer);
        let what = common(consumer, other).filter(|_| is_older)?;
        let shards: Vec<_> = theirs.into_iter().filter(|shard| wanted.contains(shard)).collect();
        (!shards.is_empty()).then(|| (age(other), Taken { by: other.name_any(), what, shards }))
    });
    overlaps.min_by(|(one, _), (other, _)| one.cmp(other)).map(|(_, taken)| taken)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn consumer(name: &str, second: u32, group: Option<&str>) -> Consumer {
        writing(name, second, group, Some(&format!("view_{name}")))
    }

    /// Into this schema of its own, or into the store.
    fn writing(name: &str, second: u32, group: Option<&str>, schema: Option<&str>) -> Consumer {
        serde_json::from_value(json!({
            "apiVersion": "understudy.dev/v1alpha1", "kind": "Consumer",
            "metadata": {
                "name": name, "namespace": "prod", "uid": name,
                "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
            },
            "spec": {
                "shards": ["a"], "kafka": { "bootstrapServers": "k:1", "topic": "t" }, "group": group,
                "view": schema.map(|schema| json!({ "image": "i", "schema": schema })),
            },
        }))
        .unwrap()
    }

    fn shards(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn of_two_consumers_of_one_group_on_one_shard_the_older_one_runs() {
        for (case, mine, my_shards, other, their_shards, by) in [
            ("the other is older", ("b", 9, Some("g")), &["a"][..], ("x", 1, Some("g")), &["a"][..], Some("x")),
            ("the other is younger", ("b", 1, Some("g")), &["a"], ("x", 9, Some("g")), &["a"], None),
            ("as old, and its name is first", ("b", 1, Some("g")), &["a"], ("a", 1, Some("g")), &["a"], Some("a")),
            ("as old, and its name is last", ("b", 1, Some("g")), &["a"], ("c", 1, Some("g")), &["a"], None),
            ("its own name is the group", ("b", 9, Some("x")), &["a"], ("x", 1, None), &["a"], Some("x")),
            ("another group", ("b", 9, Some("g")), &["a"], ("x", 1, Some("h")), &["a"], None),
            ("both unnamed", ("b", 9, None), &["a"], ("x", 1, None), &["a"], None),
            ("other shards", ("b", 9, Some("g")), &["a"], ("x", 1, Some("g")), &["b"], None),
            ("one shard in common", ("b", 9, Some("g")), &["a", "b"], ("x", 1, Some("g")), &["b", "c"], Some("x")),
        ] {
            let (me, other) = (consumer(mine.0, mine.1, mine.2), consumer(other.0, other.1, other.2));
            let found = taken(&me, &shards(my_shards), [(&me, shards(my_shards)), (&other, shards(their_shards))]);
            assert_eq!(found.map(|taken| taken.by).as_deref(), by, "{case}");
        }
    }

    #[test]
    fn of_two_consumers_that_write_into_one_schema_of_a_shard_the_older_one_runs() {
        let taken_by = |what| Some(("x".to_owned(), what));
        let schema = |schema: &str| taken_by(Common::Schema(schema.to_owned()));
        for (case, mine, my_shards, other, their_shards, expected) in [
            ("both the store", (9, "g", None), &["a"][..], (1, "h", None), &["a"][..], schema("store")),
            ("the other is younger", (1, "g", None), &["a"], (9, "h", None), &["a"], None),
            ("the store of other shards", (9, "g", None), &["a"], (1, "h", None), &["b"], None),
            ("a view beside the store", (9, "g", Some("view_v")), &["a"], (1, "h", None), &["a"], None),
            ("one view", (9, "g", Some("view_v")), &["a"], (1, "h", Some("view_v")), &["b", "a"], schema("view_v")),
            ("two views", (9, "g", Some("view_v")), &["a"], (1, "h", Some("view_w")), &["a"], None),
            ("group and schema", (9, "g", None), &["a"], (1, "g", None), &["a"], taken_by(Common::Group("g".into()))),
        ] {
            let me = writing("b", mine.0, Some(mine.1), mine.2);
            let other = writing("x", other.0, Some(other.1), other.2);
            let found = taken(&me, &shards(my_shards), [(&me, shards(my_shards)), (&other, shards(their_shards))]);
            assert_eq!(found.map(|taken| (taken.by, taken.what)), expected, "{case}");
        }
    }

    #[test]
    fn exactly_one_of_any_number_runs() {
        let all = [consumer("c", 1, Some("g")), consumer("a", 5, Some("g")), consumer("b", 1, Some("g"))];
        let others = || all.iter().map(|other| (other, shards(&["a"])));
        let running: Vec<_> = all
            .iter()
            .filter(|one| taken(one, &shards(&["a"]), others()).is_none())
            .map(|one| one.name_any())
            .collect();
        assert_eq!(running, ["b"]);
    }
}
