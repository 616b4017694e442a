//! The loop that probes one target after the other, one attempt at a time. I/O.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use understudy_wire::evidence::Probe;
use understudy_wire::{Evidence, ReplicaName};

use super::attempt::attempt;
use super::record::Record;
use super::{Deadlines, Target};

#[derive(Debug, Default)]
struct Seen {
    subject: Option<ReplicaName>,
    record: Record,
}

/// Probes whatever target it is given, and remembers what it saw.
#[derive(Clone, Debug, Default)]
pub struct Prober {
    seen: Arc<Mutex<Seen>>,
}

impl Prober {
    /// Has seen nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The findings about the present target with ages as of now; None while there is no target.
    pub fn evidence(&self, now: Instant) -> Option<Evidence> {
        let seen = self.seen();
        let subject = seen.subject.clone()?;
        Some(Evidence { subject, probe: Some(seen.record.probe(now)), server: None })
    }

    /// The findings alone.
    pub fn probe(&self, now: Instant) -> Option<Probe> {
        let seen = self.seen();
        seen.subject.is_some().then(|| seen.record.probe(now))
    }

    /// Probes until stopped, every `pace` while attempts are quick and back to back while they are not. A change of target drops
    /// the attempt in flight and, when the subject is another one, what was seen of the last. `news` is called when a report should go out at once.
    pub async fn run(
        self,
        mut target: watch::Receiver<Option<Target>>,
        pace: Duration,
        deadlines: Deadlines,
        news: impl Fn() + Send + Sync,
        stop: CancellationToken,
    ) {
        let mut turn = tokio::time::interval(pace);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let present = target.borrow_and_update().clone();
            self.turn_to(present.as_ref().map(|t| &t.subject));
            let Some(present) = present else {
                tokio::select! {
                    () = stop.cancelled() => return,
                    changed = target.changed() => if changed.is_err() { return },
                }
                continue;
            };
            tokio::select! {
                () = stop.cancelled() => return,
                changed = target.changed() => if changed.is_err() { return },
                () = self.once(&present, deadlines, &news, &mut turn) => {}
            }
        }
    }

    async fn once(
        &self,
        target: &Target,
        deadlines: Deadlines,
        news: &(impl Fn() + Send + Sync),
        turn: &mut tokio::time::Interval,
    ) {
        turn.tick().await;
        let outcome = attempt(target, deadlines, |stage| self.seen().record.enter(stage, Instant::now())).await;
        if self.seen().record.end(&outcome, Instant::now()) {
            match &outcome {
                Ok(_) => tracing::info!(subject = %target.subject, "probe succeeds again"),
                Err(failure) => {
                    tracing::warn!(subject = %target.subject, stage = ?failure.stage, error = ?failure.error, "probe failed")
                }
            }
            news();
        }
    }

    fn turn_to(&self, subject: Option<&ReplicaName>) {
        let mut seen = self.seen();
        if seen.subject.as_ref() != subject {
            *seen = Seen { subject: subject.cloned(), record: Record::default() };
        }
        seen.record.abandon();
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
