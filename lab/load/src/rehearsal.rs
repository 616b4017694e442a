//! The whole tool against a service that can be made to lie: what it reports must be what the service did.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use clap::Parser;
use prost::Message;

use crate::prom::{Label, QueryResult, ReadRequest, ReadResponse, Sample, TimeSeries, WriteRequest};
use crate::verify::report::Report;
use crate::{Cli, Command, hold_against, load};

/// What the service does to the n-th request, n from 0.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// Stores and acknowledges it.
    Keep,
    /// Acknowledges it without storing it.
    Lose,
    /// Stores it, and says that it did not.
    LoseTheAnswer,
    /// Stores it twice and acknowledges it once.
    Double,
    /// Stores it with a bit changed.
    Corrupt,
    /// Refuses it, and stores nothing.
    Refuse,
    /// Asks for it to be sent again later, and stores nothing.
    PutOff,
}

struct Service {
    fate: fn(usize) -> Fate,
    requests: usize,
    /// Labels, then timestamp, to bits and number of copies.
    stored: HashMap<Vec<Label>, BTreeMap<i64, (u64, u64)>>,
}

type Shared = Arc<Mutex<Service>>;

fn unpack(body: &Bytes) -> Vec<u8> {
    snap::raw::Decoder::new().decompress_vec(body).unwrap()
}

async fn write(State(service): State<Shared>, headers: HeaderMap, body: Bytes) -> StatusCode {
    assert_eq!(headers["authorization"], "Bearer lab.secret");
    let request = WriteRequest::decode(unpack(&body).as_slice()).unwrap();
    let mut service = service.lock().unwrap();
    let fate = (service.fate)(service.requests);
    service.requests += 1;
    let (copies, flip) = match fate {
        Fate::Lose | Fate::Refuse | Fate::PutOff => (0, 0),
        Fate::Double => (2, 0),
        Fate::Corrupt => (1, 1),
        Fate::Keep | Fate::LoseTheAnswer => (1, 0),
    };
    if copies > 0 {
        for series in request.timeseries {
            let times = service.stored.entry(series.labels).or_default();
            for sample in series.samples {
                let entry = times.entry(sample.timestamp).or_insert((sample.value.to_bits() ^ flip, 0));
                entry.1 += copies;
            }
        }
    }
    match fate {
        Fate::LoseTheAnswer => StatusCode::SERVICE_UNAVAILABLE,
        Fate::Refuse => StatusCode::BAD_REQUEST,
        Fate::PutOff => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::NO_CONTENT,
    }
}

async fn read(State(service): State<Shared>, body: Bytes) -> Response {
    let request = ReadRequest::decode(unpack(&body).as_slice()).unwrap();
    let query = &request.queries[0];
    let service = service.lock().unwrap();
    let mut merged = 0;
    let mut found = Vec::new();
    for (labels, times) in &service.stored {
        let value = |name: &str| labels.iter().find(|label| label.name == name).map(|label| label.value.as_str());
        if query.matchers.iter().all(|matcher| value(&matcher.name) == Some(&matcher.value)) {
            let range = times.range(query.start_timestamp_ms..=query.end_timestamp_ms);
            let samples: Vec<Sample> = range
                .map(|(timestamp, (bits, copies))| {
                    merged += copies - 1;
                    Sample { value: f64::from_bits(*bits), timestamp: *timestamp }
                })
                .collect();
            found.push(TimeSeries { labels: labels.clone(), samples });
        }
    }
    let response = ReadResponse { results: vec![QueryResult { timeseries: found }] };
    let body = snap::raw::Encoder::new().compress_vec(&response.encode_to_vec()).unwrap();
    ([("x-understudy-merged-samples", merged.to_string())], body).into_response()
}

async fn rehearse(fate: fn(usize) -> Fate) -> Report {
    let service = Arc::new(Mutex::new(Service { fate, requests: 0, stored: HashMap::new() }));
    let router =
        Router::new().route("/api/v1/write", post(write)).route("/api/v1/read", post(read)).with_state(service);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });

    let directory = tempfile::tempdir().unwrap();
    let ledger = directory.path().join("ledger").display().to_string();
    let common = ["--token", "lab.secret", "--ledger", &ledger, "--query", &base];
    let sending = ["--gateway", &base, "--rate", "400", "--groups", "4", "--lanes", "2", "--for", "1s"];
    let times = ["--drain", "2s", "--settle", "1s"];
    let parse = |words: &[&[&str]]| Cli::parse_from(["lab-load"].into_iter().chain(words.concat())).command;
    let Command::Load(options) = parse(&[&["load"], &common, &sending, &times]) else { unreachable!() };
    load::load(*options).await.unwrap();
    let Command::Verify(options) = parse(&[&["verify"], &common, &["--wait", "0s"]]) else { unreachable!() };
    hold_against(options).await.unwrap()
}

#[tokio::test]
async fn an_honest_service_is_found_honest() {
    let report = rehearse(|_| Fate::Keep).await;
    assert!(report.is_clean(), "{report}");
    // 400 counted and 4 canaries in each of 10 ticks.
    assert_eq!((report.samples.sent, report.samples.acknowledged, report.samples.unknown), (440, 440, 0));
    assert!(report.visible_gap.is_some_and(|gap| !gap.open), "{report}");
    assert!(report.ledger_complete);
}

#[tokio::test]
async fn a_lost_answer_is_neither_a_loss_nor_a_doubling() {
    let report = rehearse(|n| if n % 3 == 0 { Fate::LoseTheAnswer } else { Fate::Keep }).await;
    assert!(report.is_clean(), "{report}");
    assert!(report.samples.merged > 0 && report.batches_retried > 0, "{report}");
    assert_eq!(report.samples.explained, report.samples.merged, "{report}");
}

#[tokio::test]
async fn answers_that_never_come_leave_unknown_samples_that_are_found_and_show_nothing() {
    let report = rehearse(|_| Fate::LoseTheAnswer).await;
    assert!(!report.is_clean(), "{report}");
    assert_eq!((report.lost, report.doubled, report.alien), (0, 0, 0), "{report}");
    assert_eq!((report.samples.acknowledged, report.samples.unknown, report.samples.unknown_found), (0, 440, 440));
    assert!(report.ack_gap.unwrap().open);
}

#[tokio::test]
async fn an_acknowledged_batch_that_was_not_stored_is_lost() {
    let report = rehearse(|n| if n == 7 { Fate::Lose } else { Fate::Keep }).await;
    assert!(!report.is_clean());
    assert_eq!((report.lost, report.doubled), (22, 0), "{report}");
    assert_eq!(report.settled_after_seconds, None);
}

#[tokio::test]
async fn a_batch_that_was_stored_twice_is_doubled() {
    let report = rehearse(|n| if n == 7 { Fate::Double } else { Fate::Keep }).await;
    assert_eq!((report.lost, report.doubled), (0, 22), "{report}");
    assert!(!report.is_clean());
}

#[tokio::test]
async fn sends_that_were_put_off_do_not_explain_a_batch_that_was_stored_twice() {
    let fate = |n: usize| match n {
        7 => Fate::Double,
        n if n % 3 == 0 => Fate::PutOff,
        _ => Fate::Keep,
    };
    let report = rehearse(fate).await;
    assert_eq!((report.lost, report.doubled, report.samples.explained), (0, 22, 0), "{report}");
    assert!(report.batches_retried > 0 && !report.is_clean(), "{report}");
}

#[tokio::test]
async fn changed_bits_are_lost() {
    let report = rehearse(|n| if n == 7 { Fate::Corrupt } else { Fate::Keep }).await;
    assert_eq!((report.lost, report.samples.wrong, report.doubled), (22, 22, 0), "{report}");
}

#[tokio::test]
async fn a_refused_batch_is_counted_apart() {
    let report = rehearse(|n| if n == 7 { Fate::Refuse } else { Fate::Keep }).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.samples.refused, report.samples.refused_found), (22, 0));
}
