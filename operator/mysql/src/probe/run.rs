//! The loop that probes one target after the other, one attempt at a time. I/O.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use understudy_wire::evidence::{Probe, ProbeError};
use understudy_wire::{Evidence, ReplicaName};

use super::attempt::attempt;
use super::record::Record;
use super::{Deadlines, Target};

/// How soon one attempt follows the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// After an attempt that failed or took long, and before the first one of a target.
    pub eager: Duration,
    /// After one that succeeded quickly. The same as `eager` for whoever is to notice what breaks.
    pub calm: Duration,
}

impl From<Duration> for Pace {
    /// The same at all times.
    fn from(every: Duration) -> Self {
        Self { eager: every, calm: every }
    }
}

impl Pace {
    /// The pause after an attempt that went like this; None when that is what the interval does by itself.
    fn after(self, succeeded: bool, took: Duration) -> Option<Duration> {
        (succeeded && took < self.eager && self.calm > self.eager).then(|| self.calm.saturating_sub(took))
    }
}

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

    /// Probes until stopped, at this pace while attempts are quick and back to back while they are not. A change of target drops
    /// the attempt in flight and, when the subject is another one, what was seen of the last. `news` is called when a report should go out at once.
    pub async fn run(
        self,
        mut target: watch::Receiver<Option<Target>>,
        pace: impl Into<Pace> + Send,
        deadlines: Deadlines,
        news: impl Fn() + Send + Sync,
        stop: CancellationToken,
    ) {
        let pace: Pace = pace.into();
        let mut turn = tokio::time::interval(pace.eager);
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
                changed = target.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // The longer pause was meant for the target before.
                    if pace.calm > pace.eager {
                        turn.reset();
                    }
                }
                () = self.once(&present, deadlines, pace, &news, &mut turn) => {}
            }
        }
    }

    async fn once(
        &self,
        target: &Target,
        deadlines: Deadlines,
        pace: Pace,
        news: &(impl Fn() + Send + Sync),
        turn: &mut tokio::time::Interval,
    ) {
        turn.tick().await;
        let begun = Instant::now();
        let outcome = attempt(target, deadlines, |stage| self.seen().record.enter(stage, Instant::now())).await;
        if let Some(pause) = pace.after(outcome.is_ok(), begun.elapsed()) {
            turn.reset_after(pause);
        }
        let is_news = self.seen().record.end(&outcome, deadlines, Instant::now());
        if is_news {
            match &outcome {
                Ok(_) => tracing::info!(subject = %target.subject, "probe succeeds again"),
                Err(failure) => {
                    tracing::warn!(subject = %target.subject, stage = ?failure.stage, error = ?failure.error, "probe failed")
                }
            }
        }
        // Each silence is told at once: one that waited for its report as well would be nearly too old to count before the next.
        if is_news || matches!(&outcome, Err(failure) if failure.error == ProbeError::Timeout) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_went_well_and_quickly_is_followed_by_a_longer_pause() {
        let ms = Duration::from_millis;
        let pace = Pace { eager: ms(250), calm: ms(500) };
        for (case, succeeded, took, expected) in [
            ("well", true, ms(10), Some(ms(490))),
            ("well and slow", true, ms(250), None),
            ("not well", false, ms(1), None),
        ] {
            assert_eq!(pace.after(succeeded, took), expected, "{case}");
            assert_eq!(Pace::from(ms(250)).after(succeeded, took), None, "{case}, at one pace");
        }
    }
}
