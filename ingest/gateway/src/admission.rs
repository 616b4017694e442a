//! The memory that requests may hold together. Pure but for the semaphore.
//!
//! Every request reserves before it allocates: the compressed body as it arrives, then what it declares to become,
//! then what its series will take. Nothing waits for memory: a request that does not get it is told to come back
//! later, because waiting requests would hold what others need.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes per permit: a semaphore counts to 2^29 at least, which would be too few for bytes.
const UNIT: usize = 1024;

/// What is left for requests. Clones share it.
#[derive(Debug, Clone)]
pub struct Budget {
    semaphore: Arc<Semaphore>,
    units: usize,
}

/// Memory set aside for one request; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Budget,
    permit: Option<OwnedSemaphorePermit>,
}

/// Other requests hold the memory that this one needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the memory for requests is used up")]
pub struct Exhausted;

impl Budget {
    /// A budget of so many bytes.
    pub fn new(bytes: usize) -> Self {
        let units = bytes.div_ceil(UNIT).min(Semaphore::MAX_PERMITS);
        Self { semaphore: Arc::new(Semaphore::new(units)), units }
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
    pub fn grow(&mut self, bytes: usize) -> Result<(), Exhausted> {
        if bytes == 0 {
            return Ok(());
        }
        let units = u32::try_from(bytes.div_ceil(UNIT)).map_err(|_| Exhausted)?;
        let more = self.budget.semaphore.clone().try_acquire_many_owned(units).map_err(|_| Exhausted)?;
        match &mut self.permit {
            None => self.permit = Some(more),
            Some(permit) => permit.merge(more),
        }
        Ok(())
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
        assert_eq!(second.grow(4 * UNIT), Err(Exhausted));
        assert_eq!(second.bytes(), 0);
        drop(first);
        second.grow(10 * UNIT).unwrap();
        assert_eq!(budget.used_bytes(), 10 * UNIT);
    }

    #[test]
    fn more_than_there_ever_is_is_refused_and_not_waited_for() {
        let budget = Budget::new(10 * UNIT);
        assert_eq!(budget.reserve_nothing().grow(usize::MAX), Err(Exhausted));
        assert_eq!(budget.reserve_nothing().grow(11 * UNIT), Err(Exhausted));
    }
}
