//! For how long mysqld has been seen stopped. Pure: the clock is an argument.

use std::time::{Duration, Instant};

/// Between two readings that are further apart the reader was paused itself, and mysqld may have run.
const BREAK: Duration = Duration::from_millis(500);

/// Readings in a row that found it stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    first: Instant,
    latest: Instant,
}

impl Stopped {
    /// The readings before with one more: the letter of the process (T and t are stopped), or that there is none.
    pub fn and(before: Option<Self>, state: Option<char>, now: Instant) -> Option<Self> {
        if !matches!(state, Some('T' | 't')) {
            return None;
        }
        let unbroken = before.filter(|run| now.saturating_duration_since(run.latest) <= BREAK);
        Some(Self { first: unbroken.map_or(now, |run| run.first), latest: now })
    }

    /// From the first reading to the latest. What has been since is not known.
    pub fn lasted(self) -> Duration {
        self.latest.saturating_duration_since(self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_lasts_from_the_first_reading_that_saw_it_to_the_latest() {
        type Case = (&'static str, &'static [(u64, Option<char>)], Option<u64>);
        let cases: &[Case] = &[
            ("never", &[(0, Some('S')), (125, Some('R'))], None),
            ("seen once", &[(0, Some('S')), (125, Some('T'))], Some(0)),
            ("seen three times", &[(0, Some('T')), (125, Some('T')), (250, Some('T'))], Some(250)),
            ("by a debugger", &[(0, Some('t')), (125, Some('T'))], Some(125)),
            ("over", &[(0, Some('T')), (125, Some('S'))], None),
            ("it ran between", &[(0, Some('T')), (125, Some('S')), (250, Some('T'))], Some(0)),
            ("it ended", &[(0, Some('T')), (125, None)], None),
            ("a late reading", &[(0, Some('T')), (500, Some('T'))], Some(500)),
            ("a reader that was paused", &[(0, Some('T')), (501, Some('T')), (626, Some('T'))], Some(125)),
        ];
        let start = Instant::now();
        for (case, readings, expected) in cases {
            let read = |run: Option<Stopped>, (at, state): &(u64, Option<char>)| {
                Stopped::and(run, *state, start + Duration::from_millis(*at))
            };
            let seen = readings.iter().fold(None, read);
            assert_eq!(seen.map(Stopped::lasted), expected.map(Duration::from_millis), "{case}");
        }
    }
}
