//! Records of changes that are over: what happened since, and when redundancy is back. Pure.

use understudy_wire::evidence::Millis;
use understudy_wire::{Observer, ReplicaName};

use crate::decision::{Draft, Reason};
use crate::failover::assess::Assessment;
use crate::failover::record::{Entry, Milestone, Outcome, Phase, RecordUpdate};
use crate::failover::snapshot::{Kind, LastChange, Record, Snapshot};
use crate::following::replicates;
use crate::topology::is_redundant;

/// Seconds for which a record stays open for the first commit after a change. A busy consumer takes one or two.
const COMMIT_PATIENCE: i64 = 30;
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
            && commit_is_seen(s, record, &update);
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
    if !has(Milestone::Routed) {
        // It may be another operator that comes to write it down.
        let at = published(s, record).and_then(|change| change.at);
        let ago = at.map_or(0, |at| s.now.as_millisecond().saturating_sub(at.as_millisecond()));
        let ago = Millis::try_from(ago).unwrap_or(0);
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

/// Whether the first commit of a consumer is in the record, or is not to be waited for: there is no consumer that speaks, or
/// it does not commit for long, as when it is paused.
fn commit_is_seen(s: &Snapshot, record: &Record, update: &RecordUpdate) -> bool {
    let is_first = |entry: &Entry| entry.step == Milestone::FirstCommit;
    let is_there = record.steps.contains(&Milestone::FirstCommit.to_string()) || update.entries.iter().any(is_first);
    let published = s.status.last_change.as_ref().and_then(|change| change.at);
    let long_ago = published.is_none_or(|at| s.now.as_second().saturating_sub(at.as_second()) >= COMMIT_PATIENCE);
    is_there || !consumers_speak(s) || long_ago
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
