//! Failover objects as the record of what happened, how many of them are kept ([`history`]), what the metrics are told of them
//! ([`counted`]), and requests that no shard answers ([`requests`]). [`merge`] and [`waiting`] are pure; the registrar writes. I/O.
//!
//! A stage says what a record should hold and never waits for it to be written. What cannot be written now is tried again;
//! what is there already is never changed, so two operators complete each other's records. However many shards change at once, each record
//! is written with all of its steps.

mod counted;
mod history;
mod merge;
mod requests;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::{Resource, ResourceExt};
use tokio::sync::Notify;
use tokio::time::Instant;
use understudy_api::v1alpha1::{FailoverKind, FailoverPhase, FailoverSpec, RebuildNote};
use understudy_api::{Failover, Shard, labels};
use understudy_decide::failover::record::RecordUpdate;
use understudy_decide::failover::snapshot::Kind;

pub use merge::{merge, step_epoch};
pub use requests::{is_open, refuse, start};

use self::waiting::{Key, Turn, Waiting};
use super::drill;
use super::queue::chain;
use super::shard::build;
use crate::apply::{ApplyError, manager};
use crate::context::Context;

/// After a write of a record that failed, before the next one of it.
const AGAIN: Duration = Duration::from_millis(500);
/// Conflicts in a row before the record waits for its next turn.
const TRIES: u32 = 4;

/// What only the stage knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// Seconds between the last commit on the old and the first on the new primary.
    pub write_gap: Option<f64>,
    /// The replacement of the old primary.
    pub rebuild: Option<RebuildNote>,
    /// What the threads of the old primary did when it fell sick.
    pub stacks: Option<Vec<String>>,
}

/// One update of one record.
#[derive(Clone, Debug)]
pub struct Job {
    /// The shard as it was.
    pub shard: Shard,
    /// What the record should say.
    pub update: RecordUpdate,
    /// When it was decided.
    pub at: Timestamp,
    /// What was measured.
    pub measured: Measured,
}

#[derive(Default)]
struct Desk {
    waiting: Mutex<Waiting>,
    news: Notify,
}

impl Desk {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn wait(&self, until: Option<Instant>) {
        match until {
            None => self.news.notified().await,
            Some(until) => tokio::select! {
                () = self.news.notified() => {}
                () = tokio::time::sleep_until(until) => {}
            },
        }
    }
}

/// Takes updates without ever waiting.
#[derive(Clone)]
pub struct Registrar(Arc<Desk>);

impl Registrar {
    /// The handle, and the task that writes until it is stopped.
    pub fn new(context: &Context) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let desk = Arc::new(Desk::default());
        let writer = Writer { context: context.clone(), desk: desk.clone(), known: HashMap::new() };
        (Self(desk), writer.run())
    }

    /// Asks for an update.
    pub fn note(&self, job: Job) {
        self.0.waiting().note(job);
        self.0.news.notify_one();
    }
}

struct Writer {
    context: Context,
    desk: Arc<Desk>,
    known: HashMap<Key, Failover>,
}

impl Writer {
    async fn run(mut self) {
        let stop = self.context.stop.clone();
        while !stop.is_cancelled() {
            let turn = self.desk.waiting().take(Instant::now());
            match turn {
                Turn::Of(record, jobs) => self.serve(record, jobs).await,
                Turn::Wait(until) => {
                    stop.run_until_cancelled(self.desk.wait(until)).await;
                }
            }
        }
        // What was done until now is known to nobody else. What cannot be written at once is left.
        loop {
            let turn = self.desk.waiting().take(Instant::now());
            match turn {
                Turn::Of(record, jobs) => self.serve(record, jobs).await,
                Turn::Wait(_) => return,
            }
        }
    }

    async fn serve(&mut self, record: Key, jobs: Vec<Job>) {
        if !self.context.leading.is_leading() {
            // Whoever leads now sees what is missing in the record.
            return;
        }
        let Err(error) = self.write(&record, &jobs).await else { return };
        let (namespace, name) = &record;
        let is_there = |job: &Job| self.context.caches.shards.is_there(namespace, &job.shard.name_any());
        if !jobs.iter().any(is_there) {
            tracing::info!(record = name, error = %chain(&error), "record not written, and its Shard is gone");
            return;
        }
        tracing::warn!(record = name, error = %chain(&error), "record not written, trying again");
        self.desk.waiting().put_back(record, jobs, Instant::now() + AGAIN);
    }

    async fn write(&mut self, record: &Key, jobs: &[Job]) -> Result<(), ApplyError> {
        let Some(first) = jobs.first() else { return Ok(()) };
        let (namespace, name) = record;
        for tries in 1.. {
            let mut failover = match self.found(record, &first.shard) {
                Some(failover) => failover,
                None => self.obtain(namespace, first).await?,
            };
            let before = failover.status.clone();
            let mut is_news = false;
            for job in jobs {
                is_news |= merge(&mut failover, job);
            }
            if !is_news {
                self.known.insert(record.clone(), failover);
                return Ok(());
            }
            match self.context.applier.replace_status(&failover).await {
                Ok(written) => {
                    counted::count(&self.context.metrics, before.as_ref(), &written);
                    let is_over = is_closed(&written);
                    self.known.insert(record.clone(), written);
                    if is_over {
                        self.forget();
                    }
                    return Ok(());
                }
                Err(error) if error.is_conflict() && tries < TRIES => {
                    if let Some(now) = self.context.applier.get(namespace, name).await? {
                        self.known.insert(record.clone(), now);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The record as far as it is known here.
    fn found(&mut self, record: &Key, shard: &Shard) -> Option<Failover> {
        let known = self.known.remove(record).filter(|known| !is_leftover(known, shard));
        known.or_else(|| {
            let (namespace, name) = record;
            let cached = self.context.caches.failovers.get(namespace, name)?;
            (!is_leftover(&cached, shard)).then(|| (*cached).clone())
        })
    }

    async fn obtain(&self, namespace: &str, job: &Job) -> Result<Failover, ApplyError> {
        let fresh = record(job, self.drill_of(namespace, job));
        match self.context.applier.create(manager::SHARD, &fresh).await {
            Err(error) if error.is_already_exists() => {
                let name = &job.update.name;
                let live = self.context.applier.get::<Failover>(namespace, name).await?.unwrap_or(fresh);
                if is_leftover(&live, &job.shard) {
                    return Err(ApplyError::Leaving { kind: Failover::kind(&()).into_owned(), name: name.clone() });
                }
                Ok(live)
            }
            other => other,
        }
    }

    /// The Drill that hit the old primary, if one did.
    fn drill_of(&self, namespace: &str, job: &Job) -> Option<String> {
        let from = job.update.from.as_ref()?;
        let drills = self.context.caches.drills.within(namespace);
        drill::rehearsing(drills.iter().map(|drill| &**drill), &job.shard.name_any(), from.as_str(), job.at)
    }

    /// Remembers none of a Shard that is gone, and none that has ended and is gone itself.
    fn forget(&mut self) {
        let caches = &self.context.caches;
        self.known.retain(|(namespace, name), failover| {
            let is_open = !is_closed(failover);
            caches.shards.is_there(namespace, &failover.spec.shard)
                && (is_open || caches.failovers.is_there(namespace, name))
        });
    }
}

/// Whether a record is of an earlier Shard of the same name, and waits for the garbage collector. Epochs began anew with the present Shard,
/// so its records get the same names.
pub fn is_leftover(failover: &Failover, shard: &Shard) -> bool {
    let is_another = |uid: &String| Some(uid) != shard.metadata.uid.as_ref();
    failover.owner_references().iter().any(|owner| owner.kind == Shard::kind(&()) && is_another(&owner.uid))
}

fn is_closed(failover: &Failover) -> bool {
    failover.status.as_ref().is_some_and(|status| status.phase == FailoverPhase::Closed)
}

/// The object of a record that nobody asked for, unless a drill did.
fn record(job: &Job, drill: Option<String>) -> Failover {
    let update = &job.update;
    let spec = FailoverSpec {
        shard: job.shard.name_any(),
        kind: match update.kind {
            Kind::Switchover => FailoverKind::Switchover,
            Kind::Bootstrap | Kind::Failover | Kind::Confirm => FailoverKind::Failover,
        },
        reason: update.cause.clone(),
        target: None,
        epoch: i64::try_from(update.epoch.0).ok(),
        drill,
    };
    let mut failover = Failover::new(&update.name, spec);
    failover.metadata.namespace = job.shard.namespace();
    let mut labels = build::shard_labels(&job.shard);
    labels.extend(failover.spec.drill.iter().map(|drill| (labels::DRILL.to_owned(), drill.clone())));
    failover.metadata.labels = Some(labels);
    failover.metadata.owner_references = build::owner_of(&job.shard).map(|owner| vec![owner]);
    failover
}
