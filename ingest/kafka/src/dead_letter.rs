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
/// headers the record had. A value over 512 KiB is cut and `understudy-value-bytes` says how long it was; the topic it
/// came from still has the whole.
#[derive(Clone)]
pub struct DeadLetter {
    producer: Arc<dyn Produce>,
}

/// The longest detail that is kept, in characters.
const DETAIL_CHARS: usize = 512;
/// The longest value that is kept: below what any broker takes, or a record that is itself too large could never be
/// put aside and would stop its partition for good.
const VALUE_BYTES: usize = 512 * 1024;

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
        let mut headers = record.headers.clone();
        let detail: String = detail.chars().take(DETAIL_CHARS).collect();
        let kept = record.value.len().min(VALUE_BYTES);
        if kept < record.value.len() {
            headers.push(("understudy-value-bytes".to_owned(), Bytes::from(record.value.len().to_string())));
        }
        for (name, value) in [
            ("understudy-topic", record.topic.to_string()),
            ("understudy-partition", record.partition.to_string()),
            ("understudy-offset", record.offset.to_string()),
            ("understudy-reason", reason.to_owned()),
            ("understudy-detail", detail),
        ] {
            headers.push((name.to_owned(), Bytes::from(value)));
        }
        let letter = OutRecord { partition: None, key: record.key.clone(), value: record.value.slice(..kept), headers };
        self.producer.send(vec![letter], deadline).await.map(drop)
    }
}
