//! An axum router over mutual TLS: connection cap, handshake deadline, graceful end within a bound. I/O.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::issue::Facts;
use crate::names;
use crate::tls::Identity;

/// Bounds of one server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; one more is closed at once.
    pub connections: usize,
    /// From accept to the end of the TLS handshake.
    pub handshake: Duration,
    /// How long a request's head may take to arrive.
    pub head: Duration,
    /// How long data may stay unacknowledged by the peer before the connection is dropped.
    pub unacknowledged: Duration,
    /// How long requests in flight may go on after the order to stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            handshake: Duration::from_secs(2),
            head: Duration::from_secs(5),
            unacknowledged: Duration::from_secs(3),
            drain: Duration::from_secs(2),
        }
    }
}

/// The names that the peer's certificate carries; an extension of every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer(Arc<[String]>);

impl Peer {
    /// Whether the peer's certificate carries this name.
    pub fn is(&self, name: &str) -> bool {
        self.0.iter().any(|own| own == name)
    }

    /// Every DNS name of the peer's certificate.
    pub fn names(&self) -> &[String] {
        &self.0
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Peer {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        parts.extensions.get::<Self>().cloned().ok_or(StatusCode::UNAUTHORIZED)
    }
}

/// Middleware that lets only the operator through (403 otherwise): `axum::middleware::from_fn(operator_only)`.
pub async fn operator_only(peer: Peer, request: Request, next: Next) -> Response {
    if peer.is(names::OPERATOR) {
        return next.run(request).await;
    }
    tracing::warn!(peer = ?peer.names(), path = request.uri().path(), "order from a peer that is not the operator refused");
    (StatusCode::FORBIDDEN, "only the operator may give orders").into_response()
}

/// Serves until stopped; returns when every connection is closed, at the latest [`Limits::drain`] after the stop.
pub async fn serve(listener: TcpListener, identity: Identity, router: Router, limits: Limits, stop: CancellationToken) {
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    let slots = Arc::new(Semaphore::new(limits.connections));
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(e) => {
                // Out of file descriptors, mostly; the pause keeps this from spinning until one is free.
                tracing::warn!(error = %e, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            tracing::warn!(limit = limits.connections, "too many connections, one closed");
            continue;
        };
        let (identity, router, stop, cut) = (identity.clone(), router.clone(), stop.clone(), cut.clone());
        connections.spawn(async move {
            cut.run_until_cancelled(serve_one(socket, slot, identity, router, limits, stop)).await;
        });
    }
    connections.close();
    if tokio::time::timeout(limits.drain, connections.wait()).await.is_err() {
        cut.cancel();
        connections.wait().await;
    }
}

async fn serve_one(
    socket: TcpStream,
    slot: OwnedSemaphorePermit,
    identity: Identity,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) {
    let _slot = slot;
    let from = socket.peer_addr().map(|a| a.to_string()).unwrap_or_default();
    if let Err(e) = prepare(&socket, limits.unacknowledged) {
        tracing::debug!(%from, error = %e, "socket options not set");
    }
    let handshake = TlsAcceptor::from(identity.server()).accept(socket);
    let tls = match tokio::time::timeout(limits.handshake, handshake).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(e)) => return tracing::debug!(%from, error = %e, "TLS handshake failed"),
        Err(_) => return tracing::debug!(%from, "TLS handshake not done within its deadline"),
    };
    let names = tls.get_ref().1.peer_certificates().and_then(<[_]>::first).map(|leaf| Facts::of_der(leaf));
    let peer = match names {
        Some(Ok(facts)) => Peer(facts.names.into()),
        Some(Err(e)) => return tracing::warn!(%from, error = %e, "peer certificate not readable"),
        None => return tracing::warn!(%from, "peer without a certificate"),
    };
    let service = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer.clone());
        router.clone().oneshot(request.map(Body::new))
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.head);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(32).max_header_list_size(16 * 1024);
    let connection = builder.serve_connection(TokioIo::new(tls), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = ended {
        tracing::debug!(%from, error = %e, "connection ended");
    }
}

fn prepare(socket: &TcpStream, unacknowledged: Duration) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let millis = u32::try_from(unacknowledged.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(socket, millis)?;
    Ok(())
}
