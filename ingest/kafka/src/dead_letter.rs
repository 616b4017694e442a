//! Records that nobody can apply are put aside, with the place they came from and the reason. I/O through [`Produce`].

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use crate::producer::{Produce, SendError};
use crate::record::{OutRecord, RawRecord};

/// The topic beside a topic that takes what cannot be applied.
pub fn dead_letter_topic(topic: &str) -> String {
    format!("{topic}.dead-letter")
}

/// Puts records aside: key and value as they were, with headers `understudy-topic`, `understudy-partition`,
/// `understudy-offset` (decimal), `understudy-reason` (a word from a closed set) and `understudy-detail`, after the
/// headers the record had. The detail is cut at 512 characters. What of the record would make it too large is left out, and told in
/// further headers: a value is cut at 512 KiB (`understudy-value-bytes` says how long it was), a key at 128 KiB
/// (`understudy-key-bytes`), and of the headers those stay that fit into 128 KiB, in order (`understudy-headers-left-out` says how
/// many did not). The topic it came from still has the whole.
#[derive(Clone)]
pub struct DeadLetter {
    producer: Arc<dyn Produce>,
}

/// The longest detail that is kept, in characters.
const DETAIL_CHARS: usize = 512;
/// The longest value that is kept. All three limits together are below what any broker takes, or a record that is itself too large could
/// never be put aside and would stop its consumer for good.
const VALUE_BYTES: usize = 512 * 1024;
/// The longest key that is kept.
const KEY_BYTES: usize = 128 * 1024;
/// The most that the record's own headers may take.
const HEADER_BYTES: usize = 128 * 1024;
/// What a header takes beside its name and value, at most.
const HEADER_FRAME: usize = 10;

impl DeadLetter {
    /// Through a producer of [`dead_letter_topic`].
    pub fn new(producer: Arc<dyn Produce>) -> Self {
        Self { producer }
    }

    /// Returns after the dead-letter topic has the record durably: only then may its offset be passed over.
    pub async fn put(
        &self,
        record: &RawRecord,
        reason: &str,
        detail: &str,
        deadline: Instant,
    ) -> Result<(), SendError> {
        let letter = letter(record, reason, detail);
        self.producer.send(vec![letter], deadline).await.map(drop)
    }
}

fn letter(record: &RawRecord, reason: &str, detail: &str) -> OutRecord {
    let mut headers = fitting(&record.headers);
    let left_out = record.headers.len() - headers.len();
    let (key, key_was) = cut(&record.key, KEY_BYTES);
    let (value, value_was) = cut(&record.value, VALUE_BYTES);
    let cuts = [
        ("understudy-key-bytes", key_was),
        ("understudy-value-bytes", value_was),
        ("understudy-headers-left-out", (left_out > 0).then_some(left_out)),
    ];
    let cuts = cuts.into_iter().filter_map(|(name, number)| Some((name, number?.to_string())));
    let place = [
        ("understudy-topic", record.topic.to_string()),
        ("understudy-partition", record.partition.to_string()),
        ("understudy-offset", record.offset.to_string()),
        ("understudy-reason", reason.to_owned()),
        ("understudy-detail", detail.chars().take(DETAIL_CHARS).collect()),
    ];
    headers.extend(cuts.chain(place).map(|(name, value)| (name.to_owned(), Bytes::from(value))));
    OutRecord { partition: None, key, value, headers }
}

/// The beginning of it, and how long it was if that is not all.
fn cut(bytes: &Bytes, most: usize) -> (Bytes, Option<usize>) {
    let kept = bytes.len().min(most);
    (bytes.slice(..kept), (kept < bytes.len()).then_some(bytes.len()))
}

/// The headers that fit together.
fn fitting(headers: &[(String, Bytes)]) -> Vec<(String, Bytes)> {
    let mut left = HEADER_BYTES;
    let fits = |(name, value): &&(String, Bytes)| {
        let rest = left.checked_sub(name.len() + value.len() + HEADER_FRAME);
        left = rest.unwrap_or(left);
        rest.is_some()
    };
    headers.iter().filter(fits).cloned().collect()
}
