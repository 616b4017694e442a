//! Link over loopback with real TLS: who is let in, what a stalled peer costs, what a reader makes of a stream.
#![allow(clippy::unwrap_used, reason = "a test file: clippy only sees functions marked as tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use axum::routing::{get, post};
use axum::{Json, Router};
use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use understudy_link::evidence::{Event, LostError, Publisher, Reader};
use understudy_link::issue::LEAF_LIFETIME;
use understudy_link::server::{self, Limits, operator_only};
use understudy_link::{Authority, CallError, Client, Endpoint, Identity, names};
use understudy_wire::order::{Fenced, Refusal};
use understudy_wire::{Epoch, Observer, ReplicaName, Report, ShardName};

const SOON: Duration = Duration::from_secs(5);

struct World {
    authority: Authority,
    shard: String,
}

impl World {
    fn new() -> Self {
        let authority = Authority::generate("test", SystemTime::now()).unwrap();
        Self { authority, shard: names::shard(&ShardName::new("metrics-0")) }
    }

    fn identity(&self, name: &str) -> Identity {
        Identity::from_pem(self.authority.issue(&[name], SystemTime::now(), LEAF_LIFETIME).unwrap()).unwrap()
    }
}

struct Server {
    endpoint: Endpoint,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

async fn start(world: &World, router: Router, limits: Limits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint { address: listener.local_addr().unwrap(), name: world.shard.clone() };
    let stop = CancellationToken::new();
    let task = tokio::spawn(server::serve(listener, world.identity(&world.shard), router, limits, stop.clone()));
    Server { endpoint, stop, task: AbortOnDropHandle::new(task) }
}

fn orders() -> Router {
    let refuse = || async {
        let refusal = Refusal::StaleEpoch { given: Epoch(3), known: Epoch(4) };
        (StatusCode::CONFLICT, Json(refusal))
    };
    Router::new()
        .route("/v1/fence", post(|| async { Json(Fenced { executed: None, killed: true }) }))
        .route("/v1/refuse", post(refuse))
        .route("/v1/hang", post(std::future::pending::<()>))
        .layer(axum::middleware::from_fn(operator_only))
        .route("/v1/open", get(|| async { "hello" }))
}

fn replica() -> ReplicaName {
    ReplicaName::new("metrics-0-k7x2")
}

async fn fence(client: &Client) -> Result<Fenced, CallError> {
    client.order(&replica(), Method::POST, "/v1/fence", &(), SOON).await
}

#[tokio::test]
async fn the_operator_gives_an_order_and_gets_its_answer() {
    let world = World::new();
    let server = start(&world, orders(), Limits::default()).await;
    let client = Client::new(server.endpoint.clone(), world.identity(names::OPERATOR));
    assert_eq!(fence(&client).await.unwrap(), Fenced { executed: None, killed: true });
    assert_eq!(&client.get("/v1/open", SOON).await.unwrap()[..], b"hello");
}

#[tokio::test]
async fn a_refusal_comes_back_as_what_it_is() {
    let world = World::new();
    let server = start(&world, orders(), Limits::default()).await;
    let client = Client::new(server.endpoint.clone(), world.identity(names::OPERATOR));
    let error = client.order::<Fenced>(&replica(), Method::POST, "/v1/refuse", &(), SOON).await.unwrap_err();
    assert_eq!(error.refusal(), Some(&Refusal::StaleEpoch { given: Epoch(3), known: Epoch(4) }));
}

#[tokio::test]
async fn a_peer_that_is_not_the_operator_may_read_and_not_order() {
    let world = World::new();
    let server = start(&world, orders(), Limits::default()).await;
    let consumer = Client::new(server.endpoint.clone(), world.identity(&names::consumer("metrics")));
    assert!(matches!(fence(&consumer).await, Err(CallError::Status { status: StatusCode::FORBIDDEN, .. })));
    assert_eq!(&consumer.get("/v1/open", SOON).await.unwrap()[..], b"hello");
}

#[tokio::test]
async fn a_client_of_another_authority_is_refused() {
    let world = World::new();
    let server = start(&world, orders(), Limits::default()).await;
    // It trusts the right authority, so that only the server's refusal of it can fail the call.
    let mut pem = World::new().authority.issue(&[names::OPERATOR], SystemTime::now(), LEAF_LIFETIME).unwrap();
    pem.ca = world.authority.cert().to_owned();
    let stranger = Client::new(server.endpoint.clone(), Identity::from_pem(pem).unwrap());
    let error = fence(&stranger).await.unwrap_err();
    assert!(matches!(error, CallError::Tls { .. } | CallError::Broken { .. }), "{error}");
}

#[tokio::test]
async fn a_server_of_another_authority_or_name_is_refused() {
    let world = World::new();
    let server = start(&world, orders(), Limits::default()).await;
    let stranger = World::new().identity(names::OPERATOR);
    let error = fence(&Client::new(server.endpoint.clone(), stranger)).await.unwrap_err();
    assert!(matches!(error, CallError::Tls { .. }), "{error}");

    let other_shard = Endpoint { name: names::shard(&ShardName::new("metrics-1")), ..server.endpoint.clone() };
    let error = fence(&Client::new(other_shard, world.identity(names::OPERATOR))).await.unwrap_err();
    assert!(matches!(error, CallError::Tls { .. }), "{error}");
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let world = World::new();
    let server = start(&world, orders(), Limits::default()).await;
    let long_ago = SystemTime::now() - 2 * LEAF_LIFETIME;
    let pem = world.authority.issue(&[names::OPERATOR], long_ago, LEAF_LIFETIME).unwrap();
    let error = fence(&Client::new(server.endpoint.clone(), Identity::from_pem(pem).unwrap())).await.unwrap_err();
    assert!(matches!(error, CallError::Tls { .. } | CallError::Broken { .. }), "{error}");
}

#[tokio::test]
async fn a_stalled_peer_costs_the_deadline_and_not_the_next_call() {
    let world = World::new();
    let server = start(&world, orders(), Limits::default()).await;
    let client = Client::new(server.endpoint.clone(), world.identity(names::OPERATOR));
    let begun = Instant::now();
    let within = Duration::from_millis(200);
    let error = client.order::<Fenced>(&replica(), Method::POST, "/v1/hang", &(), within).await.unwrap_err();
    assert!(matches!(error, CallError::Deadline { .. }), "{error}");
    assert!(begun.elapsed() >= within && begun.elapsed() < SOON);
    fence(&client).await.unwrap();
}

#[tokio::test]
async fn a_peer_that_accepts_and_never_speaks_costs_the_deadline() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint { address: listener.local_addr().unwrap(), name: world.shard.clone() };
    let client = Client::new(endpoint, world.identity(names::OPERATOR));
    let error = client.get("/v1/open", Duration::from_millis(200)).await.unwrap_err();
    assert!(matches!(error, CallError::Deadline { .. }), "{error}");
}

#[tokio::test]
async fn a_call_that_hangs_does_not_hold_another_one_up() {
    let world = World::new();
    let server = start(&world, orders(), Limits::default()).await;
    let client = Arc::new(Client::new(server.endpoint.clone(), world.identity(names::OPERATOR)));
    fence(&client).await.unwrap();
    let hanging = AbortOnDropHandle::new(tokio::spawn({
        let client = client.clone();
        async move { client.order::<Fenced>(&replica(), Method::POST, "/v1/hang", &(), 10 * SOON).await }
    }));
    fence(&client).await.unwrap();
    assert!(!hanging.is_finished());
}

#[tokio::test]
async fn a_client_that_never_shakes_hands_is_dropped_and_its_place_freed() {
    let world = World::new();
    let limits = Limits { connections: 1, handshake: Duration::from_millis(200), ..Limits::default() };
    let server = start(&world, orders(), limits).await;
    let mut mute = TcpStream::connect(server.endpoint.address).await.unwrap();
    let mut nothing = [0];
    let ended = tokio::time::timeout(SOON, mute.read(&mut nothing)).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)));
    let client = Client::new(server.endpoint.clone(), world.identity(names::OPERATOR));
    // The place is free an instant after the mute client sees its connection closed.
    tokio::time::timeout(SOON, async { while fence(&client).await.is_err() {} }).await.unwrap();
}

fn report(seq: u64) -> Report {
    Report {
        observer: Observer::Manager { replica: ReplicaName::new("metrics-0-aaaa") },
        seq,
        own_gap: 0,
        interval: 250,
        evidence: Vec::new(),
        log: Vec::new(),
    }
}

fn publisher(stop: &CancellationToken) -> (Publisher, watch::Sender<u64>) {
    let seq = AtomicU64::new(0);
    let (change, changed) = watch::channel(0);
    (Publisher::new(move || report(seq.fetch_add(1, Ordering::Relaxed)), changed, stop.clone()), change)
}

async fn next_report(reader: &mut Reader) -> Report {
    match tokio::time::timeout(SOON, reader.next()).await.unwrap() {
        Event::Report { report, .. } => *report,
        Event::Lost(lost) => panic!("{lost}"),
    }
}

#[tokio::test]
async fn reports_come_in_time_and_at_once_on_change() {
    let world = World::new();
    let stop = CancellationToken::new();
    let (publisher, change) = publisher(&stop);
    let server = start(&world, publisher.routes(), Limits::default()).await;
    let mut reader = Reader::new(server.endpoint.clone(), world.identity(names::OPERATOR));
    let first = next_report(&mut reader).await;
    let second = next_report(&mut reader).await;
    assert!(second.seq > first.seq);
    change.send_modify(|n| *n += 1);
    let third = next_report(&mut reader).await;
    assert!(third.seq > second.seq);
}

#[tokio::test]
async fn a_reader_comes_back_after_the_server_did() {
    let world = World::new();
    let stop = CancellationToken::new();
    let (publisher, _change) = publisher(&stop);
    let server = start(&world, publisher.clone().routes(), Limits::default()).await;
    let mut reader = Reader::new(server.endpoint.clone(), world.identity(names::OPERATOR));
    next_report(&mut reader).await;

    server.stop.cancel();
    stop.cancel();
    server.task.await.unwrap();
    let lost = loop {
        if let Event::Lost(lost) = reader.next().await {
            break lost;
        }
    };
    assert!(matches!(lost, LostError::Ended { .. }), "{lost}");
    assert!(matches!(reader.next().await, Event::Lost(LostError::Call(CallError::Connect { .. }))));

    let (publisher, _change) = self::publisher(&CancellationToken::new());
    let listener = TcpListener::bind(server.endpoint.address).await.unwrap();
    let serving = server::serve(
        listener,
        world.identity(&world.shard),
        publisher.routes(),
        Limits::default(),
        CancellationToken::new(),
    );
    let _task = AbortOnDropHandle::new(tokio::spawn(serving));
    tokio::time::timeout(SOON, async { while !matches!(reader.next().await, Event::Report { .. }) {} }).await.unwrap();
}

#[tokio::test]
async fn a_stream_that_falls_silent_is_lost_within_its_deadline() {
    let world = World::new();
    let silent = Router::new().route(
        understudy_link::evidence::PATH,
        get(|| async {
            axum::body::Body::from_stream(futures::stream::pending::<Result<bytes::Bytes, std::convert::Infallible>>())
        }),
    );
    let server = start(&world, silent, Limits::default()).await;
    let mut reader = Reader::new(server.endpoint.clone(), world.identity(names::OPERATOR));
    let event = tokio::time::timeout(SOON, reader.next()).await.unwrap();
    assert!(matches!(event, Event::Lost(LostError::Idle(_))), "{event:?}");
}

#[tokio::test]
async fn what_is_no_report_or_never_ends_its_line_is_not_taken() {
    let world = World::new();
    let endless = || async {
        let chunk = bytes::Bytes::from(vec![b'x'; 64 * 1024]);
        let chunks = futures::stream::repeat_with(move || Ok::<_, std::convert::Infallible>(chunk.clone()));
        axum::body::Body::from_stream(chunks)
    };
    for (case, router) in [
        ("no report", Router::new().route(understudy_link::evidence::PATH, get(|| async { "{\"seq\":1}\n" }))),
        ("endless line", Router::new().route(understudy_link::evidence::PATH, get(endless))),
    ] {
        let server = start(&world, router, Limits::default()).await;
        let mut reader = Reader::new(server.endpoint.clone(), world.identity(names::OPERATOR));
        let event = tokio::time::timeout(SOON, reader.next()).await.unwrap();
        assert!(matches!(event, Event::Lost(LostError::Line { .. })), "{case}: {event:?}");
    }
}

#[tokio::test]
async fn a_report_of_an_epoch_that_is_none_is_not_taken() {
    let world = World::new();
    for (case, epoch, taken) in [("the highest", Epoch::MAX.0, true), ("one more", Epoch::MAX.0 + 1, false)] {
        let line = move || async move {
            let mut line = serde_json::to_value(report(1)).unwrap();
            let server = serde_json::json!({ "phase": { "is": "running" }, "epoch": epoch });
            line["evidence"] = serde_json::json!([{ "subject": "metrics-0-aaaa", "server": server }]);
            format!("{line}\n")
        };
        let router = Router::new().route(understudy_link::evidence::PATH, get(line));
        let server = start(&world, router, Limits::default()).await;
        let mut reader = Reader::new(server.endpoint.clone(), world.identity(names::OPERATOR));
        match tokio::time::timeout(SOON, reader.next()).await.unwrap() {
            Event::Report { report, .. } => assert!(taken && report.highest_epoch() == Epoch(epoch), "{case}"),
            Event::Lost(lost) => assert!(!taken && matches!(lost, LostError::Line { .. }), "{case}: {lost}"),
        }
    }
}

#[tokio::test]
async fn stopping_ends_requests_that_hang_within_the_drain_bound() {
    let world = World::new();
    let limits = Limits { drain: Duration::from_millis(200), ..Limits::default() };
    let server = start(&world, orders(), limits).await;
    let client = Client::new(server.endpoint.clone(), world.identity(names::OPERATOR));
    fence(&client).await.unwrap();
    let to = replica();
    let (hanging, ()) = tokio::join!(client.order::<Fenced>(&to, Method::POST, "/v1/hang", &(), SOON), async {
        server.stop.cancel();
        tokio::time::timeout(SOON, server.task).await.unwrap().unwrap();
    });
    assert!(matches!(hanging, Err(CallError::Broken { .. })), "{hanging:?}");
}

#[tokio::test]
async fn plain_text_to_the_tls_port_is_dropped() {
    let world = World::new();
    let server = start(&world, orders(), Limits::default()).await;
    let mut plain = TcpStream::connect(server.endpoint.address).await.unwrap();
    plain.write_all(b"GET /v1/open HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(SOON, plain.read_to_end(&mut answer)).await.unwrap();
    assert!(ended.is_err() || !answer.starts_with(b"HTTP"), "{answer:?}");
}
