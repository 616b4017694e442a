//! Over loopback with real TLS: whom a manager answers.

use std::time::SystemTime;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use understudy_link::issue::LEAF_LIFETIME;
use understudy_link::server::{self, Limits};
use understudy_link::{Authority, CallError, Client, Endpoint, Identity};
use understudy_mysql::fake::Fake;
use understudy_wire::ReplicaName;

use super::*;
use crate::child::Reaper;
use crate::config::tests::sample;
use crate::host::Host;
use crate::orders;
use crate::volume::Watch;

const SOON: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_manager_tells_what_threads_do_to_the_operator_when_that_means_its_own_replica_and_to_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let config = Arc::new(sample(dir.path()));
    let shared = Arc::new(Shared::new(config.replica.clone()));
    let host = Arc::new(Host::new(config.clone(), shared.clone(), Reaper::default(), TaskTracker::new()));
    let mysql = Arc::new(Fake::new());
    let (desk, _worker) = orders::open(shared.clone(), config.clone(), Watch::default(), mysql.clone(), host.clone());
    let (builds, _plans) = mpsc::channel(1);
    let api = Api {
        shared: shared.clone(),
        config: config.clone(),
        desk,
        builds,
        drills: Drills::new(shared.clone(), config.clone(), host.clone(), mysql),
        body: host,
        streams: OperatorStreams::default(),
    };
    let stop = CancellationToken::new();
    let (told, news) = (shared.clone(), shared.news());
    let evidence = Publisher::new(move || told.report(), news, stop.clone());

    let authority = Authority::generate("test", SystemTime::now()).unwrap();
    let identity =
        |name: &str| Identity::from_pem(authority.issue(&[name], SystemTime::now(), LEAF_LIFETIME).unwrap()).unwrap();
    let name = names::shard(&config.shard);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint { address: listener.local_addr().unwrap(), name: name.clone() };
    let serving = server::serve(listener, identity(&name), routes(api, evidence), Limits::default(), stop.clone());
    let _serving = AbortOnDropHandle::new(tokio::spawn(serving));

    let operator = Client::new(endpoint.clone(), identity(names::OPERATOR));
    let asked = |replica: &str| {
        let (replica, operator) = (ReplicaName::new(replica), &operator);
        async move { operator.ask::<Stacks>(&replica, "/v1/stacks", SOON).await }
    };
    assert_eq!(asked(config.replica.as_str()).await.unwrap(), Stacks::default(), "nothing runs there");
    let refused = asked("metrics-0-q9mm").await.unwrap_err();
    assert!(matches!(refused.refusal(), Some(Refusal::NotMine { .. })), "it was at this address before: {refused}");
    let refused = operator.get("/v1/stacks", SOON).await.unwrap_err();
    assert!(matches!(refused, CallError::Status { status: StatusCode::BAD_REQUEST, .. }), "nobody is meant: {refused}");

    let consumer = Client::new(endpoint, identity(&names::consumer("metrics")));
    let refused = consumer.ask::<Stacks>(&config.replica, "/v1/stacks", SOON).await.unwrap_err();
    assert!(matches!(refused, CallError::Status { status: StatusCode::FORBIDDEN, .. }), "{refused}");
}
