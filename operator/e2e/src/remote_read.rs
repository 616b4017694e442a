//! Prometheus remote read, spoken from scratch: the tests must not share a mistake with the product's own reader. I/O.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prost::Message;

/// Labels in their order, and the samples as (milliseconds, bits).
pub type Series = BTreeMap<Vec<(String, String)>, Vec<(i64, u64)>>;

#[derive(Clone, PartialEq, Message)]
struct ReadRequest {
    #[prost(message, repeated, tag = "1")]
    queries: Vec<Query>,
}

#[derive(Clone, PartialEq, Message)]
struct Query {
    #[prost(int64, tag = "1")]
    start_timestamp_ms: i64,
    #[prost(int64, tag = "2")]
    end_timestamp_ms: i64,
    #[prost(message, repeated, tag = "3")]
    matchers: Vec<LabelMatcher>,
}

#[derive(Clone, PartialEq, Message)]
struct LabelMatcher {
    /// 0 equal, 1 not equal, 2 matches, 3 does not match.
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct ReadResponse {
    #[prost(message, repeated, tag = "1")]
    results: Vec<QueryResult>,
}

#[derive(Clone, PartialEq, Message)]
struct QueryResult {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Sample {
    /// Optional, because a double that may be left out is left out when it is -0.0.
    #[prost(double, optional, tag = "1")]
    value: Option<f64>,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

/// Reads every series of the job between two moments (milliseconds, both included).
pub async fn read(url: &str, token: Option<&str>, job: &str, from: i64, to: i64) -> Result<Series> {
    let matcher = LabelMatcher { kind: 0, name: "job".into(), value: job.into() };
    let query = Query { start_timestamp_ms: from, end_timestamp_ms: to, matchers: vec![matcher] };
    let body = snap::raw::Encoder::new().compress_vec(&ReadRequest { queries: vec![query] }.encode_to_vec())?;
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build()?;
    let mut request = client
        .post(format!("{url}/api/v1/read"))
        .header("Content-Type", "application/x-protobuf")
        .header("Content-Encoding", "snappy")
        .header("X-Prometheus-Remote-Read-Version", "0.1.0")
        .body(body);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let answer = request.send().await.with_context(|| format!("{url} does not answer"))?;
    let status = answer.status();
    let bytes = answer.bytes().await.with_context(|| format!("{url} broke off"))?;
    ensure!(status.is_success(), "{url} answered {status}: {}", String::from_utf8_lossy(&bytes));
    decode(&bytes).with_context(|| format!("the answer of {url} is malformed"))
}

fn decode(bytes: &[u8]) -> Result<Series> {
    let response = ReadResponse::decode(snap::raw::Decoder::new().decompress_vec(bytes)?.as_slice())?;
    let mut series = Series::new();
    for one in response.results.into_iter().flat_map(|r| r.timeseries) {
        let labels = one.labels.into_iter().map(|l| (l.name, l.value)).collect();
        let samples = one.samples.into_iter().map(|s| (s.timestamp, s.value().to_bits()));
        series.entry(labels).or_default().extend(samples);
    }
    series.retain(|_, samples| !samples.is_empty());
    Ok(series)
}

/// What `theirs` holds and `ours` does not, and the reverse, in words; empty when they are the same to the bit.
pub fn differences(theirs: &Series, ours: &Series) -> Vec<String> {
    let mut found = Vec::new();
    for (labels, samples) in theirs {
        match ours.get(labels) {
            None => found.push(format!("{labels:?}: not stored ({} samples)", samples.len())),
            Some(stored) if stored == samples => {}
            Some(stored) => found.push(format!("{labels:?}: {}", first_difference(samples, stored))),
        }
    }
    found.extend(ours.keys().filter(|l| !theirs.contains_key(*l)).map(|l| format!("{l:?}: stored, but never scraped")));
    found
}

fn first_difference(theirs: &[(i64, u64)], ours: &[(i64, u64)]) -> String {
    let index = theirs.iter().zip(ours).position(|(a, b)| a != b).unwrap_or(theirs.len().min(ours.len()));
    let show = |sample: Option<&(i64, u64)>| sample.map_or("nothing".into(), |(t, bits)| format!("{t}: {bits:#018x}"));
    format!(
        "sample {index} of {}/{}: scraped {}, stored {}",
        theirs.len(),
        ours.len(),
        show(theirs.get(index)),
        show(ours.get(index))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(value: f64) -> Series {
        [(vec![("__name__".to_owned(), "up".to_owned())], vec![(1, value.to_bits())])].into()
    }

    #[test]
    fn equal_to_the_bit_is_equal_and_another_nan_is_not() {
        let stale = f64::from_bits(0x7ff0_0000_0000_0002);
        assert!(differences(&one(stale), &one(stale)).is_empty());
        let found = differences(&one(stale), &one(f64::NAN));
        assert!(found.len() == 1 && found[0].contains("0x7ff0000000000002"), "{found:?}");
    }

    #[test]
    fn missing_and_surplus_series_are_both_named() {
        assert!(differences(&one(1.0), &Series::new())[0].contains("not stored"));
        assert!(differences(&Series::new(), &one(1.0))[0].contains("never scraped"));
    }

    #[test]
    fn an_answer_is_read_as_prometheus_writes_it() {
        let labels = vec![Label { name: "job".into(), value: "a".into() }];
        let samples = vec![Sample { value: Some(-0.0), timestamp: 5 }];
        let result = QueryResult { timeseries: vec![TimeSeries { labels, samples }] };
        let bytes = ReadResponse { results: vec![result] }.encode_to_vec();
        let series = decode(&snap::raw::Encoder::new().compress_vec(&bytes).unwrap()).unwrap();
        assert_eq!(series[&vec![("job".to_owned(), "a".to_owned())]], [(5, (-0.0f64).to_bits())]);
    }
}
