//! The sender: an open loop. Each batch leaves when it is due, whatever became of those before. I/O.
//!
//! A batch that is not acknowledged is sent again, with the same timestamps and values, until it is or the run ends.
//! Retries have connections of their own number ([`RETRIES`]), so that they never hold up a new batch. When more than
//! [`OPEN`] batches are unanswered, new ones are not sent and recorded as skipped: the one bound on memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ledger::writer::{Ledger, LedgerError};
use crate::ledger::{Outcome, Record, Taken};
use crate::plan::{Batch, Run};
use crate::prom::WriteEncoder;

/// Batches that may be unanswered at once.
pub const OPEN: usize = 4096;
/// Batches that may be sent again at once.
pub const RETRIES: usize = 16;
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// Pause before the second attempt; doubles up to [`SLOWEST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_millis(50);
/// Longest pause between two attempts.
const SLOWEST_RETRY: Duration = Duration::from_secs(1);
/// Most characters of an answer that the ledger keeps.
const WHY_LIMIT: usize = 300;

/// Counters for the progress shown.
#[derive(Debug, Default)]
pub struct Tally {
    /// Batches sent.
    pub sent: AtomicU64,
    /// Samples acknowledged.
    pub acked_samples: AtomicU64,
    /// Batches acknowledged, refused or given up.
    pub done: AtomicU64,
    /// Attempts that failed.
    pub failed: AtomicU64,
    /// Batches not sent.
    pub skipped: AtomicU64,
}

/// Where to send, and as whom.
#[derive(Clone, Debug)]
pub struct Target {
    /// Full addresses of the remote-write endpoint; a lane begins with one and a retry takes the next.
    pub gateways: Vec<Url>,
    /// `<id>.<secret>`.
    pub token: String,
}

/// Sends one run.
#[derive(Clone)]
pub struct Sender {
    run: Arc<Run>,
    target: Arc<Target>,
    client: Client,
    encoder: Arc<WriteEncoder>,
    ledger: Ledger,
    tally: Arc<Tally>,
    retries: Arc<Semaphore>,
    giving_up: CancellationToken,
}

/// What an answer means for a batch.
#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Acked,
    Refused(Failure),
    Again { failure: Failure, after: Option<Duration> },
}

/// An attempt that was not acknowledged.
#[derive(Debug, PartialEq, Eq)]
struct Failure {
    taken: Taken,
    /// Status and body, or the error.
    why: String,
}

impl Sender {
    /// Prepares the series of the run and the client.
    pub fn new(run: Arc<Run>, target: Target, ledger: Ledger, tally: Arc<Tally>) -> anyhow::Result<Self> {
        let client = Client::builder().connect_timeout(Duration::from_secs(1)).timeout(ANSWER).tcp_nodelay(true);
        let client = client.build().context("make the HTTP client")?;
        let encoder = Arc::new(WriteEncoder::new(&run));
        let retries = Arc::new(Semaphore::new(RETRIES));
        let target = Arc::new(target);
        Ok(Self { run, target, client, encoder, ledger, tally, retries, giving_up: CancellationToken::new() })
    }

    /// Sends `ticks` ticks beginning at `begin`, then waits up to `drain` for what is unanswered. `stop` ends the sending
    /// early; the waiting still happens.
    pub async fn run(
        self,
        begin: Instant,
        ticks: u64,
        drain: Duration,
        stop: CancellationToken,
    ) -> Result<(), LedgerError> {
        let open = Arc::new(Semaphore::new(OPEN));
        let tasks = TaskTracker::new();
        for tick in 0..ticks {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = sleep_until(begin + Duration::from_millis(self.run.due_ms(tick))) => {}
            }
            for batch in self.run.batches(tick) {
                let Ok(permit) = Arc::clone(&open).try_acquire_owned() else {
                    self.tally.skipped.fetch_add(1, Ordering::Relaxed);
                    self.ledger.record(Record::Skipped { batch, at: self.ledger.clock.now() })?;
                    continue;
                };
                let samples = self.run.samples(batch);
                // Encoding cannot fail for a body of this size; if it does, the batch was simply not sent.
                let Ok(body) = self.encoder.body(&samples) else {
                    self.ledger.record(Record::Skipped { batch, at: self.ledger.clock.now() })?;
                    continue;
                };
                let sum = format!("{:016x}", Run::checksum(&samples));
                let count = samples.len() as u64;
                self.ledger.record(Record::Sent { batch, samples: count, sum, at: self.ledger.clock.now() })?;
                self.tally.sent.fetch_add(1, Ordering::Relaxed);
                let sender = self.clone();
                tasks.spawn(async move {
                    let outcome = sender.deliver(batch, count, body.into()).await;
                    drop(permit);
                    outcome
                });
            }
        }
        tasks.close();
        if timeout(drain, tasks.wait()).await.is_err() {
            self.giving_up.cancel();
            tasks.wait().await;
        }
        if self.ledger.is_broken() { Err(LedgerError::Behind) } else { Ok(()) }
    }

    async fn deliver(&self, batch: Batch, samples: u64, body: Bytes) -> Result<(), LedgerError> {
        let mut attempts = 0;
        let mut pause = FIRST_RETRY;
        let outcome = loop {
            attempts += 1;
            let reply = tokio::select! {
                biased;
                () = self.giving_up.cancelled() => break Outcome::Unknown,
                reply = self.attempt(batch, attempts, body.clone()) => reply,
            };
            let (failure, after) = match reply {
                Reply::Acked => break Outcome::Acked,
                Reply::Refused(failure) => {
                    self.failed(batch, attempts, failure)?;
                    break Outcome::Refused;
                }
                Reply::Again { failure, after } => (failure, after),
            };
            self.failed(batch, attempts, failure)?;
            let wait = after.unwrap_or(pause).min(SLOWEST_RETRY);
            pause = (pause * 2).min(SLOWEST_RETRY);
            tokio::select! {
                biased;
                () = self.giving_up.cancelled() => break Outcome::Unknown,
                () = sleep(wait) => {}
            }
        };
        self.tally.done.fetch_add(1, Ordering::Relaxed);
        if outcome == Outcome::Acked {
            self.tally.acked_samples.fetch_add(samples, Ordering::Relaxed);
        }
        self.ledger.record(Record::Done { batch, outcome, attempts, at: self.ledger.clock.now() })
    }

    fn failed(&self, batch: Batch, attempt: u32, failure: Failure) -> Result<(), LedgerError> {
        self.tally.failed.fetch_add(1, Ordering::Relaxed);
        let Failure { taken, why } = failure;
        self.ledger.record(Record::Failed { batch, attempt, taken, why, at: self.ledger.clock.now() })
    }

    async fn attempt(&self, batch: Batch, attempt: u32, body: Bytes) -> Reply {
        let permit = if attempt > 1 { Some(self.retries.acquire().await) } else { None };
        let turn = batch.lane as usize + attempt as usize - 1;
        let url = self.target.gateways[turn % self.target.gateways.len()].clone();
        let request = self
            .client
            .post(url)
            .header(AUTHORIZATION, format!("Bearer {}", self.target.token))
            .header(CONTENT_TYPE, "application/x-protobuf")
            .header(CONTENT_ENCODING, "snappy")
            .header("X-Prometheus-Remote-Write-Version", "0.1.0")
            .body(body);
        let reply = match request.send().await {
            Ok(response) => classify(response).await,
            Err(error) => {
                // Without a connection not a byte has left.
                let taken = if error.is_connect() { Taken::Nothing } else { Taken::Unknown };
                Reply::Again { failure: Failure { taken, why: chain(&error) }, after: None }
            }
        };
        drop(permit);
        reply
    }
}

async fn classify(response: Response) -> Reply {
    let status = response.status();
    if status.is_success() {
        return Reply::Acked;
    }
    let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let body = response.text().await.unwrap_or_default();
    let why: String = format!("{} {}", status.as_u16(), body.trim()).chars().take(WHY_LIMIT).collect();
    let failure = Failure { taken: taken(status), why };
    if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
        Reply::Refused(failure)
    } else {
        Reply::Again { failure, after: after.map(Duration::from_secs) }
    }
}

/// What an answer other than 2xx says, by the table in `ingest/docs/data-path.md`: a 400 may have kept a part, and a 503
/// may be about records that Kafka has.
fn taken(status: StatusCode) -> Taken {
    match status {
        StatusCode::UNAUTHORIZED
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNSUPPORTED_MEDIA_TYPE
        | StatusCode::TOO_MANY_REQUESTS => Taken::Nothing,
        _ => Taken::Unknown,
    }
}

/// An error and what caused it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ").chars().take(WHY_LIMIT).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Mutex;

    use axum::Router;
    use axum::extract::State;
    use axum::http::StatusCode as Status;
    use axum::routing::post;
    use prost::Message;

    use super::*;
    use crate::ledger::FORMAT;
    use crate::ledger::book::Book;
    use crate::ledger::reader::read_lines;
    use crate::ledger::writer::Clock;
    use crate::prom::WriteRequest;

    type Answer = fn(nth: usize) -> Status;
    type Bodies = Arc<Mutex<HashMap<Vec<u8>, usize>>>;

    /// A gateway that answers the n-th delivery of a body as it is told, n from 1.
    async fn gateway(answer: Answer) -> (Url, Bodies) {
        let bodies = Bodies::default();
        let receive = move |State(bodies): State<Bodies>, body: Bytes| async move {
            let mut bodies = bodies.lock().unwrap();
            let nth = bodies.entry(body.to_vec()).or_default();
            *nth += 1;
            answer(*nth)
        };
        let router = Router::new().route("/write", post(receive)).with_state(Arc::clone(&bodies));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/write", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        (url, bodies)
    }

    async fn send(url: Url, ticks: u64, drain: Duration) -> Book {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let (ledger, closing) = Ledger::create(&path, Clock::start()).unwrap();
        let run = Arc::new(crate::plan::tests::small());
        ledger.record(Record::Run { format: FORMAT, run: (*run).clone(), at: ledger.clock.now() }).unwrap();
        let target = Target { gateways: vec![url], token: "lab.secret".into() };
        let sender = Sender::new(run, target, ledger, Arc::default()).unwrap();
        sender.run(Instant::now(), ticks, drain, CancellationToken::new()).await.unwrap();
        closing.close().unwrap();
        Book::read(read_lines(std::fs::read(&path).unwrap().as_slice())).unwrap()
    }

    #[tokio::test]
    async fn every_batch_is_sent_once_when_every_one_is_acknowledged() {
        let (url, bodies) = gateway(|_| Status::NO_CONTENT).await;
        let book = send(url, 3, Duration::from_secs(10)).await;
        assert_eq!(book.batches.len(), 12);
        assert!(book.batches.values().all(|s| s.outcome() == Outcome::Acked && s.deliveries() == 1));
        let bodies = bodies.lock().unwrap();
        assert!(bodies.values().all(|times| *times == 1));
        let samples: usize = bodies
            .keys()
            .map(|body| {
                WriteRequest::decode(snap::raw::Decoder::new().decompress_vec(body).unwrap().as_slice()).unwrap()
            })
            .flat_map(|request| request.timeseries)
            .map(|series| series.samples.len())
            .sum();
        assert_eq!(samples as u64, book.samples(Outcome::Acked));
    }

    #[tokio::test]
    async fn a_batch_is_sent_again_unchanged_until_it_is_acknowledged() {
        let (url, bodies) = gateway(|nth| if nth < 3 { Status::SERVICE_UNAVAILABLE } else { Status::OK }).await;
        let book = send(url, 1, Duration::from_secs(10)).await;
        assert!(book.batches.values().all(|s| s.outcome() == Outcome::Acked && s.deliveries() == 3 && s.failed == 2));
        assert!(bodies.lock().unwrap().values().all(|times| *times == 3));
    }

    #[tokio::test]
    async fn an_attempt_that_was_told_to_slow_down_is_sent_again_and_counts_as_no_delivery() {
        let (url, bodies) = gateway(|nth| if nth < 3 { Status::TOO_MANY_REQUESTS } else { Status::OK }).await;
        let book = send(url, 1, Duration::from_secs(10)).await;
        let sendings = || book.batches.values();
        assert!(sendings().all(|s| s.outcome() == Outcome::Acked && s.attempts() == 3 && s.deliveries() == 1));
        assert!(bodies.lock().unwrap().values().all(|times| *times == 3));
    }

    #[test]
    fn only_an_answer_that_says_that_nothing_was_kept_is_taken_at_its_word() {
        for (status, expected) in [
            (400, Taken::Unknown),
            (401, Taken::Nothing),
            (408, Taken::Unknown),
            (413, Taken::Nothing),
            (415, Taken::Nothing),
            (429, Taken::Nothing),
            (500, Taken::Unknown),
            (503, Taken::Unknown),
        ] {
            assert_eq!(taken(StatusCode::from_u16(status).unwrap()), expected, "{status}");
        }
    }

    #[tokio::test]
    async fn a_refused_batch_is_not_sent_again() {
        let (url, bodies) = gateway(|_| Status::BAD_REQUEST).await;
        let book = send(url, 1, Duration::from_secs(10)).await;
        assert!(book.batches.values().all(|s| s.outcome() == Outcome::Refused));
        assert!(bodies.lock().unwrap().values().all(|times| *times == 1));
    }

    #[tokio::test]
    async fn what_is_unanswered_at_the_end_is_unknown() {
        let (url, _) = gateway(|_| Status::SERVICE_UNAVAILABLE).await;
        let book = send(url, 1, Duration::from_millis(1500)).await;
        assert!(book.batches.values().all(|s| s.outcome() == Outcome::Unknown && s.deliveries() >= 2));
        assert!(book.acknowledgements().is_empty());
    }

    #[tokio::test]
    async fn a_gateway_that_is_not_there_makes_unknown_batches_and_the_loop_goes_on() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/write", listener.local_addr().unwrap()).parse().unwrap();
        drop(listener);
        let book = send(url, 3, Duration::from_millis(100)).await;
        assert_eq!(book.batches.len(), 12);
        // The attempt that was under way at the end may have been a delivery; those that reached nobody were none.
        assert!(book.batches.values().all(|s| s.outcome() == Outcome::Unknown && s.deliveries() <= 1));
    }
}
