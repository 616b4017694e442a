//! Records of changes that are over: what happened since, and when redundancy is back. Pure.

use understudy_wire::evidence::{Millis, StoredOffset};
use understudy_wire::{Epoch, Observer, ReplicaName};

use crate::availability::COMMIT_PATIENCE;
use crate::decision::{Draft, OrderKind, Reason};
use crate::failover::assess::Assessment;
use crate::failover::record::{Entry, Milestone, Outcome, Phase, RecordUpdate};
use crate::failover::snapshot::{Kind, LastChange, OrderOutcome, Record, Snapshot, Transition};
use crate::failover::transition::tell;
use crate::following::replicates;
use crate::topology::is_redundant;

/// What a record says that was never begun. It does not take the place of anything that was said.
const UNTOLD: &str = "why it was decided is not known: the operator that did ended before it could say so";

/// Completes the records of changes after which a primary took office.
pub(crate) fn close(s: &Snapshot, a: &Assessment, primary: &ReplicaName, d: &mut Draft) {
    for record in &s.records {
        let mut update = update(s, record);
        milestones(s, primary, record, &mut update);
        let redundant = is_redundant(s, primary)
            && a.verdict.commits()
            && old_is_settled(s, record, primary)
            && consumers_are_seen(s, primary, record, &update);
        if redundant {
            update.entries.push(Entry::now(Milestone::Redundant, record.epoch));
            update.phase = Phase::Closed;
            d.note(Reason::RedundancyBack, format!("{}: as many intact copies as asked for", record.name));
        }
        if redundant || !update.entries.is_empty() {
            d.records.push(update);
        }
    }
}

/// The old primary of a failover answers the fence when it can, and nothing waits for it: its answer is written down when it comes.
pub(crate) fn under_way(s: &Snapshot, t: &Transition, d: &mut Draft) {
    let old = t.from.as_ref().filter(|_| t.kind == Kind::Failover);
    if let Some(fenced) = old.and_then(|old| fenced(s, old, t.epoch)) {
        tell(t, Phase::Fencing, vec![fenced], d);
    }
}

/// That a primary that was failed over is known to take no writes.
fn fenced(s: &Snapshot, old: &ReplicaName, epoch: Epoch) -> Option<Entry> {
    let answer = s.order(old, OrderKind::Fence, epoch)?;
    let said = match &answer.outcome {
        OrderOutcome::Done(Some(last)) => format!("{old} refuses writes and has executed {last}"),
        OrderOutcome::Done(None) => format!("the server of {old} was ended"),
        OrderOutcome::InFlight | OrderOutcome::Failed(_) => return None,
    };
    Some(Entry::now(Milestone::Fenced, epoch).saying(said))
}

/// What was published of the change that a record is of, if that was the last one.
fn published<'a>(s: &'a Snapshot, record: &Record) -> Option<&'a LastChange> {
    s.status.last_change.as_ref().filter(|change| change.record.as_ref() == Some(&record.name))
}

fn update(s: &Snapshot, record: &Record) -> RecordUpdate {
    // What was published counts more than what the record got to know before the operator was restarted.
    let published = published(s, record);
    let kind = published.map_or(record.kind, |change| change.kind);
    let is_begun = record.steps.contains(&Milestone::Claimed.to_string());
    RecordUpdate {
        name: record.name.clone(),
        kind,
        epoch: published.map_or(record.epoch, |change| change.epoch),
        from: published.and_then(|change| change.from.clone()).or_else(|| record.from.clone()),
        to: published.and(s.status.primary.clone()).or_else(|| record.to.clone()),
        cause: published.and_then(|change| change.cause.clone()),
        message: (!is_begun).then(|| UNTOLD.to_owned()),
        phase: Phase::Rebuilding,
        result: Some(if kind == Kind::Confirm { Outcome::Confirmed } else { Outcome::Succeeded }),
        entries: Vec::new(),
        grounds: None,
        offsets_after: None,
    }
}

fn milestones(s: &Snapshot, primary: &ReplicaName, record: &Record, update: &mut RecordUpdate) {
    let epoch = update.epoch;
    let has = |step: Milestone| record.steps.iter().any(|have| *have == step.to_string());
    // It may be another operator that comes to write down what led here.
    let at = published(s, record).and_then(|change| change.at);
    let ago = at.map_or(0, |at| s.now.as_millisecond().saturating_sub(at.as_millisecond()));
    let ago = Millis::try_from(ago).unwrap_or(0);
    if at.is_some() && !record.claimed.contains(&epoch) {
        // When exactly is gone with the transition; not later than the route.
        update.entries.push(Entry::ago(Milestone::Claimed, epoch, ago));
    }
    if !has(Milestone::Routed) {
        if !has(Milestone::Promoted) {
            // When exactly is gone with whoever was told; not later than the route, which points at nobody who was not.
            update.entries.push(Entry::ago(Milestone::Promoted, epoch, ago));
        }
        update.entries.push(Entry::ago(Milestone::Routed, epoch, ago));
    }
    if !has(Milestone::FirstCommit)
        && let Some(ago) = first_commit(s, primary)
    {
        update.entries.push(Entry::ago(Milestone::FirstCommit, epoch, ago));
    }
    if !has(Milestone::Fenced)
        && update.kind == Kind::Failover
        && let Some(fenced) = update.from.as_ref().and_then(|old| fenced(s, old, epoch))
    {
        update.entries.push(fenced);
    }
    if !has(Milestone::ConsumersCaughtUp) && caught_up(s, primary) == Some(true) {
        update.entries.push(Entry::now(Milestone::ConsumersCaughtUp, epoch));
    }
    if !has(Milestone::Following) && everybody_follows(s, primary) {
        update.entries.push(Entry::now(Milestone::Following, epoch));
    }
    let condemned = update.from.as_ref().and_then(|from| s.replicas.get(from)).and_then(|old| old.condemned.as_ref());
    if !has(Milestone::Condemned) && condemned.is_some() {
        update.entries.push(Entry::now(Milestone::Condemned, epoch));
    }
}

/// Since when consumers have been committing on this primary.
pub(crate) fn first_commit(s: &Snapshot, primary: &ReplicaName) -> Option<Millis> {
    let consumers = s.reports.iter().filter(|received| matches!(received.report.observer, Observer::Consumer { .. }));
    let since = consumers.flat_map(|received| {
        let about = received.report.evidence.iter().filter(|evidence| evidence.subject == *primary);
        about.filter_map(|evidence| Some(evidence.probe.as_ref()?.committing_since? + received.age))
    });
    since.max()
}

/// Whether there is a consumer that could tell of its commits.
pub(crate) fn consumers_speak(s: &Snapshot) -> bool {
    s.reports.iter().any(|received| matches!(received.report.observer, Observer::Consumer { .. }))
}

/// Whether the consumers have stored on this primary all that the topic held when it took office; None when nobody tells of the topic.
fn caught_up(s: &Snapshot, primary: &ReplicaName) -> Option<bool> {
    if s.memory.ends.is_empty() {
        return None;
    }
    let read = s.own_report(primary).and_then(|(server, _)| server.offsets.as_ref());
    let stored: &[StoredOffset] = read.map_or(&[], |read| &read.value);
    let has = |((topic, partition), end): (&(String, i32), &i64)| {
        let needed = needed(s, topic, *partition, *end);
        let its = |row: &&StoredOffset| {
            row.topic == *topic && row.partition == *partition && s.consumers.contains(&row.consumer)
        };
        let mut rows = stored.iter().filter(its).peekable();
        needed <= 0 || (rows.peek().is_some() && rows.all(|row| row.next_offset >= needed))
    };
    Some(s.memory.ends.iter().all(has))
}

/// The offset up to which a partition that ended here feeds this shard; zero when it does not.
fn needed(s: &Snapshot, topic: &str, partition: i32, end: i64) -> i64 {
    match s.feeds.get(&(topic.to_owned(), partition)) {
        None => end,
        Some(spans) => {
            let reached =
                spans.iter().filter(|span| span.from < end).map(|span| span.until.map_or(end, |u| u.min(end)));
            reached.max().unwrap_or(0)
        }
    }
}

/// Whether what consumers do after the change is in the record, or is not to be waited for: there is no consumer that speaks, or
/// it does not commit for long, as when it is paused.
fn consumers_are_seen(s: &Snapshot, primary: &ReplicaName, record: &Record, update: &RecordUpdate) -> bool {
    let has = |step: Milestone| {
        record.steps.contains(&step.to_string()) || update.entries.iter().any(|entry| entry.step == step)
    };
    let is_current = has(Milestone::ConsumersCaughtUp) || caught_up(s, primary).is_none();
    let published = s.status.last_change.as_ref().and_then(|change| change.at);
    let long_ago = published.is_none_or(|at| s.now.as_second().saturating_sub(at.as_second()) >= COMMIT_PATIENCE);
    (has(Milestone::FirstCommit) && is_current) || !consumers_speak(s) || long_ago
}

/// Whether every standby that works replicates from this primary.
fn everybody_follows(s: &Snapshot, primary: &ReplicaName) -> bool {
    let standbys = s.cast().filter(|(name, _)| *name != primary);
    let working = standbys.filter_map(|(name, _)| s.fresh_report(name)).map(|(server, _)| server);
    let mut working = working.filter(|server| server.phase == understudy_wire::evidence::Phase::Running).peekable();
    working.peek().is_some() && working.all(|server| replicates(s, server))
}

/// Whether the old primary is condemned, gone, or follows.
fn old_is_settled(s: &Snapshot, record: &Record, primary: &ReplicaName) -> bool {
    let old = record.from.as_ref().filter(|old| *old != primary).and_then(|old| Some((old, s.replicas.get(old)?)));
    old.is_none_or(|(name, replica)| {
        replica.condemned.is_some() || s.fresh_report(name).is_some_and(|(server, _)| replicates(s, server))
    })
}
