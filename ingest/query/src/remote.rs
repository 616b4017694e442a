//! Prometheus remote read on the wire. Pure. Nothing is allocated by what a body says about itself before that was held
//! against the limit and against what the format can do.

use prost::Message;
use thiserror::Error;
use understudy_store::Matcher;

use crate::limits::Limits;
use crate::merge::Selected;
use crate::selector::{Patterns, SelectorError, check_count, remote_matcher};
use crate::work::Selection;

/// No element of snappy's format yields more than 64 bytes from 3.
const MOST_PER_BYTE: usize = 22;

mod proto {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ReadRequest {
        #[prost(message, repeated, tag = "1")]
        pub queries: Vec<Query>,
        #[prost(int32, repeated, tag = "2")]
        pub accepted_response_types: Vec<i32>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Query {
        #[prost(int64, tag = "1")]
        pub start_timestamp_ms: i64,
        #[prost(int64, tag = "2")]
        pub end_timestamp_ms: i64,
        #[prost(message, repeated, tag = "3")]
        pub matchers: Vec<LabelMatcher>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct LabelMatcher {
        #[prost(int32, tag = "1")]
        pub r#type: i32,
        #[prost(string, tag = "2")]
        pub name: String,
        #[prost(string, tag = "3")]
        pub value: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ReadResponse {
        #[prost(message, repeated, tag = "1")]
        pub results: Vec<QueryResult>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct QueryResult {
        #[prost(message, repeated, tag = "1")]
        pub timeseries: Vec<TimeSeries>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct TimeSeries {
        #[prost(message, repeated, tag = "1")]
        pub labels: Vec<Label>,
        #[prost(message, repeated, tag = "2")]
        pub samples: Vec<Sample>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Label {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(string, tag = "2")]
        pub value: String,
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub struct Sample {
        // Optional, because a plain field that equals 0 is left out, and -0 does.
        #[prost(double, optional, tag = "1")]
        pub value: Option<f64>,
        #[prost(int64, tag = "2")]
        pub timestamp: i64,
    }
}

/// The one type of answer that is given: `SAMPLES`.
const SAMPLES: i32 = 0;

/// Why a body is not a remote read that is answered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// It declares more than allowed.
    #[error("the body declares {declared} bytes unpacked, at most {most} are allowed")]
    TooLarge {
        /// What it declares.
        declared: usize,
        /// What is allowed.
        most: usize,
    },
    /// It is not packed as the protocol says.
    #[error("the body is not a snappy block: {0}")]
    Snappy(&'static str),
    /// It is not the message.
    #[error("the body is not a remote-read request: {0}")]
    Protobuf(String),
    /// More selections than allowed.
    #[error("the request has {0} queries, at most {1} are allowed")]
    TooManyQueries(usize, usize),
    /// It takes no type of answer that is given.
    #[error("the request accepts none of the response types that are served: SAMPLES")]
    ResponseType,
    /// A selection that is not taken.
    #[error(transparent)]
    Selector(#[from] SelectorError),
}

/// An answer that is larger than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the answer has {0} bytes, at most {1} are allowed: ask for fewer series or less time")]
pub struct AnswerTooLarge(pub usize, pub usize);

/// The selections of a request. Compiles its patterns, which takes a while.
pub fn decode_request(body: &[u8], limits: &Limits, patterns: &mut Patterns) -> Result<Vec<Selection>, RequestError> {
    let message = unpack(body, limits)?;
    let request = proto::ReadRequest::decode(message.as_slice()).map_err(|e| RequestError::Protobuf(e.to_string()))?;
    let accepted = &request.accepted_response_types;
    if !accepted.is_empty() && !accepted.contains(&SAMPLES) {
        return Err(RequestError::ResponseType);
    }
    if request.queries.len() > limits.selections {
        return Err(RequestError::TooManyQueries(request.queries.len(), limits.selections));
    }
    let mut selections = Vec::with_capacity(request.queries.len());
    for query in request.queries {
        check_count(query.matchers.len(), limits)?;
        let matchers = query.matchers.iter().map(|m| remote_matcher(m.r#type, &m.name, &m.value, limits, patterns));
        let matchers = matchers.collect::<Result<Vec<Matcher>, _>>()?;
        selections.push(Selection { matchers, times_ms: (query.start_timestamp_ms, query.end_timestamp_ms) });
    }
    Ok(selections)
}

fn unpack(body: &[u8], limits: &Limits) -> Result<Vec<u8>, RequestError> {
    if body.is_empty() {
        return Err(RequestError::Snappy("it is empty"));
    }
    let declared = snap::raw::decompress_len(body).map_err(|_| RequestError::Snappy("its length is not readable"))?;
    if declared > limits.unpacked_bytes {
        return Err(RequestError::TooLarge { declared, most: limits.unpacked_bytes });
    }
    if declared > body.len().saturating_mul(MOST_PER_BYTE) {
        return Err(RequestError::Snappy("it declares more than its bytes can hold"));
    }
    snap::raw::Decoder::new().decompress_vec(body).map_err(|_| RequestError::Snappy("its content is damaged"))
}

/// The answer to a request, packed: one result per selection, series in order of their labels.
pub fn encode_response(results: Vec<Selected>, limits: &Limits) -> Result<Vec<u8>, AnswerTooLarge> {
    let results = results.into_iter().map(|selected| proto::QueryResult {
        timeseries: selected.into_iter().map(|(labels, samples)| series(&labels, &samples)).collect(),
    });
    let response = proto::ReadResponse { results: results.collect() };
    let length = response.encoded_len();
    if length > limits.answer_bytes {
        return Err(AnswerTooLarge(length, limits.answer_bytes));
    }
    let message = response.encode_to_vec();
    drop(response);
    let pack = snap::raw::Encoder::new().compress_vec(&message);
    pack.map_err(|_| AnswerTooLarge(length, u32::MAX as usize))
}

fn series(labels: &understudy_model::Labels, samples: &[understudy_model::Sample]) -> proto::TimeSeries {
    let label = |(name, value): (&str, &str)| proto::Label { name: name.to_owned(), value: value.to_owned() };
    let sample = |sample: &understudy_model::Sample| proto::Sample {
        value: (sample.bits != 0).then(|| f64::from_bits(sample.bits)),
        timestamp: sample.timestamp_ms,
    };
    proto::TimeSeries { labels: labels.iter().map(label).collect(), samples: samples.iter().map(sample).collect() }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use understudy_model::{Labels, STALE_MARKER, Sample};

    use super::*;
    use crate::budget::Budget;

    pub(crate) fn pack(message: &[u8]) -> Vec<u8> {
        snap::raw::Encoder::new().compress_vec(message).unwrap()
    }

    /// A request of one query by equality.
    pub(crate) fn request(range_ms: (i64, i64), equal: &[(&str, &str)]) -> Vec<u8> {
        let matcher = |(name, value): &(&str, &str)| proto::LabelMatcher {
            r#type: 0,
            name: (*name).into(),
            value: (*value).into(),
        };
        let matchers = equal.iter().map(matcher).collect();
        let query = proto::Query { start_timestamp_ms: range_ms.0, end_timestamp_ms: range_ms.1, matchers };
        pack(&proto::ReadRequest { queries: vec![query], accepted_response_types: vec![1, 0] }.encode_to_vec())
    }

    pub(crate) type Flat = Vec<(Vec<(String, String)>, Vec<(i64, u64)>)>;

    /// Labels and samples of the first result of an answer.
    pub(crate) fn answer(body: &[u8]) -> Flat {
        let message = snap::raw::Decoder::new().decompress_vec(body).unwrap();
        let response = proto::ReadResponse::decode(message.as_slice()).unwrap();
        let series = response.results.into_iter().next().unwrap().timeseries.into_iter();
        let flat = series.map(|series| {
            let labels = series.labels.into_iter().map(|label| (label.name, label.value)).collect();
            (labels, series.samples.iter().map(|s| (s.timestamp, s.value.unwrap_or(0.0).to_bits())).collect())
        });
        flat.collect()
    }

    fn decode(body: &[u8]) -> Result<Vec<Selection>, RequestError> {
        let limits = Limits::default();
        let mut patterns = Patterns::new(&limits, Budget::new(limits.memory_bytes).hold_nothing());
        decode_request(body, &limits, &mut patterns)
    }

    #[test]
    fn a_request_is_read_with_its_range_and_matchers() {
        let selections = decode(&request((5, 9), &[("__name__", "up"), ("job", "node")])).unwrap();
        assert_eq!((selections.len(), selections[0].times_ms, selections[0].matchers.len()), (1, (5, 9), 2));
    }

    #[rstest]
    #[case::any(vec![], true)]
    #[case::samples(vec![0], true)]
    #[case::chunks_first(vec![1, 0], true)]
    #[case::chunks_only(vec![1], false)]
    fn samples_are_given_to_whoever_takes_them(#[case] accepted_response_types: Vec<i32>, #[case] is_served: bool) {
        let body = pack(&proto::ReadRequest { queries: vec![], accepted_response_types }.encode_to_vec());
        let expected = if is_served { Ok(0) } else { Err(RequestError::ResponseType) };
        assert_eq!(decode(&body).map(|selections| selections.len()), expected);
    }

    #[rstest]
    #[case::empty(vec![])]
    #[case::one_byte(vec![0xff])]
    #[case::declares_4_gib(vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0])]
    #[case::declares_256_mib(vec![0x80, 0x80, 0x80, 0x80, 0x01, 0])]
    #[case::declares_what_it_cannot_hold(vec![0x80, 0x80, 0x04, 0, 0])]
    #[case::declares_nothing_and_holds_something(vec![0, 1, 2, 3])]
    #[case::framed_format(b"\xff\x06\x00\x00sNaPpY\x01".to_vec())]
    #[case::not_protobuf(pack(b"\xff\xff\xff\xff"))]
    #[case::truncated_varint(pack(&[0x0a, 0xff]))]
    #[case::text_that_is_not_utf8(pack(&[0x0a, 6, 0x1a, 4, 0x12, 2, 0xff, 0xfe]))]
    fn a_hostile_body_is_refused(#[case] body: Vec<u8>) {
        assert!(decode(&body).is_err());
    }

    #[test]
    fn more_queries_or_matchers_than_allowed_are_refused() {
        let limits = Limits::default();
        let queries = vec![proto::Query::default(); limits.selections + 1];
        let many = pack(&proto::ReadRequest { queries, accepted_response_types: vec![] }.encode_to_vec());
        assert_eq!(decode(&many).unwrap_err(), RequestError::TooManyQueries(65, 64));
        let matchers = vec![proto::LabelMatcher::default(); limits.matchers + 1];
        let queries = vec![proto::Query { matchers, ..proto::Query::default() }];
        let many = pack(&proto::ReadRequest { queries, accepted_response_types: vec![] }.encode_to_vec());
        assert!(matches!(decode(&many).unwrap_err(), RequestError::Selector(SelectorError::TooManyMatchers(..))));
    }

    #[test]
    fn patterns_of_all_queries_count_together() {
        let matcher = |kind| proto::LabelMatcher { r#type: kind, name: "a".into(), value: "b.".into() };
        let query = |kind| proto::Query { matchers: vec![matcher(kind); 4], ..proto::Query::default() };
        let request = |queries| pack(&proto::ReadRequest { queries, accepted_response_types: vec![] }.encode_to_vec());
        assert!(decode(&request(vec![query(2), query(3), query(2), query(3), query(0)])).is_ok());
        let refused = decode(&request(vec![query(2); 5])).unwrap_err();
        assert_eq!(refused, RequestError::Selector(SelectorError::TooManyPatterns(16)));
    }

    #[test]
    fn an_answer_has_every_bit_and_a_limit() {
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "node")]).unwrap();
        let bits = [0, 1, 1 << 63, STALE_MARKER, 0x7ff8_0000_0000_1234, f64::INFINITY.to_bits(), 1.5_f64.to_bits()];
        let samples: Vec<Sample> =
            bits.iter().zip(-1..).map(|(bits, timestamp_ms)| Sample { timestamp_ms, bits: *bits }).collect();
        let selected = || vec![Selected::from([(labels.clone(), samples.clone())])];
        let body = encode_response(selected(), &Limits::default()).unwrap();
        let expected: Vec<(i64, u64)> = samples.iter().map(|sample| (sample.timestamp_ms, sample.bits)).collect();
        let names = vec![("__name__".to_owned(), "up".to_owned()), ("job".to_owned(), "node".to_owned())];
        assert_eq!(answer(&body), [(names, expected)]);
        let small = Limits { answer_bytes: 100, ..Limits::default() };
        assert!(encode_response(selected(), &small).is_err());
    }

    proptest! {
        #[test]
        fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..200)) {
            for body in [pack(&body), body] {
                prop_assert!(decode(&body).is_ok_and(|selections| selections.len() <= 64) || decode(&body).is_err());
            }
        }
    }
}
