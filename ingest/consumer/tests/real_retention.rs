//! Tables that are older than is kept, on a real server: which go, and which wait.
#![allow(clippy::unwrap_used, reason = "a test file: clippy only sees functions marked as tests")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use support::{SOON, Shard};
use understudy_consumer::log::now_ms;
use understudy_consumer::timeseries::TimeSeries;
use understudy_consumer::{Placed, Record, View};
use understudy_model::frame::{Codec, Full};
use understudy_model::{FrameBuilder, Group, Labels, Sample, Tenant};
use understudy_sql::{Db, Limits};
use understudy_store::Range;
use understudy_store::read::ranges;
use understudy_wire::evidence::Stage;

const HOUR_MS: i64 = 3_600_000;
const DAY: Duration = Duration::from_secs(24 * 3600);

async fn connect(shard: &Shard) -> Conn {
    let address = ([127, 0, 0, 1], shard.servers[0].port).into();
    understudy_sql::open(address, &shard.login(), "SET SESSION lock_wait_timeout = 1", SOON).await.unwrap()
}

/// Lets a view prepare for one sample of this time, out of a record of the same time.
async fn prepare(view: &mut TimeSeries, conn: &mut Conn, at_ms: i64) {
    let labels = Labels::from_pairs([("__name__", "a"), ("job", "node"), ("instance", "b")]).unwrap();
    let mut builder = FrameBuilder::new(Group::of(&Tenant::new("acme").unwrap(), &labels));
    assert_eq!(builder.push(&labels, &[Sample::new(at_ms, 1.0)]), Full::No);
    let frame = builder.finish(None).unwrap();
    let record = Record {
        generation: 1,
        topic: "t".into(),
        partition: 0,
        offset: 0,
        timestamp_ms: Some(at_ms),
        key: Bytes::new(),
        value: frame.encode(Codec::None).unwrap().into(),
        headers: Vec::new(),
    };
    let item = view.decode(&record).item.unwrap();
    let mut db = Db::new(conn, SOON, Stage::Commit, Limits::default());
    view.prepare(&mut db, &[Placed { record, item }]).await.unwrap();
}

#[tokio::test]
async fn a_table_goes_when_all_of_it_is_too_old_by_the_log_and_by_every_clock() {
    let shard = Shard::start(0).await;
    let mut conn = connect(&shard).await;
    let now = now_ms();
    let (old, young) = (now - 40 * HOUR_MS, now - 5 * HOUR_MS);
    let years = 10 * 365 * 24 * HOUR_MS;
    for (case, keep, log, old_stays) in [
        ("kept for ever", None, now, true),
        ("kept for a week", Some(7 * DAY), now, true),
        ("the log has not come so far", Some(DAY), now - 20 * HOUR_MS, true),
        ("kept for a day", Some(DAY), now, false),
        ("the log is years ahead of the clocks", Some(DAY), now + years, false),
    ] {
        let mut everything = TimeSeries::default();
        prepare(&mut everything, &mut conn, old).await;
        prepare(&mut everything, &mut conn, young).await;
        let mut view = match keep {
            Some(keep) => TimeSeries::default().keeping(keep),
            None => TimeSeries::default(),
        };
        prepare(&mut view, &mut conn, log).await;
        let left = ranges(&mut conn).await.unwrap();
        assert_eq!(left.contains(&Range::of(old)), old_stays, "{case}");
        assert!(left.contains(&Range::of(young)), "{case}: what is young stays");
    }
}

#[tokio::test]
async fn tables_go_one_at_a_time() {
    let shard = Shard::start(0).await;
    let mut conn = connect(&shard).await;
    let now = now_ms();
    let mut view = TimeSeries::default();
    for hours in [50, 46, 42] {
        prepare(&mut view, &mut conn, now - hours * HOUR_MS).await;
    }
    let mut view = TimeSeries::default().keeping(DAY);
    prepare(&mut view, &mut conn, now).await;
    prepare(&mut view, &mut conn, now).await;
    let left = ranges(&mut conn).await.unwrap();
    let expected = [46, 42, 0].map(|hours| Range::of(now - hours * HOUR_MS));
    assert_eq!(left, BTreeSet::from(expected), "the oldest went, and a minute has not passed");
}

#[tokio::test]
async fn nobody_waits_for_a_reader_of_an_old_table() {
    let shard = Shard::start(0).await;
    let (mut conn, mut reader) = (connect(&shard).await, shard.admin(0).await);
    let now = now_ms();
    let old = Range::of(now - 50 * HOUR_MS);
    prepare(&mut TimeSeries::default(), &mut conn, old.start_ms()).await;
    reader.query_drop("BEGIN").await.unwrap();
    reader.query_drop(format!("SELECT COUNT(*) FROM {}", old.quoted_table())).await.unwrap();
    prepare(&mut TimeSeries::default().keeping(DAY), &mut conn, now).await;
    assert!(ranges(&mut reader).await.unwrap().contains(&old), "it is read, so it stays");
    reader.query_drop("COMMIT").await.unwrap();
    prepare(&mut TimeSeries::default().keeping(DAY), &mut conn, now).await;
    assert!(!ranges(&mut reader).await.unwrap().contains(&old));
}
