//! The catalogue of series on real servers: after a change of primary it has each series that samples are stored of.
#![allow(clippy::unwrap_used, reason = "a test file: clippy only sees functions marked as tests")]

mod support;

use std::collections::BTreeMap;

use bytes::Bytes;
use mysql_async::prelude::Queryable;
use support::{SOON, Shard, config, until};
use understudy_consumer::guard::{Fenced, Guard};
use understudy_consumer::hanging::Hanging;
use understudy_consumer::lanes::Note;
use understudy_consumer::log::now_ms;
use understudy_consumer::run::Config;
use understudy_consumer::session::{Progress, Session, Stored, TxError};
use understudy_consumer::timeseries::TimeSeries;
use understudy_consumer::{Placed, Record, Rows, View};
use understudy_model::frame::{Codec, Full};
use understudy_model::{FrameBuilder, Group, Labels, Sample, Tenant};
use understudy_mysql::Instance;
use understudy_wire::Epoch;

/// A pod that stores one series with each record.
struct Pod {
    config: Config,
    view: TimeSeries,
}

impl Pod {
    fn new(name: &str) -> Self {
        Self { config: config(name), view: TimeSeries::default() }
    }

    async fn open(&self, shard: &Shard) -> Session {
        let route = shard.routes().borrow().clone().unwrap();
        let (login, owner, deadlines) = (shard.logins()().unwrap(), &self.config.owner, self.config.deadlines);
        Session::open(&route, &login, owner, deadlines, &mut Hanging::default()).await.unwrap()
    }

    /// Takes the owner row as it is.
    async fn claim(&self, session: &mut Session, epoch: u64) -> Guard {
        let seen = session.survey(&self.config.names).await.unwrap().owner.unwrap_or_default();
        let owner = self.config.owner.clone();
        let claimed = session.claim(&self.config.names, owner.as_str(), &seen, Epoch(epoch)).await;
        let term = claimed.unwrap().unwrap();
        Guard { owner, term, epoch: Epoch(epoch) }
    }

    /// Stores the record of this offset, which has a sample of one series.
    async fn store(&mut self, session: &mut Session, guard: &Guard, offset: i64, series: &str) -> Result<(), TxError> {
        let items = [self.record(offset, series)];
        session.prepare(&mut self.view, &items).await.unwrap();
        let stored = Stored { next_offset: offset + 1, complete_until_ms: 0, dead_letters: 0, note: Note::default() };
        let expected = (offset > 0).then_some(offset);
        let progress = BTreeMap::from([(0, Progress { expected, stored })]);
        session.commit(&self.config.names, guard, &progress, &mut self.view, &items).await?;
        self.view.committed();
        Ok(())
    }

    fn record(&mut self, offset: i64, series: &str) -> Placed<<TimeSeries as View>::Item> {
        let labels = Labels::from_pairs([("__name__", series), ("job", "node"), ("instance", "b")]).unwrap();
        let mut builder = FrameBuilder::new(Group::of(&Tenant::new("acme").unwrap(), &labels));
        assert_eq!(builder.push(&labels, &[Sample::new(now_ms(), 1.0)]), Full::No);
        let frame = builder.finish(None).unwrap();
        let record = Record {
            generation: 1,
            topic: "t".into(),
            partition: 0,
            offset,
            timestamp_ms: Some(now_ms()),
            key: Bytes::new(),
            value: frame.encode(Codec::None).unwrap().into(),
            headers: Vec::new(),
        };
        let item = self.view.decode(&record).item.unwrap();
        Placed { record, item }
    }
}

async fn series_of(shard: &Shard, server: usize) -> i64 {
    let mut conn = shard.admin(server).await;
    conn.query_first("SELECT COUNT(*) FROM store.series").await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_series_that_was_only_seen_on_a_lost_primary_is_stored_on_the_next() {
    let mut shard = Shard::start(1).await;
    let (mut first, mut second) = (Pod::new("a"), Pod::new("b"));
    let mut session = first.open(&shard).await;
    let guard = first.claim(&mut session, 1).await;
    first.store(&mut session, &guard, 0, "common").await.unwrap();
    until("the replica has it", || async { shard.stored(1).await.0.get(&0) == Some(&1) }).await;
    shard.servers[1].admin().stop_receiving(SOON).await.unwrap();

    let mut rival = second.open(&shard).await;
    let taken = second.claim(&mut rival, 1).await;
    second.store(&mut rival, &taken, 1, "new").await.unwrap();
    let outcome = first.store(&mut session, &guard, 1, "new").await;
    assert!(matches!(outcome, Err(TxError::Fenced(Fenced::Owner { .. }))), "{outcome:?}");

    shard.promote(1).await;
    assert_eq!(series_of(&shard, 1).await, 1, "the replica lacks what the rival stored");
    let mut session = first.open(&shard).await;
    first.view.route_changed(Rows::Kept);
    let guard = Guard { epoch: Epoch(2), ..guard };
    first.store(&mut session, &guard, 1, "new").await.unwrap();
    assert_eq!(series_of(&shard, 1).await, 2);
}
