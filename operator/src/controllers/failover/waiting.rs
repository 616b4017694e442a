//! What records are still to be told. Pure: the clock is an argument.
//!
//! A record waits once, however often something is said of it: what is said of one phase is joined to what was said of that phase
//! before. So nothing is lost when many shards change at once, and no more waits than there are records.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use kube::ResourceExt;
use tokio::time::Instant;
use understudy_decide::failover::record::{Phase, RecordUpdate};

use super::{Job, Measured};

/// A record, by its namespace and name.
pub type Key = (String, String);

/// The records that wait, in the order of their turns.
#[derive(Default)]
pub struct Waiting {
    records: HashMap<Key, Told>,
    turns: VecDeque<Key>,
}

/// What one record is to be told.
#[derive(Default)]
struct Told {
    /// One for each phase of each epoch, in the order in which they were first spoken of.
    jobs: Vec<Job>,
    /// Until then it is not written again.
    not_before: Option<Instant>,
}

/// Whose turn it is.
pub enum Turn {
    /// That of this record, with all that it is to be told.
    Of(Key, Vec<Job>),
    /// Nobody's until then, or until something is said.
    Wait(Option<Instant>),
}

impl Waiting {
    /// Something is to be told.
    pub fn note(&mut self, job: Job) {
        let key = (job.shard.namespace().unwrap_or_default(), job.update.name.clone());
        let told = match self.records.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                self.turns.push_back(new.key().clone());
                new.insert(Told::default())
            }
        };
        told.add(job);
    }

    /// Takes out the record whose turn it is.
    pub fn take(&mut self, now: Instant) -> Turn {
        let is_due = |key: &Key| {
            let told = self.records.get(key);
            told.is_none_or(|told| told.not_before.is_none_or(|not_before| not_before <= now))
        };
        let turn = self.turns.iter().position(is_due);
        match turn.and_then(|turn| self.turns.remove(turn)) {
            Some(key) => {
                let told = self.records.remove(&key).unwrap_or_default();
                Turn::Of(key, told.jobs)
            }
            None => Turn::Wait(self.records.values().filter_map(|told| told.not_before).min()),
        }
    }

    /// Puts one back that could not be written; what was said of it meanwhile comes after it.
    pub fn put_back(&mut self, key: Key, jobs: Vec<Job>, not_before: Instant) {
        let mut told = Told { jobs, not_before: Some(not_before) };
        match self.records.remove(&key) {
            Some(since) => since.jobs.into_iter().for_each(|job| told.add(job)),
            None => self.turns.push_back(key.clone()),
        }
        self.records.insert(key, told);
    }
}

impl Told {
    fn add(&mut self, job: Job) {
        // A Shard that was made again has records of its own, under the same names.
        if self.jobs.iter().any(|known| known.shard.metadata.uid != job.shard.metadata.uid) {
            self.jobs.clear();
        }
        // To a record that is closed nothing but measurements is added.
        if let Some(closed) = self.jobs.iter_mut().find(|known| known.update.phase == Phase::Closed) {
            return closed.measured.complete(job.measured);
        }
        let phase = (job.update.epoch, job.update.phase);
        match self.jobs.iter_mut().find(|known| (known.update.epoch, known.update.phase) == phase) {
            Some(known) => join(known, job),
            None => self.jobs.push(job),
        }
    }
}

impl Measured {
    fn complete(&mut self, later: Self) {
        self.write_gap = self.write_gap.or(later.write_gap);
        self.rebuild = self.rebuild.take().or(later.rebuild);
        self.stacks = self.stacks.take().or(later.stacks);
    }
}

/// Adds what was said later of the same phase, so that the record says the same as if it were told one after the other.
fn join(known: &mut Job, later: Job) {
    let Job { shard, update, at, measured } = later;
    let RecordUpdate { from, to, cause, message, result, entries, grounds, offsets_after, .. } = update;
    let passed = u64::try_from(at.as_millisecond().saturating_sub(known.at.as_millisecond())).unwrap_or(0);
    (known.shard, known.at) = (shard, at);
    known.measured.complete(measured);
    let so_far = &mut known.update;
    for entry in &mut so_far.entries {
        entry.ago = entry.ago.saturating_add(passed);
    }
    for entry in entries {
        if !so_far.entries.iter().any(|there| (there.step, there.epoch) == (entry.step, entry.epoch)) {
            so_far.entries.push(entry);
        }
    }
    so_far.from = so_far.from.take().or(from);
    so_far.cause = so_far.cause.take().or(cause);
    so_far.message = so_far.message.take().or(message);
    so_far.result = so_far.result.or(result);
    so_far.to = to.or(so_far.to.take());
    so_far.grounds = so_far.grounds.take().or(grounds);
    so_far.offsets_after = offsets_after.or(so_far.offsets_after.take());
}
