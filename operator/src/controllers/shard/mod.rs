//! Shard: its replicas, and who of them is primary. One stage a shard, on every instance of the operator; the leader's act.
//!
//! - [`stage`]: the loop
//! - [`observe`], [`feeds`], [`kafka_log`], [`memory`], [`overlay`], [`company`]: what a snapshot is made of
//! - [`act`], [`orders`], [`role_label`]: how steps are carried out
//! - [`showing`]: how statuses are written, beside the loop
//! - [`report`], [`claims`], [`notes`], [`obstacles`], [`rolled`], [`gap`], [`earlier`]: what is said about it
//! - [`build`]: the objects of a shard

mod act;
pub mod build;
mod claims;
mod company;
mod earlier;
mod feeds;
mod gap;
mod kafka_log;
mod memory;
mod notes;
mod observe;
mod obstacles;
mod orders;
mod overlay;
mod report;
mod role_label;
mod rolled;
mod showing;
mod stage;

use std::collections::HashMap;
use std::sync::Arc;

use kube::ResourceExt;
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use self::company::Company;
use self::stage::{Shared, Stage, keep_on};
use super::failover::Registrar;
use crate::cache::{Change, Kind, Touched};
use crate::context::Context;
use crate::evidence::Pulse;

struct Running {
    news: Arc<Notify>,
    stop: CancellationToken,
    done: CancellationToken,
}

/// Starts a stage for every Shard there is and will be.
pub fn start(context: &Context) {
    let (pulse, beating) = Pulse::new(context.stop.clone());
    let (registrar, writing) = Registrar::new(context);
    context.tasks.spawn(beating);
    context.tasks.spawn(writing);
    let shared = Shared { context: context.clone(), pulse, company: Company::default(), registrar };
    let mut changes = context.caches.changes();
    let stop = context.stop.clone();
    let mut theatre = Theatre { shared, stages: HashMap::new() };
    context.tasks.spawn(async move {
        theatre.open_all();
        loop {
            match stop.run_until_cancelled(changes.recv()).await {
                None | Some(Err(RecvError::Closed)) => return,
                Some(Ok(Change::Touched(touched))) => theatre.touched(&touched),
                Some(Ok(Change::Resynced(_)) | Err(RecvError::Lagged(_))) => theatre.open_all(),
            }
        }
    });
}

struct Theatre {
    shared: Shared,
    stages: HashMap<(String, String), Running>,
}

impl Theatre {
    fn open_all(&mut self) {
        // Malformed ones too: they may be on their way out.
        for shard in self.shared.context.caches.shards.store().state() {
            self.open(shard.namespace().unwrap_or_default(), shard.name_any());
        }
        for running in self.stages.values() {
            running.news.notify_one();
        }
    }

    fn open(&mut self, namespace: String, name: String) {
        let key = (namespace, name);
        if let Some(running) = self.stages.get(&key).filter(|running| !running.done.is_cancelled()) {
            return running.news.notify_one();
        }
        let news = Arc::new(Notify::new());
        let stop = self.shared.context.stop.child_token();
        let done = CancellationToken::new();
        // However it ends: the next look at the Shard starts another one.
        let (stopped, ended) = (stop.clone(), done.clone().drop_guard());
        let (shared, told, (namespace, name)) = (self.shared.clone(), news.clone(), key.clone());
        self.shared.context.tasks.spawn(async move {
            let _ended = ended;
            let stage = || Stage::new(&shared, &namespace, &name, told.clone()).run(stopped.clone());
            keep_on(&name, &stopped, stage).await;
        });
        self.stages.insert(key, Running { news, stop, done });
    }

    fn touched(&mut self, touched: &Touched) {
        let key = |name: &str| (touched.namespace.clone(), name.to_owned());
        match touched.kind {
            Kind::Shard if touched.deleted => {
                if let Some(running) = self.stages.remove(&key(&touched.name)) {
                    running.stop.cancel();
                }
                self.shared.context.troubles.set(&touched.namespace, &touched.name, None);
            }
            Kind::Shard => self.open(touched.namespace.clone(), touched.name.clone()),
            // A person's request need not bear a label.
            Kind::Failover if touched.shard.is_none() => {
                for ((namespace, _), running) in &self.stages {
                    if *namespace == touched.namespace {
                        running.news.notify_one();
                    }
                }
            }
            Kind::Replica | Kind::Pod | Kind::PersistentVolumeClaim | Kind::Failover => {
                let stage = touched.shard.as_deref().and_then(|shard| self.stages.get(&key(shard)));
                if let Some(running) = stage {
                    running.news.notify_one();
                }
            }
            _ => {}
        }
    }
}
