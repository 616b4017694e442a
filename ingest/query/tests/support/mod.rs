//! Servers in memory that answer, keep silent or fail as they are told, and requests to the service over them.
#![allow(dead_code, reason = "each test file that includes this uses a part of it")]

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::watch;
use tower::ServiceExt;
use understudy_api::v1alpha1::{ReplicaSummary, Role as ApiRole, ShardStatus};
use understudy_model::tokens::Tokens;
use understudy_model::{Labels, Sample, Tenant};
use understudy_query::api::{Service, Turns, router};
use understudy_query::ask::Asker;
use understudy_query::budget::{Held, Load};
use understudy_query::limits::Limits;
use understudy_query::metrics::Metrics;
use understudy_query::server::{ServerError, Servers, Session};
use understudy_query::topology::{Server, Topology};
use understudy_query::work::{Found, Results, Standing, Work};
use understudy_store::Freshness;
use understudy_store::read::PartitionFreshness;
use understudy_tenant::TokenDirectory;
use understudy_wire::{Epoch, ShardName};

pub const TOPIC: &str = "samples";

/// What a server in memory does when it is asked.
#[derive(Clone, Debug, Default)]
pub struct FakeServer {
    pub epoch: u64,
    /// How old its data is, and how much of it there is.
    pub behind: Duration,
    pub applied: i64,
    /// Nothing was ever read into it.
    pub is_unread: bool,
    pub data: Vec<(Tenant, Labels, Vec<Sample>)>,
    /// Accepts nothing.
    pub is_down: bool,
    /// Accepts and never says anything.
    pub is_silent: bool,
    /// How long it takes to say where it stands.
    pub takes: Duration,
    /// Says where it stands and nothing afterwards.
    pub hangs_on_work: bool,
    pub refuses_work: Option<ServerError>,
    /// Idle connections to it that it has ended.
    pub ended: usize,
    /// How often it was asked for its standing.
    pub begun: usize,
}

/// All servers, by address.
#[derive(Clone, Default)]
pub struct Fakes {
    pub servers: Arc<Mutex<HashMap<SocketAddr, FakeServer>>>,
    /// The servers there were each time that idle connections were closed.
    pub tidied: Arc<Mutex<Vec<BTreeSet<SocketAddr>>>>,
}

pub struct FakeSession {
    fakes: Fakes,
    address: SocketAddr,
    is_reused: bool,
}

impl Fakes {
    pub fn change(&self, address: &str, change: impl FnOnce(&mut FakeServer)) {
        change(self.servers.lock().unwrap().entry(address.parse().unwrap()).or_default());
    }

    pub fn begun(&self, address: &str) -> usize {
        self.servers.lock().unwrap()[&address.parse().unwrap()].begun
    }

    fn get(&self, address: SocketAddr) -> FakeServer {
        let server = self.servers.lock().unwrap().get(&address).cloned();
        server.unwrap_or(FakeServer { is_down: true, ..FakeServer::default() })
    }
}

#[async_trait]
impl Servers for Fakes {
    type Session = FakeSession;

    async fn connect(&self, _: &ShardName, server: &Server, fresh: bool) -> Result<FakeSession, ServerError> {
        let address = server.address;
        let server = self.get(address);
        if server.is_down {
            return Err(ServerError::Unreachable("refused".into()));
        }
        Ok(FakeSession { fakes: self.clone(), address, is_reused: !fresh && server.ended > 0 })
    }

    async fn give_back(&self, _: FakeSession) {}

    fn tidy(&self, servers: &BTreeSet<SocketAddr>) {
        self.tidied.lock().unwrap().push(servers.clone());
    }
}

#[async_trait]
impl Session for FakeSession {
    fn is_reused(&self) -> bool {
        self.is_reused
    }

    async fn begin(&mut self) -> Result<Standing, ServerError> {
        if self.is_reused {
            return Err(ServerError::Unreachable("the connection was ended".into()));
        }
        self.fakes.change(&self.address.to_string(), |server| server.begun += 1);
        let server = self.fakes.get(self.address);
        if server.is_silent {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(server.takes).await;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let complete_until_ms = (now - server.behind).as_millis() as i64;
        let state = PartitionFreshness { next_offset: server.applied, complete_until_ms, epoch: server.epoch };
        let read = (!server.is_unread).then_some(((TOPIC.to_owned(), 0), state));
        let freshness = Freshness { partitions: read.into_iter().collect() };
        Ok(Standing { epoch: Epoch(server.epoch), freshness })
    }

    async fn run(&mut self, tenant: &Tenant, work: &Work, held: &mut Held) -> Result<Found, ServerError> {
        let server = self.fakes.get(self.address);
        if server.hangs_on_work {
            std::future::pending::<()>().await;
        }
        if let Some(refusal) = server.refuses_work {
            return Err(refusal);
        }
        let samples = server.data.iter().map(|(_, _, samples)| samples.len()).sum();
        held.grow_to(Load { samples, ..Load::default() }.bytes())?;
        let mut found = work.nothing();
        for (_, labels, samples) in server.data.iter().filter(|(owner, _, _)| owner == tenant) {
            match (work, &mut found.results) {
                (Work::Samples(selections), Results::Samples(results)) => {
                    for (selection, result) in selections.iter().zip(results) {
                        let times = selection.times_ms.0..=selection.times_ms.1;
                        let inside = samples.iter().filter(|sample| times.contains(&sample.timestamp_ms)).copied();
                        if selection.matchers.iter().all(|matcher| matcher.accepts(labels)) {
                            result.insert(labels.clone(), inside.collect());
                        }
                    }
                }
                (Work::Series(selectors), Results::Series(series)) => {
                    if selectors.iter().any(|matchers| matchers.iter().all(|matcher| matcher.accepts(labels))) {
                        series.insert(labels.clone());
                    }
                }
                (Work::LabelNames(_), Results::Texts(texts)) => {
                    texts.extend(labels.iter().map(|(name, _)| name.to_owned()));
                }
                (Work::LabelValues(name, _), Results::Texts(texts)) => {
                    texts.extend(labels.get(name).map(str::to_owned));
                }
                _ => unreachable!("results are of the work's kind"),
            }
        }
        Ok(found)
    }
}

/// The token of a tenant: `TENANT.secret`.
pub fn tokens(tenants: &[&str]) -> TokenDirectory {
    use sha2::Digest;
    let mut tokens = Tokens::default();
    for tenant in tenants {
        let hex: String = sha2::Sha256::digest(format!("{tenant}.secret")).iter().map(|b| format!("{b:02x}")).collect();
        tokens.insert(tenant, &format!("{tenant} sha256:{hex}")).unwrap();
    }
    TokenDirectory::fixed(tokens)
}

pub fn tenant(name: &str) -> Tenant {
    Tenant::new(name).unwrap()
}

pub fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

/// A shard's status: primary as (replica, address), standbys likewise.
pub fn status(primary: (&str, &str), epoch: i64, standbys: &[(&str, &str)]) -> ShardStatus {
    let standby = |(name, address): &(&str, &str)| ReplicaSummary {
        name: (*name).into(),
        role: ApiRole::Standby,
        address: Some(address.split(':').next().unwrap().into()),
        ..ReplicaSummary::default()
    };
    ShardStatus {
        primary: Some(primary.0.into()),
        primary_address: Some(primary.1.into()),
        epoch,
        replicas: standbys.iter().map(standby).collect(),
        ..ShardStatus::default()
    }
}

/// The service over some servers.
pub struct Bench {
    pub topology: watch::Sender<Topology>,
    pub router: Router,
    pub metrics: Metrics,
}

impl Bench {
    pub fn new<S: Servers>(servers: S, limits: Limits) -> Self {
        let (topology, known) = watch::channel(Topology { is_complete: true, ..Topology::default() });
        let metrics = Metrics::default();
        let service = Service {
            asker: Asker::new(servers, known, limits.clone(), TOPIC.to_owned(), metrics.clone()),
            tokens: tokens(&["acme", "globex"]),
            limits,
            partitions: 4,
            metrics: metrics.clone(),
            turns: Turns::default(),
        };
        Self { topology, router: router(Arc::new(service)), metrics }
    }

    pub fn shard(&self, name: &str, status: &ShardStatus) {
        self.topology.send_modify(|topology| topology.apply_shard(ShardName::new(name), status));
    }

    pub async fn send(&self, request: Request<Body>) -> (StatusCode, HeaderMap, Vec<u8>) {
        let (parts, body) = self.unread(request).await.into_parts();
        (parts.status, parts.headers, body.collect().await.unwrap().to_bytes().to_vec())
    }

    /// An answer whose body nobody has read.
    pub async fn unread(&self, request: Request<Body>) -> axum::response::Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// A GET, answered in JSON.
    pub async fn get(&self, path: &str) -> (StatusCode, serde_json::Value) {
        let (status, _, body) = self.send(get_request(path)).await;
        (status, serde_json::from_slice(&body).unwrap())
    }

    /// A remote read of everything of one metric, by the tenant `acme`.
    pub async fn read(&self, query: &str, metric: &str) -> (StatusCode, HeaderMap, Vec<u8>) {
        self.read_range(query, metric, (i64::MIN, i64::MAX)).await
    }

    pub async fn read_range(&self, query: &str, metric: &str, range: (i64, i64)) -> (StatusCode, HeaderMap, Vec<u8>) {
        self.send(post_read(query, metric, range)).await
    }
}

/// A GET by the tenant `acme`.
pub fn get_request(path: &str) -> Request<Body> {
    Request::get(path).header("authorization", "Bearer acme.secret").body(Body::empty()).unwrap()
}

/// A remote read by the tenant `acme`.
pub fn post_read(query: &str, metric: &str, range: (i64, i64)) -> Request<Body> {
    let request = Request::post(format!("/api/v1/read{query}")).header("authorization", "Bearer acme.secret");
    let body = read_request(range, metric);
    request.header("content-encoding", "snappy").body(Body::from(body)).unwrap()
}

/// A remote-read request written by hand: field numbers as in Prometheus' remote.proto.
pub fn read_request(range: (i64, i64), metric: &str) -> Vec<u8> {
    let field = |tag: u8, content: &[u8]| [&[tag, content.len() as u8][..], content].concat();
    let varint = |value: i64| {
        let (mut value, mut bytes) = (value as u64, Vec::new());
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    };
    let matcher = [field(0x12, b"__name__"), field(0x1a, metric.as_bytes())].concat();
    let times = [vec![0x08], varint(range.0), vec![0x10], varint(range.1)].concat();
    let query = [times, field(0x1a, &matcher)].concat();
    snap::raw::Encoder::new().compress_vec(&field(0x0a, &query)).unwrap()
}

#[derive(Clone, PartialEq, prost::Message)]
struct Response {
    #[prost(message, repeated, tag = "1")]
    results: Vec<ResponseResult>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResponseResult {
    #[prost(message, repeated, tag = "1")]
    series: Vec<ResponseSeries>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResponseSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<ResponseLabel>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<ResponseSample>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResponseLabel {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct ResponseSample {
    #[prost(fixed64, tag = "1")]
    bits: u64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

/// Each series of an answer as `name{...}`-less text of its labels, with timestamps and bits.
pub fn answer(body: &[u8]) -> Vec<(String, Vec<(i64, u64)>)> {
    use prost::Message;
    let message = snap::raw::Decoder::new().decompress_vec(body).unwrap();
    let response = Response::decode(message.as_slice()).unwrap();
    let series = response.results.into_iter().flat_map(|result| result.series);
    let flat = series.map(|series| {
        let labels: Vec<String> = series.labels.iter().map(|label| format!("{}={}", label.name, label.value)).collect();
        (labels.join(","), series.samples.iter().map(|sample| (sample.timestamp, sample.bits)).collect())
    });
    flat.collect()
}
