//! Who holds the lock that commits wait for: asked of the server once for each run of such commits. [`Inquiry`] is pure.
//!
//! The tables that tell go through every lock of the server, and a server whose locks are themselves stuck does not answer. So it is asked
//! over a connection of its own, with a deadline, rarely, and not again in a run in which it did not answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use understudy_mysql::{Instance, Prober};
use understudy_wire::evidence::{Probe, ProbeError, Stage};

use crate::facts::{Life, Shared};
use crate::observe::turns;

/// A commit that has taken this long waits for something. Shorter than the second for which a probe waits for a lock: once that is over
/// nobody waits, and nobody could be named.
const WAITS: u64 = 500;
/// The server is asked no more often than this, whatever happens.
const AT_MOST_EVERY: Duration = Duration::from_secs(5);
const WITHIN: Duration = Duration::from_secs(1);
/// Lock wait timeout.
const LOCK_WAIT_TIMEOUT: u16 = 1205;

/// One run of commits that wait, and what was asked about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inquiry {
    asked: Option<Instant>,
    /// Whether there is nothing more to ask in this run.
    closed: bool,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Ask the server.
    Ask,
    /// Nothing.
    Wait,
    /// No commit waits: what was found is no longer so.
    Over,
}

impl Inquiry {
    /// A look at the manager's own probe.
    pub fn turn(&mut self, probe: Option<&Probe>, now: Instant) -> Turn {
        if !probe.is_some_and(waits) {
            self.closed = false;
            return Turn::Over;
        }
        let is_early = self.asked.is_some_and(|asked| now.saturating_duration_since(asked) < AT_MOST_EVERY);
        if self.closed || is_early {
            return Turn::Wait;
        }
        self.asked = Some(now);
        Turn::Ask
    }

    /// The server named somebody, or did not answer: it is not asked again in this run.
    pub fn close(&mut self) {
        self.closed = true;
    }
}

/// Whether the server answers and its commits do not get through.
fn waits(probe: &Probe) -> bool {
    let now = probe.in_flight.is_some_and(|attempt| attempt.stage == Stage::Commit && attempt.age >= WAITS);
    let lately = probe.failing.as_ref().is_some_and(|failing| {
        let waited = matches!(failing.error, ProbeError::Timeout | ProbeError::Server { code: LOCK_WAIT_TIMEOUT, .. });
        failing.stage == Stage::Commit && waited
    });
    now || lately
}

/// Watches until stopped. `server` is a connection that nobody else uses.
pub async fn watch(shared: Arc<Shared>, own: Prober, server: Arc<dyn Instance>, stop: CancellationToken) {
    let mut turns = turns();
    let mut inquiry = Inquiry::default();
    while stop.run_until_cancelled(turns.tick()).await.is_some() {
        let runs = shared.read(|facts| facts.life == Life::Running);
        let probe = own.probe(Instant::now()).filter(|_| runs);
        match inquiry.turn(probe.as_ref(), Instant::now()) {
            Turn::Wait => {}
            Turn::Over => {
                if shared.read(|facts| facts.lock_holder.is_some()) {
                    shared.update(|facts| facts.lock_holder = None);
                }
            }
            Turn::Ask => match stop.run_until_cancelled(server.lock_holder(WITHIN)).await {
                None => return,
                Some(Ok(None)) => {}
                Some(Ok(Some(holder))) => {
                    inquiry.close();
                    tracing::warn!(?holder, "commits wait for a lock");
                    shared.update(|facts| facts.lock_holder = Some((Instant::now(), holder)));
                }
                Some(Err(e)) => {
                    inquiry.close();
                    tracing::warn!(error = %e, "commits wait, and who holds a lock could not be read");
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use understudy_wire::evidence::{Failing, InFlight};

    use super::*;

    fn in_flight(stage: Stage, age: u64) -> Probe {
        Probe { in_flight: Some(InFlight { stage, age }), ..Probe::default() }
    }

    fn failing(stage: Stage, error: ProbeError) -> Probe {
        Probe {
            failing: Some(Failing {
                since: 900,
                latest: 100,
                count: 2,
                stage,
                error,
                unanswered: None,
                answered: None,
            }),
            ..Probe::default()
        }
    }

    #[test]
    fn only_commits_of_a_server_that_answers_are_asked_about() {
        let locked = || ProbeError::Server { code: 1205, message: "lock wait".to_owned() };
        for (case, probe, expected) in [
            ("a commit that hangs", in_flight(Stage::Commit, 500), true),
            ("a commit that takes a moment", in_flight(Stage::Commit, 400), false),
            ("a greeting that hangs", in_flight(Stage::Greeting, 900), false),
            ("a lock that was not given", failing(Stage::Commit, locked()), true),
            ("a commit without an answer", failing(Stage::Commit, ProbeError::Timeout), true),
            ("a read without an answer", failing(Stage::Select, ProbeError::Timeout), false),
            ("a server that refuses writes", failing(Stage::Commit, ProbeError::ReadOnly), false),
            ("all well", Probe::default(), false),
        ] {
            let turn = Inquiry::default().turn(Some(&probe), Instant::now());
            assert_eq!(turn, if expected { Turn::Ask } else { Turn::Over }, "{case}");
        }
        assert_eq!(Inquiry::default().turn(None, Instant::now()), Turn::Over);
    }

    #[test]
    fn a_run_is_asked_about_until_somebody_is_named_and_never_more_often_than_every_few_seconds() {
        let start = Instant::now();
        let (hangs, well) = (in_flight(Stage::Commit, 900), Probe::default());
        let mut inquiry = Inquiry::default();
        assert_eq!(inquiry.turn(Some(&hangs), start), Turn::Ask);
        assert_eq!(inquiry.turn(Some(&hangs), start + AT_MOST_EVERY / 2), Turn::Wait);
        assert_eq!(inquiry.turn(Some(&hangs), start + AT_MOST_EVERY), Turn::Ask, "nobody was named");
        inquiry.close();
        assert_eq!(inquiry.turn(Some(&hangs), start + 9 * AT_MOST_EVERY), Turn::Wait, "somebody was");
        assert_eq!(inquiry.turn(Some(&well), start + 9 * AT_MOST_EVERY), Turn::Over);
        assert_eq!(inquiry.turn(Some(&hangs), start + 9 * AT_MOST_EVERY), Turn::Ask, "another run");
        assert_eq!(inquiry.turn(Some(&well), start + 9 * AT_MOST_EVERY), Turn::Over);
        assert_eq!(inquiry.turn(Some(&hangs), start + 9 * AT_MOST_EVERY), Turn::Wait, "a run of its own, too soon");
    }
}
