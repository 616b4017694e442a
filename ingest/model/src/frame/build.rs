//! Collects the series of one group until a frame is full. Pure.

use super::{BatchId, Entry, Frame, MAX_AGENT_BYTES, MAX_BODY_BYTES, MAX_SAMPLES, MAX_SERIES};
use crate::identity::{Group, SeriesId};
use crate::labels::Labels;
use crate::sample::Sample;

/// The most bytes a timestamp and a value take.
const SAMPLE_BYTES: usize = 10 + 8;
/// Counts and references of a series, beyond two references per label.
const SERIES_BYTES: usize = 5 + 5;
/// Two references and two lengths at their longest.
const LABEL_BYTES: usize = 4 * 5;
/// Lengths, counts and the batch id.
const FIXED_BYTES: usize = 64 + MAX_AGENT_BYTES;

/// Fills a [`Frame`] and knows before each step whether the encoded body could exceed its limit.
#[derive(Debug)]
pub struct FrameBuilder {
    frame: Frame,
    /// An upper bound of the encoded body.
    bytes: usize,
}

/// What did not go in: the samples from this index on belong into another frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Full {
    /// All samples went in.
    No,
    /// Samples from this index of the pushed slice on did not.
    From(usize),
    /// Not even an empty frame could hold the labels of this series.
    Never,
}

impl FrameBuilder {
    /// An empty frame of a group.
    pub fn new(group: Group) -> Self {
        let bytes = FIXED_BYTES + group.tenant().as_str().len() + group.job().len() + group.instance().len();
        let frame = Frame { group, batch: None, series: Vec::new(), timestamps: Vec::new(), values: Vec::new() };
        Self { frame, bytes }
    }

    /// Adds as many samples of a series as fit, in order.
    ///
    /// # Panics
    /// If the series is of another group than the frame: that is a mistake of the caller, not of a sender.
    pub fn push(&mut self, labels: &Labels, samples: &[Sample]) -> Full {
        assert!(self.frame.group.holds(labels), "a frame holds one group");
        if samples.is_empty() {
            return Full::No;
        }
        let head = SERIES_BYTES + labels.text_bytes() + labels.len() * LABEL_BYTES;
        let room = MAX_BODY_BYTES.saturating_sub(self.bytes + head) / SAMPLE_BYTES;
        let room = room.min(MAX_SAMPLES - self.frame.values.len());
        if room == 0 || self.frame.series.len() == MAX_SERIES {
            return if self.frame.series.is_empty() { Full::Never } else { Full::From(0) };
        }
        let taken = &samples[..room.min(samples.len())];
        self.frame.timestamps.extend(taken.iter().map(|sample| sample.timestamp_ms));
        self.frame.values.extend(taken.iter().map(|sample| sample.bits));
        self.frame.series.push(Entry {
            id: SeriesId::of(self.frame.group.tenant(), labels),
            labels: labels.clone(),
            end: self.frame.values.len() as u32,
        });
        self.bytes += head + taken.len() * SAMPLE_BYTES;
        if taken.len() == samples.len() { Full::No } else { Full::From(taken.len()) }
    }

    /// How many samples are in.
    pub fn samples_len(&self) -> usize {
        self.frame.samples_len()
    }

    /// The frame, or nothing if no sample was added. An agent's name longer than [`MAX_AGENT_BYTES`] makes
    /// [`Frame::encode`] fail.
    pub fn finish(mut self, batch: Option<BatchId>) -> Option<Frame> {
        self.frame.batch = batch;
        (!self.frame.values.is_empty()).then_some(self.frame)
    }
}
