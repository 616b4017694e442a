//! The time-series view from a real Kafka into real servers, through a failover to a replica that lags: every sample once, bit by bit.
#![allow(clippy::unwrap_used, reason = "a test file: clippy only sees functions marked as tests")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use support::{SOON, Shard, config, placement, start_with, until};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use understudy_consumer::log::{Ends, keep_asking};
use understudy_consumer::timeseries::TimeSeries;
use understudy_kafka::{
    Admin, Connection, DeadLetter, KafkaProducer, OutRecord, Position, Produce, ProducerConfig, RawRecord, Reader,
    ReaderConfig, TopicSpec, dead_letter_topic,
};
use understudy_model::frame::{Codec, Full};
use understudy_model::{Frame, FrameBuilder, Group, Labels, Sample, Tenant, partition_of};
use understudy_mysql::Instance;
use understudy_store::{Matcher, Merged, matching_series, read_samples};

const PARTITIONS: i32 = 4;
const WAIT: Duration = Duration::from_secs(20);
const MOST: usize = 1_000_000;

fn connection() -> Connection {
    let bootstrap = std::env::var("UNDERSTUDY_TEST_KAFKA").expect(
        "UNDERSTUDY_TEST_KAFKA must name the brokers of a real Kafka (host:port,...); `cargo lab test` sets it",
    );
    Connection::new(bootstrap, "understudy-test")
}

/// A topic with its dead letters, made for one test.
struct Topic {
    name: String,
    admin: Admin,
    producer: KafkaProducer,
    sent: BTreeMap<(String, i64), u64>,
    serial: u64,
}

impl Topic {
    async fn make() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
        let name = format!("understudy-consumer-test-{now}-{}", std::process::id());
        let admin = Admin::new(&connection()).unwrap();
        let replication = admin.brokers(WAIT).await.unwrap().min(3) as i32;
        for (name, partitions) in [(name.clone(), PARTITIONS), (dead_letter_topic(&name), 1)] {
            let spec = TopicSpec::durable(name, partitions, replication, Duration::from_secs(3600));
            admin.ensure_topic(&spec, WAIT).await.unwrap();
        }
        let producer = KafkaProducer::new(ProducerConfig::new(connection(), &name)).unwrap();
        Self { name, admin, producer, sent: BTreeMap::new(), serial: 0 }
    }

    /// One scrape of each of twelve hosts, three series each; no two samples have the same value.
    async fn scrape(&mut self, at: i64) {
        let mut records = Vec::new();
        for host in 0..12 {
            let host = format!("h{host}");
            let group = Group::new(Tenant::new("acme").unwrap(), "node", &host);
            let mut builder = FrameBuilder::new(group.clone());
            for name in ["a", "b", "c"] {
                self.serial += 1;
                // Every bit pattern is a value, NaNs included.
                let bits = self.serial.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let labels = Labels::from_pairs([("__name__", name), ("job", "node"), ("instance", &host)]).unwrap();
                assert_eq!(builder.push(&labels, &[Sample { timestamp_ms: at, bits }]), Full::No);
                self.sent.insert((labels.to_string(), at), bits);
            }
            let frame = builder.finish(None).unwrap();
            let partition = partition_of(group.id(), PARTITIONS as u32) as i32;
            records.push(self.record(partition, frame.encode(Codec::Zstd).unwrap()));
        }
        self.producer.send(records, Instant::now() + WAIT).await.unwrap();
    }

    fn record(&self, partition: i32, value: Vec<u8>) -> OutRecord {
        OutRecord { partition: Some(partition), key: Bytes::new(), value: value.into(), headers: Vec::new() }
    }

    async fn put(&self, partition: i32, value: Vec<u8>) {
        self.producer.send(vec![self.record(partition, value)], Instant::now() + WAIT).await.unwrap();
    }

    async fn dead_letters(&self) -> Vec<RawRecord> {
        let topic = dead_letter_topic(&self.name);
        let end = self.admin.end_offsets(&topic, WAIT).await.unwrap()[&0];
        let (reader, mut events) = Reader::start(ReaderConfig::new(connection(), topic, "test")).unwrap();
        reader.assign(vec![Position { partition: 0, offset: 0 }]).await.unwrap();
        let mut letters = Vec::new();
        while (letters.len() as i64) < end {
            match tokio::time::timeout(WAIT, events.recv()).await.unwrap().unwrap() {
                understudy_kafka::Event::Record(letter) => letters.push(letter),
                broken => panic!("{broken:?}"),
            }
        }
        letters
    }
}

async fn read(shard: &Shard, server: usize) -> (BTreeMap<(String, i64), u64>, u64) {
    let mut conn = shard.admin(server).await;
    let acme = Tenant::new("acme").unwrap();
    let node = [Matcher::equal("job", "node")];
    let series = matching_series(&mut conn, &acme, &node, MOST, &mut |_| Ok(())).await.unwrap();
    let merged: Merged = read_samples(&mut conn, &acme, &series, (i64::MIN, i64::MAX), MOST).await.unwrap();
    let mut all = BTreeMap::new();
    for series in &series {
        for sample in merged.series.get(&series.id).into_iter().flatten() {
            all.insert((series.labels.to_string(), sample.timestamp_ms), sample.bits);
        }
    }
    (all, merged.duplicates)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sample_is_there_once_after_a_failover_to_a_replica_that_lags() {
    let mut shard = Shard::start(1).await;
    let mut topic = Topic::make().await;
    let stop = CancellationToken::new();
    let mut config = config("a");
    config.names.topic = topic.name.clone();
    let mut reading = ReaderConfig::new(connection(), &topic.name, "test");
    reading.channel_records = 32;
    let (reader, events) = Reader::start(reading).unwrap();
    let (ends, seen) = watch::channel(Ends::default());
    let facts = Arc::new(understudy_consumer::facts::Facts::new("ends", std::time::Instant::now()));
    let asking = keep_asking(topic.admin.clone(), topic.name.clone(), ends, facts.clone(), stop.clone());
    let asking = AbortOnDropHandle::new(tokio::spawn(asking));
    let letters = KafkaProducer::new(ProducerConfig::new(connection(), dead_letter_topic(&topic.name))).unwrap();
    let dead = DeadLetter::new(Arc::new(letters));
    let placed = placement(PARTITIONS as usize);
    let consumer = start_with(config, &shard, placed, Arc::new(reader), events, seen, dead, TimeSeries::default());

    let now = understudy_consumer::log::now_ms();
    for scrape in 0..40 {
        topic.scrape(now - 600_000 + scrape * 1000).await;
    }
    until("the replica has some of it", || async { read(&shard, 1).await.0.len() > 100 }).await;
    shard.servers[1].admin().stop_receiving(SOON).await.unwrap();
    topic.put(0, b"not a frame".to_vec()).await;
    let far = frame_at(now + 40_000_000_000);
    topic.put(1, far.encode(Codec::None).unwrap()).await;
    for scrape in 40..60 {
        topic.scrape(now - 600_000 + scrape * 1000).await;
    }
    until("the primary has all of it", || async { read(&shard, 0).await.0.len() == topic.sent.len() }).await;
    assert!(read(&shard, 1).await.0.len() < topic.sent.len(), "the replica lags");
    until("idle partitions are complete", || async {
        let snapshot = consumer.board.borrow().clone();
        snapshot.partitions.iter().all(|p| p.lag_records == 0 && p.complete_until_ms > now)
    })
    .await;

    shard.servers[0].signal("STOP");
    for scrape in 60..70 {
        topic.scrape(now - 600_000 + scrape * 1000).await;
    }
    shard.promote(1).await;
    until("the new primary has all of it", || async { read(&shard, 1).await.0.len() == topic.sent.len() }).await;
    let (stored, duplicates) = read(&shard, 1).await;
    assert_eq!(duplicates, 0);
    assert_eq!(stored, topic.sent);

    let reasons: BTreeMap<String, usize> =
        topic.dead_letters().await.iter().fold(BTreeMap::new(), |mut all, letter| {
            let reason = letter.headers.iter().find(|(name, _)| name == "understudy-reason").unwrap();
            *all.entry(String::from_utf8(reason.1.to_vec()).unwrap()).or_default() += 1;
            all
        });
    assert_eq!(reasons.keys().collect::<Vec<_>>(), ["outside_window", "truncated"]);
    consumer.end().await;
    stop.cancel();
    asking.await.unwrap();
}

fn frame_at(at: i64) -> Frame {
    let labels = Labels::from_pairs([("__name__", "a"), ("job", "node"), ("instance", "far")]).unwrap();
    let mut builder = FrameBuilder::new(Group::of(&Tenant::new("acme").unwrap(), &labels));
    assert_eq!(builder.push(&labels, &[Sample::new(at, 1.0)]), Full::No);
    builder.finish(None).unwrap()
}
