//! What the driver tells its view and takes from its log, without a server.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use understudy_kafka::fake::MemoryLog;
use understudy_kafka::reader::channel::channel;
use understudy_kafka::{Position, ReaderError};
use understudy_sql::Db;

use super::*;
use crate::view::{Decoded, Placed, Record, Tx, ViewError};

/// Counts how often it is told that something is committed.
struct Told(Arc<AtomicUsize>);

#[async_trait]
impl View for Told {
    type Item = ();

    fn decode(&mut self, record: &Record) -> Decoded<()> {
        if record.value.is_empty() { Decoded::reject("empty", "") } else { Decoded::item((), 1) }
    }

    async fn prepare(&mut self, _: &mut Db<'_>, _: &[Placed<()>]) -> Result<(), ViewError> {
        Ok(())
    }

    async fn apply(&mut self, _: &mut Tx<'_>, _: &[Placed<()>]) -> Result<(), ViewError> {
        Ok(())
    }

    fn committed(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct NoLog;

#[async_trait]
impl Log for NoLog {
    async fn assign(&self, _: Vec<Position>) -> Result<u64, ReaderError> {
        Ok(1)
    }
}

fn runner(view: Told) -> Runner<Told, NoLog> {
    let config = Config {
        names: Names { consumer: "test".to_owned(), topic: "lines".to_owned() },
        shard: "metrics-0".to_owned(),
        owner: OwnerId::new("pod", "1"),
        limits: Limits::default(),
        deadlines: Deadlines::default(),
        times: Times::default(),
        holes: Holes::Refused,
        start: Start::Placement,
        paused: false,
        paused_partitions: Vec::new(),
    };
    let deps = Deps {
        login: Box::new(|| Err("there is no server".to_owned())),
        routes: watch::channel(None).1,
        placement: watch::channel(None).1,
        log: NoLog,
        events: channel(1, 1).1,
        ends: watch::channel(Ends::default()).1,
        dead: DeadLetter::new(Arc::new(MemoryLog::new(1))),
        facts: Arc::new(Facts::new("pod", std::time::Instant::now())),
        board: watch::channel(Snapshot::idle("metrics-0")).0,
        metrics: Metrics::default(),
    };
    Runner::new(config, view, deps)
}

fn record(value: &'static str) -> Record {
    Record {
        generation: 1,
        topic: "lines".into(),
        partition: 0,
        offset: 0,
        timestamp_ms: None,
        key: Bytes::new(),
        value: Bytes::from_static(value.as_bytes()),
        headers: Vec::new(),
    }
}

#[test]
fn a_view_hears_of_a_commit_only_if_it_was_asked_to_write() {
    for (case, values, times) in [
        ("items", &["a", "b"][..], 1),
        ("an item and a dead letter", &["a", ""], 1),
        ("dead letters alone", &["", ""], 0),
    ] {
        let told = Arc::new(AtomicUsize::new(0));
        let mut runner = runner(Told(told.clone()));
        for value in values {
            let record = record(value);
            let decoded = runner.view.decode(&record);
            runner.batch.push(record, decoded, Instant::now());
        }
        runner.batch_stored(Instant::now(), &BTreeMap::new(), false);
        assert_eq!(told.load(Ordering::Relaxed), times, "{case}");
        assert!(runner.batch.is_empty(), "{case}");
    }
}
