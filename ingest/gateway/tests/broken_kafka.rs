//! The gateway on a real client of Kafka whose cluster breaks (librdkafka's mock): never a 2xx that is not true.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use support::proto::{good, packed};
use support::{Answer, PARTITIONS, Running, WAIT, post, small_limits, start_on};
use tokio::time::{Instant, timeout};
use understudy_gateway::limits::Limits;
use understudy_kafka::fake::MemoryLog;
use understudy_kafka::{Connection, KafkaProducer, ProducerConfig};

type Mock = MockCluster<'static, DefaultProducerContext>;

async fn start() -> (Mock, Running) {
    let mock = MockCluster::new(3).unwrap();
    mock.create_topic("samples", PARTITIONS as i32, 3).unwrap();
    let mut config = ProducerConfig::new(Connection::new(mock.bootstrap_servers(), "test"), "samples");
    config.delivery_timeout = Duration::from_secs(5);
    let producer = Arc::new(KafkaProducer::new(config).unwrap());
    let limits = Limits { produce_timeout: Duration::from_secs(1), ..small_limits() };
    let running = start_on(limits, Arc::new(MemoryLog::new(PARTITIONS)), producer).await;
    until_stored(&running).await;
    (mock, running)
}

async fn send(running: &Running) -> Answer {
    post(running, &packed(&[good("up")])).await
}

/// A first connection takes its time, and so does one that was lost.
async fn until_stored(running: &Running) {
    timeout(WAIT, async { while send(running).await.status != 204 {} }).await.expect("a healthy cluster stores");
}

fn assert_send_again(answer: &Answer) {
    assert_eq!((answer.status, answer.headers["retry-after"].as_str()), (503, "1"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_all_brokers_are_down_everything_is_to_be_sent_again() {
    let (mock, running) = start().await;
    for broker in 1..=3 {
        mock.broker_down(broker).unwrap();
    }
    for _ in 0..3 {
        let started = Instant::now();
        assert_send_again(&send(&running).await);
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    }
    for broker in 1..=3 {
        mock.broker_up(broker).unwrap();
    }
    until_stored(&running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_replicas_in_sync_is_to_be_sent_again() {
    let (mock, running) = start().await;
    for error in [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
    ] {
        mock.request_errors(RDKafkaApiKey::Produce, &[error; 200]);
        assert_send_again(&send(&running).await);
        mock.clear_request_errors(RDKafkaApiKey::Produce);
        until_stored(&running).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_no_retry_cures_is_to_be_sent_again_too() {
    let (mock, running) = start().await;
    for error in [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_REQUIRED_ACKS,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,
    ] {
        mock.request_errors(RDKafkaApiKey::Produce, &[error; 3]);
        assert_send_again(&send(&running).await);
        mock.clear_request_errors(RDKafkaApiKey::Produce);
        until_stored(&running).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_is_fenced_for_good_is_replaced() {
    let (mock, running) = start().await;
    let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID;
    mock.request_errors(RDKafkaApiKey::Produce, &[error; 2]);
    // Whatever it does inside, it must end where requests are stored again, and say 204 only when they are.
    let answer = send(&running).await;
    assert!(answer.status == 503 || answer.status == 204, "{answer:?}");
    until_stored(&running).await;
}
