//! A shard of real servers, a log in memory, a view that would show anything applied twice, and consumers to run on them.

#![allow(dead_code, unused_imports, reason = "each test file that includes this uses a part of it")]

#[path = "../../../../operator/mysql/tests/mysqld/mod.rs"]
pub mod mysqld;

mod careless;
mod shard;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mysqld::free_port;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use understudy_consumer::batch::Limits;
use understudy_consumer::facts::Facts;
use understudy_consumer::guard::OwnerId;
use understudy_consumer::lanes::{Holes, Start};
use understudy_consumer::log::{End, Ends, Log};
use understudy_consumer::machine::Times;
use understudy_consumer::metrics::Metrics;
use understudy_consumer::placement::{Placement, Spans};
use understudy_consumer::run::{Config, Deps, run};
use understudy_consumer::session::{Deadlines, Names};
use understudy_consumer::status::Snapshot;
use understudy_consumer::{Decoded, Placed, Record, Rows, Tx, View, ViewError};
use understudy_kafka::fake::MemoryLog;
use understudy_kafka::reader::channel::{Outbox, channel};
use understudy_kafka::{DeadLetter, Event, Events, Origin, Position, ReaderError};
use understudy_sql::{Db, Insert, Value};

pub use self::careless::{Ask, Careless};
pub use self::shard::Shard;

pub const SOON: Duration = Duration::from_secs(10);
pub const TOPIC: &str = "lines";
pub const CONSUMER: &str = "test";
/// What [`Lines`] writes, and what the rows say of every view here.
pub const SCHEMA: &str = "view_test";

/// Waits for something to become so, or fails saying what did not.
pub async fn until<F: Future<Output = bool>>(what: &str, mut so: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !so().await {
        assert!(Instant::now() < deadline, "it never came to be that {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A topic in memory that any number of readers can read.
#[derive(Clone)]
pub struct TestLog {
    shared: Arc<Shared>,
}

struct Shared {
    origin: Mutex<Origin>,
    partitions: Mutex<Vec<Vec<Bytes>>>,
    grown: Notify,
    ends: watch::Sender<Ends>,
}

impl TestLog {
    pub fn new(partitions: usize) -> Self {
        let shared = Shared {
            origin: Mutex::new(origin("first")),
            partitions: Mutex::new(vec![Vec::new(); partitions]),
            grown: Notify::new(),
            ends: watch::Sender::new(Ends::default()),
        };
        let log = Self { shared: Arc::new(shared) };
        log.tell_ends();
        log
    }

    /// Appends this many lines, spread over the partitions.
    pub fn produce(&self, count: usize) {
        let partitions = self.shared.partitions.lock().unwrap().len();
        for line in 0..count {
            self.put(line % partitions, format!("line {line}").into());
        }
    }

    pub fn put(&self, partition: usize, value: Bytes) {
        self.shared.partitions.lock().unwrap()[partition].push(value);
        self.tell_ends();
        self.shared.grown.notify_waiters();
    }

    pub fn ends(&self) -> BTreeMap<i32, i64> {
        let partitions = self.shared.partitions.lock().unwrap();
        partitions.iter().enumerate().map(|(p, all)| (p as i32, all.len() as i64)).collect()
    }

    fn tell_ends(&self) {
        let (asked, asked_ms) = (Instant::now(), understudy_consumer::log::now_ms());
        let end = |(p, end)| (p, End { earliest: 0, end, asked, asked_ms });
        let partitions = self.ends().into_iter().map(end).collect();
        let origin = Some(self.shared.origin.lock().unwrap().clone());
        self.shared.ends.send_replace(Ends { origin, partitions, trouble: None });
    }

    /// Loses what a partition has from this offset on.
    pub fn cut(&self, partition: usize, end: usize) {
        self.shared.partitions.lock().unwrap()[partition].truncate(end);
        self.tell_ends();
    }

    /// Becomes another topic of the same name, with this many lines in each partition.
    pub fn make_anew(&self, topic: &str, lines: usize) {
        let line = |line| Bytes::from(format!("{topic} line {line}"));
        let mut partitions = self.shared.partitions.lock().unwrap();
        partitions.iter_mut().for_each(|partition| *partition = (0..lines).map(line).collect());
        drop(partitions);
        *self.shared.origin.lock().unwrap() = origin(topic);
        self.tell_ends();
        self.shared.grown.notify_waiters();
    }

    /// A reader of its own for one consumer.
    pub fn reader(&self) -> (TestReader, Events, watch::Receiver<Ends>) {
        let (events, received) = channel(64, 1 << 20);
        let assigned = Arc::new(watch::Sender::new((0, BTreeMap::new())));
        let task = tokio::spawn(deliver(self.shared.clone(), assigned.subscribe(), events));
        (TestReader { assigned, _task: AbortOnDropHandle::new(task) }, received, self.shared.ends.subscribe())
    }
}

fn origin(topic: &str) -> Origin {
    Origin { cluster: Some("test".to_owned()), topic: Some(topic.to_owned()) }
}

type Assigned = (u64, BTreeMap<i32, i64>);

pub struct TestReader {
    assigned: Arc<watch::Sender<Assigned>>,
    _task: AbortOnDropHandle<()>,
}

impl TestReader {
    /// Tells how often it was told where to read.
    pub fn assignments(&self) -> impl Fn() -> u64 + use<> {
        let assigned = self.assigned.clone();
        move || assigned.borrow().0
    }
}

#[async_trait]
impl Log for TestReader {
    async fn assign(&self, positions: Vec<Position>) -> Result<u64, ReaderError> {
        let mut generation = 0;
        self.assigned.send_modify(|assigned| {
            assigned.0 += 1;
            assigned.1 = positions.iter().map(|at| (at.partition, at.offset)).collect();
            generation = assigned.0;
        });
        Ok(generation)
    }
}

async fn deliver(shared: Arc<Shared>, mut assigned: watch::Receiver<Assigned>, events: Outbox) {
    let (mut generation, mut positions) = assigned.borrow_and_update().clone();
    loop {
        let grown = shared.grown.notified();
        let mut waiting = Vec::new();
        {
            let partitions = shared.partitions.lock().unwrap();
            for (partition, at) in &mut positions {
                if let Some(value) = partitions[*partition as usize].get(*at as usize) {
                    waiting.push((*partition, *at, value.clone()));
                    *at += 1;
                }
            }
        }
        let idle = waiting.is_empty();
        for (partition, offset, value) in waiting {
            let record = Record {
                generation,
                topic: TOPIC.into(),
                partition,
                offset,
                timestamp_ms: Some(understudy_consumer::log::now_ms()),
                key: Bytes::new(),
                value,
                headers: Vec::new(),
            };
            tokio::select! {
                biased;
                Ok(()) = assigned.changed() => break,
                sent = events.send(Event::Record(record)) => if !sent { return },
            }
        }
        if idle {
            tokio::select! {
                changed = assigned.changed() => if changed.is_err() { return },
                () = grown => {}
            }
        }
        let now = assigned.borrow_and_update().clone();
        if now.0 != generation {
            (generation, positions) = now;
        }
    }
}

/// Writes each line into a table without a unique key, so that a line that is applied twice is there twice.
#[derive(Default)]
pub struct Lines {
    pub ready: bool,
    /// How long to pause in the middle of each transaction.
    pub slow: Option<Duration>,
    /// Counts the transactions that came to their middle.
    middle: watch::Sender<u64>,
    /// What it was told of the rows on each connection.
    pub told: Arc<Mutex<Vec<Rows>>>,
}

/// Sees transactions that are in their middle.
pub struct Middle(watch::Receiver<u64>);

impl Lines {
    /// Pauses this long in the middle of each transaction.
    pub fn slow(pause: Duration) -> (Self, Middle) {
        let middle = watch::Sender::new(0);
        let seen = Middle(middle.subscribe());
        (Self { slow: Some(pause), middle, ..Self::default() }, seen)
    }
}

impl Middle {
    /// Only those count that come from now on.
    pub fn forget(&mut self) {
        self.0.mark_unchanged();
    }

    /// Waits for a transaction that came to its middle and was not seen yet.
    pub async fn reached(&mut self) {
        tokio::time::timeout(SOON, self.0.changed()).await.expect("a transaction in time").unwrap();
    }
}

#[async_trait]
impl View for Lines {
    type Item = String;

    fn decode(&mut self, record: &Record) -> Decoded<String> {
        match std::str::from_utf8(&record.value) {
            Ok(line) => Decoded::item(line.to_owned(), 1),
            Err(e) => Decoded::reject("not_utf8", e.to_string()),
        }
    }

    async fn prepare(&mut self, db: &mut Db<'_>, _items: &[Placed<String>]) -> Result<(), ViewError> {
        if !self.ready {
            db.text("schema", "CREATE DATABASE IF NOT EXISTS view_test").await?;
            let table = "CREATE TABLE IF NOT EXISTS view_test.line \
                         (partition_id INT, kafka_offset BIGINT, line VARCHAR(200), KEY (partition_id, kafka_offset))";
            db.text("table", table).await?;
            self.ready = true;
        }
        Ok(())
    }

    async fn apply(&mut self, tx: &mut Tx<'_>, items: &[Placed<String>]) -> Result<(), ViewError> {
        if let Some(index) = items.iter().position(|placed| placed.item == "poison") {
            return Err(ViewError::Reject { index, reason: "poison", detail: "as told".to_owned() });
        }
        let rows = items.iter().map(|placed| {
            let record = &placed.record;
            vec![Value::from(record.partition), Value::from(record.offset), Value::from(placed.item.as_str())]
        });
        let (half, rest): (Vec<_>, Vec<_>) = rows.enumerate().partition(|(index, _)| index % 2 == 0);
        let insert = Insert {
            head: "INSERT INTO view_test.line (partition_id, kafka_offset, line) VALUES",
            columns: 3,
            tail: "",
        };
        tx.insert("half of the lines", &insert, half.into_iter().map(|(_, row)| row).collect()).await?;
        self.middle.send_modify(|count| *count += 1);
        if let Some(pause) = self.slow {
            tokio::time::sleep(pause).await;
        }
        tx.insert("the other half", &insert, rest.into_iter().map(|(_, row)| row).collect()).await?;
        Ok(())
    }

    fn route_changed(&mut self, rows: Rows) {
        self.told.lock().unwrap().push(rows);
        self.ready = false;
    }
}

/// A consumer that runs.
pub struct Running {
    pub facts: Arc<Facts>,
    pub board: watch::Receiver<Snapshot>,
    pub metrics: Metrics,
    pub stop: CancellationToken,
    pub task: AbortOnDropHandle<()>,
}

impl Running {
    pub async fn is(&self, word: &str) {
        let mut board = self.board.clone();
        let waited = tokio::time::timeout(SOON, board.wait_for(|seen| seen.state == word)).await;
        assert!(waited.is_ok(), "never {word}: {:?}", self.board.borrow());
    }

    /// Waits until the one partition has this fault.
    pub async fn has_fault(&self, word: Option<&'static str>) {
        let mut board = self.board.clone();
        let so = board.wait_for(|seen| seen.partitions.first().is_some_and(|p| p.fault == word));
        let waited = tokio::time::timeout(SOON, so).await;
        assert!(waited.is_ok(), "never {word:?}: {:?}", self.board.borrow());
    }

    /// Ends as a pod does that is told to.
    pub async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(SOON, self.task).await.unwrap().unwrap();
    }

    /// The value of a counter in the metrics' text.
    pub fn counted(&self, name: &str) -> u64 {
        let text = self.metrics.text().unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("understudy_consumer_{name}_total")));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
    }
}

pub fn placement(partitions: usize) -> Placement {
    (0..partitions as i32).map(|p| (p, Spans::from(0))).collect()
}

pub fn config(pod: &str) -> Config {
    Config {
        names: Names { consumer: CONSUMER.to_owned(), topic: TOPIC.to_owned(), schema: SCHEMA.to_owned() },
        shard: "metrics-0".to_owned(),
        owner: OwnerId::new(pod, &free_port().to_string()),
        limits: Limits { records: 20, delay: Duration::from_millis(20), ..Limits::default() },
        deadlines: Deadlines::default(),
        times: Times::default(),
        holes: Holes::Refused,
        start: Start::Placement,
        paused: false,
        paused_partitions: Vec::new(),
    }
}

pub fn start<V: View>(pod: &str, shard: &Shard, log: &TestLog, dead: &Arc<MemoryLog>, view: V) -> Running {
    let (reader, events, ends) = log.reader();
    let placement = placement(log.ends().len());
    start_with(config(pod), shard, placement, reader, events, ends, DeadLetter::new(dead.clone()), view)
}

#[expect(clippy::too_many_arguments, reason = "a test's own wiring")]
pub fn start_with<V: View, L: Log>(
    config: Config,
    shard: &Shard,
    placement: Placement,
    log: L,
    events: Events,
    ends: watch::Receiver<Ends>,
    dead: DeadLetter,
    view: V,
) -> Running {
    let facts = Arc::new(Facts::new(config.owner.as_str(), std::time::Instant::now()));
    let (board, seen) = watch::channel(Snapshot::idle("metrics-0"));
    let metrics = Metrics::default();
    let deps = Deps {
        login: Arc::new(shard.logins()),
        routes: shard.routes(),
        transitions: shard.transitions(),
        placement: watch::channel(Some(placement)).1,
        log,
        events,
        ends,
        dead,
        facts: facts.clone(),
        board,
        metrics: metrics.clone(),
    };
    let stop = CancellationToken::new();
    let task = tokio::spawn(run(config, view, deps, stop.clone()));
    Running { facts, board: seen, metrics, stop, task: AbortOnDropHandle::new(task) }
}
