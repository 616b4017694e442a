//! From the bytes of a request to frames for Kafka. Pure, and the costly part: runs on a thread for blocking work.

use std::collections::HashMap;

use bytes::Bytes;
use understudy_kafka::OutRecord;
use understudy_model::frame::Full;
use understudy_model::rules::{LabelRules, Rejection, Rejections, TimeWindow};
use understudy_model::{
    Codec, EncodeError, Encoder, Frame, FrameBuilder, Group, GroupId, Labels, Sample, Tenant, partition_of,
};

use crate::wire;

/// What a request becomes.
#[derive(Debug, Default)]
pub struct Batch {
    /// One record for each frame, those of a group in order.
    pub records: Vec<OutRecord>,
    /// How many samples the records hold.
    pub samples: u64,
    /// What was refused, and why.
    pub rejections: Rejections,
    /// Exemplars: nothing keeps them yet, and a sender that is told so would drop samples with them.
    pub exemplars: u64,
}

impl Batch {
    /// What its records take while they wait for Kafka.
    pub fn bytes(&self) -> usize {
        const PER_RECORD: usize = 256;
        self.records.iter().map(|record| PER_RECORD + record.key.len() + record.value.len()).sum()
    }
}

/// Why no batch can be made of a request.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The body is not the message it should be.
    #[error("the body is not a prometheus.WriteRequest: {0}")]
    Malformed(#[from] wire::Malformed),
    /// A frame could not be written: our mistake.
    #[error("write a frame")]
    Encode(#[from] EncodeError),
}

/// What the making of a batch depends on.
#[derive(Debug, Clone)]
pub struct BatchRules {
    /// What label sets must satisfy.
    pub labels: LabelRules,
    /// Which timestamps are taken.
    pub window: TimeWindow,
    /// How many partitions the topic has.
    pub partitions: u32,
}

/// Memory beyond the decompressed body that a request of this survey may take while it becomes a batch: copies of
/// labels, columns, frames before and after encoding, and what zstd holds.
pub fn working_memory(body: usize, survey: &wire::Survey) -> usize {
    // A series may be a group of its own, with a frame of its own.
    const PER_SERIES: usize = 1024;
    const PER_LABEL: usize = 16;
    const PER_SAMPLE: usize = 64;
    // While one frame is written its texts are held in a table; the largest frame bounds it.
    const PER_INTERNED_LABEL: usize = 128;
    const MOST_INTERNED: usize = 8 << 20;
    const ZSTD: usize = 512 * 1024;
    2 * body
        + survey.series * PER_SERIES
        + survey.total.labels * PER_LABEL
        + (survey.total.labels * PER_INTERNED_LABEL).min(MOST_INTERNED)
        + survey.total.samples * PER_SAMPLE
        + ZSTD
}

/// Checks each series, keeps the good ones and writes them as frames, group by group.
pub fn make(tenant: &Tenant, body: &Bytes, rules: &BatchRules) -> Result<Batch, BatchError> {
    let mut batch = Batch::default();
    let mut groups = Groups::default();
    let mut series = wire::Series::default();
    let mut samples = Vec::new();
    wire::each_series(body, |shape, bytes| {
        batch.exemplars += shape.exemplars as u64;
        // Counted in samples, so that the answer says how many are missing.
        let lost = (shape.samples + shape.histograms) as u64;
        if shape.labels > rules.labels.labels {
            batch.rejections.add(Rejection::TooManyLabels, lost.max(1), || format!("{} labels", shape.labels));
            return Ok(());
        }
        let series = series.decode(bytes)?;
        let pairs = series.labels.iter().map(|label| (&label.name[..], &label.value[..]));
        let labels = match rules.labels.check(pairs) {
            Ok(labels) => labels,
            Err(reason) => {
                batch.rejections.add(reason, lost.max(1), || describe(series));
                return Ok(());
            }
        };
        if shape.histograms > 0 {
            batch.rejections.add(Rejection::NativeHistogram, shape.histograms as u64, || labels.to_string());
        }
        samples.clear();
        for sample in &series.samples {
            match rules.window.check(sample.timestamp) {
                Ok(()) => samples.push(Sample { timestamp_ms: sample.timestamp, bits: sample.value }),
                Err(reason) => batch.rejections.add(reason, 1, || format!("{labels} at {}", sample.timestamp)),
            }
        }
        if !samples.is_empty() {
            groups.push(tenant, &labels, &samples, &mut batch);
        }
        Ok(())
    })?;
    let mut encoder = Encoder::new(Codec::Zstd)?;
    for (id, frames) in groups.finish() {
        let partition = partition_of(id, rules.partitions);
        for frame in frames {
            let value = Bytes::from(encoder.encode(&frame)?);
            let partition = i32::try_from(partition).ok();
            batch.records.push(OutRecord { partition, key: Bytes::copy_from_slice(&id.0), value, headers: Vec::new() });
        }
    }
    Ok(batch)
}

/// The groups of a request in the order in which they occur.
#[derive(Default)]
struct Groups {
    known: HashMap<Group, usize>,
    groups: Vec<Collected>,
    /// Where the series before this one went: scrapes arrive together.
    last: Option<usize>,
}

struct Collected {
    group: Group,
    full: Vec<Frame>,
    open: FrameBuilder,
}

impl Groups {
    fn push(&mut self, tenant: &Tenant, labels: &Labels, samples: &[Sample], batch: &mut Batch) {
        let index = self.index_of(tenant, labels);
        let collected = &mut self.groups[index];
        let mut rest = samples;
        loop {
            match collected.open.push(labels, rest) {
                Full::No => break,
                Full::From(at) => {
                    rest = &rest[at..];
                    let full = std::mem::replace(&mut collected.open, FrameBuilder::new(collected.group.clone()));
                    collected.full.extend(full.finish(None));
                }
                // Only reachable where the rules allow labels as large as a frame.
                Full::Never => {
                    batch.rejections.add(Rejection::LabelsTooLong, rest.len() as u64, || labels.to_string());
                    batch.samples += (samples.len() - rest.len()) as u64;
                    return;
                }
            }
        }
        batch.samples += samples.len() as u64;
    }

    fn index_of(&mut self, tenant: &Tenant, labels: &Labels) -> usize {
        if let Some(last) = self.last
            && self.groups[last].group.holds(labels)
        {
            return last;
        }
        let group = Group::of(tenant, labels);
        let index = *self.known.entry(group.clone()).or_insert_with(|| {
            let open = FrameBuilder::new(group.clone());
            self.groups.push(Collected { group, full: Vec::new(), open });
            self.groups.len() - 1
        });
        self.last = Some(index);
        index
    }

    fn finish(self) -> impl Iterator<Item = (GroupId, Vec<Frame>)> {
        self.groups.into_iter().map(|Collected { group, mut full, open }| {
            full.extend(open.finish(None));
            (group.id(), full)
        })
    }
}

/// A series that broke a rule, as far as it can be shown.
fn describe(series: &wire::TimeSeries) -> String {
    const SHOWN: usize = 8;
    let part = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
    let labels: Vec<String> = series
        .labels
        .iter()
        .take(SHOWN)
        .map(|label| format!("{}={:?}", part(&label.name), part(&label.value)))
        .collect();
    format!("{{{}}}", labels.join(", "))
}
