//! Attempts that a server has taken and not answered in time. I/O.
//!
//! mysqld does not see that a client went away while the thread of its session waits for something inside: the session stays, and is one of the
//! connections that clients may have. Attempts that were given up and made anew for as long as a server hangs would use them all up. So one that
//! misses a deadline after the server took it is kept, and only a few are. Its end shows that the server moves again, at once. It goes no
//! further than the stage that it was given up in.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use understudy_wire::evidence::{ProbeError, Stage};

use super::Deadlines;
use super::attempt::{Failure, Success};

/// So many hang before the next attempt waits for one of them.
pub(super) const MOST: usize = 3;
/// For how long it waits, and is made all the same: those that hang may be of a connection that is no more. Twice as long after each
/// that hangs as well, so their number grows with the logarithm of the time: by ten in an hour.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);

/// An attempt under way.
pub(super) type Going = Pin<Box<dyn Future<Output = Result<Success, Failure>> + Send>>;

/// Where an attempt is, and since when; None: it was given up, and goes no further.
#[derive(Clone, Debug)]
pub(super) struct Way(Arc<Mutex<Option<(Stage, Instant)>>>);

impl Way {
    /// At its beginning.
    pub(super) fn new(now: Instant) -> Self {
        Self(Arc::new(Mutex::new(Some((Stage::Tcp, now)))))
    }

    /// It has reached a stage. Whether it may go on.
    pub(super) fn enter(&self, stage: Stage, now: Instant) -> bool {
        let mut at = self.at();
        if let Some(at) = at.as_mut() {
            *at = (stage, now);
        }
        at.is_some()
    }

    /// Drives it until it ends or a stage takes too long.
    pub(super) async fn drive(&self, going: &mut Going, deadlines: Deadlines) -> Result<Success, Failure> {
        loop {
            let at = *self.at();
            let Some((stage, since)) = at else { return going.await };
            let due = since + deadlines.of(stage);
            tokio::select! {
                biased;
                outcome = &mut *going => return outcome,
                () = tokio::time::sleep_until(due.into()) => {}
            }
            // It may have come further at the last moment.
            if self.at().take_if(|at| *at == (stage, since)).is_some() {
                return Err(Failure { stage, error: ProbeError::Timeout });
            }
        }
    }

    fn at(&self) -> MutexGuard<'_, Option<(Stage, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The attempts at one server that hang.
#[derive(Debug)]
pub(super) struct Hanging {
    attempts: JoinSet<Result<Success, Failure>>,
    stage: Stage,
    patience: Duration,
    /// Whether the latest attempt is one of them.
    is_latest: bool,
}

impl Default for Hanging {
    fn default() -> Self {
        Self { attempts: JoinSet::new(), stage: Stage::Tcp, patience: PATIENCE, is_latest: false }
    }
}

impl Hanging {
    /// Keeps one that was given up in this stage.
    pub(super) fn keep(&mut self, stage: Stage, going: Going) {
        if self.attempts.len() >= MOST {
            self.patience *= 2;
        }
        (self.stage, self.is_latest) = (stage, true);
        self.attempts.spawn(going);
    }

    /// An attempt ended otherwise, and the server has nothing of it any more, so that another takes nothing. What it met is the latest that is
    /// known: those that hang say nothing of a server whose connections are used up since, or that is not reached any more.
    pub(super) fn turned_away(&mut self) {
        self.is_latest = false;
    }

    /// For how long another attempt must wait for one of them to end, and the stage that the last of them hangs in. None: it need not, as
    /// they are few or the latest attempt is none of them.
    pub(super) fn wait(&mut self) -> Option<(Duration, Stage)> {
        while self.attempts.try_join_next().is_some() {
            self.patience = PATIENCE;
        }
        (self.is_latest && self.attempts.len() >= MOST).then_some((self.patience, self.stage))
    }

    /// Returns when one of them has ended.
    pub(super) async fn ended(&mut self) {
        if self.attempts.join_next().await.is_some() {
            self.patience = PATIENCE;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    /// An attempt that ends when it is told to.
    fn hangs() -> (oneshot::Sender<()>, Going) {
        let (end, ended) = oneshot::channel::<()>();
        let going = async move {
            ended.await.ok();
            Err(Failure { stage: Stage::Select, error: ProbeError::Timeout })
        };
        (end, Box::pin(going))
    }

    #[tokio::test]
    async fn a_few_are_kept_and_then_each_further_one_waits_twice_as_long() {
        let mut hanging = Hanging::default();
        let mut ends = Vec::new();
        let mut waits = Vec::new();
        for _ in 0..MOST + 3 {
            let (end, going) = hangs();
            ends.push(end);
            waits.push(hanging.wait().map(|(patience, _)| patience));
            hanging.keep(Stage::Select, going);
        }
        let expected = [None, None, None, Some(PATIENCE), Some(2 * PATIENCE), Some(4 * PATIENCE)];
        assert_eq!(waits, expected);
        assert_eq!(hanging.wait(), Some((8 * PATIENCE, Stage::Select)));
    }

    #[tokio::test]
    async fn nobody_waits_after_an_attempt_that_was_turned_away_until_one_hangs_again() {
        let mut hanging = Hanging::default();
        let mut ends = Vec::new();
        let mut hang = |hanging: &mut Hanging| {
            let (end, going) = hangs();
            ends.push(end);
            hanging.keep(Stage::Select, going);
        };
        for _ in 0..MOST {
            hang(&mut hanging);
        }
        hanging.turned_away();
        assert_eq!(hanging.wait(), None, "the server has nothing of it");
        hang(&mut hanging);
        assert_eq!(hanging.wait(), Some((2 * PATIENCE, Stage::Select)), "one more hangs");
    }

    #[tokio::test]
    async fn the_end_of_one_lets_the_next_begin_and_ends_the_patience() {
        let mut hanging = Hanging::default();
        let mut ends = Vec::new();
        for _ in 0..MOST + 2 {
            let (end, going) = hangs();
            ends.push(end);
            hanging.keep(Stage::Commit, going);
        }
        assert_eq!(hanging.wait(), Some((4 * PATIENCE, Stage::Commit)));
        ends.pop().unwrap().send(()).unwrap();
        hanging.ended().await;
        assert_eq!(hanging.wait(), Some((PATIENCE, Stage::Commit)), "too many are left");
        for end in ends.drain(..2) {
            end.send(()).unwrap();
            hanging.ended().await;
        }
        assert_eq!(hanging.wait(), None);
    }

    #[tokio::test]
    async fn one_that_is_given_up_is_told_where_and_goes_no_further() {
        let way = Way::new(Instant::now());
        let (mut going, deadlines) = (hangs().1, Deadlines::default());
        assert!(way.enter(Stage::Greeting, Instant::now()));
        let outcome = way.drive(&mut going, deadlines).await;
        // Its end was dropped with its beginning, so it has ended by itself.
        assert_eq!(outcome, Err(Failure { stage: Stage::Select, error: ProbeError::Timeout }));

        let short = Deadlines { stage: Duration::from_millis(1), ..deadlines };
        let (_end, mut going) = hangs();
        let outcome = way.drive(&mut going, short).await;
        assert_eq!(outcome, Err(Failure { stage: Stage::Greeting, error: ProbeError::Timeout }));
        assert!(!way.enter(Stage::Auth, Instant::now()));
    }
}
