//! Reading from given offsets, in one poll loop on a thread of its own. I/O.
//!
//! The offset to start from comes from MySQL, so it is given with [`Reader::assign`] and never sought later; nothing
//! is stored in or taken from a consumer group. What a partition delivers is **gapless**: a record below the expected
//! offset is dropped, and a record above it stops the partition with [`Broken::Gap`], because an offset that is missing
//! may have been an acknowledged record. Offsets are missing for good reasons only where a topic is compacted or
//! written by transactions; the topics of the data path are neither ([`crate::TopicSpec::durable`]), and a view of
//! somebody else's transactional topic sets [`ReaderConfig::accept_gaps`].
//!
//! Back-pressure: the channel is bounded by records and by bytes; while it is full the loop waits for room in it and librdkafka's own queue
//! fills up to its bound. Partition queues (`split_partition_queue`) are not used: they can lose their wake-up and fall silent.

pub mod channel;
mod poll;
mod trouble;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

pub use self::channel::Events;
pub use self::trouble::Trouble;
use crate::connection::Connection;
use crate::record::{Position, RawRecord};

/// What a reader needs to know.
#[derive(Debug, Clone)]
pub struct ReaderConfig {
    /// The cluster.
    pub connection: Connection,
    /// The topic.
    pub topic: String,
    /// The group under whose name hints are committed, for lag tools only.
    pub group: String,
    /// How many records may wait in the channel.
    pub channel_records: usize,
    /// How many bytes of them may; a record that is larger waits alone.
    pub channel_bytes: usize,
    /// How many bytes librdkafka may hold beyond the channel.
    pub queue_bytes: usize,
    /// Deliver past missing offsets, and only what was committed. Only for topics written by transactions.
    pub accept_gaps: bool,
}

impl ReaderConfig {
    /// The usual values: 512 records and 16 MiB in the channel, 16 MiB behind it, no gaps.
    pub fn new(connection: Connection, topic: impl Into<String>, group: impl Into<String>) -> Self {
        Self {
            connection,
            topic: topic.into(),
            group: group.into(),
            channel_records: 512,
            channel_bytes: 16 << 20,
            queue_bytes: 16 << 20,
            accept_gaps: false,
        }
    }
}

/// What comes out of the channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The next record of its partition.
    Record(RawRecord),
    /// A partition delivers nothing more until the next assignment.
    Broken {
        /// Which assignment it belongs to.
        generation: u64,
        /// Which partition.
        partition: i32,
        /// Why.
        why: Broken,
    },
}

impl Event {
    /// The bytes of the record's key, value and headers.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Record(record) => {
                let headers: usize = record.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
                record.key.len() + record.value.len() + headers
            }
            Self::Broken { .. } => 0,
        }
    }
}

/// Why a partition cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Offsets are missing in the middle of the log.
    #[error("offset {expected} is missing, the next record has offset {got}")]
    Gap {
        /// The offset that should have come.
        expected: i64,
        /// The one that came.
        got: i64,
    },
    /// Retention has deleted what was still needed.
    #[error("offset {expected} is gone, the earliest is {earliest}")]
    BelowEarliest {
        /// The offset that should have come.
        expected: i64,
        /// The earliest there is.
        earliest: i64,
    },
    /// The log ends before the offset wanted: records that were stored are not in it any more, or it is another topic
    /// of the same name.
    #[error("offset {expected} is beyond the end, which is {end}")]
    BeyondEnd {
        /// The offset that should have come.
        expected: i64,
        /// The end of the log.
        end: i64,
    },
    /// The log ended before the offset wanted and grew past it again: other records have the offsets of some that were delivered.
    #[error("offset {expected} was beyond the end and is not any more: the log was cut below it and grew again")]
    Rewritten {
        /// The offset that should have come.
        expected: i64,
    },
}

/// Why a reader cannot do as told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReaderError {
    /// The client could not be made.
    #[error("start the client: {0}")]
    Client(String),
    /// The client refused the assignment.
    #[error("assign: {0}")]
    Assign(String),
    /// The client refused to pause or to resume.
    #[error("pause or resume: {0}")]
    Flow(String),
    /// The loop has ended.
    #[error("the reader has stopped")]
    Stopped,
}

/// How far a partition is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionLag {
    /// Which partition.
    pub partition: i32,
    /// The offset that the channel gets next.
    pub next_offset: i64,
    /// The end of the log, as last heard; about a second old. `None` until first heard.
    pub end_offset: Option<i64>,
    /// When the end was heard.
    pub heard: Option<Instant>,
}

/// How a stop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Stop {
    /// The thread has ended and the connections are closed.
    Clean,
    /// The client did not close in time; its thread is left behind and holds nothing of ours.
    Abandoned,
}

/// The handle of a running poll loop. Dropping it stops the loop without waiting.
#[derive(Debug)]
pub struct Reader {
    commands: mpsc::Sender<Command>,
    state: Arc<Mutex<State>>,
    ended: oneshot::Receiver<()>,
}

/// What the loop is told.
#[derive(Debug)]
enum Command {
    Assign(Vec<Position>, oneshot::Sender<Result<u64, ReaderError>>),
    Flow(Vec<i32>, Flow, oneshot::Sender<Result<(), ReaderError>>),
    Hint(Vec<Position>),
}

/// Whether partitions are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Pause,
    Resume,
}

/// What the loop shares: written by it, read by [`Reader::lag`] and [`Reader::trouble`].
#[derive(Debug, Default)]
struct State {
    partitions: BTreeMap<i32, PartitionLag>,
    trouble: Option<Trouble>,
    /// In how many statistics in a row librdkafka did not fetch a partition.
    not_fetched: BTreeMap<i32, u32>,
}

impl Reader {
    /// Starts the loop, with nothing assigned. Must be called within a tokio runtime.
    pub fn start(config: ReaderConfig) -> Result<(Self, Events), ReaderError> {
        let (commands, inbox) = mpsc::channel(64);
        let (outbox, events) = channel::channel(config.channel_records, config.channel_bytes);
        let (end, ended) = oneshot::channel();
        let state = Arc::new(Mutex::new(State::default()));
        poll::Loop::spawn(config, inbox, outbox, state.clone(), end)?;
        Ok((Self { commands, state, ended }, events))
    }

    /// Reads these partitions from these offsets, and no others: replaces what was assigned before. Returns the
    /// generation that the records of this assignment carry; the channel may still hold some of earlier ones.
    pub async fn assign(&self, positions: Vec<Position>) -> Result<u64, ReaderError> {
        let (answer, answered) = oneshot::channel();
        self.tell(Command::Assign(positions, answer)).await?;
        answered.await.map_err(|_| ReaderError::Stopped)?
    }

    /// Stops fetching from partitions; the loop and its connections stay alive. Records that are in the channel, or
    /// wait for room in it, still come.
    pub async fn pause(&self, partitions: Vec<i32>) -> Result<(), ReaderError> {
        self.flow(partitions, Flow::Pause).await
    }

    /// Goes on where [`Reader::pause`] stopped.
    pub async fn resume(&self, partitions: Vec<i32>) -> Result<(), ReaderError> {
        self.flow(partitions, Flow::Resume).await
    }

    async fn flow(&self, partitions: Vec<i32>, flow: Flow) -> Result<(), ReaderError> {
        let (answer, answered) = oneshot::channel();
        self.tell(Command::Flow(partitions, flow, answer)).await?;
        answered.await.map_err(|_| ReaderError::Stopped)?
    }

    /// Tells Kafka how far we are, for lag tools. Best effort: nothing ever reads it back.
    pub async fn hint(&self, positions: Vec<Position>) -> Result<(), ReaderError> {
        self.tell(Command::Hint(positions)).await
    }

    /// How far each assigned partition is.
    pub fn lag(&self) -> Vec<PartitionLag> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).partitions.values().copied().collect()
    }

    /// The last run of complaints of the brokers. It stays when it is over: whoever reads it knows what has come since.
    pub fn trouble(&self) -> Option<Trouble> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).trouble.clone()
    }

    /// Ends the loop and waits for it, but not longer than told: a client that will not close is left behind.
    pub async fn stop(self, within: Duration) -> Stop {
        drop(self.commands);
        match tokio::time::timeout(within, self.ended).await {
            Ok(_) => Stop::Clean,
            Err(_) => Stop::Abandoned,
        }
    }

    async fn tell(&self, command: Command) -> Result<(), ReaderError> {
        self.commands.send(command).await.map_err(|_| ReaderError::Stopped)
    }
}
