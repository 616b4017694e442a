//! Where each partition is: stored, taken, faulty. Pure.
//!
//! A lane is one partition that feeds the shard. `stored` is what MySQL has, `next` is what the log must deliver next; the records between
//! the two are the batch in hand, which is not committed yet.
//!
//! A log that was cut below what was taken of it, or that is another one than what is stored was read from, has other records under offsets
//! that are passed already. Reading on there would skip them, so such a lane stands until a person decides: it does not matter how long the
//! log becomes later, and the row remembers it for the next process.

mod fault;
mod note;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use understudy_kafka::Origin;

pub use self::fault::Fault;
pub use self::note::Note;
use crate::placement::{Placement, Spans};

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

/// Where a partition begins of which nothing is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Start {
    /// Where the placement says. If the log does not go back so far, records are lost, and a person must know.
    #[default]
    Placement,
    /// At the earliest record that is there: for a Consumer that is younger than its topic.
    Earliest,
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
    /// The topic that what is stored was read from, as the row says.
    origin: Origin,
    /// The schema that what is stored is in, as the row says.
    schema: Option<String>,
    /// Where the log ended when it was seen to end below what was taken of it.
    cut: Option<i64>,
    /// The same as the row says.
    row_cut: Option<i64>,
    /// The end that the row says, for whoever reads the partition next.
    row_until: Option<i64>,
}

impl Lane {
    fn new(spans: Spans, stored: Option<i64>, paused: bool) -> Self {
        Self {
            spans,
            stored,
            next: stored,
            taken: false,
            fault: None,
            trying: false,
            silences: 0,
            end: None,
            paused,
            origin: Origin::default(),
            schema: None,
            cut: None,
            row_cut: None,
            row_until: None,
        }
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
        let is_ahead = !self.goes_on_at(at) && self.end.is_none_or(|end| at > end);
        (!is_ahead).then_some(at)
    }

    /// Whether all that feeds the shard is taken, for good.
    pub fn is_finished(&self) -> bool {
        self.next.is_some_and(|next| self.spans.next(next).is_none())
    }

    /// How many records are to be stored yet of a log that ends here; those of other shards do not count.
    pub fn to_store(&self, end: i64) -> i64 {
        self.stored.or(self.next).map_or(0, |at| self.spans.count(at, end))
    }

    /// The offset that it does not pass, because another shard is fed from there on.
    pub fn until(&self) -> Option<i64> {
        self.spans.until()
    }

    /// The same, once nobody passes it any more, whatever they have heard: the row says so, or there is no row and no way to begin one.
    pub fn promised(&self) -> Option<i64> {
        let cannot_begin = self.stored.is_none() && matches!(self.fault, Some(Fault::Deleted { .. }));
        self.until().filter(|until| cannot_begin || self.row_until == Some(*until))
    }

    /// What the row is to say of the end. It only goes up: a lower one would let somebody who knows only of an earlier move pass a later
    /// one. And while spans before the last one are still to be read it is not said: what lies between two spans is another shard's,
    /// and somebody who knows of no span's end would read on through it.
    fn promise(&self) -> Option<i64> {
        let last = self.spans.as_slice().last()?;
        let only_last_is_left = self.stored.or(self.next).is_some_and(|at| at >= last.from);
        self.row_until.max(last.until.filter(|_| only_last_is_left))
    }

    /// Why it cannot go on.
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    /// Whether it is not to be read.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// What was taken of the log, stored or not.
    fn reach(&self) -> Option<i64> {
        self.next.max(self.stored)
    }

    /// Whether reading goes on here in the middle of a span: the record before was taken, so the log must have come to it.
    fn goes_on_at(&self, offset: i64) -> bool {
        self.spans.contains(offset - 1) && self.spans.contains(offset)
    }

    /// Where it begins when nothing is stored: at the beginning of its first span, or of the log if it may.
    fn begin(&self, earliest: i64, start: Start) -> Option<i64> {
        let first = self.spans.as_slice().first()?.from;
        match start {
            Start::Placement => (first >= earliest).then_some(first),
            // With nothing left to read it begins where it ends, so that it has a row that says so.
            Start::Earliest => self.spans.next(first.max(earliest)).or(self.spans.until()),
        }
    }

    fn fail(&mut self, fault: Fault) {
        (self.fault, self.trying) = (Some(fault), false);
    }

    /// The log was seen to end here, below what was taken of it.
    fn cut_at(&mut self, end: i64) {
        self.cut = Some(self.cut.map_or(end, |cut| cut.min(end)));
    }

    /// Whether the log was cut below what is next, however long it is now.
    fn ended(&self) -> Option<Fault> {
        let (end, wanted) = (self.cut?, self.reach()?);
        (wanted > end && self.goes_on_at(wanted)).then_some(Fault::Ended { wanted, end })
    }

    /// What is wrong when the log begins here. Judged by what is stored: what is taken beyond it was there.
    fn judge(&self, earliest: i64, start: Start) -> Option<Fault> {
        let Some(at) = self.stored.or(self.next) else {
            let wanted = self.spans.as_slice().first()?.from;
            return (start == Start::Placement && wanted < earliest).then_some(Fault::Deleted { wanted, earliest });
        };
        match self.spans.until() {
            Some(until) if at >= until && self.spans.is_unheard() => return Some(Fault::Moved { until }),
            Some(until) if at > until => return Some(Fault::Overrun { until, stored: at }),
            _ => {}
        }
        let wanted = self.spans.next(at)?;
        self.ended().or((wanted < earliest).then_some(Fault::Deleted { wanted, earliest }))
    }
}

/// All partitions that feed the shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lanes {
    lanes: BTreeMap<i32, Lane>,
    start: Start,
    /// The schema that is written.
    schema: Option<String>,
    /// Which topic the log is, as far as it is known.
    found: Origin,
}

impl Lanes {
    /// None yet.
    pub fn new(start: Start) -> Self {
        Self { start, ..Self::default() }
    }

    /// The same, for who writes this schema: offsets that were stored with what is in another one are not gone on from.
    #[must_use]
    pub fn writing(mut self, schema: &str) -> Self {
        self.schema = Some(schema.to_owned());
        self
    }

    /// Each partition and its lane.
    pub fn iter(&self) -> impl Iterator<Item = (i32, &Lane)> {
        self.lanes.iter().map(|(partition, lane)| (*partition, lane))
    }

    /// One lane.
    pub fn get(&self, partition: i32) -> Option<&Lane> {
        self.lanes.get(&partition)
    }

    /// Takes over what is placed here, within what the rows have promised, and what is stored, after a (re)connection or a change of placement.
    /// The batch in hand must be treated as the answer says; after anything but [`Resume::Rewind`] the log may go on delivering as it did.
    pub fn load(&mut self, placement: &Placement, paused: &[i32], stored: &BTreeMap<i32, i64>) -> Resume {
        let resume = self.resume(placement, stored);
        if resume == Resume::Rewind {
            let lane = |(p, spans): (&i32, &Spans)| {
                let mut lane = Lane::new(spans.clone(), stored.get(p).copied(), paused.contains(p));
                if let Some(before) = self.lanes.get(p) {
                    lane.recall(before.cut, before.row_cut);
                }
                (*p, lane)
            };
            self.lanes = placement.iter().map(lane).collect();
        }
        for (partition, lane) in &mut self.lanes {
            lane.stored = stored.get(partition).copied();
            lane.row_until = None;
            lane.taken &= resume == Resume::KeepBatch;
        }
        resume
    }

    /// Takes over what the row of a partition says beside the offset. What is known here and not there stays, so that it is written; what
    /// was there and no longer is, a person took out.
    pub fn recall(&mut self, partition: i32, row: Note) {
        let Some(lane) = self.lanes.get_mut(&partition) else { return };
        if matches!(lane.fault, Some(Fault::Schema { .. })) {
            lane.fault = None;
        }
        let known = if lane.row_cut.is_some() && row.cut.is_none() { None } else { lane.cut };
        let cut = known.zip(row.cut).map(|(known, row)| known.min(row)).or(known).or(row.cut);
        lane.recall(cut, row.cut);
        (lane.origin, lane.schema, lane.row_until) = (row.origin, row.schema, row.until);
        lane.belongs_to(&self.found);
        lane.is_in(self.schema.as_deref());
    }

    /// The rows to come are another server's: what is missing there nobody took out.
    pub fn elsewhere(&mut self) {
        self.lanes.values_mut().for_each(|lane| lane.row_cut = None);
    }

    /// Takes notice of which topic the log is. Whether what is stored turns out to be of another one, so that nothing in hand is to be trusted.
    pub fn is_of(&mut self, found: &Origin) -> bool {
        self.found = found.or(&self.found);
        let mut news = false;
        for lane in self.lanes.values_mut() {
            news |= lane.belongs_to(&self.found);
        }
        news
    }

    /// Forgets what is taken and not stored.
    pub fn rewind(&mut self) {
        self.lanes.values_mut().for_each(|lane| (lane.next, lane.taken) = (lane.stored, false));
    }

    /// What the row of a partition is to say beside the offset, and whether that is news to it.
    pub fn note(&self, partition: i32) -> (Note, bool) {
        let Some(lane) = self.lanes.get(&partition) else { return (Note::default(), false) };
        let note = lane.note(&self.found, self.schema.as_deref());
        let row = (&lane.origin, &lane.schema, lane.row_cut, lane.row_until);
        let news = lane.stored.is_some() && (&note.origin, &note.schema, note.cut, note.until) != row;
        (note, news)
    }

    /// Partitions that cannot go on.
    pub fn faulty(&self) -> BTreeSet<i32> {
        self.lanes.iter().filter(|(_, lane)| lane.fault.is_some()).map(|(partition, _)| *partition).collect()
    }

    fn resume(&self, placement: &Placement, stored: &BTreeMap<i32, i64>) -> Resume {
        let same_placement = self.lanes.len() == placement.len()
            && placement.iter().all(|(p, spans)| self.lanes.get(p).is_some_and(|lane| lane.spans == *spans));
        if !same_placement {
            return Resume::Rewind;
        }
        // A lane without records in the batch may have had its row written beside it, with the same meaning.
        let (mut before, mut after) = (true, true);
        for (partition, lane) in &self.lanes {
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
        let Some(lane) = self.lanes.get_mut(&partition) else { return false };
        let before = lane.position();
        lane.end = lane.end.max(Some(end));
        if lane.next.is_none() {
            lane.next = lane.begin(earliest, self.start);
        }
        if lane.stored.is_some_and(|stored| stored > end && lane.goes_on_at(stored)) {
            lane.cut_at(end);
        }
        match (lane.judge(earliest, self.start), &lane.fault) {
            (_, Some(Fault::Replaced { .. } | Fault::Schema { .. })) => {}
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

    /// Records wait that nobody has looked at yet, of whichever partition: that nothing was taken of one is no silence of the log.
    pub fn are_waited_for(&mut self) {
        self.lanes.values_mut().for_each(|lane| lane.silences = 0);
    }

    /// A record came out of the log.
    pub fn offer(&mut self, partition: i32, offset: i64, holes: Holes) -> Offer {
        let Some(lane) = self.lanes.get_mut(&partition) else { return Offer::Drop };
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
        let Some(lane) = self.lanes.get_mut(&partition) else { return };
        match fault {
            Fault::Ended { wanted, end } if lane.goes_on_at(wanted) => lane.cut_at(end),
            // Nothing of the span was there before: it is waited for.
            Fault::Ended { end, .. } => return lane.end = Some(end),
            _ => {}
        }
        lane.fail(fault);
    }

    /// Lanes whose records went missing in the middle are tried again. Whether there are any, so that the log must be told.
    pub fn try_again(&mut self) -> bool {
        let mut any = false;
        for lane in self.lanes.values_mut().filter(|lane| matches!(lane.fault, Some(Fault::Gap { .. }))) {
            lane.trying = true;
            any = true;
        }
        any
    }

    /// Partitions with records in the batch.
    pub fn taken(&self) -> Vec<i32> {
        self.lanes.iter().filter(|(_, lane)| lane.taken).map(|(p, _)| *p).collect()
    }

    /// The transaction that wrote the rows of these partitions is committed.
    pub fn committed(&mut self, partitions: impl IntoIterator<Item = i32>) {
        for partition in partitions {
            if let Some(lane) = self.lanes.get_mut(&partition) {
                lane.noted(lane.note(&self.found, self.schema.as_deref()));
                (lane.stored, lane.taken) = (lane.next, false);
            }
        }
    }

    /// The transaction that wrote the rows of these partitions, with the offsets that they had, is committed.
    pub fn noted(&mut self, partitions: impl IntoIterator<Item = i32>) {
        for partition in partitions {
            if let Some(lane) = self.lanes.get_mut(&partition) {
                lane.noted(lane.note(&self.found, self.schema.as_deref()));
            }
        }
    }

    /// What the rows of these partitions must say before the transaction.
    pub fn expected(&self, partitions: impl IntoIterator<Item = i32>) -> BTreeMap<i32, Option<i64>> {
        partitions.into_iter().filter_map(|p| Some((p, self.lanes.get(&p)?.stored))).collect()
    }

    /// Where to read each partition that can be read.
    pub fn positions(&self) -> Vec<(i32, i64)> {
        self.lanes.iter().filter_map(|(p, lane)| Some((*p, lane.position()?))).collect()
    }
}
