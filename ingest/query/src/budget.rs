//! The memory that the samples of all requests together may take. Pure but for the semaphore.
//!
//! Nothing waits for memory: a request that does not get it is told to come back, because waiting requests would hold
//! what others need.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes per permit: a semaphore may count no further than 2^29.
const UNIT: usize = 4096;
/// What a sample takes at its worst: while it is sorted, merged, encoded and packed.
const SAMPLE_BYTES: usize = 112;

/// How many samples a budget of so many bytes can ever hold.
pub fn samples_within(bytes: usize) -> usize {
    bytes / UNIT * UNIT / SAMPLE_BYTES
}

/// What is left for requests. Clones share it.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Semaphore>);

/// Memory set aside for one part of a request; given back when dropped.
#[derive(Debug)]
pub struct Held {
    budget: Budget,
    permit: Option<OwnedSemaphorePermit>,
}

/// Other requests hold the memory that this one needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("other queries use all the memory for samples")]
pub struct Exhausted;

impl Budget {
    /// A budget of so many bytes.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new((bytes / UNIT).min(Semaphore::MAX_PERMITS))))
    }

    /// Nothing held, to grow.
    pub fn hold_nothing(&self) -> Held {
        Held { budget: self.clone(), permit: None }
    }
}

impl Held {
    /// Sets aside what `samples` samples take in all; what was set aside before counts.
    pub fn grow_to(&mut self, samples: usize) -> Result<(), Exhausted> {
        let wanted = samples.saturating_mul(SAMPLE_BYTES).div_ceil(UNIT);
        let held = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let Some(more) = wanted.checked_sub(held).filter(|more| *more > 0) else { return Ok(()) };
        let more = u32::try_from(more).map_err(|_| Exhausted)?;
        let permit = Arc::clone(&self.budget.0).try_acquire_many_owned(more).map_err(|_| Exhausted)?;
        match &mut self.permit {
            None => self.permit = Some(permit),
            Some(held) => held.merge(permit),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_budget_can_ever_hold_it_holds_when_nobody_else_does() {
        for bytes in [0, 1 << 20, (1 << 20) + 4095, 512 << 20] {
            let most = samples_within(bytes);
            assert_eq!(Budget::new(bytes).hold_nothing().grow_to(most), Ok(()), "{bytes}");
            assert_eq!(Budget::new(bytes).hold_nothing().grow_to(most + UNIT), Err(Exhausted), "{bytes}");
        }
    }

    #[test]
    fn what_is_dropped_can_be_held_again_and_what_is_held_cannot() {
        let budget = Budget::new(1 << 20);
        let mut first = budget.hold_nothing();
        first.grow_to(5000).unwrap();
        first.grow_to(6000).unwrap();
        first.grow_to(100).unwrap();
        let mut second = budget.hold_nothing();
        assert_eq!(second.grow_to(6000), Err(Exhausted));
        second.grow_to(3000).unwrap();
        drop(first);
        second.grow_to(9000).unwrap();
        assert_eq!(second.grow_to(usize::MAX), Err(Exhausted));
    }
}
