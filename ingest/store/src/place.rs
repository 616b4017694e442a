//! Landing rows beside those that are under their key already. Pure.
//!
//! The key of a row ends with the place of its first record. A place comes again when a person lets a partition be read from an earlier offset:
//! a topic that was made anew, or that lost its tail, has other records under offsets that are stored. Their samples are kept beside the first
//! ones, as further parts, and a read takes each sample once.

use std::collections::BTreeMap;

use mysql_async::Value;

use crate::pack::LandingRow;
use crate::range::Range;

/// The most rows that a statement asks about.
const ROWS: usize = 256;

/// The beginning of a key that is there, and the last part under it.
pub type Taken = (i64, Vec<u8>, i32, i64, u32);

/// The statements that ask which keys of these rows are there; each answers with [`Taken`].
pub fn questions(range: Range, rows: &[LandingRow]) -> Vec<(String, Vec<Value>)> {
    rows.chunks(ROWS).map(|rows| question(range, rows)).collect()
}

fn question(range: Range, rows: &[LandingRow]) -> (String, Vec<Value>) {
    // A power of two of rows, so that few distinct statements are prepared; the last row is listed again.
    let marks = rows.len().next_power_of_two();
    let sql = format!(
        "SELECT t_min, group_id, partition_id, kafka_offset, MAX(part) FROM {} \
         WHERE (t_min, group_id, partition_id, kafka_offset) IN ({}) \
         GROUP BY t_min, group_id, partition_id, kafka_offset",
        range.quoted_table(),
        vec!["(?,?,?,?)"; marks].join(",")
    );
    let listed = rows.iter().chain(std::iter::repeat(&rows[rows.len() - 1])).take(marks);
    let params = listed.flat_map(|row| {
        let (t_min, group, partition, offset) = key(row);
        [Value::Int(t_min), Value::Bytes(group), Value::Int(partition.into()), Value::Int(offset)]
    });
    (sql, params.collect())
}

/// Counts the parts of these rows on from what is there.
pub fn step_aside(rows: &mut [LandingRow], taken: impl IntoIterator<Item = Taken>) {
    let beside = |(t_min, group, partition, offset, part): Taken| ((t_min, group, partition, offset), part);
    let last: BTreeMap<_, u32> = taken.into_iter().map(beside).collect();
    for row in rows {
        if let Some(last) = last.get(&key(row)) {
            row.part = row.part.saturating_add(*last).saturating_add(1);
        }
    }
}

fn key(row: &LandingRow) -> (i64, Vec<u8>, i32, i64) {
    (row.block.times.0, row.group.0.to_vec(), row.partition, row.offset)
}

#[cfg(test)]
mod tests {
    use understudy_model::frame::Full;
    use understudy_model::{Frame, FrameBuilder, Group, Labels, Sample, Tenant};

    use super::*;
    use crate::pack::{Placed, pack};

    const START: i64 = 1_763_899_200_000;

    fn frame(instance: &str, times: &[i64]) -> Frame {
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "node"), ("instance", instance)]).unwrap();
        let samples: Vec<Sample> = times.iter().map(|&at| Sample::new(at, 1.0)).collect();
        let mut builder = FrameBuilder::new(Group::new(Tenant::new("acme").unwrap(), "node", instance));
        assert_eq!(builder.push(&labels, &samples), Full::No);
        builder.finish(None).unwrap()
    }

    /// The rows of one flush of records of partition 3, which all lie in the range of [`START`].
    fn rows(frames: &[(i64, &Frame)]) -> Vec<LandingRow> {
        let placed = frames.iter().map(|(offset, frame)| Placed { partition: 3, offset: *offset, frame, window: None });
        pack(placed).landing.remove(&Range::of(START)).unwrap()
    }

    #[test]
    fn rows_are_put_beside_those_of_their_key_and_no_others_are_moved() {
        let (a, b) = (frame("a", &[START]), frame("b", &[START]));
        let mut rows = rows(&[(7, &a), (9, &b)]);
        let of = |instance: &Frame| instance.group().id().0.to_vec();
        let taken = [
            (START, of(&a), 3, 7, 4),
            (START + 1, of(&b), 3, 9, 5),
            (START, of(&b), 2, 9, 6),
            (START, of(&b), 3, 8, 7),
        ];
        step_aside(&mut rows, taken);
        let mut parts: Vec<_> = rows.iter().map(|row| (row.offset, row.part)).collect();
        parts.sort_unstable();
        assert_eq!(parts, [(7, 5), (9, 0)]);
    }

    #[test]
    fn every_row_is_asked_about_in_statements_of_few_shapes() {
        let frames: Vec<Frame> = (0..259).map(|number| frame(&number.to_string(), &[START])).collect();
        let placed: Vec<(i64, &Frame)> = (0..).zip(&frames).collect();
        let rows = rows(&placed);
        let questions = questions(Range::of(START), &rows);
        let marks: Vec<_> = questions.iter().map(|(sql, _)| sql.matches("(?,?,?,?)").count()).collect();
        assert_eq!(marks, [256, 4], "three rows, and the last of them again");
        let params = questions.into_iter().flat_map(|(_, params)| params);
        let mut asked: Vec<Value> = params.skip(3).step_by(4).collect();
        asked.dedup();
        assert_eq!(asked, rows.iter().map(|row| Value::Int(row.offset)).collect::<Vec<_>>());
        assert!(super::questions(Range::of(START), &[]).is_empty());
    }
}
