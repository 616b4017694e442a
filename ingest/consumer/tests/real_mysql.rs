//! The consumer against real servers: failovers to replicas that lag, frozen primaries, cut connections, bad records.
#![allow(clippy::unwrap_used, reason = "a test file: clippy only sees functions marked as tests")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use mysql_async::prelude::Queryable;
use support::{Ask, Careless, Lines, SOON, Shard, TestLog, config, placement, start, start_with, until};
use tokio::sync::oneshot;
use tokio::time::Instant;
use understudy_consumer::placement::{Entry, placement_of};
use understudy_consumer::{Change, Rows};
use understudy_kafka::DeadLetter;
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
async fn a_promoted_replica_that_lags_goes_on_from_its_own_offset() {
    let (mut shard, log, dead) = (Shard::start(1).await, TestLog::new(3), dead());
    let consumer = start("a", &shard, &log, &dead, Lines::default());
    log.produce(200);
    shard.holds_exactly(0, &log).await;
    until("the replica has some of it", || async { shard.stored(1).await.0.values().sum::<i64>() > 50 }).await;
    shard.servers[1].admin().stop_receiving(SOON).await.unwrap();
    log.produce(300);
    shard.holds_exactly(0, &log).await;
    let behind: i64 = shard.stored(1).await.0.values().sum();
    assert!(behind < 500, "the replica lags: {behind}");

    shard.servers[0].signal("KILL");
    consumer.is("Cut").await;
    log.produce(50);
    shard.promote(1).await;
    shard.holds_exactly(1, &log).await;
    assert!(consumer.counted("rewinds") >= 2, "the log was read again from what the replica has");
    consumer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_told_whether_a_new_primary_has_all_that_was_committed() {
    let (mut shard, log, dead) = (Shard::start(2).await, TestLog::new(3), dead());
    let lines = Lines::default();
    let told = lines.told.clone();
    let last = || told.lock().unwrap().last().copied();
    let consumer = start("a", &shard, &log, &dead, lines);
    log.produce(200);
    shard.holds_exactly(0, &log).await;
    assert_eq!(last(), Some(Rows::Unknown), "of the first one nothing is known");
    shard.holds_exactly(1, &log).await;
    shard.servers[2].admin().stop_receiving(SOON).await.unwrap();
    shard.promote(1).await;
    log.produce(100);
    shard.holds_exactly(1, &log).await;
    assert_eq!(last(), Some(Rows::Kept));
    shard.promote(2).await;
    shard.holds_exactly(2, &log).await;
    assert_eq!(last(), Some(Rows::Unknown), "it lacks the last ones");
    consumer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_primary_is_left_at_once_when_the_route_changes_and_what_it_does_later_does_not_count() {
    let (mut shard, log, dead) = (Shard::start(1).await, TestLog::new(3), dead());
    let consumer = start("a", &shard, &log, &dead, Lines::slow(Duration::from_millis(5)).0);
    log.produce(300);
    until("it is in the middle", || async { shard.stored(0).await.0.values().sum::<i64>() > 60 }).await;
    shard.promote_quietly(1).await;
    shard.servers[0].signal("STOP");
    until("a commit hangs there", || async {
        let report = consumer.facts.report(std::time::Instant::now());
        report.evidence[0].probe.as_ref().and_then(|p| p.in_flight.as_ref()).is_some_and(|flight| flight.age >= 100)
    })
    .await;

    let told = Instant::now();
    shard.tell(1);
    until("it commits on the new primary", || async {
        let report = consumer.facts.report(std::time::Instant::now());
        report.evidence[0].subject.as_str().ends_with('1')
            && report.evidence[0].probe.as_ref().is_some_and(|p| p.committed.is_some())
    })
    .await;
    assert!(told.elapsed() < Duration::from_secs(1), "{:?}", told.elapsed());
    shard.servers[0].signal("CONT");
    log.produce(100);
    shard.holds_exactly(1, &log).await;
    consumer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_to_the_target_is_made_at_the_claim_and_nothing_is_stored_there_before_it_is_in_office() {
    let (mut shard, log, dead) = (Shard::start(2).await, TestLog::new(3), dead());
    let consumer = start("a", &shard, &log, &dead, Lines::default());
    log.produce(100);
    shard.holds_exactly(0, &log).await;
    for replica in [1, 2] {
        shard.holds_exactly(replica, &log).await;
    }
    let (connections, rewinds) = (consumer.counted("connections"), consumer.counted("rewinds"));

    // The first candidate fails, and the next one is taken.
    shard.claim(2, Change::Sudden);
    until("it is connected to the target", || async { shard.connections(2).await == 1 }).await;
    shard.claim(1, Change::Sudden);
    until("it is connected to the next one", || async { shard.connections(1).await == 1 }).await;
    until("what leads nowhere is closed", || async { shard.connections(2).await == 0 }).await;
    // A server that was promoted and is not published yet takes writes, and gets none.
    shard.promote_quietly(1).await;
    log.produce(100);
    shard.holds_exactly(0, &log).await;
    assert_eq!(shard.stored(1).await.0.values().sum::<i64>(), 100);
    assert_eq!(consumer.counted("connections"), connections, "it is none of a primary yet");

    // It has not got what the old primary got last: that is read again, and once.
    shard.tell(1);
    shard.holds_exactly(1, &log).await;
    assert_eq!(shard.connections(1).await, 1, "the one that was made ahead is the one that is used");
    assert_eq!(consumer.counted("connections"), connections + 1);
    assert_eq!(consumer.counted("rewinds"), rewinds + 1);
    consumer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_and_not_stored_is_not_read_again_where_the_new_primary_has_all_before_it() {
    let (mut shard, log, dead) = (Shard::start(1).await, TestLog::new(3), dead());
    let (reader, events, ends) = log.reader();
    let assignments = reader.assignments();
    let (placed, letters) = (placement(3), DeadLetter::new(dead.clone()));
    let consumer = start_with(config("a"), &shard, placed, reader, events, ends, letters, Lines::default());
    log.produce(100);
    shard.holds_exactly(0, &log).await;
    shard.holds_exactly(1, &log).await;
    let (assigned, rewinds) = (assignments(), consumer.counted("rewinds"));

    // Planned: the old primary refuses what is in hand, and the new one has everything before it.
    shard.claim(1, Change::Planned);
    shard.servers[0].admin().refuse_writes(SOON).await.unwrap();
    log.produce(3);
    consumer.is("Cut").await;
    shard.promote(1).await;
    shard.holds_exactly(1, &log).await;
    assert_eq!((assignments(), consumer.counted("rewinds")), (assigned, rewinds), "the log goes on as it did");
    consumer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_stored_at_once_when_a_planned_change_is_claimed() {
    let (shard, log, dead) = (Shard::start(1).await, TestLog::new(1), dead());
    let mut config = config("a");
    config.limits.delay = Duration::from_secs(3600);
    let (reader, events, ends) = log.reader();
    let (placed, letters) = (placement(1), DeadLetter::new(dead.clone()));
    let consumer = start_with(config, &shard, placed, reader, events, ends, letters, Lines::default());
    log.produce(1);
    shard.holds_exactly(0, &log).await;
    assert_eq!(consumer.counted("batches"), 1, "the first one on a primary waits for nothing");
    log.produce(5);
    let canaries = consumer.counted("canaries");
    until("the next one waits", || async { consumer.counted("canaries") > canaries + 4 }).await;
    assert_eq!(shard.stored(0).await.0[&0], 1);
    shard.claim(1, Change::Planned);
    shard.holds_exactly(0, &log).await;
    consumer.end().await;
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
async fn under_a_claimed_epoch_nobody_writes_until_the_server_has_it() {
    let (mut shard, log, dead) = (Shard::start(0).await, TestLog::new(1), dead());
    let consumer = start("a", &shard, &log, &dead, Lines::default());
    log.produce(10);
    shard.holds_exactly(0, &log).await;
    shard.epoch += 1;
    shard.tell(0);
    consumer.is("Fenced").await;
    log.produce(10);
    let produced = std::time::Instant::now();
    until("it has looked at the server again, with the records at hand", || async {
        let now = std::time::Instant::now();
        let selected = consumer.facts.report(now).evidence[0].probe.as_ref().and_then(|probe| probe.selected);
        selected.is_some_and(|age| u128::from(age) + 300 <= (now - produced).as_millis())
    })
    .await;
    assert_eq!(shard.stored(0).await.0[&0], 10);
    shard.epoch -= 1;
    shard.promote_quietly(0).await;
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
