//! What one observer remembers of its probes of one server.

use understudy_wire::evidence::*;

use super::network::{Attempt, locked};

/// What an attempt of a probe has waited when it is given up.
const WAITED: Millis = 500;

/// What one observer remembers of its probes of one server.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// How long an attempt that nobody answers waits until that is told; 0: it is told in the turn in which it began.
    pub patience: Millis,
    /// It only asks whether the server is there, and commits nothing.
    pub is_idle: bool,
    pub committed: Option<Millis>,
    pub committing_since: Option<Millis>,
    selected: Option<Millis>,
    took: Millis,
    pub failing: Option<(Millis, Millis, u32, Stage, ProbeError)>,
    /// When the first attempt of the run that nobody answered began. Only probes tell it.
    pub unanswered: Option<Millis>,
    /// When the server last answered an attempt of the run.
    answered: Option<Millis>,
    /// An attempt that waits, where, and since when.
    waiting: Option<(Stage, Millis)>,
}

impl Watch {
    /// A consumer's, which does not tell when an attempt began.
    pub fn of_consumer(patience: Millis, is_idle: bool) -> Self {
        Self { patience, is_idle, ..Self::default() }
    }

    pub fn saw(&mut self, now: Millis, outcome: Attempt) {
        match outcome {
            Ok(took) => {
                (self.failing, self.unanswered, self.answered, self.waiting) = (None, None, None, None);
                self.selected = Some(now);
                if !self.is_idle {
                    self.took = took;
                    self.committed = Some(now);
                    self.committing_since.get_or_insert(now);
                }
            }
            // A commit that hangs keeps its lock, and whoever made it waits for that the next time.
            Err((Stage::Commit, ProbeError::Timeout)) if self.holds_lock() => {
                self.failed(now, Stage::Commit, locked());
            }
            Err((stage, ProbeError::Timeout)) if self.patience == 0 => {
                self.begins(now, stage);
                self.unanswered.get_or_insert(now - WAITED);
                self.failed(now, stage, ProbeError::Timeout);
            }
            Err((stage, ProbeError::Timeout)) => {
                // Who waits somewhere does not fall back to a stage before that; and each stage has its own time.
                let Some((at, begun)) = self.waiting.filter(|(at, _)| *at >= stage) else {
                    self.waiting = Some((stage, now));
                    return self.begins(now, stage);
                };
                // As one is given up the next one begins.
                if now - begun >= self.patience {
                    self.failed(now, at, ProbeError::Timeout);
                    self.waiting = Some((stage, now));
                    self.begins(now, stage);
                }
            }
            Err((stage, error)) => {
                self.waiting = None;
                self.failed(now, stage, error);
            }
        }
    }

    /// One that comes as far as the commit was answered before it.
    fn begins(&mut self, now: Millis, stage: Stage) {
        if stage == Stage::Commit {
            self.selected = Some(now);
        }
    }

    fn failed(&mut self, now: Millis, stage: Stage, error: ProbeError) {
        let (since, count) = self.failing.as_ref().map_or((now, 0), |(since, _, count, ..)| (*since, *count));
        self.answered = error.is_answer().then_some(now).or(self.answered);
        self.failing = Some((since, now, count + 1, stage, error));
        self.committing_since = None;
    }

    /// Whether its last attempt was a commit that may still hang. A consumer here is one of an earlier version: it waits for no longer than the
    /// server lets it wait for a lock, so nobody tells it of one.
    pub fn holds_lock(&self) -> bool {
        let is_at_commit = self.failing.as_ref().is_some_and(|(.., stage, _)| *stage == Stage::Commit);
        self.patience == 0 && self.unanswered.is_some() && is_at_commit
    }

    pub fn probe(&self, now: Millis) -> Probe {
        let ago = |at: Millis| now - at;
        Probe {
            committed: self.committed.map(ago),
            selected: self.selected.map(ago),
            commit_took: self.committed.map(|_| self.took),
            committing_since: self.committing_since.map(ago),
            failing: self.failing.as_ref().map(|(since, latest, count, stage, error)| Failing {
                since: ago(*since),
                latest: ago(*latest),
                count: *count,
                stage: *stage,
                error: error.clone(),
                unanswered: self.unanswered.map(ago),
                answered: self.answered.map(ago),
            }),
            in_flight: self.waiting.map(|(stage, begun)| InFlight { stage, age: ago(begun) }),
        }
    }
}
