//! Partitions that are not read on, on a real server: what is told of them, and what becomes of what a person decides.
#![allow(clippy::unwrap_used, reason = "a test file: clippy only sees functions marked as tests")]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use mysql_async::prelude::Queryable;
use support::{Lines, Running, Shard, TestLog, config, placement, start, start_with, until};
use understudy_consumer::View;
use understudy_consumer::log::now_ms;
use understudy_consumer::run::Config;
use understudy_consumer::timeseries::TimeSeries;
use understudy_kafka::DeadLetter;
use understudy_kafka::fake::MemoryLog;
use understudy_model::frame::{Codec, Full};
use understudy_model::{FrameBuilder, Group, Labels, Sample, Tenant};
use understudy_store::{Matcher, matching_series, read_samples};

const MOST: usize = 1000;

fn begin<V: View>(config: Config, shard: &Shard, log: &TestLog, view: V) -> Running {
    let (reader, events, ends) = log.reader();
    let dead = DeadLetter::new(Arc::new(MemoryLog::new(1)));
    start_with(config, shard, placement(log.ends().len()), reader, events, ends, dead, view)
}

async fn says(shard: &Shard, column: &str) -> Option<String> {
    let sql = format!("SELECT CAST({column} AS CHAR) FROM understudy.consumer_offset WHERE partition_id = 0");
    shard.admin(0).await.query_first::<Option<String>, _>(sql).await.unwrap().flatten()
}

async fn decide(shard: &Shard, sets: &str) {
    let sql = format!("UPDATE understudy.consumer_offset SET {sets} WHERE partition_id = 0");
    shard.admin(0).await.query_drop(sql).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_consumer_tells_how_far_it_is_behind_though_its_process_read_nothing() {
    let (shard, log) = (Shard::start(0).await, TestLog::new(1));
    let reads = begin(config("a"), &shard, &log, Lines::default());
    log.produce(5);
    shard.holds_exactly(0, &log).await;
    reads.end().await;
    decide(&shard, &format!("updated_ms = {}", now_ms() - 7_200_000)).await;
    log.produce(5);

    let mut paused = config("b");
    paused.paused = true;
    let paused = begin(paused, &shard, &log, Lines::default());
    until("it tells that it is two hours behind", || async {
        let board = paused.board.borrow().clone();
        let told = board.partitions.first().map(|partition| (partition.lag_records, partition.lag_seconds));
        told.is_some_and(|(records, seconds)| records == 5 && seconds.is_some_and(|seconds| seconds >= 7200.0))
    })
    .await;
    paused.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_of_another_schema_under_the_same_name_stands_until_a_person_says_from_where_to_go_on() {
    let (shard, log) = (Shard::start(0).await, TestLog::new(1));
    let first = begin(config("a"), &shard, &log, Lines::default());
    log.produce(10);
    shard.holds_exactly(0, &log).await;
    first.end().await;
    assert_eq!(says(&shard, "schema_name").await.as_deref(), Some("view_test"));
    log.produce(10);

    let mut other = config("b");
    other.names.schema = "view_other".to_owned();
    let other = begin(other, &shard, &log, Lines::default());
    other.has_fault(Some("schema")).await;
    let canaries = other.counted("canaries");
    until("it would have read on", || async { other.counted("canaries") > canaries + 8 }).await;
    assert_eq!(says(&shard, "next_offset").await.as_deref(), Some("10"));
    assert_eq!(says(&shard, "schema_name").await.as_deref(), Some("view_test"), "the row does not forget");

    decide(&shard, "schema_name = ''").await;
    until("it goes on from where it is", || async { says(&shard, "next_offset").await.as_deref() == Some("20") }).await;
    other.has_fault(None).await;
    assert_eq!(says(&shard, "schema_name").await.as_deref(), Some("view_other"));
    other.end().await;
}

/// A frame with one sample at each of these times.
fn frame(samples: &[(i64, f64)]) -> Bytes {
    let labels = Labels::from_pairs([("__name__", "a"), ("job", "node"), ("instance", "b")]).unwrap();
    let mut builder = FrameBuilder::new(Group::of(&Tenant::new("acme").unwrap(), &labels));
    let samples: Vec<Sample> = samples.iter().map(|(at, value)| Sample::new(*at, *value)).collect();
    assert_eq!(builder.push(&labels, &samples), Full::No);
    builder.finish(None).unwrap().encode(Codec::None).unwrap().into()
}

/// The samples of the one series, and how many were left out because another one of their time is there.
async fn stored(shard: &Shard) -> (Vec<Sample>, u64) {
    let mut conn = shard.admin(0).await;
    let tenant = Tenant::new("acme").unwrap();
    let node = [Matcher::equal("job", "node")];
    let series = matching_series(&mut conn, &tenant, &node, MOST, &mut |_| Ok(())).await.unwrap();
    let merged = read_samples(&mut conn, &tenant, &series, (i64::MIN, i64::MAX), MOST).await.unwrap();
    (merged.series.into_values().flatten().collect(), merged.duplicates)
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_that_come_under_offsets_that_are_stored_are_kept_beside_the_first() {
    let (shard, log, dead) = (Shard::start(0).await, TestLog::new(1), Arc::new(MemoryLog::new(1)));
    let consumer = start("a", &shard, &log, &dead, TimeSeries::default());
    let (early, late) = (now_ms() - 60_000, now_ms() - 50_000);
    log.put(0, frame(&[(early, 1.0)]));
    until("the first is stored", || async { stored(&shard).await.0 == [Sample::new(early, 1.0)] }).await;
    log.cut(0, 0);
    consumer.has_fault(Some("ended")).await;
    until("the row remembers it", || async { says(&shard, "cut_at").await.as_deref() == Some("0") }).await;
    assert_eq!(consumer.counted("holds"), 0);

    log.put(0, frame(&[(early, 1.0), (late, 2.0)]));
    log.put(0, frame(&[(late, 2.0)]));
    decide(&shard, "next_offset = 0, cut_at = NULL").await;
    until("what took its place is stored", || async { says(&shard, "next_offset").await.as_deref() == Some("2") })
        .await;
    let (samples, duplicates) = stored(&shard).await;
    assert_eq!(samples, [Sample::new(early, 1.0), Sample::new(late, 2.0)]);
    assert_eq!(duplicates, 2, "nothing was thrown away");
    assert_eq!(consumer.counted("holds"), 1, "it was found out once");
    consumer.is("Running").await;
    consumer.end().await;
}
