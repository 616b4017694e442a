//! Frames to landing rows: one row for each group and flush. Pure, and the same frames always give the same rows.
//!
//! A flush is what one transaction writes. The samples that it holds of one group, partition and five minutes share a row, cut where it
//! would exceed [`MAX_SAMPLES`]. The key ends with the offset of the first record in the row, and a record is in one flush only, so two
//! flushes meet only when a person lets other records be read under offsets that were stored: [`crate::place`].

use std::collections::BTreeMap;

use mysql_async::Value;
use understudy_model::rules::TimeWindow;
use understudy_model::{Frame, GroupId, Sample, SeriesId, Tenant};
use understudy_sql::Insert;

use crate::block::{Block, Encoded, MAX_SAMPLES};
use crate::range::{ROW_SPAN_MS, Range};

const COLUMNS: &str = "t_min, group_id, partition_id, kafka_offset, part, tenant, t_max, samples, series, codec, body";

/// A frame and the record it came from.
#[derive(Clone, Copy, Debug)]
pub struct Placed<'a> {
    /// Partition of the record.
    pub partition: i32,
    /// Offset of the record.
    pub offset: i64,
    /// What it holds.
    pub frame: &'a Frame,
    /// Samples outside are left out; None takes all.
    pub window: Option<TimeWindow>,
}

/// One row of a landing table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LandingRow {
    /// Whose data.
    pub tenant: Tenant,
    /// The group of all its series.
    pub group: GroupId,
    /// Where it came from.
    pub partition: i32,
    /// The first record in it.
    pub offset: i64,
    /// Counts the rows that a flush needs for the samples of one group and five minutes.
    pub part: u32,
    /// The samples.
    pub block: Encoded,
}

/// The rows of a flush, by table and in order of their key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Rows per range.
    pub landing: BTreeMap<Range, Vec<LandingRow>>,
}

/// The range comes first, and what follows in the primary key of the table is nearly in order.
type Key = (i64, GroupId, i32, Tenant);

#[derive(Default)]
struct Bucket {
    offset: i64,
    samples: Vec<(SeriesId, Sample)>,
}

/// Makes the rows of a flush.
pub fn pack<'a>(frames: impl IntoIterator<Item = Placed<'a>>) -> Packed {
    let mut buckets: BTreeMap<Key, Bucket> = BTreeMap::new();
    for placed in frames {
        let group = placed.frame.group().id();
        let tenant = placed.frame.tenant();
        for series in placed.frame.series() {
            for sample in series.samples() {
                if placed.window.is_some_and(|window| window.check(sample.timestamp_ms).is_err()) {
                    continue;
                }
                let span = sample.timestamp_ms.div_euclid(ROW_SPAN_MS);
                let bucket = buckets
                    .entry((span, group, placed.partition, tenant.clone()))
                    .or_insert(Bucket { offset: placed.offset, samples: Vec::new() });
                bucket.offset = bucket.offset.min(placed.offset);
                bucket.samples.push((series.id, sample));
            }
        }
    }
    let mut packed = Packed::default();
    for ((span, group, partition, tenant), mut bucket) in buckets {
        let range = Range::of(span.saturating_mul(ROW_SPAN_MS));
        // Stable: samples of one series and time stay in the order in which they were sent.
        bucket.samples.sort_by_key(|(id, sample)| (*id, sample.timestamp_ms));
        let rows = packed.landing.entry(range).or_default();
        for (part, samples) in bucket.samples.chunks(MAX_SAMPLES).enumerate() {
            let block = Block::encode(samples).expect("a chunk is not empty");
            rows.push(LandingRow {
                tenant: tenant.clone(),
                group,
                partition,
                offset: bucket.offset,
                part: part as u32,
                block,
            });
        }
    }
    packed
}

/// The range of each sample of a frame that lies within the window: which tables it needs.
pub fn ranges(frame: &Frame, window: Option<TimeWindow>) -> std::collections::BTreeSet<Range> {
    let times = frame.series().flat_map(|series| series.timestamps_ms.iter().copied());
    times.filter(|&t| window.is_none_or(|window| window.check(t).is_ok())).map(Range::of).collect()
}

/// How rows get into the landing table of a range.
#[derive(Clone, Debug)]
pub struct LandingInsert {
    head: String,
}

impl LandingInsert {
    /// For one range.
    pub fn into_range(range: Range) -> Self {
        Self { head: format!("INSERT INTO {} ({COLUMNS}) VALUES", range.quoted_table()) }
    }

    /// The statement; the values are those of [`LandingRow::values`].
    pub fn insert(&self) -> Insert<'_> {
        Insert { head: &self.head, columns: 11, tail: "" }
    }
}

impl LandingRow {
    /// The values of the row's columns.
    pub fn values(self) -> Vec<Value> {
        vec![
            Value::Int(self.block.times.0),
            Value::Bytes(self.group.0.to_vec()),
            Value::Int(self.partition.into()),
            Value::Int(self.offset),
            Value::UInt(self.part.into()),
            Value::Bytes(self.tenant.as_str().as_bytes().to_vec()),
            Value::Int(self.block.times.1),
            Value::UInt(self.block.samples as u64),
            Value::UInt(self.block.series as u64),
            Value::UInt(self.block.codec.into()),
            Value::Bytes(self.block.body),
        ]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use understudy_model::{FrameBuilder, Group, Labels};

    use super::*;
    use crate::merge::Merger;
    use crate::range::RANGE_MS;

    const START: i64 = 1_763_899_200_000;

    fn frame(tenant: &str, instance: &str, series: &[(String, Vec<Sample>)]) -> Frame {
        let mut builder = FrameBuilder::new(Group::new(Tenant::new(tenant).unwrap(), "node", instance));
        for (name, samples) in series {
            let labels = [("__name__", name.as_str()), ("job", "node"), ("instance", instance)];
            let labels = Labels::from_pairs(labels).unwrap();
            assert_eq!(builder.push(&labels, samples), understudy_model::frame::Full::No);
        }
        builder.finish(None).unwrap()
    }

    fn up(instance: &str, times: &[i64]) -> Frame {
        frame("acme", instance, &[("up".into(), times.iter().map(|&t| Sample::new(t, 1.0)).collect())])
    }

    fn at<'a>(partition: i32, offset: i64, frame: &'a Frame) -> Placed<'a> {
        Placed { partition, offset, frame, window: None }
    }

    fn shape(packed: &Packed) -> Vec<(i64, i32, i64, u32, usize)> {
        let rows = packed.landing.iter().flat_map(|(range, rows)| rows.iter().map(move |row| (range, row)));
        rows.map(|(range, r)| (range.start_ms() - START, r.partition, r.offset, r.part, r.block.samples)).collect()
    }

    #[test]
    fn records_of_one_group_share_a_row_and_others_do_not() {
        let (a, b) = (up("a", &[START]), up("b", &[START]));
        let packed = pack([at(0, 7, &a), at(0, 8, &a), at(0, 9, &b), at(1, 3, &a)]);
        let mut rows = shape(&packed);
        rows.sort_unstable();
        assert_eq!(rows, [(0, 0, 7, 0, 2), (0, 0, 9, 0, 1), (0, 1, 3, 0, 1)]);
    }

    #[test]
    fn a_row_never_spans_two_tables_or_more_than_its_minutes() {
        let frame = up("a", &[START - 1, START, START + ROW_SPAN_MS - 1, START + ROW_SPAN_MS]);
        let rows = shape(&pack([at(0, 1, &frame)]));
        assert_eq!(rows, [(-RANGE_MS, 0, 1, 0, 1), (0, 0, 1, 0, 2), (0, 0, 1, 0, 1)]);
    }

    #[test]
    fn a_row_that_would_be_too_large_is_cut() {
        let times: Vec<i64> = (0..MAX_SAMPLES as i64 + 5).map(|i| START + i).collect();
        let frame = up("a", &times);
        assert_eq!(shape(&pack([at(0, 1, &frame)])), [(0, 0, 1, 0, MAX_SAMPLES), (0, 0, 1, 1, 5)]);
    }

    #[test]
    fn tenants_never_share_a_row() {
        let of = |tenant| frame(tenant, "a", &[("up".into(), vec![Sample::new(START, 1.0)])]);
        let (a, b) = (of("acme"), of("zenith"));
        assert_eq!(shape(&pack([at(0, 1, &a), at(0, 2, &b)])).len(), 2);
    }

    #[test]
    fn samples_outside_the_window_are_left_out() {
        let frame = up("a", &[START, START + 10, START + 20]);
        let window = TimeWindow { earliest_ms: START + 5, latest_ms: START + 15 };
        let packed = pack([Placed { window: Some(window), ..at(0, 1, &frame) }]);
        assert_eq!(shape(&packed), [(0, 0, 1, 0, 1)]);
        assert_eq!(ranges(&frame, Some(window)).len(), 1);
    }

    proptest! {
        #[test]
        fn every_sample_of_every_frame_is_in_exactly_one_row(
            frames in prop::collection::vec(prop::collection::vec((0_u8..4, -20_000_000_i64..20_000_000, any::<u64>()), 1..40), 1..6)
        ) {
            let frames: Vec<Frame> = frames
                .iter()
                .map(|samples| {
                    let series: Vec<_> = samples
                        .iter()
                        .map(|&(s, t, bits)| (format!("m{s}"), vec![Sample { timestamp_ms: START + t, bits }]))
                        .collect();
                    frame("acme", "a", &series)
                })
                .collect();
            let packed = pack(frames.iter().enumerate().map(|(i, f)| at(0, i as i64, f)));
            let mut sent: Vec<(SeriesId, Sample)> = Vec::new();
            for series in frames.iter().flat_map(Frame::series) {
                sent.extend(series.samples().map(|sample| (series.id, sample)));
            }
            let mut stored = Vec::new();
            let mut merger = Merger::default();
            for (range, rows) in &packed.landing {
                for row in rows {
                    let (low, high) = row.block.times;
                    prop_assert!(range.start_ms() <= low && high < range.end_ms() && high - low < ROW_SPAN_MS);
                    let block = Block::decode(row.block.codec, &row.block.body, low).unwrap();
                    stored.extend(block.iter().flat_map(|(id, all)| all.iter().map(move |s| (id, *s))));
                    merger.add(&block, |_| true, (i64::MIN, i64::MAX), row.offset);
                }
            }
            sent.sort_unstable();
            stored.sort_unstable();
            prop_assert_eq!(&sent, &stored);
            let merged = merger.finish();
            let kept: usize = merged.series.values().map(Vec::len).sum();
            prop_assert_eq!(kept as u64 + merged.duplicates, sent.len() as u64);
        }
    }
}
