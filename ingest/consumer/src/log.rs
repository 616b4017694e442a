//! The topic, as the driver needs it: told where to read, asked where it begins and ends. I/O.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use understudy_kafka::admin::Watermarks;
use understudy_kafka::{Admin, Origin, Position, Reader, ReaderError, Trouble};
use understudy_wire::evidence::LogRange;

use crate::facts::Facts;
use crate::status::{Partition, Snapshot};

/// Where records come from. Kafka, or a test's own.
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// Reads from exactly these positions; the generation that the records carry from now on.
    async fn assign(&self, positions: Vec<Position>) -> Result<u64, ReaderError>;

    /// The last run of complaints of whoever should deliver; over or not.
    fn trouble(&self) -> Option<Trouble> {
        None
    }
}

#[async_trait]
impl Log for Arc<Reader> {
    async fn assign(&self, positions: Vec<Position>) -> Result<u64, ReaderError> {
        Reader::assign(self, positions).await
    }

    fn trouble(&self) -> Option<Trouble> {
        Reader::trouble(self)
    }
}

/// How often lag tools are told how far we are.
const HINT_EVERY: Duration = Duration::from_secs(5);

/// Tells lag tools how far the active pod is, until stopped. Nothing of ours ever reads it back.
pub async fn keep_hinting(reader: Arc<Reader>, board: watch::Receiver<Snapshot>, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(HINT_EVERY)).await.is_some() {
        let stored = |p: &Partition| p.next_offset.map(|offset| Position { partition: p.partition, offset });
        let positions: Vec<Position> = {
            let snapshot = board.borrow();
            if snapshot.active { snapshot.partitions.iter().filter_map(stored).collect() } else { Vec::new() }
        };
        if !positions.is_empty()
            && let Err(e) = reader.hint(positions).await
        {
            tracing::debug!(error = %e, "hint for lag tools not given");
        }
    }
}

/// Both ends of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The earliest offset that can be read.
    pub earliest: i64,
    /// The offset that the next record will get.
    pub end: i64,
    /// When the broker was asked: every record acknowledged before is below `end`.
    pub asked: Instant,
    /// The same in milliseconds since 1970.
    pub asked_ms: i64,
}

/// What is known of the topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Which topic it is; None until first heard.
    pub origin: Option<Origin>,
    /// Both ends of each partition; empty until first heard.
    pub partitions: BTreeMap<i32, End>,
    /// Why nothing has been heard since; None while all is heard.
    pub trouble: Option<Trouble>,
}

/// How often the ends are asked for.
pub const ASK_EVERY: Duration = Duration::from_secs(2);
/// How long an answer may take.
const ASK_WITHIN: Duration = Duration::from_secs(4);

/// Asks which topic it is and for its ends until stopped. While no broker answers the last ones stay, with their age.
pub async fn keep_asking(
    admin: Admin,
    topic: String,
    ends: watch::Sender<Ends>,
    facts: Arc<Facts>,
    stop: CancellationToken,
) {
    let mut trouble: Option<Trouble> = None;
    loop {
        let (asked, asked_ms) = (Instant::now(), now_ms());
        // First which topic it is: ends of another one must not be taken for those of this one.
        let both = async { (admin.origin(&topic, ASK_WITHIN).await, admin.watermarks(&topic, ASK_WITHIN).await) };
        let Some((origin, marks)) = stop.run_until_cancelled(both).await else { return };
        match (&origin, &marks) {
            (Ok(_), Ok(_)) if trouble.take().is_some() => tracing::info!(topic, "the topic is known again"),
            (Ok(_), Ok(_)) => {}
            (Err(e), _) | (_, Err(e)) => {
                if trouble.is_none() {
                    tracing::warn!(topic, error = %e, "the topic or its ends could not be read; the last ones known stay");
                }
                Trouble::add(&mut trouble, e.to_string(), Instant::now(), SystemTime::now());
            }
        }
        let marks = marks.ok().map(|marks| {
            let end =
                |(p, mark): (i32, Watermarks)| (p, End { earliest: mark.earliest, end: mark.end, asked, asked_ms });
            marks.into_iter().map(end).collect::<BTreeMap<_, _>>()
        });
        if let Some(heard) = &marks {
            facts.heard(heard.iter().map(|(p, end)| range(&topic, *p, end)).collect());
        }
        ends.send_if_modified(|known| {
            // Trouble is no news of the topic.
            known.trouble.clone_from(&trouble);
            let before = known.clone();
            known.origin = origin.ok().or_else(|| known.origin.take());
            known.partitions = marks.unwrap_or_else(|| std::mem::take(&mut known.partitions));
            *known != before
        });
        if stop.run_until_cancelled(tokio::time::sleep_until(asked + ASK_EVERY)).await.is_none() {
            return;
        }
    }
}

fn range(topic: &str, partition: i32, end: &End) -> (LogRange, std::time::Instant) {
    let range = LogRange { topic: topic.to_owned(), partition, earliest: end.earliest, end: end.end, age: 0 };
    (range, end.asked.into_std())
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
