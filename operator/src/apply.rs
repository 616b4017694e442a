//! How objects are written: server-side, with one field manager per use, and not at all when nothing would change. I/O.
//!
//! What was applied is remembered for ten minutes: an equal object is not sent again unless the live one was changed by
//! somebody else or is gone. So a stable cluster costs no writes, and what somebody changed by hand is set right.
//!
//! Before anything is sent the live object is read past every cache: one that was not made for the same owner is left alone
//! ([`crate::ownership`]), and what is sent names the UID that was read.

mod applied;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

pub use self::applied::Live;
use self::applied::{Applied, Key};
use crate::errors::chain;
use crate::metrics::{Metrics, Write};
use crate::ownership::{Standing, standing};

/// The label that everything made by the operator has; watches select by it.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "understudy");

/// One field manager per use: two uses that apply the same object must not drop each other's fields.
pub mod manager {
    /// Children of a Datastore.
    pub const DATASTORE: &str = "understudy-datastore";
    /// Children of a Consumer.
    pub const CONSUMER: &str = "understudy-consumer";
    /// The operator's part of a Consumer's status.
    pub const CONSUMER_STATUS: &str = "understudy-consumer-status";
    /// Secrets, configuration and Services of a Shard.
    pub const FURNISH: &str = "understudy-furnish";
    /// Replicas, pods and volumes of a Shard.
    pub const SHARD: &str = "understudy-shard";
    /// Finalizers, and what is written on volumes when their Shard is deleted.
    pub const FAREWELL: &str = "understudy-farewell";
    /// Failovers that Drills ask for.
    pub const DRILL: &str = "understudy-drill";
    /// Role labels, moved when a replica's role changes.
    pub const ROLE: &str = "understudy-role";
    /// Status written whole.
    pub const STATUS: &str = "understudy-status";
}

const CALL: Duration = Duration::from_secs(10);

/// Why an object could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The API server answered with an error.
    #[error("cannot {verb} {kind} {name}: {}", said(error))]
    Api {
        /// What was tried.
        verb: &'static str,
        /// The object's kind.
        kind: String,
        /// The object's name.
        name: String,
        /// The answer.
        error: Box<kube::Error>,
    },
    /// The API server did not answer.
    #[error("cannot {verb} {kind} {name}: no answer within {CALL:?}")]
    Deadline {
        /// What was tried.
        verb: &'static str,
        /// The object's kind.
        kind: String,
        /// The object's name.
        name: String,
    },
    /// An object of this name exists and belongs to somebody else.
    #[error(
        "{kind} {name} is there and was not made by understudy for this object, so it is left alone: delete or rename it, and \
         this goes on by itself"
    )]
    NotOurs {
        /// The object's kind.
        kind: String,
        /// The object's name.
        name: String,
    },
    /// An object of this name is on its way out.
    #[error("{kind} {name} is being deleted")]
    Leaving {
        /// The object's kind.
        kind: String,
        /// The object's name.
        name: String,
    },
}

/// What the API server said, without the rest of its answer.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => chain(other),
    }
}

impl ApplyError {
    fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Api { error, .. } => match &**error {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether somebody else wrote first; the next pass sees what, so it is a normal outcome.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Leaving { .. }) || self.status().is_some_and(|status| status.is_conflict())
    }

    /// Whether it will be no better when it is tried again, until somebody changes something: a name that is taken, a quota, a
    /// policy, a missing right.
    pub fn is_refusal(&self) -> bool {
        let passes = |status: &kube::core::Status| {
            status.is_conflict()
                || status.is_not_found()
                || status.is_already_exists()
                || matches!(status.code, 401 | 408 | 429 | 502..=504)
        };
        matches!(self, Self::NotOurs { .. }) || self.status().is_some_and(|status| !passes(status))
    }

    /// Whether there is no such object.
    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(|status| status.is_not_found())
    }

    /// Whether an object of this name is already there.
    pub fn is_already_exists(&self) -> bool {
        self.status().is_some_and(|status| status.is_already_exists())
    }
}

/// Writes objects.
#[derive(Clone)]
pub struct Applier {
    client: Client,
    metrics: Arc<Metrics>,
    applied: Arc<Applied>,
}

impl fmt::Debug for Applier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Applier").finish_non_exhaustive()
    }
}

/// What an object must be to be written here.
pub trait Writable:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize + DeserializeOwned + Clone + fmt::Debug
{
}

impl<K> Writable for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize + DeserializeOwned + Clone + fmt::Debug
{
}

impl Applier {
    /// `client` should not retry by itself: calls have deadlines, and the next pass tries again.
    pub fn new(client: Client, metrics: Arc<Metrics>) -> Self {
        Self { client, metrics, applied: Arc::default() }
    }

    /// The client, for what has no method here.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The objects of a kind in a namespace.
    pub fn api<K: Writable>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Applies an object server-side, taking over fields that others set. Whether anything was sent.
    pub async fn apply<K: Writable>(&self, manager: &'static str, object: &K, live: Live) -> Result<bool, ApplyError> {
        let value = serde_json::to_value(object).unwrap_or(Value::Null);
        self.apply_as::<K>(manager, &object.namespace().unwrap_or_default(), &object.name_any(), value, live).await
    }

    /// The same for an object given as JSON, which may leave out fields that the type always has. With a UID in its metadata it is
    /// of exactly that object; without one, of the object that has an owner in common with it.
    pub async fn apply_as<K: Writable>(
        &self,
        manager: &'static str,
        namespace: &str,
        name: &str,
        mut value: Value,
        live: Live,
    ) -> Result<bool, ApplyError> {
        value["apiVersion"] = json!(K::api_version(&()));
        value["kind"] = json!(K::kind(&()));
        let hash = xxh3_64(value.to_string().as_bytes());
        let key =
            Key { manager, kind: K::kind(&()).into_owned(), namespace: namespace.to_owned(), name: name.to_owned() };
        let now = Instant::now();
        if self.applied.still_holds(&key, hash, &live, now) {
            return Ok(false);
        }
        if value["metadata"]["uid"].is_null()
            && let Some(uid) = self.own::<K>(namespace, name, &value).await?
        {
            value["metadata"]["uid"] = json!(uid);
        }
        let params = PatchParams::apply(manager).force();
        let patch = Patch::Apply(&value);
        let written: K =
            self.call::<K, _>("apply", name, self.api::<K>(namespace).patch(name, &params, &patch)).await?;
        self.applied.keep(key, hash, written.meta(), now);
        Ok(true)
    }

    /// The UID of the live object, if there is one; an error if it is not ours.
    async fn own<K: Writable>(
        &self,
        namespace: &str,
        name: &str,
        wanted: &Value,
    ) -> Result<Option<String>, ApplyError> {
        let Some(live) = self.get::<K>(namespace, name).await? else { return Ok(None) };
        let (kind, name) = (K::kind(&()).into_owned(), name.to_owned());
        match standing(live.meta(), wanted) {
            Standing::Ours => Ok(live.uid()),
            Standing::Leaving => Err(ApplyError::Leaving { kind, name }),
            Standing::Theirs => Err(ApplyError::NotOurs { kind, name }),
        }
    }

    /// Applies a part of an object's status server-side.
    pub async fn apply_status<K: Writable>(
        &self,
        manager: &'static str,
        object: &K,
        status: &impl Serialize,
    ) -> Result<(), ApplyError> {
        let name = object.name_any();
        let value = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": { "name": name },
            "status": status,
        });
        let params = PatchParams::apply(manager).force();
        let api = self.api::<K>(&object.namespace().unwrap_or_default());
        self.call::<K, _>("status", &name, api.patch_status(&name, &params, &Patch::Apply(&value))).await.map(drop)
    }

    /// Writes the whole status over exactly the version that `object` has; a conflict is an error of its own kind.
    pub async fn replace_status<K: Writable>(&self, object: &K) -> Result<K, ApplyError> {
        let name = object.name_any();
        let api = self.api::<K>(&object.namespace().unwrap_or_default());
        let params = PostParams { field_manager: Some(manager::STATUS.to_owned()), ..PostParams::default() };
        self.call::<K, _>("status", &name, api.replace_status(&name, &params, object)).await
    }

    /// Creates an object; one of this name being there is an error of its own kind.
    pub async fn create<K: Writable>(&self, manager: &'static str, object: &K) -> Result<K, ApplyError> {
        let name = object.name_any();
        let params = PostParams { field_manager: Some(manager.to_owned()), ..PostParams::default() };
        let api = self.api::<K>(&object.namespace().unwrap_or_default());
        self.call::<K, _>("create", &name, api.create(&params, object)).await
    }

    /// Changes a part of an object; with its uid and version in `patch`, of exactly that version of it.
    pub async fn merge<K: Writable>(
        &self,
        manager: &'static str,
        namespace: &str,
        name: &str,
        patch: Value,
    ) -> Result<K, ApplyError> {
        let params = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
        let api = self.api::<K>(namespace);
        self.call::<K, _>("merge", name, api.patch(name, &params, &Patch::Merge(&patch))).await
    }

    /// Reads an object past every cache.
    pub async fn get<K: Writable>(&self, namespace: &str, name: &str) -> Result<Option<K>, ApplyError> {
        self.timed::<K, _>("get", name, self.api::<K>(namespace).get_opt(name)).await
    }

    /// Deletes exactly the object that was seen: same uid, same version. Its being gone already is success.
    pub async fn delete<K: Writable>(&self, seen: &K, grace: Option<u32>) -> Result<(), ApplyError> {
        let name = seen.name_any();
        let params = DeleteParams {
            grace_period_seconds: grace,
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: Some(Preconditions { uid: seen.uid(), resource_version: seen.resource_version() }),
            ..DeleteParams::default()
        };
        let namespace = seen.namespace().unwrap_or_default();
        let api = self.api::<K>(&namespace);
        self.applied.forget(&K::kind(&()), &namespace, &name);
        match self.call::<K, _>("delete", &name, api.delete(&name, &params)).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A write, counted, within the deadline of every call.
    pub(crate) async fn call<K: Writable, T>(
        &self,
        verb: &'static str,
        name: &str,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ApplyError> {
        self.metrics.writes.get_or_create(&Write { kind: K::kind(&()).into_owned(), verb }).inc();
        self.timed::<K, _>(verb, name, call).await
    }

    /// A call within the deadline of every call.
    pub(crate) async fn timed<K: Writable, T>(
        &self,
        verb: &'static str,
        name: &str,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ApplyError> {
        let (kind, name) = (K::kind(&()).into_owned(), name.to_owned());
        match tokio::time::timeout(CALL, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(ApplyError::Api { verb, kind, name, error: Box::new(error) }),
            Err(_) => Err(ApplyError::Deadline { verb, kind, name }),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;
    use crate::fake::FakeApi;

    fn config(owner: &str, text: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {
                "name": "m-mysql", "namespace": "prod",
                "ownerReferences": [{ "apiVersion": "understudy.dev/v1alpha1", "kind": "Shard", "name": "m", "uid": owner }],
            },
            "data": { "my.cnf": text },
        })
    }

    async fn apply(applier: &Applier, object: Value) -> Result<bool, ApplyError> {
        let object: ConfigMap = serde_json::from_value(object).unwrap();
        applier.apply(manager::FURNISH, &object, Live::Unwatched).await
    }

    #[tokio::test]
    async fn an_object_of_somebody_else_is_left_as_it_is() {
        let mut theirs = config("u1", "their own");
        theirs["metadata"].as_object_mut().unwrap().remove("ownerReferences");
        let api = FakeApi::with([theirs]);
        let error = apply(&api.applier(), config("u1", "ours")).await.unwrap_err();
        assert!(error.is_refusal() && !error.is_conflict(), "{error}");
        let words = error.to_string();
        assert!(words.contains("ConfigMap m-mysql") && words.contains("delete or rename it"), "{words}");
        assert_eq!(api.object("configmaps/m-mysql").unwrap()["data"]["my.cnf"], "their own");
        assert!(api.writes().is_empty(), "{:?}", api.writes());
    }

    #[tokio::test]
    async fn an_object_of_ours_is_made_and_set_right() {
        let api = FakeApi::default();
        let applier = api.applier();
        assert!(apply(&applier, config("u1", "one")).await.unwrap());
        assert!(!apply(&applier, config("u1", "one")).await.unwrap(), "nothing changed");
        assert!(apply(&applier, config("u1", "two")).await.unwrap());
        assert_eq!(api.object("configmaps/m-mysql").unwrap()["data"]["my.cnf"], "two");
    }

    #[tokio::test]
    async fn one_that_was_put_in_the_place_of_ours_is_not_ours() {
        let api = FakeApi::default();
        let applier = api.applier();
        apply(&applier, config("u1", "one")).await.unwrap();
        api.change("configmaps/m-mysql", |object| {
            object["metadata"]["uid"] = json!("another");
            object["metadata"]["ownerReferences"] = json!([]);
        });
        assert!(matches!(apply(&applier, config("u1", "two")).await, Err(ApplyError::NotOurs { .. })));
    }

    #[tokio::test]
    async fn what_an_earlier_object_of_the_name_left_is_waited_for() {
        let api = FakeApi::with([config("u0", "old")]);
        let error = apply(&api.applier(), config("u1", "new")).await.unwrap_err();
        assert!(error.is_conflict() && !error.is_refusal(), "{error}");
        assert_eq!(api.object("configmaps/m-mysql").unwrap()["data"]["my.cnf"], "old");
    }
}
