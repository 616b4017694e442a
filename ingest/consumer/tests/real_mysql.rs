//! The transaction on a real server: what is stored, what is put aside, and what becomes of it when connections are cut or a table is gone.
#![allow(clippy::unwrap_used, reason = "a test file: clippy only sees functions marked as tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mysql_async::prelude::Queryable;
use support::{Lines, SOON, Shard, TestLog, start, until};
use understudy_kafka::fake::{MemoryLog, Mood};
use understudy_mysql::Instance;

fn dead() -> Arc<MemoryLog> {
    Arc::new(MemoryLog::new(1))
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_stored_and_an_idle_consumer_proves_that_commits_succeed() {
    let (shard, log, dead) = (Shard::start(0).await, TestLog::new(3), dead());
    let consumer = start("a", &shard, &log, &dead, Lines::default());
    log.produce(100);
    shard.holds_exactly(0, &log).await;

    let canaries = consumer.counted("canaries");
    until("canaries go on", || async { consumer.counted("canaries") > canaries + 4 }).await;
    let report = consumer.facts.report(std::time::Instant::now());
    let probe = report.evidence[0].probe.clone().unwrap();
    assert!(probe.committed.unwrap() < 1000, "{probe:?}");
    assert!(probe.failing.is_none() && probe.committing_since.unwrap() >= 1000, "{probe:?}");

    until("idle partitions are known to be complete", || async {
        let snapshot = consumer.board.borrow().clone();
        snapshot.partitions.iter().all(|p| p.lag_records == 0 && p.complete_until_ms > 0)
    })
    .await;
    consumer.end().await;
    let mut conn = shard.admin(0).await;
    let owner: Option<String> = conn.query_first("SELECT owner FROM understudy.consumer_owner").await.unwrap();
    assert_eq!(owner.as_deref(), Some(""), "given up");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_cut_in_the_middle_of_transactions_lose_and_double_nothing() {
    let (shard, log, dead) = (Shard::start(0).await, TestLog::new(3), dead());
    let (lines, mut middle) = Lines::slow(Duration::from_millis(2));
    let consumer = start("a", &shard, &log, &dead, lines);
    let admin = shard.servers[0].admin();
    for round in 0..40 {
        let stored = consumer.counted("batches");
        middle.forget();
        log.produce(10);
        middle.reached().await;
        // Now and then one comes to its end, and the next ones begin elsewhere.
        if round % 4 == 0 {
            until("a batch is stored", || async { consumer.counted("batches") > stored }).await;
        }
        admin.cut_clients(SOON).await.unwrap();
    }
    assert!(consumer.counted("connections") > 10, "they were cut");
    shard.holds_exactly(0, &log).await;
    consumer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_applied_is_put_aside_before_the_offset_passes_it() {
    let (shard, log, dead) = (Shard::start(0).await, TestLog::new(1), dead());
    dead.set_mood(Mood::Refusing);
    let consumer = start("a", &shard, &log, &dead, Lines::default());
    log.put(0, Bytes::from_static(b"good"));
    log.put(0, Bytes::from_static(b"\xff\xfe"));
    log.put(0, Bytes::from_static(b"poison"));
    log.put(0, Bytes::from_static(b"good too"));
    consumer.is("Stuck").await;
    let canaries = consumer.counted("canaries");
    until("canaries go on meanwhile", || async { consumer.counted("canaries") > canaries + 2 }).await;
    assert_eq!(shard.stored(0).await.0.get(&0).copied().unwrap_or(0), 0);

    dead.set_mood(Mood::Healthy);
    until("the offset passes", || async { shard.stored(0).await.0.get(&0) == Some(&4) }).await;
    let count = "SELECT dead_letters FROM understudy.consumer_offset";
    assert_eq!(shard.admin(0).await.query_first(count).await.unwrap(), Some(2_u64), "with the offset that passes them");
    until("the status tells how many", || async { consumer.board.borrow().partitions[0].dead_letters == 2 }).await;
    let (_, lines) = shard.stored(0).await;
    assert_eq!(lines.into_keys().collect::<Vec<_>>(), [(0, 0), (0, 3)]);
    let letters: Vec<(Bytes, Vec<String>)> = dead
        .all()
        .into_iter()
        .map(|letter| {
            let header = |(name, value): (String, Bytes)| format!("{name}={}", String::from_utf8_lossy(&value));
            (letter.value, letter.headers.into_iter().map(header).filter(|h| !h.contains("detail")).collect())
        })
        .collect();
    let headers = |offset: i64, reason: &str| {
        vec![
            "understudy-topic=lines".to_owned(),
            "understudy-partition=0".to_owned(),
            format!("understudy-offset={offset}"),
            format!("understudy-reason={reason}"),
        ]
    };
    assert_eq!(
        letters,
        [
            (Bytes::from_static(b"\xff\xfe"), headers(1, "not_utf8")),
            (Bytes::from_static(b"poison"), headers(2, "poison")),
        ]
    );
    consumer.is("Running").await;
    consumer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_dropped_is_made_anew() {
    let (shard, log, dead) = (Shard::start(0).await, TestLog::new(1), dead());
    let consumer = start("a", &shard, &log, &dead, Lines::default());
    log.produce(5);
    shard.holds_exactly(0, &log).await;
    shard.admin(0).await.query_drop("DROP TABLE view_test.line").await.unwrap();
    log.produce(5);
    until("it goes on", || async { shard.stored(0).await.0[&0] == 10 }).await;
    let (_, lines) = shard.stored(0).await;
    assert_eq!(lines.into_keys().collect::<Vec<_>>(), (5..10).map(|o| (0, o)).collect::<Vec<_>>());
    consumer.end().await;
}
