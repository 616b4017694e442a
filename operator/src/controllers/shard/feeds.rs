//! Which offsets of which partitions feed one shard, from the placements of its Datastore. Pure.

use std::collections::BTreeMap;

use understudy_api::v1alpha1::Placement;
use understudy_decide::failover::snapshot::Span;

/// The spans of `shard` by topic and partition; a partition that never feeds it is not there.
pub fn feeds(shard: &str, topic: &str, placements: &[Placement]) -> BTreeMap<(String, i32), Vec<Span>> {
    // Until a pending entry counts, the shard before it may read on, and the shard that it names does not.
    let mut sorted: Vec<_> = placements.iter().filter(|entry| !entry.pending).collect();
    sorted.sort();
    let mut feeds = BTreeMap::<_, Vec<_>>::new();
    for (at, entry) in sorted.iter().enumerate().filter(|(_, entry)| entry.shard == shard) {
        let next = sorted.get(at + 1).filter(|next| next.partition == entry.partition);
        let span = Span { from: entry.from_offset, until: next.map(|next| next.from_offset) };
        feeds.entry((topic.to_owned(), entry.partition)).or_default().push(span);
    }
    feeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_feeds_a_shard_until_its_next_placement() {
        let entry = |partition, from_offset, shard: &str| Placement {
            partition,
            from_offset,
            shard: shard.to_owned(),
            pending: false,
        };
        let placements = [
            entry(1, 0, "m-1"),
            entry(0, 0, "m-0"),
            entry(0, 70, "m-0"),
            entry(0, 50, "m-1"),
            entry(2, 9, "m-0"),
            Placement { pending: true, ..entry(2, 90, "m-1") },
        ];
        let span = |from, until| Span { from, until };
        let key = |partition| ("samples".to_owned(), partition);
        let of = |shard| feeds(shard, "samples", &placements);
        assert_eq!(
            of("m-0"),
            [(key(0), vec![span(0, Some(50)), span(70, None)]), (key(2), vec![span(9, None)])].into()
        );
        assert_eq!(of("m-1"), [(key(0), vec![span(50, Some(70))]), (key(1), vec![span(0, None)])].into());
        assert_eq!(of("m-2"), BTreeMap::new());
    }
}
