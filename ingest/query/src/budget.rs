//! The memory that patterns, series and samples of all requests together may take, and answers until they are sent. Pure
//! but for the semaphore.
//!
//! Nothing waits for memory: a request that does not get it is told to come back, because waiting requests would hold
//! what others need.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use understudy_model::Labels;

/// Bytes per permit: a semaphore may count no further than 2^29.
const UNIT: usize = 4096;
/// What a sample takes at its worst: while it is sorted, merged, encoded and packed.
const SAMPLE_BYTES: usize = 112;
/// What a series takes beside its labels and samples: its ids as they are looked up, and its places among what was
/// found, what was merged and what is encoded.
const SERIES_BYTES: usize = 256;
/// What a text takes beside its bytes: its place among those found, and a string of its own in what is encoded.
const TEXT_BYTES: usize = 64;
/// How often the bytes of a text are there at once: as found, in what is encoded, and in the answer.
const COPIES: usize = 3;

/// How many samples a budget of so many bytes can ever hold.
pub fn samples_within(bytes: usize) -> usize {
    bytes / UNIT * UNIT / SAMPLE_BYTES
}

/// What one part of a request keeps in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Samples.
    pub samples: usize,
    /// Series, whose labels count as texts.
    pub series: usize,
    /// Names and values of labels.
    pub texts: usize,
    /// Bytes of all texts.
    pub text_bytes: usize,
}

impl Load {
    /// One series more.
    pub fn add_series(&mut self, labels: &Labels) {
        self.series += 1;
        self.texts += 2 * labels.len();
        self.text_bytes += labels.text_bytes();
    }

    /// One text more.
    pub fn add_text(&mut self, bytes: usize) {
        self.texts += 1;
        self.text_bytes += bytes;
    }

    /// What all of it takes.
    pub fn bytes(&self) -> usize {
        let parts = [
            (self.samples, SAMPLE_BYTES),
            (self.series, SERIES_BYTES),
            (self.texts, TEXT_BYTES),
            (self.text_bytes, COPIES),
        ];
        parts.iter().fold(0_usize, |sum, (count, each)| sum.saturating_add(count.saturating_mul(*each)))
    }
}

/// What is left for requests. Clones share it.
#[derive(Clone, Debug)]
pub struct Budget {
    left: Arc<Semaphore>,
    units: usize,
}

/// Memory set aside for one part of a request; given back when dropped.
#[derive(Debug)]
pub struct Held {
    budget: Budget,
    /// Units that all parts of the request hold.
    in_all: Arc<AtomicUsize>,
    permit: Option<OwnedSemaphorePermit>,
}

/// Why memory is not set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// Other requests hold the memory that this one needs.
    #[error("other queries use all the memory")]
    Now,
    /// The request needs more than there is for all of them.
    #[error("the query needs more than the {0} bytes of memory that there are")]
    Ever(usize),
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT).min(Semaphore::MAX_PERMITS);
        Self { left: Arc::new(Semaphore::new(units)), units }
    }

    /// Nothing held by a request, to grow.
    pub fn hold_nothing(&self) -> Held {
        Held { budget: self.clone(), in_all: Arc::default(), permit: None }
    }

    /// So many units more for a request that holds so many.
    fn take(&self, held: usize, more: usize) -> Result<OwnedSemaphorePermit, Exhausted> {
        let fits = held.saturating_add(more) <= self.units;
        let more = u32::try_from(more).ok().filter(|_| fits).ok_or(Exhausted::Ever(self.units.saturating_mul(UNIT)))?;
        Arc::clone(&self.left).try_acquire_many_owned(more).map_err(|_| Exhausted::Now)
    }
}

impl Held {
    /// Nothing held by another part of the same request, to grow.
    pub fn part(&self) -> Self {
        Self { budget: self.budget.clone(), in_all: Arc::clone(&self.in_all), permit: None }
    }

    /// Sets aside so many bytes in all; what was set aside before counts.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), Exhausted> {
        let wanted = bytes.div_ceil(UNIT);
        let Some(more) = wanted.checked_sub(self.units()).filter(|more| *more > 0) else { return Ok(()) };
        let permit = self.budget.take(self.in_all.load(Ordering::Relaxed), more)?;
        self.in_all.fetch_add(more, Ordering::Relaxed);
        self.add(permit);
        Ok(())
    }

    /// Takes over what another part of the same request holds.
    pub fn absorb(&mut self, mut part: Held) {
        debug_assert!(Arc::ptr_eq(&self.in_all, &part.in_all), "a part of another request");
        if let Some(permit) = part.permit.take() {
            self.add(permit);
        }
    }

    /// Gives back what goes beyond so many bytes.
    pub fn cut_to(&mut self, bytes: usize) {
        let spare = self.units().saturating_sub(bytes.div_ceil(UNIT));
        if let Some(given_back) = self.permit.as_mut().and_then(|permit| permit.split(spare)) {
            self.in_all.fetch_sub(spare, Ordering::Relaxed);
            drop(given_back);
        }
    }

    fn add(&mut self, permit: OwnedSemaphorePermit) {
        match &mut self.permit {
            None => self.permit = Some(permit),
            Some(held) => held.merge(permit),
        }
    }

    fn units(&self) -> usize {
        self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.in_all.fetch_sub(self.units(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn samples(samples: usize) -> usize {
        Load { samples, ..Load::default() }.bytes()
    }

    #[test]
    fn what_a_budget_can_ever_hold_it_holds_when_nobody_else_does() {
        for bytes in [0, MIB, MIB + 4095, 512 * MIB] {
            let most = samples_within(bytes);
            assert_eq!(Budget::new(bytes).hold_nothing().grow_to(samples(most)), Ok(()), "{bytes}");
            let refused = Budget::new(bytes).hold_nothing().grow_to(samples(most + UNIT));
            assert_eq!(refused, Err(Exhausted::Ever(bytes / UNIT * UNIT)), "{bytes}");
        }
    }

    #[test]
    fn what_is_dropped_can_be_held_again_and_what_is_held_cannot() {
        let budget = Budget::new(MIB);
        let mut first = budget.hold_nothing();
        first.grow_to(MIB / 2).unwrap();
        first.grow_to(MIB / 8 * 5).unwrap();
        first.grow_to(100).unwrap();
        let mut second = budget.hold_nothing();
        assert_eq!(second.grow_to(MIB / 8 * 5), Err(Exhausted::Now));
        second.grow_to(MIB / 8 * 3).unwrap();
        drop(first);
        second.grow_to(MIB).unwrap();
        assert_eq!(second.grow_to(usize::MAX), Err(Exhausted::Ever(MIB)));
    }

    #[test]
    fn parts_of_a_request_that_do_not_fit_alone_are_told_so_and_others_to_come_again() {
        let budget = Budget::new(MIB);
        let mut patterns = budget.hold_nothing();
        patterns.grow_to(MIB / 2).unwrap();
        let mut shard = patterns.part();
        assert_eq!(shard.grow_to(MIB / 4 * 3), Err(Exhausted::Ever(MIB)));
        shard.grow_to(MIB / 2).unwrap();
        assert_eq!(budget.hold_nothing().grow_to(MIB / 2), Err(Exhausted::Now));
        drop(shard);
        assert_eq!(patterns.part().grow_to(MIB / 2), Ok(()), "a part that has ended no longer counts");
    }

    #[test]
    fn parts_of_a_request_become_one_that_holds_what_is_still_needed() {
        let budget = Budget::new(MIB);
        let patterns = budget.hold_nothing();
        let (mut answer, mut other, empty) = (patterns.part(), patterns.part(), patterns.part());
        answer.grow_to(MIB / 2).unwrap();
        other.grow_to(MIB / 4).unwrap();
        answer.absorb(other);
        answer.absorb(empty);
        let left = |bytes: usize| budget.hold_nothing().grow_to(bytes);
        assert_eq!((left(MIB / 4), left(MIB / 4 + 1)), (Ok(()), Err(Exhausted::Now)), "nothing is given back yet");
        for (case, kept) in [("more than it holds", MIB), ("what it holds", MIB / 4 * 3), ("less", MIB / 8 - 10)] {
            answer.cut_to(kept);
            let rest = MIB - kept.min(MIB / 4 * 3).next_multiple_of(UNIT);
            assert_eq!((left(rest), left(rest + 1)), (Ok(()), Err(Exhausted::Now)), "{case}");
        }
        assert_eq!(patterns.part().grow_to(MIB / 8 * 7), Ok(()), "what is given back no longer counts for the request");
        drop(answer);
        assert_eq!(left(MIB), Ok(()));
    }

    #[test]
    fn a_series_takes_memory_by_its_labels_whether_it_has_samples_or_not() {
        let long = "x".repeat(1000);
        let labels = Labels::from_pairs([("__name__", "up"), ("job", long.as_str())]).unwrap();
        let mut load = Load::default();
        load.add_series(&labels);
        let bytes = SERIES_BYTES + 4 * TEXT_BYTES + COPIES * ("__name__upjob".len() + 1000);
        assert_eq!(load.bytes(), bytes);
        load.add_text(10);
        load.samples = 3;
        assert_eq!(load.bytes(), bytes + TEXT_BYTES + COPIES * 10 + 3 * SAMPLE_BYTES);
        assert_eq!(Load { samples: usize::MAX, series: 1, ..Load::default() }.bytes(), usize::MAX);
    }
}
