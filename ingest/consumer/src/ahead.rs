//! The connection to the next primary, made while the change is under way. I/O, by way of [`Dial`].
//!
//! When an epoch is claimed its target is known, and it takes office a moment later. The time that a connection takes (TCP, TLS, login) would
//! be a part of the gap; so it is made at the claim. It waits, and is used when the route leads to that replica under that epoch. Then
//! everything is asked and checked over it as over any other connection; until then nothing is read or written over it. What leads to a
//! replica that did not become primary is closed.
//!
//! Nobody waits for it: a target that is not there, or a connection that broke, costs the connection that would have been made anyway.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use understudy_sql::Login;

use crate::guard::OwnerId;
use crate::hanging::Hanging;
use crate::route::{Route, Transition};
use crate::session::{Deadlines, Session};

/// How often a connection that waits is looked at; its server closes one that is idle for 3 s.
const LOOK: Duration = Duration::from_secs(1);
/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(500);
/// For how long a connection that is being made is waited for once it is wanted. One that takes longer is not better than a new one.
const PATIENCE: Duration = Duration::from_millis(250);

/// Gives the login of the shard; read for each connection, so that passwords can be changed.
pub type Logins = Arc<dyn Fn() -> Result<Login, String> + Send + Sync>;

/// Makes connections. A consumer's own, or a test's.
#[async_trait]
pub trait Dial: Send + Sync {
    /// A connection.
    type Line: Send;

    /// Makes one, within a deadline.
    async fn open(&self, route: &Route) -> Result<Self::Line, String>;

    /// Asks one for a sign of life, within a deadline.
    async fn look(&self, line: &mut Self::Line) -> Result<(), String>;
}

/// Makes connections of this process to the shard.
pub struct Dialler {
    /// Gives the login.
    pub login: Logins,
    /// This process.
    pub owner: OwnerId,
    /// How long it may take.
    pub deadlines: Deadlines,
    /// What hangs at the server that was dialled last.
    pub hanging: Mutex<Hanging>,
}

#[async_trait]
impl Dial for Dialler {
    type Line = Session;

    async fn open(&self, route: &Route) -> Result<Session, String> {
        let mut hanging = self.hanging.lock().await;
        hanging.about(Some(route));
        hanging.wait(self.deadlines.step, |_| {}).await;
        let login = (self.login)()?;
        let session = Session::open(route, &login, &self.owner, self.deadlines, &mut hanging).await;
        session.map_err(|e| e.to_string())
    }

    async fn look(&self, line: &mut Session) -> Result<(), String> {
        line.look().await.map_err(|e| e.to_string())
    }
}

/// Somebody who follows this route wants the connection.
#[derive(Debug)]
struct Request<L> {
    route: Route,
    /// Dropped when there is none.
    answer: oneshot::Sender<L>,
}

/// Where a connection that was made ahead is asked for.
#[derive(Debug)]
pub struct Ahead<L> {
    requests: mpsc::Sender<Request<L>>,
}

impl<L> Ahead<L> {
    /// The connection that this route leads to, if one was made ahead and is alive. It is given once.
    pub async fn take(&self, route: &Route) -> Option<L> {
        let (answer, answered) = oneshot::channel();
        self.requests.try_send(Request { route: route.clone(), answer }).ok()?;
        timeout(PATIENCE, answered).await.ok()?.ok()
    }
}

/// Makes the connections.
pub struct Keeper<D: Dial> {
    transitions: watch::Receiver<Option<Transition>>,
    routes: watch::Receiver<Option<Route>>,
    requests: mpsc::Receiver<Request<D::Line>>,
    dial: D,
}

/// One who asks, and one who makes. `routes` must be told of a publication before `transitions` is told that the change is over.
pub fn ahead<D: Dial>(
    dial: D,
    transitions: watch::Receiver<Option<Transition>>,
    routes: watch::Receiver<Option<Route>>,
) -> (Ahead<D::Line>, Keeper<D>) {
    let (sender, requests) = mpsc::channel(4);
    (Ahead { requests: sender }, Keeper { transitions, routes, requests, dial })
}

/// Why a target is held no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// The connection was given away, or there was none to give.
    Spent,
    /// The change of primary is another one, or is over.
    Over,
}

impl<D: Dial> Keeper<D> {
    /// Follows the changes of primary. Never ends.
    pub async fn run(mut self) {
        loop {
            let target = self.transitions.borrow_and_update().as_ref().and_then(|transition| transition.to.clone());
            if let Some(target) = target
                && self.hold(&target).await == Left::Over
            {
                continue;
            }
            self.rest().await;
        }
    }

    /// Has nothing to give until there is another change of primary.
    async fn rest(&mut self) {
        loop {
            tokio::select! {
                biased;
                () = changed(&mut self.transitions) => return,
                Some(request) = self.requests.recv() => drop(request),
            }
        }
    }

    /// Keeps a connection to this target for as long as it may be wanted.
    async fn hold(&mut self, target: &Route) -> Left {
        let wanted = CancellationToken::new();
        let mut line = std::pin::pin!(keep(&self.dial, target, &wanted));
        let mut asked: Option<Request<D::Line>> = None;
        loop {
            tokio::select! {
                biased;
                line = &mut line => {
                    if let (Some(request), Some(line)) = (asked, line) {
                        // Whoever asked may have gone on without it: then it is closed.
                        drop(request.answer.send(line));
                    }
                    return Left::Spent;
                }
                Some(request) = self.requests.recv() => {
                    if request.route == *target {
                        asked = Some(request);
                        wanted.cancel();
                    } else if !leads_to(target, self.transitions.borrow().as_ref(), self.routes.borrow().as_ref()) {
                        return Left::Spent;
                    }
                }
                () = changed(&mut self.transitions) => {
                    if !leads_to(target, self.transitions.borrow().as_ref(), self.routes.borrow().as_ref()) {
                        return Left::Over;
                    }
                }
            }
        }
    }
}

/// Whether this is the target of the change under way, or has just taken office.
fn leads_to(target: &Route, transition: Option<&Transition>, route: Option<&Route>) -> bool {
    match transition {
        Some(transition) => transition.to.as_ref() == Some(target),
        None => route == Some(target),
    }
}

/// Waits until it is another; for ever when nobody tells any more.
async fn changed<T>(value: &mut watch::Receiver<T>) {
    if value.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// A connection, once it is wanted; None when there is none then.
async fn keep<D: Dial>(dial: &D, target: &Route, wanted: &CancellationToken) -> Option<D::Line> {
    loop {
        let why = match dial.open(target).await {
            Ok(mut line) => {
                tracing::debug!(replica = %target.primary, epoch = %target.epoch, "connected to the next primary");
                match wait(dial, &mut line, wanted).await {
                    Ok(()) => return Some(line),
                    Err(why) => why,
                }
            }
            Err(why) => why,
        };
        tracing::debug!(replica = %target.primary, epoch = %target.epoch, why, "no connection to the next primary");
        wanted.run_until_cancelled(sleep(AGAIN)).await?;
    }
}

/// Keeps a connection alive until it is wanted, and makes sure that it still is alive then.
async fn wait<D: Dial>(dial: &D, line: &mut D::Line, wanted: &CancellationToken) -> Result<(), String> {
    while wanted.run_until_cancelled(sleep(LOOK)).await.is_some() {
        dial.look(line).await?;
    }
    dial.look(line).await
}

#[cfg(test)]
mod tests;
