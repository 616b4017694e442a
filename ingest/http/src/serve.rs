//! Listening, connections and their limits, and stopping without cutting anybody off. I/O.
//!
//! HTTP/1.1 only: neither remote write, remote read nor a scrape needs more, and every further protocol has its own ways
//! to be attacked.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::sending::Sending;

/// The most bytes of headers.
const HEADER_BYTES: usize = 32 * 1024;
/// The most headers.
const HEADERS: usize = 64;
/// How long headers may take where nobody says otherwise.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an answer may take to be read where nobody says otherwise.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// How connections are treated.
#[derive(Clone, Debug)]
pub struct Connections {
    /// The most at once; further ones wait in the kernel's queue.
    pub most: usize,
    /// How long headers may take, and how long an idle connection stays.
    pub header_timeout: Duration,
    /// How long the other side may take to read an answer, from when it first has to wait for that; then it is cut off.
    pub send_timeout: Duration,
    /// How long requests may go on after the stop.
    pub drain_timeout: Duration,
}

impl Connections {
    /// Those of an admin port: a kubelet, a scraper and a few people ask there, for what is answered at once.
    pub fn of_admin() -> Self {
        Self {
            most: 64,
            header_timeout: HEADER_TIMEOUT,
            send_timeout: SEND_TIMEOUT,
            drain_timeout: Duration::from_secs(1),
        }
    }
}

/// Accepts until `stop` is cancelled, then lets the requests under way end, within their time. `open` counts connections.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    connections: Connections,
    open: Gauge,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(connections.most));
    let tasks = TaskTracker::new();
    let abort = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                // Out of file descriptors, most likely: others must end first.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (router, stop, abort, open) = (router.clone(), stop.clone(), abort.clone(), open.clone());
        let header_timeout = connections.header_timeout;
        let stream = Sending::new(stream, connections.send_timeout);
        tasks.spawn(async move {
            open.inc();
            tokio::select! {
                () = abort.cancelled() => {}
                () = connection(stream, router, header_timeout, stop) => {}
            }
            open.dec();
            drop(place);
        });
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(connections.drain_timeout, tasks.wait()).await.is_err() {
        tracing::warn!(left = tasks.len(), "connections did not end in time and are cut");
        abort.cancel();
        tasks.wait().await;
    }
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, place))
}

async fn connection(stream: Sending<TcpStream>, router: Router, header_timeout: Duration, stop: CancellationToken) {
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(HEADER_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        // A client that went away or spoke nonsense: its business, and common.
        tracing::debug!(%error, "a connection ended early");
    }
}
