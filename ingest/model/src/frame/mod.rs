//! The value of a Kafka record: the samples of one group from one request, in columns. Pure.
//!
//! # Version 1
//!
//! ```text
//! header   4  magic "USFR"
//!          1  version = 1
//!          1  codec: 0 none, 1 zstd
//!          2  flags = 0
//!          4  length of the body when decoded, u32 little endian
//!          8  xxh3_64 of the twelve bytes above and the stored body, u64 little endian
//! body        (stored through the codec; integers are LEB128 varints, text is length and UTF-8)
//!             tenant, job, instance: text
//!             batch: 0, or 1 followed by agent: text, sequence
//!             dictionary kind = 0 (labels of every series are in this frame)
//!             symbols: count, then text each
//!             series: count, then each: count of labels, (symbol of name, symbol of value) per label, count of samples
//!             timestamps: zigzag of the wrapping difference to the one before (the first: to 0), all series in order
//!             values: 8 bytes little endian each, all series in order
//! ```
//!
//! Labels are in canonical order. Ids are not in the frame: the reader computes them, so a frame cannot lie about them.
//! A series may occur more than once in a frame when a sender repeats it. Every limit below is part of the version:
//! an encoder never exceeds it and a decoder refuses what does, before it allocates.
//!
//! # Why labels are always present
//!
//! Leaving labels out (another dictionary kind) is safe only if whoever reads the record at offset `o` of partition
//! `p` is certain to have the labels already. That needs all of these:
//! 1. a record that holds the labels was **acknowledged** at an offset below `o` of the same partition (an attempt in
//!    flight may fail and be followed by a later success);
//! 2. no change of placement lies between the two offsets, because above one another shard reads, whose catalogue
//!    never saw the labels; a producer would have to know the placements that will hold when its record lands;
//! 3. the record with the labels was applied, not put aside as a dead letter;
//! 4. the catalogue row outlives every producer's memory of having sent it, so retention of the catalogue would need
//!    leases held by gateways;
//! 5. the topic was not recreated and the shard not restored to an older state than the one the producer remembers.
//!
//! Neither 2 nor 3 nor 4 can be known by a gateway today, so version 1 sends labels always and a decoder refuses every
//! other dictionary kind. What it costs is small: labels are interned within a frame and compress well.

mod build;
mod decode;
mod encode;
mod wire;

use std::sync::Arc;

pub use build::{FrameBuilder, Full};
pub use decode::{DecodeError, Decoder};
pub use encode::{EncodeError, Encoder};

use crate::identity::{Group, SeriesId};
use crate::labels::Labels;
use crate::sample::Sample;
use crate::tenant::Tenant;

/// First bytes of each frame.
pub const MAGIC: [u8; 4] = *b"USFR";
/// The only version there is.
pub const VERSION: u8 = 1;
/// Bytes before the body.
pub const HEADER_BYTES: usize = 20;
/// The largest body of a frame when decoded, in bytes. With the header it stays below Kafka's default limit for a record batch
/// (1,048,588 bytes) however badly the body compresses.
pub const MAX_BODY_BYTES: usize = 960 * 1024;
/// The largest frame in bytes.
pub const MAX_FRAME_BYTES: usize = HEADER_BYTES + MAX_BODY_BYTES;
/// How many times larger than as stored a body may become.
pub const MAX_RATIO: usize = 1024;
/// The most series in a frame.
pub const MAX_SERIES: usize = 65_536;
/// The most samples in a frame.
pub const MAX_SAMPLES: usize = 131_072;
/// The most bytes that the labels of all series of a frame have together, a label counted each time it is used.
pub const MAX_LABEL_BYTES: usize = MAX_BODY_BYTES;
/// The longest name of an agent in a batch id, in bytes.
pub const MAX_AGENT_BYTES: usize = 128;

/// How the body is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// As it is.
    None = 0,
    /// One zstd frame. The encoder falls back to `None` where that is smaller or the ratio would exceed [`MAX_RATIO`].
    Zstd = 1,
}

/// Which batch of an agent a frame came from, so that one that arrives twice can be stored once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId {
    /// The agent's own name, at most [`MAX_AGENT_BYTES`].
    pub agent: Arc<str>,
    /// Counts the agent's batches.
    pub sequence: u64,
}

/// The samples of one group from one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    group: Group,
    batch: Option<BatchId>,
    series: Vec<Entry>,
    timestamps: Vec<i64>,
    values: Vec<u64>,
}

/// One series of a frame and where its samples end in the columns.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    id: SeriesId,
    labels: Labels,
    end: u32,
}

/// One series within a [`Frame`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeriesView<'a> {
    /// Its id.
    pub id: SeriesId,
    /// Its labels.
    pub labels: &'a Labels,
    /// When each sample was taken, in milliseconds since 1970, in the order the sender gave them.
    pub timestamps_ms: &'a [i64],
    /// The bits of each value; as long as `timestamps_ms`.
    pub values: &'a [u64],
}

impl Frame {
    /// Whose data it is.
    pub fn tenant(&self) -> &Tenant {
        self.group.tenant()
    }

    /// The group all series belong to.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Which batch of an agent it came from, if from an agent.
    pub fn batch(&self) -> Option<&BatchId> {
        self.batch.as_ref()
    }

    /// How many series there are; a series that a sender repeated counts each time. Never 0.
    pub fn series_len(&self) -> usize {
        self.series.len()
    }

    /// How many samples there are. Never 0.
    pub fn samples_len(&self) -> usize {
        self.values.len()
    }

    /// The earliest and the latest timestamp.
    pub fn time_range_ms(&self) -> (i64, i64) {
        let range = self.timestamps.iter().fold((i64::MAX, i64::MIN), |(low, high), &t| (low.min(t), high.max(t)));
        debug_assert!(range.0 <= range.1, "a frame holds a sample");
        range
    }

    /// The series in the order the sender gave them.
    pub fn series(&self) -> impl ExactSizeIterator<Item = SeriesView<'_>> + '_ {
        (0..self.series.len()).map(|index| {
            let start = if index == 0 { 0 } else { self.series[index - 1].end as usize };
            let entry = &self.series[index];
            let range = start..entry.end as usize;
            SeriesView {
                id: entry.id,
                labels: &entry.labels,
                timestamps_ms: &self.timestamps[range.clone()],
                values: &self.values[range],
            }
        })
    }

    /// The bytes of the frame: the value of a Kafka record. For one frame; use an [`Encoder`] for many.
    pub fn encode(&self, codec: Codec) -> Result<Vec<u8>, EncodeError> {
        Encoder::new(codec)?.encode(self)
    }

    /// Reads a frame, as [`Decoder::decode`] does. For one frame; use a [`Decoder`] for many.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Decoder::default().decode(bytes)
    }
}

impl SeriesView<'_> {
    /// The samples one by one.
    pub fn samples(&self) -> impl ExactSizeIterator<Item = Sample> + '_ {
        self.timestamps_ms.iter().zip(self.values).map(|(&timestamp_ms, &bits)| Sample { timestamp_ms, bits })
    }
}
