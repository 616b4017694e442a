//! What a run came to: from the statuses, the records and the verification to what is written down. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;
use understudy_lab_outcome::{Direct, Gap, Outcome};

use super::file::{Header, Run};
use super::judge::{self, Change, Facts, Kind};
use super::rows::{Act, Row};
use super::seen::{Mark, Seen};
use super::strike::Victim;

/// Everything that is known when a run has ended.
pub struct Ended<'a> {
    /// Which row.
    pub row: &'static Row,
    /// Counted from 0 within the row and commit.
    pub index: usize,
    /// Where and of what.
    pub header: &'a Header,
    /// What chance was drawn from.
    pub seed: u32,
    /// When it began, in UTC.
    pub started_at: String,
    /// Whom it was aimed at.
    pub victim: &'a Victim,
    /// Shards that it hit.
    pub hit: Vec<String>,
    /// How long the fault was to last.
    pub hold: Duration,
    /// How far the best standby was behind at the fault.
    pub lag: Option<f64>,
    /// When the fault came into force.
    pub at: Instant,
    /// How long nobody could do anything about it.
    pub excused: Option<Duration>,
    /// What the statuses showed since.
    pub seen: &'a Seen,
    /// Epochs before it: at the end of the run before, where there was one.
    pub before: BTreeMap<String, i64>,
    /// Failovers that are records of later ones.
    pub records: Vec<Value>,
    /// What the verification found.
    pub outcome: Outcome,
    /// Whether everything was there again.
    pub redundant: bool,
}

impl Ended<'_> {
    /// Changes of primary, from their records; one that has none is a change all the same.
    fn changes(&self) -> Vec<Change> {
        let mut changes: Vec<_> = self.records.iter().filter_map(Change::of).collect();
        for shard in self.seen.names() {
            let is_told = |change: &Change| change.shard == *shard && change.kind != Kind::Confirm;
            if self.seen.has_changed(shard) && !changes.iter().any(is_told) {
                let shard = shard.clone();
                let (failed, cause, record) = (false, None, String::new());
                changes.push(Change { shard, kind: Kind::Failover, failed, cause, record });
            }
        }
        changes
    }

    /// The epoch of each shard, as the statuses showed it and the records tell it: some of them came after the last look.
    fn epochs_after(&self) -> BTreeMap<String, i64> {
        let mut epochs = self.seen.epochs();
        for record in &self.records {
            if let (Some(change), Some(epoch)) = (Change::of(record), judge::epoch_of(record)) {
                let known = epochs.entry(change.shard).or_default();
                *known = epoch.max(*known);
            }
        }
        epochs
    }

    /// The run, as it is written down.
    pub fn run(self) -> Run {
        let facts = Facts {
            hit: self.hit.clone(),
            changes: self.changes(),
            exact: self.outcome.is_exact(),
            stale_answers: self.outcome.stale_answers,
            answers_after: self.outcome.answers_after_change,
            verdicts: self.seen.verdicts(&self.victim.shard).to_vec(),
            redundant: self.redundant,
        };
        let Self { row, seen, outcome, at, victim, .. } = &self;
        let since = |mark: Option<Instant>| mark.map(|mark| mark.saturating_duration_since(*at).as_secs_f64());
        let all: Vec<String> = seen.names().cloned().collect();
        let of_hit = || self.hit.iter().filter_map(|shard| outcome.shards.get(shard));
        // A watcher that stood still in a gap may have missed when it began or ended: no gap is told shorter than it may have been.
        let write_gap = of_hit().map(|shard| shard.write_gap.at_most_seconds).max_by(f64::total_cmp);
        let bound = |gap: Option<Gap>| gap.map(|gap| gap.at_most_seconds);
        let directs: Vec<Direct> = of_hit().filter_map(|shard| shard.direct).collect();
        let longest = |of: fn(&Direct) -> f64| directs.iter().map(of).max_by(f64::total_cmp);
        let rebuilt = seen.mark(&all, Mark::Broken).and_then(|_| seen.mark(&all, Mark::Whole));
        let cause = facts.changes.iter().find(|change| self.hit.contains(&change.shard)).and_then(|c| c.cause.clone());
        Run {
            row: row.id.to_owned(),
            fault: row.name.to_owned(),
            index: self.index,
            revision: self.header.revision.clone(),
            seed: self.seed,
            started_at: self.started_at.clone(),
            subject: subject(row, victim),
            shards: self.hit.clone(),
            hold_s: self.hold.as_secs_f64(),
            injections: row.injections,
            lag_s: self.lag,
            excused_s: self.excused.map(|excused| excused.as_secs_f64()),
            detect_s: since(seen.mark(&self.hit, Mark::Detected)),
            claim_s: since(seen.mark(&self.hit, Mark::Claimed)),
            promote_s: since(seen.mark_of_all(&self.hit, Mark::Promoted)),
            rebuild_s: since(rebuilt.filter(|_| self.redundant)),
            ack_gap_s: bound(outcome.ack_gap).or(outcome.ack_gap_seconds),
            write_gap_s: write_gap.or(outcome.write_gap_seconds),
            visible_gap_s: bound(outcome.visible_gap).or(outcome.visible_gap_seconds),
            stale_read_s: outcome.stale_read_seconds,
            stale_answers: outcome.stale_answers,
            answers_after_change: outcome.answers_after_change,
            direct_read_s: longest(|direct| direct.read_seconds),
            direct_write_s: longest(|direct| direct.write_seconds),
            direct_writes: (!directs.is_empty()).then(|| directs.iter().map(|direct| direct.writes).sum()),
            acked: outcome.acknowledged,
            unknown: outcome.unknown,
            lost: outcome.lost,
            doubled: outcome.doubled,
            explained: outcome.explained,
            alien: outcome.alien,
            replayed: outcome.shards.values().map(|shard| shard.replayed).sum(),
            verdict: seen.worst(),
            verdicts: seen.verdicts(&victim.shard).to_vec(),
            cause,
            records: facts.changes.iter().map(|change| change.record.clone()).filter(|name| !name.is_empty()).collect(),
            false_failover: judge::false_failovers(row, &facts),
            near_misses: judge::near_misses(&facts),
            epochs_before: self.before.clone(),
            epochs_after: self.epochs_after(),
            judgement: judge::judge(row, &facts),
        }
    }
}

/// The name of what a row is aimed at.
pub fn subject(row: &Row, victim: &Victim) -> String {
    match row.act {
        Act::Fault(fault) | Act::Both(fault, _) => victim.name(fault.aim).to_owned(),
        Act::KillBoth | Act::KillDuring(_) | Act::Switchover | Act::DeletePod => victim.primary.clone(),
        Act::DeleteStandby | Act::DeleteStandbyDuring(_) => victim.standby.clone(),
        Act::Load(_) | Act::Idle => "all".to_owned(),
    }
}

/// What two loads came to: gaps are of the first, which went on the whole time.
pub fn together(first: Outcome, beside: Option<&Outcome>) -> Outcome {
    let Some(beside) = beside else { return first };
    Outcome {
        acknowledged: first.acknowledged + beside.acknowledged,
        unknown: first.unknown + beside.unknown,
        lost: first.lost + beside.lost,
        doubled: first.doubled + beside.doubled,
        explained: first.explained + beside.explained,
        alien: first.alien + beside.alien,
        stale_answers: first.stale_answers + beside.stale_answers,
        ..first
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use understudy_lab_outcome::ShardOutcome;

    use super::super::file::tests::header;
    use super::super::judge::Judgement;
    use super::super::rows::ROWS;
    use super::*;

    fn shard(primary: &str, epoch: i64, verdict: (&str, Option<&str>), ready: i64) -> Value {
        json!({
            "kind": "Shard", "metadata": {"name": "s-0", "generation": 1}, "spec": {"replicas": 3},
            "status": {"observedGeneration": 1, "primary": primary, "epoch": epoch, "transition": null,
                "verdict": {"state": verdict.0, "cause": verdict.1}, "readyReplicas": ready, "promotable": ready - 1},
        })
    }

    fn gap(seconds: f64, at_most_seconds: f64) -> Gap {
        Gap { seconds, at_most_seconds, open: false }
    }

    fn outcome(write_gap: f64) -> Outcome {
        let direct = Direct { reads: 3, read_seconds: 4.0, writes: 2, write_seconds: 0.25 };
        let of = |seconds, direct| ShardOutcome { write_gap: gap(seconds, seconds), replayed: 5, direct };
        Outcome {
            acknowledged: 1000,
            unknown: 1,
            lost: 0,
            doubled: 0,
            explained: 2,
            alien: 0,
            ack_gap_seconds: Some(0.2),
            write_gap_seconds: Some(9.0),
            visible_gap_seconds: Some(3.0),
            ack_gap: None,
            visible_gap: None,
            stale_answers: 0,
            answers_after_change: Some(40),
            stale_read_seconds: Some(0.0),
            shards: [("s-0".to_owned(), of(write_gap, Some(direct))), ("s-1".to_owned(), of(9.0, None))].into(),
        }
    }

    /// A freeze of s-0 at second 0: seen as Stuck at 3, b in office at 4, whole at 30.
    fn freeze(records: Vec<Value>, outcome: Outcome) -> Run {
        let zero = Instant::now();
        let mut seen = Seen::of(["s-0".to_owned()]);
        seen.take(&shard("a", 4, ("Healthy", None), 3), zero);
        seen.begin();
        for (second, object) in [
            (3, shard("a", 4, ("Stuck", Some("Stopped")), 3)),
            (4, shard("b", 5, ("Healthy", None), 2)),
            (30, shard("b", 5, ("Healthy", None), 3)),
        ] {
            seen.take(&object, zero + Duration::from_secs(second));
        }
        let victim = Victim { shard: "s-0".into(), primary: "a".into(), ..Victim::default() };
        Ended {
            row: ROWS.iter().find(|row| row.name == "freeze").unwrap(),
            index: 7,
            header: &header("c0ffee"),
            seed: 1,
            started_at: "2026-01-02T03:04:05Z".into(),
            victim: &victim,
            hit: vec!["s-0".into()],
            hold: Duration::from_secs(60),
            lag: None,
            at: zero,
            excused: None,
            seen: &seen,
            before: [("s-0".to_owned(), 4)].into(),
            records,
            outcome,
            redundant: true,
        }
        .run()
    }

    fn record() -> Value {
        json!({"metadata": {"name": "s-0-5"}, "spec": {"shard": "s-0", "kind": "Failover"},
            "status": {"epoch": 5, "result": "Succeeded", "from": "a", "to": "b", "cause": "Stopped"}})
    }

    #[test]
    fn a_run_has_the_times_of_its_shard_and_the_words_of_its_record() {
        let run = freeze(vec![record()], outcome(4.5));
        assert_eq!(
            (run.detect_s, run.claim_s, run.promote_s, run.rebuild_s),
            (Some(3.0), Some(4.0), Some(4.0), Some(30.0))
        );
        assert_eq!((run.write_gap_s, run.ack_gap_s, run.visible_gap_s), (Some(4.5), Some(0.2), Some(3.0)));
        assert_eq!((run.direct_read_s, run.direct_write_s, run.direct_writes), (Some(4.0), Some(0.25), Some(2)));
        assert_eq!((run.cause.as_deref(), run.verdict.as_str()), (Some("Stopped"), "Stuck(Stopped)"));
        assert_eq!((run.records, run.replayed, run.subject.as_str()), (vec!["s-0-5".to_owned()], 10, "a"));
        assert_eq!((run.epochs_before["s-0"], run.epochs_after["s-0"]), (4, 5));
        assert_eq!(run.judgement, Judgement::AsItMust);
    }

    #[test]
    fn a_gap_in_which_the_watcher_stood_still_is_told_with_that_time() {
        let mut paused = outcome(4.5);
        paused.shards.get_mut("s-0").unwrap().write_gap = gap(4.5, 6.0);
        paused.ack_gap = Some(gap(0.2, 0.4));
        paused.visible_gap = Some(gap(3.0, 3.5));
        let run = freeze(vec![record()], paused);
        assert_eq!((run.write_gap_s, run.ack_gap_s, run.visible_gap_s), (Some(6.0), Some(0.4), Some(3.5)));
    }

    #[test]
    fn a_change_of_primary_without_a_record_is_a_change_all_the_same() {
        let run = freeze(Vec::new(), outcome(4.5));
        assert_eq!((run.judgement, run.records.len(), run.cause), (Judgement::Unrecorded, 0, None));
    }

    #[test]
    fn a_change_that_came_after_the_last_look_is_not_told_again_with_the_next_run() {
        let late = json!({"metadata": {"name": "s-0-6"}, "spec": {"shard": "s-0", "kind": "Failover"},
            "status": {"epoch": 6, "result": "Succeeded", "from": "b", "to": "c", "cause": "Stopped"}});
        let run = freeze(vec![record(), late], outcome(4.5));
        assert_eq!((run.judgement, run.epochs_after["s-0"]), (Judgement::Repeated, 6));
    }

    #[test]
    fn of_two_loads_nothing_that_was_lost_is_forgotten() {
        let beside = Outcome { lost: 1, acknowledged: 10, write_gap_seconds: Some(99.0), ..outcome(1.0) };
        let both = together(outcome(1.0), Some(&beside));
        assert_eq!((both.lost, both.acknowledged, both.write_gap_seconds), (1, 1010, Some(9.0)));
        assert_eq!(freeze(vec![record()], both).judgement, Judgement::Inexact);
        let stale = Outcome { stale_answers: 2, ..outcome(1.0) };
        let both = together(outcome(1.0), Some(&stale));
        assert_eq!((both.stale_answers, freeze(vec![record()], both).judgement), (2, Judgement::Stale));
    }
}
