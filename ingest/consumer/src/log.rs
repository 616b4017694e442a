//! The topic, as the driver needs it: told where to read, asked where it begins and ends. I/O.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use understudy_kafka::admin::Marks;
use understudy_kafka::{Admin, AdminError, Origin, Position, Reader, ReaderError, Trouble};
use understudy_wire::evidence::LogRange;

use crate::facts::Facts;
use crate::placement::{Placement, spread};
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

/// Asks which topic it is and for its ends until stopped. Of a partition that does not answer the last ends stay, with their age.
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
        match silence(&origin, &marks) {
            None if trouble.take().is_some() => tracing::info!(topic, "all of the topic is known again"),
            None => {}
            Some(why) => {
                if trouble.is_none() {
                    tracing::warn!(topic, why, "the topic or its ends could not be read; the last ones known stay");
                }
                Trouble::add(&mut trouble, why, Instant::now(), SystemTime::now());
            }
        }
        let marks = marks.map(|marks| marks.known).unwrap_or_default();
        let news = marks
            .into_iter()
            .map(|(p, mark)| (p, End { earliest: mark.earliest, end: mark.end, asked, asked_ms }))
            .collect();
        ends.send_if_modified(|known| {
            // Trouble is no news of the topic.
            known.trouble.clone_from(&trouble);
            known.hear(origin.ok(), news)
        });
        facts.heard(ranges(&topic, &ends.borrow()));
        if stop.run_until_cancelled(tokio::time::sleep_until(asked + ASK_EVERY)).await.is_none() {
            return;
        }
    }
}

/// Keeps `placements` at what the partitions of the topic give one of these shards, until stopped. Partitions are added to a topic and
/// never taken away: one that is not heard of stays.
pub async fn keep_spreading(
    shard: String,
    shards: Vec<String>,
    mut ends: watch::Receiver<Ends>,
    placements: watch::Sender<Option<Placement>>,
    stop: CancellationToken,
) {
    let mut known = 0;
    loop {
        let partitions = ends.borrow_and_update().partitions.last_key_value().map_or(0, |(last, _)| last + 1);
        if partitions > known {
            tracing::info!(partitions, before = known, "the topic's partitions are spread over the shards");
            known = partitions;
            placements.send_replace(Some(spread(&shard, &shards, known)));
        }
        if !matches!(stop.run_until_cancelled(ends.changed()).await, Some(Ok(()))) {
            return;
        }
    }
}

impl Ends {
    /// Takes over what was answered. Whether any of it is news.
    fn hear(&mut self, origin: Option<Origin>, news: BTreeMap<i32, End>) -> bool {
        let before = self.clone();
        if let (Some(known), Some(found)) = (&self.origin, &origin)
            && !known.agrees(found)
        {
            self.partitions.clear();
        }
        self.origin = origin.or_else(|| self.origin.take());
        self.partitions.extend(news);
        *self != before
    }
}

/// What could not be read.
fn silence(origin: &Result<Origin, AdminError>, marks: &Result<Marks, AdminError>) -> Option<String> {
    let failed = origin.as_ref().err().or(marks.as_ref().err()).map(ToString::to_string);
    let unknown = marks.as_ref().ok().and_then(|marks| marks.unknown.first_key_value());
    failed.or_else(|| unknown.map(|(partition, reason)| format!("partition {partition}: {reason}")))
}

/// What the operator is told of the topic, and when the brokers said it.
fn ranges(topic: &str, ends: &Ends) -> Vec<(LogRange, std::time::Instant)> {
    let id = ends.origin.as_ref().and_then(|origin| origin.topic.as_ref());
    let range = |(partition, end): (&i32, &End)| {
        let range = LogRange {
            topic: topic.to_owned(),
            topic_id: id.cloned(),
            partition: *partition,
            earliest: end.earliest,
            end: end.end,
            age: 0,
        };
        (range, end.asked.into_std())
    };
    ends.partitions.iter().map(range).collect()
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(list: &[(i32, i64)], asked_ms: i64) -> BTreeMap<i32, End> {
        let end =
            |&(partition, end): &(i32, i64)| (partition, End { earliest: 0, end, asked: Instant::now(), asked_ms });
        list.iter().map(end).collect()
    }

    fn topic(id: &str) -> Option<Origin> {
        Some(Origin { cluster: None, topic: Some(id.to_owned()) })
    }

    #[tokio::test]
    async fn a_topic_that_grows_feeds_the_shard_more_and_never_less() {
        let (tell, ends_seen) = watch::channel(Ends::default());
        let (placements, mut placement) = watch::channel(None);
        let stop = CancellationToken::new();
        let shards = vec!["a".to_owned(), "b".to_owned()];
        let spreading = tokio::spawn(keep_spreading("b".to_owned(), shards, ends_seen, placements, stop.clone()));
        let mut of = async |list: &[(i32, i64)]| {
            tell.send_modify(|known| known.partitions = ends(list, 1));
            placement.changed().await.unwrap();
            placement.borrow().iter().flat_map(|placement| placement.keys().copied()).collect::<Vec<_>>()
        };
        assert_eq!(of(&[(0, 5), (1, 5)]).await, [1]);
        assert_eq!(of(&[(0, 5), (1, 5), (3, 0)]).await, [1, 3], "partition 2 has no leader now");
        tell.send_modify(|known| known.partitions = ends(&[(0, 0)], 2));
        // On the one thread of this test everybody else comes to rest meanwhile.
        tokio::task::yield_now().await;
        assert!(!placement.has_changed().unwrap());
        stop.cancel();
        spreading.await.unwrap();
    }

    #[test]
    fn the_operator_is_told_which_topic_the_ends_are_of() {
        let mut known = Ends::default();
        let told = |known: &Ends| -> Vec<_> {
            let all = ranges("samples", known).into_iter();
            all.map(|(range, _)| (range.topic_id, range.partition, range.end)).collect()
        };
        known.hear(None, ends(&[(0, 10)], 1));
        assert_eq!(told(&known), [(None, 0, 10)], "brokers that do not tell");
        known.hear(topic("first"), ends(&[(0, 11)], 2));
        assert_eq!(told(&known), [(Some("first".to_owned()), 0, 11)]);
        known.hear(topic("second"), ends(&[(0, 3)], 3));
        assert_eq!(told(&known), [(Some("second".to_owned()), 0, 3)], "it was deleted and made anew");
    }

    #[test]
    fn a_partition_that_did_not_answer_keeps_its_last_ends_while_the_topic_is_the_same() {
        let mut known = Ends::default();
        let told =
            |known: &Ends| -> Vec<_> { known.partitions.iter().map(|(p, end)| (*p, end.end, end.asked_ms)).collect() };
        assert!(known.hear(topic("first"), ends(&[(0, 10), (1, 20)], 1)));
        assert!(known.hear(topic("first"), ends(&[(1, 21)], 2)));
        assert_eq!(told(&known), [(0, 10, 1), (1, 21, 2)]);
        assert!(!known.hear(None, BTreeMap::new()), "nobody answered");
        assert_eq!((told(&known), known.origin.clone()), (vec![(0, 10, 1), (1, 21, 2)], topic("first")));
        assert!(known.hear(topic("second"), ends(&[(1, 3)], 3)));
        assert_eq!(told(&known), [(1, 3, 3)]);
    }
}
