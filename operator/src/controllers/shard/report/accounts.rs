//! What a Shard's status tells of its availability. Pure.
//!
//! The entries and what they hold are written together with the verdict, over the version that they were worked out from: whatever is added
//! here is added once.

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use understudy_api::v1alpha1::{AvailabilityLedger, ShardStatus, Verdict, VerdictState};

use super::super::observe::Objects;
use crate::controllers::availability::{availability, incidents, ledger, told};

/// Puts it into the status that is shown next; `before` is the verdict that was shown last.
pub fn show(status: &mut ShardStatus, before: Option<&Verdict>, objects: &Objects, now: Timestamp) {
    if status.epoch == 0 {
        // Before the first primary nobody waits for one.
        return;
    }
    let incidents = incidents(&objects.failovers, now);
    let mut book = status.availability_ledger.as_ref().map(ledger).unwrap_or_default();
    book.take_over(&incidents, now);
    let lasts = status.verdict.as_ref().and_then(|verdict| unrecorded(status, verdict));
    if let Some(since) = before.and_then(|verdict| unrecorded(status, verdict)).filter(|since| lasts != Some(*since)) {
        book.outage(since, now);
    }
    let born = objects.shard.creation_timestamp().map_or(now, |time| time.0);
    status.availability = Some(availability(&book.summary(&incidents, lasts, born, now)));
    status.availability_ledger = Some(told(&book)).filter(|told| *told != AvailabilityLedger::default());
}

/// Since when a primary has been dead of which no record tells. A change of primary is in the status before its record is there.
fn unrecorded(status: &ShardStatus, verdict: &Verdict) -> Option<Timestamp> {
    let is_dead = matches!(verdict.state, VerdictState::Stuck | VerdictState::Gone);
    let since = verdict.since.as_ref().filter(|_| is_dead)?.0;
    let changed = status.last_failover.as_ref().and_then(|last| last.time.as_ref()).map(|time| time.0);
    (status.transition.is_none() && changed.is_none_or(|at| at < since)).then_some(since)
}
