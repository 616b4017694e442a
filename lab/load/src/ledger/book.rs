//! What the lines of a ledger add up to. Pure.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::reader::ReadError;
use super::sending::Sending;
use super::watched::{Done, Stored, Watched};
use super::{FORMAT, Outcome, Record, Server, Stamp};
use crate::gaps::{Window, seconds};
use crate::plan::{Batch, Planned, Run};

/// A ledger, read.
#[derive(Clone, Debug)]
pub struct Book {
    /// What was sent.
    pub run: Run,
    /// Every batch of which at least one attempt was made.
    pub batches: BTreeMap<Batch, Sending>,
    /// Batches that were due but never sent.
    pub skipped: u64,
    /// What the watcher saw of each shard's stored offsets.
    pub shards: BTreeMap<String, Watched>,
    /// Newest readable canaries, as they became readable.
    pub visible: Vec<Seen>,
    /// Which servers gave the answers.
    pub served: Vec<Served>,
    /// Reads through the query API that failed.
    pub visible_failures: u64,
    /// Which groups each shard holds.
    pub homes: BTreeMap<String, BTreeSet<u64>>,
    /// When the recording process itself did not run, in microseconds.
    pub pauses: Vec<(u64, u64)>,
    /// The last moment that was recorded.
    pub last: Stamp,
    /// Whether the ledger has its last line.
    pub complete: bool,
}

/// Canaries that became readable.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Group to newest timestamp in milliseconds.
    pub newest: BTreeMap<u64, i64>,
    /// When the answer was there.
    pub at: Stamp,
}

/// Who gave one answer of the query API.
#[derive(Clone, Debug, PartialEq)]
pub struct Served {
    /// Shard to server.
    pub shards: BTreeMap<String, Server>,
    /// Groups in which the answer went back.
    pub behind: Vec<u64>,
    /// When it was asked.
    pub asked: Stamp,
    /// When the answer was there.
    pub at: Stamp,
}

/// A ledger that cannot be believed.
#[derive(Debug, Error)]
pub enum BookError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The first line is not the run.
    #[error("the ledger does not begin with its run")]
    NoRun,
    /// Another format.
    #[error("the ledger has format {0}, this tool reads {FORMAT}")]
    Format(u32),
    /// The samples recorded are not those that this tool derives.
    #[error(
        "the samples of batch {0:?} are not what this version of the tool derives from the run: use the one that wrote it"
    )]
    Plan(Batch),
    /// Lines that exclude each other.
    #[error("the ledger contradicts itself: {0}")]
    Contradiction(String),
}

impl Book {
    /// Adds up the records.
    pub fn read(records: impl IntoIterator<Item = Result<Record, ReadError>>) -> Result<Self, BookError> {
        let mut records = records.into_iter();
        let mut book = match records.next().transpose()? {
            Some(Record::Run { format: FORMAT, run, at }) => Self::new(run, at),
            Some(Record::Run { format, .. }) => return Err(BookError::Format(format)),
            _ => return Err(BookError::NoRun),
        };
        for record in records {
            book.add(record?)?;
        }
        book.pauses.sort_unstable();
        Ok(book)
    }

    fn new(run: Run, at: Stamp) -> Self {
        Self {
            run,
            batches: BTreeMap::new(),
            skipped: 0,
            shards: BTreeMap::new(),
            visible: Vec::new(),
            served: Vec::new(),
            visible_failures: 0,
            homes: BTreeMap::new(),
            pauses: Vec::new(),
            last: at,
            complete: false,
        }
    }

    fn add(&mut self, record: Record) -> Result<(), BookError> {
        let at = match record {
            Record::Run { .. } => return Err(BookError::Contradiction("two runs".into())),
            Record::Sent { batch, samples, sum, at } => self.sent(batch, samples, &sum, at)?,
            Record::Failed { batch, taken, at, .. } => {
                self.sending(batch)?.fail(taken);
                at
            }
            Record::Done { batch, outcome, attempts, at } => {
                if !self.sending(batch)?.end(outcome, attempts, at) {
                    return Err(BookError::Contradiction(format!("{batch:?} ended twice")));
                }
                at
            }
            Record::Skipped { at, .. } => {
                self.skipped += 1;
                at
            }
            Record::Route { shard, primary, epoch, at, .. } => {
                self.shards.entry(shard).or_default().primaries.push((at, primary, epoch));
                at
            }
            Record::Stored { shard, replica, epoch, offsets, at, .. } => {
                self.shards.entry(shard).or_default().observations.push(Stored { replica, epoch, offsets, at });
                at
            }
            Record::StoredFailed { shard, at, .. } => {
                self.shards.entry(shard).or_default().failures += 1;
                at
            }
            Record::Visible { newest, at, .. } => {
                self.visible.push(Seen { newest, at });
                at
            }
            Record::Served { shards, behind, asked, at } => {
                self.served.push(Served { shards, behind, asked, at });
                at
            }
            Record::Direct { shard, replica, act, why, at, .. } => {
                if why.is_none() {
                    self.shards.entry(shard).or_default().direct.push(Done { replica, act, at });
                }
                at
            }
            Record::VisibleFailed { at, .. } => {
                self.visible_failures += 1;
                at
            }
            Record::Where { shard, groups, at } => {
                self.homes.entry(shard).or_default().extend(groups);
                at
            }
            Record::Pause { from, at } => {
                self.pauses.push((from.0, at.0));
                at
            }
            Record::End { at } => {
                self.complete = true;
                at
            }
        };
        self.last = self.last.max(at);
        Ok(())
    }

    fn sent(&mut self, batch: Batch, samples: u64, sum: &str, at: Stamp) -> Result<Stamp, BookError> {
        let planned = self.run.samples(batch);
        if planned.len() as u64 != samples || format!("{:016x}", Run::checksum(&planned)) != sum {
            return Err(BookError::Plan(batch));
        }
        match self.batches.insert(batch, Sending::begun(samples, at)) {
            None => Ok(at),
            Some(_) => Err(BookError::Contradiction(format!("{batch:?} was sent for the first time twice"))),
        }
    }

    fn sending(&mut self, batch: Batch) -> Result<&mut Sending, BookError> {
        let missing = || BookError::Contradiction(format!("{batch:?} was answered and never sent"));
        self.batches.get_mut(&batch).ok_or_else(missing)
    }

    /// Samples of all batches with this outcome.
    pub fn samples(&self, outcome: Outcome) -> u64 {
        self.batches.values().filter(|sending| sending.outcome() == outcome).map(|sending| sending.samples).sum()
    }

    /// Every sample that was sent, with its batch.
    pub fn sent_samples(&self) -> impl Iterator<Item = (Batch, &Sending, Planned)> {
        self.batches.iter().flat_map(|(batch, sending)| {
            self.run.samples(*batch).into_iter().map(move |sample| (*batch, sending, sample))
        })
    }

    /// The time in which progress is owed; None when nothing was sent.
    pub fn window(&self) -> Option<Window> {
        let sent = || self.batches.values().map(|sending| sending.sent.0);
        Some(Window { from: sent().min()?, until: sent().max()?, end: self.last.0 })
    }

    /// When something was acknowledged.
    pub fn acknowledgements(&self) -> Vec<u64> {
        let acked = |sending: &Sending| match sending.done {
            Some((Outcome::Acked, at)) => Some(at.0),
            _ => None,
        };
        self.batches.values().filter_map(acked).collect()
    }

    /// Seconds from the first attempt to the acknowledgement, of each batch that has one.
    pub fn ack_delays(&self) -> Vec<f64> {
        let delay = |sending: &Sending| match sending.done {
            Some((Outcome::Acked, at)) => Some(seconds(at.0.saturating_sub(sending.sent.0))),
            _ => None,
        };
        self.batches.values().filter_map(delay).collect()
    }

    /// When the newest readable sample of a group advanced, and how old it was then, in seconds of the wall clock.
    pub fn became_visible(&self, group: u64) -> Vec<(u64, f64)> {
        let mut newest = i64::MIN;
        let mut moments = Vec::new();
        for seen in &self.visible {
            let Some(timestamp) = seen.newest.get(&group).copied().filter(|timestamp| *timestamp > newest) else {
                continue;
            };
            newest = timestamp;
            moments.push((seen.at.0, (seen.at.1 - timestamp) as f64 / 1e3));
        }
        moments
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::Taken;
    use super::*;
    use crate::plan::tests::small;

    fn at(ms: u64) -> Stamp {
        Stamp(ms * 1000, 1_700_000_000_000 + ms as i64)
    }

    fn batch(tick: u64) -> Batch {
        Batch { tick, lane: 0 }
    }

    fn sent(tick: u64, ms: u64) -> Record {
        let samples = small().samples(batch(tick));
        let sum = format!("{:016x}", Run::checksum(&samples));
        Record::Sent { batch: batch(tick), samples: samples.len() as u64, sum, at: at(ms) }
    }

    fn failed(tick: u64, attempt: u32, taken: Taken, ms: u64) -> Record {
        Record::Failed { batch: batch(tick), attempt, taken, why: "no answer".into(), at: at(ms) }
    }

    fn done(tick: u64, outcome: Outcome, attempts: u32, ms: u64) -> Record {
        Record::Done { batch: batch(tick), outcome, attempts, at: at(ms) }
    }

    fn book(records: Vec<Record>) -> Result<Book, BookError> {
        let first = Record::Run { format: FORMAT, run: small(), at: at(0) };
        Book::read([first].into_iter().chain(records).map(Ok))
    }

    #[test]
    fn a_batch_without_an_answer_is_unknown_and_not_lost() {
        let book =
            book(vec![sent(0, 1), failed(0, 1, Taken::Unknown, 2000), done(0, Outcome::Unknown, 2, 4000)]).unwrap();
        let sending = book.batches[&batch(0)];
        assert_eq!((sending.outcome(), sending.deliveries()), (Outcome::Unknown, 2));
        assert!(book.acknowledgements().is_empty());
    }

    #[test]
    fn a_batch_whose_first_acknowledgement_was_lost_may_be_stored_twice() {
        let book =
            book(vec![sent(0, 1), failed(0, 1, Taken::Unknown, 2000), done(0, Outcome::Acked, 2, 2100)]).unwrap();
        let sending = book.batches[&batch(0)];
        assert_eq!((sending.outcome(), sending.deliveries()), (Outcome::Acked, 2));
        assert_eq!(book.acknowledgements(), [2_100_000]);
    }

    #[test]
    fn a_batch_that_was_turned_away_before_it_was_acknowledged_is_stored_once() {
        let book = book(vec![sent(0, 1), failed(0, 1, Taken::Nothing, 2), done(0, Outcome::Acked, 2, 4)]).unwrap();
        assert_eq!(book.batches[&batch(0)].deliveries(), 1);
    }

    #[test]
    fn a_batch_that_a_crash_left_open_is_unknown_and_its_running_attempt_counts() {
        let book = book(vec![sent(0, 1), failed(0, 1, Taken::Unknown, 2000), sent(1, 101)]).unwrap();
        assert_eq!(book.batches[&batch(0)].deliveries(), 2);
        assert_eq!(book.batches[&batch(1)].deliveries(), 1);
        assert_eq!(book.samples(Outcome::Unknown), book.batches.values().map(|s| s.samples).sum::<u64>());
        assert!(!book.complete);
    }

    #[test]
    fn a_batch_sent_once_and_acknowledged_can_be_stored_only_once() {
        let book = book(vec![sent(0, 1), done(0, Outcome::Acked, 1, 9), Record::End { at: at(50) }]).unwrap();
        assert_eq!(book.batches[&batch(0)].deliveries(), 1);
        assert!(book.complete);
    }

    #[rstest]
    #[case::answered_twice(vec![sent(0, 1), done(0, Outcome::Acked, 1, 2), done(0, Outcome::Acked, 1, 3)])]
    #[case::answered_and_never_sent(vec![done(0, Outcome::Acked, 1, 2)])]
    #[case::sent_for_the_first_time_twice(vec![sent(0, 1), sent(0, 2)])]
    #[case::two_runs(vec![Record::Run { format: FORMAT, run: small(), at: at(0) }])]
    fn a_ledger_that_contradicts_itself_is_refused(#[case] records: Vec<Record>) {
        assert!(matches!(book(records), Err(BookError::Contradiction(_))));
    }

    #[test]
    fn a_ledger_of_another_plan_is_refused() {
        let Record::Sent { batch, samples, at, .. } = sent(0, 1) else { unreachable!() };
        let other = Record::Sent { batch, samples, sum: "0".repeat(16), at };
        assert!(matches!(book(vec![other]), Err(BookError::Plan(_))));
    }

    #[test]
    fn visibility_advances_only_with_newer_samples() {
        let seen = |ms: u64, newest: &[(u64, i64)]| Record::Visible {
            newest: newest.iter().copied().collect(),
            asked: at(ms - 5),
            at: at(ms),
        };
        let t = 1_700_000_000_000;
        let book =
            book(vec![seen(100, &[(0, t), (1, t)]), seen(200, &[(1, t + 100)]), seen(300, &[(0, t), (1, t + 50)])]);
        let book = book.unwrap();
        assert_eq!(book.became_visible(0), [(100_000, 0.1)]);
        assert_eq!(book.became_visible(1), [(100_000, 0.1), (200_000, 0.1)]);
    }
}
