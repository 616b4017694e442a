//! Up to when a shard's data is complete, and how an answer says so. Pure.

use std::collections::BTreeMap;

use understudy_store::Freshness;
use understudy_wire::ShardName;

use crate::gather::Provenance;
use crate::topology::{Span, Topology};

/// Up to when the data of a shard is complete, in milliseconds since 1970: the earliest of all partitions that feed it.
/// None when it is not known of one of them.
pub fn complete_until_ms(freshness: &Freshness, topology: &Topology, shard: &ShardName, topic: &str) -> Option<i64> {
    let rows: BTreeMap<i32, _> = freshness
        .partitions
        .iter()
        .filter(|((of, _), _)| of == topic)
        .map(|((_, partition), state)| (*partition, state))
        .collect();
    let Some(spans) = topology.spans(shard) else {
        return rows.values().map(|state| state.complete_until_ms).min();
    };
    // A partition that feeds another shard by now is complete here once all that it fed here is applied.
    let is_over = |partition: &i32, spans: &[Span]| {
        let last = spans.iter().map(|span| span.until.unwrap_or(i64::MAX)).max().unwrap_or(0);
        rows.get(partition).is_some_and(|state| state.next_offset >= last)
    };
    let open = spans.iter().filter(|(partition, spans)| !is_over(partition, spans));
    let until = open.map(|(partition, _)| rows.get(partition).map(|state| state.complete_until_ms));
    until.min_by_key(|until| until.unwrap_or(i64::MIN)).flatten()
}

/// `metrics-0=1763900000000, metrics-1=unknown`.
pub fn fresh_until_header(provenance: &[Provenance]) -> String {
    let entries = provenance.iter().map(|from| match from.complete_until_ms {
        Some(until) => format!("{}={until}", from.shard),
        None => format!("{}=unknown", from.shard),
    });
    entries.collect::<Vec<_>>().join(", ")
}

/// `metrics-0=metrics-0-k7x2@4;primary, metrics-1=metrics-1-q9mm@7;standby`.
pub fn served_by_header(provenance: &[Provenance]) -> String {
    let entries =
        provenance.iter().map(|from| format!("{}={}@{};{}", from.shard, from.replica, from.epoch, from.role.as_str()));
    entries.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use understudy_store::read::PartitionFreshness;
    use understudy_wire::{Epoch, ReplicaName};

    use super::*;
    use crate::topology::tests::placements;
    use crate::work::Role;

    fn freshness(rows: &[(&str, i32, i64, i64)]) -> Freshness {
        let rows = rows.iter().map(|(topic, partition, next_offset, complete_until_ms)| {
            let state =
                PartitionFreshness { next_offset: *next_offset, complete_until_ms: *complete_until_ms, epoch: 1 };
            (((*topic).to_owned(), *partition), state)
        });
        Freshness { partitions: rows.collect() }
    }

    type Rows<'a> = &'a [(&'a str, i32, i64, i64)];

    #[rstest]
    #[case::the_earliest_partition(&[(0, 0, "s-0"), (1, 0, "s-0")], &[("t", 0, 5, 900), ("t", 1, 5, 700)], Some(700))]
    #[case::other_shards_do_not_count(&[(0, 0, "s-0"), (1, 0, "s-1")], &[("t", 0, 5, 900)], Some(900))]
    #[case::other_topics_do_not_count(&[(0, 0, "s-0")], &[("t", 0, 5, 900), ("u", 0, 5, 1)], Some(900))]
    #[case::never_read(&[(0, 0, "s-0"), (1, 0, "s-0")], &[("t", 0, 5, 900)], None)]
    #[case::moved_away_and_done(&[(0, 0, "s-0"), (1, 0, "s-0"), (1, 10, "s-1")], &[("t", 0, 5, 900), ("t", 1, 10, 3)], Some(900))]
    #[case::moved_away_and_not_done(&[(0, 0, "s-0"), (1, 0, "s-0"), (1, 10, "s-1")], &[("t", 0, 5, 900), ("t", 1, 9, 3)], Some(3))]
    #[case::placements_not_known(&[], &[("t", 0, 5, 900), ("t", 7, 5, 800)], Some(800))]
    fn a_shard_is_as_fresh_as_its_latest_partition(
        #[case] placed: &[(i32, i64, &str)],
        #[case] rows: Rows<'_>,
        #[case] expected: Option<i64>,
    ) {
        let mut topology = Topology::default();
        topology.apply_datastore(&placements(placed));
        assert_eq!(complete_until_ms(&freshness(rows), &topology, &ShardName::new("s-0"), "t"), expected);
    }

    #[test]
    fn headers_name_each_shard() {
        let from = |shard: &str, role, complete_until_ms| Provenance {
            shard: ShardName::new(shard),
            replica: ReplicaName::new(format!("{shard}-a")),
            role,
            epoch: Epoch(4),
            complete_until_ms,
        };
        let provenance = [from("s-0", Role::Primary, Some(17)), from("s-1", Role::Standby, None)];
        assert_eq!(fresh_until_header(&provenance), "s-0=17, s-1=unknown");
        assert_eq!(served_by_header(&provenance), "s-0=s-0-a@4;primary, s-1=s-1-a@4;standby");
    }
}
