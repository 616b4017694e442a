//! Changes of primary with real servers: replicas that lag, primaries that freeze, the connection that is made ahead.
#![allow(clippy::unwrap_used, reason = "a test file: clippy only sees functions marked as tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::{Lines, SOON, Shard, TestLog, config, placement, start, start_with, until};
use tokio::time::Instant;
use understudy_consumer::{Change, Rows};
use understudy_kafka::DeadLetter;
use understudy_kafka::fake::MemoryLog;
use understudy_mysql::Instance;

fn dead() -> Arc<MemoryLog> {
    Arc::new(MemoryLog::new(1))
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
async fn a_primary_that_froze_and_was_left_in_office_is_used_again_when_it_thaws_and_nothing_is_stored_twice() {
    let (shard, log, dead) = (Shard::start(0).await, TestLog::new(2), dead());
    let consumer = start("a", &shard, &log, &dead, Lines::default());
    log.produce(20);
    shard.holds_exactly(0, &log).await;
    shard.servers[0].signal("STOP");
    log.produce(20);
    until("several sessions hang, and that is told on and on", || async {
        let report = consumer.facts.report(std::time::Instant::now());
        let failing = report.evidence[0].probe.as_ref().and_then(|probe| probe.failing.clone());
        failing.is_some_and(|failing| failing.count >= 5 && failing.latest < 1000)
    })
    .await;
    shard.servers[0].signal("CONT");
    shard.holds_exactly(0, &log).await;
    consumer.is("Running").await;
    consumer.end().await;
}
