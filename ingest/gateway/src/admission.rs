//! The memory that requests may hold together. Pure but for the semaphore.
//!
//! Every request reserves before it allocates: the compressed body as it arrives, then what it declares to become,
//! then what its series will take; while it waits for Kafka it keeps only what its records take. Nothing waits for
//! memory: a request that does not get it is told to come back later, because waiting requests would hold what others
//! need. Only the turn to be decoded is waited for, with the compressed body in hand: decoding takes far more memory
//! than waiting and more of it at once than there are processors is not faster.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes per permit: a semaphore counts to 2^29 at least, which would be too few for bytes.
const UNIT: usize = 1024;

/// What is left for requests. Clones share it.
#[derive(Debug, Clone)]
pub struct Budget {
    semaphore: Arc<Semaphore>,
    units: usize,
    turns: Arc<Semaphore>,
}

/// Memory set aside for one request; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Budget,
    permit: Option<OwnedSemaphorePermit>,
}

/// Why memory is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Other requests hold what this one needs: it may come again.
    #[error("the memory for requests is used up")]
    Now,
    /// It needs more than there is for all: coming again would not help.
    #[error("the request needs {needed} bytes of memory, there are {most} for all requests")]
    Ever {
        /// What it would hold in all.
        needed: usize,
        /// What there is.
        most: usize,
    },
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(bytes: usize) -> Self {
        let units = bytes.div_ceil(UNIT).min(Semaphore::MAX_PERMITS);
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let turns = Arc::new(Semaphore::new(processors.max(2) * 2));
        Self { semaphore: Arc::new(Semaphore::new(units)), units, turns }
    }

    /// Waits for a turn to decode.
    pub async fn turn(&self, within: Duration) -> Result<OwnedSemaphorePermit, Denied> {
        match tokio::time::timeout(within, self.turns.clone().acquire_owned()).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(Denied::Now),
        }
    }

    /// A reservation of nothing, to grow.
    pub fn reserve_nothing(&self) -> Reservation {
        Reservation { budget: self.clone(), permit: None }
    }

    /// Bytes that are reserved now.
    pub fn used_bytes(&self) -> usize {
        (self.units - self.semaphore.available_permits().min(self.units)) * UNIT
    }
}

impl Reservation {
    /// Sets `bytes` more aside, at once or not at all.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Denied> {
        if bytes == 0 {
            return Ok(());
        }
        let units = bytes.div_ceil(UNIT);
        let held = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let ever = Denied::Ever { needed: bytes.saturating_add(held * UNIT), most: self.budget.units * UNIT };
        if units > self.budget.units - held {
            return Err(ever);
        }
        let units = u32::try_from(units).map_err(|_| ever)?;
        let more = self.budget.semaphore.clone().try_acquire_many_owned(units).map_err(|_| Denied::Now)?;
        match &mut self.permit {
            None => self.permit = Some(more),
            Some(permit) => permit.merge(more),
        }
        Ok(())
    }

    /// Gives back what is above `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let units = bytes.div_ceil(UNIT);
        if let Some(permit) = &mut self.permit {
            drop(permit.split(permit.num_permits().saturating_sub(units)));
        }
    }

    /// Bytes set aside by now.
    pub fn bytes(&self) -> usize {
        self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits) * UNIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_can_be_reserved_again_and_what_is_held_cannot() {
        let budget = Budget::new(10 * UNIT);
        let mut first = budget.reserve_nothing();
        first.grow(6 * UNIT).unwrap();
        first.grow(1).unwrap();
        assert_eq!((first.bytes(), budget.used_bytes()), (7 * UNIT, 7 * UNIT));
        let mut second = budget.reserve_nothing();
        assert_eq!(second.grow(4 * UNIT), Err(Denied::Now));
        assert_eq!(second.bytes(), 0);
        first.shrink_to(UNIT + 1);
        assert_eq!((first.bytes(), budget.used_bytes()), (2 * UNIT, 2 * UNIT));
        second.grow(4 * UNIT).unwrap();
        drop(first);
        second.grow(6 * UNIT).unwrap();
        assert_eq!(budget.used_bytes(), 10 * UNIT);
        second.shrink_to(usize::MAX);
        assert_eq!(budget.used_bytes(), 10 * UNIT);
    }

    #[test]
    fn more_than_there_ever_is_is_told_apart_from_what_is_used_up() {
        let budget = Budget::new(10 * UNIT);
        let most = 10 * UNIT;
        assert_eq!(budget.reserve_nothing().grow(usize::MAX), Err(Denied::Ever { needed: usize::MAX, most }));
        let mut held = budget.reserve_nothing();
        held.grow(4 * UNIT).unwrap();
        assert_eq!(held.grow(7 * UNIT), Err(Denied::Ever { needed: 11 * UNIT, most }));
        held.grow(6 * UNIT).unwrap();
    }
}
