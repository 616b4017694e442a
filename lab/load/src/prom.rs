//! Prometheus remote write and remote read on the wire, as far as the lab speaks them. Pure.
//!
//! Written here once more, apart from the product's own code: what measures must not share a mistake with what is
//! measured.

use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};
use thiserror::Error;

use crate::plan::{Planned, Run, Series};

/// Most bytes that an answer of the query API may unpack to.
const ANSWER_LIMIT: usize = 256 << 20;

/// A label.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Label {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A sample.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Sample {
    /// Value.
    #[prost(double, tag = "1")]
    pub value: f64,
    /// Milliseconds since 1970.
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
}

/// A series with samples.
#[derive(Clone, PartialEq, Message)]
pub struct TimeSeries {
    /// Sorted by name.
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    /// Sorted by time.
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
}

/// The body of a remote write.
#[cfg(test)]
#[derive(Clone, PartialEq, Message)]
pub struct WriteRequest {
    /// What to store.
    #[prost(message, repeated, tag = "1")]
    pub timeseries: Vec<TimeSeries>,
}

/// The body of a remote read.
#[derive(Clone, PartialEq, Message)]
pub struct ReadRequest {
    /// What to find.
    #[prost(message, repeated, tag = "1")]
    pub queries: Vec<Query>,
}

/// One selection.
#[derive(Clone, PartialEq, Message)]
pub struct Query {
    /// Milliseconds since 1970, included.
    #[prost(int64, tag = "1")]
    pub start_timestamp_ms: i64,
    /// Milliseconds since 1970, included.
    #[prost(int64, tag = "2")]
    pub end_timestamp_ms: i64,
    /// All must match.
    #[prost(message, repeated, tag = "3")]
    pub matchers: Vec<LabelMatcher>,
}

/// One condition on a label.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LabelMatcher {
    /// 0 equal, 1 not equal, 2 matches, 3 does not match.
    #[prost(int32, tag = "1")]
    pub r#type: i32,
    /// Name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Value.
    #[prost(string, tag = "3")]
    pub value: String,
}

/// The answer to a remote read.
#[derive(Clone, PartialEq, Message)]
pub struct ReadResponse {
    /// One per query.
    #[prost(message, repeated, tag = "1")]
    pub results: Vec<QueryResult>,
}

/// The answer to a query.
#[derive(Clone, PartialEq, Message)]
pub struct QueryResult {
    /// What was found.
    #[prost(message, repeated, tag = "1")]
    pub timeseries: Vec<TimeSeries>,
}

/// An answer that cannot be read.
#[derive(Debug, Error)]
pub enum AnswerError {
    /// Not snappy, or larger than this tool takes.
    #[error("unpack the answer")]
    Snappy(#[from] snap::Error),
    /// Larger than this tool takes.
    #[error("the answer unpacks to {0} bytes, more than this tool takes")]
    TooLarge(usize),
    /// Not the message.
    #[error("parse the answer")]
    Protobuf(#[from] prost::DecodeError),
}

/// Bodies of remote writes. The labels of each series are encoded once for the whole run.
pub struct WriteEncoder {
    counted: Vec<Vec<u8>>,
    canaries: Vec<Vec<u8>>,
}

impl WriteEncoder {
    /// Prepares the series of a run.
    pub fn new(run: &Run) -> Self {
        let encode = |series| {
            let labels = run.labels(series).into_iter().map(|(name, value)| Label { name: name.to_owned(), value });
            TimeSeries { labels: labels.collect(), samples: Vec::new() }.encode_to_vec()
        };
        Self {
            counted: (0..run.series).map(|number| encode(Series::Counted(number))).collect(),
            canaries: (0..run.groups()).map(|group| encode(Series::Canary(group))).collect(),
        }
    }

    /// The body, packed. Samples of one series must stand together.
    pub fn body(&self, samples: &[Planned]) -> Result<Vec<u8>, snap::Error> {
        let mut message = Vec::with_capacity(samples.len() * 150);
        let mut encoded = Vec::new();
        for samples in samples.chunk_by(|a, b| a.series == b.series) {
            let labels = match samples[0].series {
                Series::Counted(number) => &self.counted[number as usize],
                Series::Canary(group) => &self.canaries[group as usize],
            };
            encoded.clear();
            for sample in samples {
                encode_sample(sample, &mut encoded);
            }
            message.push(0x0a);
            encode_varint((labels.len() + encoded.len()) as u64, &mut message);
            message.extend_from_slice(labels);
            message.extend_from_slice(&encoded);
        }
        snap::raw::Encoder::new().compress_vec(&message)
    }
}

/// Field 2 of a series: written by hand because a value must keep its bits.
fn encode_sample(sample: &Planned, out: &mut Vec<u8>) {
    let timestamp = sample.timestamp_ms as u64;
    out.push(0x12);
    encode_varint((1 + 8 + 1 + encoded_len_varint(timestamp)) as u64, out);
    out.push(0x09);
    out.extend_from_slice(&sample.bits.to_le_bytes());
    out.push(0x10);
    encode_varint(timestamp, out);
}

/// The body of a remote read for one selection by equality, packed.
pub fn read_body(range_ms: (i64, i64), equal: &[(&str, &str)]) -> Result<Vec<u8>, snap::Error> {
    let matcher =
        |(name, value): &(&str, &str)| LabelMatcher { r#type: 0, name: (*name).into(), value: (*value).into() };
    let query = Query {
        start_timestamp_ms: range_ms.0,
        end_timestamp_ms: range_ms.1,
        matchers: equal.iter().map(matcher).collect(),
    };
    snap::raw::Encoder::new().compress_vec(&ReadRequest { queries: vec![query] }.encode_to_vec())
}

/// The series in an answer to [`read_body`].
pub fn parse_answer(body: &[u8]) -> Result<Vec<TimeSeries>, AnswerError> {
    let length = snap::raw::decompress_len(body)?;
    if length > ANSWER_LIMIT {
        return Err(AnswerError::TooLarge(length));
    }
    let message = snap::raw::Decoder::new().decompress_vec(body)?;
    let response = ReadResponse::decode(message.as_slice())?;
    Ok(response.results.into_iter().flat_map(|result| result.timeseries).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Batch;

    #[test]
    fn a_body_written_by_hand_reads_as_the_message_with_every_bit() {
        let run = crate::plan::tests::small();
        let planned = run.samples(Batch { tick: 2, lane: 1 });
        let body = WriteEncoder::new(&run).body(&planned).unwrap();
        let message = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
        let request = WriteRequest::decode(message.as_slice()).unwrap();
        let read: Vec<Planned> = request
            .timeseries
            .iter()
            .flat_map(|series| {
                let labels = series.labels.iter().map(|label| (label.name.as_str(), label.value.as_str()));
                let of = run.series_of(labels).unwrap();
                let plan = move |s: &Sample| Planned { series: of, timestamp_ms: s.timestamp, bits: s.value.to_bits() };
                series.samples.iter().map(plan)
            })
            .collect();
        assert_eq!(read, planned);
    }

    #[test]
    fn an_answer_that_lies_about_its_length_is_refused_unallocated() {
        let lie = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00];
        assert!(matches!(parse_answer(&lie), Err(AnswerError::TooLarge(_))));
    }
}
