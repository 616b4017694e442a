//! Sessions that a server has taken and not answered in time. I/O.
//!
//! mysqld does not see that a client went away while the thread of its session waits for something inside: the session stays, and is one of the
//! connections that clients may have. A consumer that gave up each one and opened another for as long as a server hangs would use them all up. So
//! one that misses a deadline is kept, and only a few are; then another one is opened seldom, or when one of them ends, which shows that the
//! server moves again.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use understudy_sql::open::Unanswered;
use understudy_wire::evidence::Stage;

use crate::route::Route;

/// So many hang before another one waits for one of them.
const MOST: usize = 3;
/// For how long it waits, and is opened all the same: those that hang may be of connections that are no more. Twice as long after each that
/// hangs as well, up to the longest: so some twenty hang after an hour, and twelve more after each further one.
const PATIENCE: Duration = Duration::from_secs(4);
const LONGEST: Duration = Duration::from_secs(300);

/// The sessions at one server that hang.
#[derive(Debug)]
pub struct Hanging {
    route: Option<Route>,
    sessions: JoinSet<()>,
    last: Stage,
    furthest: Stage,
    patience: Duration,
}

impl Default for Hanging {
    fn default() -> Self {
        let none = Stage::Tcp;
        Self { route: None, sessions: JoinSet::new(), last: none, furthest: none, patience: PATIENCE }
    }
}

impl Hanging {
    /// From now on it is about this route. What hangs at another server is closed and counts no more; so is what hangs at the same one under another
    /// epoch, as it has come into office since, or is about to be left.
    pub fn about(&mut self, route: Option<&Route>) {
        if self.route.as_ref() != route {
            *self = Self { route: route.cloned(), ..Self::default() };
        }
    }

    /// Keeps one that missed its deadline in this stage.
    pub fn keep(&mut self, stage: Stage, session: Unanswered) {
        if self.sessions.len() >= MOST {
            self.patience = LONGEST.min(2 * self.patience);
        }
        (self.last, self.furthest) = (stage, self.furthest.max(stage));
        self.sessions.spawn(session);
    }

    /// The server works as far as this stage: what hung no further is not answered any more.
    pub fn answered(&mut self, stage: Stage) {
        if self.furthest <= stage && !self.sessions.is_empty() {
            *self = Self { route: self.route.take(), ..Self::default() };
        }
    }

    /// Returns when another session may be opened. Until then it calls `silent` this often, with the stage that the last one hangs in.
    pub async fn wait(&mut self, every: Duration, mut silent: impl FnMut(Stage)) {
        let Some(patience) = self.patience() else { return };
        let sessions = self.sessions.len();
        tracing::warn!(sessions, stage = ?self.last, ?patience, "sessions hang; another is opened when one ends, or after this");
        let over = Instant::now() + patience;
        loop {
            let next = over.min(Instant::now() + every);
            tokio::select! {
                biased;
                () = self.ended() => return,
                () = sleep_until(next) => silent(self.last),
            }
            if next == over {
                return;
            }
        }
    }

    /// For how long another one must wait for the end of one of them. None: it need not.
    fn patience(&mut self) -> Option<Duration> {
        while self.sessions.try_join_next().is_some() {
            self.has_ended();
        }
        (self.sessions.len() >= MOST).then_some(self.patience)
    }

    /// Returns when one of them has ended.
    async fn ended(&mut self) {
        if self.sessions.join_next().await.is_some() {
            self.has_ended();
        }
    }

    fn has_ended(&mut self) {
        self.patience = PATIENCE;
        if self.sessions.is_empty() {
            self.furthest = Stage::Tcp;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use understudy_wire::{Epoch, ReplicaName};

    use super::*;

    /// One that ends when it is told to.
    fn session() -> (oneshot::Sender<()>, Unanswered) {
        let (end, ended) = oneshot::channel();
        let ended = async move {
            ended.await.ok();
        };
        (end, Box::pin(ended))
    }

    /// So many that hang.
    fn hang(hanging: &mut Hanging, stage: Stage, count: usize) -> Vec<oneshot::Sender<()>> {
        let one = |_| {
            let (end, session) = session();
            hanging.keep(stage, session);
            end
        };
        (0..count).map(one).collect()
    }

    /// How many tenths of a second another one waits, and how often it is told meanwhile that the server is silent.
    async fn waits(hanging: &mut Hanging) -> (u128, usize) {
        let (begun, mut told) = (Instant::now(), 0);
        hanging.wait(Duration::from_secs(1), |_| told += 1).await;
        (begun.elapsed().as_millis() / 100, told)
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_hang_and_then_each_further_one_waits_twice_as_long() {
        let (mut hanging, mut ends, mut waited) = (Hanging::default(), Vec::new(), Vec::new());
        for _ in 0..MOST + 9 {
            waited.push(waits(&mut hanging).await.0);
            ends.extend(hang(&mut hanging, Stage::Commit, 1));
        }
        assert_eq!(waited, [0, 0, 0, 40, 80, 160, 320, 640, 1280, 2560, 3000, 3000]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_silence_is_told_for_as_long_as_it_lasts() {
        let mut hanging = Hanging::default();
        let _ends = hang(&mut hanging, Stage::Commit, MOST);
        assert_eq!(waits(&mut hanging).await, (40, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_one_lets_the_next_begin() {
        let mut hanging = Hanging::default();
        let mut ends = hang(&mut hanging, Stage::Commit, MOST);
        let end = ends.pop().unwrap();
        let (waited, ()) = tokio::join!(waits(&mut hanging), async move {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            end.send(()).unwrap();
        });
        assert_eq!(waited, (15, 1));
        assert_eq!(waits(&mut hanging).await, (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_ends_what_hung_no_further() {
        for (case, hung, answered, waited) in [
            ("a read where commits hang", Stage::Commit, Stage::Select, 40),
            ("a read where reads hung", Stage::Select, Stage::Select, 0),
            ("a commit", Stage::Commit, Stage::Commit, 0),
        ] {
            let mut hanging = Hanging::default();
            let _ends = hang(&mut hanging, hung, MOST);
            let _later = hang(&mut hanging, Stage::Auth, 1);
            hanging.patience = PATIENCE;
            hanging.answered(answered);
            assert_eq!(waits(&mut hanging).await.0, waited, "{case}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_hangs_under_one_route_counts_under_no_other() {
        let route = |primary: &str, epoch| Route {
            primary: ReplicaName::new(primary),
            address: ([10, 0, 0, 1], 3306).into(),
            epoch: Epoch(epoch),
        };
        for (case, next, waited) in [
            ("the same", route("a", 1), 40),
            ("the same under the next epoch", route("a", 2), 0),
            ("another one", route("b", 2), 0),
        ] {
            let mut hanging = Hanging::default();
            hanging.about(Some(&route("a", 1)));
            let ends = hang(&mut hanging, Stage::Commit, MOST);
            hanging.about(Some(&next));
            assert_eq!(waits(&mut hanging).await.0, waited, "{case}");
            drop(hanging);
            for mut end in ends {
                end.closed().await;
            }
        }
    }
}
