//! Which of two pods is active, on a real server: who waits, who takes over, and when.
#![allow(clippy::unwrap_used, reason = "a test file: clippy only sees functions marked as tests")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use support::{Lines, Shard, TestLog, config, start, until};
use tokio::time::Instant;
use understudy_consumer::guard::{Guard, OwnerRow, Presence};
use understudy_consumer::hanging::Hanging;
use understudy_consumer::session::Session;
use understudy_kafka::fake::MemoryLog;

fn dead() -> Arc<MemoryLog> {
    Arc::new(MemoryLog::new(1))
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_consumers_one_is_active_and_the_other_takes_over() {
    let (shard, log, dead) = (Shard::start(0).await, TestLog::new(2), dead());
    let first = start("a", &shard, &log, &dead, Lines::default());
    first.is("Running").await;
    let second = start("b", &shard, &log, &dead, Lines::default());
    second.is("Claiming").await;
    log.produce(40);
    shard.holds_exactly(0, &log).await;
    assert_eq!((first.counted("records"), second.counted("records")), (40, 0));

    let asked = Instant::now();
    first.end().await;
    second.is("Running").await;
    assert!(asked.elapsed() < Duration::from_secs(2), "given up, so nobody waits: {:?}", asked.elapsed());

    let third = start("c", &shard, &log, &dead, Lines::default());
    third.is("Claiming").await;
    log.produce(40);
    drop(second);
    third.is("Running").await;
    shard.holds_exactly(0, &log).await;
    third.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_looks_at_the_owner_row_sees_whether_that_process_is_connected() {
    let shard = Shard::start(0).await;
    let (mine, other, login) = (config("a"), config("b"), shard.login());
    let route = shard.routes().borrow().clone().unwrap();
    let look = async || {
        let mut session =
            Session::open(&route, &login, &other.owner, other.deadlines, &mut Hanging::default()).await.unwrap();
        session.survey(&other.names).await.unwrap()
    };
    let nobody = look().await;
    assert_eq!((nobody.owner, nobody.presence), (None, Presence::Absent));

    let mut session =
        Session::open(&route, &login, &mine.owner, mine.deadlines, &mut Hanging::default()).await.unwrap();
    let epoch = nobody.epoch.unwrap();
    let claimed = session.claim(&mine.names, mine.owner.as_str(), &OwnerRow::default(), epoch).await;
    let term = claimed.unwrap().unwrap();
    let seen = look().await;
    assert_eq!(seen.owner.unwrap().owner, mine.owner.as_str());
    assert_eq!(seen.presence, Presence::Connected);

    // The next connection cannot have the lock as long as the one of before has it.
    let mut next = Session::open(&route, &login, &mine.owner, mine.deadlines, &mut Hanging::default()).await.unwrap();
    drop(session);
    until("the server has missed the one of before", || async { look().await.presence == Presence::Absent }).await;
    let guard = Guard { owner: mine.owner.clone(), term, epoch };
    next.commit(&mine.names, &guard, &BTreeMap::new(), &mut Lines::default(), &[]).await.unwrap();
    assert_eq!(look().await.presence, Presence::Connected);

    drop(next);
    until("the server has missed it", || async { look().await.presence == Presence::Absent }).await;
    assert_eq!(look().await.owner.unwrap().owner, mine.owner.as_str(), "the row says nothing of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn rivals_that_take_over_from_each_other_in_the_middle_double_nothing() {
    let (shard, log, dead) = (Shard::start(0).await, TestLog::new(3), dead());
    let begin = |round: usize| {
        let (lines, middle) = Lines::slow(Duration::from_millis(3));
        (start(&round.to_string(), &shard, &log, &dead, lines), middle)
    };
    let (mut active, mut middle) = begin(0);
    for round in 1..12 {
        active.is("Running").await;
        let rival = begin(round);
        until("the rival has come", || async { rival.0.counted("connections") > 0 }).await;
        middle.forget();
        log.produce(60);
        middle.reached().await;
        let free = async || {
            let sql = "UPDATE understudy.consumer_owner SET owner = '', beat = beat + 1";
            shard.admin(0).await.query_drop(sql).await.unwrap();
        };
        match round % 3 {
            0 => active.end().await,
            // Without a word, with a transaction open.
            1 => {
                drop(active);
                free().await;
            }
            // It goes on as if nothing were, and must find out.
            _ => {
                free().await;
                until("it finds out", || async { active.counted("fenced") > 0 }).await;
                drop(active);
                free().await;
            }
        }
        (active, middle) = rival;
    }
    shard.holds_exactly(0, &log).await;
}
