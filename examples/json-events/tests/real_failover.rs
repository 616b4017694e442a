//! The view through a failover to a replica that lags: each event once, and totals that say so.
#![allow(clippy::unwrap_used, reason = "a test file: clippy only sees functions marked as tests")]

#[path = "../../../ingest/consumer/tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use mysql_async::prelude::Queryable;
use support::{SOON, Shard, TestLog, start, until};
use understudy_example_json_events::Events;
use understudy_kafka::fake::MemoryLog;
use understudy_mysql::Instance;

type Totals = BTreeMap<String, (i64, i64)>;

async fn totals(shard: &Shard, server: usize) -> (i64, Totals) {
    let mut conn = shard.admin(server).await;
    let events = conn.query_first("SELECT COUNT(*) FROM view_events.event").await.unwrap_or_default();
    let totals: Vec<(String, i64, i64)> =
        conn.query("SELECT kind, events, amount FROM view_events.total").await.unwrap_or_default();
    (events.unwrap_or(0), totals.into_iter().map(|(kind, events, amount)| (kind, (events, amount))).collect())
}

fn produce(log: &TestLog, from: i64, to: i64, expected: &mut Totals) {
    for number in from..to {
        let kind = ["sale", "refund", "visit"][number as usize % 3];
        let total = expected.entry(kind.to_owned()).or_default();
        *total = (total.0 + 1, total.1 + number);
        let body = format!("{{\"kind\":\"{kind}\",\"amount\":{number}}}");
        log.put(number as usize % 2, body.into());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_are_right_after_a_failover_to_a_replica_that_lags() {
    let (mut shard, log, dead) = (Shard::start(1).await, TestLog::new(2), Arc::new(MemoryLog::new(1)));
    let consumer = start("a", &shard, &log, &dead, Events::new("view_events").unwrap());
    let mut expected = Totals::new();
    produce(&log, 0, 300, &mut expected);
    until("the replica has some of it", || async { totals(&shard, 1).await.0 > 50 }).await;
    shard.servers[1].admin().stop_receiving(SOON).await.unwrap();
    log.put(0, "no event at all".into());
    produce(&log, 300, 500, &mut expected);
    until("the primary has all of it", || async { totals(&shard, 0).await == (500, expected.clone()) }).await;

    shard.servers[0].signal("KILL");
    consumer.is("Cut").await;
    assert!(totals(&shard, 1).await.0 < 500, "the replica lags");
    shard.promote(1).await;
    produce(&log, 500, 600, &mut expected);
    until("the new primary has all of it", || async { totals(&shard, 1).await == (600, expected.clone()) }).await;
    assert!(!dead.all().is_empty(), "what is no event was put aside");
    consumer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_come_under_offsets_that_are_stored_are_stored_and_counted_beside_the_first() {
    let (shard, log, dead) = (Shard::start(0).await, TestLog::new(2), Arc::new(MemoryLog::new(1)));
    let consumer = start("a", &shard, &log, &dead, Events::new("view_events").unwrap());
    let mut expected = Totals::new();
    produce(&log, 0, 20, &mut expected);
    until("all of it is stored", || async { totals(&shard, 0).await == (20, expected.clone()) }).await;
    log.cut(0, 4);
    consumer.has_fault(Some("ended")).await;
    until("the row remembers it", || async {
        let cut = "SELECT cut_at FROM understudy.consumer_offset WHERE partition_id = 0";
        shard.admin(0).await.query_first::<Option<i64>, _>(cut).await.unwrap() == Some(Some(4))
    })
    .await;
    produce(&log, 20, 60, &mut expected);
    let decision = "UPDATE understudy.consumer_offset SET next_offset = 4, cut_at = NULL WHERE partition_id = 0";
    shard.admin(0).await.query_drop(decision).await.unwrap();
    until("what took the place of the tail is there too", || async {
        totals(&shard, 0).await == (60, expected.clone())
    })
    .await;
    consumer.end().await;
}
