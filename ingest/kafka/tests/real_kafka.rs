//! The contract and the reader against a real cluster: `UNDERSTUDY_TEST_KAFKA` names its brokers. Each test makes a
//! topic of its own.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod contract;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use contract::{Log, record, soon};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use tokio::time::timeout;
use understudy_kafka::{
    Admin, AdminError, Broken, Connection, DeadLetter, Difference, Event, Events, KafkaProducer, OutRecord, Position,
    Produce, ProducerConfig, RawRecord, Reader, ReaderConfig, Stop, TopicSpec,
};

const WAIT: Duration = Duration::from_secs(20);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn connection() -> Connection {
    let bootstrap = std::env::var("UNDERSTUDY_TEST_KAFKA").expect(
        "UNDERSTUDY_TEST_KAFKA must name the brokers of a real Kafka (host:port,...); `cargo lab test` sets it",
    );
    Connection::new(bootstrap, "understudy-test")
}

fn fresh_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
    format!("understudy-test-{now}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A topic that goes with its test.
struct Doomed(String);

impl Drop for Doomed {
    fn drop(&mut self) {
        let name = self.0.clone();
        let deleted = std::thread::spawn(move || {
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", connection().bootstrap);
            let client: AdminClient<DefaultClientContext> = config.create().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            drop(runtime.block_on(client.delete_topics(&[&name], &AdminOptions::new())));
        });
        drop(deleted.join());
    }
}

/// A topic of a test and its producer.
struct Topic {
    name: String,
    producer: Arc<KafkaProducer>,
    _doomed: Doomed,
}

async fn spec(partitions: i32) -> TopicSpec {
    let brokers = Admin::new(&connection()).unwrap().brokers(WAIT).await.unwrap();
    TopicSpec::durable(fresh_name(), partitions, brokers.min(3) as i32, DAY)
}

#[async_trait]
impl Log for Topic {
    async fn with_partitions(count: u32) -> Self {
        let spec = spec(count as i32).await;
        let state = Admin::new(&connection()).unwrap().ensure_topic(&spec, WAIT).await.unwrap();
        assert!(state.created && state.differences.is_empty(), "{state:?}");
        let producer = Arc::new(KafkaProducer::new(ProducerConfig::new(connection(), &spec.name)).unwrap());
        Self { name: spec.name.clone(), producer, _doomed: Doomed(spec.name) }
    }

    fn producer(&self) -> Arc<dyn Produce> {
        self.producer.clone()
    }

    async fn records(&self, partition: i32) -> Vec<OutRecord> {
        let ends = Admin::new(&connection()).unwrap().end_offsets(&self.name, WAIT).await.unwrap();
        let (reader, mut events) = self.reader();
        reader.assign(vec![Position { partition, offset: 0 }]).await.unwrap();
        let mut records = Vec::new();
        for _ in 0..ends[&partition] {
            let RawRecord { key, value, headers, .. } = next_record(&mut events).await;
            records.push(OutRecord { partition: Some(partition), key, value, headers });
        }
        assert_eq!(reader.stop(WAIT).await, Stop::Clean);
        records
    }
}

impl Topic {
    fn reader(&self) -> (Reader, Events) {
        self.reader_with(|_| {})
    }

    fn reader_with(&self, change: impl FnOnce(&mut ReaderConfig)) -> (Reader, Events) {
        let mut config = ReaderConfig::new(connection(), &self.name, format!("{}-group", self.name));
        change(&mut config);
        Reader::start(config).unwrap()
    }

    async fn fill(&self, partition: i32, count: usize) {
        let records = (0..count).map(|index| record(partition, &index.to_string())).collect();
        self.producer.send(records, soon()).await.unwrap();
    }
}

async fn next(events: &mut Events) -> Event {
    timeout(WAIT, events.recv()).await.expect("an event in time").expect("the reader runs")
}

async fn next_record(events: &mut Events) -> RawRecord {
    match next(events).await {
        Event::Record(record) => record,
        Event::Broken { partition, why, .. } => panic!("partition {partition}: {why}"),
    }
}

async fn until<T>(mut found: impl FnMut() -> Option<T>) -> T {
    timeout(WAIT, async {
        loop {
            if let Some(found) = found() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the condition in time")
}

contract!(Topic);

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_made_once_and_then_only_checked() {
    let admin = Admin::new(&connection()).unwrap();
    let spec = spec(4).await;
    let _doomed = Doomed(spec.name.clone());
    let first = admin.ensure_topic(&spec, WAIT).await.unwrap();
    assert!(first.created && first.differences.is_empty(), "{first:?}");
    assert_eq!((first.partitions, first.replication), (4, spec.replication));
    let second = admin.ensure_topic(&spec, WAIT).await.unwrap();
    assert!(!second.created && second.differences.is_empty(), "{second:?}");

    let mut other = spec.clone();
    other.partitions = 6;
    other.replication += 1;
    other.config.insert("retention.ms".to_owned(), "60000".to_owned());
    other.config.insert("no.such.property".to_owned(), "x".to_owned());
    let third = admin.ensure_topic(&other, WAIT).await.unwrap();
    let differences = [
        Difference::Partitions { wanted: 6, found: 4 },
        Difference::Replication { wanted: spec.replication + 1, found: spec.replication },
        Difference::Config { key: "no.such.property".to_owned(), wanted: "x".to_owned(), found: None },
        Difference::Config {
            key: "retention.ms".to_owned(),
            wanted: "60000".to_owned(),
            found: Some(DAY.as_millis().to_string()),
        },
    ];
    assert_eq!(third.differences, differences);
    assert_eq!(admin.describe_topic(&spec, WAIT).await.unwrap().differences, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_make_a_topic_at_once_both_get_it() {
    let spec = spec(2).await;
    let _doomed = Doomed(spec.name.clone());
    let make = || {
        let spec = spec.clone();
        tokio::spawn(async move { Admin::new(&connection()).unwrap().ensure_topic(&spec, WAIT).await })
    };
    let (one, other) = (make(), make());
    let (one, other) = (one.await.unwrap().unwrap(), other.await.unwrap().unwrap());
    assert!(one.created ^ other.created, "{one:?} {other:?}");
    assert_eq!((one.differences, other.differences), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_for_a_topic_does_not_make_it() {
    let admin = Admin::new(&connection()).unwrap();
    let name = fresh_name();
    let producer = KafkaProducer::new(ProducerConfig::new(connection(), &name)).unwrap();
    let missing = AdminError::NoSuchTopic(name.clone());
    assert_eq!(admin.end_offsets(&name, WAIT).await, Err(missing.clone()));
    assert!(producer.partitions(Duration::from_secs(5)).await.is_err());
    assert!(producer.send(vec![record(0, "lost")], soon()).await.is_err());
    assert_eq!(admin.end_offsets(&name, WAIT).await, Err(missing));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_starts_where_it_is_told_and_tells_its_lag() {
    let topic = Topic::with_partitions(2).await;
    topic.fill(0, 10).await;
    topic.fill(1, 5).await;
    let (reader, mut events) = topic.reader();
    let generation =
        reader.assign(vec![Position { partition: 0, offset: 7 }, Position { partition: 1, offset: 5 }]).await.unwrap();
    for offset in 7..10 {
        let record = next_record(&mut events).await;
        assert_eq!((record.partition, record.offset, record.generation), (0, offset, generation));
        assert_eq!(record.value, offset.to_string());
        assert!(record.timestamp_ms.is_some());
    }
    let lag = until(|| {
        let lag = reader.lag();
        lag.iter().all(|partition| partition.end_offset.is_some()).then_some(lag)
    })
    .await;
    let lag: Vec<_> = lag.iter().map(|lag| (lag.partition, lag.next_offset, lag.end_offset)).collect();
    assert_eq!(lag, [(0, 10, Some(10)), (1, 5, Some(5))]);
    topic.fill(1, 1).await;
    assert_eq!(next_record(&mut events).await.offset, 5);
    assert_eq!(reader.stop(WAIT).await, Stop::Clean);
    assert_eq!(events.recv().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_assignment_rewinds_and_its_records_carry_its_generation() {
    let topic = Topic::with_partitions(1).await;
    topic.fill(0, 100).await;
    let (reader, mut events) = topic.reader_with(|config| config.channel_records = 4);
    let first = reader.assign(vec![Position { partition: 0, offset: 50 }]).await.unwrap();
    assert_eq!(next_record(&mut events).await.offset, 50);
    // The channel is full now: an assignment must get through nevertheless.
    until(|| (events.len() == 4).then_some(())).await;
    let second = timeout(WAIT, reader.assign(vec![Position { partition: 0, offset: 3 }])).await.unwrap().unwrap();
    assert!(second > first);
    let mut of_second = Vec::new();
    while of_second.len() < 97 {
        let record = next_record(&mut events).await;
        if record.generation == second {
            of_second.push(record.offset);
        }
    }
    assert_eq!(of_second, (3..100).collect::<Vec<_>>());
    assert_eq!(reader.stop(WAIT).await, Stop::Clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_partition_is_silent_and_goes_on_where_it_stopped() {
    let topic = Topic::with_partitions(2).await;
    let (reader, mut events) = topic.reader();
    reader.assign(vec![Position { partition: 0, offset: 0 }, Position { partition: 1, offset: 0 }]).await.unwrap();
    topic.fill(0, 3).await;
    for offset in 0..3 {
        assert_eq!(next_record(&mut events).await.offset, offset);
    }
    reader.pause(vec![0]).await.unwrap();
    topic.fill(0, 3).await;
    topic.fill(1, 3).await;
    for offset in 0..3 {
        let record = next_record(&mut events).await;
        assert_eq!((record.partition, record.offset), (1, offset));
    }
    reader.resume(vec![0]).await.unwrap();
    for offset in 3..6 {
        let record = next_record(&mut events).await;
        assert_eq!((record.partition, record.offset), (0, offset));
    }
    assert_eq!(reader.stop(WAIT).await, Stop::Clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_that_retention_took_breaks_its_partition_and_no_other() {
    let topic = Topic::with_partitions(2).await;
    topic.fill(0, 10).await;
    topic.fill(1, 1).await;
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", connection().bootstrap);
    let native: AdminClient<DefaultClientContext> = config.create().unwrap();
    let mut deleted = TopicPartitionList::new();
    deleted.add_partition_offset(&topic.name, 0, Offset::Offset(6)).unwrap();
    native.delete_records(&deleted, &AdminOptions::new().operation_timeout(Some(WAIT))).await.unwrap();
    let admin = Admin::new(&connection()).unwrap();
    assert_eq!(admin.earliest_offsets(&topic.name, WAIT).await.unwrap(), BTreeMap::from([(0, 6), (1, 0)]));

    let (reader, mut events) = topic.reader();
    reader.assign(vec![Position { partition: 0, offset: 2 }, Position { partition: 1, offset: 0 }]).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.push(match next(&mut events).await {
            Event::Record(record) => (record.partition, None),
            Event::Broken { partition, why, .. } => (partition, Some(why)),
        });
    }
    seen.sort_by_key(|(partition, _)| *partition);
    assert_eq!(seen, [(0, Some(Broken::BelowEarliest { expected: 2, earliest: 6 })), (1, None)]);
    topic.fill(1, 1).await;
    assert_eq!(next_record(&mut events).await.partition, 1);
    reader.assign(vec![Position { partition: 0, offset: 6 }]).await.unwrap();
    assert_eq!(next_record(&mut events).await.offset, 6);
    assert_eq!(reader.stop(WAIT).await, Stop::Clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_beyond_the_end_breaks_its_partition() {
    let topic = Topic::with_partitions(1).await;
    topic.fill(0, 3).await;
    let (reader, mut events) = topic.reader();
    let generation = reader.assign(vec![Position { partition: 0, offset: 10 }]).await.unwrap();
    let broken = Event::Broken { generation, partition: 0, why: Broken::BeyondEnd { expected: 10, end: 3 } };
    assert_eq!(next(&mut events).await, broken);
    assert_eq!(reader.stop(WAIT).await, Stop::Clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_read_however_their_producer_compressed_them() {
    const EACH: usize = 50;
    let topic = Topic::with_partitions(1).await;
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    let values = move |codec| (0..EACH).map(move |count| format!("{codec} {count} {}", "x".repeat(1000)));
    let name = topic.name.clone();
    let written = tokio::task::spawn_blocking(move || {
        for codec in codecs {
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", connection().bootstrap).set("compression.type", codec);
            // One batch of each, so that there is something to compress.
            let producer: BaseProducer = config.set("linger.ms", "1000").create().unwrap();
            for value in values(codec) {
                let record = BaseRecord::<(), str>::to(&name).partition(0).payload(&value);
                producer.send(record).map_err(|(e, _)| e).unwrap();
            }
            producer.flush(WAIT).unwrap();
        }
    });
    written.await.unwrap();
    let (reader, mut events) = topic.reader();
    reader.assign(vec![Position { partition: 0, offset: 0 }]).await.unwrap();
    for value in codecs.into_iter().flat_map(values) {
        assert_eq!(next_record(&mut events).await.value, value);
    }
    assert_eq!(reader.stop(WAIT).await, Stop::Clean);
}

/// What becomes of a transaction.
#[derive(Clone, Copy)]
enum End {
    Commit,
    Abort,
}

/// A topic with one record in each of these transactions. The end of one takes an offset that no reader gets to see: a real gap.
async fn topic_with_gaps(transactions: &'static [(&'static str, End)]) -> Topic {
    let topic = Topic::with_partitions(1).await;
    let name = topic.name.clone();
    let written = tokio::task::spawn_blocking(move || {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", connection().bootstrap).set("transactional.id", &name);
        let producer: BaseProducer = config.create().unwrap();
        producer.init_transactions(WAIT).unwrap();
        for (value, end) in transactions {
            producer.begin_transaction().unwrap();
            producer.send(BaseRecord::<(), str>::to(&name).partition(0).payload(value)).map_err(|(e, _)| e).unwrap();
            // What is taken back before it was sent would not be in the log.
            producer.flush(WAIT).unwrap();
            let ended = match end {
                End::Commit => producer.commit_transaction(WAIT),
                End::Abort => producer.abort_transaction(WAIT),
            };
            ended.unwrap();
        }
    });
    written.await.unwrap();
    topic
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_offset_breaks_the_partition() {
    let topic = topic_with_gaps(&[("one", End::Commit), ("two", End::Commit)]).await;
    let (reader, mut events) = topic.reader();
    let generation = reader.assign(vec![Position { partition: 0, offset: 0 }]).await.unwrap();
    assert_eq!(next_record(&mut events).await.offset, 0);
    let broken = Event::Broken { generation, partition: 0, why: Broken::Gap { expected: 1, got: 2 } };
    assert_eq!(next(&mut events).await, broken);
    assert_eq!(reader.stop(WAIT).await, Stop::Clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_told_to_accept_gaps_goes_on() {
    let topic = topic_with_gaps(&[("one", End::Commit), ("two", End::Commit)]).await;
    let (reader, mut events) = topic.reader_with(|config| config.accept_gaps = true);
    reader.assign(vec![Position { partition: 0, offset: 0 }]).await.unwrap();
    assert_eq!(next_record(&mut events).await.offset, 0);
    assert_eq!(next_record(&mut events).await.offset, 2);
    assert_eq!(reader.stop(WAIT).await, Stop::Clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_transactions_gets_nothing_of_one_that_was_taken_back() {
    let topic = topic_with_gaps(&[("one", End::Commit), ("taken back", End::Abort), ("two", End::Commit)]).await;
    let (reader, mut events) = topic.reader_with(|config| config.accept_gaps = true);
    reader.assign(vec![Position { partition: 0, offset: 0 }]).await.unwrap();
    let first = next_record(&mut events).await;
    let second = next_record(&mut events).await;
    assert_eq!((first.offset, &first.value[..]), (0, &b"one"[..]));
    assert_eq!((second.offset, &second.value[..]), (4, &b"two"[..]));
    assert_eq!(reader.stop(WAIT).await, Stop::Clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_is_there_for_lag_tools_and_moves_no_reader() {
    let topic = Topic::with_partitions(1).await;
    topic.fill(0, 5).await;
    let (reader, mut events) = topic.reader();
    reader.assign(vec![Position { partition: 0, offset: 1 }]).await.unwrap();
    assert_eq!(next_record(&mut events).await.offset, 1);
    let group = format!("{}-group", topic.name);
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", connection().bootstrap).set("group.id", group);
    let watcher: BaseConsumer = config.create().unwrap();
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition(&topic.name, 0);
    // Best effort: while the cluster still looks for the group's coordinator a hint is lost.
    timeout(WAIT, async {
        loop {
            reader.hint(vec![Position { partition: 0, offset: 4 }]).await.unwrap();
            let committed = watcher.committed_offsets(wanted.clone(), Duration::from_secs(2)).unwrap_or_default();
            let hinted = committed.find_partition(&topic.name, 0).map(|at| at.offset());
            if hinted == Some(Offset::Offset(4)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .expect("the hint in time");
    assert_eq!(next_record(&mut events).await.offset, 2);
    assert_eq!(reader.stop(WAIT).await, Stop::Clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_tells_where_it_came_from_and_why() {
    let topic = Topic::with_partitions(1).await;
    let letters = DeadLetter::new(topic.producer());
    let source = RawRecord {
        generation: 1,
        topic: "samples".into(),
        partition: 3,
        offset: 41,
        timestamp_ms: Some(0),
        key: Bytes::from_static(b"key"),
        value: Bytes::from(vec![1; 1_040_000]),
        headers: vec![("own".to_owned(), Bytes::from_static(b"kept"))],
    };
    letters.put(&source, "checksum", &"é".repeat(10_000), soon()).await.unwrap();
    let letter = topic.records(0).await.remove(0);
    assert_eq!((letter.key, letter.value.len()), (Bytes::from_static(b"key"), 512 * 1024));
    let headers: Vec<(&str, &str)> =
        letter.headers.iter().map(|(name, value)| (name.as_str(), std::str::from_utf8(value).unwrap())).collect();
    let detail = "é".repeat(512);
    assert_eq!(
        headers,
        [
            ("own", "kept"),
            ("understudy-value-bytes", "1040000"),
            ("understudy-topic", "samples"),
            ("understudy-partition", "3"),
            ("understudy-offset", "41"),
            ("understudy-reason", "checksum"),
            ("understudy-detail", &detail),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_made_anew_under_its_name_is_another_one_of_the_same_cluster() {
    let topic = Topic::with_partitions(1).await;
    let admin = Admin::new(&connection()).unwrap();
    let before = admin.origin(&topic.name, WAIT).await.unwrap();
    assert!(before.cluster.is_some() && before.topic.is_some(), "{before}");
    assert_eq!(admin.origin(&topic.name, WAIT).await.unwrap(), before);
    let missing = fresh_name();
    assert_eq!(admin.origin(&missing, WAIT).await, Err(AdminError::NoSuchTopic(missing)));

    drop(Doomed(topic.name.clone()));
    let mut spec = spec(1).await;
    spec.name.clone_from(&topic.name);
    loop {
        // The old one may still be told of by a broker that has not heard.
        match admin.ensure_topic(&spec, WAIT).await {
            Ok(state) if state.created => break,
            Ok(_) | Err(AdminError::Create { .. }) => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(error) => panic!("{error}"),
        }
    }
    let after = admin.origin(&topic.name, WAIT).await.unwrap();
    assert_eq!(after.cluster, before.cluster);
    assert!(!after.agrees(&before), "{after}");
}
