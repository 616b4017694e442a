//! Watches this very process: a process that was stopped or starved must not take its own blindness for a fault of
//! others. Pure but for [`record_pauses`].

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::ledger::Record;
use crate::ledger::writer::{Ledger, LedgerError};

/// Time between two beats.
const BEAT: Duration = Duration::from_millis(20);
/// From this time between two beats on, the process counts as paused in between.
pub const PAUSED_AFTER: Duration = Duration::from_millis(150);

/// The beats so far.
#[derive(Debug)]
struct Pulse {
    last: Instant,
}

impl Pulse {
    /// A beat: the stretch without one before it, if that was too long.
    fn beat(&mut self, now: Instant) -> Option<Instant> {
        let before = std::mem::replace(&mut self.last, now);
        (now.saturating_duration_since(before) >= PAUSED_AFTER).then_some(before)
    }
}

/// Records each pause of this process until cancelled.
pub async fn record_pauses(ledger: Ledger, cancel: CancellationToken) -> Result<(), LedgerError> {
    let mut pulse = Pulse { last: Instant::now() };
    while !cancel.is_cancelled() {
        sleep(BEAT).await;
        if let Some(from) = pulse.beat(Instant::now()) {
            ledger.record(Record::Pause { from: ledger.clock.past(from), at: ledger.clock.now() })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_the_time_between_two_beats_that_are_too_far_apart() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pulse = Pulse { last: start };
        for (name, beat, expected) in [
            ("in time", 20, None),
            ("a little late", 100, None),
            ("stopped", 2100, Some(at(100))),
            ("running again", 2120, None),
        ] {
            assert_eq!(pulse.beat(at(beat)), expected, "{name}");
        }
    }
}
