//! Who holds the lock that commits wait for: asked of the server once for each run of such commits. [`Inquiry`] is pure.
//!
//! The tables that tell go through every lock of the server, and a server whose locks are themselves stuck does not answer. So it is asked
//! over a connection of its own, with a deadline, rarely, and not again in a run in which it did not answer a few times:
//! once may be a pause.

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
/// The server is asked no more often than this, as long as it answers.
const AT_MOST_EVERY: Duration = Duration::from_secs(5);
const WITHIN: Duration = Duration::from_secs(1);
/// One that did not answer may have been paused, and is asked again after this,
const AGAIN: Duration = Duration::from_secs(2);
/// and so often in one run: a lock is named before it is taken for a deadlock, whatever pause its beginning falls into.
const TRIES: u32 = 3;
/// For so long after the last commit that waited a failure that says nothing of locks, such as a silence, is taken for a pause within the wait:
/// longer than a pause that is nobody's trouble and the second after it until a commit has waited again.
const GOES_ON: Duration = Duration::from_secs(5);
/// Lock wait timeout.
const LOCK_WAIT_TIMEOUT: u16 = 1205;

/// One run of commits that wait, and what was asked about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inquiry {
    asked: Option<Instant>,
    /// When a commit was last seen to wait.
    waited: Option<Instant>,
    /// How often it was not answered in this run.
    unanswered: u32,
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
    /// A look at the manager's probes of its own server. A server in which commits wait for long is full after a while, and then only the
    /// admin port still shows it.
    pub fn turn(&mut self, probes: &[Probe], now: Instant) -> Turn {
        if !probes.iter().any(waits) {
            let may_wait = !probes.is_empty() && probes.iter().all(|probe| probe.failing.is_some());
            let lately = self.waited.is_some_and(|waited| now.saturating_duration_since(waited) < GOES_ON);
            if may_wait && lately {
                return Turn::Wait;
            }
            *self = Self { asked: self.asked, ..Self::default() };
            return Turn::Over;
        }
        self.waited = Some(now);
        let pause = if self.unanswered > 0 { AGAIN } else { AT_MOST_EVERY };
        let is_early = self.asked.is_some_and(|asked| now.saturating_duration_since(asked) < pause);
        if self.closed || is_early {
            return Turn::Wait;
        }
        self.asked = Some(now);
        Turn::Ask
    }

    /// The server named somebody: it is not asked again in this run.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// The server named nobody.
    pub fn pass(&mut self) {
        self.unanswered = 0;
    }

    /// The server did not answer.
    pub fn miss(&mut self) {
        self.unanswered += 1;
        self.closed = self.unanswered >= TRIES;
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

/// Watches until stopped. `probers` probe the own server; `server` is a connection that nobody else uses.
pub async fn watch(shared: Arc<Shared>, probers: [Prober; 2], server: Arc<dyn Instance>, stop: CancellationToken) {
    let mut turns = turns();
    let mut inquiry = Inquiry::default();
    while stop.run_until_cancelled(turns.tick()).await.is_some() {
        let runs = shared.read(|facts| facts.life == Life::Running);
        let probes: Vec<_> =
            probers.iter().filter(|_| runs).filter_map(|prober| prober.probe(Instant::now())).collect();
        match inquiry.turn(&probes, Instant::now()) {
            Turn::Wait => {}
            Turn::Over => {
                if shared.read(|facts| facts.lock_holder.is_some()) {
                    shared.update(|facts| facts.lock_holder = None);
                }
            }
            Turn::Ask => match stop.run_until_cancelled(server.lock_holder(WITHIN)).await {
                None => return,
                Some(Ok(None)) => inquiry.pass(),
                Some(Ok(Some(holder))) => {
                    inquiry.close();
                    tracing::warn!(?holder, "commits wait for a lock");
                    shared.update(|facts| facts.lock_holder = Some((Instant::now(), holder)));
                }
                Some(Err(e)) => {
                    inquiry.miss();
                    tracing::warn!(error = %e, "commits wait, and who holds a lock could not be read");
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use understudy_wire::evidence::{Failing, InFlight, Limit};

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
            let turn = Inquiry::default().turn(&[probe], Instant::now());
            assert_eq!(turn, if expected { Turn::Ask } else { Turn::Over }, "{case}");
        }
        assert_eq!(Inquiry::default().turn(&[], Instant::now()), Turn::Over);
    }

    #[test]
    fn a_pause_within_a_wait_does_not_end_it_and_neither_does_a_server_that_is_full_behind_the_lock() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let locked = || failing(Stage::Commit, ProbeError::Server { code: 1205, message: "lock wait".to_owned() });
        let silent = || failing(Stage::Greeting, ProbeError::Timeout);
        let full = failing(Stage::Auth, ProbeError::TooManyConnections { whose: Limit::Server });
        let mut inquiry = Inquiry::default();
        assert_eq!(inquiry.turn(&[locked(), locked()], start), Turn::Ask);
        inquiry.close();
        assert_eq!(inquiry.turn(&[silent(), silent()], at(2)), Turn::Wait, "a pause");
        assert_eq!(inquiry.turn(&[locked(), silent()], at(4)), Turn::Wait, "it goes on, and somebody was named");
        assert_eq!(inquiry.turn(&[full.clone(), locked()], at(60)), Turn::Wait, "the admin port still shows it");
        assert_eq!(inquiry.turn(&[full.clone(), silent()], at(64)), Turn::Wait, "a pause again");
        assert_eq!(inquiry.turn(&[full.clone(), silent()], at(65)), Turn::Over, "more than a pause");
        assert_eq!(inquiry.turn(&[full.clone(), locked()], at(66)), Turn::Ask);
        assert_eq!(inquiry.turn(&[full, Probe::default()], at(67)), Turn::Over, "commits get through the admin port");
    }

    #[test]
    fn who_did_not_answer_is_asked_again_soon_and_only_a_few_times() {
        let start = Instant::now();
        let hangs = [in_flight(Stage::Commit, 900)];
        let mut inquiry = Inquiry::default();
        for (tries, at) in (0..TRIES).map(|tries| (tries, start + tries * AGAIN)) {
            assert_eq!(inquiry.turn(&hangs, at), Turn::Ask, "{tries}");
            inquiry.miss();
            assert_eq!(inquiry.turn(&hangs, at + AGAIN / 2), Turn::Wait, "{tries}");
        }
        assert_eq!(inquiry.turn(&hangs, start + 99 * AGAIN), Turn::Wait, "it does not answer");
        assert_eq!(inquiry.turn(&[Probe::default()], start + 99 * AGAIN), Turn::Over);
        let again = start + 99 * AGAIN;
        assert_eq!(inquiry.turn(&hangs, again), Turn::Ask, "another run");
        inquiry.miss();
        assert_eq!(inquiry.turn(&hangs, again + AGAIN), Turn::Ask);
        inquiry.pass();
        assert_eq!(inquiry.turn(&hangs, again + 2 * AGAIN), Turn::Wait, "it answers");
    }

    #[test]
    fn a_run_is_asked_about_until_somebody_is_named_and_never_more_often_than_every_few_seconds() {
        let start = Instant::now();
        let (hangs, well) = ([in_flight(Stage::Commit, 900)], [Probe::default()]);
        let mut inquiry = Inquiry::default();
        assert_eq!(inquiry.turn(&hangs, start), Turn::Ask);
        assert_eq!(inquiry.turn(&hangs, start + AT_MOST_EVERY / 2), Turn::Wait);
        assert_eq!(inquiry.turn(&hangs, start + AT_MOST_EVERY), Turn::Ask, "nobody was named");
        inquiry.close();
        assert_eq!(inquiry.turn(&hangs, start + 9 * AT_MOST_EVERY), Turn::Wait, "somebody was");
        assert_eq!(inquiry.turn(&well, start + 9 * AT_MOST_EVERY), Turn::Over);
        assert_eq!(inquiry.turn(&hangs, start + 9 * AT_MOST_EVERY), Turn::Ask, "another run");
        assert_eq!(inquiry.turn(&well, start + 9 * AT_MOST_EVERY), Turn::Over);
        assert_eq!(inquiry.turn(&hangs, start + 9 * AT_MOST_EVERY), Turn::Wait, "a run of its own, too soon");
    }
}
