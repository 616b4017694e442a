//! Orders: admitted by their epoch at once, carried out one after the other by one worker behind a bounded queue.
//!
//! An order under a higher epoch than the one that is being carried out ends that one: its epoch has passed.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use understudy_mysql::Instance;
use understudy_wire::Epoch;
use understudy_wire::order::{FenceOrder, Fenced, Follow, Promote, Promoted, Refusal};

use crate::config::Config;
use crate::facts::{Facts, Life, Shared, Why};
use crate::fence::{self, Body};
use crate::volume::Watch;
use crate::{follow, promote};

/// Orders that may wait.
const WAITING: usize = 8;

/// Something to do with the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Replicate from a source.
    Follow(Follow),
    /// Serve under an epoch.
    Promote(Promote),
    /// Stop serving, by the operator's order.
    Fence(FenceOrder),
    /// Stop serving, because another replica is the primary under a higher epoch.
    Superseded(Epoch),
    /// Stop serving, because nobody answers this pod.
    Isolate,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Done {
    /// The source is followed.
    Followed,
    /// Writes are taken.
    Promoted(Promoted),
    /// Writes are refused.
    Fenced(Fenced),
}

struct Job {
    work: Work,
    ended: CancellationToken,
    reply: oneshot::Sender<Result<Done, Refusal>>,
}

/// Takes orders.
#[derive(Clone)]
pub struct Desk {
    shared: Arc<Shared>,
    volume: Watch,
    queue: mpsc::Sender<Job>,
    /// The epoch of the job that is being carried out, and how to end it.
    current: Arc<Mutex<Option<(Epoch, CancellationToken)>>>,
}

/// Carries them out.
pub struct Worker {
    /// What is known.
    pub shared: Arc<Shared>,
    /// The pod's settings.
    pub config: Arc<Config>,
    /// A connection that only orders use.
    pub server: Arc<dyn Instance>,
    /// mysqld's process.
    pub body: Arc<dyn Body>,
    jobs: mpsc::Receiver<Job>,
    current: Arc<Mutex<Option<(Epoch, CancellationToken)>>>,
}

/// A desk and its worker.
pub fn open(
    shared: Arc<Shared>,
    config: Arc<Config>,
    volume: Watch,
    server: Arc<dyn Instance>,
    body: Arc<dyn Body>,
) -> (Desk, Worker) {
    let (queue, jobs) = mpsc::channel(WAITING);
    let current = Arc::new(Mutex::new(None));
    let desk = Desk { shared: shared.clone(), volume, queue, current: current.clone() };
    (desk, Worker { shared, config, server, body, jobs, current })
}

impl Desk {
    /// Admits work, and waits until it is done. The caller may go away; the work is done nevertheless.
    pub async fn submit(&self, work: Work) -> Result<Done, Refusal> {
        let (epoch, note) = self.shared.update(|facts| admit(facts, &work).map(|epoch| (epoch, facts.note())))?;
        self.volume.keep(note);
        if let Some((running, ended)) = &*self.current.lock().unwrap_or_else(PoisonError::into_inner)
            && *running < epoch
        {
            ended.cancel();
        }
        let (reply, answer) = oneshot::channel();
        let job = Job { work, ended: CancellationToken::new(), reply };
        let failed = |reason: &str| Refusal::Failed { step: "queue".to_owned(), reason: reason.to_owned() };
        self.queue.try_send(job).map_err(|_| failed("too many orders are waiting"))?;
        answer.await.map_err(|_| failed("the manager is stopping"))?
    }

    /// Takes note of an epoch without doing anything.
    pub fn learn(&self, epoch: Epoch) -> Result<(), Refusal> {
        let note = self.shared.update(|facts| {
            refuse_stale(facts, epoch)?;
            facts.known = epoch;
            Ok::<_, Refusal>(facts.note())
        })?;
        self.volume.keep(note);
        Ok(())
    }
}

fn refuse_stale(facts: &Facts, given: Epoch) -> Result<(), Refusal> {
    if given < facts.known {
        return Err(Refusal::StaleEpoch { given, known: facts.known });
    }
    Ok(())
}

/// Checks work against what is known, and takes from it what must be known from now on. Gives the epoch it ranks under.
fn admit(facts: &mut Facts, work: &Work) -> Result<Epoch, Refusal> {
    let epoch = match work {
        Work::Follow(order) => order.epoch,
        Work::Promote(order) => order.epoch,
        Work::Fence(order) => order.epoch,
        Work::Superseded(epoch) => *epoch,
        Work::Isolate => facts.known,
    };
    refuse_stale(facts, epoch)?;
    match (&facts.life, work) {
        (Life::Running, _)
        | (Life::Starting | Life::Exited(_), Work::Fence(_) | Work::Superseded(_) | Work::Isolate) => {}
        (life, _) => return Err(Refusal::WrongPhase { reason: wrong_phase(life) }),
    }
    match work {
        Work::Promote(_) if facts.fenced_under.is_some_and(|under| under >= epoch) => {
            let reason =
                format!("this replica was ordered to stop serving under epoch {epoch}; it may serve under a later one");
            return Err(Refusal::WrongPhase { reason });
        }
        Work::Promote(_) if facts.stopping => {
            return Err(Refusal::WrongPhase { reason: "the pod is stopping".to_owned() });
        }
        Work::Fence(_) => facts.fenced_under = Some(epoch),
        _ => {}
    }
    facts.known = epoch;
    Ok(epoch)
}

fn wrong_phase(life: &Life) -> String {
    match life {
        Life::Looking => "the volume has not answered yet".to_owned(),
        Life::Empty => "the volume is empty".to_owned(),
        Life::Unusable(reason) => format!("the volume is not usable: {reason}"),
        Life::Building => "the volume is being filled".to_owned(),
        Life::Starting => "mysqld does not answer yet".to_owned(),
        Life::Running => "mysqld runs".to_owned(),
        Life::Exited(exit) => format!("mysqld has ended (code {:?}, signal {:?})", exit.code, exit.signal),
    }
}

impl Worker {
    /// Carries out orders until stopped.
    pub async fn run(mut self, stop: CancellationToken) {
        // The epoch of a promotion that is to be tidied up after, and when.
        let mut untidy: Option<(Epoch, Instant)> = None;
        loop {
            let idle = async {
                match untidy {
                    Some((_, at)) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let job = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                job = self.jobs.recv() => job,
                () = idle => {
                    self.tidy(untidy.take()).await;
                    continue;
                }
            };
            let Some(job) = job else { return };
            // What another order leaves behind is its own affair, the source above all.
            untidy = None;
            let known = || self.shared.read(|facts| facts.known);
            let epoch = epoch_of(&job.work).unwrap_or_else(known);
            // Before the look at what is known: whoever raises it after that finds this job and ends it.
            self.set_current(Some((epoch, job.ended.clone())));
            let outcome = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = job.ended.cancelled() => Err(Refusal::StaleEpoch { given: epoch, known: known() }),
                outcome = self.carry_out(&job.work) => outcome,
            };
            match &outcome {
                Ok(done) => tracing::info!(work = ?job.work, ?done, "order carried out"),
                Err(refusal) => tracing::warn!(work = ?job.work, %refusal, "order not carried out"),
            }
            if matches!(outcome, Ok(Done::Promoted(_))) {
                untidy = Some((epoch, Instant::now() + promote::TIDY_AFTER));
            }
            // The one who gave it may have gone.
            drop(job.reply.send(outcome));
            self.set_current(None);
        }
    }

    /// What a promotion has left to do. Ends early for an order under a higher epoch, like an order does.
    async fn tidy(&self, after: Option<(Epoch, Instant)>) {
        let Some((epoch, _)) = after else { return };
        let ended = CancellationToken::new();
        self.set_current(Some((epoch, ended.clone())));
        ended.run_until_cancelled(promote::tidy(&self.shared, &*self.server)).await;
        self.set_current(None);
    }

    fn set_current(&self, current: Option<(Epoch, CancellationToken)>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = current;
    }

    async fn carry_out(&self, work: &Work) -> Result<Done, Refusal> {
        let server = &*self.server;
        let known = self.shared.read(|facts| facts.known);
        if let Some(given) = epoch_of(work).filter(|given| *given < known) {
            return Err(Refusal::StaleEpoch { given, known });
        }
        match work {
            Work::Follow(order) => {
                follow::follow(&self.shared, &self.config, server, order).await.map(|()| Done::Followed)
            }
            Work::Promote(order) => promote::promote(&self.shared, server, order).await.map(Done::Promoted),
            Work::Fence(order) => Ok(self.fence(Why::Epoch(order.epoch), order.planned).await),
            Work::Superseded(epoch) => Ok(self.fence(Why::Epoch(*epoch), false).await),
            Work::Isolate => Ok(self.fence(Why::Isolated, false).await),
        }
    }

    async fn fence(&self, why: Why, planned: bool) -> Done {
        Done::Fenced(fence::fence(&self.shared, &*self.server, &self.body, why, planned).await)
    }
}

fn epoch_of(work: &Work) -> Option<Epoch> {
    match work {
        Work::Follow(order) => Some(order.epoch),
        Work::Promote(order) => Some(order.epoch),
        Work::Fence(order) => Some(order.epoch),
        Work::Superseded(epoch) => Some(*epoch),
        Work::Isolate => None,
    }
}

#[cfg(test)]
mod tests;
