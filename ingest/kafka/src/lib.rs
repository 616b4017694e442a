//! Kafka as the data path uses it: a producer whose success means "durable", a reader that starts where it is told
//! and never skips, and the topic's administration. I/O. The guarantees are spelled out in `ingest/docs/data-path.md`.
//!
//! Not used, on purpose: consumer groups and rebalances, stored offsets, partition queues, transactions, topics made
//! by accident. Offsets live in MySQL beside the data; Kafka only keeps the log.

pub mod admin;
mod connection;
pub mod dead_letter;
#[cfg(feature = "fake")]
pub mod fake;
pub mod producer;
pub mod reader;
pub mod record;

pub use admin::{Admin, AdminError, Difference, Origin, TopicSpec, TopicState};
pub use connection::Connection;
pub use dead_letter::{DeadLetter, dead_letter_topic};
pub use producer::{KafkaProducer, Produce, ProducerConfig, SendError};
pub use reader::{Broken, Event, Events, PartitionLag, Reader, ReaderConfig, ReaderError, Stop, Trouble};
pub use record::{Delivered, OutRecord, Position, RawRecord};
