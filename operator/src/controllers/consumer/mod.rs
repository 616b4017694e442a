//! Consumer: one workload per shard, its rights, its certificate, and the sum of what its pods report. I/O.

mod build;
mod group;
mod letters;
mod status;
#[cfg(test)]
mod tests;

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::ResourceExt;
use understudy_api::{Consumer, Datastore, labels, names};

use self::build::{Resolved, Unresolved};
pub use self::group::group_of;
pub use self::status::is_told;
use self::status::{Observed, Stopped};
use super::furnish::secrets::{self, SecretError};
use super::queue::{Again, Controller, Failure, let_go, trouble_of};
use crate::apply::{ApplyError, Live, Writable, manager};
use crate::cache::{Cache, Held, Kind, Touched};
use crate::context::Context;
use crate::events::Reason;

/// A pass over a Consumer for which nothing changes.
const AGAIN: Duration = Duration::from_secs(300);

/// Which step of a pass failed.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
enum ConsumerError {
    #[error("certificate of the consumer")]
    Certificate(#[source] SecretError),
    #[error("rights of the consumer")]
    Rights(#[source] ApplyError),
    #[error("workload {name} of the consumer")]
    Workload {
        name: String,
        #[source]
        source: ApplyError,
    },
    #[error("workloads of the consumer that are not wanted")]
    Sweep(#[source] ApplyError),
    #[error("status of the consumer")]
    Status(#[source] ApplyError),
}

impl Failure for ConsumerError {
    fn label(&self) -> &'static str {
        self.into()
    }

    fn unwritten(&self) -> Option<&ApplyError> {
        match self {
            Self::Certificate(error) => error.unwritten(),
            Self::Rights(error) | Self::Workload { source: error, .. } | Self::Sweep(error) | Self::Status(error) => {
                Some(error)
            }
        }
    }

    fn is_conflict(&self) -> bool {
        // Deleted while it was looked at.
        let gone = matches!(self, Self::Status(error) if error.is_not_found());
        gone || self.unwritten().is_some_and(ApplyError::is_conflict)
    }
}

/// Starts the controller.
pub fn start(context: &Context) {
    Controller { kind: Kind::Consumer, cache: context.caches.consumers.clone(), concerns, pass, leave: let_go }
        .start(context);
}

fn concerns(touched: &Touched, context: &Context) -> Vec<(String, String)> {
    let here = |name: &str| vec![(touched.namespace.clone(), name.to_owned())];
    let that = |wanted: &dyn Fn(&Consumer) -> bool| {
        let consumers = context.caches.consumers.within(&touched.namespace);
        let concerned = consumers.iter().filter(|consumer| wanted(consumer));
        concerned.map(|consumer| (touched.namespace.clone(), consumer.name_any())).collect()
    };
    match (touched.kind, &touched.owner) {
        // The next one of its group or schema may run now.
        (Kind::Consumer, _) if touched.deleted => that(&|_| true),
        (Kind::Consumer, _) => match context.caches.consumers.get(&touched.namespace, &touched.name) {
            Some(changed) => that(&|consumer| group::common(consumer, &changed).is_some()),
            None => here(&touched.name),
        },
        (Kind::Deployment | Kind::PodDisruptionBudget, Some((kind, name))) if kind == "Consumer" => here(name),
        (Kind::Datastore, _) => that(&|consumer| consumer.spec.datastore.as_ref() == Some(&touched.name)),
        (Kind::Shard, _) => that(&|consumer| {
            consumer.spec.datastore.is_some() && consumer.spec.datastore == touched.datastore
                || consumer.spec.shards.as_ref().is_some_and(|shards| shards.contains(&touched.name))
        }),
        _ => Vec::new(),
    }
}

fn pass(consumer: Held<Consumer>, context: &Context) -> BoxFuture<'_, Result<Again, ConsumerError>> {
    async move { Pass { consumer: &consumer, context }.run().await }.boxed()
}

struct Pass<'a> {
    consumer: &'a Consumer,
    context: &'a Context,
}

impl Pass<'_> {
    fn namespace(&self) -> String {
        self.consumer.namespace().unwrap_or_default()
    }

    async fn run(&self) -> Result<Again, ConsumerError> {
        let datastore = self.datastore(self.consumer);
        let resolved = match build::resolve(self.consumer, datastore.as_deref()) {
            Ok(resolved) => resolved,
            Err(why @ Unresolved::OtherTopic(_)) => return self.stop(Stopped::other_topic(why.to_string())).await,
            // What runs goes on: the Datastore may come back.
            Err(why) => {
                self.context.events.say(self.consumer, Reason::DatastoreMissing, why.to_string());
                let stopped = Observed::stopped(Stopped::missing(why.to_string()));
                return self.report(stopped).await.map(|()| AGAIN);
            }
        };
        if datastore.as_ref().is_some_and(|datastore| datastore.spec.paused) {
            return self.report(self.observed(&resolved)).await.map(|()| AGAIN);
        }
        if let Some(taken) = self.taken(&resolved) {
            return self.stop(Stopped::taken(&taken)).await;
        }
        if let Err(error) = self.apply_all(&resolved).await {
            if let Some(trouble) = trouble_of(&error) {
                let stopped = Some(Stopped::trouble(&trouble));
                self.report(Observed { stopped, ..self.observed(&resolved) }).await?;
            }
            return Err(error);
        }
        let wanted: Vec<_> = resolved.shards.iter().map(|shard| self.workload_of(shard)).collect();
        self.sweep(&wanted).await?;
        let letters = letters::look(self.consumer, &resolved, self.context).await;
        let observed = Observed { letters: letters.found, ..self.observed(&resolved) };
        self.report(observed).await.map(|()| letters.again)
    }

    fn datastore(&self, consumer: &Consumer) -> Option<Held<Datastore>> {
        self.context.caches.datastores.get(&self.namespace(), consumer.spec.datastore.as_deref()?)
    }

    fn workload_of(&self, shard: &str) -> String {
        names::consumer_workload(&self.consumer.name_any(), shard)
    }

    /// Whether an older Consumer has the group or the schema of this one on a shard.
    fn taken(&self, resolved: &Resolved) -> Option<group::Taken> {
        let all = self.context.caches.consumers.within(&self.namespace());
        let with_shards = all.iter().filter_map(|other| {
            let resolved = build::resolve(other, self.datastore(other).as_deref()).ok()?;
            Some((&**other, resolved.shards))
        });
        group::taken(self.consumer, &resolved.shards, with_shards)
    }

    /// Runs nothing, and says why.
    async fn stop(&self, stopped: Stopped) -> Result<Again, ConsumerError> {
        self.context.events.say(self.consumer, Reason::NotAccepted, stopped.message.clone());
        self.sweep(&[]).await?;
        self.report(Observed::stopped(stopped)).await.map(|()| AGAIN)
    }

    /// Takes away the workloads of this Consumer but these.
    async fn sweep(&self, wanted: &[String]) -> Result<(), ConsumerError> {
        let caches = &self.context.caches;
        self.sweep_kind::<Deployment>(&caches.deployments, wanted).await.map_err(ConsumerError::Sweep)?;
        self.sweep_kind::<PodDisruptionBudget>(&caches.budgets, wanted).await.map_err(ConsumerError::Sweep)
    }

    async fn sweep_kind<K: Writable + 'static>(&self, cache: &Cache<K>, wanted: &[String]) -> Result<(), ApplyError> {
        for live in cache.labelled(&self.namespace(), labels::CONSUMER, &self.consumer.name_any()) {
            let ours = live.owner_references().iter().any(|owner| Some(&owner.uid) == self.consumer.uid().as_ref());
            if ours && !wanted.contains(&live.name_any()) && live.meta().deletion_timestamp.is_none() {
                self.context.applier.delete::<K>(&live, None).await?;
            }
        }
        Ok(())
    }

    async fn apply_all(&self, resolved: &Resolved) -> Result<(), ConsumerError> {
        let what = format!("certificate of {}", self.consumer.uid().unwrap_or_default());
        if self.context.recent.is_due(&what, AGAIN) {
            let sans = [names::consumer_san(&self.consumer.name_any())];
            let secret = names::consumer_tls_secret(&self.consumer.name_any());
            secrets::ensure_certificate(self.consumer, &secret, &sans, &build::labels(self.consumer), self.context)
                .await
                .map_err(ConsumerError::Certificate)?;
            self.context.recent.looked(what);
        }
        let (account, role, binding) = build::rights(self.consumer);
        let applier = &self.context.applier;
        let rights = async {
            applier.apply::<ServiceAccount>(manager::CONSUMER, &account, Live::Unwatched).await?;
            applier.apply::<Role>(manager::CONSUMER, &role, Live::Unwatched).await?;
            applier.apply::<RoleBinding>(manager::CONSUMER, &binding, Live::Unwatched).await
        };
        rights.await.map_err(ConsumerError::Rights)?;
        for shard in &resolved.shards {
            let workload = build::workload(self.consumer, resolved, shard, self.context);
            let failed = |source| ConsumerError::Workload { name: workload.name.clone(), source };
            let caches = &self.context.caches;
            self.apply(&caches.deployments, &workload.deployment()).await.map_err(failed)?;
            self.apply(&caches.budgets, &workload.budget()).await.map_err(failed)?;
        }
        Ok(())
    }

    async fn apply<K: Writable + 'static>(&self, cache: &Cache<K>, object: &K) -> Result<(), ApplyError> {
        let live = cache.get(&self.namespace(), &object.name_any());
        let live = Live::of(live.as_ref().map(|live| live.meta()));
        self.context.applier.apply(manager::CONSUMER, object, live).await.map(drop)
    }

    fn observed(&self, resolved: &Resolved) -> Observed {
        let caches = &self.context.caches;
        let namespace = self.namespace();
        let reported = self.consumer.status.iter().flat_map(|status| &status.partitions);
        let partitions = resolved.partitions.or_else(|| status::partitions_by_reports(&resolved.shards, reported));
        let mut observed = Observed { partitions, ..Observed::default() };
        for shard in &resolved.shards {
            let status = caches.shards.get(&namespace, shard);
            if status.is_none() {
                observed.missing.push(shard.clone());
            }
            let verdict = status.and_then(|shard| Some(shard.status.as_ref()?.verdict.as_ref()?.state));
            let deployment = caches.deployments.get(&namespace, &self.workload_of(shard));
            let pods = deployment.map(|deployment| super::datastore::pods(&deployment));
            observed.workloads.push((shard.clone(), pods, verdict.unwrap_or_default()));
        }
        observed
    }

    async fn report(&self, observed: Observed) -> Result<(), ConsumerError> {
        let events = &self.context.events;
        if !observed.missing.is_empty() {
            let note = format!("no Shard {}", observed.missing.join(", "));
            events.say(self.consumer, Reason::ShardMissing, note);
        }
        if let Some(unknown) = observed.unknown_partition(self.consumer) {
            events.say(self.consumer, Reason::UnknownPartition, unknown);
        }
        let before = self.consumer.status.clone().unwrap_or_default();
        let after = status::of(self.consumer, &observed, k8s_openapi::jiff::Timestamp::now());
        // What the pods write is theirs alone.
        let ours = |status: &understudy_api::v1alpha1::ConsumerStatus| understudy_api::v1alpha1::ConsumerStatus {
            partitions: Vec::new(),
            ..status.clone()
        };
        if ours(&before) == after {
            return Ok(());
        }
        let applier = &self.context.applier;
        applier.apply_status(manager::CONSUMER_STATUS, self.consumer, &after).await.map_err(ConsumerError::Status)
    }
}
