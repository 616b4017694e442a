//! Reading a ledger. Pure but for the reader it is given.

use std::io::{self, BufRead};

use thiserror::Error;

use super::Record;

/// A file that is not a ledger.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file itself.
    #[error("read the ledger")]
    Io(#[from] io::Error),
    /// A line that is no record, and not the last.
    #[error("line {line} of the ledger is not a record")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// The records of a ledger, in order. A last line without its end is what a crash leaves behind and is left out.
pub fn read_lines(mut source: impl BufRead) -> impl Iterator<Item = Result<Record, ReadError>> {
    let mut number = 0;
    let mut line = Vec::new();
    std::iter::from_fn(move || {
        line.clear();
        number += 1;
        match source.read_until(b'\n', &mut line) {
            Err(problem) => Some(Err(ReadError::Io(problem))),
            Ok(_) if line.last() != Some(&b'\n') => None,
            Ok(_) => {
                let record = serde_json::from_slice(&line);
                Some(record.map_err(|source| ReadError::Line { line: number, source }))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Act, FORMAT, Outcome, Server, Stamp, Taken};
    use crate::plan::Batch;

    #[test]
    fn every_kind_of_record_is_read_back_as_it_was_written() {
        let (at, asked, batch, shard) = (Stamp(5, 6), Stamp(3, 4), Batch { tick: 7, lane: 1 }, || "s-0".to_owned());
        let replica = || "s-0-a".to_owned();
        let records = [
            Record::Run { format: FORMAT, run: crate::plan::tests::small(), at },
            Record::Sent { batch, samples: 9, sum: "00ff".into(), at },
            Record::Failed { batch, attempt: 2, taken: Taken::Unknown, why: "503 \"later\"\nline".into(), at },
            Record::Done { batch, outcome: Outcome::Unknown, attempts: 3, at },
            Record::Skipped { batch, at },
            Record::Route { shard: shard(), primary: replica(), address: "10.0.0.1:3306".into(), epoch: 4, at },
            Record::Stored {
                shard: shard(),
                replica: replica(),
                epoch: 4,
                offsets: [("c/t/0".into(), 8)].into(),
                asked,
                at,
            },
            Record::StoredFailed { shard: shard(), replica: replica(), why: "no answer".into(), at },
            Record::Visible { newest: [(3, 99), (11, 98)].into(), asked, at },
            Record::Served {
                shards: [(shard(), Server { replica: replica(), epoch: 4, is_primary: true })].into(),
                behind: vec![3],
                asked,
                at,
            },
            Record::Direct { shard: shard(), replica: replica(), act: Act::Write, why: None, asked, at },
            Record::VisibleFailed { why: "503".into(), at },
            Record::Where { shard: shard(), groups: vec![1, 2], at },
            Record::Pause { from: asked, at },
            Record::End { at },
        ];
        let lines: Vec<String> = records.iter().map(|record| serde_json::to_string(record).unwrap() + "\n").collect();
        let read: Vec<Record> = read_lines(lines.concat().as_bytes()).map(Result::unwrap).collect();
        assert_eq!(read, records);
    }

    #[test]
    fn a_line_that_a_crash_cut_off_is_left_out() {
        let text = "{\"end\":{\"at\":[1,2]}}\n{\"end\":{\"at\":[3,";
        let records: Vec<Record> = read_lines(text.as_bytes()).map(Result::unwrap).collect();
        assert_eq!(records, [Record::End { at: Stamp(1, 2) }]);
    }

    #[test]
    fn a_damaged_line_in_the_middle_is_an_error_with_its_number() {
        let text = "{\"end\":{\"at\":[1,2]}}\nnonsense\n{\"end\":{\"at\":[3,4]}}\n";
        let outcome: Result<Vec<Record>, ReadError> = read_lines(text.as_bytes()).collect();
        assert!(matches!(outcome, Err(ReadError::Line { line: 2, .. })), "{outcome:?}");
    }
}
