//! What the lines of a ledger add up to. Pure.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::reader::ReadError;
use super::{Act, FORMAT, Outcome, Record, Server, Stamp, Taken};
use crate::gaps::Window;
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

/// One batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sending {
    /// When it was first sent.
    pub sent: Stamp,
    /// Samples in it.
    pub samples: u64,
    /// Attempts that failed.
    pub failed: u32,
    /// How it ended and when; None when the ledger ends before.
    pub done: Option<(Outcome, Stamp)>,
    attempts: u32,
    /// Of those that failed, the ones of which nothing was taken.
    turned_away: u32,
}

impl Sending {
    /// How it ended; unknown when nothing says so.
    pub fn outcome(&self) -> Outcome {
        self.done.map_or(Outcome::Unknown, |(outcome, _)| outcome)
    }

    /// Attempts made, one that was under way when the ledger ended included.
    pub fn attempts(&self) -> u64 {
        u64::from(self.attempts.max(self.failed + u32::from(self.done.is_none())).max(1))
    }

    /// How often it may have been stored: once by each attempt, the unanswered ones included, but not by one of which
    /// nothing was taken.
    pub fn deliveries(&self) -> u64 {
        self.attempts().saturating_sub(u64::from(self.turned_away))
    }
}

/// What was seen of one shard.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// In order of the answers.
    pub observations: Vec<Stored>,
    /// Reads that failed.
    pub failures: u64,
    /// The primaries that its status named, in order.
    pub primaries: Vec<(Stamp, String, u64)>,
    /// What a client of its first primary could do, in order; what it could not is left out.
    pub direct: Vec<Done>,
}

/// Something that a client of one server could do.
#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    /// The server.
    pub replica: String,
    /// What.
    pub act: Act,
    /// When the answer was there.
    pub at: Stamp,
}

/// One answer of a shard's primary.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Who answered.
    pub replica: String,
    /// Under which epoch.
    pub epoch: u64,
    /// Partition to next offset.
    pub offsets: BTreeMap<String, i64>,
    /// When.
    pub at: Stamp,
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
                let sending = self.sending(batch)?;
                sending.failed += 1;
                sending.turned_away += u32::from(taken == Taken::Nothing);
                at
            }
            Record::Done { batch, outcome, attempts, at } => {
                let sending = self.sending(batch)?;
                if sending.done.replace((outcome, at)).is_some() {
                    return Err(BookError::Contradiction(format!("{batch:?} ended twice")));
                }
                sending.attempts = attempts;
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
        let sending = Sending { sent: at, samples, failed: 0, done: None, attempts: 0, turned_away: 0 };
        match self.batches.insert(batch, sending) {
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
            Some((Outcome::Acked, at)) => Some((at.0 - sending.sent.0.min(at.0)) as f64 / 1e6),
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

impl Watched {
    /// When a commit was seen: an offset went forward between two answers of one server under one epoch. The first
    /// answer of another server, or under another epoch, shows only where that one stands. An answer under a lower epoch
    /// than one seen before comes from a server that was replaced, and shows nothing.
    pub fn commits(&self) -> Vec<u64> {
        let mut moments = Vec::new();
        let mut before: Option<&Stored> = None;
        for now in &self.observations {
            if before.is_some_and(|before| now.epoch < before.epoch) {
                continue;
            }
            let same_server = before.filter(|before| before.replica == now.replica && before.epoch == now.epoch);
            if same_server.is_some_and(|before| now.is_beyond(before)) {
                moments.push(now.at.0);
            }
            before = Some(now);
        }
        moments
    }

    /// Records that had to be stored again after changes of primary: how far the offsets of each new one lay behind the
    /// furthest seen before.
    pub fn replayed(&self) -> i64 {
        let mut furthest: BTreeMap<&str, i64> = BTreeMap::new();
        let mut server: Option<(&str, u64)> = None;
        let mut replayed = 0;
        for now in &self.observations {
            if server.is_some_and(|(_, epoch)| now.epoch < epoch) {
                continue;
            }
            let is_new = server.replace((&now.replica, now.epoch)).is_some_and(|s| s != (&now.replica, now.epoch));
            for (partition, offset) in &now.offsets {
                let known = furthest.entry(partition).or_insert(*offset);
                if is_new {
                    replayed += (*known - offset).max(0);
                }
                *known = (*known).max(*offset);
            }
        }
        replayed
    }
}

impl Stored {
    fn is_beyond(&self, before: &Self) -> bool {
        self.offsets.iter().any(|(partition, offset)| before.offsets.get(partition).is_none_or(|known| offset > known))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

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

    fn failed(tick: u64, attempt: u32, ms: u64) -> Record {
        Record::Failed { batch: batch(tick), attempt, taken: Taken::Unknown, why: "no answer".into(), at: at(ms) }
    }

    fn turned_away(tick: u64, attempt: u32, ms: u64) -> Record {
        Record::Failed { batch: batch(tick), attempt, taken: Taken::Nothing, why: "429".into(), at: at(ms) }
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
        let book = book(vec![sent(0, 1), failed(0, 1, 2000), done(0, Outcome::Unknown, 2, 4000)]).unwrap();
        let sending = book.batches[&batch(0)];
        assert_eq!((sending.outcome(), sending.deliveries()), (Outcome::Unknown, 2));
        assert!(book.acknowledgements().is_empty());
    }

    #[test]
    fn a_batch_whose_first_acknowledgement_was_lost_may_be_stored_twice() {
        let book = book(vec![sent(0, 1), failed(0, 1, 2000), done(0, Outcome::Acked, 2, 2100)]).unwrap();
        let sending = book.batches[&batch(0)];
        assert_eq!((sending.outcome(), sending.deliveries()), (Outcome::Acked, 2));
        assert_eq!(book.acknowledgements(), [2_100_000]);
    }

    #[rstest]
    #[case::acknowledged(vec![turned_away(0, 1, 2), turned_away(0, 2, 3), done(0, Outcome::Acked, 3, 4)], 1)]
    #[case::acknowledged_after_one_without_an_answer(
        vec![turned_away(0, 1, 2), failed(0, 2, 3), done(0, Outcome::Acked, 3, 4)], 2)]
    #[case::given_up(vec![turned_away(0, 1, 2), turned_away(0, 2, 3), done(0, Outcome::Unknown, 2, 4)], 0)]
    #[case::open_when_the_ledger_ends(vec![turned_away(0, 1, 2)], 1)]
    fn an_attempt_that_was_turned_away_stored_nothing(#[case] then: Vec<Record>, #[case] deliveries: u64) {
        let book = book([vec![sent(0, 1)], then].concat()).unwrap();
        assert_eq!(book.batches[&batch(0)].deliveries(), deliveries);
    }

    #[test]
    fn a_batch_that_a_crash_left_open_is_unknown_and_its_running_attempt_counts() {
        let book = book(vec![sent(0, 1), failed(0, 1, 2000), sent(1, 101)]).unwrap();
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

    fn stored(replica: &str, epoch: u64, offsets: &[(&str, i64)], ms: u64) -> Stored {
        let offsets = offsets.iter().map(|(name, offset)| ((*name).to_owned(), *offset)).collect();
        Stored { replica: replica.into(), epoch, offsets, at: at(ms) }
    }

    #[rstest]
    #[case::advance(vec![stored("a", 1, &[("t/0", 5)], 0), stored("a", 1, &[("t/0", 6)], 50)], &[50])]
    #[case::standstill(vec![stored("a", 1, &[("t/0", 5)], 0), stored("a", 1, &[("t/0", 5)], 50)], &[])]
    #[case::one_of_several_partitions(
        vec![stored("a", 1, &[("t/0", 5), ("t/1", 1)], 0), stored("a", 1, &[("t/0", 5), ("t/1", 2)], 50)], &[50])]
    #[case::a_partitions_first_row(vec![stored("a", 1, &[], 0), stored("a", 1, &[("t/0", 1)], 50)], &[50])]
    #[case::the_first_answer_of_a_new_primary_is_no_commit(
        vec![stored("a", 1, &[("t/0", 5)], 0), stored("b", 2, &[("t/0", 9)], 50), stored("b", 2, &[("t/0", 10)], 100)],
        &[100])]
    #[case::a_new_primary_that_catches_up_commits(
        vec![stored("a", 1, &[("t/0", 9)], 0), stored("b", 2, &[("t/0", 3)], 50), stored("b", 2, &[("t/0", 4)], 100)],
        &[100])]
    #[case::a_replaced_primary_that_still_answers_shows_nothing(
        vec![stored("b", 2, &[("t/0", 5)], 0), stored("a", 1, &[("t/0", 5)], 50), stored("a", 1, &[("t/0", 6)], 100),
             stored("b", 2, &[("t/0", 6)], 150)],
        &[150])]
    #[case::the_same_primary_confirmed_under_a_new_epoch(
        vec![stored("a", 1, &[("t/0", 5)], 0), stored("a", 2, &[("t/0", 6)], 50), stored("a", 2, &[("t/0", 7)], 100)],
        &[100])]
    fn commits_are_seen_as_the_definition_says(#[case] observations: Vec<Stored>, #[case] expected_ms: &[u64]) {
        let watched = Watched { observations, ..Watched::default() };
        let expected: Vec<u64> = expected_ms.iter().map(|ms| ms * 1000).collect();
        assert_eq!(watched.commits(), expected);
    }

    #[test]
    fn records_stored_again_are_counted_per_change_of_primary() {
        let observations = vec![
            stored("a", 1, &[("t/0", 9), ("t/1", 4)], 0),
            stored("b", 2, &[("t/0", 3), ("t/1", 4)], 50),
            stored("a", 1, &[("t/0", 1)], 60),
            stored("b", 2, &[("t/0", 9), ("t/1", 6)], 100),
            stored("c", 3, &[("t/0", 8), ("t/1", 7)], 150),
        ];
        assert_eq!(Watched { observations, ..Watched::default() }.replayed(), 6 + 1);
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
