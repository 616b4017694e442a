//! Orders to managers: each on a task of its own with a deadline, so that a hung one delays nobody. I/O.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::sync::{Notify, mpsc};
use tokio_util::task::TaskTracker;
use understudy_decide::failover::snapshot::{OrderOutcome, Thresholds};
use understudy_decide::{Order, OrderKind};
use understudy_link::Identity;
use understudy_link::client::{CallError, Client, Endpoint};
use understudy_wire::ReplicaName;
use understudy_wire::order::{Fenced, Promoted};

use super::memory::Answer;

/// Answers that may wait for the stage; there are never more orders under way.
const ANSWERS: usize = 256;
/// What is taken note of at once.
const NOTE: Duration = Duration::from_secs(2);
/// What needs a few statements of the server.
const WORK: Duration = Duration::from_secs(8);
/// What the answer of a promotion may take beyond its own bound.
const SLACK: Duration = Duration::from_millis(500);

/// Sends orders and collects their answers.
pub struct Orders {
    identity: Identity,
    clients: HashMap<ReplicaName, Arc<Client>>,
    answers: mpsc::Receiver<Answer>,
    answering: mpsc::Sender<Answer>,
    news: Arc<Notify>,
    tasks: TaskTracker,
}

impl Orders {
    /// Nothing sent yet. `news` is told of each answer.
    pub fn new(identity: Identity, news: Arc<Notify>, tasks: TaskTracker) -> Self {
        let (answering, answers) = mpsc::channel(ANSWERS);
        Self { identity, clients: HashMap::new(), answers, answering, news, tasks }
    }

    /// Answers that have come since.
    pub fn answered(&mut self) -> Vec<Answer> {
        let mut all = Vec::new();
        while let Ok(answer) = self.answers.try_recv() {
            all.push(answer);
        }
        all
    }

    /// Forgets replicas that are no more.
    pub fn forget(&mut self, keep: impl Fn(&ReplicaName) -> bool) {
        self.clients.retain(|replica, _| keep(replica));
    }

    /// Sends an order on its way. `session` is the connection on which evidence comes now.
    pub fn send(
        &mut self,
        to: Endpoint,
        replica: &ReplicaName,
        order: Order,
        number: u64,
        session: Option<u64>,
        t: &Thresholds,
    ) {
        let identity = &self.identity;
        let client = match self.clients.get(replica).filter(|client| *client.endpoint() == to) {
            Some(client) => client.clone(),
            None => {
                let client = Arc::new(Client::new(to, identity.clone()));
                self.clients.insert(replica.clone(), client.clone());
                client
            }
        };
        let within = deadline(&order, t);
        let (answering, news, replica) = (self.answering.clone(), self.news.clone(), replica.clone());
        self.tasks.spawn(async move {
            let kind = order.kind();
            let outcome = match carry_out(&client, &replica, &order, within).await {
                Ok(outcome) => outcome,
                Err(error) => {
                    tracing::warn!(%replica, order = %kind, epoch = %order.epoch(), %error, "order not carried out");
                    OrderOutcome::Failed(error.to_string())
                }
            };
            let peers = match (order, &outcome, session) {
                (Order::Peers(peers), OrderOutcome::Done(_), Some(session)) => Some((peers, session)),
                _ => None,
            };
            // A full queue means that the stage is gone or far behind; the deadline passes there as well.
            if answering.try_send(Answer { replica, kind, number, outcome, peers }).is_ok() {
                news.notify_one();
            }
        });
    }
}

fn deadline(order: &Order, t: &Thresholds) -> Duration {
    match order {
        Order::Promote(promote) => Duration::from_millis(t.promote_within + promote.apply_relay_log_within),
        Order::Fence(fence) if fence.planned => Duration::from_millis(t.switchover_within) + SLACK,
        Order::Fence(_) | Order::Follow(_) => WORK,
        Order::Build(_) | Order::Peers(_) => NOTE,
    }
}

async fn carry_out(
    client: &Client,
    to: &ReplicaName,
    order: &Order,
    within: Duration,
) -> Result<OrderOutcome, CallError> {
    let post = Method::POST;
    Ok(match order {
        Order::Build(build) => {
            client.order::<()>(to, post, "/v1/build", build, within).await?;
            OrderOutcome::Done(None)
        }
        Order::Follow(follow) => {
            client.order::<()>(to, post, "/v1/follow", follow, within).await?;
            OrderOutcome::Done(None)
        }
        Order::Peers(peers) => {
            client.order::<()>(to, Method::PUT, "/v1/peers", peers, within).await?;
            OrderOutcome::Done(None)
        }
        Order::Promote(promote) => {
            let promoted: Promoted = client.order(to, post, "/v1/promote", promote, within).await?;
            OrderOutcome::Done(Some(promoted.executed))
        }
        Order::Fence(fence) => {
            let fenced: Fenced = client.order(to, post, "/v1/fence", fence, within).await?;
            OrderOutcome::Done(fenced.executed)
        }
    })
}

/// Whether an order is worth a line in the log each time.
pub fn is_news(kind: OrderKind) -> bool {
    match kind {
        OrderKind::Promote | OrderKind::Fence | OrderKind::Build | OrderKind::Follow => true,
        OrderKind::Peers => false,
    }
}
