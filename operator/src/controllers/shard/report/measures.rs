//! What the metrics tell of a shard: the same as its status, and how far its consumers are. Pure.

use understudy_api::names;
use understudy_api::v1alpha1::{PartitionState, ShardStatus};
use understudy_decide::Decision;
use understudy_decide::failover::snapshot::Snapshot;

use super::super::notes;
use super::super::observe::Objects;
use crate::metrics::shards::ShardFacts;

/// From the status that is shown next.
pub fn of(next: &ShardStatus, s: &Snapshot, d: &Decision, objects: &Objects) -> ShardFacts {
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
    }
}
