//! What Kafka must still hold for a replica to go on from its own stored offsets. Pure.
//!
//! What the old primary did not have either is not lost by the promotion, and does not stand against it.

use std::collections::BTreeSet;

use understudy_wire::ReplicaName;
use understudy_wire::evidence::{Millis, StoredOffset};

use super::candidate::{Candidate, Unfit, executed_of, offsets_of};
use super::snapshot::Snapshot;

/// A standby may be promoted although nobody knows what Kafka still holds, if it is behind by no more than this.
pub const DELAY_WITHOUT_RETENTION: Millis = 60_000;

type Key<'a> = (&'a str, &'a str, i32);

fn key(row: &StoredOffset) -> Key<'_> {
    (&row.consumer, &row.topic, row.partition)
}

fn stored(rows: &[StoredOffset], of: Key<'_>) -> Option<i64> {
    rows.iter().find(|row| key(row) == of).map(|row| row.next_offset)
}

/// Each partition of each consumer that is still there, as far as any replica has a row of it: Kafka must have everything
/// from the candidate's row on, or from the beginning when it has none.
///
/// Only what was executed counts: what was received may be discarded by the promotion.
pub(super) fn retention(s: &Snapshot, old: Option<&ReplicaName>, candidate: &Candidate) -> Result<(), Unfit> {
    if old.and_then(|old| executed_of(s, old)).is_some_and(|executed| candidate.executed.contains(executed)) {
        return Ok(());
    }
    let own = offsets_of(s, &candidate.name);
    let before = old.and_then(|old| s.own_report(old)).and_then(|(server, _)| server.offsets.as_ref());
    let before = before.map(|read| read.value.as_slice());
    let rows = s.replicas.keys().flat_map(|replica| offsets_of(s, replica)).chain(before.unwrap_or_default());
    let partitions: BTreeSet<_> = rows.filter(|row| s.consumers.contains(&row.consumer)).map(key).collect();
    for of in partitions {
        let (_, topic, partition) = of;
        let next = stored(own, of);
        let Some(needs) = needs(s, topic, partition, next) else { continue };
        match before.map(|rows| stored(rows, of)) {
            Some(None) => continue,
            Some(had @ Some(_)) if had <= next => continue,
            Some(_) | None => {}
        }
        match s.log.get(&(topic.to_owned(), partition)) {
            Some(earliest) if *earliest > needs => {
                return Err(Unfit::Retention { partition: format!("{topic}/{partition}"), needs, earliest: *earliest });
            }
            Some(_) => {}
            None if candidate.delay.is_none_or(|delay| delay > DELAY_WITHOUT_RETENTION) => {
                return Err(Unfit::RetentionUnknown);
            }
            None => {}
        }
    }
    Ok(())
}

/// The first offset from `next` on that feeds the shard. None: the partition feeds another shard from before there, and the
/// row is a leftover.
fn needs(s: &Snapshot, topic: &str, partition: i32, next: Option<i64>) -> Option<i64> {
    let next = next.unwrap_or(0);
    let Some(spans) = s.feeds.get(&(topic.to_owned(), partition)) else { return Some(next) };
    spans.iter().find(|span| span.until.is_none_or(|until| until > next)).map(|span| span.from.max(next))
}
