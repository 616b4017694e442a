//! Which offsets of which partition feed this shard. Pure.

use std::collections::BTreeMap;

/// Offsets `from <= o < until` of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub from: i64,
    /// The first that is not; None while it is open.
    pub until: Option<i64>,
}

/// One line of a placement: from `from` on, until a later line of the same partition, `partition` feeds `shard`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The partition.
    pub partition: i32,
    /// The shard.
    pub shard: String,
    /// The first offset.
    pub from: i64,
    /// It ends the entry before it and feeds nobody yet.
    pub pending: bool,
}

/// The spans of one partition that feed one shard: in order, not empty, apart from each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans {
    list: Vec<Span>,
    /// The last one ends by what its row says alone.
    unheard: bool,
}

/// What one shard is fed.
pub type Placement = BTreeMap<i32, Spans>;

impl Spans {
    /// Everything from an offset on.
    pub fn from(offset: i64) -> Self {
        Self::of(vec![Span { from: offset, until: None }])
    }

    fn of(list: Vec<Span>) -> Self {
        Self { list, unheard: false }
    }

    /// The same, but not past the end that an owner before has promised. An end that the placement has itself counts as it is: if it is
    /// above the promised one it is newer, because ends only go up, and if it is below, less is read. A span that begins at the promised end
    /// or later was given to the shard after the promise.
    #[must_use]
    pub fn within(mut self, promised: Option<i64>) -> Self {
        if let (Some(end), Some(last)) = (promised, self.list.last_mut())
            && last.until.is_none()
            && last.from < end
        {
            (last.until, self.unheard) = (Some(end), true);
        }
        self
    }

    /// Whether the last span ends by a promise of which the placement knows nothing.
    pub fn is_unheard(&self) -> bool {
        self.unheard
    }

    /// The first offset at or after `offset` that feeds the shard; None when there is none.
    pub fn next(&self, offset: i64) -> Option<i64> {
        let span = self.list.iter().find(|span| span.until.is_none_or(|until| offset < until))?;
        Some(offset.max(span.from))
    }

    /// Whether an offset feeds the shard.
    pub fn contains(&self, offset: i64) -> bool {
        self.next(offset) == Some(offset)
    }

    /// How many offsets from `from` on and below `to` feed the shard.
    pub fn count(&self, from: i64, to: i64) -> i64 {
        let within = |span: &Span| (span.until.map_or(to, |until| until.min(to)) - span.from.max(from)).max(0);
        self.list.iter().map(within).sum()
    }

    /// Where the last span ends; None while it is open.
    pub fn until(&self) -> Option<i64> {
        self.list.last()?.until
    }

    /// The spans.
    pub fn as_slice(&self) -> &[Span] {
        &self.list
    }
}

/// What `shard` is fed by these entries, in whatever order they are.
pub fn placement_of(shard: &str, entries: &[Entry]) -> Placement {
    let mut by_partition: BTreeMap<i32, Vec<&Entry>> = BTreeMap::new();
    for entry in entries {
        by_partition.entry(entry.partition).or_default().push(entry);
    }
    let mut placement = Placement::new();
    for (partition, mut entries) in by_partition {
        entries.sort_by_key(|entry| entry.from);
        let mut spans: Vec<Span> = Vec::new();
        let mine = |entry: &Entry| entry.shard == shard && !entry.pending;
        for (index, entry) in entries.iter().enumerate().filter(|(_, entry)| mine(entry)) {
            let until = entries.get(index + 1).map(|next| next.from);
            if until == Some(entry.from) {
                continue;
            }
            match spans.last_mut() {
                Some(last) if last.until == Some(entry.from) => last.until = until,
                _ => spans.push(Span { from: entry.from, until }),
            }
        }
        if !spans.is_empty() {
            placement.insert(partition, Spans::of(spans));
        }
    }
    placement
}

/// A placement that keeps to what the rows of the partitions have promised.
pub fn within(placement: Placement, promised: &BTreeMap<i32, i64>) -> Placement {
    placement.into_iter().map(|(p, spans)| (p, spans.within(promised.get(&p).copied()))).collect()
}

/// Partition p feeds the shard at p modulo their number, from the beginning.
pub fn spread(shard: &str, shards: &[String], partitions: i32) -> Placement {
    let count = shards.len().max(1);
    let mine = |p: &i32| shards.get(*p as usize % count).is_some_and(|name| name == shard);
    (0..partitions).filter(mine).map(|p| (p, Spans::from(0))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(list: &[(i32, &str, i64)]) -> Vec<Entry> {
        let entry = |&(partition, shard, from): &(i32, &str, i64)| {
            let pending = shard.ends_with('?');
            Entry { partition, shard: shard.trim_end_matches('?').into(), from, pending }
        };
        list.iter().map(entry).collect()
    }

    fn spans(shard: &str, list: &[(i32, &str, i64)]) -> Vec<(i32, i64, Option<i64>)> {
        placement_of(shard, &entries(list))
            .iter()
            .flat_map(|(p, spans)| spans.as_slice().iter().map(|s| (*p, s.from, s.until)))
            .collect()
    }

    #[test]
    fn a_span_ends_where_the_next_entry_of_its_partition_begins() {
        let moved = [(0, "a", 0), (0, "b", 100), (1, "b", 0), (2, "a", 0)];
        for (case, shard, list, expected) in [
            ("the shard it left", "a", &moved[..], vec![(0, 0, Some(100)), (2, 0, None)]),
            ("the shard it went to", "b", &moved[..], vec![(0, 100, None), (1, 0, None)]),
            ("no shard of these", "c", &moved[..], vec![]),
            (
                "out and back, told in another order",
                "a",
                &[(0, "a", 90), (0, "b", 50), (0, "a", 0)],
                vec![(0, 0, Some(50)), (0, 90, None)],
            ),
            ("told twice", "a", &[(0, "a", 0), (0, "a", 50)], vec![(0, 0, None)]),
            ("about to be moved", "a", &[(0, "a", 0), (0, "b?", 100)], vec![(0, 0, Some(100))]),
            ("about to be moved here", "b", &[(0, "a", 0), (0, "b?", 100)], vec![]),
            ("moved on before it began", "a", &[(0, "a", 7), (0, "b", 7)], vec![]),
        ] {
            assert_eq!(spans(shard, list), expected, "{case}");
        }
    }

    #[test]
    fn the_next_offset_skips_what_feeds_another_shard() {
        let placement = placement_of("a", &entries(&[(0, "a", 10), (0, "b", 50), (0, "a", 90), (0, "b", 95)]));
        let spans = &placement[&0];
        for (offset, next) in
            [(0, Some(10)), (10, Some(10)), (49, Some(49)), (50, Some(90)), (94, Some(94)), (95, None)]
        {
            assert_eq!(spans.next(offset), next, "{offset}");
            assert_eq!(spans.contains(offset), next == Some(offset), "{offset}");
        }
        for (from, to, count) in [(0, 10, 0), (0, 12, 2), (45, 93, 8), (50, 90, 0), (0, 1000, 45), (200, 1000, 0)] {
            assert_eq!(spans.count(from, to), count, "{from} to {to}");
        }
    }

    #[test]
    fn what_was_promised_holds_for_whoever_has_not_heard_of_the_move() {
        for (case, list, promised, expected, unheard) in [
            ("never promised", &[(0, "a", 0)][..], None, vec![(0, None)], false),
            ("not heard of yet", &[(0, "a", 0)], Some(100), vec![(0, Some(100))], true),
            ("heard of", &[(0, "a", 0), (0, "b?", 100)], Some(100), vec![(0, Some(100))], false),
            ("moved on since", &[(0, "a", 0), (0, "b?", 130)], Some(100), vec![(0, Some(130))], false),
            ("moved on, not heard of", &[(0, "a", 0), (0, "b?", 100)], Some(130), vec![(0, Some(100))], false),
            (
                "given back",
                &[(0, "a", 0), (0, "b", 100), (0, "a", 150)],
                Some(100),
                vec![(0, Some(100)), (150, None)],
                false,
            ),
            (
                "given back and moved again, not heard of",
                &[(0, "a", 0), (0, "b", 100), (0, "a", 150)],
                Some(200),
                vec![(0, Some(100)), (150, Some(200))],
                true,
            ),
            ("given back where it ended", &[(0, "b", 0), (0, "a", 100)], Some(100), vec![(100, None)], false),
        ] {
            let bound = placement_of("a", &entries(list))[&0].clone().within(promised);
            let found: Vec<_> = bound.as_slice().iter().map(|span| (span.from, span.until)).collect();
            assert_eq!((found, bound.is_unheard()), (expected, unheard), "{case}");
        }
    }

    #[test]
    fn without_a_datastore_partitions_are_spread_in_turn() {
        let shards = ["a".to_owned(), "b".to_owned()];
        assert_eq!(spread("b", &shards, 5).into_keys().collect::<Vec<_>>(), [1, 3]);
        assert!(spread("c", &shards, 5).is_empty());
        assert!(spread("a", &[], 5).is_empty());
    }
}
