//! Records going in and coming out. Pure.

use std::sync::Arc;

use bytes::Bytes;

/// A record to produce. The topic is the producer's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutRecord {
    /// Where it goes; `None` lets the client choose (dead letters).
    pub partition: Option<i32>,
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// Names and values beside the value.
    pub headers: Vec<(String, Bytes)>,
}

/// Where a record is, told by the broker after every in-sync replica has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// The partition.
    pub partition: i32,
    /// The offset of the record.
    pub offset: i64,
}

/// A partition and the next offset to read from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The partition.
    pub partition: i32,
    /// The first offset wanted.
    pub offset: i64,
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRecord {
    /// Which assignment it was read under. Records of an earlier one may still be in the channel after a new
    /// assignment: compare and drop.
    pub generation: u64,
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// When the producer made it (or the broker took it), in milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
    /// The key; empty when there is none.
    pub key: Bytes,
    /// The value; empty when there is none.
    pub value: Bytes,
    /// Names and values beside the value.
    pub headers: Vec<(String, Bytes)>,
}
