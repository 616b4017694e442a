//! Blocks to series: in order of time, each time once. Pure.

use std::collections::BTreeMap;

use understudy_model::{Sample, SeriesId};

use crate::block::Block;

/// Collects the samples of many blocks.
#[derive(Debug, Default)]
pub struct Merger {
    series: BTreeMap<SeriesId, Vec<Entry>>,
    samples: usize,
    order: u64,
}

/// Time, then where it was sent, so that of two samples of one time the one that was sent later comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    timestamp_ms: i64,
    offset: i64,
    order: u64,
    bits: u64,
}

/// Series in order of their ids, samples in order of time, no time twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// The samples of each series that has any.
    pub series: BTreeMap<SeriesId, Vec<Sample>>,
    /// How many samples were left out because a later one of the same series and time was there.
    pub duplicates: u64,
}

impl Merger {
    /// Takes the samples of the wanted series of one row, if they lie within `times` (both ends included). `offset` is the row's.
    pub fn add(&mut self, block: &Block, wanted: impl Fn(SeriesId) -> bool, times: (i64, i64), offset: i64) {
        for (id, samples) in block.iter().filter(|(id, _)| wanted(*id)) {
            let within = samples.iter().filter(|s| times.0 <= s.timestamp_ms && s.timestamp_ms <= times.1);
            for sample in within {
                self.order += 1;
                self.samples += 1;
                let entry = Entry { timestamp_ms: sample.timestamp_ms, offset, order: self.order, bits: sample.bits };
                self.series.entry(id).or_default().push(entry);
            }
        }
    }

    /// How many samples it holds: memory is 32 bytes each.
    pub fn samples_len(&self) -> usize {
        self.samples
    }

    /// Sorts and drops duplicates.
    pub fn finish(self) -> Merged {
        let mut merged = Merged::default();
        for (id, mut entries) in self.series {
            entries.sort_unstable();
            let mut samples: Vec<Sample> = Vec::with_capacity(entries.len());
            for entry in entries {
                let sample = Sample { timestamp_ms: entry.timestamp_ms, bits: entry.bits };
                match samples.last_mut() {
                    Some(last) if last.timestamp_ms == sample.timestamp_ms => {
                        *last = sample;
                        merged.duplicates += 1;
                    }
                    _ => samples.push(sample),
                }
            }
            merged.series.insert(id, samples);
        }
        merged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(samples: &[(u8, i64, u64)]) -> Block {
        let samples: Vec<_> = samples
            .iter()
            .map(|&(id, timestamp_ms, bits)| (SeriesId([id; 16]), Sample { timestamp_ms, bits }))
            .collect();
        let encoded = Block::encode(&samples).unwrap();
        Block::decode(encoded.codec, &encoded.body, encoded.times.0).unwrap()
    }

    fn merge(blocks: &[(i64, Block)], times: (i64, i64)) -> (Vec<(u8, i64, u64)>, u64) {
        let mut merger = Merger::default();
        for (offset, block) in blocks {
            merger.add(block, |id| id.0[0] < 100, times, *offset);
        }
        let merged = merger.finish();
        let flat = merged.series.iter().flat_map(|(id, all)| all.iter().map(|s| (id.0[0], s.timestamp_ms, s.bits)));
        (flat.collect(), merged.duplicates)
    }

    #[test]
    fn of_two_samples_of_one_time_the_one_sent_later_stays_and_the_other_is_counted() {
        let (first, second) = (block(&[(1, 10, 1), (1, 20, 2)]), block(&[(1, 10, 3), (2, 10, 4)]));
        let expected = (vec![(1, 10, 3), (1, 20, 2), (2, 10, 4)], 1);
        assert_eq!(merge(&[(5, first.clone()), (9, second.clone())], (0, 100)), expected);
        assert_eq!(merge(&[(9, second), (5, first)], (0, 100)), expected, "read in another order");
    }

    #[test]
    fn within_a_row_the_later_one_stays() {
        assert_eq!(merge(&[(5, block(&[(1, 10, 1), (1, 10, 0)]))], (0, 100)), (vec![(1, 10, 0)], 1));
    }

    #[test]
    fn other_series_and_times_are_left_out() {
        let all = block(&[(1, 9, 1), (1, 10, 2), (1, 20, 3), (1, 21, 4), (100, 15, 5)]);
        assert_eq!(merge(&[(0, all)], (10, 20)), (vec![(1, 10, 2), (1, 20, 3)], 0));
    }
}
