//! What this consumer saw of the primary, as evidence: its own transactions, nothing else. Pure, but for the lock.
//!
//! A success at a stage ends a run of failures at that stage or an earlier one. Being fenced is no failure: the server answered.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use understudy_link::gap::LoopGap;
use understudy_sql::StepError;
use understudy_wire::ReplicaName;
use understudy_wire::evidence::{Evidence, Failing, InFlight, LogRange, Observer, Probe, Report, Stage, millis};

/// The interval at which the consumer's loop means to run: an idle one commits a canary this often.
pub const INTERVAL: Duration = Duration::from_millis(250);

/// Collects what the transactions say; gives it out as reports.
#[derive(Debug)]
pub struct Facts {
    observer: Observer,
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    seq: u64,
    subject: Option<ReplicaName>,
    committed: Option<Instant>,
    committing_since: Option<Instant>,
    selected: Option<Instant>,
    took: Option<Duration>,
    failing: Option<Run>,
    in_flight: Option<(Stage, Instant)>,
    log: Vec<(LogRange, Instant)>,
    gap: LoopGap,
}

#[derive(Debug)]
struct Run {
    since: Instant,
    latest: Instant,
    count: u32,
    error: StepError,
    /// When the latest attempt failed to which the server answered.
    answered: Option<Instant>,
}

impl Facts {
    /// Nothing seen yet. `pod` is the name of this pod.
    pub fn new(pod: &str, now: Instant) -> Self {
        let inner = Inner {
            seq: 0,
            subject: None,
            committed: None,
            committing_since: None,
            selected: None,
            took: None,
            failing: None,
            in_flight: None,
            log: Vec::new(),
            gap: LoopGap::new(now),
        };
        let observer = Observer::Consumer { pod: pod.to_owned() };
        Self { observer, inner: Mutex::new(inner), changed: watch::Sender::new(0) }
    }

    /// Changes when there is something to report at once.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Everything from now on is about this replica; what was seen of another is forgotten.
    pub fn about(&self, subject: Option<&ReplicaName>) {
        let mut inner = self.lock();
        if inner.subject.as_ref() == subject {
            return;
        }
        inner.subject = subject.cloned();
        (inner.committed, inner.committing_since, inner.selected) = (None, None, None);
        (inner.took, inner.failing, inner.in_flight) = (None, None, None);
        drop(inner);
        self.tell();
    }

    /// A step of this stage begins.
    pub fn began(&self, stage: Stage, now: Instant) {
        self.lock().in_flight = Some((stage, now));
    }

    /// Nothing is under way.
    pub fn idle(&self) {
        self.lock().in_flight = None;
    }

    /// The server answered a read.
    pub fn selected(&self, now: Instant) {
        let mut inner = self.lock();
        (inner.selected, inner.in_flight) = (Some(now), None);
        if inner.failing.as_ref().is_some_and(|run| run.error.stage <= Stage::Select) {
            inner.failing = None;
            drop(inner);
            self.tell();
        }
    }

    /// The server committed.
    pub fn committed(&self, took: Duration, now: Instant) {
        let mut inner = self.lock();
        let news = inner.failing.is_some() || inner.committed.is_none();
        (inner.committed, inner.selected, inner.took) = (Some(now), Some(now), Some(took));
        inner.committing_since.get_or_insert(now);
        (inner.failing, inner.in_flight) = (None, None);
        drop(inner);
        if news {
            self.tell();
        }
    }

    /// A step failed.
    pub fn failed(&self, error: &StepError, now: Instant) {
        let mut inner = self.lock();
        (inner.in_flight, inner.committing_since) = (None, None);
        let answered = error.error.is_answer().then_some(now);
        match &mut inner.failing {
            Some(run) => {
                run.count = run.count.saturating_add(1);
                (run.latest, run.error) = (now, error.clone());
                run.answered = answered.or(run.answered);
            }
            None => inner.failing = Some(Run { since: now, latest: now, count: 1, error: error.clone(), answered }),
        }
        drop(inner);
        self.tell();
    }

    /// What Kafka holds of the partitions that feed the shard.
    pub fn heard(&self, log: Vec<(LogRange, Instant)>) {
        self.lock().log = log;
    }

    /// To be called each [`INTERVAL`]: shows whether this process itself stood still.
    pub fn tick(&self, now: Instant) {
        self.lock().gap.tick(now);
    }

    /// The present state.
    pub fn report(&self, now: Instant) -> Report {
        let mut inner = self.lock();
        inner.seq += 1;
        let age = |at: Instant| millis(now.saturating_duration_since(at));
        let probe = Probe {
            committed: inner.committed.map(age),
            committing_since: inner.committing_since.map(age),
            selected: inner.selected.map(age),
            commit_took: inner.took.map(millis),
            failing: inner.failing.as_ref().map(|run| Failing {
                since: age(run.since),
                latest: age(run.latest),
                count: run.count,
                stage: run.error.stage,
                error: run.error.error.clone(),
                unanswered: None,
                answered: run.answered.map(age),
            }),
            in_flight: inner.in_flight.map(|(stage, at)| InFlight { stage, age: age(at) }),
        };
        let evidence = inner.subject.clone().map(|subject| Evidence { subject, probe: Some(probe), server: None });
        let log = inner.log.iter().map(|(range, at)| LogRange { age: age(*at), ..range.clone() }).collect();
        let own_gap = inner.gap.worst(now);
        Report {
            observer: self.observer.clone(),
            seq: inner.seq,
            own_gap: millis(own_gap),
            interval: millis(INTERVAL),
            evidence: evidence.into_iter().collect(),
            log,
        }
    }

    fn tell(&self) {
        self.changed.send_modify(|changes| *changes += 1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use understudy_wire::evidence::ProbeError;

    use super::*;

    fn probe(facts: &Facts, now: Instant) -> Probe {
        facts.report(now).evidence[0].probe.clone().unwrap()
    }

    #[test]
    fn a_run_of_failures_ends_with_a_success_at_its_stage_or_later() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let facts = Facts::new("pod", start);
        facts.about(Some(&ReplicaName::new("a")));
        facts.committed(Duration::from_millis(3), at(0));
        facts.failed(&StepError::timeout("commit", Stage::Commit), at(100));
        facts.failed(&StepError::timeout("connect", Stage::Tcp), at(200));
        let seen = probe(&facts, at(300));
        let failing = seen.failing.unwrap();
        assert_eq!((failing.since, failing.latest, failing.count, failing.stage), (200, 100, 2, Stage::Tcp));
        assert_eq!((seen.committed, seen.committing_since, seen.commit_took), (Some(300), None, Some(3)));

        facts.selected(at(400));
        assert!(probe(&facts, at(400)).failing.is_none(), "connecting works again");
        facts.failed(&StepError::timeout("commit", Stage::Commit), at(500));
        facts.selected(at(600));
        assert!(probe(&facts, at(600)).failing.is_some(), "a read does not mend commits");
        facts.committed(Duration::ZERO, at(700));
        let seen = probe(&facts, at(750));
        assert_eq!((seen.failing, seen.committed, seen.committing_since), (None, Some(50), Some(50)));
    }

    #[test]
    fn what_was_seen_of_one_primary_is_not_told_of_the_next() {
        let now = Instant::now();
        let facts = Facts::new("pod", now);
        assert!(facts.report(now).evidence.is_empty());
        facts.about(Some(&ReplicaName::new("a")));
        facts.committed(Duration::ZERO, now);
        facts.about(Some(&ReplicaName::new("b")));
        assert_eq!(probe(&facts, now), Probe::default());
    }

    #[test]
    fn news_is_told_at_once_and_routine_is_not() {
        let now = Instant::now();
        let facts = Facts::new("pod", now);
        facts.about(Some(&ReplicaName::new("a")));
        let mut changed = facts.changed();
        let mut news = |facts: &Facts| {
            let news = changed.has_changed().unwrap();
            changed.mark_unchanged();
            facts.idle();
            news
        };
        facts.committed(Duration::ZERO, now);
        assert!(news(&facts), "the first commit");
        facts.committed(Duration::ZERO, now);
        assert!(!news(&facts), "one of many");
        facts.began(Stage::Commit, now);
        assert!(!news(&facts), "the beginning of one");
        let lost = StepError { step: "s", stage: Stage::Commit, error: ProbeError::Refused { message: String::new() } };
        facts.failed(&lost, now);
        assert!(news(&facts), "a failure");
        facts.committed(Duration::ZERO, now);
        assert!(news(&facts), "its end");
    }

    #[test]
    fn a_pause_of_this_very_process_is_told_for_as_long_as_it_may_look_like_silence_of_the_server() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let facts = Facts::new("pod", start);
        facts.about(Some(&ReplicaName::new("a")));
        let turn_until = |from: u64, until: u64| (from..=until).step_by(250).for_each(|ms| facts.tick(at(ms)));
        let is_suspect = |now: u64| {
            let report = facts.report(at(now));
            report.own_gap > 2 * report.interval
        };
        turn_until(250, 1_000);
        assert!(!is_suspect(1_000));
        // Stopped until 4 s: what was under way seems to have had no answer, and this may be told before the loop turns again.
        facts.failed(&StepError::timeout("commit", Stage::Commit), at(4_000));
        assert!(is_suspect(4_000));
        turn_until(4_010, 9_000);
        assert!(is_suspect(9_000));
        turn_until(9_250, 9_500);
        assert!(!is_suspect(9_500), "by now another attempt has shown how the server is");
    }

    #[test]
    fn a_step_under_way_is_told_with_its_age() {
        let now = Instant::now();
        let facts = Facts::new("pod", now);
        facts.about(Some(&ReplicaName::new("a")));
        facts.began(Stage::Commit, now);
        let seen = probe(&facts, now + Duration::from_millis(1500));
        assert_eq!(seen.in_flight, Some(InFlight { stage: Stage::Commit, age: 1500 }));
    }
}
