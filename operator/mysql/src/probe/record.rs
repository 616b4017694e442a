//! What an observer remembers of its attempts, and how it tells it. Pure: the clock is an argument.

use std::time::{Duration, Instant};

use understudy_wire::evidence::{Failing, InFlight, Probe, ProbeError, Stage, millis};

use super::Deadlines;
use super::attempt::{Failure, Success};

#[derive(Clone, Debug)]
struct Run {
    since: Instant,
    latest: Instant,
    count: u32,
    stage: Stage,
    error: ProbeError,
    /// When the first attempt that nobody answered began to wait.
    unanswered: Option<Instant>,
    /// When the latest attempt ended that the server answered with an error.
    answered: Option<Instant>,
}

/// The last success and the present run of failures against one server.
#[derive(Clone, Debug, Default)]
pub struct Record {
    committed: Option<Instant>,
    committing_since: Option<Instant>,
    selected: Option<Instant>,
    commit_took: Option<Duration>,
    failing: Option<Run>,
    in_flight: Option<(Stage, Instant)>,
}

impl Record {
    /// An attempt has reached a stage.
    pub fn enter(&mut self, stage: Stage, now: Instant) {
        // Reaching the commit proves the stage before it, even when the commit then hangs.
        if stage == Stage::Commit {
            self.selected = Some(now);
        }
        self.in_flight = Some((stage, now));
    }

    /// The attempt in flight, if any, was given up without a finding.
    pub fn abandon(&mut self) {
        self.in_flight = None;
    }

    /// An attempt with these deadlines has ended. Whether that is news: the first failure, the first success, or a failure of another kind.
    pub fn end(&mut self, outcome: &Result<Success, Failure>, deadlines: Deadlines, now: Instant) -> bool {
        self.in_flight = None;
        match outcome {
            Ok(success) => {
                self.selected = Some(now);
                if success.commit_took.is_some() {
                    self.committed = Some(now);
                    self.committing_since.get_or_insert(now);
                    self.commit_took = success.commit_took;
                }
                self.failing.take().is_some()
            }
            Err(failure) => {
                self.committing_since = None;
                let before = self.failing.take();
                let is_news =
                    before.as_ref().is_none_or(|run| run.stage != failure.stage || run.error != failure.error);
                // The deadline, and not what the clock says: an observer that was paused meanwhile has not waited for that.
                let began = || now.checked_sub(deadlines.of(failure.stage)).unwrap_or(now);
                let is_silence = failure.error == ProbeError::Timeout;
                let unanswered = before.as_ref().and_then(|run| run.unanswered);
                let answered = before.as_ref().and_then(|run| run.answered);
                self.failing = Some(Run {
                    unanswered: unanswered.or_else(|| is_silence.then(began)),
                    answered: failure.error.is_answer().then_some(now).or(answered),
                    since: before.as_ref().map_or(now, |run| run.since),
                    latest: now,
                    count: before.map_or(1, |run| run.count.saturating_add(1)),
                    stage: failure.stage,
                    error: failure.error.clone(),
                });
                is_news
            }
        }
    }

    /// The record with ages as of now.
    pub fn probe(&self, now: Instant) -> Probe {
        let age = |at: Instant| millis(now.saturating_duration_since(at));
        Probe {
            committed: self.committed.map(age),
            committing_since: self.committing_since.map(age),
            selected: self.selected.map(age),
            commit_took: self.commit_took.map(millis),
            failing: self.failing.as_ref().map(|run| Failing {
                since: age(run.since),
                latest: age(run.latest),
                count: run.count,
                stage: run.stage,
                error: run.error.clone(),
                unanswered: run.unanswered.map(age),
                answered: run.answered.map(age),
            }),
            in_flight: self.in_flight.map(|(stage, since)| InFlight { stage, age: age(since) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use understudy_wire::evidence::Millis;

    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    const DEADLINES: Deadlines = Deadlines { stage: Duration::from_millis(500), commit: Duration::from_millis(1500) };

    fn committed() -> Result<Success, Failure> {
        Ok(Success { commit_took: Some(ms(3)) })
    }

    fn failed(stage: Stage) -> Result<Success, Failure> {
        Err(Failure { stage, error: ProbeError::Timeout })
    }

    #[test]
    fn a_run_of_failures_keeps_its_start_and_its_latest_cause() {
        let start = Instant::now();
        let mut record = Record::default();
        assert!(!record.end(&committed(), DEADLINES, start), "a first success ends no run");
        assert!(record.end(&failed(Stage::Commit), DEADLINES, start + ms(1000)), "the first failure is news");
        assert!(!record.end(&failed(Stage::Commit), DEADLINES, start + ms(2000)), "the same again is not");
        assert!(record.end(&failed(Stage::Greeting), DEADLINES, start + ms(3000)), "another cause is");
        let probe = record.probe(start + ms(3500));
        let failing = Failing {
            since: 2500,
            latest: 500,
            count: 3,
            stage: Stage::Greeting,
            error: ProbeError::Timeout,
            unanswered: Some(4000),
            answered: None,
        };
        assert_eq!(probe.failing, Some(failing));
        assert_eq!((probe.committed, probe.committing_since), (Some(3500), None));
        assert!(record.end(&committed(), DEADLINES, start + ms(4000)), "the first success after failures is news");
        let probe = record.probe(start + ms(4000));
        assert_eq!((probe.failing, probe.committed, probe.committing_since), (None, Some(0), Some(0)));
    }

    #[test]
    fn what_nobody_answered_is_told_from_its_beginning_and_through_answers_after_it() {
        let locked = || {
            let error = ProbeError::Server { code: 1205, message: "lock wait".into() };
            Err(Failure { stage: Stage::Commit, error })
        };
        type Attempts = Vec<Result<Success, Failure>>;
        let ends: [(&str, Attempts, Option<Millis>); 5] = [
            ("a lock", vec![locked()], None),
            ("a commit that hangs", vec![failed(Stage::Commit)], Some(1500)),
            ("no greeting", vec![failed(Stage::Greeting)], Some(500)),
            ("a commit that hangs, then the lock that it holds", vec![failed(Stage::Commit), locked()], Some(3500)),
            ("a lock, then a commit that hangs", vec![locked(), failed(Stage::Commit)], Some(1500)),
        ];
        for (case, ends, expected) in ends {
            // A moment that is far enough from the beginning of the clock.
            let mut now = Instant::now() + ms(60_000);
            let mut record = Record::default();
            for end in &ends {
                now += ms(2000);
                record.end(end, DEADLINES, now);
            }
            let failing = record.probe(now).failing.unwrap();
            assert_eq!(failing.unanswered, expected, "{case}");
        }
    }

    #[test]
    fn what_the_server_answered_last_is_told_until_something_succeeds() {
        let start = Instant::now();
        let mut record = Record::default();
        let error = ProbeError::Server { code: 1205, message: "lock wait".into() };
        record.end(&Err(Failure { stage: Stage::Commit, error }), DEADLINES, start);
        record.end(&failed(Stage::Greeting), DEADLINES, start + ms(500));
        let told = |record: &Record| record.probe(start + ms(600)).failing.and_then(|failing| failing.answered);
        assert_eq!(told(&record), Some(600));
        record.end(&committed(), DEADLINES, start + ms(550));
        record.end(&failed(Stage::Greeting), DEADLINES, start + ms(600));
        assert_eq!(told(&record), None, "of a run before");
    }

    #[test]
    fn a_hanging_commit_shows_that_selects_still_work() {
        let start = Instant::now();
        let mut record = Record::default();
        record.enter(Stage::Select, start);
        record.enter(Stage::Commit, start + ms(100));
        let probe = record.probe(start + ms(900));
        assert_eq!(probe.selected, Some(800));
        assert_eq!(probe.in_flight, Some(InFlight { stage: Stage::Commit, age: 800 }));
        assert_eq!(probe.committed, None);
    }

    #[test]
    fn commits_in_a_row_keep_the_age_of_the_first() {
        let start = Instant::now();
        let mut record = Record::default();
        for at in [0, 250, 500] {
            record.end(&committed(), DEADLINES, start + ms(at));
        }
        let probe = record.probe(start + ms(600));
        assert_eq!((probe.committing_since, probe.committed, probe.commit_took), (Some(600), Some(100), Some(3)));
    }

    #[test]
    fn a_select_alone_is_no_commit() {
        let mut record = Record::default();
        let now = Instant::now();
        record.end(&Ok(Success { commit_took: None }), DEADLINES, now);
        let probe = record.probe(now);
        assert_eq!((probe.selected, probe.committed, probe.commit_took), (Some(0), None, None));
    }
}
