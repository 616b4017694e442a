//! Datastore: its shards, its topic, which partition feeds which shard, and its ingest services. I/O.
//!
//! A pass applies what the spec asks for and writes the status on change. Brokers that do not answer stop nothing but what
//! needs them: the condition says so, and shards and services are made all the same.

mod build;
mod leftover;
mod placement;
mod sharing;
mod status;
#[cfg(test)]
mod tests;
mod tokens;
mod topic;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use understudy_api::v1alpha1::{ConsumerStatus, DatastoreStatus};
use understudy_api::{Consumer, Datastore, Shard, labels, names};
use understudy_kafka::AdminError;

pub(super) use self::build::{credentials, follow_routes, keep_seconds, rights, rule, secret};
pub(super) use self::status::{Pods, pods};

use self::placement::Placing;
use self::status::{Observed, SecretFact, ShardFact};
use super::queue::{Again, Controller, Failure, chain, trouble_of};
use super::workload::Workload;
use crate::apply::{ApplyError, Live, Writable, manager};
use crate::cache::{Cache, Held, Kind, Touched};
use crate::context::Context;
use crate::events::Reason;
use crate::farewell;

/// A pass over a Datastore for which nothing changes.
const AGAIN: Duration = Duration::from_secs(300);
/// A pass over one that waits for something that is not watched.
const SOON: Duration = Duration::from_secs(10);

/// Which step of a pass failed.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
pub(super) enum DatastoreError {
    #[error("shard {name} of the datastore")]
    Shard {
        name: String,
        #[source]
        source: ApplyError,
    },
    #[error("ends of the topic")]
    Ends(#[source] AdminError),
    #[error("consumer of the datastore")]
    Consumer(#[source] ApplyError),
    #[error("gateway of the datastore")]
    Gateway(#[source] ApplyError),
    #[error("query service of the datastore")]
    Query(#[source] ApplyError),
    #[error("tokens of the datastore")]
    Tokens(#[source] ApplyError),
    #[error("finalizer of the datastore")]
    Finalizer(#[source] ApplyError),
    #[error("deletion policy of the datastore, which waits for it")]
    Farewell(#[source] ApplyError),
    #[error("status of the datastore")]
    Status(#[source] ApplyError),
}

impl Failure for DatastoreError {
    fn label(&self) -> &'static str {
        self.into()
    }

    fn unwritten(&self) -> Option<&ApplyError> {
        match self {
            Self::Ends(_) => None,
            Self::Shard { source: error, .. }
            | Self::Consumer(error)
            | Self::Gateway(error)
            | Self::Query(error)
            | Self::Tokens(error)
            | Self::Finalizer(error)
            | Self::Farewell(error)
            | Self::Status(error) => Some(error),
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
    Controller { kind: Kind::Datastore, cache: context.caches.datastores.clone(), concerns, pass, leave }
        .start(context);
}

fn concerns(touched: &Touched, _: &Context) -> Vec<(String, String)> {
    let name = match (touched.kind, &touched.owner) {
        (Kind::Datastore, _) if !touched.deleted => &touched.name,
        (_, Some((kind, name))) if kind == "Datastore" => name,
        _ => return Vec::new(),
    };
    vec![(touched.namespace.clone(), name.clone())]
}

fn pass(datastore: Held<Datastore>, context: &Context) -> BoxFuture<'_, Result<Again, DatastoreError>> {
    async move { Pass { datastore: &datastore, context }.run().await }.boxed()
}

/// Its Shards go next, and must know its policy.
fn leave<'a>(datastore: &'a ObjectMeta, context: &'a Context) -> BoxFuture<'a, Result<Again, DatastoreError>> {
    async move {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (namespace, name, uid) = (text(&datastore.namespace), text(&datastore.name), text(&datastore.uid));
        let farewell = farewell::of_datastore(&context.applier, &namespace, &name, &uid);
        farewell.await.map_err(DatastoreError::Farewell).map(|()| AGAIN)
    }
    .boxed()
}

struct Pass<'a> {
    datastore: &'a Datastore,
    context: &'a Context,
}

impl Pass<'_> {
    fn namespace(&self) -> String {
        self.datastore.namespace().unwrap_or_default()
    }

    fn status(&self) -> DatastoreStatus {
        self.datastore.status.clone().unwrap_or_default()
    }

    async fn run(&self) -> Result<Again, DatastoreError> {
        let outcome = self.work().await;
        if let Err(error) = &outcome
            && let Some(trouble) = trouble_of(error)
        {
            let observed = self.observed(&BTreeSet::new(), None, Placing::Keep, SecretFact::Unknown);
            self.report(Observed { trouble: Some(trouble), ..observed }).await?;
        }
        outcome
    }

    async fn work(&self) -> Result<Again, DatastoreError> {
        if farewell::hold(&self.context.applier, self.datastore).await.map_err(DatastoreError::Finalizer)?.is_some() {
            // The status is written over the version that was read, and that is another now.
            return Ok(AGAIN);
        }
        // Before its shards are made: those that have served without placements say that these were lost.
        if !self.datastore.spec.paused
            && let Some(first @ Placing::Write { .. }) = self.begin()
        {
            // All that would send to its topic or read from it is made later.
            let shared = topic::shared(self.datastore, self.context);
            let (placing, again) = if shared.is_some() { (Placing::Keep, SOON) } else { (first, AGAIN) };
            self.report(self.observed(&BTreeSet::new(), shared, placing, SecretFact::Unknown)).await?;
            return Ok(again);
        }
        // Shards come first and even when paused: this is how they learn that they are.
        let changed = self.apply_shards().await?;
        if self.datastore.spec.paused {
            // A move that has begun must not hold up what is stored, so it is brought to its end.
            let placing = self.settle(true).await.unwrap_or(Placing::Keep);
            let again = if placing.is_settled() { AGAIN } else { SOON };
            let observed = self.observed(&changed, None, placing, SecretFact::Unknown);
            return self.report(observed).await.map(|()| again);
        }
        let topic = topic::look(self.datastore, self.context).await;
        let (placing, unplaced) = self.place(&topic).await;
        self.apply_consumer().await?;
        self.apply_gateway().await?;
        self.apply_query().await?;
        let secrets = self.look_for_tokens().await?;
        let settled = topic.is_ready(self.datastore) && placing.is_settled() && secrets == SecretFact::Present;
        self.report(self.observed(&changed, topic.fact(), placing, secrets)).await?;
        match unplaced {
            Some(error) => Err(error),
            None => Ok(if settled { AGAIN } else { SOON }),
        }
    }

    /// Names of those that were not as they should be.
    async fn apply_shards(&self) -> Result<BTreeSet<String>, DatastoreError> {
        let namespace = self.namespace();
        let mut changed = BTreeSet::new();
        for index in 0..self.datastore.spec.shards {
            let name = names::shard_of(&self.datastore.name_any(), index);
            let live = self.context.caches.shards.get(&namespace, &name);
            let meta = live.as_ref().map(|shard| &shard.metadata);
            let failed = |source| DatastoreError::Shard { name: name.clone(), source };
            let object = build::shard(self.datastore, index);
            let applier = &self.context.applier;
            let sent = applier.apply_as::<Shard>(manager::DATASTORE, &namespace, &name, object, Live::of(meta)).await;
            if sent.map_err(failed)? {
                if meta.is_none() {
                    self.context.events.say(self.datastore, Reason::ShardCreated, format!("made Shard {name}"));
                }
                changed.insert(name);
            }
        }
        Ok(changed)
    }

    /// What becomes of the placements, and why they wait when the brokers do not say what is needed for that: nothing else waits for it.
    async fn place(&self, topic: &topic::Look) -> (Placing, Option<DatastoreError>) {
        let status = self.status();
        let spec = &self.datastore.spec;
        let name = self.datastore.name_any();
        if let Some(placing) = self.begin() {
            return (placing, None);
        }
        if let Some(placing) = self.settle(topic.exists()).await {
            return (placing, None);
        }
        let serves = |index: i32| {
            let name = names::shard_of(&name, index);
            let shard = self.context.caches.shards.get(&self.namespace(), &name);
            let has_primary =
                shard.is_some_and(|shard| shard.status.as_ref().is_some_and(|status| status.primary.is_some()));
            has_primary && self.is_read(&name)
        };
        match placement::plan(&name, spec.shards, &status, serves) {
            Placing::NeedEnds if topic.exists() => match self.ends().await {
                Ok((first, second)) => {
                    let partitions = spec.kafka.partitions;
                    (placement::grow(&name, spec.shards, partitions, &status, &first, &second), None)
                }
                Err(error) => (Placing::NeedEnds, Some(error)),
            },
            other => (other, None),
        }
    }

    /// The first placements, or that they were lost; None when they are there.
    fn begin(&self) -> Option<Placing> {
        let (spec, name) = (&self.datastore.spec, self.datastore.name_any());
        placement::begin(&name, spec.shards, spec.kafka.partitions, &self.status(), self.served())
    }

    /// Its shards that have served.
    fn served(&self) -> Vec<String> {
        let (namespace, name) = (self.namespace(), self.datastore.name_any());
        let mut shards = self.context.caches.shards.labelled(&namespace, labels::DATASTORE, &name);
        shards.retain(|shard| self.owns(&**shard) && shard.status.as_ref().is_some_and(placement::has_served));
        let mut names: Vec<_> = shards.iter().map(|shard| shard.name_any()).collect();
        names.sort();
        names
    }

    fn owns(&self, object: &impl ResourceExt) -> bool {
        object.owner_references().iter().any(|owner| Some(&owner.uid) == self.datastore.uid().as_ref())
    }

    /// What becomes of moves that have begun; None when there are none.
    async fn settle(&self, topic_exists: bool) -> Option<Placing> {
        let status = self.status();
        let mut placing = placement::settle(&status, &self.consumers())?;
        if let Placing::Settle { placements, waiting } = &mut placing
            && !waiting.is_empty()
            && topic_exists
        {
            match self.ends().await {
                Ok((first, second)) => placement::keep_ahead(placements, &status, &first, &second),
                Err(error) => {
                    tracing::warn!(datastore = self.datastore.name_any(), error = %chain(&error), "a move that waits is not kept ahead of the end");
                }
            }
        }
        Some(placing)
    }

    /// The ends of the topic at two moments [`placement::MEASURE`] apart.
    async fn ends(&self) -> Result<(BTreeMap<i32, i64>, BTreeMap<i32, i64>), DatastoreError> {
        let first = topic::ends(self.datastore, self.context).await.map_err(DatastoreError::Ends)?;
        tokio::time::sleep(placement::MEASURE).await;
        let second = topic::ends(self.datastore, self.context).await.map_err(DatastoreError::Ends)?;
        Ok((first, second))
    }

    /// Whether the query service, if there is one, can read a shard. Its pods are made anew when there are more shards, and none of
    /// before may be asked for what a new shard holds.
    fn is_read(&self, shard: &str) -> bool {
        let query = names::query(&self.datastore.name_any());
        let live = || self.context.caches.deployments.get(&self.namespace(), &query);
        self.datastore.spec.query.is_none() || live().is_some_and(|live| status::all_have_password(&live, shard))
    }

    /// All Consumers that follow the placements of the Datastore, and what they say.
    fn consumers(&self) -> Vec<(String, ConsumerStatus)> {
        let name = self.datastore.name_any();
        let here = self.context.caches.consumers.within(&self.namespace());
        let ours = here.iter().filter(|consumer| consumer.spec.datastore.as_ref() == Some(&name));
        ours.map(|consumer| (consumer.name_any(), consumer.status.clone().unwrap_or_default())).collect()
    }

    async fn apply_consumer(&self) -> Result<(), DatastoreError> {
        let consumer = build::consumer(self.datastore);
        let cache = &self.context.caches.consumers;
        self.apply(cache, &consumer).await.map_err(DatastoreError::Consumer)
    }

    async fn apply_gateway(&self) -> Result<(), DatastoreError> {
        let outcome = match build::gateway(self.datastore, self.context) {
            Some(workload) => self.apply_workload(&workload).await,
            None => self.remove_workload(&names::gateway(&self.datastore.name_any())).await,
        };
        outcome.map_err(DatastoreError::Gateway)
    }

    async fn apply_query(&self) -> Result<(), DatastoreError> {
        let name = names::query(&self.datastore.name_any());
        let Some(workload) = build::query(self.datastore, self.context) else {
            self.remove_workload(&name).await.map_err(DatastoreError::Query)?;
            return self.give_up_rights().await.map_err(DatastoreError::Query);
        };
        let (account, role, binding) = build::query_rights(workload.metadata(&name));
        let applier = &self.context.applier;
        let rights = async {
            applier.apply::<ServiceAccount>(manager::DATASTORE, &account, Live::Unwatched).await?;
            applier.apply::<Role>(manager::DATASTORE, &role, Live::Unwatched).await?;
            applier.apply::<RoleBinding>(manager::DATASTORE, &binding, Live::Unwatched).await?;
            self.apply_workload(&workload).await
        };
        rights.await.map_err(DatastoreError::Query)
    }

    /// Takes away the rights that an earlier query service had. They are not watched, so they are looked for now and then.
    async fn give_up_rights(&self) -> Result<(), ApplyError> {
        let generation = self.datastore.metadata.generation.unwrap_or_default();
        let what = format!("rights of no query of {}/{generation}", self.datastore.uid().unwrap_or_default());
        if !self.context.recent.is_due(&what, AGAIN) {
            return Ok(());
        }
        let name = names::query(&self.datastore.name_any());
        let (account, role, binding) = build::query_rights(build::metadata(self.datastore, name));
        let applier = &self.context.applier;
        leftover::give_up(applier, &binding).await?;
        leftover::give_up(applier, &role).await?;
        leftover::give_up(applier, &account).await?;
        self.context.recent.looked(what);
        Ok(())
    }

    async fn apply_workload(&self, workload: &Workload) -> Result<(), ApplyError> {
        let caches = &self.context.caches;
        self.apply(&caches.deployments, &workload.deployment()).await?;
        self.apply(&caches.services, &workload.service()).await?;
        self.apply(&caches.budgets, &workload.budget()).await
    }

    async fn apply<K: Writable + 'static>(&self, cache: &Cache<K>, object: &K) -> Result<(), ApplyError> {
        let live = cache.get(&self.namespace(), &object.name_any());
        let live = Live::of(live.as_ref().map(|live| live.meta()));
        self.context.applier.apply(manager::DATASTORE, object, live).await.map(drop)
    }

    /// Takes away what an earlier spec asked for.
    async fn remove_workload(&self, name: &str) -> Result<(), ApplyError> {
        let caches = &self.context.caches;
        self.remove::<Deployment>(&caches.deployments, name).await?;
        self.remove::<Service>(&caches.services, name).await?;
        self.remove::<PodDisruptionBudget>(&caches.budgets, name).await
    }

    async fn remove<K: Writable + 'static>(&self, cache: &Cache<K>, name: &str) -> Result<(), ApplyError> {
        let Some(live) = cache.get(&self.namespace(), name) else { return Ok(()) };
        if !self.owns(&*live) {
            return Ok(());
        }
        self.context.applier.delete::<K>(&live, None).await
    }

    /// Whether the Secrets that the spec names are there and hold tokens. They are not watched, so one that will not do is looked
    /// at again soon.
    async fn look_for_tokens(&self) -> Result<SecretFact, DatastoreError> {
        let (mut missing, mut unusable) = (Vec::new(), Vec::new());
        for name in build::token_secrets(self.datastore) {
            let what = format!("tokens {}/{name}", self.namespace());
            if !self.context.recent.is_due(&what, AGAIN) {
                continue;
            }
            let found = self.context.applier.get::<Secret>(&self.namespace(), &name).await;
            match found.map_err(DatastoreError::Tokens)? {
                Some(secret) => match tokens::problem(&secret) {
                    None => self.context.recent.looked(what),
                    Some(problem) => unusable.push(problem),
                },
                None => missing.push(name),
            }
        }
        Ok(match (missing.is_empty(), unusable.is_empty()) {
            (true, true) => SecretFact::Present,
            (true, false) => SecretFact::Unusable(unusable.join("; ")),
            (false, _) => SecretFact::Missing(missing.join(", ")),
        })
    }

    fn observed(
        &self,
        changed: &BTreeSet<String>,
        topic: Option<topic::Fact>,
        placing: Placing,
        secrets: SecretFact,
    ) -> Observed {
        let caches = &self.context.caches;
        let (namespace, name) = (self.namespace(), self.datastore.name_any());
        let shards = (0..self.datastore.spec.shards)
            .map(|index| {
                let name = names::shard_of(&name, index);
                let live = caches.shards.get(&namespace, &name);
                let status = live.as_ref().and_then(|shard| shard.status.clone());
                let answered = status.as_ref().and_then(|status| status.observed_generation);
                // What was just written is not in the cache yet.
                let is_current =
                    !changed.contains(&name) && live.is_some_and(|shard| shard.metadata.generation == answered);
                ShardFact { name, status, is_current }
            })
            .collect();
        let consumer: Option<Held<Consumer>> = caches.consumers.get(&namespace, &names::consumer_of(&name));
        let workload =
            |name: String| caches.deployments.get(&namespace, &name).map(|deployment| status::pods(&deployment));
        Observed {
            shards,
            consumer: consumer.and_then(|consumer| consumer.status.clone()),
            gateway: workload(names::gateway(&self.datastore.name_any())),
            query: workload(names::query(&self.datastore.name_any())),
            topic,
            placing,
            secrets,
            trouble: None,
        }
    }

    async fn report(&self, observed: Observed) -> Result<(), DatastoreError> {
        self.say(&observed);
        let before = self.status();
        let after = status::of(self.datastore, observed, k8s_openapi::jiff::Timestamp::now());
        if after == before {
            return Ok(());
        }
        let mut datastore = self.datastore.clone();
        datastore.status = Some(after);
        self.context.applier.replace_status(&datastore).await.map(drop).map_err(DatastoreError::Status)
    }

    fn say(&self, observed: &Observed) {
        let events = &self.context.events;
        if let Some((reason, note)) = status::lever(self.datastore) {
            events.say(self.datastore, reason, note);
        }
        match &observed.placing {
            Placing::Write { entries, .. } => {
                let note = format!("{} placements added", entries.len());
                events.say(self.datastore, Reason::PlacementChanged, note);
            }
            Placing::Lost { served } => events.say(self.datastore, Reason::PlacementsLost, status::lost(served)),
            Placing::Wait { shards } => {
                let note = format!(
                    "new data goes to the new shards once they have a primary, and every pod of the query service their passwords: {}",
                    shards.join(", ")
                );
                events.say(self.datastore, Reason::PlacementWaits, note);
            }
            Placing::Settle { waiting, .. } if !waiting.is_empty() => {
                let names = waiting.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                let note = format!("new data goes to the new shards once it is known that the old ones stop: {names}");
                events.say(self.datastore, Reason::PlacementWaits, note);
            }
            Placing::Keep | Placing::NeedEnds | Placing::Settle { .. } => {}
        }
        match &observed.secrets {
            SecretFact::Missing(names) => {
                let note = format!("Secret {names} is not there; pods that mount it wait for it");
                events.say(self.datastore, Reason::SecretMissing, note);
            }
            SecretFact::Unusable(why) => events.say(self.datastore, Reason::TokensUnusable, why.clone()),
            SecretFact::Present | SecretFact::Unknown => {}
        }
    }
}
