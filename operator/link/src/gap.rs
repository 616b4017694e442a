//! An observer's measure of its own pauses. Pure: the clock is an argument.
//!
//! A process that was stopped, or starved of processor time, sees everybody else as silent. It must say so
//! ([`Report::own_gap`](understudy_wire::Report)) so that nobody is accused on its word.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How far back gaps are remembered.
pub const WINDOW: Duration = Duration::from_secs(5);

/// Times between the turns of one loop over the last [`WINDOW`].
#[derive(Debug)]
pub struct LoopGap {
    last: Instant,
    /// End and length of each gap; only those that are longer than every later one are kept, so the front is the longest.
    gaps: VecDeque<(Instant, Duration)>,
}

impl LoopGap {
    /// Starts measuring now.
    pub fn new(now: Instant) -> Self {
        Self { last: now, gaps: VecDeque::new() }
    }

    /// To be called once in each turn of the loop.
    pub fn tick(&mut self, now: Instant) {
        let gap = now.saturating_duration_since(self.last);
        self.last = now;
        while self.gaps.back().is_some_and(|(_, shorter)| *shorter <= gap) {
            self.gaps.pop_back();
        }
        self.gaps.push_back((now, gap));
        self.forget(now);
    }

    /// The longest gap that ended within the window, or the one that is still open.
    pub fn worst(&mut self, now: Instant) -> Duration {
        self.forget(now);
        let open = now.saturating_duration_since(self.last);
        self.gaps.front().map_or(open, |(_, longest)| open.max(*longest))
    }

    fn forget(&mut self, now: Instant) {
        while self.gaps.front().is_some_and(|(end, _)| now.saturating_duration_since(*end) > WINDOW) {
            self.gaps.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_longest_gap_is_told_until_it_leaves_the_window() {
        let start = Instant::now();
        let mut gap = LoopGap::new(start);
        for (at, worst) in [(250, 250), (1250, 1000), (1500, 1000), (1700, 1000), (6200, 4500), (6300, 4500)] {
            gap.tick(start + ms(at));
            assert_eq!(gap.worst(start + ms(at)), ms(worst), "at {at}");
        }
        for at in (6500..11400).step_by(200) {
            gap.tick(start + ms(at));
        }
        assert_eq!(gap.worst(start + ms(11300)), ms(200));
    }

    #[test]
    fn a_gap_that_is_still_open_counts() {
        let start = Instant::now();
        let mut gap = LoopGap::new(start);
        gap.tick(start + ms(250));
        assert_eq!(gap.worst(start + ms(3250)), ms(3000));
    }
}
