//! A cluster that breaks, in process: librdkafka's own mock. Whatever is wrong, success is never said.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod contract;

use std::time::Duration;

use contract::{record, soon};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tokio::time::Instant;
use understudy_kafka::admin::{Marks, Watermarks};
use understudy_kafka::{
    Admin, AdminError, Broken, Connection, Event, Events, KafkaProducer, Position, Produce, ProducerConfig, Reader,
    ReaderConfig, SendError, Stop,
};

type Mock = MockCluster<'static, DefaultProducerContext>;

fn cluster() -> Mock {
    let mock = MockCluster::new(3).unwrap();
    mock.create_topic("samples", 2, 3).unwrap();
    mock
}

fn config(mock: &Mock) -> ProducerConfig {
    let mut config = ProducerConfig::new(Connection::new(mock.bootstrap_servers(), "test"), "samples");
    config.delivery_timeout = Duration::from_secs(2);
    config
}

fn within(time: Duration) -> Instant {
    Instant::now() + time
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_cluster_confirms() {
    let mock = cluster();
    let producer = KafkaProducer::new(config(&mock)).unwrap();
    assert_eq!(producer.send(vec![record(1, "kept")], soon()).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_are_down_confirm_nothing_and_the_deadline_holds() {
    let mock = cluster();
    let producer = KafkaProducer::new(config(&mock)).unwrap();
    producer.send(vec![record(0, "before")], soon()).await.unwrap();
    for broker in 1..=3 {
        mock.broker_down(broker).unwrap();
    }
    let started = Instant::now();
    let sent = producer.send(vec![record(0, "during")], within(Duration::from_millis(700))).await;
    assert_eq!(sent, Err(SendError::Deadline { unanswered: 1, records: 1 }));
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    for broker in 1..=3 {
        mock.broker_up(broker).unwrap();
    }
    producer.send(vec![record(0, "after")], soon()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_gives_a_record_up_says_so_before_the_callers_deadline() {
    let mock = cluster();
    let mut config = config(&mock);
    config.delivery_timeout = Duration::from_secs(3);
    let producer = KafkaProducer::new(config).unwrap();
    producer.send(vec![record(0, "before")], soon()).await.unwrap();
    for broker in 1..=3 {
        mock.broker_down(broker).unwrap();
    }
    let sent = producer.send(vec![record(0, "during")], soon()).await;
    assert!(matches!(sent, Err(SendError::Refused { failed: 1, records: 1, .. })), "{sent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_replicas_in_sync_is_no_success() {
    let mock = cluster();
    let producer = KafkaProducer::new(config(&mock)).unwrap();
    producer.send(vec![record(0, "before")], soon()).await.unwrap();
    let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS;
    mock.request_errors(RDKafkaApiKey::Produce, &[error; 1000]);
    let sent = producer.send(vec![record(0, "during")], soon()).await;
    assert!(matches!(sent, Err(SendError::Refused { .. } | SendError::Deadline { .. })), "{sent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_passes_is_tried_again_until_it_is_stored_once() {
    let mock = cluster();
    let producer = KafkaProducer::new(config(&mock)).unwrap();
    producer.send(vec![record(0, "before")], soon()).await.unwrap();
    let passing = [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
    ];
    mock.request_errors(RDKafkaApiKey::Produce, &passing);
    let delivered = producer.send(vec![record(0, "during")], soon()).await.unwrap();
    assert_eq!(delivered[0].offset, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_no_broker_would_take_is_refused_at_once() {
    let mock = cluster();
    let producer = KafkaProducer::new(config(&mock)).unwrap();
    let started = Instant::now();
    let sent = producer.send(vec![record(0, "kept"), record(0, &"x".repeat(2_000_000))], soon()).await;
    assert!(matches!(sent, Err(SendError::Refused { failed: 1, records: 2, .. })), "{sent:?}");
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_overload_and_not_a_wait() {
    let mock = cluster();
    for broker in 1..=3 {
        mock.broker_down(broker).unwrap();
    }
    let mut config = config(&mock);
    config.queue_bytes = 150 * 1024;
    config.delivery_timeout = Duration::from_secs(30);
    let producer = KafkaProducer::new(config).unwrap();
    let records = || vec![record(0, &"x".repeat(60 * 1024))];
    let soon = || within(Duration::from_millis(100));
    assert!(matches!(producer.send(records(), soon()).await, Err(SendError::Deadline { .. })));
    assert!(matches!(producer.send(records(), soon()).await, Err(SendError::Deadline { .. })));
    assert_eq!(producer.send(records(), soon()).await, Err(SendError::Overloaded));
}

/// Listens and never answers: what a frozen broker looks like.
async fn mute_broker() -> (tokio::net::TcpListener, Connection) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, Connection::new(address, "test"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_accepts_and_never_answers_is_an_error_within_the_deadline() {
    let (_listener, connection) = mute_broker().await;
    let producer = KafkaProducer::new(ProducerConfig::new(connection.clone(), "samples")).unwrap();
    let started = Instant::now();
    let sent = producer.send(vec![record(0, "lost")], within(Duration::from_millis(500))).await;
    assert!(matches!(sent, Err(SendError::Deadline { .. })), "{sent:?}");
    let asked = producer.partitions(Duration::from_millis(500)).await;
    assert!(matches!(asked, Err(SendError::Metadata { .. })), "{asked:?}");
    let admin = Admin::new(&connection).unwrap();
    let ends = admin.end_offsets("samples", Duration::from_millis(500)).await;
    assert!(matches!(ends, Err(AdminError::Metadata { .. } | AdminError::Deadline(_))), "{ends:?}");
    let origin = admin.origin("samples", Duration::from_millis(500)).await;
    assert!(matches!(origin, Err(AdminError::Metadata { .. } | AdminError::Deadline(_))), "{origin:?}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_whose_brokers_are_away_tells_its_trouble_and_stops_in_time() {
    let (_listener, connection) = mute_broker().await;
    let (reader, _events) = Reader::start(ReaderConfig::new(connection, "samples", "test")).unwrap();
    reader.assign(vec![Position { partition: 0, offset: 0 }]).await.unwrap();
    let started = Instant::now();
    assert_eq!(reader.stop(Duration::from_secs(10)).await, Stop::Clean);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());

    let closed = Connection::new("127.0.0.1:1", "test");
    let (reader, _events) = Reader::start(ReaderConfig::new(closed, "samples", "test")).unwrap();
    reader.assign(vec![Position { partition: 0, offset: 0 }]).await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(10), async {
        while reader.trouble().is_none() {
            tokio::task::yield_now().await;
        }
    });
    told.await.expect("the reader tells that no broker answers");
    assert_eq!(reader.stop(Duration::from_secs(10)).await, Stop::Clean);
}

/// A topic with a record in each of two partitions that different brokers lead.
async fn led_by_two() -> (Mock, Admin) {
    let mock = cluster();
    for (partition, leader) in [(0, 1), (1, 2)] {
        mock.partition_leader("samples", partition, Some(leader)).unwrap();
    }
    let producer = KafkaProducer::new(config(&mock)).unwrap();
    producer.send(vec![record(0, "zero"), record(1, "one")], soon()).await.unwrap();
    let admin = Admin::new(&Connection::new(mock.bootstrap_servers(), "test")).unwrap();
    (mock, admin)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_nobody_leads_hides_the_ends_of_no_other() {
    let (mock, admin) = led_by_two().await;
    let both = Marks { known: [0, 1].map(|p| (p, Watermarks { earliest: 0, end: 1 })).into(), ..Marks::default() };
    assert_eq!(admin.watermarks("samples", Duration::from_secs(10)).await, Ok(both));
    mock.partition_leader("samples", 0, None).unwrap();
    let started = Instant::now();
    let marks = admin.watermarks("samples", Duration::from_secs(10)).await.unwrap();
    assert_eq!(marks.known, [(1, Watermarks { earliest: 0, end: 1 })].into());
    assert_eq!(marks.unknown, [(0, "it has no leader".to_owned())].into());
    assert!(started.elapsed() < Duration::from_secs(5), "nobody waits for it: {:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_answer_hides_the_ends_of_no_others_partitions() {
    let (mock, admin) = led_by_two().await;
    mock.broker_down(1).unwrap();
    let started = Instant::now();
    let within = Duration::from_secs(3);
    let marks = admin.watermarks("samples", within).await.unwrap();
    assert_eq!(marks.known, [(1, Watermarks { earliest: 0, end: 1 })].into());
    assert_eq!(marks.unknown.into_keys().collect::<Vec<_>>(), [0]);
    assert!(started.elapsed() < within + Duration::from_secs(1), "{:?}", started.elapsed());
    mock.broker_down(2).unwrap();
    let ends = admin.end_offsets("samples", within).await;
    assert!(matches!(ends, Err(AdminError::Offsets { .. })), "{ends:?}");
}

async fn next(events: &mut Events) -> Event {
    tokio::time::timeout(Duration::from_secs(20), events.recv())
        .await
        .expect("an event in time")
        .expect("the reader runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_that_was_out_of_range_and_is_not_any_more_stops_its_partition_and_no_other() {
    let mock = cluster();
    for (partition, leader) in [(0, 1), (1, 2)] {
        mock.partition_leader("samples", partition, Some(leader)).unwrap();
    }
    let producer = KafkaProducer::new(config(&mock)).unwrap();
    let connection = Connection::new(mock.bootstrap_servers(), "test");
    let (reader, mut events) = Reader::start(ReaderConfig::new(connection, "samples", "test")).unwrap();
    producer.send(vec![record(0, "zero"), record(1, "one")], soon()).await.unwrap();
    let positions = [0, 1].map(|partition| Position { partition, offset: 0 });
    let generation = reader.assign(positions.to_vec()).await.unwrap();
    for _ in 0..2 {
        assert!(matches!(next(&mut events).await, Event::Record(_)));
    }
    // One leader gives this answer to a fetch of an offset that is there. A real one would repeat it; here it may be lost on the way.
    let mut broken = None;
    for _ in 0..5 {
        mock.request_errors(RDKafkaApiKey::Fetch, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE]);
        broken = tokio::time::timeout(Duration::from_secs(6), events.recv()).await.ok().flatten();
        if broken.is_some() {
            break;
        }
    }
    let Some(Event::Broken { generation: of, partition: stopped, why }) = broken else { panic!("{broken:?}") };
    assert_eq!((of, why), (generation, Broken::Rewritten { expected: 1 }));
    producer.send(vec![record(0, "more of zero"), record(1, "more of one")], soon()).await.unwrap();
    let Event::Record(record) = next(&mut events).await else { panic!("the other partition goes on") };
    assert_eq!((record.partition, record.offset), (1 - stopped, 1));
    assert!(tokio::time::timeout(Duration::from_secs(2), events.recv()).await.is_err(), "nothing of the stopped one");
    assert_eq!(reader.stop(Duration::from_secs(10)).await, Stop::Clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_holds_no_more_than_its_bytes_obeys_while_it_waits_and_delivers_what_is_larger_than_them() {
    let mock = cluster();
    let producer = KafkaProducer::new(config(&mock)).unwrap();
    let large = |bytes| record(0, &"x".repeat(bytes));
    let mut sent = vec![large(100_000); 9];
    sent.push(large(600_000));
    producer.send(sent, soon()).await.unwrap();
    let mut config = ReaderConfig::new(Connection::new(mock.bootstrap_servers(), "test"), "samples", "test");
    config.channel_bytes = 250_000;
    let (reader, mut events) = Reader::start(config).unwrap();
    let start = || vec![Position { partition: 0, offset: 0 }];
    let first = reader.assign(start()).await.unwrap();
    let filled = tokio::time::timeout(Duration::from_secs(20), async {
        while reader.lag()[0].next_offset < 2 {
            tokio::task::yield_now().await;
        }
    });
    filled.await.expect("two records in the channel");

    let second = reader.assign(start()).await.unwrap();
    let (mut of_first, mut of_second) = (Vec::new(), Vec::new());
    while of_second.len() < 10 {
        let Event::Record(record) = next(&mut events).await else { panic!("nothing is missing") };
        match record.generation {
            generation if generation == first => of_first.push(record.offset),
            _ => of_second.push((record.generation, record.offset)),
        }
    }
    assert_eq!(of_first, [0, 1], "the third one did not fit beside them");
    assert_eq!(of_second, (0..10).map(|offset| (second, offset)).collect::<Vec<_>>());

    reader.assign(start()).await.unwrap();
    assert!(matches!(next(&mut events).await, Event::Record(_)));
    assert_eq!(reader.stop(Duration::from_secs(10)).await, Stop::Clean, "with the channel full");
}
