//! Remote write 1.0 on the wire: `prometheus.WriteRequest`. Pure.
//!
//! A request is not decoded as one tree, because two bytes on the wire can become a hundred in memory. [`survey`] walks
//! the whole body without allocating and counts; series are then decoded one by one into reused memory ([`Series`]).

use bytes::{Buf, Bytes};
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// One `prometheus.TimeSeries`. Strings stay bytes, so that one that is not UTF-8 costs its series and not the request.
#[derive(Clone, PartialEq, Message)]
pub struct TimeSeries {
    /// Name and value pairs, in the sender's order.
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    /// Values with their times.
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
}

/// One `prometheus.Label`.
#[derive(Clone, PartialEq, Message)]
pub struct Label {
    /// Its name.
    #[prost(bytes = "bytes", tag = "1")]
    pub name: Bytes,
    /// Its value.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// One `prometheus.Sample`.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Sample {
    /// A double on the wire. Read as its bits, so that no NaN loses its payload.
    #[prost(fixed64, tag = "1")]
    pub value: u64,
    /// Milliseconds since 1970.
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
}

/// Why bytes are not the message.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Malformed {
    /// A field claims to be longer than what is there.
    #[error("a field ends beyond its message")]
    Truncated,
    /// Anything else that protobuf does not allow.
    #[error(transparent)]
    Protobuf(#[from] prost::DecodeError),
}

const REQUEST_TIMESERIES: u32 = 1;
const REQUEST_METADATA: u32 = 3;
const SERIES_LABELS: u32 = 1;
const SERIES_SAMPLES: u32 = 2;
const SERIES_EXEMPLARS: u32 = 3;
const SERIES_HISTOGRAMS: u32 = 4;

/// What a part of a request holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shape {
    /// Label pairs.
    pub labels: usize,
    /// Float samples.
    pub samples: usize,
    /// Exemplars.
    pub exemplars: usize,
    /// Native histograms.
    pub histograms: usize,
}

/// What a whole request holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Survey {
    /// Series.
    pub series: usize,
    /// Metric metadata.
    pub metadata: usize,
    /// All series together.
    pub total: Shape,
}

/// Counts what the body holds, down to each series. Allocates nothing. The labels of a series that has more than
/// `most_labels` are not counted, because nobody will decode them.
pub fn survey(body: &[u8], most_labels: usize) -> Result<Survey, Malformed> {
    let mut found = Survey::default();
    walk(body, |field, part| {
        match field {
            REQUEST_TIMESERIES => {
                let shape = shape(part)?;
                found.series += 1;
                found.total.labels += if shape.labels <= most_labels { shape.labels } else { 0 };
                found.total.samples += shape.samples;
                found.total.exemplars += shape.exemplars;
                found.total.histograms += shape.histograms;
            }
            REQUEST_METADATA => found.metadata += 1,
            _ => {}
        }
        Ok(())
    })?;
    Ok(found)
}

/// Calls back for each series of the body: what it holds, and the bytes to decode it from.
pub fn each_series(body: &Bytes, mut call: impl FnMut(Shape, Bytes) -> Result<(), Malformed>) -> Result<(), Malformed> {
    walk(body, |field, part| match field {
        REQUEST_TIMESERIES => call(shape(part)?, body.slice_ref(part)),
        _ => Ok(()),
    })
}

/// Memory for decoding series one after the other.
#[derive(Debug, Default)]
pub struct Series(TimeSeries);

impl Series {
    /// Decodes one; the reference lives until the next one.
    pub fn decode(&mut self, bytes: Bytes) -> Result<&TimeSeries, Malformed> {
        self.0.labels.clear();
        self.0.samples.clear();
        self.0.merge(bytes)?;
        Ok(&self.0)
    }
}

fn shape(series: &[u8]) -> Result<Shape, Malformed> {
    let mut found = Shape::default();
    walk(series, |field, _| {
        match field {
            SERIES_LABELS => found.labels += 1,
            SERIES_SAMPLES => found.samples += 1,
            SERIES_EXEMPLARS => found.exemplars += 1,
            SERIES_HISTOGRAMS => found.histograms += 1,
            _ => {}
        }
        Ok(())
    })?;
    Ok(found)
}

/// Calls back for each length-delimited field of a message and skips the others, unknown ones included.
fn walk<'a>(message: &'a [u8], mut call: impl FnMut(u32, &'a [u8]) -> Result<(), Malformed>) -> Result<(), Malformed> {
    let mut rest = message;
    while !rest.is_empty() {
        let (field, wire_type) = decode_key(&mut rest)?;
        if wire_type != WireType::LengthDelimited {
            skip_field(wire_type, field, &mut rest, DecodeContext::default())?;
            continue;
        }
        let length = decode_varint(&mut rest)?;
        let length = usize::try_from(length).ok().filter(|&length| length <= rest.remaining());
        let length = length.ok_or(Malformed::Truncated)?;
        let (part, after) = rest.split_at(length);
        rest = after;
        call(field, part)?;
    }
    Ok(())
}
