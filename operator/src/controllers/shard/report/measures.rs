//! What the metrics tell of a shard: the same as its status, and how far its consumers are. Pure.

use std::collections::BTreeMap;

use understudy_api::names;
use understudy_api::v1alpha1::{PartitionState, ShardStatus};
use understudy_decide::Decision;
use understudy_decide::failover::snapshot::Snapshot;
use understudy_wire::Observer;

use super::super::notes;
use super::super::observe::Objects;
use crate::events::Reason;
use crate::metrics::shards::ShardFacts;

/// From the status that is shown next, and how often each event was said.
pub fn of(
    next: &ShardStatus,
    s: &Snapshot,
    d: &Decision,
    objects: &Objects,
    said: &BTreeMap<&'static str, u32>,
) -> ShardFacts {
    let (told, silent) = objects.partitions();
    let verdict = next.verdict.clone().unwrap_or_default();
    let last = next.last_failover.as_ref();
    ShardFacts {
        datastore: names::datastore_of(&objects.shard).unwrap_or_default().to_owned(),
        verdict: verdict.state,
        verdict_since: verdict.since.map(|since| since.0.as_second()),
        epoch: next.epoch,
        desired: objects.shard.spec.replicas,
        ready: next.ready_replicas,
        promotable: next.promotable,
        replication_delay: next.lag_seconds,
        consumer_delay: told.iter().filter_map(|partition| partition.lag_seconds).reduce(f64::max),
        paused_partitions: told.iter().filter(|partition| partition.state == PartitionState::Paused).count(),
        silent_partitions: silent.len(),
        low_volumes: d.view.replicas.iter().filter(|replica| replica.low_volume.is_some()).count(),
        paused: s.policy.paused,
        mode: objects.shard.spec.failover.mode,
        withheld: notes::withheld(&d.notes),
        last_change: last.and_then(|last| Some((last.kind, last.time.as_ref()?.0.as_second()))),
        last_gap: last.and_then(|last| last.gap_seconds),
        evidence: evidence(s),
        near_misses: said.get(<&str>::from(Reason::NearMiss)).copied().unwrap_or_default(),
        suspicions_cleared: said.get(<&str>::from(Reason::SuspicionCleared)).copied().unwrap_or_default(),
        refusals: notes::refusals(said),
        availability: next.availability.clone(),
    }
}

/// How old the newest word on the primary is of each kind of observer, seconds.
fn evidence(s: &Snapshot) -> BTreeMap<&'static str, f64> {
    let mut ages = BTreeMap::new();
    let Some(primary) = &s.status.primary else { return ages };
    let about = s.reports.iter().filter(|received| received.report.evidence.iter().any(|e| e.subject == *primary));
    for received in about {
        let kind = match &received.report.observer {
            Observer::Manager { replica } if replica == primary => "manager",
            Observer::Manager { .. } | Observer::Peer { .. } => "peer",
            Observer::Consumer { .. } => "consumer",
            Observer::Operator { .. } => "operator",
            Observer::Unknown => continue,
        };
        let age = std::time::Duration::from_millis(received.age).as_secs_f64();
        let newest = ages.entry(kind).or_insert(age);
        *newest = age.min(*newest);
    }
    ages
}
