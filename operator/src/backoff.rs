//! How long to wait before an object that failed is tried again. Pure, but for the jitter.
//!
//! Failures are counted per object and forgotten at the first success; being asked again because something else changed
//! is not a failure.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const MOST: Duration = Duration::from_secs(60);

/// Failures in a row, per object.
#[derive(Debug)]
pub struct Backoff<K> {
    failures: Mutex<HashMap<K, u32>>,
}

impl<K> Default for Backoff<K> {
    fn default() -> Self {
        Self { failures: Mutex::new(HashMap::new()) }
    }
}

impl<K: Eq + Hash> Backoff<K> {
    /// Counts a failure and says how long to wait: doubling from half a second to a minute, between half of it and all.
    pub fn failed(&self, key: K) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(key).or_insert(0);
        *count = count.saturating_add(1);
        let whole = FIRST.saturating_mul(1 << (*count - 1).min(16)).min(MOST);
        whole / 2 + whole.mul_f64(random()) / 2
    }

    /// Forgets the failures of an object.
    pub fn succeeded(&self, key: &K) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

/// Between 0 and 1.
fn random() -> f64 {
    let random = RandomState::new().build_hasher().finish() % 10_000;
    f64::from(u32::try_from(random).unwrap_or(0)) / 10_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_minute_and_begin_again_after_a_success() {
        let backoff = Backoff::default();
        for most in [500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000] {
            let wait = backoff.failed("a");
            let most = Duration::from_millis(most);
            assert!(wait >= most / 2 && wait <= most, "{wait:?} of {most:?}");
        }
        assert!(backoff.failed("b") <= FIRST);
        backoff.succeeded(&"a");
        assert!(backoff.failed("a") <= FIRST);
    }
}
