//! What turns changes of the cluster into passes over objects: one at a time per object, several objects at once. I/O.
//!
//! It is kube's own scheduler, fed from the shared caches instead of from watches of its own.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::ready;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Action, Config, ReconcileReason, ReconcileRequest, applier};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt};
use tokio::sync::broadcast::error::RecvError;

use crate::apply::ApplyError;
use crate::backoff::Backoff;
use crate::cache::{Cache, Change, Held, Kind, Touched};
use crate::context::Context;
pub use crate::errors::chain;
use crate::events::Reason;
use crate::metrics::{OfKind, Outcome};
use crate::troubles::Trouble;

/// Objects of a kind that are passed over at once.
const AT_ONCE: u16 = 8;
/// Changes that come faster than this are taken together.
const TOGETHER: Duration = Duration::from_millis(100);

/// Between two looks at an object of which nothing is to be done.
const UNHURRIED: Duration = Duration::from_secs(600);

/// When to pass over the object again though nothing changed.
pub type Again = Duration;

/// One pass over an object.
pub type Pass<K, E> = for<'a> fn(Held<K>, &'a Context) -> BoxFuture<'a, Result<Again, E>>;

/// One pass over an object that was deleted.
pub type Leave<E> = for<'a> fn(&'a ObjectMeta, &'a Context) -> BoxFuture<'a, Result<Again, E>>;

/// For a kind of which nothing is left to do by hand when an object is deleted.
pub fn let_go<'a, E: Failure>(_: &'a ObjectMeta, _: &'a Context) -> BoxFuture<'a, Result<Again, E>> {
    ready(Ok(UNHURRIED)).boxed()
}

/// A pass over an object that failed.
pub trait Failure: Error + Send + Sync + 'static {
    /// The step that failed, from a closed set.
    fn label(&self) -> &'static str;
    /// What the API server did not do, when that is the failure.
    fn unwritten(&self) -> Option<&ApplyError> {
        None
    }
    /// Whether another write came first: the next pass sees it, and nobody needs to know.
    fn is_conflict(&self) -> bool {
        self.unwritten().is_some_and(ApplyError::is_conflict)
    }
}

/// What a person has to put right, if that is why the pass failed.
pub fn trouble_of(failure: &impl Failure) -> Option<Trouble> {
    let trouble = Trouble::of(failure.unwritten()?)?;
    Some(Trouble { message: chain(failure), ..trouble })
}

/// A controller of one kind.
pub struct Controller<K: Resource<DynamicType = ()> + Clone + 'static, E> {
    /// The kind.
    pub kind: Kind,
    /// Its objects.
    pub cache: Cache<K>,
    /// Which of its objects, by namespace and name, a change concerns.
    pub concerns: fn(&Touched, &Context) -> Vec<(String, String)>,
    /// One pass.
    pub pass: Pass<K, E>,
    /// One pass over an object that was deleted and is still there, malformed or not.
    pub leave: Leave<E>,
}

impl<K, E> Controller<K, E>
where
    K: Resource<DynamicType = ()> + Clone + fmt::Debug + Send + Sync + 'static,
    E: Failure,
{
    /// Runs until the context is stopped.
    pub fn start(self, context: &Context) {
        let queue = self.queue(context);
        let store = self.cache.store();
        let passes = Arc::new(Passes {
            context: context.clone(),
            kind: self.kind,
            pass: self.pass,
            leave: self.leave,
            backoff: Backoff::default(),
        });
        let controlled = applier(
            |object: Arc<DeserializeGuard<K>>, passes: Arc<Passes<K, E>>| {
                Box::pin(async move { Ok::<_, Infallible>(passes.over(object).await) })
            },
            |_, error: &Infallible, _| match *error {},
            passes,
            store,
            queue,
            Config::default().concurrency(AT_ONCE).debounce(TOGETHER),
        );
        let (stop, kind) = (context.stop.clone(), self.kind);
        context.tasks.spawn(async move {
            let passes = controlled.for_each(|outcome| async move {
                if let Err(error) = outcome {
                    // The object went away between being queued and being looked up.
                    tracing::debug!(%kind, %error, "no pass");
                }
            });
            stop.run_until_cancelled(passes).await;
        });
    }

    /// What to pass over: everything at first, after a gap, and when this instance begins to lead; else what changes concern.
    fn queue(
        &self,
        context: &Context,
    ) -> impl Stream<Item = Result<ReconcileRequest<DeserializeGuard<K>>, Infallible>> + Send + 'static {
        let source = Source {
            context: context.clone(),
            kind: self.kind,
            store: self.cache.store(),
            changes: context.caches.changes(),
            concerns: self.concerns,
            begun: false,
        };
        stream::unfold(source, |mut source| async move { Some((source.next().await, source)) })
            .flat_map(|objects| stream::iter(objects.into_iter().map(Ok)))
    }
}

struct Source<K: Resource<DynamicType = ()> + Clone + 'static> {
    context: Context,
    kind: Kind,
    store: Store<DeserializeGuard<K>>,
    changes: tokio::sync::broadcast::Receiver<Change>,
    concerns: fn(&Touched, &Context) -> Vec<(String, String)>,
    begun: bool,
}

type Request<K> = ReconcileRequest<DeserializeGuard<K>>;

impl<K: Resource<DynamicType = ()> + Clone + 'static> Source<K> {
    async fn next(&mut self) -> Vec<Request<K>> {
        if !std::mem::replace(&mut self.begun, true) {
            return self.all();
        }
        tokio::select! {
            change = self.changes.recv() => match change {
                Ok(Change::Touched(touched)) => self.concerned(&touched),
                Ok(Change::Resynced(kind)) if kind == self.kind => self.all(),
                Ok(Change::Resynced(_)) => Vec::new(),
                Err(RecvError::Lagged(missed)) => {
                    tracing::info!(kind = %self.kind, missed, "behind the changes, looking at everything");
                    self.all()
                }
                Err(RecvError::Closed) => std::future::pending().await,
            },
            going_on = self.context.leading.changed() => match going_on {
                true if self.context.leading.is_leading() => self.all(),
                true => Vec::new(),
                false => std::future::pending().await,
            },
        }
    }

    fn concerned(&self, touched: &Touched) -> Vec<Request<K>> {
        let objects = (self.concerns)(touched, &self.context);
        objects.into_iter().map(|(namespace, name)| request(ObjectRef::new(&name).within(&namespace))).collect()
    }

    fn all(&self) -> Vec<Request<K>> {
        self.store.state().iter().map(|object| request(ObjectRef::from_obj(&**object))).collect()
    }
}

fn request<K: Resource<DynamicType = ()> + Clone>(obj_ref: ObjectRef<DeserializeGuard<K>>) -> Request<K> {
    ReconcileRequest { obj_ref, reason: ReconcileReason::Unknown }
}

struct Passes<K: Clone, E> {
    context: Context,
    kind: Kind,
    pass: Pass<K, E>,
    leave: Leave<E>,
    backoff: Backoff<(String, String)>,
}

impl<K, E> Passes<K, E>
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
    E: Failure,
{
    async fn over(&self, object: Arc<DeserializeGuard<K>>) -> Action {
        let leaves = object.meta().deletion_timestamp.is_some();
        let held = Held::new(object.clone());
        if held.is_none() && !leaves {
            return Action::await_change();
        }
        if !self.context.leading.is_leading() {
            return Action::await_change();
        }
        let key = (object.namespace().unwrap_or_default(), object.name_any());
        let started = Instant::now();
        let outcome = match held.filter(|_| !leaves) {
            Some(held) => (self.pass)(held, &self.context).await,
            None => (self.leave)(object.meta(), &self.context).await,
        };
        self.count(started, outcome.as_ref().err().map_or("ok", Failure::label));
        match outcome {
            Ok(again) => {
                self.backoff.succeeded(&key);
                Action::requeue(again)
            }
            Err(error) if error.is_conflict() => {
                tracing::debug!(kind = %self.kind, object = %key.1, error = %chain(&error), "another write came first");
                Action::requeue(TOGETHER)
            }
            Err(error) => {
                let reason = trouble_of(&error).map_or(Reason::ReconcileFailed, |trouble| trouble.reason);
                self.context.events.say(&*object, reason, chain(&error));
                Action::requeue(self.backoff.failed(key))
            }
        }
    }

    fn count(&self, started: Instant, outcome: &'static str) {
        let metrics = &self.context.metrics;
        let kind = self.kind.into();
        metrics.reconciles.get_or_create(&Outcome { kind, outcome }).inc();
        metrics.reconcile_seconds.get_or_create(&OfKind { kind }).observe(started.elapsed().as_secs_f64());
    }
}
