//! The instance API over mutual TLS: orders and questions from the operator only, evidence for everybody with a certificate. I/O.

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use futures::StreamExt;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use understudy_link::evidence::Publisher;
use understudy_link::names;
use understudy_link::server::{Peer, operator_only};
use understudy_wire::order::{
    ADDRESSEE, Build, DrillOrder, FenceOrder, Follow, HealOrder, Origin, Peers, Promote, Refusal, Struck,
};
use understudy_wire::stacks::Stacks;

use crate::build::Plan;
use crate::config::Config;
use crate::contact::{HELLO, Hello, OperatorStreams};
use crate::drill::Drills;
use crate::facts::{Life, Shared};
use crate::fence::{Body as Mysqld, stacks_of};
use crate::orders::{Desk, Done, Work};

/// Orders are small.
const MAX_ORDER: usize = 256 * 1024;
/// Twice this is the longest that an answer takes; whoever asks waits a second.
const STACKS_WITHIN: Duration = Duration::from_millis(400);

/// What the routes need.
#[derive(Clone)]
pub struct Api {
    /// What is known.
    pub shared: Arc<Shared>,
    /// The pod's settings.
    pub config: Arc<Config>,
    /// Takes orders for the server.
    pub desk: Desk,
    /// Takes the order to fill the volume.
    pub builds: mpsc::Sender<Plan>,
    /// Takes the orders of drills.
    pub drills: Drills,
    /// mysqld's process.
    pub body: Arc<dyn Mysqld>,
    /// The operator's open streams.
    pub streams: OperatorStreams,
}

/// All routes.
pub fn routes(api: Api, evidence: Publisher) -> Router {
    let evidence = evidence.routes().layer(axum::middleware::from_fn_with_state(api.streams.clone(), count_operator));
    let orders = Router::new()
        .route("/v1/build", post(build))
        .route("/v1/follow", post(follow))
        .route("/v1/promote", post(promote))
        .route("/v1/fence", post(fence))
        .route("/v1/drill", post(drill))
        .route("/v1/heal", post(heal))
        .route("/v1/peers", put(peers))
        .route("/v1/stacks", get(stacks))
        .layer(DefaultBodyLimit::max(MAX_ORDER))
        .layer(axum::middleware::from_fn_with_state(api.shared.clone(), mine_only))
        .layer(axum::middleware::from_fn(operator_only))
        .with_state(api.clone());
    Router::new().route(HELLO, get(hello)).with_state(api).merge(evidence).merge(orders)
}

/// Lets only orders and questions through that are for this replica: the address that somebody dials may have been another's.
async fn mine_only(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let addressee = request.headers().get(ADDRESSEE).map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned());
    match addressee {
        Some(name) if name == shared.me.as_str() => next.run(request).await,
        Some(name) => {
            Refused(Refusal::NotMine { reason: format!("{name} is meant, this is {}", shared.me) }).into_response()
        }
        None => {
            let words = format!("whom it is for is missing: set the header {ADDRESSEE} to the name of the replica");
            (StatusCode::BAD_REQUEST, words).into_response()
        }
    }
}

/// A refusal as an answer: 409 with the refusal as its body.
struct Refused(Refusal);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (StatusCode::CONFLICT, Json(self.0)).into_response()
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

/// An order as JSON; what is none is refused with 400 and the reason.
struct Order<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Order<T> {
    type Rejection = (StatusCode, String);

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let parsed = Json::<T>::from_request(request, state).await;
        parsed.map(|Json(order)| Self(order)).map_err(|e: JsonRejection| (StatusCode::BAD_REQUEST, e.body_text()))
    }
}

type Answer<T> = Result<Json<T>, Refused>;

async fn hello(State(api): State<Api>) -> Json<Hello> {
    Json(api.shared.read(|facts| Hello::of(&api.shared.me, &api.config.shard_uid, facts)))
}

async fn build(State(api): State<Api>, Order(order): Order<Build>) -> Answer<()> {
    let not_mine = |reason: String| Refused(Refusal::NotMine { reason });
    if order.replica != api.shared.me {
        return Err(not_mine(format!("the order is for {}", order.replica)));
    }
    let plan = match order.origin {
        Origin::Initialise { intent } => {
            if intent.replica != api.shared.me || intent.shard_uid != api.config.shard_uid {
                return Err(not_mine(format!(
                    "the intent is for {} of the shard with UID {}",
                    intent.replica, intent.shard_uid
                )));
            }
            Plan::Initialise
        }
        Origin::Clone { donor, address } => {
            let address: SocketAddr = address.parse().map_err(|_| not_mine(format!("{address:?} is no ip:port")))?;
            Plan::Clone { donor, address }
        }
    };
    api.desk.learn(order.epoch)?;
    let starts = api.shared.update(|facts| match &facts.life {
        Life::Empty if !facts.stopping => {
            facts.life = Life::Building;
            Ok(true)
        }
        Life::Building | Life::Starting | Life::Running => Ok(false),
        Life::Unusable(reason) => Err(Refusal::WrongPhase { reason: reason.clone() }),
        life => Err(Refusal::WrongPhase { reason: format!("the volume cannot be filled now: {life:?}") }),
    })?;
    if starts && api.builds.try_send(plan).is_err() {
        api.shared.update(|facts| facts.life = Life::Empty);
        return Err(Refused(Refusal::Failed {
            step: "build".to_owned(),
            reason: "the last build is still ending".to_owned(),
        }));
    }
    Ok(Json(()))
}

async fn follow(State(api): State<Api>, Order(order): Order<Follow>) -> Answer<()> {
    submit(&api, Work::Follow(order), |done| matches!(done, Done::Followed).then_some(())).await
}

async fn promote(State(api): State<Api>, Order(order): Order<Promote>) -> Answer<understudy_wire::order::Promoted> {
    let promoted = |done| if let Done::Promoted(promoted) = done { Some(promoted) } else { None };
    submit(&api, Work::Promote(order), promoted).await
}

async fn fence(State(api): State<Api>, Order(order): Order<FenceOrder>) -> Answer<understudy_wire::order::Fenced> {
    let fenced = |done| if let Done::Fenced(fenced) = done { Some(fenced) } else { None };
    submit(&api, Work::Fence(order), fenced).await
}

async fn submit<T>(api: &Api, work: Work, answer: impl FnOnce(Done) -> Option<T>) -> Answer<T> {
    // On a task of its own: the order is carried out even when the one who gave it goes away.
    let desk = api.desk.clone();
    let failed = |reason: &str| Refused(Refusal::Failed { step: "order".to_owned(), reason: reason.to_owned() });
    let done =
        tokio::spawn(async move { desk.submit(work).await }).await.map_err(|_| failed("the manager is stopping"))??;
    answer(done).map(Json).ok_or_else(|| failed("another order was carried out in its place"))
}

async fn drill(State(api): State<Api>, Order(order): Order<DrillOrder>) -> Answer<Struck> {
    // On a task of its own: a run that has begun is remembered even when the one who ordered it goes away.
    let failed = || Refused(Refusal::Failed { step: "drill".to_owned(), reason: "the manager is stopping".to_owned() });
    let struck = tokio::spawn(async move { api.drills.strike(&order).await }).await.map_err(|_| failed())?;
    Ok(Json(struck?))
}

async fn heal(State(api): State<Api>, Order(order): Order<HealOrder>) -> Answer<()> {
    api.drills.heal(&order).await?;
    Ok(Json(()))
}

async fn peers(State(api): State<Api>, Order(order): Order<Peers>) -> Answer<()> {
    api.desk.learn(order.epoch)?;
    let primary_is_me = order.primary.as_ref().is_some_and(|(name, _)| *name == api.shared.me);
    let epoch = order.epoch;
    let serving = api.shared.update(|facts| {
        facts.peers = Some(order);
        facts.serving(&api.shared.me)
    });
    api.shared.tell();
    if !primary_is_me && serving.is_some_and(|serving| serving < epoch) {
        api.desk.submit(Work::Superseded(epoch)).await?;
    }
    Ok(Json(()))
}

async fn stacks(State(api): State<Api>) -> Result<Json<Stacks>, StatusCode> {
    stacks_of(&api.body, STACKS_WITHIN).await.map(Json).ok_or(StatusCode::GATEWAY_TIMEOUT)
}

/// Counts a stream of the operator for as long as its body lives.
async fn count_operator(State(streams): State<OperatorStreams>, peer: Peer, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    if !peer.is(names::OPERATOR) {
        return response;
    }
    let open = streams.open();
    let (parts, body) = response.into_parts();
    let lines = body.into_data_stream().inspect(move |_| {
        // Moves the count into the body, which ends with the connection.
        let _open = &open;
    });
    Response::from_parts(parts, Body::from_stream(lines))
}
