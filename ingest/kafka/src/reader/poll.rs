//! The loop: commands in, records out, everything else of librdkafka served in between. I/O, on its own thread.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::statistics::Statistics;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::channel::{Outbox, Place};
use super::{Broken, Command, Event, Flow, PartitionLag, ReaderConfig, ReaderError, State, Trouble};
use crate::connection::Logged;
use crate::record::{Position, RawRecord};

/// How long one poll waits: the delay of a command when nothing arrives.
const POLL: Duration = Duration::from_millis(20);
/// How long the loop may ask a broker for the ends of a partition that reported an offset out of range.
const WATERMARKS: Duration = Duration::from_secs(3);

/// What the statistics say of a partition that librdkafka does not fetch.
const NOT_FETCHED: &str = "none";
/// In how many statistics in a row a partition must be so to be taken for stopped: one that was just assigned may be so in one.
const STOPPED_AFTER: u32 = 2;

/// Passes librdkafka's statistics to the shared state.
struct Context {
    topic: String,
    state: Arc<Mutex<State>>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Logged.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Logged.error(error, reason);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Trouble::add(&mut state.trouble, reason.to_owned(), Instant::now(), SystemTime::now());
    }

    fn stats(&self, statistics: Statistics) {
        let Some(topic) = statistics.topics.get(&self.topic) else { return };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for partition in topic.partitions.values() {
            if partition.fetch_state == NOT_FETCHED {
                *state.not_fetched.entry(partition.partition).or_default() += 1;
            } else {
                state.not_fetched.remove(&partition.partition);
            }
        }
        for partition in topic.partitions.values().filter(|partition| partition.hi_offset >= 0) {
            if let Some(known) = state.partitions.get_mut(&partition.partition) {
                known.end_offset = Some(partition.hi_offset.max(known.next_offset));
                known.heard = Some(Instant::now());
            }
        }
    }
}

impl ConsumerContext for Context {
    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(%error, "the hint for lag tools was not taken");
        }
    }
}

/// The state of the loop's thread.
pub(super) struct Loop {
    consumer: BaseConsumer<Context>,
    topic: Arc<str>,
    accept_gaps: bool,
    runtime: Handle,
    inbox: Receiver<Command>,
    outbox: Outbox,
    state: Arc<Mutex<State>>,
    generation: u64,
    /// The next offset of each partition that still delivers.
    expected: BTreeMap<i32, i64>,
    /// Whether some partition was stopped by an offset out of range that is in range by now.
    stopped: bool,
}

/// Whether the loop goes on.
#[derive(PartialEq, Eq)]
enum Turn {
    On,
    End,
}

impl Loop {
    pub fn spawn(
        config: ReaderConfig,
        inbox: Receiver<Command>,
        outbox: Outbox,
        state: Arc<Mutex<State>>,
        end: oneshot::Sender<()>,
    ) -> Result<(), ReaderError> {
        let failed = |error: String| ReaderError::Client(error);
        let mut client = config.connection.config();
        // What a transaction wrote and took back was never written.
        let isolation = if config.accept_gaps { "read_committed" } else { "read_uncommitted" };
        client
            .set("group.id", &config.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // An offset that is not there is our business: never jump.
            .set("auto.offset.reset", "error")
            .set("isolation.level", isolation)
            .set("check.crcs", "true")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.error.backoff.ms", "100")
            // A queue that was full is asked for again as soon, and not after a second: the channel behind it empties faster than that.
            .set("fetch.queue.backoff.ms", "100")
            .set("queued.max.messages.kbytes", (config.queue_bytes / 1024).max(1).to_string())
            .set("statistics.interval.ms", "1000");
        let context = Context { topic: config.topic.clone(), state: state.clone() };
        let consumer = client.create_with_context(context).map_err(|error| failed(error.to_string()))?;
        let mut reader = Self {
            consumer,
            topic: config.topic.into(),
            accept_gaps: config.accept_gaps,
            runtime: Handle::current(),
            inbox,
            outbox,
            state,
            generation: 0,
            expected: BTreeMap::new(),
            stopped: false,
        };
        let thread = std::thread::Builder::new().name("kafka reader".to_owned()).spawn(move || {
            reader.run();
            // Closing the client may take long, or for ever: whoever waits for the end decides how long.
            drop(reader);
            drop(end);
        });
        thread.map(drop).map_err(|error| failed(error.to_string()))
    }

    fn run(&mut self) {
        loop {
            match self.inbox.try_recv() {
                Ok(command) => self.obey(command),
                Err(tokio::sync::mpsc::error::TryRecvError::Disconnected) => return,
                Err(tokio::sync::mpsc::error::TryRecvError::Empty) => {
                    if self.turn() == Turn::End {
                        return;
                    }
                }
            }
        }
    }

    /// One poll, and what came of it into the channel.
    fn turn(&mut self) -> Turn {
        if self.stopped && self.find_stopped() == Turn::End {
            return Turn::End;
        }
        let event = match self.consumer.poll(POLL) {
            None => None,
            Some(Ok(message)) => receive(&message, &mut self.expected, self.accept_gaps, self.generation, &self.topic),
            Some(Err(error)) => return self.complain(error),
        };
        match event {
            Some(event) => self.deliver(event),
            None => Turn::On,
        }
    }

    /// Waits for room in the channel, but obeys meanwhile: an assignment must not wait for a stuck receiver.
    fn deliver(&mut self, event: Event) -> Turn {
        let (generation, partition) = match &event {
            Event::Record(record) => (record.generation, record.partition),
            Event::Broken { generation, partition, .. } => (*generation, *partition),
        };
        let bytes = event.bytes();
        loop {
            let room = self.outbox.reserve(bytes);
            let next = self.runtime.block_on(async {
                tokio::select! {
                    biased;
                    command = self.inbox.recv() => Next::Command(command),
                    room = room => Next::Room(room),
                }
            });
            match next {
                Next::Command(Some(command)) => self.obey(command),
                Next::Command(None) | Next::Room(None) => return Turn::End,
                Next::Room(Some(room)) => {
                    if generation == self.generation {
                        room.put(event);
                        self.note_progress(partition);
                    }
                    return Turn::On;
                }
            }
            if generation != self.generation {
                return Turn::On;
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Assign(positions, answer) => {
                let outcome = self.assign(&positions);
                // Whoever asked may have given up waiting; the assignment holds nevertheless.
                drop(answer.send(outcome));
            }
            Command::Flow(partitions, flow, answer) => {
                let list = self.list(&partitions);
                let outcome = match flow {
                    Flow::Pause => self.consumer.pause(&list),
                    Flow::Resume => self.consumer.resume(&list),
                };
                drop(answer.send(outcome.map_err(|error| ReaderError::Flow(error.to_string()))));
            }
            Command::Hint(positions) => {
                let hint = self.offsets(&positions);
                if let Err(error) = hint.and_then(|hint| self.consumer.commit(&hint, CommitMode::Async)) {
                    tracing::debug!(%error, "the hint for lag tools was not taken");
                }
            }
        }
    }

    fn assign(&mut self, positions: &[Position]) -> Result<u64, ReaderError> {
        let failed = |error: KafkaError| ReaderError::Assign(error.to_string());
        let assignment = self.offsets(positions).map_err(failed)?;
        self.consumer.assign(&assignment).map_err(failed)?;
        self.generation += 1;
        self.stopped = false;
        self.expected = positions.iter().map(|at| (at.partition, at.offset)).collect();
        let fresh = |at: &Position| PartitionLag {
            partition: at.partition,
            next_offset: at.offset,
            end_offset: None,
            heard: None,
        };
        let mut state = self.lock();
        state.partitions = positions.iter().map(|at| (at.partition, fresh(at))).collect();
        Ok(self.generation)
    }

    /// An error without a record. Most pass by themselves; an offset out of range does not, and librdkafka does not
    /// say of which partition, so each one is held against the ends of the log.
    fn complain(&mut self, error: KafkaError) -> Turn {
        let out_of_range = matches!(
            error.rdkafka_error_code(),
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
        );
        if !out_of_range {
            tracing::debug!(%error, "poll");
            Trouble::add(&mut self.lock().trouble, error.to_string(), Instant::now(), SystemTime::now());
            return Turn::On;
        }
        let partitions: Vec<i32> = self.expected.keys().copied().collect();
        let broken: Vec<_> = partitions.into_iter().filter_map(|p| Some((p, self.out_of_range(p)?.why()?))).collect();
        if broken.is_empty() {
            // The offset was not there and is now: what it was asked of ended below it and grew again, with other records under the same
            // offsets. Of which partition is to be seen in the statistics, because librdkafka fetches nothing of it any more.
            self.stopped = true;
            self.lock().not_fetched.clear();
        }
        self.give_up(broken)
    }

    /// Looks for the partition that was stopped by an offset that is in range again.
    fn find_stopped(&mut self) -> Turn {
        let stopped: Vec<i32> = {
            let state = self.lock();
            let stopped = state
                .not_fetched
                .iter()
                .filter(|(p, times)| **times >= STOPPED_AFTER && self.expected.contains_key(*p));
            stopped.map(|(partition, _)| *partition).collect()
        };
        let broken: Vec<_> = stopped
            .into_iter()
            .filter_map(|partition| {
                let expected = *self.expected.get(&partition)?;
                let why = self.out_of_range(partition)?.why().unwrap_or(Broken::Rewritten { expected });
                Some((partition, why))
            })
            .collect();
        self.stopped = broken.is_empty();
        self.give_up(broken)
    }

    /// Holds the next offset of a partition against the ends of the log; None when they cannot be read.
    fn out_of_range(&self, partition: i32) -> Option<Range> {
        let expected = *self.expected.get(&partition)?;
        match self.consumer.fetch_watermarks(&self.topic, partition, WATERMARKS) {
            Ok((earliest, end)) => Some(Range { expected, earliest, end }),
            Err(error) => {
                tracing::warn!(%error, partition, "cannot read the ends of the partition");
                None
            }
        }
    }

    /// These partitions deliver nothing more.
    fn give_up(&mut self, broken: Vec<(i32, Broken)>) -> Turn {
        let generation = self.generation;
        for (partition, why) in broken {
            // While one was delivered, another assignment may have come: what was found belongs to the one before.
            if self.generation != generation {
                break;
            }
            self.expected.remove(&partition);
            if self.deliver(Event::Broken { generation, partition, why }) == Turn::End {
                return Turn::End;
            }
        }
        Turn::On
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_progress(&self, partition: i32) {
        let mut state = self.lock();
        let Some(next) = self.expected.get(&partition) else { return };
        if let Some(known) = state.partitions.get_mut(&partition) {
            known.next_offset = *next;
            known.end_offset = known.end_offset.map(|end| end.max(*next));
        }
    }

    fn list(&self, partitions: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for &partition in partitions {
            list.add_partition(&self.topic, partition);
        }
        list
    }

    fn offsets(&self, positions: &[Position]) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for at in positions {
            list.add_partition_offset(&self.topic, at.partition, Offset::Offset(at.offset))?;
        }
        Ok(list)
    }
}

/// The next offset of a partition and the ends of its log.
struct Range {
    expected: i64,
    earliest: i64,
    end: i64,
}

impl Range {
    /// Why nothing can come; None when the offset is there.
    fn why(&self) -> Option<Broken> {
        let Self { expected, earliest, end } = *self;
        match expected {
            _ if expected < earliest => Some(Broken::BelowEarliest { expected, earliest }),
            _ if expected > end => Some(Broken::BeyondEnd { expected, end }),
            _ => None,
        }
    }
}

/// What ended a wait for room.
enum Next {
    Command(Option<Command>),
    Room(Option<Place>),
}

/// Holds a record against the offset expected of its partition.
fn receive(
    message: &BorrowedMessage<'_>,
    expected: &mut BTreeMap<i32, i64>,
    accept_gaps: bool,
    generation: u64,
    topic: &Arc<str>,
) -> Option<Event> {
    let (partition, offset) = (message.partition(), message.offset());
    // Not assigned any more, or broken: what librdkafka still had in its queue.
    let next = expected.get_mut(&partition)?;
    match offset.cmp(next) {
        std::cmp::Ordering::Less => return None,
        std::cmp::Ordering::Greater if !accept_gaps => {
            let why = Broken::Gap { expected: *next, got: offset };
            expected.remove(&partition);
            return Some(Event::Broken { generation, partition, why });
        }
        _ => *next = offset + 1,
    }
    let bytes = |bytes: Option<&[u8]>| Bytes::copy_from_slice(bytes.unwrap_or_default());
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers.iter().map(|header| (header.key.to_owned(), bytes(header.value))).collect()
    });
    Some(Event::Record(RawRecord {
        generation,
        topic: topic.clone(),
        partition,
        offset,
        timestamp_ms: message.timestamp().to_millis(),
        key: bytes(message.key()),
        value: bytes(message.payload()),
        headers,
    }))
}
