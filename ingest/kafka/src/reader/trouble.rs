//! What brokers complain about, as one thing while it goes on. Pure: the caller tells the time.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// After so long without a complaint the next one is of another run. librdkafka itself may keep the same complaint back for 30 s.
const OVER: Duration = Duration::from_secs(60);
/// For so long a run keeps the words it has: several brokers complain in turn, each in its own.
const REWORD: Duration = Duration::from_secs(30);

/// A run of complaints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// One of them.
    pub what: String,
    /// When it was made.
    worded: Instant,
    /// When the first one came.
    pub since: Instant,
    /// The same by the clock on the wall.
    pub since_time: SystemTime,
    /// When the last one came.
    pub last: Instant,
}

impl Trouble {
    /// One more complaint.
    pub fn add(trouble: &mut Option<Self>, what: String, now: Instant, time: SystemTime) {
        match trouble.as_mut().filter(|trouble| trouble.is_going_on(now)) {
            Some(trouble) => {
                trouble.last = now;
                if now.saturating_duration_since(trouble.worded) >= REWORD {
                    (trouble.what, trouble.worded) = (what, now);
                }
            }
            None => *trouble = Some(Self { what, worded: now, since: now, since_time: time, last: now }),
        }
    }

    /// Whether more of it is to be expected.
    pub fn is_going_on(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) < OVER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_that_follow_each_other_are_one_trouble() {
        let (start, time) = (Instant::now(), SystemTime::UNIX_EPOCH);
        let mut trouble = None;
        for (case, after, what, since, words) in [
            ("the first", 0, "refused", 0, "refused"),
            ("another soon after", 5, "down", 0, "refused"),
            ("another after a while", 31, "down", 0, "down"),
            ("one that was kept back", 80, "down", 0, "down"),
            ("the first of another run", 140, "timed out", 140, "timed out"),
        ] {
            let at = |seconds| start + Duration::from_secs(seconds);
            Trouble::add(&mut trouble, what.to_owned(), at(after), time + Duration::from_secs(after));
            let found = trouble.as_ref().unwrap();
            assert_eq!((found.what.as_str(), found.since, found.last), (words, at(since), at(after)), "{case}");
            assert_eq!(found.since_time, time + Duration::from_secs(since), "{case}");
        }
    }
}
