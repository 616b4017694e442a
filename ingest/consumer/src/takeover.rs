//! How long a consumer took from a route to what it stored under it, stage by stage. Pure: the clock is an argument.
//!
//! It is the end of a change of primary that only the consumer sees. The operator's record has what comes before it.

use std::time::Duration;

use tokio::time::Instant;

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
    reached: Vec<(Milestone, Duration)>,
}

impl Takeover {
    /// The route was heard of.
    pub fn new(heard: Instant) -> Self {
        Self { heard, ahead: false, reached: Vec::new() }
    }

    /// The connection had been made before the route was heard of.
    pub fn was_ahead(&mut self) {
        self.ahead = true;
    }

    /// Something is reached. Whether it is for the first time.
    pub fn reach(&mut self, milestone: Milestone, now: Instant) -> bool {
        if self.after(milestone).is_some() {
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
        each.chain(ahead).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
