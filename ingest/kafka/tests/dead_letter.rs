//! What is put aside is always small enough to be taken, and says what it lacks.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::mocking::MockCluster;
use tokio::time::Instant;
use understudy_kafka::fake::MemoryLog;
use understudy_kafka::{Connection, DeadLetter, KafkaProducer, OutRecord, Produce, ProducerConfig, RawRecord};

const KIB: usize = 1024;

fn foreign(key: usize, value: usize, headers: &[(&str, usize)]) -> RawRecord {
    let bytes = |length| Bytes::from(vec![b'x'; length]);
    RawRecord {
        generation: 1,
        topic: "samples".into(),
        partition: 3,
        offset: 41,
        timestamp_ms: Some(0),
        key: bytes(key),
        value: bytes(value),
        headers: headers.iter().map(|(name, length)| ((*name).to_owned(), bytes(*length))).collect(),
    }
}

async fn put(record: &RawRecord, producer: Arc<dyn Produce>) -> Result<(), understudy_kafka::SendError> {
    let deadline = Instant::now() + Duration::from_secs(20);
    // More than a broker takes, in characters of several bytes.
    DeadLetter::new(producer).put(record, "truncated", &"\u{1d11e}".repeat(300_000), deadline).await
}

fn header<'a>(letter: &'a OutRecord, name: &str) -> Option<&'a str> {
    let found = letter.headers.iter().find(|(found, _)| found == name);
    found.map(|(_, value)| std::str::from_utf8(value).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_foreign_record_is_made_of_a_broker_takes_what_is_put_aside_of_it() {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("samples.dead-letter", 1, 1).unwrap();
    let connection = Connection::new(mock.bootstrap_servers(), "test");
    let real = Arc::new(KafkaProducer::new(ProducerConfig::new(connection, "samples.dead-letter")).unwrap());
    let many: Vec<(&str, usize)> = vec![("h", 0); 300_000];
    let detail = "\u{1d11e}".repeat(512);
    for (case, record, key, value, left_out) in [
        ("a small one", foreign(3, 4, &[("own", 5)]), None, None, None),
        ("at the limits", foreign(128 * KIB, 512 * KIB, &[("own", 100 * KIB)]), None, None, None),
        ("a large key", foreign(2000 * KIB, 4, &[]), Some("2048000"), None, None),
        ("a large value", foreign(3, 2000 * KIB, &[]), None, Some("2048000"), None),
        ("a large header", foreign(3, 4, &[("own", 2000 * KIB), ("small", 5)]), None, None, Some("1")),
        ("headers that are large together", foreign(3, 4, &[("h", 50 * KIB); 30]), None, None, Some("28")),
        ("many headers", foreign(3, 4, &many), None, None, Some("288085")),
        ("all of it", foreign(900 * KIB, 900 * KIB, &[("h", 90 * KIB); 10]), Some("921600"), Some("921600"), Some("9")),
    ] {
        let taken = put(&record, real.clone()).await;
        assert_eq!(taken, Ok(()), "{case}");
        let log = Arc::new(MemoryLog::new(1));
        put(&record, log.clone()).await.unwrap();
        let letter = log.records(0).remove(0);
        assert_eq!(header(&letter, "understudy-key-bytes"), key, "{case}");
        assert_eq!(header(&letter, "understudy-value-bytes"), value, "{case}");
        assert_eq!(header(&letter, "understudy-headers-left-out"), left_out, "{case}");
        assert_eq!(header(&letter, "understudy-offset"), Some("41"), "{case}");
        assert_eq!(header(&letter, "understudy-detail"), Some(detail.as_str()), "{case}: only its beginning");
        let own = letter.headers.iter().filter(|(name, _)| !name.starts_with("understudy-")).count();
        let left_out = left_out.map_or(0, |number| number.parse().unwrap());
        assert_eq!(own + left_out, record.headers.len(), "{case}: a header is whole or not there");
        assert!(record.key.starts_with(&letter.key) && record.value.starts_with(&letter.value), "{case}");
    }
}
