//! Where each partition is: stored, taken, faulty. Pure.
//!
//! A lane is one partition that feeds the shard. `stored` is what MySQL has, `next` is what the log must deliver next; the records between
//! the two are the batch in hand, which is not committed yet.

use std::collections::BTreeMap;

use crate::placement::{Placement, Spans};

/// Why a partition cannot go on. The others do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Offsets are missing in the middle of the log.
    #[error("offset {expected} is missing from the topic, the next one there is {got}")]
    Gap {
        /// Wanted.
        expected: i64,
        /// Delivered.
        got: i64,
    },
    /// Kafka's retention deleted what was not stored yet.
    #[error("offset {wanted} is next to store and no longer in the topic, whose earliest is {earliest}")]
    Deleted {
        /// Wanted.
        wanted: i64,
        /// There.
        earliest: i64,
    },
    /// The log ends before what is stored: it lost records, or it is another topic of the same name.
    #[error("offset {wanted} is next to store, but the topic ends at {end}: it lost records or was made anew")]
    Ended {
        /// Wanted.
        wanted: i64,
        /// There.
        end: i64,
    },
    /// The placement was changed below what is stored already.
    #[error("the placement gives this shard nothing from offset {until} on, but it has stored up to {stored}")]
    Overrun {
        /// Where it should have stopped.
        until: i64,
        /// Where it is.
        stored: i64,
    },
}

/// How often in a row the log may be heard to hold more of a partition while nothing of it comes.
pub const SILENCES: u32 = 5;

/// What became of a record that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It is the next one: it must go into the batch.
    Take,
    /// It is stored already, or feeds another shard.
    Drop,
    /// Records are missing before it: the lane has a fault now.
    Fault,
}

/// Whether offsets may be missing in the middle of the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Holes {
    /// A missing offset may have been an acknowledged record.
    #[default]
    Refused,
    /// The topic is written by transactions, whose markers take offsets.
    Expected,
}

/// What is to be done with the batch in hand after the stored offsets were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// They are as before the batch: go on with it.
    KeepBatch,
    /// They are as after the batch: it was committed although nobody said so.
    DropBatch,
    /// They are anything else: forget the batch and read again from there.
    Rewind,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    spans: Spans,
    stored: Option<i64>,
    /// None: it is not known yet where to begin, because nothing is stored and the log's beginning was not heard of.
    next: Option<i64>,
    /// Whether records between `stored` and `next` are in the batch.
    taken: bool,
    fault: Option<Fault>,
    /// A lane with a fault that is tried again.
    trying: bool,
    /// How often in a row the log was heard to hold more, while nothing came.
    silences: u32,
    /// The end of the log, as far as it is known.
    end: Option<i64>,
    paused: bool,
}

impl Lane {
    fn new(spans: Spans, stored: Option<i64>, paused: bool) -> Self {
        Self { spans, stored, next: stored, taken: false, fault: None, trying: false, silences: 0, end: None, paused }
    }

    /// The offset that MySQL has; None when it has none.
    pub fn stored(&self) -> Option<i64> {
        self.stored
    }

    /// What MySQL is to have after the batch.
    pub fn next(&self) -> Option<i64> {
        self.next
    }

    /// Whether it has records in the batch.
    pub fn is_taken(&self) -> bool {
        self.taken
    }

    /// Where to read; None when there is nothing to read, or no way to.
    pub fn position(&self) -> Option<i64> {
        if self.paused || (self.fault.is_some() && !self.trying) {
            return None;
        }
        let at = self.spans.next(self.next?)?;
        // A span may begin where the log has not come to yet; reading there would be an error.
        let is_ahead = self.stored != Some(at) && self.end.is_some_and(|end| at > end);
        (!is_ahead).then_some(at)
    }

    /// Why it cannot go on.
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    /// Whether it is not to be read.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Where it begins when nothing is stored: at the beginning of its first span, or of the log if that was cut already.
    fn begin(&self, earliest: i64) -> Option<i64> {
        let first = self.spans.as_slice().first()?.from;
        self.spans.next(first.max(earliest))
    }

    fn fail(&mut self, fault: Fault) {
        (self.fault, self.trying) = (Some(fault), false);
    }

    /// What is wrong when the log has these ends. Judged by what is stored: what is taken beyond it was there.
    fn judge(&self, earliest: i64, end: i64) -> Option<Fault> {
        let stored = self.stored?;
        let last = self.spans.as_slice().last()?;
        if let Some(until) = last.until.filter(|until| stored > *until) {
            return Some(Fault::Overrun { until, stored });
        }
        match self.spans.next(stored)? {
            wanted if wanted < earliest => Some(Fault::Deleted { wanted, earliest }),
            // A span that begins beyond the end is one that the log has not reached yet.
            wanted if wanted == stored && wanted > end => Some(Fault::Ended { wanted, end }),
            _ => None,
        }
    }
}

/// All partitions that feed the shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lanes(BTreeMap<i32, Lane>);

impl Lanes {
    /// Each partition and its lane.
    pub fn iter(&self) -> impl Iterator<Item = (i32, &Lane)> {
        self.0.iter().map(|(partition, lane)| (*partition, lane))
    }

    /// One lane.
    pub fn get(&self, partition: i32) -> Option<&Lane> {
        self.0.get(&partition)
    }

    /// Takes over what is placed here and what is stored, after a (re)connection or a change of placement. The batch in hand must be
    /// treated as the answer says; after anything but [`Resume::Rewind`] the log may go on delivering as it did.
    pub fn load(&mut self, placement: &Placement, paused: &[i32], stored: &BTreeMap<i32, i64>) -> Resume {
        let resume = self.resume(placement, stored);
        if resume == Resume::Rewind {
            let lane =
                |(p, spans): (&i32, &Spans)| (*p, Lane::new(spans.clone(), stored.get(p).copied(), paused.contains(p)));
            self.0 = placement.iter().map(lane).collect();
        }
        for (partition, lane) in &mut self.0 {
            lane.stored = stored.get(partition).copied();
            lane.taken &= resume == Resume::KeepBatch;
        }
        resume
    }

    fn resume(&self, placement: &Placement, stored: &BTreeMap<i32, i64>) -> Resume {
        let same_placement = self.0.len() == placement.len()
            && placement.iter().all(|(p, spans)| self.0.get(p).is_some_and(|lane| lane.spans == *spans));
        if !same_placement {
            return Resume::Rewind;
        }
        // A lane without records in the batch may have had its row written beside it, with the same meaning.
        let (mut before, mut after) = (true, true);
        for (partition, lane) in &self.0 {
            let found = stored.get(partition).copied();
            before &= found == lane.stored || (!lane.taken && found == lane.next);
            after &= found == lane.next || (!lane.taken && found == lane.stored);
        }
        match (before, after) {
            (true, _) => Resume::KeepBatch,
            (false, true) => Resume::DropBatch,
            (false, false) => Resume::Rewind,
        }
    }

    /// Takes notice of the ends of the log. Whether the log must be told where to read, because the position changed or because it holds
    /// records and has been silent for [`SILENCES`] times in a row.
    pub fn heard(&mut self, partition: i32, earliest: i64, end: i64) -> bool {
        let Some(lane) = self.0.get_mut(&partition) else { return false };
        let before = lane.position();
        lane.end = lane.end.max(Some(end));
        if lane.next.is_none() {
            lane.next = lane.begin(earliest);
        }
        match (lane.judge(earliest, end), &lane.fault) {
            (Some(fault), _) => lane.fail(fault),
            (None, Some(Fault::Gap { .. }) | None) => {}
            (None, Some(_)) => lane.fault = None,
        }
        let waits = lane.position().is_some_and(|position| position < end);
        lane.silences = if waits { lane.silences + 1 } else { 0 };
        let silent = lane.silences > SILENCES;
        if silent {
            lane.silences = 0;
        }
        silent || lane.position() != before
    }

    /// A record came out of the log.
    pub fn offer(&mut self, partition: i32, offset: i64, holes: Holes) -> Offer {
        let Some(lane) = self.0.get_mut(&partition) else { return Offer::Drop };
        let Some(expected) = lane.position() else { return Offer::Drop };
        if offset < expected || !lane.spans.contains(offset) {
            return Offer::Drop;
        }
        if offset > expected && holes == Holes::Refused {
            lane.fail(Fault::Gap { expected, got: offset });
            return Offer::Fault;
        }
        (lane.next, lane.taken, lane.fault, lane.trying) = (Some(offset + 1), true, None, false);
        (lane.silences, lane.end) = (0, lane.end.map(|end| end.max(offset + 1)));
        Offer::Take
    }

    /// The log says that a partition cannot go on.
    pub fn broke(&mut self, partition: i32, fault: Fault) {
        if let Some(lane) = self.0.get_mut(&partition) {
            lane.fail(fault);
        }
    }

    /// Lanes whose records went missing in the middle are tried again. Whether there are any, so that the log must be told.
    pub fn try_again(&mut self) -> bool {
        let mut any = false;
        for lane in self.0.values_mut().filter(|lane| matches!(lane.fault, Some(Fault::Gap { .. }))) {
            lane.trying = true;
            any = true;
        }
        any
    }

    /// Partitions with records in the batch.
    pub fn taken(&self) -> Vec<i32> {
        self.0.iter().filter(|(_, lane)| lane.taken).map(|(p, _)| *p).collect()
    }

    /// The transaction that wrote the rows of these partitions is committed.
    pub fn committed(&mut self, partitions: impl IntoIterator<Item = i32>) {
        for partition in partitions {
            if let Some(lane) = self.0.get_mut(&partition) {
                (lane.stored, lane.taken) = (lane.next, false);
            }
        }
    }

    /// What the rows of these partitions must say before the transaction.
    pub fn expected(&self, partitions: impl IntoIterator<Item = i32>) -> BTreeMap<i32, Option<i64>> {
        partitions.into_iter().filter_map(|p| Some((p, self.0.get(&p)?.stored))).collect()
    }

    /// Where to read each partition that can be read.
    pub fn positions(&self) -> Vec<(i32, i64)> {
        self.0.iter().filter_map(|(p, lane)| Some((*p, lane.position()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::{Entry, placement_of};

    fn placed(list: &[(i32, &str, i64)]) -> Placement {
        let entries: Vec<_> =
            list.iter().map(|&(partition, shard, from)| Entry { partition, shard: shard.into(), from }).collect();
        placement_of("a", &entries)
    }

    fn stored(list: &[(i32, i64)]) -> BTreeMap<i32, i64> {
        list.iter().copied().collect()
    }

    /// Two partitions, stored up to 10 and 20, of which 10, 11 and 20 are taken.
    fn with_batch() -> Lanes {
        let mut lanes = Lanes::default();
        let placement = placed(&[(0, "a", 0), (1, "a", 0)]);
        assert_eq!(lanes.load(&placement, &[], &stored(&[(0, 10), (1, 20)])), Resume::Rewind);
        for (partition, offset) in [(0, 10), (0, 11), (1, 20)] {
            assert_eq!(lanes.offer(partition, offset, Holes::Refused), Offer::Take);
        }
        lanes
    }

    #[test]
    fn the_batch_in_hand_is_kept_dropped_or_read_again_by_what_is_stored() {
        use Resume::{DropBatch, KeepBatch, Rewind};
        for (case, found, expected, positions) in [
            ("nothing happened", &[(0, 10), (1, 20)][..], KeepBatch, [(0, 12), (1, 21)]),
            ("it was committed", &[(0, 12), (1, 21)], DropBatch, [(0, 12), (1, 21)]),
            ("a lagging replica", &[(0, 4), (1, 20)], Rewind, [(0, 4), (1, 20)]),
            ("somebody went on", &[(0, 15), (1, 21)], Rewind, [(0, 15), (1, 21)]),
            ("half of it, which no commit does", &[(0, 12), (1, 20)], Rewind, [(0, 12), (1, 20)]),
        ] {
            let mut lanes = with_batch();
            assert_eq!(lanes.load(&placed(&[(0, "a", 0), (1, "a", 0)]), &[], &stored(found)), expected, "{case}");
            assert_eq!(lanes.positions(), positions, "{case}");
            assert_eq!(lanes.taken().is_empty(), expected != KeepBatch, "{case}");
            assert_eq!(lanes.expected([0, 1])[&0], Some(found[0].1), "{case}");
        }
    }

    #[test]
    fn a_replica_that_has_no_offset_yet_begins_where_the_span_or_the_log_does() {
        for (case, list, earliest, position) in [
            ("from the beginning", &[(0, "a", 0)][..], 0, Some(0)),
            ("retention cut the log before anything was stored", &[(0, "a", 0)], 70, Some(70)),
            ("placed here later", &[(0, "b", 0), (0, "a", 100)], 70, Some(100)),
            ("the whole span was cut", &[(0, "a", 0), (0, "b", 50)], 70, None),
        ] {
            let mut lanes = Lanes::default();
            lanes.load(&placed(list), &[], &BTreeMap::new());
            assert_eq!(lanes.positions(), [], "{case}");
            assert_eq!(lanes.heard(0, earliest, 1000), position.is_some(), "{case}");
            assert_eq!(lanes.positions(), position.map(|at| (0, at)).into_iter().collect::<Vec<_>>(), "{case}");
        }
    }

    #[test]
    fn a_row_that_was_written_beside_a_batch_does_not_undo_it() {
        let mut lanes = Lanes::default();
        let placement = placed(&[(0, "a", 0), (1, "a", 0)]);
        lanes.load(&placement, &[], &stored(&[(0, 10)]));
        lanes.heard(1, 5, 5);
        assert_eq!(lanes.offer(0, 10, Holes::Refused), Offer::Take);
        assert_eq!(lanes.load(&placement, &[], &stored(&[(0, 11), (1, 5)])), Resume::DropBatch);
    }

    #[test]
    fn records_are_taken_once_in_order_and_only_where_they_are_placed() {
        let mut lanes = Lanes::default();
        lanes.load(&placed(&[(0, "a", 0), (0, "b", 12), (0, "a", 20)]), &[1], &stored(&[(0, 10)]));
        for (offset, expected) in [
            (9, Offer::Drop),
            (10, Offer::Take),
            (10, Offer::Drop),
            (11, Offer::Take),
            (12, Offer::Drop),
            (19, Offer::Drop),
            (20, Offer::Take),
            (22, Offer::Fault),
            (21, Offer::Drop),
        ] {
            assert_eq!(lanes.offer(0, offset, Holes::Refused), expected, "{offset}");
        }
        assert_eq!(lanes.offer(7, 0, Holes::Refused), Offer::Drop, "not placed");
        assert_eq!(lanes.get(0).unwrap().fault(), Some(&Fault::Gap { expected: 21, got: 22 }));
    }

    #[test]
    fn a_gap_is_tried_again_and_ends_when_the_record_comes() {
        let mut lanes = with_batch();
        lanes.broke(0, Fault::Gap { expected: 12, got: 14 });
        assert_eq!(lanes.positions(), [(1, 21)]);
        assert!(lanes.try_again());
        assert_eq!(lanes.positions(), [(0, 12), (1, 21)]);
        assert!(lanes.get(0).unwrap().fault().is_some(), "until it is mended");
        assert_eq!(lanes.offer(0, 12, Holes::Refused), Offer::Take);
        assert_eq!(lanes.get(0).unwrap().fault(), None);
        assert!(!lanes.try_again());
    }

    #[test]
    fn offsets_may_be_missing_where_that_is_expected() {
        let mut lanes = with_batch();
        assert_eq!(lanes.offer(0, 14, Holes::Expected), Offer::Take);
        assert_eq!(lanes.get(0).unwrap().next(), Some(15));
    }

    #[test]
    fn the_ends_of_the_log_tell_what_was_lost() {
        let here = [(0, "a", 0)];
        let moved = [(0, "a", 0), (0, "b", 50)];
        let later = [(0, "a", 0), (0, "b", 50), (0, "a", 90)];
        for (case, list, at, earliest, end, fault) in [
            ("all there", &here[..], 10, 10, 10, None),
            ("deleted", &here, 10, 11, 99, Some(Fault::Deleted { wanted: 10, earliest: 11 })),
            ("cut", &here, 10, 0, 9, Some(Fault::Ended { wanted: 10, end: 9 })),
            ("moved away, then deleted", &moved, 50, 70, 99, None),
            ("moved away too late", &moved, 51, 0, 99, Some(Fault::Overrun { until: 50, stored: 51 })),
            ("comes back where the log is not yet", &later, 50, 0, 60, None),
        ] {
            let mut lanes = Lanes::default();
            lanes.load(&placed(list), &[], &stored(&[(0, at)]));
            lanes.heard(0, earliest, end);
            assert_eq!(lanes.get(0).unwrap().fault(), fault.as_ref(), "{case}");
            lanes.heard(0, 0, 1000);
            let overrun = matches!(fault, Some(Fault::Overrun { .. }));
            assert_eq!(lanes.get(0).unwrap().fault().is_some(), overrun, "{case}: heard better");
        }
    }

    #[test]
    fn a_span_that_begins_where_the_log_is_not_yet_waits_for_it() {
        for (case, list, stored_up_to) in [
            ("new here", &[(0, "b", 0), (0, "a", 90)][..], None),
            ("back again", &[(0, "a", 0), (0, "b", 50), (0, "a", 90)], Some(50)),
        ] {
            let mut lanes = Lanes::default();
            let found: Vec<_> = stored_up_to.map(|at| (0, at)).into_iter().collect();
            lanes.load(&placed(list), &[], &stored(&found));
            lanes.heard(0, 0, 89);
            assert_eq!((lanes.positions(), lanes.get(0).unwrap().fault()), (vec![], None), "{case}");
            assert!(lanes.heard(0, 0, 90), "{case}");
            assert_eq!(lanes.positions(), [(0, 90)], "{case}");
            assert_eq!(lanes.offer(0, 90, Holes::Refused), Offer::Take, "{case}");
            lanes.heard(0, 0, 90);
            assert_eq!(lanes.positions(), [(0, 91)], "{case}: news of the end may be older than what came");
        }
    }

    #[test]
    fn a_partition_that_fell_silent_is_asked_for_again() {
        let mut lanes = with_batch();
        let told = |lanes: &mut Lanes, times: u32| (0..times).filter(|_| lanes.heard(0, 0, 15)).count();
        assert_eq!(told(&mut lanes, SILENCES), 0);
        assert_eq!(lanes.offer(0, 12, Holes::Refused), Offer::Take);
        assert_eq!(told(&mut lanes, SILENCES), 0, "it spoke");
        assert_eq!(told(&mut lanes, 1), 1);
        assert_eq!((0..20).filter(|_| lanes.heard(1, 0, 21)).count(), 0, "nothing to say");
    }

    #[test]
    fn a_paused_partition_is_not_read() {
        let mut lanes = Lanes::default();
        lanes.load(&placed(&[(0, "a", 0), (1, "a", 0)]), &[1], &stored(&[(0, 1), (1, 1)]));
        assert_eq!(lanes.positions(), [(0, 1)]);
        assert!(lanes.get(1).unwrap().is_paused());
        assert_eq!(lanes.offer(1, 1, Holes::Refused), Offer::Drop);
    }

    #[test]
    fn a_commit_moves_what_it_wrote_and_nothing_else() {
        let mut lanes = with_batch();
        lanes.committed([0]);
        assert_eq!(lanes.expected([0, 1]), BTreeMap::from([(0, Some(12)), (1, Some(20))]));
        assert_eq!(lanes.taken(), [1]);
    }
}
