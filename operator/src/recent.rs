//! When something was last looked at that is not watched. Pure, but for the clock and the lock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// When something was last looked at, for what is looked at now and then only.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    looked: Arc<Mutex<HashMap<String, Instant>>>,
}

impl Recent {
    /// Whether it was not looked at within this time. The name should change with whatever makes an earlier look void.
    pub fn is_due(&self, what: &str, every: Duration) -> bool {
        let looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        looked.get(what).is_none_or(|at| at.elapsed() >= every)
    }

    /// Notes that it was looked at now.
    pub fn looked(&self, what: String) {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        looked.retain(|_, at| at.elapsed() < Duration::from_secs(24 * 3600));
        looked.insert(what, Instant::now());
    }
}
