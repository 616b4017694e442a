//! The loop that probes one target after the other, one attempt at a time. I/O.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use understudy_wire::evidence::{Probe, ProbeError, Stage};
use understudy_wire::{Evidence, ReplicaName};

use super::attempt::{Failure, unhurried};
use super::hanging::{Going, Hanging, Way};
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

    /// Probes until stopped, at this pace while attempts are quick and back to back while they are not; while some that the server has taken
    /// hang, seldom, and as soon as one of them ends. A change of target drops them and the attempt in flight and, when the subject is another
    /// one, what was seen of the last. `news` is called when a report should go out at once.
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
        let mut hanging = Hanging::default();
        loop {
            let present = {
                let present = target.borrow_and_update();
                // It may have changed in the moment in which an attempt ended. What hangs is of the target before.
                if present.has_changed() {
                    hanging = Hanging::default();
                }
                present.clone()
            };
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
                    hanging = Hanging::default();
                    // The longer pause was meant for the target before.
                    if pace.calm > pace.eager {
                        turn.reset();
                    }
                }
                () = self.once(&present, deadlines, pace, &news, &mut turn, &mut hanging) => {}
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
        hanging: &mut Hanging,
    ) {
        turn.tick().await;
        self.wait_for(hanging, deadlines, news).await;
        let begun = Instant::now();
        let way = Way::new(begun);
        let mut going = self.set_out(target, &way);
        let outcome = way.drive(&mut going, deadlines).await;
        match &outcome {
            // Nothing of it is at the server before it is connected.
            Err(Failure { stage, error: ProbeError::Timeout }) if *stage != Stage::Tcp => hanging.keep(*stage, going),
            // The server works, so what hung is not answered any more.
            Ok(_) => *hanging = Hanging::default(),
            Err(_) => hanging.turned_away(),
        }
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

    fn set_out(&self, target: &Target, way: &Way) -> Going {
        let (target, way, prober) = (target.clone(), way.clone(), self.clone());
        Box::pin(async move {
            let enter = |stage| {
                let now = Instant::now();
                if !way.enter(stage, now) {
                    return ControlFlow::Break(());
                }
                prober.seen().record.enter(stage, now);
                ControlFlow::Continue(())
            };
            unhurried(&target, enter).await
        })
    }

    /// Returns when another attempt may be made. That the server does not answer goes on until then, and is told as often as by attempts.
    async fn wait_for(&self, hanging: &mut Hanging, deadlines: Deadlines, news: &(impl Fn() + Send + Sync)) {
        let Some((patience, stage)) = hanging.wait() else { return };
        let silence = Err(Failure { stage, error: ProbeError::Timeout });
        let over = Instant::now() + patience;
        loop {
            let next = over.min(Instant::now() + deadlines.of(stage));
            tokio::select! {
                () = hanging.ended() => return,
                () = tokio::time::sleep_until(next.into()) => {}
            }
            self.seen().record.end(&silence, deadlines, Instant::now());
            news();
            if next == over {
                return;
            }
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
    use std::time::SystemTime;

    use tokio::net::{TcpListener, TcpStream};
    use tokio_util::task::AbortOnDropHandle;
    use understudy_link::Authority;

    use super::*;
    use crate::probe::hanging::{MOST, PATIENCE};
    use crate::probe::{Account, Depth, RowName};
    use crate::tls::Trust;

    const SOON: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_server_that_takes_connections_and_greets_nobody_gets_few_and_is_told_of_all_the_time() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let authority = Authority::generate("understudy", SystemTime::now()).unwrap();
        let target = Target {
            subject: ReplicaName::new("m-a"),
            address: listener.local_addr().unwrap(),
            trust: Trust::new(authority.cert(), "m.shard.example").unwrap(),
            account: Account { user: "probe".to_owned(), password: "secret".to_owned() },
            row: RowName::new("test"),
            depth: Depth::Commit,
        };
        let (news, mut heard) = watch::channel(0_u32);
        let (_target, targets) = watch::channel(Some(target));
        let ms = Duration::from_millis;
        let prober = Prober::new();
        let begun = Instant::now();
        let running = prober.clone().run(
            targets,
            ms(5),
            Deadlines { stage: ms(20), commit: ms(20) },
            move || news.send_modify(|told| *told += 1),
            CancellationToken::new(),
        );
        let _running = AbortOnDropHandle::new(tokio::spawn(running));
        let (taken, mut connections) = tokio::sync::mpsc::channel::<TcpStream>(64);
        let _taking = AbortOnDropHandle::new(tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                if taken.send(connection).await.is_err() {
                    return;
                }
            }
        }));

        let told = async {
            loop {
                let failing = prober.probe(Instant::now()).and_then(|probe| probe.failing);
                if let Some(failing) = failing.filter(|failing| failing.count >= 20) {
                    return failing;
                }
                heard.changed().await.unwrap();
            }
        };
        let failing = tokio::time::timeout(SOON, told).await.unwrap();
        assert_eq!((failing.stage, &failing.error), (Stage::Greeting, &ProbeError::Timeout));
        let most = MOST + 1 + usize::try_from(begun.elapsed().as_secs() / PATIENCE.as_secs()).unwrap();
        let mut held = Vec::new();
        while let Ok(connection) = connections.try_recv() {
            held.push(connection);
        }
        assert!((1..=most).contains(&held.len()), "{} connections for {} silences", held.len(), failing.count);

        // It moves again: what hung ends, and the next attempt does not wait.
        held.clear();
        assert!(tokio::time::timeout(SOON, connections.recv()).await.unwrap().is_some());
    }

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
