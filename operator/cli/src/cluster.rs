//! The cluster: lists with limits, reads, writes, and a watch to wait by; each with a deadline. I/O.

use std::error::Error as StdError;
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

use crate::args::Global;
use crate::objects::Kind;

/// No single call takes longer.
const DEADLINE: Duration = Duration::from_secs(15);
/// Objects of one answer.
const PAGE: u32 = 200;
/// Answers of one list: whoever has more of a kind in one namespace is told so.
const PAGES: usize = 25;
/// How this program calls itself in the fields that it writes.
const MANAGER: &str = "kubectl-understudy";
/// Names that are told when one is not found.
const KNOWN: usize = 10;

/// What went wrong between here and the cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No way to a cluster is known.
    #[error("which cluster is not known: give --kubeconfig and --context, or set KUBECONFIG")]
    Config(#[source] Box<dyn StdError + Send + Sync>),
    /// It did not answer, or not in a way that is understood.
    #[error("{what}: no answer of the API server")]
    Unreachable {
        /// What was asked.
        what: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// It did not answer in time.
    #[error("{what}: the API server did not answer within {} s{hint}", DEADLINE.as_secs())]
    TooLate {
        /// What was asked.
        what: String,
        /// What that means.
        hint: &'static str,
    },
    /// It refused.
    #[error("{what}: {message}")]
    Refused {
        /// What was asked.
        what: String,
        /// The API server's words.
        message: String,
    },
    /// The definitions are not installed, or are too old.
    #[error(
        "this cluster knows no {kind} of understudy.dev: install the definitions, or a newer version of them: \
         helm upgrade --install understudy-crds charts/understudy-crds --namespace understudy-system --create-namespace"
    )]
    NoKind {
        /// The kind.
        kind: &'static str,
    },
    /// There is no such object.
    #[error("there is no {kind} {name} in namespace {namespace}{known}")]
    NotFound {
        /// Its kind.
        kind: &'static str,
        /// The name that was given.
        name: String,
        /// Where it was looked for.
        namespace: String,
        /// Which there are, as the end of the sentence.
        known: String,
    },
    /// It was deleted while it was waited for.
    #[error("the {kind} {name} was deleted while it was waited for")]
    Deleted {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// It has not ended in time. It goes on.
    #[error("{name} has not ended within {} s, and goes on without being waited for", .limit.as_secs())]
    NotEnded {
        /// Its name.
        name: String,
        /// How long it was waited for.
        limit: Duration,
    },
}

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
}

impl Cluster {
    /// The cluster and namespace that the options name. Nothing is asked yet.
    pub async fn connect(global: &Global) -> Result<Self, ClusterError> {
        let mut config = config_of(global).await?;
        // A request that was answered too late may have been carried out: it is not sent twice.
        config.default_retry = false;
        let namespace =
            global.namespace.as_ref().map_or_else(|| config.default_namespace.clone(), |name| name.as_str().to_owned());
        let client = Client::try_from(config).map_err(|error| ClusterError::Config(error.into()))?;
        Ok(Self { client, namespace })
    }

    /// Where everything is looked for.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    fn api(&self, kind: Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource(kind))
    }

    /// All of a kind, as far as the limits go.
    pub async fn list(&self, kind: Kind, fields: Option<&str>) -> Result<Listed, ClusterError> {
        let api = self.api(kind);
        let what = format!("list the {} of namespace {}", kind.plural(), self.namespace);
        let mut params = ListParams { field_selector: fields.map(str::to_owned), ..ListParams::default() }.limit(PAGE);
        let mut objects = Vec::new();
        for _ in 0..PAGES {
            let page = in_time(&what, "", api.list(&params)).await?;
            let page = page.map_err(|error| failed(what.clone(), kind, error))?;
            objects.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(Listed { objects, is_whole: true }),
            }
        }
        Ok(Listed { objects, is_whole: false })
    }

    /// One object, or none when there is no such.
    pub async fn find(&self, kind: Kind, name: &str) -> Result<Option<DynamicObject>, ClusterError> {
        let what = format!("read the {} {name}", kind.name());
        match in_time(&what, "", self.api(kind).get(name)).await? {
            Ok(object) => Ok(Some(object)),
            Err(error) if is_object_missing(&error, kind) => Ok(None),
            Err(error) => Err(failed(what, kind, error)),
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
        let listed = in_time("", "", self.api(kind).list_metadata(&params)).await;
        let names: Vec<_> = match listed {
            Ok(Ok(list)) => list.items.iter().map(ResourceExt::name_any).collect(),
            Ok(Err(_)) | Err(_) => Vec::new(),
        };
        ClusterError::NotFound {
            kind: kind.name(),
            name: name.to_owned(),
            namespace: self.namespace.clone(),
            known: known(&names),
        }
    }

    /// Makes an object that the API server names.
    pub async fn create(&self, kind: Kind, object: &DynamicObject) -> Result<DynamicObject, ClusterError> {
        let what = format!("create a {}", kind.name());
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let hint = "; it may have been made all the same, see `kubectl get failovers`";
        let made = in_time(&what, hint, self.api(kind).create(&params, object)).await?;
        made.map_err(|error| failed(what, kind, error))
    }

    /// Changes fields of an object that must be there.
    pub async fn merge(&self, kind: Kind, name: &str, patch: &Value) -> Result<DynamicObject, ClusterError> {
        let what = format!("change the {} {name}", kind.name());
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let hint = "; it may have been changed all the same";
        match in_time(&what, hint, self.api(kind).patch(name, &params, &Patch::Merge(patch))).await? {
            Ok(object) => Ok(object),
            Err(error) if is_object_missing(&error, kind) => Err(self.not_found(kind, name).await),
            Err(error) => Err(failed(what, kind, error)),
        }
    }

    /// Shows an object each time that it changes, until `is_it` or for as long as the limit. A connection that breaks is made anew.
    pub async fn follow(
        &self,
        kind: Kind,
        name: &str,
        limit: Duration,
        mut is_it: impl FnMut(&DynamicObject) -> bool,
    ) -> Result<DynamicObject, ClusterError> {
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut events = std::pin::pin!(watcher(self.api(kind), config).default_backoff());
        let end = Instant::now() + limit;
        let deleted = || ClusterError::Deleted { kind: kind.name(), name: name.to_owned() };
        let mut is_there = false;
        loop {
            let event = match tokio::time::timeout_at(end, events.next()).await {
                Ok(Some(event)) => event,
                Ok(None) | Err(_) => return Err(ClusterError::NotEnded { name: name.to_owned(), limit }),
            };
            let object = match event {
                Ok(Event::Init) => {
                    is_there = false;
                    continue;
                }
                Ok(Event::InitDone) if is_there => continue,
                Ok(Event::InitDone | Event::Delete(_)) => return Err(deleted()),
                Ok(Event::Apply(object) | Event::InitApply(object)) => object,
                Err(error) => match final_word(error) {
                    Some(error) => return Err(failed(format!("watch the {} {name}", kind.name()), kind, error)),
                    // The watcher tries again by itself, with a backoff, until the limit.
                    None => continue,
                },
            };
            is_there = true;
            if is_it(&object) {
                return Ok(object);
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

async fn in_time<T>(what: &str, hint: &'static str, call: impl Future<Output = T>) -> Result<T, ClusterError> {
    let too_late = |_| ClusterError::TooLate { what: what.to_owned(), hint };
    tokio::time::timeout(DEADLINE, call).await.map_err(too_late)
}

/// Whether the API server knows the kind and has no object of the name.
fn is_object_missing(error: &kube::Error, kind: Kind) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let named = status.details.as_ref().filter(|details| !details.name.is_empty() && details.kind == kind.plural());
    status.is_not_found() && named.is_some()
}

fn failed(what: String, kind: Kind, error: kube::Error) -> ClusterError {
    match error {
        kube::Error::Api(status) => {
            // What is not found and has no name is the kind itself.
            let is_of_kind = status.details.as_ref().is_none_or(|details| details.name.is_empty());
            // A group that nobody serves is answered in plain text, of which the client makes a status without that reason.
            if status.code == 404 && is_of_kind {
                ClusterError::NoKind { kind: kind.name() }
            } else {
                ClusterError::Refused { what, message: status.message }
            }
        }
        error => ClusterError::Unreachable { what, source: Box::new(error) },
    }
}

/// An answer that trying again does not change.
fn final_word(error: watcher::Error) -> Option<kube::Error> {
    match error {
        watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) => {
            let is_final = matches!(&error, kube::Error::Api(status) if matches!(status.code, 401 | 403 | 404));
            is_final.then_some(error)
        }
        _ => None,
    }
}

/// The end of a sentence that says which names there are.
fn known(names: &[String]) -> String {
    match names.len() {
        0 => String::new(),
        count if count <= KNOWN => format!("; there are {}", names.join(", ")),
        // The last ones of a list are the latest records.
        count => format!("; there are {count}, such as {}", names[count - KNOWN..].join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(status: Value) -> kube::Error {
        kube::Error::Api(serde_json::from_value(status).unwrap())
    }

    #[test]
    fn a_kind_that_is_not_there_is_told_from_an_object_that_is_not() {
        let object = answer(json!({
            "status": "Failure", "reason": "NotFound", "code": 404, "message": "shards.understudy.dev \"m\" not found",
            "details": { "name": "m", "group": "understudy.dev", "kind": "shards" },
        }));
        assert!(is_object_missing(&object, Kind::Shard));
        for (case, status) in [
            (
                "a group that nobody serves",
                json!({ "reason": "Failed to parse error data", "code": 404, "message": "404 page not found" }),
            ),
            (
                "a kind that the group does not have",
                json!({ "reason": "NotFound", "code": 404, "message": "the server could not find the requested resource", "details": {} }),
            ),
        ] {
            let error = answer(status);
            assert!(!is_object_missing(&error, Kind::Drill), "{case}");
            let said = failed("x".into(), Kind::Drill, error).to_string();
            assert!(
                said.contains("knows no Drill") && said.contains("helm upgrade --install understudy-crds"),
                "{case}: {said}"
            );
        }
    }

    #[test]
    fn the_api_servers_words_are_told_once() {
        for status in [
            json!({ "reason": "Forbidden", "code": 403, "message": "shards is forbidden" }),
            json!({ "reason": "NotFound", "code": 404, "message": "namespaces \"x\" not found", "details": { "name": "x", "kind": "namespaces" } }),
        ] {
            let words = status["message"].as_str().unwrap().to_owned();
            let said = anyhow::Error::from(failed("list".into(), Kind::Shard, answer(status)));
            assert_eq!(format!("{said:#}"), format!("list: {words}"));
        }
    }

    #[test]
    fn a_watch_ends_when_trying_again_is_no_use() {
        let status = |code: u16| answer(json!({ "code": code, "message": "words" }));
        for (code, is_final) in [(401, true), (403, true), (404, true), (410, false), (500, false)] {
            let error = watcher::Error::WatchStartFailed(status(code));
            assert_eq!(final_word(error).is_some(), is_final, "{code}");
        }
    }

    #[test]
    fn of_many_names_the_last_ones_are_told() {
        let names = |count: usize| (0..count).map(|n| format!("m-{n}")).collect::<Vec<_>>();
        assert_eq!(known(&names(0)), "");
        assert_eq!(known(&names(2)), "; there are m-0, m-1");
        let many = known(&names(40));
        assert!(many.starts_with("; there are 40, such as m-30") && many.ends_with("m-39"), "{many}");
    }
}
