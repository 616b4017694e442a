//! Locks of others on a real server: they are told of, the server is not accused, and nothing is half stored or stored twice.
#![allow(clippy::unwrap_used, reason = "a test file: clippy only sees functions marked as tests")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use support::{Ask, Careless, Lines, SOON, Shard, TestLog, start, until};
use tokio::sync::oneshot;
use tokio::time::Instant;
use understudy_kafka::fake::MemoryLog;
use understudy_wire::evidence::ProbeError;

fn dead() -> Arc<MemoryLog> {
    Arc::new(MemoryLog::new(1))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_froze_in_a_transaction_does_not_keep_its_locks() {
    let (shard, log, dead) = (Shard::start(0).await, TestLog::new(1), dead());
    let frozen = start("a", &shard, &log, &dead, Lines::slow(Duration::from_secs(3600)).0);
    frozen.is("Running").await;
    log.produce(5);
    let started = Instant::now();
    let other = start("b", &shard, &log, &dead, Lines::default());
    other.is("Running").await;
    shard.holds_exactly(0, &log).await;
    assert!(started.elapsed() < Duration::from_secs(9), "{:?}", started.elapsed());
    other.end().await;
}

/// How a rival keeps a view from the second of its two rows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rival {
    /// Holds it and never wants anything: the statement runs into its time-out.
    Sits,
    /// Holds it, wants the first one and has more to lose: a deadlock, of which the view is the victim.
    Deadlocks,
}

/// A view that takes no notice of an error, at both ends of its work, and a rival that causes one.
async fn an_error_is_swallowed(ask: Ask, rival: Rival) -> Vec<Option<u16>> {
    let (shard, log, dead) = (Shard::start(0).await, TestLog::new(1), dead());
    let mut other = shard.admin(0).await;
    for sql in [
        "CREATE DATABASE view_test",
        "CREATE TABLE view_test.pair (id INT PRIMARY KEY, n INT)",
        "INSERT INTO view_test.pair VALUES (1, 0), (2, 0)",
        "CREATE TABLE view_test.weight (n INT)",
    ] {
        other.query_drop(sql).await.unwrap();
    }
    let (swallowed, middle) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(None)));
    let view = Careless { lines: Lines::default(), ask, between: middle.clone(), swallowed: swallowed.clone() };
    let consumer = start("a", &shard, &log, &dead, view);
    log.produce(3);
    // Its tables are made, which the rival's transaction would be in the way of.
    shard.holds_exactly(0, &log).await;
    for sql in [
        "START TRANSACTION",
        "INSERT INTO view_test.weight WITH RECURSIVE many AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM many WHERE n < 900) \
         SELECT n FROM many",
        "UPDATE view_test.pair SET n = n WHERE id = 2",
    ] {
        other.query_drop(sql).await.unwrap();
    }
    let ((told, between), (go, may_go)) = (oneshot::channel(), oneshot::channel());
    *middle.lock().unwrap() = Some((told, may_go));
    log.produce(7);
    tokio::time::timeout(SOON, between).await.expect("a batch in time").unwrap();
    let wants = tokio::spawn(async move {
        if rival == Rival::Deadlocks {
            other.query_drop("UPDATE view_test.pair SET n = n + 100 WHERE id = 1").await.unwrap();
        }
        other
    });
    if rival == Rival::Deadlocks {
        until("the rival waits for the first row", || async {
            let waiting = "SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'";
            shard.admin(0).await.query_first::<u8, _>(waiting).await.unwrap().is_some()
        })
        .await;
    }
    go.send(()).unwrap();
    until("the view did not get the row", || async { !swallowed.lock().unwrap().is_empty() }).await;
    wants.await.unwrap().query_drop("ROLLBACK").await.unwrap();

    shard.holds_exactly(0, &log).await;
    let added: Vec<i32> = shard.admin(0).await.query("SELECT n FROM view_test.pair ORDER BY id").await.unwrap();
    assert!(added[0] > 0 && added[0] == added[1], "{added:?}: each batch adds to both");
    consumer.end().await;
    swallowed.lock().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_that_a_view_swallows_after_its_work_moves_no_offset_past_what_was_rolled_back() {
    assert_eq!(an_error_is_swallowed(Ask::AfterLines, Rival::Deadlocks).await, [Some(1213)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_deadlock_that_a_view_swallows_nothing_more_is_written() {
    assert_eq!(an_error_is_swallowed(Ask::BeforeLines, Rival::Deadlocks).await, [Some(1213)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_a_view_did_not_get_and_does_not_mention_fails_the_batch() {
    let swallowed = an_error_is_swallowed(Ask::AfterLines, Rival::Sits).await;
    assert!(!swallowed.is_empty() && swallowed.iter().all(|code| *code == Some(1205)), "{swallowed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_lock_keeps_a_transaction_waiting_is_told_of_before_the_server_is_taken_for_silent() {
    let (shard, log, dead) = (Shard::start(0).await, TestLog::new(1), dead());
    let consumer = start("a", &shard, &log, &dead, Lines::default());
    log.produce(5);
    shard.holds_exactly(0, &log).await;
    let known = || (consumer.counted("connections"), consumer.counted("failures"), consumer.counted("rewinds"));
    let before = known();
    for (case, lock) in [
        ("the owner's row", "SELECT owner FROM understudy.consumer_owner FOR UPDATE"),
        ("the epoch's row", "SELECT epoch FROM understudy.epoch FOR UPDATE"),
        ("an offset's row", "SELECT next_offset FROM understudy.consumer_offset FOR UPDATE"),
        ("the owner's table", "LOCK TABLES understudy.consumer_owner WRITE"),
        ("the offsets' table", "LOCK TABLES understudy.consumer_offset WRITE"),
        ("everything", "FLUSH TABLES WITH READ LOCK"),
    ] {
        let mut holder = shard.admin(0).await;
        holder.query_drop("START TRANSACTION").await.unwrap();
        holder.query_drop(lock).await.unwrap();
        log.produce(5);
        until("it is told of the lock, again and again", || async {
            let report = consumer.facts.report(std::time::Instant::now());
            let failing = report.evidence[0].probe.as_ref().and_then(|probe| probe.failing.clone());
            failing.is_some_and(|failing| {
                assert!(matches!(failing.error, ProbeError::Server { code: 1205, .. }), "{case}: {failing:?}");
                failing.count >= 2
            })
        })
        .await;
        holder.query_drop("UNLOCK TABLES").await.unwrap();
        holder.query_drop("ROLLBACK").await.unwrap();
        shard.holds_exactly(0, &log).await;
    }
    assert_eq!(known(), before, "over the one connection, and nothing was read again");
    consumer.end().await;
}
