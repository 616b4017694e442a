//! How many closed records of a Shard are kept: `spec.failover.historyLimit`. [`beyond`] is pure, [`keep`] deletes. I/O.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::Deref;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use understudy_api::Failover;
use understudy_api::v1alpha1::FailoverPhase;

use super::is_leftover;
use crate::apply::ApplyError;
use crate::context::Context;
use crate::controllers::availability::{epoch_of, ledger};

/// Seconds for which a record is kept whatever the limit is: one that is not there is made again for as long, and what was measured may
/// come in late.
pub const SETTLED: i64 = 600;

/// Deletes the records that the Shard of this one keeps no longer, oldest first.
pub async fn keep(failover: &Failover, context: &Context) -> Result<(), ApplyError> {
    let namespace = failover.namespace().unwrap_or_default();
    let shard = context.caches.shards.get(&namespace, &failover.spec.shard);
    let Some(shard) = shard.filter(|shard| !shard.spec.paused) else { return Ok(()) };
    let mut records = context.caches.failovers.within(&namespace);
    records.retain(|record| record.spec.shard == failover.spec.shard && !is_leftover(record, &shard));
    let limit = usize::try_from(shard.spec.failover.history_limit).unwrap_or(usize::MAX);
    let told = shard.status.as_ref().and_then(|status| status.availability_ledger.as_ref());
    let ledger = told.map(ledger).unwrap_or_default();
    let is_counted = |record: &Failover| epoch_of(record).is_none_or(|epoch| ledger.has(epoch));
    for record in beyond(&records, limit, is_counted, Timestamp::now()) {
        context.applier.delete::<Failover>(record, None).await?;
    }
    Ok(())
}

/// The closed records beyond the newest `limit`, oldest first; never an open one, nor the last of a drill, nor one that the availability of
/// the shard does not hold yet.
pub fn beyond<F: Deref<Target = Failover>>(
    records: &[F],
    limit: usize,
    is_counted: impl Fn(&Failover) -> bool,
    now: Timestamp,
) -> Vec<&F> {
    let closed = records.iter().filter_map(|record| Some((ended(record)?, record)));
    let mut closed: Vec<_> = closed.filter(|(_, record)| record.metadata.deletion_timestamp.is_none()).collect();
    closed.sort_by_cached_key(|(ended, record)| Reverse((*ended, record.name_any())));
    let mut drills = BTreeSet::new();
    let mut beyond = Vec::new();
    for (place, (ended, record)) in closed.into_iter().enumerate() {
        let is_last_of_drill = record.drill().is_some_and(|drill| drills.insert(drill.to_owned()));
        let is_settled = now.as_second().saturating_sub(ended.as_second()) >= SETTLED;
        if place >= limit && is_settled && !is_last_of_drill && is_counted(record) {
            beyond.push(record);
        }
    }
    beyond.reverse();
    beyond
}

fn ended(record: &Failover) -> Option<Timestamp> {
    let status = record.status.as_ref().filter(|status| status.phase == FailoverPhase::Closed)?;
    let finished = status.finished_at.as_ref().map(|at| at.0);
    finished.or_else(|| Some(record.creation_timestamp()?.0))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fake::FakeApi;

    const END: i64 = 1_800_000_000;

    /// A record that was closed this many seconds before [`END`].
    fn closed(name: &str, ago: i64) -> Value {
        json!({
            "apiVersion": "understudy.dev/v1alpha1", "kind": "Failover",
            "metadata": { "name": name, "namespace": "prod", "uid": name },
            "spec": { "shard": "m", "kind": "Failover", "epoch": 5 },
            "status": { "phase": "Closed", "finishedAt": Timestamp::from_second(END - ago).unwrap().to_string() },
        })
    }

    fn record(value: Value) -> Box<Failover> {
        Box::new(serde_json::from_value(value).unwrap())
    }

    fn deleted(records: &[Box<Failover>], limit: usize) -> Vec<String> {
        let now = Timestamp::from_second(END).unwrap();
        beyond(records, limit, |record| record.name_any() != "not-counted", now)
            .into_iter()
            .map(|record| record.name_any())
            .collect()
    }

    #[test]
    fn what_is_beyond_the_limit_goes_oldest_first() {
        let records = [("m-3", 3_000), ("m-5", 1_000), ("m-2", 4_000), ("m-4", 2_000)];
        let records = records.map(|(name, ago)| record(closed(name, ago)));
        assert_eq!(deleted(&records, 2), ["m-2", "m-3"]);
        assert_eq!(deleted(&records, 4), [""; 0]);
    }

    #[test]
    fn an_open_record_counts_for_nothing_and_one_that_is_young_or_not_counted_stays() {
        let mut open = closed("open", 9_000);
        open["status"]["phase"] = json!("Rebuilding");
        let mut leaving = closed("leaving", 8_000);
        leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let not_counted = closed("not-counted", 7_000);
        let (young, old, last) = (closed("m-2", SETTLED - 1), closed("m-1", SETTLED), closed("m-3", 0));
        let records = [open, leaving, not_counted, young, old, last].map(record);
        assert_eq!(deleted(&records, 1), ["m-1"]);
    }

    #[test]
    fn the_last_record_of_each_drill_stays() {
        let of_drill = |name: &str, drill: &str, ago: i64| {
            let mut record = closed(name, ago);
            record["spec"]["drill"] = json!(drill);
            record
        };
        let records = [
            of_drill("m-2", "nightly", 5_000),
            of_drill("m-3", "weekly", 4_000),
            of_drill("m-4", "nightly", 3_000),
            closed("m-5", 2_000),
            closed("m-6", 1_000),
        ];
        assert_eq!(deleted(&records.map(record), 1), ["m-2", "m-5"]);
    }

    #[tokio::test]
    async fn only_records_of_the_present_shard_are_deleted_and_none_while_it_is_paused() {
        let shard = |paused: bool| {
            json!({
                "apiVersion": "understudy.dev/v1alpha1", "kind": "Shard",
                "metadata": { "name": "m", "namespace": "prod", "uid": "new" },
                "spec": {
                    "mysql": { "image": "mysql:9" }, "storage": { "size": "1Gi" }, "paused": paused,
                    "failover": { "historyLimit": 1 },
                },
                "status": { "epoch": 9, "availabilityLedger": { "countedEpoch": 5 } },
            })
        };
        // The clock of the machine tells what is settled, so all of this is long ago.
        let long_ago = |name: &str, day: i64| {
            let mut record = closed(name, 0);
            record["status"]["epoch"] = json!(5);
            record["status"]["finishedAt"] = json!(format!("2020-01-0{day}T00:00:00.000000Z"));
            record
        };
        let mut leftover = long_ago("m-1", 1);
        leftover["metadata"]["ownerReferences"] =
            json!([{ "apiVersion": "understudy.dev/v1alpha1", "kind": "Shard", "name": "m", "uid": "old" }]);
        let mut of_another = long_ago("k-1", 1);
        of_another["spec"]["shard"] = json!("k");
        for (paused, expected) in [(true, vec![]), (false, vec!["DELETE failovers/m-2"])] {
            let records = [long_ago("m-2", 2), long_ago("m-3", 3), leftover.clone(), of_another.clone()];
            let api = FakeApi::with(records.into_iter().chain([shard(paused)]));
            let context = api.context().await;
            let of = context.caches.failovers.get("prod", "m-3").unwrap();
            keep(&of, &context).await.unwrap();
            assert_eq!(api.writes(), expected, "paused: {paused}");
        }
    }
}
