//! A log that is not what was read, with a real server: what the rows say of it holds after a restart too.
#![allow(clippy::unwrap_used, reason = "a test file: clippy only sees functions marked as tests")]

mod support;

use std::sync::Arc;

use mysql_async::prelude::Queryable;
use support::{Lines, Shard, TestLog, config, start, start_with, until};
use understudy_consumer::placement::{Entry, placement_of};
use understudy_kafka::DeadLetter;
use understudy_kafka::fake::MemoryLog;

fn dead() -> Arc<MemoryLog> {
    Arc::new(MemoryLog::new(1))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_cut_below_what_is_stored_stands_until_a_person_says_where_to_go_on() {
    let (shard, log, dead) = (Shard::start(0).await, TestLog::new(1), dead());
    let consumer = start("a", &shard, &log, &dead, Lines::default());
    log.produce(10);
    shard.holds_exactly(0, &log).await;
    log.cut(0, 6);
    consumer.has_fault(Some("ended")).await;
    until("the row remembers it", || async {
        let cut: Option<Option<i64>> =
            shard.admin(0).await.query_first("SELECT cut_at FROM understudy.consumer_offset").await.unwrap();
        cut == Some(Some(6))
    })
    .await;
    let text = consumer.metrics.text().unwrap();
    assert!(text.contains("understudy_consumer_partition_fault{partition=\"0\",fault=\"ended\"} 1"), "{text}");
    assert!(consumer.counted("faults") >= 1);

    log.produce(20);
    let canaries = consumer.counted("canaries");
    until("it has heard of the new records", || async { consumer.counted("canaries") > canaries + 8 }).await;
    assert_eq!(shard.stored(0).await.0[&0], 10, "the log is longer than what is stored, with other records in it");
    consumer.end().await;

    let next = start("b", &shard, &log, &dead, Lines::default());
    next.has_fault(Some("ended")).await;
    let canaries = next.counted("canaries");
    until("it would have read on", || async { next.counted("canaries") > canaries + 8 }).await;
    assert_eq!(shard.stored(0).await.0[&0], 10, "after a restart too");

    let decision = "UPDATE understudy.consumer_offset SET next_offset = 6, cut_at = NULL WHERE partition_id = 0";
    shard.admin(0).await.query_drop(decision).await.unwrap();
    until("it goes on from there", || async { shard.stored(0).await.0[&0] == 26 }).await;
    next.has_fault(None).await;
    let (_, lines) = shard.stored(0).await;
    assert_eq!((lines[&(0, 5)], lines[&(0, 6)], lines[&(0, 9)], lines[&(0, 25)]), (1, 2, 2, 1), "as told");
    next.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_made_anew_and_is_longer_is_not_read_on_from_the_old_offset() {
    let (shard, log, dead) = (Shard::start(0).await, TestLog::new(1), dead());
    let consumer = start("a", &shard, &log, &dead, Lines::default());
    log.produce(10);
    shard.holds_exactly(0, &log).await;
    log.make_anew("second", 30);
    consumer.has_fault(Some("replaced")).await;
    consumer.end().await;

    let next = start("b", &shard, &log, &dead, Lines::default());
    next.has_fault(Some("replaced")).await;
    let message = next.board.borrow().partitions[0].message.clone().unwrap();
    assert!(message.contains("topic id first") && message.contains("topic id second"), "{message}");
    assert_eq!(shard.stored(0).await.0[&0], 10);

    let decision =
        "UPDATE understudy.consumer_offset SET next_offset = 0, cluster_id = '', topic_id = '', cut_at = NULL";
    shard.admin(0).await.query_drop(decision).await.unwrap();
    until("the new one is read from its beginning", || async { shard.stored(0).await.0[&0] == 30 }).await;
    let mut admin = shard.admin(0).await;
    until("the row names the new one", || async {
        let topic: Option<String> =
            shard.admin(0).await.query_first("SELECT topic_id FROM understudy.consumer_offset").await.unwrap();
        topic.as_deref() == Some("second")
    })
    .await;
    let lines: Option<i64> =
        admin.query_first("SELECT COUNT(*) FROM view_test.line WHERE line LIKE 'second%'").await.unwrap();
    assert_eq!(lines, Some(30));
    next.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_over_without_having_heard_of_a_move_stops_where_the_row_says() {
    let (shard, log, dead) = (Shard::start(0).await, TestLog::new(1), dead());
    let entry = |shard: &str, from| Entry { partition: 0, shard: shard.to_owned(), from, pending: from > 0 };
    let begin = |pod: &str, entries: &[Entry]| {
        let (reader, events, ends) = log.reader();
        let (placement, dead) = (placement_of("metrics-0", entries), DeadLetter::new(dead.clone()));
        start_with(config(pod), &shard, placement, reader, events, ends, dead, Lines::default())
    };
    let has_heard = begin("a", &[entry("metrics-0", 0), entry("metrics-1", 15)]);
    log.produce(10);
    let says = |until: i64| has_heard.board.borrow().partitions.iter().any(|p| p.until == Some(until));
    until("it says where it stops", || async { says(15) }).await;
    let row = "SELECT until_offset FROM understudy.consumer_offset";
    let said: Option<Option<i64>> = shard.admin(0).await.query_first(row).await.unwrap();
    assert_eq!(said, Some(Some(15)), "its row said so before");
    until("what was there is stored", || async { shard.stored(0).await.0.get(&0) == Some(&10) }).await;
    has_heard.end().await;

    let has_not = begin("b", &[entry("metrics-0", 0)]);
    log.produce(20);
    until("it is stored up to there", || async { shard.stored(0).await.0.get(&0) == Some(&15) }).await;
    log.produce(1);
    has_not.has_fault(Some("moved")).await;
    assert_eq!(shard.stored(0).await.0[&0], 15, "there is more");
    assert_eq!(has_not.board.borrow().partitions[0].until, Some(15));
    shard.admin(0).await.query_drop("UPDATE understudy.consumer_offset SET until_offset = NULL").await.unwrap();
    shard.holds_exactly(0, &log).await;
    has_not.has_fault(None).await;
    has_not.end().await;
}
