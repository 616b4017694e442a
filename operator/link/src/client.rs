//! Calls with a deadline over one persistent HTTP/2 connection. I/O.
//!
//! The connection is made when first needed, and dropped when a call on it fails or runs out of time: the next call
//! starts on a fresh one instead of waiting behind whatever held the last.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode, request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::task::AbortOnDropHandle;
use understudy_wire::ReplicaName;
use understudy_wire::order::{ADDRESSEE, Refusal};

use crate::tls::Identity;

/// The largest answer that is read.
pub const MAX_ANSWER: usize = 8 << 20;

/// Where a peer listens and the name that its certificate must carry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// `ip:port`; never looked up.
    pub address: SocketAddr,
    /// The DNS name that the peer's certificate must carry.
    pub name: String,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, self.address)
    }
}

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No TCP connection.
    #[error("{to} could not be reached: {reason}")]
    Connect {
        /// Whom.
        to: Endpoint,
        /// Why.
        reason: String,
    },
    /// The peer is not who it should be, or does not accept us.
    #[error("TLS with {to} failed: {reason}")]
    Tls {
        /// With whom.
        to: Endpoint,
        /// Why.
        reason: String,
    },
    /// No answer in time. Whether the peer acted is unknown; orders are idempotent, so it may be asked again.
    #[error("{to} did not answer {path} within {within:?}")]
    Deadline {
        /// Who.
        to: Endpoint,
        /// What was asked.
        path: String,
        /// How long was waited.
        within: Duration,
    },
    /// The connection broke. Whether the peer acted is unknown.
    #[error("connection with {to} broke: {reason}")]
    Broken {
        /// With whom.
        to: Endpoint,
        /// Why.
        reason: String,
    },
    /// The manager refused the order (HTTP 409).
    #[error("{to} refused: {refusal}")]
    Refused {
        /// Who.
        to: Endpoint,
        /// Why.
        refusal: Refusal,
    },
    /// Any other status.
    #[error("{to} answered {status} to {path}: {body}")]
    Status {
        /// Who.
        to: Endpoint,
        /// What was asked.
        path: String,
        /// The HTTP status.
        status: StatusCode,
        /// The first 500 bytes of the body.
        body: String,
    },
    /// The body could not be written or read as JSON.
    #[error("{what} of {path} is not what it should be: {reason}")]
    Body {
        /// Which.
        what: &'static str,
        /// What was asked.
        path: String,
        /// Why.
        reason: String,
    },
}

impl CallError {
    /// The refusal, where there is one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal),
            _ => None,
        }
    }
}

type Sender = http2::SendRequest<Full<Bytes>>;

struct Connection {
    sender: Sender,
    /// Ends with this client.
    _driver: AbortOnDropHandle<()>,
}

/// One peer, with the connection to it. Calls may run at the same time.
pub struct Client {
    to: Endpoint,
    identity: Identity,
    connection: Mutex<Option<Arc<Connection>>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("to", &self.to).finish_non_exhaustive()
    }
}

impl Client {
    /// Nothing is connected before the first call.
    pub fn new(to: Endpoint, identity: Identity) -> Self {
        Self { to, identity, connection: Mutex::new(None) }
    }

    /// The peer.
    pub fn endpoint(&self) -> &Endpoint {
        &self.to
    }

    /// Sends JSON to a replica's manager, reads JSON. `within` covers everything, the connection too. `POST` for orders, `PUT` for `/v1/peers`.
    ///
    /// The order says whom it is for ([`ADDRESSEE`]): the certificate names only the shard, and addresses change hands.
    pub async fn order<A: DeserializeOwned>(
        &self,
        replica: &ReplicaName,
        method: Method,
        path: &str,
        body: &impl Serialize,
        within: Duration,
    ) -> Result<A, CallError> {
        let body = serde_json::to_vec(body).map_err(|e| bad_body("request", path, &e))?;
        let request = self.request(method, path).header(ADDRESSEE, replica.as_str());
        let answer = self.call(request, path, body.into(), within).await?;
        serde_json::from_slice(&answer).map_err(|e| bad_body("answer", path, &e))
    }

    /// Asks a replica's manager for what only that one can tell, reads JSON. The question says whom it is for, as an order does.
    pub async fn ask<A: DeserializeOwned>(
        &self,
        replica: &ReplicaName,
        path: &str,
        within: Duration,
    ) -> Result<A, CallError> {
        let request = self.request(Method::GET, path).header(ADDRESSEE, replica.as_str());
        let answer = self.call(request, path, Bytes::new(), within).await?;
        serde_json::from_slice(&answer).map_err(|e| bad_body("answer", path, &e))
    }

    /// Reads a body as it is.
    pub async fn get(&self, path: &str, within: Duration) -> Result<Bytes, CallError> {
        self.call(self.request(Method::GET, path), path, Bytes::new(), within).await
    }

    fn request(&self, method: Method, path: &str) -> request::Builder {
        let uri = format!("https://{}{path}", self.to.name);
        Request::builder().method(method).uri(uri).header(CONTENT_TYPE, "application/json")
    }

    async fn call(
        &self,
        request: request::Builder,
        path: &str,
        body: Bytes,
        within: Duration,
    ) -> Result<Bytes, CallError> {
        let mut used = None;
        let outcome = match tokio::time::timeout(within, self.exchange(request, path, body, &mut used)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(CallError::Deadline { to: self.to.clone(), path: path.to_owned(), within }),
        };
        if let (Err(CallError::Deadline { .. } | CallError::Broken { .. }), Some(used)) = (&outcome, used) {
            let mut connection = self.connection.lock().await;
            if connection.as_ref().is_some_and(|present| Arc::ptr_eq(present, &used)) {
                *connection = None;
            }
        }
        outcome
    }

    async fn exchange(
        &self,
        request: request::Builder,
        path: &str,
        body: Bytes,
        used: &mut Option<Arc<Connection>>,
    ) -> Result<Bytes, CallError> {
        let broken = |e: &dyn fmt::Display| CallError::Broken { to: self.to.clone(), reason: e.to_string() };
        let connection = self.connected().await?;
        *used = Some(connection.clone());
        let request = request.body(Full::new(body)).map_err(|e| bad_body("request", path, &e))?;
        let answer = connection.sender.clone().send_request(request).await.map_err(|e| broken(&e))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|e| broken(&e))?.to_bytes();
        match status {
            StatusCode::OK | StatusCode::ACCEPTED => Ok(body),
            StatusCode::CONFLICT => {
                let refusal = serde_json::from_slice(&body).map_err(|e| bad_body("refusal", path, &e))?;
                Err(CallError::Refused { to: self.to.clone(), refusal })
            }
            status => {
                let body = String::from_utf8_lossy(&body[..body.len().min(500)]).into_owned();
                Err(CallError::Status { to: self.to.clone(), path: path.to_owned(), status, body })
            }
        }
    }

    async fn connected(&self) -> Result<Arc<Connection>, CallError> {
        let mut present = self.connection.lock().await;
        if let Some(connection) = present.as_ref().filter(|c| !c.sender.is_closed()) {
            return Ok(connection.clone());
        }
        let tls = connect(&self.to, self.identity.client_h2()).await?;
        let (sender, driver) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(2))
            .handshake(TokioIo::new(tls))
            .await
            .map_err(|e| CallError::Broken { to: self.to.clone(), reason: e.to_string() })?;
        let to = self.to.clone();
        let driver = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(e) = driver.await {
                tracing::debug!(%to, error = %e, "connection ended");
            }
        }));
        let connection = Arc::new(Connection { sender, _driver: driver });
        *present = Some(connection.clone());
        Ok(connection)
    }
}

/// TCP and TLS; the peer's certificate must carry the endpoint's name. Has no deadline of its own.
pub(crate) async fn connect(to: &Endpoint, config: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, CallError> {
    let tls = |e: &dyn fmt::Display| CallError::Tls { to: to.clone(), reason: e.to_string() };
    let name = ServerName::try_from(to.name.clone()).map_err(|e| tls(&e))?;
    let socket = TcpStream::connect(to.address)
        .await
        .map_err(|e| CallError::Connect { to: to.clone(), reason: e.to_string() })?;
    if let Err(e) = socket.set_nodelay(true) {
        tracing::debug!(%to, error = %e, "socket options not set");
    }
    TlsConnector::from(config).connect(name, socket).await.map_err(|e| tls(&e))
}

/// A GET of an endless body over HTTP/1.1.
pub(crate) fn get_request(to: &Endpoint, path: &str) -> Result<Request<Full<Bytes>>, CallError> {
    Request::builder()
        .uri(path)
        .header(HOST, &to.name)
        .body(Full::new(Bytes::new()))
        .map_err(|e| bad_body("request", path, &e))
}

fn bad_body(what: &'static str, path: &str, reason: &dyn fmt::Display) -> CallError {
    CallError::Body { what, path: path.to_owned(), reason: reason.to_string() }
}
