//! A log in memory that keeps the promises of [`Produce`] and can be told to break. For tests; the contract tests run
//! against it and against a real cluster alike.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::producer::{Produce, SendError};
use crate::record::{Delivered, OutRecord};

/// How the fake behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mood {
    /// Stores and confirms.
    #[default]
    Healthy,
    /// Takes nothing: the queue is full.
    Full,
    /// Refuses each record.
    Refusing,
    /// Stores every other record and refuses the rest.
    Torn,
    /// Stores, and never confirms.
    Silent,
    /// Never answers and stores nothing.
    Dead,
}

/// A topic in memory.
#[derive(Debug)]
pub struct MemoryLog {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    mood: Mood,
    partitions: Vec<Vec<OutRecord>>,
}

impl MemoryLog {
    /// An empty topic.
    pub fn new(partitions: u32) -> Self {
        let partitions = (0..partitions).map(|_| Vec::new()).collect();
        Self { inner: Mutex::new(Inner { mood: Mood::Healthy, partitions }) }
    }

    /// From now on it behaves so.
    pub fn set_mood(&self, mood: Mood) {
        self.lock().mood = mood;
    }

    /// What is in a partition; the index is the offset.
    pub fn records(&self, partition: i32) -> Vec<OutRecord> {
        let index = usize::try_from(partition).unwrap_or(usize::MAX);
        self.lock().partitions.get(index).cloned().unwrap_or_default()
    }

    /// Everything, partition by partition.
    pub fn all(&self) -> Vec<OutRecord> {
        self.lock().partitions.iter().flatten().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self, records: Vec<OutRecord>, keep: impl Fn(usize) -> bool) -> Result<Vec<Delivered>, SendError> {
        let mut inner = self.lock();
        let total = records.len();
        let mut delivered = Vec::with_capacity(total);
        for (index, record) in records.into_iter().enumerate() {
            let partition = record.partition.unwrap_or(0);
            let log = usize::try_from(partition).ok().and_then(|index| inner.partitions.get_mut(index));
            if let Some(log) = log.filter(|_| keep(index)) {
                delivered.push(Delivered { partition, offset: log.len() as i64 });
                log.push(record);
            }
        }
        match total - delivered.len() {
            0 => Ok(delivered),
            failed => Err(SendError::Refused { failed, records: total, first: "refused".to_owned() }),
        }
    }
}

#[async_trait]
impl Produce for MemoryLog {
    async fn send(&self, records: Vec<OutRecord>, deadline: Instant) -> Result<Vec<Delivered>, SendError> {
        let total = records.len();
        let mood = self.lock().mood;
        match mood {
            Mood::Healthy => self.store(records, |_| true),
            Mood::Full => Err(SendError::Overloaded),
            Mood::Refusing => self.store(records, |_| false),
            Mood::Torn => self.store(records, |index| index % 2 == 0),
            Mood::Silent | Mood::Dead => {
                if mood == Mood::Silent {
                    self.store(records, |_| true)?;
                }
                tokio::time::sleep_until(deadline).await;
                Err(SendError::Deadline { unanswered: total, records: total })
            }
        }
    }

    async fn partitions(&self, _within: Duration) -> Result<u32, SendError> {
        let inner = self.lock();
        match inner.mood {
            Mood::Dead => {
                Err(SendError::Metadata { topic: "memory".to_owned(), reason: "no answer in time".to_owned() })
            }
            _ => Ok(inner.partitions.len() as u32),
        }
    }
}
