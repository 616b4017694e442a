//! What every log must keep, the fake one and a real cluster alike. `Log` is how a test makes one and looks into it.
#![allow(dead_code, clippy::unwrap_used, reason = "tests: each target uses a part of this, and a failure may panic")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;
use understudy_kafka::{OutRecord, Produce};

/// A topic under test.
#[async_trait]
pub trait Log {
    /// A topic of so many partitions and its producer.
    async fn with_partitions(count: u32) -> Self;
    /// The producer.
    fn producer(&self) -> Arc<dyn Produce>;
    /// All records of a partition.
    async fn records(&self, partition: i32) -> Vec<OutRecord>;
}

pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

pub fn record(partition: i32, value: &str) -> OutRecord {
    OutRecord {
        partition: Some(partition),
        key: Bytes::from_static(b"key"),
        value: Bytes::from(value.to_owned()),
        headers: Vec::new(),
    }
}

pub async fn confirmed_records_are_in_their_partition_in_order<L: Log>() {
    let log = L::with_partitions(3).await;
    let records: Vec<OutRecord> = (0..300).map(|index| record(index % 3, &format!("value-{index}"))).collect();
    let delivered = log.producer().send(records.clone(), soon()).await.unwrap();
    assert_eq!(delivered.len(), 300);
    for (index, at) in delivered.iter().enumerate() {
        assert_eq!((at.partition, at.offset), (index as i32 % 3, index as i64 / 3));
    }
    for partition in 0..3 {
        let expected: Vec<_> = records.iter().filter(|record| record.partition == Some(partition)).cloned().collect();
        assert_eq!(log.records(partition).await, expected);
    }
}

pub async fn key_value_and_headers_come_back_whatever_they_hold<L: Log>() {
    let log = L::with_partitions(1).await;
    let binary = Bytes::from((0..=255).collect::<Vec<u8>>());
    let records = vec![
        OutRecord {
            partition: Some(0),
            key: binary.clone(),
            value: binary.clone(),
            headers: vec![("name".to_owned(), binary.clone()), ("name".to_owned(), Bytes::new())],
        },
        OutRecord { partition: Some(0), key: Bytes::new(), value: Bytes::new(), headers: Vec::new() },
        OutRecord { value: Bytes::from(vec![7; 960 * 1024]), ..record(0, "") },
    ];
    log.producer().send(records.clone(), soon()).await.unwrap();
    assert_eq!(log.records(0).await, records);
}

pub async fn sends_at_the_same_time_do_not_disturb_each_other<L: Log>() {
    let log = L::with_partitions(2).await;
    let sends = (0..20).map(|sender| {
        let producer = log.producer();
        tokio::spawn(async move {
            let records = (0..10).map(|index| record(sender % 2, &format!("{sender}-{index}"))).collect();
            producer.send(records, soon()).await
        })
    });
    for send in sends.collect::<Vec<_>>() {
        assert_eq!(send.await.unwrap().unwrap().len(), 10);
    }
    let stored = log.records(0).await;
    assert_eq!(stored.len() + log.records(1).await.len(), 200);
    let of_sender = |sender: &str| {
        let prefix = format!("{sender}-");
        let values = stored.iter().map(|record| String::from_utf8(record.value.to_vec()).unwrap());
        values.filter_map(|value| value.strip_prefix(&prefix).map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(of_sender("4"), (0..10).map(|index| index.to_string()).collect::<Vec<_>>());
}

pub async fn nothing_to_send_is_sent_at_once<L: Log>() {
    let log = L::with_partitions(1).await;
    assert_eq!(log.producer().send(Vec::new(), Instant::now()).await, Ok(Vec::new()));
}

pub async fn a_partition_that_does_not_exist_is_refused<L: Log>() {
    let log = L::with_partitions(1).await;
    let sent = log.producer().send(vec![record(7, "lost")], soon()).await;
    assert!(sent.is_err(), "{sent:?}");
    assert_eq!(log.records(0).await, []);
}

pub async fn the_number_of_partitions_is_told<L: Log>() {
    let log = L::with_partitions(5).await;
    assert_eq!(log.producer().partitions(Duration::from_secs(10)).await, Ok(5));
}

/// Declares one test for each case, for one kind of log.
#[macro_export]
macro_rules! contract {
    ($log:ty) => {
        $crate::contract!($log:
            confirmed_records_are_in_their_partition_in_order,
            key_value_and_headers_come_back_whatever_they_hold,
            sends_at_the_same_time_do_not_disturb_each_other,
            nothing_to_send_is_sent_at_once,
            a_partition_that_does_not_exist_is_refused,
            the_number_of_partitions_is_told,
        );
    };
    ($log:ty: $($case:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                contract::$case::<$log>().await;
            }
        )*
    };
}
