//! A port on a real socket: what a connection may cost, and how it ends.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use prometheus_client::metrics::gauge::Gauge;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use understudy_http::{Connections, serve};

/// Longer than anything here takes.
const WAIT: Duration = Duration::from_secs(20);
const ASK: &[u8] = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n";

struct Port {
    address: SocketAddr,
    /// Gets a permit for each request that is under way.
    asked: Arc<Semaphore>,
    /// A request is answered when it finds a permit here.
    answers: Arc<Semaphore>,
    open: Gauge,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

impl Port {
    async fn start(connections: Connections) -> Self {
        Self::answering(connections, b"answered").await
    }

    async fn answering(connections: Connections, body: &'static [u8]) -> Self {
        let (asked, answers) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (ask, answer) = (asked.clone(), answers.clone());
        let handler = get(async move || {
            ask.add_permits(1);
            answer.acquire().await.unwrap().forget();
            body
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (open, stop) = (Gauge::default(), CancellationToken::new());
        let serving = serve(listener, Router::new().route("/", handler), connections, open.clone(), stop.clone());
        Self { address, asked, answers, open, stop, served: tokio::spawn(serving) }
    }

    /// A connection whose request is under way.
    async fn ask(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(ASK).await.unwrap();
        timeout(WAIT, self.asked.acquire()).await.expect("the request in time").unwrap().forget();
        stream
    }
}

fn connections() -> Connections {
    Connections { most: 4, header_timeout: WAIT, send_timeout: WAIT, drain_timeout: WAIT }
}

/// All that comes until the other side closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    timeout(WAIT, stream.read_to_string(&mut text)).await.expect("an end in time").unwrap();
    text
}

#[tokio::test]
async fn a_request_under_way_is_answered_after_the_stop_and_then_its_connection_ends() {
    let port = Port::start(connections()).await;
    let mut stream = port.ask().await;
    assert_eq!(port.open.get(), 1);
    port.stop.cancel();
    let refused = async { while TcpStream::connect(port.address).await.is_ok() {} };
    timeout(WAIT, refused).await.expect("no new connection after the stop");
    port.answers.add_permits(1);
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("answered"), "{answer}");
    timeout(WAIT, port.served).await.expect("the end in time").unwrap();
    assert_eq!(port.open.get(), 0);
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut_when_its_time_is_over() {
    let port = Port::start(Connections { drain_timeout: Duration::from_millis(100), ..connections() }).await;
    let mut stream = port.ask().await;
    port.stop.cancel();
    timeout(WAIT, port.served).await.expect("the end in time").unwrap();
    assert_eq!((rest(&mut stream).await.as_str(), port.open.get()), ("", 0));
}

#[tokio::test]
async fn one_connection_too_many_waits_until_another_ends() {
    let port = Port::start(Connections { most: 1, ..connections() }).await;
    let first = port.ask().await;
    let mut second = TcpStream::connect(port.address).await.unwrap();
    second.write_all(ASK).await.unwrap();
    // The first is answered, and stays connected: nobody else is let in.
    port.answers.add_permits(1);
    let mut byte = [0];
    timeout(WAIT, first.peek(&mut byte)).await.expect("an answer in time").unwrap();
    assert_eq!((port.asked.available_permits(), port.open.get()), (0, 1));
    drop(first);
    timeout(WAIT, port.asked.acquire()).await.expect("the second request in time").unwrap().forget();
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_cut_off_and_its_connection_ends() {
    // More than a kernel keeps of it.
    let large: &'static [u8] = vec![b'x'; 64 << 20].leak();
    let connections = Connections { most: 1, send_timeout: Duration::from_millis(100), ..connections() };
    let port = Port::answering(connections, large).await;
    let _first = port.ask().await;
    port.answers.add_permits(1);
    // There is a place for another one only once the first has ended.
    let _second = port.ask().await;
}

#[tokio::test]
async fn headers_that_do_not_come_end_the_connection() {
    let port = Port::start(Connections { header_timeout: Duration::from_millis(100), ..connections() }).await;
    let mut stream = TcpStream::connect(port.address).await.unwrap();
    stream.write_all(&ASK[..20]).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(port.asked.available_permits(), 0);
}
