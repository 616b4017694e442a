//! Producing with an answer that can be trusted. I/O.
//!
//! [`Produce::send`] returns `Ok` only after the broker reported, for **every** record, that all in-sync replicas have
//! it (`acks=all`; the topic's `min.insync.replicas` says how many those are at least, see [`crate::admin`]). Every
//! other outcome is an error, and an error says nothing about whether the records are in the log: some or all may be.
//! The caller answers its sender "not stored", the sender repeats, and the store keeps equal samples once.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use tokio::time::Instant;

use crate::connection::{Connection, Logged};
use crate::record::{Delivered, OutRecord};

/// Something that makes records durable: Kafka, or the fake of [`crate::fake`].
#[async_trait]
pub trait Produce: Send + Sync {
    /// Hands over all records and waits for every delivery report, until `deadline` at the latest.
    /// The answers are in the order of the records.
    async fn send(&self, records: Vec<OutRecord>, deadline: Instant) -> Result<Vec<Delivered>, SendError>;

    /// How many partitions the topic has, asked of the cluster: fails when no broker answers in time.
    async fn partitions(&self, within: Duration) -> Result<u32, SendError>;
}

/// Why records are not known to be durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The queue to the brokers is full: they are slower than the senders, or away.
    #[error("the queue to Kafka is full")]
    Overloaded,
    /// No answer in time.
    #[error("{unanswered} of {records} records were not confirmed in time")]
    Deadline {
        /// How many had no delivery report.
        unanswered: usize,
        /// How many were handed over.
        records: usize,
    },
    /// A broker or the client refused.
    #[error("{failed} of {records} records were not stored: {first}")]
    Refused {
        /// How many failed.
        failed: usize,
        /// How many were handed over.
        records: usize,
        /// The first failure.
        first: String,
    },
    /// No metadata: no broker answers, or the topic does not exist.
    #[error("ask for the partitions of {topic}: {reason}")]
    Metadata {
        /// The topic.
        topic: String,
        /// What the client said.
        reason: String,
    },
}

/// What a producer needs to know.
#[derive(Debug, Clone)]
pub struct ProducerConfig {
    /// The cluster.
    pub connection: Connection,
    /// Where records go.
    pub topic: String,
    /// The most bytes that wait for brokers; beyond it [`SendError::Overloaded`].
    pub queue_bytes: usize,
    /// How long one record may stay undelivered before the client gives it up.
    pub delivery_timeout: Duration,
    /// How long the client waits for further records to put into the same request.
    pub linger: Duration,
}

impl ProducerConfig {
    /// The usual values: 64 MiB in flight, 10 s for a delivery, 2 ms to fill a request.
    pub fn new(connection: Connection, topic: impl Into<String>) -> Self {
        Self {
            connection,
            topic: topic.into(),
            queue_bytes: 64 << 20,
            delivery_timeout: Duration::from_secs(10),
            linger: Duration::from_millis(2),
        }
    }
}

/// The producer of one topic: idempotent, `acks=all`, bounded. Clones share the connection and the queue.
#[derive(Clone)]
pub struct KafkaProducer {
    config: Arc<ProducerConfig>,
    client: Arc<RwLock<Client>>,
}

/// The librdkafka client and how many there were before it: a fatal error ends one.
#[derive(Clone)]
struct Client {
    inner: FutureProducer<Logged>,
    number: u64,
}

impl KafkaProducer {
    /// Starts the client. Does not wait for a broker: use [`Produce::partitions`] for that.
    pub fn new(config: ProducerConfig) -> Result<Self, SendError> {
        let inner = create(&config)?;
        Ok(Self { config: Arc::new(config), client: Arc::new(RwLock::new(Client { inner, number: 0 })) })
    }

    /// The topic it produces to.
    pub fn topic(&self) -> &str {
        &self.config.topic
    }

    /// Records handed over and not yet answered.
    pub fn in_flight(&self) -> usize {
        usize::try_from(self.client().inner.in_flight_count()).unwrap_or(0)
    }

    fn client(&self) -> Client {
        self.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An idempotent producer that met a fatal error never delivers again, so another takes its place. Safe because a
    /// record without a delivery report was never acknowledged to anybody.
    fn replace_if_fatal(&self, used: &Client) {
        let Some((code, reason)) = used.inner.client().fatal_error() else { return };
        let mut client = self.client.write().unwrap_or_else(PoisonError::into_inner);
        if client.number != used.number {
            return;
        }
        match create(&self.config) {
            Ok(inner) => {
                tracing::warn!(%code, reason, "the producer met a fatal error and is replaced");
                let number = client.number + 1;
                let old = std::mem::replace(&mut *client, Client { inner, number });
                // Dropping joins a thread and flushes.
                tokio::task::spawn_blocking(move || drop(old));
            }
            Err(error) => tracing::error!(%error, "the producer met a fatal error and no other can be made"),
        }
    }

    fn enqueue(
        &self,
        client: &Client,
        record: &OutRecord,
    ) -> Result<rdkafka::producer::future_producer::DeliveryFuture, KafkaError> {
        let mut headers = OwnedHeaders::new();
        for (name, value) in &record.headers {
            headers = headers.insert(Header { key: name, value: Some(value.as_ref()) });
        }
        let mut out = FutureRecord::<[u8], [u8]>::to(&self.config.topic).key(&record.key).payload(&record.value);
        if !record.headers.is_empty() {
            out = out.headers(headers);
        }
        out.partition = record.partition;
        client.inner.send_result(out).map_err(|(error, _)| error)
    }
}

#[async_trait]
impl Produce for KafkaProducer {
    async fn send(&self, records: Vec<OutRecord>, deadline: Instant) -> Result<Vec<Delivered>, SendError> {
        let client = self.client();
        let total = records.len();
        let mut reports = Vec::with_capacity(total);
        for record in records {
            match self.enqueue(&client, &record) {
                Ok(report) => reports.push(report),
                Err(KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) => return Err(SendError::Overloaded),
                Err(error) => {
                    self.replace_if_fatal(&client);
                    let failed = total - reports.len();
                    return Err(SendError::Refused { failed, records: total, first: error.to_string() });
                }
            }
        }
        // Each report resolves by itself, so one deadline over all of them leaves none behind that must be polled.
        let mut answered = 0;
        let outcome = tokio::time::timeout_at(deadline, async {
            let mut delivered = Vec::with_capacity(total);
            let (mut failed, mut first) = (0, None);
            for report in reports {
                match report.await {
                    Ok(Ok(at)) => delivered.push(Delivered { partition: at.partition, offset: at.offset }),
                    Ok(Err((error, _))) => {
                        failed += 1;
                        first.get_or_insert_with(|| error.to_string());
                    }
                    Err(_) => {
                        failed += 1;
                        first.get_or_insert_with(|| "the producer was closed".to_owned());
                    }
                }
                answered += 1;
            }
            match first {
                None => Ok(delivered),
                Some(first) => Err(SendError::Refused { failed, records: total, first }),
            }
        })
        .await;
        let result = outcome.unwrap_or(Err(SendError::Deadline { unanswered: total - answered, records: total }));
        if result.is_err() {
            self.replace_if_fatal(&client);
        }
        result
    }

    async fn partitions(&self, within: Duration) -> Result<u32, SendError> {
        let client = self.client().inner;
        let topic = self.config.topic.clone();
        let failed = |reason: String| SendError::Metadata { topic: self.config.topic.clone(), reason };
        let asked = tokio::task::spawn_blocking(move || {
            let metadata = client.client().fetch_metadata(Some(&topic), within).map_err(|error| error.to_string())?;
            let found = metadata.topics().iter().find(|found| found.name() == topic);
            match found {
                Some(found) if found.error().is_none() && !found.partitions().is_empty() => {
                    Ok(found.partitions().len() as u32)
                }
                Some(found) => Err(format!("{:?}", found.error())),
                None => Err("the cluster does not know it".to_owned()),
            }
        });
        match tokio::time::timeout(within + Duration::from_millis(500), asked).await {
            Ok(Ok(answer)) => answer.map_err(failed),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed("no answer in time".to_owned())),
        }
    }
}

fn create(config: &ProducerConfig) -> Result<FutureProducer<Logged>, SendError> {
    let timeout = config.delivery_timeout.as_millis();
    let mut client = config.connection.config();
    client
        .set("request.timeout.ms", timeout.min(3000).to_string())
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("max.in.flight.requests.per.connection", "5")
        .set("delivery.timeout.ms", timeout.to_string())
        .set("linger.ms", config.linger.as_millis().to_string())
        .set("retry.backoff.ms", "50")
        .set("retry.backoff.max.ms", "500")
        .set("queue.buffering.max.kbytes", (config.queue_bytes / 1024).max(1).to_string())
        .set("queue.buffering.max.messages", "1000000")
        // Frames are compressed by themselves.
        .set("compression.type", "none");
    client.create_with_context(Logged).map_err(|error| SendError::Refused {
        failed: 0,
        records: 0,
        first: format!("start the client: {error}"),
    })
}
