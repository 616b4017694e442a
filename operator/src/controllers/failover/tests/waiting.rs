//! What is told of records that wait.

use std::time::Duration;

use tokio::time::Instant;
use understudy_api::Failover;
use understudy_api::v1alpha1::FailoverResult;
use understudy_decide::failover::record::{Entry, Grounds, Milestone, Outcome, Phase, RecordUpdate};
use understudy_wire::{Epoch, ReplicaName};

use super::super::waiting::{Turn, Waiting};
use super::super::{Job, merge};
use super::{empty, job, of_shard, of_uid, offset, ranking, steps, update};

/// The updates of a whole change: the first candidate fails, the second one takes over, and the record is closed and measured after that.
fn change() -> Vec<Job> {
    let now = |step: Milestone, epoch: u64| vec![Entry::now(step, Epoch(epoch))];
    let second = |phase: Phase, entries: Vec<Entry>| {
        let to = Some(ReplicaName::new("m-c"));
        RecordUpdate { epoch: Epoch(6), to, ..update(phase, entries) }
    };
    let mut claimed = update(Phase::Claimed, now(Milestone::Claimed, 5));
    claimed.entries.insert(0, Entry::ago(Milestone::FirstSign, Epoch(5), 2_500));
    claimed.message = Some("mysqld exited".into());
    let grounds = Grounds { ranking: ranking(), offsets_before: vec![offset(120)], ..Grounds::default() };
    claimed.grounds = Some(Box::new(grounds));
    let mut promoted = second(Phase::Rebuilding, now(Milestone::Promoted, 6));
    promoted.offsets_after = Some(vec![offset(100)]);
    let closed = |step| {
        let result = Some(Outcome::Succeeded);
        RecordUpdate { result, ..second(Phase::Closed, now(step, 6)) }
    };
    let mut measured = job(closed(Milestone::Following), 40);
    measured.measured.write_gap = Some(1.26);
    let told = [
        (claimed, 0),
        (update(Phase::Promoting, now(Milestone::Reprobed, 5)), 1),
        (update(Phase::Promoting, vec![]), 2),
        (update(Phase::Promoting, now(Milestone::Fenced, 5)), 3),
        (second(Phase::Claimed, now(Milestone::Claimed, 6)), 4),
        (promoted, 5),
        (second(Phase::Rebuilding, now(Milestone::Routed, 6)), 6),
        (second(Phase::Rebuilding, now(Milestone::Routed, 6)), 7),
        (closed(Milestone::Redundant), 30),
        (second(Phase::Rebuilding, now(Milestone::Condemned, 6)), 35),
    ];
    told.into_iter().map(|(update, second)| job(update, second)).chain([measured]).collect()
}

#[test]
fn what_was_known_at_the_decision_is_not_changed_by_who_tells_it_again() {
    let grounds = |own: &str| Some(Box::new(Grounds { own: own.into(), ..Grounds::default() }));
    let claimed = |own: &str| RecordUpdate { grounds: grounds(own), ..update(Phase::Claimed, vec![]) };
    let said = |record: Failover| record.status.expect("a status").evidence.into_iter().map(|note| note.fact).collect();
    let mut one_by_one = empty();
    merge(&mut one_by_one, &job(claimed("first"), 0));
    merge(&mut one_by_one, &job(claimed("later"), 1));
    let mut waiting = Waiting::default();
    waiting.note(job(claimed("first"), 0));
    waiting.note(job(claimed("later"), 1));
    let Turn::Of(_, jobs) = waiting.take(Instant::now()) else { panic!("nothing waits") };
    let mut together = empty();
    for job in &jobs {
        merge(&mut together, job);
    }
    for record in [one_by_one, together] {
        let said: Vec<String> = said(record);
        assert_eq!(said, ["first"]);
    }
}

#[test]
fn what_was_told_of_a_record_while_it_waited_makes_it_as_if_it_had_been_told_one_by_one() {
    let recorded = |jobs: &[Job]| {
        let mut record = empty();
        for job in jobs {
            merge(&mut record, job);
        }
        let mut status = record.status.expect("a status");
        // Since when it has not been complete is not known more exactly than by the last that was told.
        status.conditions.clear();
        status
    };
    let told = change();
    for count in 1..=told.len() {
        let mut waiting = Waiting::default();
        // A stage says the same again with each pass.
        told[..count].iter().flat_map(|job| [job, job]).for_each(|job| waiting.note(job.clone()));
        let Turn::Of(_, jobs) = waiting.take(Instant::now()) else { panic!("{count}: nothing waits") };
        assert_eq!(recorded(&jobs), recorded(&told[..count]), "{count}");
        assert!(jobs.len() <= 5, "one for each phase of each epoch: {}", jobs.len());
    }
    let all = recorded(&told);
    assert_eq!(
        (steps(&all).len(), all.result, all.gap.as_deref()),
        (8, Some(FailoverResult::Succeeded), Some("1.3s")),
        "{:?}",
        steps(&all)
    );
}

#[test]
fn a_record_that_could_not_be_written_waits_and_is_told_the_rest_then() {
    let start = Instant::now();
    let soon = start + Duration::from_millis(500);
    let claimed = |shard| of_shard(shard, update(Phase::Claimed, vec![]), 0);
    let mut waiting = Waiting::default();
    waiting.note(claimed("a"));
    waiting.note(claimed("b"));
    let take = |waiting: &mut Waiting, now| match waiting.take(now) {
        Turn::Of((namespace, record), jobs) => (format!("{namespace}/{record}"), jobs),
        Turn::Wait(until) => (format!("wait {:?}", until.map(|until| until - start)), vec![]),
    };
    let (first, jobs) = take(&mut waiting, start);
    assert_eq!((first.as_str(), jobs.len()), ("prod/a-5", 1));
    waiting.put_back(("prod".into(), first.split_once('/').expect("a name").1.into()), jobs, soon);
    waiting.note(of_shard("a", update(Phase::Promoting, vec![]), 1));
    assert_eq!(take(&mut waiting, start).0, "prod/b-5", "it holds up no other");
    assert_eq!(take(&mut waiting, start).0, "wait Some(500ms)");
    let (again, jobs) = take(&mut waiting, soon);
    let phases: Vec<_> = jobs.iter().map(|job| job.update.phase).collect();
    assert_eq!((again.as_str(), phases), ("prod/a-5", vec![Phase::Claimed, Phase::Promoting]));
    assert_eq!(take(&mut waiting, soon).0, "wait None");
}

#[test]
fn what_waits_of_an_earlier_shard_is_forgotten_when_the_next_one_speaks() {
    let mut waiting = Waiting::default();
    waiting.note(of_uid("old", Phase::Closed, Milestone::Redundant));
    waiting.note(of_uid("new", Phase::Claimed, Milestone::Claimed));
    let Turn::Of(_, jobs) = waiting.take(Instant::now()) else { panic!("nothing waits") };
    let told: Vec<_> = jobs.iter().map(|job| (job.shard.metadata.uid.as_deref(), job.update.phase)).collect();
    assert_eq!(told, [(Some("new"), Phase::Claimed)]);
}
