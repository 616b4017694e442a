//! What is known of the cluster, by watching. I/O.
//!
//! One watch a kind feeds one store; every change is announced on a broadcast channel, so that controllers and stages
//! take what concerns them without watches of their own. An object that does not parse stays in the store as malformed:
//! it is reported, it is nobody's object, and it stops no other.

use std::fmt;
use std::hash::Hash;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use backon::ExponentialBuilder;
use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::{DeserializeGuard, NamespaceResourceScope};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event, ExponentialBackoff};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use understudy_api::{Consumer, Datastore, Drill, Failover, Replica, Shard};

use crate::apply::MANAGED_BY;

/// Changes that a slow listener may be behind before it is told to look at everything.
const BACKLOG: usize = 4096;

/// The kinds that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::Display, strum::IntoStaticStr)]
pub enum Kind {
    /// Of ours.
    Datastore,
    /// Of ours.
    Shard,
    /// Of ours.
    Replica,
    /// Of ours.
    Consumer,
    /// Of ours.
    Failover,
    /// Of ours.
    Drill,
    /// Made by us.
    Pod,
    /// Made by us.
    PersistentVolumeClaim,
    /// Made by us.
    Deployment,
    /// Made by us.
    Service,
    /// Made by us.
    PodDisruptionBudget,
    /// All of them.
    Node,
}

/// What happened in the cluster.
#[derive(Clone, Debug)]
pub enum Change {
    /// An object was made, changed or deleted.
    Touched(Touched),
    /// A watch began again: anything of this kind may have changed.
    Resynced(Kind),
}

/// Which object changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for a Node.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Kind and name of the object that controls it.
    pub owner: Option<(String, String)>,
    /// The label `understudy.dev/shard`.
    pub shard: Option<String>,
    /// The label `understudy.dev/datastore`.
    pub datastore: Option<String>,
    /// Whether it was deleted.
    pub deleted: bool,
}

impl Touched {
    fn of(kind: Kind, object: &impl ResourceExt, deleted: bool) -> Self {
        let label = |key: &str| object.labels().get(key).cloned();
        let owner = object.owner_references().iter().find(|owner| owner.controller == Some(true));
        Self {
            kind,
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            owner: owner.map(|owner| (owner.kind.clone(), owner.name.clone())),
            shard: label(understudy_api::labels::SHARD),
            datastore: label(understudy_api::labels::DATASTORE),
            deleted,
        }
    }
}

/// An object as it was when it was read from a cache. Shows only its readable side.
pub struct Held<K: Clone>(Arc<DeserializeGuard<K>>);

impl<K: Clone> Clone for Held<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Clone> Held<K> {
    /// `None` when the object is malformed.
    pub fn new(object: Arc<DeserializeGuard<K>>) -> Option<Self> {
        object.0.is_ok().then_some(Self(object))
    }
}

impl<K: Clone> Deref for Held<K> {
    type Target = K;

    fn deref(&self) -> &K {
        self.0.0.as_ref().expect("a malformed object is never held")
    }
}

impl<K: Clone + fmt::Debug> fmt::Debug for Held<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// All objects of one kind.
pub struct Cache<K: Resource<DynamicType = ()> + Clone + 'static> {
    store: Store<DeserializeGuard<K>>,
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone() }
    }
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Cache<K> {
    /// The store, malformed objects included.
    pub fn store(&self) -> Store<DeserializeGuard<K>> {
        self.store.clone()
    }

    /// An object by name. `None` when there is none, or when it is malformed.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Held<K>> {
        Held::new(self.store.get(&ObjectRef::new(name).within(namespace))?)
    }

    /// Whether there is such an object, malformed or not.
    pub fn is_there(&self, namespace: &str, name: &str) -> bool {
        self.store.get(&ObjectRef::new(name).within(namespace)).is_some()
    }

    /// The UID of an object that was deleted and is still there, malformed or not.
    pub fn leaving(&self, namespace: &str, name: &str) -> Option<String> {
        let object = self.store.get(&ObjectRef::new(name).within(namespace))?;
        object.meta().deletion_timestamp.as_ref()?;
        object.meta().uid.clone()
    }

    /// All well-formed objects of a namespace.
    pub fn within(&self, namespace: &str) -> Vec<Held<K>> {
        self.filter(|meta| meta.namespace.as_deref() == Some(namespace))
    }

    /// All well-formed objects of a namespace that have this label.
    pub fn labelled(&self, namespace: &str, key: &str, value: &str) -> Vec<Held<K>> {
        self.filter(|meta| {
            meta.namespace.as_deref() == Some(namespace)
                && meta.labels.as_ref().and_then(|labels| labels.get(key)).is_some_and(|found| found == value)
        })
    }

    /// All well-formed objects.
    pub fn all(&self) -> Vec<Held<K>> {
        self.filter(|_| true)
    }

    fn filter(
        &self,
        wanted: impl Fn(&k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> bool,
    ) -> Vec<Held<K>> {
        self.store.state_filter(|object| wanted(object.meta())).into_iter().filter_map(Held::new).collect()
    }
}

/// The caches of every kind, and the channel on which changes are announced.
#[derive(Clone)]
pub struct Caches {
    /// Of ours.
    pub datastores: Cache<Datastore>,
    /// Of ours.
    pub shards: Cache<Shard>,
    /// Of ours.
    pub replicas: Cache<Replica>,
    /// Of ours.
    pub consumers: Cache<Consumer>,
    /// Of ours.
    pub failovers: Cache<Failover>,
    /// Of ours.
    pub drills: Cache<Drill>,
    /// Made by us.
    pub pods: Cache<Pod>,
    /// Made by us.
    pub claims: Cache<PersistentVolumeClaim>,
    /// Made by us.
    pub deployments: Cache<Deployment>,
    /// Made by us.
    pub services: Cache<Service>,
    /// Made by us.
    pub budgets: Cache<PodDisruptionBudget>,
    /// All of them.
    pub nodes: Cache<Node>,
    changes: broadcast::Sender<Change>,
}

/// Told of each malformed object, once per version of it.
pub type OnMalformed = Arc<dyn Fn(Kind, Malformed) + Send + Sync>;

/// An object that does not parse.
#[derive(Clone, Debug)]
pub struct Malformed {
    /// Where it is.
    pub reference: k8s_openapi::api::core::v1::ObjectReference,
    /// The generation of its spec.
    pub generation: Option<i64>,
    /// What is wrong.
    pub error: String,
}

struct Starter<'a> {
    client: &'a Client,
    scope: Option<&'a str>,
    changes: broadcast::Sender<Change>,
    malformed: OnMalformed,
    tasks: &'a TaskTracker,
    stop: &'a CancellationToken,
}

impl Caches {
    /// Starts every watch. `scope` is the one namespace to watch, or all.
    pub fn start(
        client: &Client,
        scope: Option<&str>,
        malformed: OnMalformed,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let (changes, _) = broadcast::channel(BACKLOG);
        let starter = Starter { client, scope, changes: changes.clone(), malformed, tasks, stop };
        let ours = watcher::Config::default;
        let made = || watcher::Config::default().labels(&format!("{}={}", MANAGED_BY.0, MANAGED_BY.1));
        Self {
            datastores: starter.namespaced(Kind::Datastore, ours()),
            shards: starter.namespaced(Kind::Shard, ours()),
            replicas: starter.namespaced(Kind::Replica, ours()),
            consumers: starter.namespaced(Kind::Consumer, ours()),
            failovers: starter.namespaced(Kind::Failover, ours()),
            drills: starter.namespaced(Kind::Drill, ours()),
            pods: starter.namespaced(Kind::Pod, made()),
            claims: starter.namespaced(Kind::PersistentVolumeClaim, made()),
            deployments: starter.namespaced(Kind::Deployment, made()),
            services: starter.namespaced(Kind::Service, made()),
            budgets: starter.namespaced(Kind::PodDisruptionBudget, made()),
            nodes: starter.start(Kind::Node, Api::all(client.clone()), watcher::Config::default()),
            changes,
        }
    }

    /// Changes from now on. A listener that falls behind gets `Lagged` and must look at everything.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// Waits until every cache has been filled once.
    pub async fn filled(&self) {
        async fn ready<K: Resource<DynamicType = ()> + Clone + 'static>(cache: &Cache<K>) {
            // It fails only when the watch was stopped, and then nobody waits for long.
            if cache.store.wait_until_ready().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        tokio::join!(
            ready(&self.datastores),
            ready(&self.shards),
            ready(&self.replicas),
            ready(&self.consumers),
            ready(&self.failovers),
            ready(&self.drills),
            ready(&self.pods),
            ready(&self.claims),
            ready(&self.deployments),
            ready(&self.services),
            ready(&self.budgets),
            ready(&self.nodes),
        );
    }
}

impl Starter<'_> {
    fn namespaced<K>(&self, kind: Kind, config: watcher::Config) -> Cache<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static,
    {
        let api = match self.scope {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        self.start(kind, api, config)
    }

    fn start<K>(&self, kind: Kind, api: Api<DeserializeGuard<K>>, config: watcher::Config) -> Cache<K>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static,
    {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(200))
            .with_max_delay(Duration::from_secs(5))
            .with_jitter()
            .without_max_times();
        let stream = watch::watcher(api, config).backoff(ExponentialBackoff::from(pauses)).modify(|object| {
            object.meta_mut().managed_fields = None;
        });
        let (store, task) = follow(kind, stream, self.changes.clone(), self.malformed.clone());
        let stop = self.stop.clone();
        self.tasks.spawn(async move { stop.run_until_cancelled(task).await });
        Cache { store }
    }
}

/// Feeds a store from a watch and announces what changes.
fn follow<K, S>(
    kind: Kind,
    stream: S,
    changes: broadcast::Sender<Change>,
    malformed: OnMalformed,
) -> (Store<DeserializeGuard<K>>, impl Future<Output = ()> + Send)
where
    K: Resource<DynamicType = ()> + Clone + fmt::Debug + Send + Sync + 'static,
    S: Stream<Item = Result<Event<DeserializeGuard<K>>, watcher::Error>> + Send + 'static,
{
    let (reader, writer) = reflector::store::<DeserializeGuard<K>>();
    let announce = move |change| {
        // No listener is no fault: they come and go.
        drop(changes.send(change));
    };
    let task = async move {
        let mut stream = std::pin::pin!(stream.reflect(writer).inspect_err(move |error| {
            tracing::warn!(%kind, %error, "watch interrupted");
        }));
        while let Some(event) = stream.next().await {
            let Ok(event) = event else { continue };
            if let Event::Apply(object) | Event::InitApply(object) = &event
                && let Err(invalid) = &object.0
            {
                let error = invalid.error.clone();
                let generation = object.meta().generation;
                malformed(kind, Malformed { reference: object.object_ref(&()), generation, error });
            }
            match event {
                Event::Apply(object) => announce(Change::Touched(Touched::of(kind, &object, false))),
                Event::Delete(object) => announce(Change::Touched(Touched::of(kind, &object, true))),
                Event::InitDone => announce(Change::Resynced(kind)),
                Event::Init | Event::InitApply(_) => {}
            }
        }
    };
    (reader, task)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::json;

    use super::*;

    fn shard(name: &str, replicas: serde_json::Value) -> DeserializeGuard<Shard> {
        serde_json::from_value(json!({
            "apiVersion": "understudy.dev/v1alpha1", "kind": "Shard",
            "metadata": { "name": name, "namespace": "default", "resourceVersion": "1" },
            "spec": { "replicas": replicas, "mysql": { "image": "mysql:8.4" }, "storage": { "size": "1Gi" } },
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn a_malformed_object_is_reported_and_stops_no_other() {
        let (changes, mut heard) = broadcast::channel(16);
        let reported = Arc::new(Mutex::new(Vec::new()));
        let sink = reported.clone();
        let malformed: OnMalformed = Arc::new(move |_, malformed| sink.lock().unwrap().push(malformed.error));
        let events = vec![
            Ok(Event::Init),
            Ok(Event::InitApply(shard("good", json!(3)))),
            Ok(Event::InitApply(shard("bad", json!("three")))),
            Ok(Event::InitDone),
            Ok(Event::Apply(shard("later", json!(1)))),
            Ok(Event::Delete(shard("bad", json!("three")))),
        ];
        let (store, task) = follow::<Shard, _>(Kind::Shard, futures::stream::iter(events), changes, malformed);
        let cache = Cache { store };
        task.await;
        let mut names: Vec<_> = cache.within("default").iter().map(|shard| shard.name_any()).collect();
        names.sort();
        assert_eq!(names, ["good", "later"]);
        assert_eq!(reported.lock().unwrap().len(), 1);
        assert!(matches!(heard.recv().await.unwrap(), Change::Resynced(Kind::Shard)));
        assert!(matches!(heard.recv().await.unwrap(), Change::Touched(Touched { name, .. }) if name == "later"));
        assert!(matches!(heard.recv().await.unwrap(), Change::Touched(Touched { deleted: true, .. })));
    }

    #[tokio::test]
    async fn a_malformed_object_is_nobodys() {
        let (changes, _heard) = broadcast::channel(16);
        let events = vec![Ok(Event::Apply(shard("bad", json!({}))))];
        let (store, task) =
            follow::<Shard, _>(Kind::Shard, futures::stream::iter(events), changes, Arc::new(|_, _| {}));
        task.await;
        let cache = Cache { store };
        assert!(cache.get("default", "bad").is_none());
        assert_eq!(cache.store().len(), 1);
    }
}
