//! The endless stream of reports, `GET /v1/evidence`: one JSON [`Report`] per line. I/O.
//!
//! A report is complete, so the reader hands out only the newest line of what has arrived: what lay in a buffer while the
//! network or the reader itself stood still is never taken for news.

use std::convert::Infallible;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures::stream;
use http::StatusCode;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use understudy_wire::Report;

use crate::client::{CallError, Endpoint, connect, get_request};
use crate::tls::Identity;

/// Where evidence is served.
pub const PATH: &str = "/v1/evidence";
/// Time between reports when nothing changes.
pub const EVERY: Duration = Duration::from_millis(250);
/// Changes that come faster than this are sent together.
pub const AT_MOST_EVERY: Duration = Duration::from_millis(20);
/// A stream without a line for this long is lost.
pub const IDLE: Duration = Duration::from_secs(1);
/// Connecting, TLS and the answer's head.
pub const CONNECT: Duration = Duration::from_secs(1);
/// The longest line taken, in bytes.
pub const MAX_LINE: usize = 1 << 20;

/// Frames read on in search of a newer line; a peer that never stops sending must not hold the reader.
const MAX_EXTRA: u32 = 256;
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MOST: Duration = Duration::from_secs(1);

/// Serves the reports of one observer.
#[derive(Clone)]
pub struct Publisher {
    report: Arc<dyn Fn() -> Report + Send + Sync>,
    changed: watch::Receiver<u64>,
    stop: CancellationToken,
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").finish_non_exhaustive()
    }
}

impl Publisher {
    /// `report` gives the present state with ages as of the call: it must not wait for anything. A new value in `changed` sends a
    /// report at once. `stop` ends every stream.
    pub fn new(
        report: impl Fn() -> Report + Send + Sync + 'static,
        changed: watch::Receiver<u64>,
        stop: CancellationToken,
    ) -> Self {
        Self { report: Arc::new(report), changed, stop }
    }

    /// The route to merge into the server's router.
    pub fn routes(self) -> Router {
        Router::new().route(PATH, get(stream_reports)).with_state(self)
    }

    fn line(&self) -> Bytes {
        let mut line = serde_json::to_vec(&(self.report)()).expect("a report is plain data with string keys");
        line.push(b'\n');
        line.into()
    }

    /// Waits for the next occasion to report; false when the stream shall end.
    async fn next(&mut self) -> bool {
        if self.stop.run_until_cancelled(tokio::time::sleep(AT_MOST_EVERY)).await.is_none() {
            return false;
        }
        tokio::select! {
            () = self.stop.cancelled() => false,
            () = tokio::time::sleep(EVERY - AT_MOST_EVERY) => true,
            changed = self.changed.changed() => changed.is_ok(),
        }
    }
}

async fn stream_reports(State(mut publisher): State<Publisher>) -> Response {
    publisher.changed.mark_unchanged();
    let first = publisher.line();
    let lines = stream::unfold((publisher, Some(first)), |(mut publisher, first)| async move {
        if let Some(line) = first {
            return Some((Ok::<_, Infallible>(line), (publisher, None)));
        }
        publisher.next().await.then(|| (Ok(publisher.line()), (publisher, None)))
    });
    ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

/// What the reader of one observer's stream has to tell.
#[derive(Debug)]
pub enum Event {
    /// The newest report and when it arrived: ages in it are to be counted from there.
    Report {
        /// When it arrived.
        at: Instant,
        /// What it says.
        report: Box<Report>,
    },
    /// The stream ended or could not be opened; the reader goes on trying.
    Lost(LostError),
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum LostError {
    /// It could not be opened.
    #[error(transparent)]
    Call(#[from] CallError),
    /// It was not opened in time.
    #[error("{0} did not open its stream within {CONNECT:?}")]
    Opening(Endpoint),
    /// Nothing came for [`IDLE`].
    #[error("{0} sent nothing for {IDLE:?}")]
    Idle(Endpoint),
    /// It ended or broke.
    #[error("stream of {from} ended: {reason}")]
    Ended {
        /// Whose.
        from: Endpoint,
        /// Why.
        reason: String,
    },
    /// A line is no report, or too long.
    #[error("{from} sent what is no report: {reason}")]
    Line {
        /// Who.
        from: Endpoint,
        /// Why.
        reason: String,
    },
}

/// Reads one observer's stream, and opens it again whenever it is lost, with jitter.
#[derive(Debug)]
pub struct Reader {
    from: Endpoint,
    identity: Identity,
    open: Option<Open>,
    failures: u32,
}

#[derive(Debug)]
struct Open {
    body: Incoming,
    buffer: Vec<u8>,
    _driver: AbortOnDropHandle<()>,
}

impl Reader {
    /// Nothing is connected before the first [`Reader::next`].
    pub fn new(from: Endpoint, identity: Identity) -> Self {
        Self { from, identity, open: None, failures: 0 }
    }

    /// Whose stream it is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.from
    }

    /// The next event; waits at most about [`IDLE`] plus the pause before a reconnection. Safe to drop while waiting.
    pub async fn next(&mut self) -> Event {
        let outcome = match self.open.take() {
            Some(open) => self.read(open).await,
            None => {
                tokio::time::sleep(pause(self.failures)).await;
                match tokio::time::timeout(CONNECT, self.connect()).await {
                    Ok(Ok(open)) => self.read(open).await,
                    Ok(Err(e)) => Err(e.into()),
                    Err(_) => Err(LostError::Opening(self.from.clone())),
                }
            }
        };
        match outcome {
            Ok(report) => {
                self.failures = 0;
                Event::Report { at: Instant::now(), report: Box::new(report) }
            }
            Err(lost) => {
                self.open = None;
                self.failures = self.failures.saturating_add(1);
                Event::Lost(lost)
            }
        }
    }

    async fn connect(&self) -> Result<Open, CallError> {
        let broken = |e: &dyn fmt::Display| CallError::Broken { to: self.from.clone(), reason: e.to_string() };
        let tls = connect(&self.from, self.identity.client_h1()).await?;
        let (mut sender, driver) =
            http1::handshake::<_, Full<Bytes>>(TokioIo::new(tls)).await.map_err(|e| broken(&e))?;
        let from = self.from.clone();
        let driver = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(e) = driver.await {
                tracing::debug!(%from, error = %e, "stream connection ended");
            }
        }));
        let answer = sender.send_request(get_request(&self.from, PATH)?).await.map_err(|e| broken(&e))?;
        if answer.status() != StatusCode::OK {
            return Err(CallError::Status {
                to: self.from.clone(),
                path: PATH.to_owned(),
                status: answer.status(),
                body: String::new(),
            });
        }
        Ok(Open { body: answer.into_body(), buffer: Vec::new(), _driver: driver })
    }

    /// Reads until a whole line is there, then everything that has arrived with it, and keeps the newest.
    async fn read(&mut self, open: Open) -> Result<Report, LostError> {
        let open = self.open.insert(open);
        let deadline = tokio::time::Instant::now() + IDLE;
        let mut newest = None;
        let mut extra = 0;
        loop {
            let frame = if newest.is_none() {
                match tokio::time::timeout_at(deadline, open.body.frame()).await {
                    Ok(frame) => frame,
                    Err(_) => return Err(LostError::Idle(self.from.clone())),
                }
            } else {
                extra += 1;
                if extra > MAX_EXTRA {
                    break;
                }
                match futures::FutureExt::now_or_never(open.body.frame()) {
                    Some(frame) => frame,
                    None => break,
                }
            };
            let ended = |reason: String| LostError::Ended { from: self.from.clone(), reason };
            match frame {
                Some(Ok(frame)) => open.buffer.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
                Some(Err(e)) => return Err(ended(e.to_string())),
                // The end shows again in the next read; what came before it still counts.
                None if newest.is_some() => break,
                None => return Err(ended("closed by the peer".to_owned())),
            }
            if let Some(line) = last_line(&mut open.buffer) {
                newest = Some(line);
            }
            if open.buffer.len() > MAX_LINE {
                return Err(LostError::Line {
                    from: self.from.clone(),
                    reason: format!("line longer than {MAX_LINE} bytes"),
                });
            }
        }
        let line = newest.unwrap_or_default();
        serde_json::from_slice(&line).map_err(|e| LostError::Line { from: self.from.clone(), reason: e.to_string() })
    }
}

/// Takes every whole line out of the buffer and gives the last one.
fn last_line(buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let end = buffer.iter().rposition(|byte| *byte == b'\n')?;
    let rest = buffer.split_off(end + 1);
    let mut lines = std::mem::replace(buffer, rest);
    lines.pop();
    let start = lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |before| before + 1);
    Some(lines.split_off(start))
}

/// Grows with the failures in a row, up to [`PAUSE_MOST`], between half of it and the whole.
fn pause(failures: u32) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    let whole = PAUSE_FIRST.saturating_mul(1 << (failures - 1).min(10)).min(PAUSE_MOST);
    let random = RandomState::new().build_hasher().finish() % 1000;
    whole / 2 + whole.mul_f64(f64::from(u32::try_from(random).unwrap_or(0)) / 2000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_whole_line_is_taken() {
        for (case, buffered, line, rest) in [
            ("nothing whole", "abc", None, "abc"),
            ("one", "abc\n", Some("abc"), ""),
            ("one and a part", "abc\nde", Some("abc"), "de"),
            ("several and a part", "a\nbb\nccc\ndd", Some("ccc"), "dd"),
            ("an empty one", "\n", Some(""), ""),
        ] {
            let mut buffer = buffered.as_bytes().to_vec();
            let taken = last_line(&mut buffer).map(|l| String::from_utf8(l).unwrap());
            assert_eq!((taken.as_deref(), std::str::from_utf8(&buffer).unwrap()), (line, rest), "{case}");
        }
    }

    #[test]
    fn pauses_grow_to_their_bound_and_vary() {
        assert_eq!(pause(0), Duration::ZERO);
        for (failures, most) in [(1, 100), (2, 200), (4, 800), (5, 1000), (u32::MAX, 1000)] {
            let most = Duration::from_millis(most);
            for _ in 0..50 {
                let pause = pause(failures);
                assert!(pause >= most / 2 && pause <= most, "{failures}: {pause:?}");
            }
        }
        let different: std::collections::HashSet<_> = (0..50).map(|_| pause(5)).collect();
        assert!(different.len() > 10);
    }
}
