//! The records that one transaction will hold. Pure, but for the clock it is given.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::view::{Decoded, Placed, Record, Reject};

/// When nothing has come for so long, nothing more waits to be read at once: the client hands out what it has in one go.
pub const QUIET: Duration = Duration::from_millis(3);
/// A batch in haste waits no longer than this from its first record, however steadily more of them come.
pub const HASTE: Duration = Duration::from_millis(20);

/// When a batch is complete, whichever is met first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Records of the topic.
    pub records: usize,
    /// Bytes of the topic with their headers, those that the items take in memory beside them, and those of parts that are put aside. A
    /// single record may have more.
    pub bytes: usize,
    /// Rows that the view expects to write. A single record may have more.
    pub weight: usize,
    /// Time from the first record.
    pub delay: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { records: 500, bytes: 4 << 20, weight: 20_000, delay: Duration::from_millis(200) }
    }
}

/// Something to put aside, and whether that is done.
#[derive(Clone, Debug)]
pub struct Letter {
    /// The record as it goes to the dead-letter topic.
    pub record: Record,
    /// A word from a closed set.
    pub reason: &'static str,
    /// For a person.
    pub detail: String,
    /// The dead-letter topic has it.
    pub delivered: bool,
}

/// Records that are taken and not committed.
#[derive(Debug)]
pub struct Batch<I> {
    items: Vec<Placed<I>>,
    letters: Vec<Letter>,
    records: usize,
    bytes: usize,
    memory: usize,
    weight: usize,
    opened: Option<Instant>,
    latest: Option<Instant>,
    /// Times of the first and of the last record of each partition, in milliseconds since 1970, as the records have them.
    times_ms: BTreeMap<i32, (i64, i64)>,
}

impl<I> Default for Batch<I> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            letters: Vec::new(),
            records: 0,
            bytes: 0,
            memory: 0,
            weight: 0,
            opened: None,
            latest: None,
            times_ms: BTreeMap::new(),
        }
    }
}

impl<I> Batch<I> {
    /// Takes what became of the next record.
    pub fn push(&mut self, record: Record, decoded: Decoded<I>, now: Instant) {
        self.opened.get_or_insert(now);
        self.latest = Some(now);
        self.records += 1;
        let bytes = record.value.len() + record.key.len();
        let headers: usize = record.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let parts: usize = decoded.rejects.iter().filter_map(|reject| Some(reject.value.as_ref()?.len())).sum();
        self.bytes += bytes;
        self.memory = self.memory.saturating_add(decoded.memory).saturating_add(bytes + headers + parts);
        self.weight += decoded.weight;
        if let Some(at) = record.timestamp_ms {
            self.times_ms.entry(record.partition).and_modify(|(_, last)| *last = at).or_insert((at, at));
        }
        for reject in decoded.rejects {
            self.letters.push(letter(&record, reject));
        }
        if let Some(item) = decoded.item {
            self.items.push(Placed { record, item });
        }
    }

    /// Moves an item that cannot be applied to what is put aside. Whether there is such an item.
    #[must_use]
    pub fn reject(&mut self, index: usize, reason: &'static str, detail: String) -> bool {
        if index >= self.items.len() {
            return false;
        }
        let placed = self.items.remove(index);
        self.letters.push(letter(&placed.record, Reject { reason, detail, value: None }));
        true
    }

    /// Whether nothing was taken.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Whether it must be committed before more is taken.
    pub fn is_full(&self, limits: Limits) -> bool {
        self.records >= limits.records || self.memory >= limits.bytes || self.weight >= limits.weight
    }

    /// When it must be committed; None while it is empty.
    pub fn due(&self, limits: Limits) -> Option<Instant> {
        self.opened.map(|at| at + limits.delay)
    }

    /// The same while a change of primary makes haste: when nothing has come for [`QUIET`], and after [`HASTE`] in any case.
    pub fn due_in_haste(&self, limits: Limits) -> Option<Instant> {
        let (opened, latest) = self.opened.zip(self.latest)?;
        Some((latest + QUIET).min(opened + HASTE.min(limits.delay)))
    }

    /// What is to be applied, in the order of the log for each partition.
    pub fn items(&self) -> &[Placed<I>] {
        &self.items
    }

    /// What is to be put aside.
    pub fn letters(&mut self) -> &mut [Letter] {
        &mut self.letters
    }

    /// How much of a partition is to be put aside.
    pub fn letters_of(&self, partition: i32) -> u64 {
        self.letters.iter().filter(|letter| letter.record.partition == partition).count() as u64
    }

    /// Records that were taken.
    pub fn records(&self) -> usize {
        self.records
    }

    /// Bytes of them, as the topic has them.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The time of the last record of a partition.
    pub fn last_ms(&self, partition: i32) -> Option<i64> {
        self.times_ms.get(&partition).map(|(_, last)| *last)
    }

    /// The time of the first record of a partition, whether it is to be applied or put aside.
    pub fn first_ms(&self, partition: i32) -> Option<i64> {
        self.times_ms.get(&partition).map(|(first, _)| *first)
    }
}

fn letter(record: &Record, reject: Reject) -> Letter {
    let mut record = record.clone();
    if let Some(value) = reject.value {
        record.value = value;
    }
    Letter { record, reason: reject.reason, detail: reject.detail, delivered: false }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn record(offset: i64, bytes: usize) -> Record {
        Record {
            generation: 0,
            topic: "t".into(),
            partition: 0,
            offset,
            timestamp_ms: Some(1000 + offset),
            key: Bytes::new(),
            value: Bytes::from(vec![b'x'; bytes]),
            headers: Vec::new(),
        }
    }

    #[test]
    fn a_batch_is_complete_by_records_bytes_memory_or_rows() {
        let limits = Limits { records: 3, bytes: 100, weight: 10, delay: Duration::from_millis(5) };
        for (case, pushed, full) in [
            ("nothing", &[][..], false),
            ("below all", &[(10, 1, 10), (10, 1, 10)], false),
            ("records", &[(1, 0, 0), (1, 0, 0), (1, 0, 0)], true),
            ("bytes", &[(50, 0, 0), (50, 0, 0)], true),
            ("what items take in memory beside their records", &[(10, 0, 40), (10, 0, 40)], true),
            ("one item that is larger than the limit", &[(10, 0, 1000)], true),
            ("an item of any size", &[(10, 0, usize::MAX)], true),
            ("rows", &[(1, 9, 0), (1, 1, 0)], true),
        ] {
            let mut batch = Batch::default();
            let now = Instant::now();
            for (offset, &(bytes, weight, memory)) in pushed.iter().enumerate() {
                let decoded = Decoded { memory, ..Decoded::item((), weight) };
                batch.push(record(offset as i64, bytes), decoded, now);
            }
            assert_eq!(batch.is_full(limits), full, "{case}");
            assert_eq!(batch.items().len(), pushed.len(), "{case}: what was pushed is taken");
            let of_the_topic: usize = pushed.iter().map(|(bytes, ..)| bytes).sum();
            assert_eq!(batch.bytes(), of_the_topic, "{case}: what is counted as stored is the topic's");
            assert_eq!(batch.due(limits), (!pushed.is_empty()).then_some(now + limits.delay), "{case}");
        }
    }

    #[test]
    fn in_haste_a_batch_is_complete_when_nothing_more_comes_at_once_and_never_later_than_else() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        for (case, delay, taken, due, in_haste) in [
            ("nothing was taken", 200, &[][..], None, None),
            ("one record", 200, &[0], Some(200), Some(3)),
            ("several at once, and one a moment later", 200, &[0, 0, 2], Some(200), Some(5)),
            ("a stream that does not end", 200, &[0, 3, 6, 9, 12, 15, 18], Some(200), Some(20)),
            ("a delay that is shorter", 10, &[0, 3, 6, 9], Some(10), Some(10)),
            ("no delay at all", 0, &[3], Some(3), Some(3)),
        ] {
            let limits = Limits { delay: Duration::from_millis(delay), ..Limits::default() };
            let mut batch = Batch::default();
            for ms in taken {
                batch.push(record(0, 1), Decoded::item((), 1), at(*ms));
            }
            assert_eq!(batch.due(limits), due.map(at), "{case}");
            assert_eq!(batch.due_in_haste(limits), in_haste.map(at), "{case}");
        }
    }

    #[test]
    fn headers_are_held_with_their_record_and_count() {
        let mut batch = Batch::default();
        for offset in 0..2 {
            let headers = vec![("trace".to_owned(), Bytes::from(vec![b'x'; 35]))];
            batch.push(Record { headers, ..record(offset, 10) }, Decoded::item((), 1), Instant::now());
        }
        assert!(batch.is_full(Limits { bytes: 100, ..Limits::default() }));
        assert!(!batch.is_full(Limits { bytes: 101, ..Limits::default() }));
    }

    #[test]
    fn parts_that_are_put_aside_are_held_beside_their_record_and_count_but_a_whole_record_is_held_once() {
        let reject = |value: Option<usize>| {
            let value = value.map(|bytes| Bytes::from(vec![b'x'; bytes]));
            Reject { reason: "late", detail: String::new(), value }
        };
        for (case, rejects, held) in [
            ("a part", &[Some(40)][..], 50),
            ("two parts", &[Some(15), Some(25)], 50),
            ("the whole", &[None], 10),
            ("nothing", &[], 10),
        ] {
            let rejects = rejects.iter().map(|bytes| reject(*bytes)).collect();
            let mut batch = Batch::default();
            batch.push(record(0, 10), Decoded { rejects, ..Decoded::item((), 1) }, Instant::now());
            assert!(batch.is_full(Limits { bytes: held, ..Limits::default() }), "{case}");
            assert!(!batch.is_full(Limits { bytes: held + 1, ..Limits::default() }), "{case}");
            assert_eq!(batch.bytes(), 10, "{case}: what is counted as stored is the topic's");
        }
    }

    #[test]
    fn what_cannot_be_applied_is_put_aside_whole_or_in_part() {
        let mut batch = Batch::default();
        let now = Instant::now();
        batch.push(record(0, 4), Decoded::<u8>::reject("bad", "no"), now);
        let part = Reject { reason: "late", detail: String::new(), value: Some(Bytes::from_static(b"part")) };
        batch.push(record(1, 4), Decoded { rejects: vec![part], ..Decoded::item(1, 1) }, now);
        batch.push(record(2, 4), Decoded::item(2, 1), now);
        assert!(batch.reject(1, "refused", "by the view".into()));
        assert!(!batch.reject(1, "refused", "by the view".into()), "there is no such item any more");
        let letters: Vec<_> =
            batch.letters().iter().map(|l| (l.record.offset, l.reason, l.record.value.clone())).collect();
        let whole = Bytes::from_static(b"xxxx");
        assert_eq!(
            letters,
            [(0, "bad", whole.clone()), (1, "late", Bytes::from_static(b"part")), (2, "refused", whole)]
        );
        assert_eq!(batch.items().iter().map(|p| p.item).collect::<Vec<_>>(), [1]);
        let times = (batch.first_ms(0), batch.last_ms(0));
        assert_eq!((batch.records(), times), (3, (Some(1000), Some(1002))), "what is put aside counts");
    }
}
