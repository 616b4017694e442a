//! How long a consumer took from a route to what it stored under it, stage by stage. Pure: the clock is an argument.
//!
//! It is the end of a change of primary that only the consumer sees. The operator's record has what comes before it.

use std::time::Duration;

use tokio::time::Instant;

use crate::guard::OwnerRow;

/// What a consumer comes to after it heard of a route, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Milestone {
    /// There is a connection to the primary.
    Connected,
    /// The rows there say that this process may write.
    Owner,
    /// The stored offsets are read, and the log is told where to read.
    Positioned,
    /// The first transaction is committed, be it one with nothing in it.
    Committed,
    /// The first transaction with records is committed.
    Stored,
}

impl Milestone {
    /// A word from a closed set: it labels metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Owner => "owner",
            Self::Positioned => "positioned",
            Self::Committed => "committed",
            Self::Stored => "stored",
        }
    }
}

/// One way from a route to the first records that are stored under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Takeover {
    heard: Instant,
    ahead: bool,
    /// The row of another process, as it was seen last.
    other: Option<OwnerRow>,
    /// Another process has stored under the route.
    is_late: bool,
    reached: Vec<(Milestone, Duration)>,
}

impl Takeover {
    /// The route was heard of.
    pub fn new(heard: Instant) -> Self {
        Self { heard, ahead: false, other: None, is_late: false, reached: Vec::new() }
    }

    /// The connection had been made before the route was heard of.
    pub fn was_ahead(&mut self) {
        self.ahead = true;
    }

    /// The row of another process that owns the data on this primary. Once it changes, that process has stored under the route, and ended the
    /// change of primary: what this one comes to after that, hours later perhaps, is not timed.
    pub fn sees(&mut self, other: &OwnerRow) {
        if self.other.replace(other.clone()).is_some_and(|before| before != *other) {
            self.is_late = true;
            self.reached.clear();
        }
    }

    /// Something is reached. Whether it is for the first time, and part of the change of primary.
    pub fn reach(&mut self, milestone: Milestone, now: Instant) -> bool {
        if self.is_late || self.after(milestone).is_some() {
            return false;
        }
        self.reached.push((milestone, now.saturating_duration_since(self.heard)));
        true
    }

    /// How long after the route it was reached first; None while it is not.
    pub fn after(&self, milestone: Milestone) -> Option<Duration> {
        self.reached.iter().find(|(reached, _)| *reached == milestone).map(|(_, after)| *after)
    }

    /// Everything that was reached, in that order, with the time since the route.
    pub fn reached(&self) -> &[(Milestone, Duration)] {
        &self.reached
    }

    /// For the log.
    pub fn words(&self) -> String {
        let each = self.reached.iter().map(|(m, after)| format!("{} after {} ms", m.word(), after.as_millis()));
        let ahead = self.ahead.then(|| "connected ahead".to_owned());
        let late = self.is_late.then(|| "after another process".to_owned());
        each.chain(ahead).chain(late).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::Term;

    #[test]
    fn each_stage_counts_from_the_route_and_the_first_time_only() {
        let heard = Instant::now();
        let at = |ms: u64| heard + Duration::from_millis(ms);
        let mut takeover = Takeover::new(heard);
        assert_eq!(takeover.words(), "");
        assert!(takeover.reach(Milestone::Connected, at(4)));
        assert!(takeover.reach(Milestone::Owner, at(9)));
        assert!(!takeover.reach(Milestone::Connected, at(300)), "a connection that was lost and made again");
        assert!(takeover.reach(Milestone::Committed, at(40)));
        assert_eq!(takeover.after(Milestone::Connected), Some(Duration::from_millis(4)));
        assert_eq!(takeover.after(Milestone::Stored), None);
        assert_eq!(takeover.reached().len(), 3);
        assert_eq!(takeover.words(), "connected after 4 ms, owner after 9 ms, committed after 40 ms");
        takeover.was_ahead();
        assert!(takeover.words().ends_with(", connected ahead"), "{}", takeover.words());
    }

    #[test]
    fn what_comes_after_another_process_has_stored_is_no_part_of_the_change() {
        let heard = Instant::now();
        let row = |owner: &str, beat| OwnerRow { owner: owner.to_owned(), term: Term(3), beat };
        for (case, rows, is_timed) in [
            ("nobody else is there", &[][..], true),
            ("the other was lost with the old primary", &[row("a/1", 9), row("a/1", 9)], true),
            ("the other stores", &[row("a/1", 9), row("a/1", 10)], false),
            ("another one took over from it", &[row("a/1", 9), row("b/1", 9)], false),
        ] {
            let mut takeover = Takeover::new(heard);
            takeover.reach(Milestone::Connected, heard);
            rows.iter().for_each(|row| takeover.sees(row));
            assert_eq!(takeover.reach(Milestone::Owner, heard + Duration::from_secs(3600)), is_timed, "{case}");
            assert_eq!(takeover.reached().len(), if is_timed { 2 } else { 0 }, "{case}");
            assert_eq!(takeover.words().contains("after another process"), !is_timed, "{case}");
        }
    }
}
