//! One batch, from its first byte to its last answer. Pure.

use super::{Outcome, Stamp, Taken};

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
    /// About to be sent for the first time.
    pub fn begun(samples: u64, sent: Stamp) -> Self {
        Self { sent, samples, failed: 0, done: None, attempts: 0, turned_away: 0 }
    }

    /// An attempt failed.
    pub fn fail(&mut self, taken: Taken) {
        self.failed += 1;
        self.turned_away += u32::from(taken == Taken::Nothing);
    }

    /// It needs no further attempt; whether that is news.
    pub fn end(&mut self, outcome: Outcome, attempts: u32, at: Stamp) -> bool {
        self.attempts = attempts;
        self.done.replace((outcome, at)).is_none()
    }

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

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const AT: Stamp = Stamp(1000, 1_700_000_000_001);

    #[rstest]
    #[case::acknowledged(&[Taken::Nothing, Taken::Nothing], Some((Outcome::Acked, 3)), 1)]
    #[case::acknowledged_after_one_without_an_answer(&[Taken::Nothing, Taken::Unknown], Some((Outcome::Acked, 3)), 2)]
    #[case::given_up(&[Taken::Nothing, Taken::Nothing], Some((Outcome::Unknown, 2)), 0)]
    #[case::open_when_the_ledger_ends(&[Taken::Nothing], None, 1)]
    fn an_attempt_that_was_turned_away_stored_nothing(
        #[case] failures: &[Taken],
        #[case] end: Option<(Outcome, u32)>,
        #[case] deliveries: u64,
    ) {
        let mut sending = Sending::begun(8, AT);
        failures.iter().for_each(|taken| sending.fail(*taken));
        if let Some((outcome, attempts)) = end {
            assert!(sending.end(outcome, attempts, AT));
            assert!(!sending.end(outcome, attempts, AT), "it ended before");
        }
        assert_eq!(sending.deliveries(), deliveries);
    }
}
