//! The cluster: lists with limits, reads, writes, and a watch to wait by; each with a deadline. I/O.

mod error;

use std::time::Duration;

use futures::StreamExt;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Config, ResourceExt};
use serde_json::Value;
use tokio::time::Instant;
use understudy_api::GROUP;

use self::error::{DEADLINE, failed, is_final, is_object_missing, known, trouble};
use crate::args::{Global, Name};
use crate::objects::Kind;

pub use self::error::ClusterError;

/// Objects of one answer.
const PAGE: u32 = 200;
/// Answers of one list: whoever has more of a kind in one namespace is told so.
const PAGES: usize = 25;
/// How this program calls itself in the fields that it writes.
const MANAGER: &str = "kubectl-understudy";
/// Seconds after which a watch is begun anew, so that a connection that is dead without a word is not listened to for minutes.
const WATCH: u32 = 30;

/// What a list came to.
#[derive(Debug)]
pub struct Listed {
    /// The objects.
    pub objects: Vec<DynamicObject>,
    /// Whether these are all.
    pub is_whole: bool,
}

/// One namespace of a cluster.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    namespace: String,
    server: String,
    operator_namespace: Option<String>,
}

impl Cluster {
    /// The cluster and namespace that the options name. Nothing is asked yet.
    pub async fn connect(global: &Global) -> Result<Self, ClusterError> {
        let mut config = config_of(global).await?;
        // A request that was answered too late may have been carried out: it is not sent twice.
        config.default_retry = false;
        let namespace =
            global.namespace.as_ref().map_or_else(|| config.default_namespace.clone(), |name| name.as_str().to_owned());
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let operator_namespace = global.operator_namespace.as_ref().map(Name::to_string);
        let client = Client::try_from(config).map_err(|error| ClusterError::Config(error.into()))?;
        Ok(Self { client, namespace, server, operator_namespace })
    }

    /// Where everything is looked for.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Address of the API server.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Where the operator runs, if that was said.
    pub fn operator_namespace(&self) -> Option<&str> {
        self.operator_namespace.as_deref()
    }

    fn api(&self, kind: Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource(kind))
    }

    fn failed(&self, what: &str, kind: Kind, error: kube::Error) -> ClusterError {
        failed(&self.server, what, kind, error)
    }

    async fn in_time<T>(
        &self,
        what: &str,
        hint: &'static str,
        call: impl Future<Output = T>,
    ) -> Result<T, ClusterError> {
        let too_late = |_| ClusterError::TooLate { what: format!("{what} at {}", self.server), hint };
        tokio::time::timeout(DEADLINE, call).await.map_err(too_late)
    }

    /// All of a kind, as far as the limits go.
    pub async fn list(&self, kind: Kind, fields: Option<&str>) -> Result<Listed, ClusterError> {
        let api = self.api(kind);
        let what = format!("list the {} of namespace {}", kind.plural(), self.namespace);
        let mut params = ListParams { field_selector: fields.map(str::to_owned), ..ListParams::default() }.limit(PAGE);
        let mut objects = Vec::new();
        for _ in 0..PAGES {
            let page = self.in_time(&what, "", api.list(&params)).await?;
            let page = page.map_err(|error| self.failed(&what, kind, error))?;
            objects.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(Listed { objects, is_whole: true }),
            }
        }
        Ok(Listed { objects, is_whole: false })
    }

    /// Those of a kind that have this name, one in each namespace at most. Whoever may read them by this name only is allowed that.
    pub async fn everywhere(&self, kind: Kind, name: &str) -> Result<Vec<DynamicObject>, ClusterError> {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource(kind));
        let what = format!("list the {} of all namespaces that are called {name}", kind.plural());
        let params = ListParams::default().fields(&format!("metadata.name={name}"));
        let listed = self.in_time(&what, "", api.list(&params)).await?;
        listed.map(|list| list.items).map_err(|error| self.failed(&what, kind, error))
    }

    /// One object, or none when there is no such.
    pub async fn find(&self, kind: Kind, name: &str) -> Result<Option<DynamicObject>, ClusterError> {
        self.find_in(&self.namespace, kind, name).await
    }

    /// One object of another namespace, or none when there is no such.
    pub async fn find_in(
        &self,
        namespace: &str,
        kind: Kind,
        name: &str,
    ) -> Result<Option<DynamicObject>, ClusterError> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource(kind));
        let what = format!("read the {} {name} of namespace {namespace}", kind.name());
        match self.in_time(&what, "", api.get(name)).await? {
            Ok(object) => Ok(Some(object)),
            Err(error) if is_object_missing(&error, kind) => Ok(None),
            Err(error) => Err(self.failed(&what, kind, error)),
        }
    }

    /// One object that must be there. Else the error names those that are.
    pub async fn get(&self, kind: Kind, name: &str) -> Result<DynamicObject, ClusterError> {
        match self.find(kind, name).await? {
            Some(object) => Ok(object),
            None => Err(self.not_found(kind, name).await),
        }
    }

    /// That there is none of this name, with those that there are as far as they can be read.
    pub async fn not_found(&self, kind: Kind, name: &str) -> ClusterError {
        let params = ListParams::default().limit(PAGE);
        let listed = self.in_time("", "", self.api(kind).list_metadata(&params)).await;
        let names: Vec<_> = match listed {
            Ok(Ok(mut list)) => {
                // The latest ones are told when there are many.
                list.items.sort_by_key(|item| item.metadata.creation_timestamp.as_ref().map(|made| made.0));
                list.items.iter().map(ResourceExt::name_any).collect()
            }
            Ok(Err(_)) | Err(_) => Vec::new(),
        };
        ClusterError::NotFound {
            kind: kind.name(),
            name: name.to_owned(),
            namespace: self.namespace.clone(),
            server: self.server.clone(),
            known: known(&names),
        }
    }

    /// Makes an object that the API server names.
    pub async fn create(&self, kind: Kind, object: &DynamicObject) -> Result<DynamicObject, ClusterError> {
        let what = format!("create a {}", kind.name());
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let hint = "; it may have been made all the same, see `kubectl get failovers`";
        let made = self.in_time(&what, hint, self.api(kind).create(&params, object)).await?;
        made.map_err(|error| self.failed(&what, kind, error))
    }

    /// Changes fields of an object that must be there.
    pub async fn merge(&self, kind: Kind, name: &str, patch: &Value) -> Result<DynamicObject, ClusterError> {
        let what = format!("change the {} {name}", kind.name());
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let hint = "; it may have been changed all the same";
        match self.in_time(&what, hint, self.api(kind).patch(name, &params, &Patch::Merge(patch))).await? {
            Ok(object) => Ok(object),
            Err(error) if is_object_missing(&error, kind) => Err(self.not_found(kind, name).await),
            Err(error) => Err(self.failed(&what, kind, error)),
        }
    }

    /// Shows an object each time that it changes, until `is_it`; none when that took longer than the limit. A connection that breaks is made
    /// anew; of each time that it breaks `lost` is told once.
    pub async fn follow(
        &self,
        kind: Kind,
        name: &str,
        limit: Duration,
        mut is_it: impl FnMut(&DynamicObject) -> bool,
        mut lost: impl FnMut(ClusterError),
    ) -> Result<Option<DynamicObject>, ClusterError> {
        let config = watcher::Config::default().fields(&format!("metadata.name={name}")).timeout(WATCH);
        let mut events = std::pin::pin!(watcher(self.api(kind), config).default_backoff());
        let what = format!("watch the {} {name}", kind.name());
        let end = Instant::now() + limit;
        let deleted = || ClusterError::Deleted { kind: kind.name(), name: name.to_owned() };
        let mut is_there = false;
        let mut is_told = false;
        loop {
            let event = match tokio::time::timeout_at(end, events.next()).await {
                Ok(Some(event)) => event,
                Ok(None) | Err(_) => return Ok(None),
            };
            let object = match event {
                Ok(Event::Init) => {
                    is_there = false;
                    continue;
                }
                Ok(Event::InitDone) if is_there => continue,
                Ok(Event::InitDone | Event::Delete(_)) => return Err(deleted()),
                Ok(Event::Apply(object) | Event::InitApply(object)) => object,
                Err(error) => {
                    let ends = is_final(&error);
                    match trouble(error).map(|error| self.failed(&what, kind, error)) {
                        Some(error) if ends => return Err(error),
                        // The watcher tries again by itself, with a backoff, until the limit.
                        Some(error) if !is_told => {
                            is_told = true;
                            lost(error);
                        }
                        Some(_) | None => {}
                    }
                    continue;
                }
            };
            is_there = true;
            is_told = false;
            if is_it(&object) {
                return Ok(Some(object));
            }
        }
    }
}

async fn config_of(global: &Global) -> Result<Config, ClusterError> {
    let options = KubeConfigOptions { context: global.context.clone(), ..KubeConfigOptions::default() };
    let unknown = |error: kube::config::KubeconfigError| ClusterError::Config(error.into());
    match (&global.kubeconfig, &global.context) {
        (Some(path), _) => {
            let file = Kubeconfig::read_from(path).map_err(unknown)?;
            Config::from_custom_kubeconfig(file, &options).await.map_err(unknown)
        }
        (None, Some(_)) => Config::from_kubeconfig(&options).await.map_err(unknown),
        (None, None) => Config::infer().await.map_err(|error| ClusterError::Config(error.into())),
    }
}

fn resource(kind: Kind) -> ApiResource {
    let (group, version, api_version) = match kind {
        Kind::Event => ("", "v1", "v1".to_owned()),
        Kind::Lease => ("coordination.k8s.io", "v1", "coordination.k8s.io/v1".to_owned()),
        _ => (GROUP, "v1alpha1", format!("{GROUP}/v1alpha1")),
    };
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version,
        kind: kind.name().to_owned(),
        plural: kind.plural().to_owned(),
    }
}
