//! Asking one shard: its primary, or a standby in its place. I/O through [`Servers`].
//!
//! An answer counts only under an epoch that is not below the one known, when it is given and when it is used: while a
//! shard is asked, a promotion ends the asking, and the new primary is asked instead. A primary that does not answer
//! within its deadline is replaced by the freshest standby that is not too far behind; the answer says so.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, interval, timeout};
use tokio_util::sync::CancellationToken;
use understudy_model::Tenant;
use understudy_wire::{Epoch, ShardName};

use crate::budget::{Budget, Held};
use crate::freshness::complete_until_ms;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::server::{ServerError, Servers, Session};
use crate::topology::{Server, ShardView, Topology};
use crate::work::{Answer, Role, Work};

/// Promotions that one request follows.
const ROUTES: usize = 4;

/// A question that is the same for every shard.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// Who asks.
    pub tenant: &'a Tenant,
    /// What for.
    pub work: &'a Work,
    /// The memory that the request holds before it asks.
    pub held: &'a Held,
}

/// Why a shard has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardError {
    /// The question cannot be answered by any server as it is.
    Question(ServerError),
    /// No server of the shard answers now; each with its reason.
    Nobody(Vec<(String, ServerError)>),
    /// It never had a primary.
    NoPrimary,
    /// It changed its primary again and again.
    Unsettled,
}

impl fmt::Display for ShardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Question(error) => error.fmt(f),
            Self::NoPrimary => f.write_str("it has no primary yet"),
            Self::Unsettled => f.write_str("its primary changed while it was asked"),
            Self::Nobody(reasons) => {
                f.write_str("no server answers:")?;
                reasons.iter().try_for_each(|(server, reason)| write!(f, " {server}: {reason};"))
            }
        }
    }
}

/// Asks shards.
pub struct Asker<S> {
    servers: S,
    topology: watch::Receiver<Topology>,
    limits: Limits,
    topic: String,
    budget: Budget,
    metrics: Metrics,
    /// Primaries that did not answer, and when that was.
    shunned: Mutex<HashMap<SocketAddr, Instant>>,
}

/// Which standbys may answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gate {
    /// Those that are not too far behind.
    Fresh,
    /// Those too that cannot say how far behind they are.
    NotStale,
}

/// A server that has said where it stands.
struct Begun<T> {
    session: T,
    standing: crate::work::Standing,
    server: Server,
}

impl<S: Servers> Asker<S> {
    /// `topic` is the one whose offsets say how fresh a server is.
    pub fn new(
        servers: S,
        topology: watch::Receiver<Topology>,
        limits: Limits,
        topic: String,
        metrics: Metrics,
    ) -> Arc<Self> {
        let budget = Budget::new(limits.memory_bytes);
        Arc::new(Self { servers, topology, limits, topic, budget, metrics, shunned: Mutex::default() })
    }

    /// No memory yet for a request, to grow.
    pub fn hold_nothing(&self) -> Held {
        self.budget.hold_nothing()
    }

    /// Closes idle connections that are no longer good for anything, until stopped.
    pub async fn tidy(self: Arc<Self>, stop: CancellationToken) {
        let mut now_and_then = interval(self.limits.idle / 4);
        while stop.run_until_cancelled(now_and_then.tick()).await.is_some() {
            let servers = self.topology.borrow().addresses();
            self.servers.tidy(&servers);
        }
    }

    /// What is known now.
    pub fn topology(&self) -> watch::Ref<'_, Topology> {
        self.topology.borrow()
    }

    /// Up to when an answer is complete.
    pub fn complete_until_ms(&self, shard: &ShardName, answer: &Answer) -> Option<i64> {
        complete_until_ms(&answer.standing.freshness, &self.topology.borrow(), shard, &self.topic)
    }

    /// The answer of one shard.
    pub async fn ask(&self, shard: &ShardName, question: Question<'_>) -> Result<Answer, ShardError> {
        let mut topology = self.topology.clone();
        for _ in 0..ROUTES {
            let view = topology.borrow_and_update().shards.get(shard).cloned().unwrap_or_default();
            let epoch = view.epoch;
            // Its sender lives as long as the service; if it ends first, so does the service.
            let promotion = async { topology.wait_for(|topology| topology.epoch(shard) > epoch).await.is_ok() };
            let outcome = tokio::select! {
                biased;
                true = promotion => continue,
                outcome = self.ask_under(shard, &view, question) => outcome,
            };
            match outcome {
                // The promotion may have become known in the same moment.
                Ok(answer) if self.topology.borrow().epoch(shard) > answer.standing.epoch => continue,
                outcome => return outcome,
            }
        }
        Err(ShardError::Unsettled)
    }

    async fn ask_under(
        &self,
        shard: &ShardName,
        view: &ShardView,
        question: Question<'_>,
    ) -> Result<Answer, ShardError> {
        let Some(primary) = &view.primary else { return Err(ShardError::NoPrimary) };
        let mut reasons = Vec::new();
        if !view.is_changing() && !self.is_shunned(primary.address) {
            match self.ask_primary(shard, primary, view.epoch, question, self.limits.begin).await {
                Ok(answer) => return Ok(answer),
                Err(error) if error.is_of_the_server() => reasons.push((primary.replica.to_string(), error)),
                Err(error) => return Err(ShardError::Question(error)),
            }
        }
        match self.ask_standbys(shard, view, question, Gate::Fresh, &mut reasons).await {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => {}
            Err(error) => return Err(ShardError::Question(error)),
        }
        // A primary that is only slow is better than no answer.
        match self.ask_primary(shard, primary, view.epoch, question, self.limits.begin_at_last).await {
            Ok(answer) => return Ok(answer),
            Err(error) if error.is_of_the_server() => reasons.push((primary.replica.to_string(), error)),
            Err(error) => return Err(ShardError::Question(error)),
        }
        // So is a standby that cannot say how far behind it is: its answer does not say so either.
        if reasons.iter().any(|(_, reason)| *reason == ServerError::NotKnown)
            && let Some(answer) = self
                .ask_standbys(shard, view, question, Gate::NotStale, &mut reasons)
                .await
                .map_err(ShardError::Question)?
        {
            return Ok(answer);
        }
        Err(ShardError::Nobody(reasons))
    }

    async fn ask_primary(
        &self,
        shard: &ShardName,
        primary: &Server,
        known: Epoch,
        question: Question<'_>,
        begin_within: Duration,
    ) -> Result<Answer, ServerError> {
        let outcome = match self.begin(shard, primary, known, begin_within).await {
            Ok(begun) => self.run(begun, Role::Primary, question).await,
            Err(error) => Err(error),
        };
        let mut shunned = self.shunned.lock().unwrap_or_else(PoisonError::into_inner);
        match &outcome {
            Err(error) if error.is_of_the_server() => drop(shunned.insert(primary.address, Instant::now())),
            _ => drop(shunned.remove(&primary.address)),
        }
        shunned.retain(|_, since| since.elapsed() < self.limits.shun);
        outcome
    }

    fn is_shunned(&self, address: SocketAddr) -> bool {
        let shunned = self.shunned.lock().unwrap_or_else(PoisonError::into_inner);
        shunned.get(&address).is_some_and(|since| since.elapsed() < self.limits.shun)
    }

    /// All standbys at once say where they stand; then the freshest is asked, and the next only if that fails.
    async fn ask_standbys(
        &self,
        shard: &ShardName,
        view: &ShardView,
        question: Question<'_>,
        gate: Gate,
        reasons: &mut Vec<(String, ServerError)>,
    ) -> Result<Option<Answer>, ServerError> {
        let mut beginning: FuturesUnordered<_> = view
            .standbys
            .iter()
            .map(|server| async move { (server, self.begin(shard, server, view.epoch, self.limits.begin).await) })
            .collect();
        let mut candidates = Vec::new();
        while let Some((server, outcome)) = beginning.next().await {
            match outcome.and_then(|begun| self.fresh_enough(shard, begun, gate)) {
                Ok(begun) => candidates.push(begun),
                Err(error) => reasons.push((server.replica.to_string(), error)),
            }
        }
        drop(beginning);
        // Offsets of one topic only grow, so their sum orders the servers of a shard by how much they have.
        candidates.sort_by_key(|begun| {
            let applied: i64 = begun.standing.freshness.partitions.values().map(|state| state.next_offset).sum();
            (begun.standing.epoch, applied)
        });
        while let Some(begun) = candidates.pop() {
            let replica = begun.server.replica.to_string();
            match self.run(begun, Role::Standby, question).await {
                Ok(answer) => {
                    futures::future::join_all(candidates.into_iter().map(|b| self.servers.give_back(b.session))).await;
                    return Ok(Some(answer));
                }
                Err(error) if error.is_of_the_server() => reasons.push((replica, error)),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn fresh_enough(
        &self,
        shard: &ShardName,
        begun: Begun<S::Session>,
        gate: Gate,
    ) -> Result<Begun<S::Session>, ServerError> {
        let freshness = &begun.standing.freshness;
        let until = complete_until_ms(freshness, &self.topology.borrow(), shard, &self.topic);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let behind = until.map(|until| now.saturating_sub(Duration::from_millis(u64::try_from(until).unwrap_or(0))));
        match behind {
            Some(behind) if behind > self.limits.standby_behind => Err(ServerError::Behind(behind)),
            None if gate == Gate::Fresh => Err(ServerError::NotKnown),
            _ => Ok(begun),
        }
    }

    async fn begin(
        &self,
        shard: &ShardName,
        server: &Server,
        known: Epoch,
        within: Duration,
    ) -> Result<Begun<S::Session>, ServerError> {
        let beginning = async {
            let mut session = self.servers.connect(shard, server, false).await?;
            match session.begin().await {
                Err(ServerError::Unreachable(_)) if session.is_reused() => {
                    session = self.servers.connect(shard, server, true).await?;
                    let standing = session.begin().await?;
                    Ok((session, standing))
                }
                outcome => outcome.map(|standing| (session, standing)),
            }
        };
        let silence = || Err(ServerError::Unreachable(format!("no answer within {within:?}")));
        let (session, standing) = timeout(within, beginning).await.unwrap_or_else(|_| silence())?;
        if standing.epoch < known {
            self.metrics.refused_epoch();
            self.servers.give_back(session).await;
            return Err(ServerError::OldEpoch { has: standing.epoch, known });
        }
        Ok(Begun { session, standing, server: server.clone() })
    }

    async fn run(&self, begun: Begun<S::Session>, role: Role, question: Question<'_>) -> Result<Answer, ServerError> {
        let Begun { mut session, standing, server } = begun;
        let mut held = question.held.part();
        let running = session.run(question.tenant, question.work, &mut held);
        let found = match timeout(self.limits.run, running).await {
            Ok(outcome) => outcome?,
            Err(_) => return Err(ServerError::TooSlow),
        };
        self.servers.give_back(session).await;
        self.metrics.answered_by(role);
        Ok(Answer { found, replica: server.replica, role, standing, held })
    }
}
