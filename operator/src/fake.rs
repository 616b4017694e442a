//! An API server in memory, as far as tests of writes need one: names, versions, preconditions, finalizers, and the rights that the
//! chart grants ([`rights`]). No schema, no garbage collector, and watches of which nothing comes after the first list.

mod rights;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use understudy_kafka::AdminError;
use understudy_link::Authority;

use self::rights::Asked;
use crate::apply::Applier;
use crate::authority;
use crate::cache::Caches;
use crate::context::Context;
use crate::events::Events;
use crate::lease::Leading;
use crate::recent::Recent;
use crate::settings::Settings;
use crate::topics::{Found, Topics, Wanted};
use crate::troubles::Troubles;

/// The server.
#[derive(Clone, Default)]
pub struct FakeApi(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// By path, without `/status`.
    objects: BTreeMap<String, Value>,
    version: u64,
    writes: Vec<String>,
    refused: BTreeMap<String, (u16, String)>,
    unanswered: BTreeSet<String>,
    delayed: BTreeMap<String, Duration>,
}

type Answer = Result<Value, (u16, &'static str, String)>;

impl FakeApi {
    /// One that holds these objects; each needs apiVersion, kind, and a name and a namespace in its metadata.
    pub fn with(objects: impl IntoIterator<Item = Value>) -> Self {
        let api = Self::default();
        for object in objects {
            let path = path_of(&object);
            api.state().put(&path, object);
        }
        api
    }

    /// What the operator writes with.
    pub fn applier(&self) -> Applier {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.serve(request).await) }
        });
        Applier::new(Client::new(service, "default"), Arc::default())
    }

    /// What controllers share, for a pass over what is there now in the namespace `prod`: the caches hear of nothing later.
    pub async fn context(&self) -> Context {
        let (applier, tasks, stop) = (self.applier(), TaskTracker::new(), CancellationToken::new());
        let caches = Caches::start(&applier.client(), Some("prod"), Arc::new(|_, _| {}), &tasks, &stop);
        caches.filled().await;
        let authority = Authority::generate("understudy", SystemTime::now()).expect("an authority");
        let settings = Settings {
            namespace: "understudy-system".to_owned(),
            pod: "understudy-0".to_owned(),
            node: None,
            image: "understudy:test".to_owned(),
            image_pull_policy: "Never".to_owned(),
            watch_namespace: "prod".to_owned(),
            admin_listen: ([127, 0, 0, 1], 0).into(),
            log: "info".to_owned(),
        };
        Context {
            settings: Arc::new(settings),
            applier,
            recent: Recent::default(),
            caches,
            leading: Leading::fixed(true),
            events: Events::to_nobody(),
            troubles: Troubles::default(),
            metrics: Arc::default(),
            identity: authority::identity(&authority).expect("an identity"),
            authority: Arc::new(authority),
            topics: Arc::new(AsAsked),
            api_server: None,
            tasks,
            stop,
        }
    }

    /// An object, by the last parts of its path: `configmaps/m-mysql`.
    pub fn object(&self, tail: &str) -> Option<Value> {
        let state = self.state();
        let found = state.objects.iter().find(|(path, _)| path.ends_with(&format!("/{tail}")));
        found.map(|(_, object)| object.clone())
    }

    /// Puts one more there.
    pub fn add(&self, object: Value) {
        let path = path_of(&object);
        self.state().put(&path, object);
    }

    /// Changes an object as somebody else would.
    pub fn change(&self, tail: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.object(tail).expect("an object to change");
        change(&mut object);
        let path = path_of(&object);
        self.state().put(&path, object);
    }

    /// Whatever is asked of this kind with this method is refused: `POST pods`.
    pub fn refuse(&self, what: &str, code: u16, words: &str) {
        self.state().refused.insert(what.to_owned(), (code, words.to_owned()));
    }

    /// Whatever is asked of this kind with this method gets no answer: `PUT shards`.
    pub fn hang(&self, what: &str) {
        self.state().unanswered.insert(what.to_owned());
    }

    /// Whatever is asked of this kind with this method takes so long, and is done though nobody may wait for the answer any more:
    /// `PUT shards`.
    pub fn delay(&self, what: &str, by: Duration) {
        self.state().delayed.insert(what.to_owned(), by);
    }

    /// It is neither refused nor delayed nor left without an answer any more.
    pub fn allow(&self, what: &str) {
        let mut state = self.state();
        state.refused.remove(what);
        state.unanswered.remove(what);
        state.delayed.remove(what);
    }

    /// The writes so far: `PATCH configmaps/m-mysql`.
    pub fn writes(&self) -> Vec<String> {
        self.state().writes.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while it holds the objects")
    }

    async fn serve(&self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let bytes = body.collect_bytes().await.expect("a body in memory");
        let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let is_apply = head.headers.get("content-type").is_some_and(|kind| kind == "application/apply-patch+yaml");
        let query = head.uri.query().unwrap_or_default().replace("%3D", "=").replace("%2C", ",").replace("%2F", "/");
        let asked = Asked::of(&head.method, head.uri.path(), &query);
        let refusal = asked.refusal(&body);
        let what = format!("{} {}", head.method, asked.plural);
        let is_unanswered = self.state().unanswered.contains(&what);
        let delay = self.state().delayed.get(&what).copied();
        if is_unanswered || (refusal.is_none() && asked.verb == "watch") {
            return std::future::pending().await;
        }
        let api = self.clone();
        let answer = move || match refusal {
            Some(words) => Err((403, "Forbidden", words)),
            None => api.state().answer(&asked, &head.method, head.uri.path(), &query, body, is_apply),
        };
        let answer = match delay {
            None => answer(),
            Some(delay) => {
                // What was proposed to etcd is not taken back because a connection was closed.
                let done = tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    answer()
                });
                done.await.expect("an answer")
            }
        };
        let (code, body) = match answer {
            Ok(value) => (200, value),
            Err((code, reason, message)) => (
                code,
                json!({
                    "kind": "Status", "apiVersion": "v1", "status": "Failure",
                    "reason": reason, "message": message, "code": code,
                }),
            ),
        };
        let bytes = body.to_string().into_bytes();
        Response::builder().status(code).body(Body::from(bytes)).expect("a response")
    }
}

/// Topics that are as every spec asks, and empty.
struct AsAsked;

#[async_trait]
impl Topics for AsAsked {
    async fn ensure(&self, _: &Wanted) -> Result<Found, AdminError> {
        Ok(Found::default())
    }

    async fn ends(&self, _: &str, _: &str) -> Result<BTreeMap<i32, i64>, AdminError> {
        Ok(BTreeMap::new())
    }
}

fn path_of(object: &Value) -> String {
    let text = |value: &Value| value.as_str().expect("apiVersion, kind, namespace and name").to_owned();
    let version = text(&object["apiVersion"]);
    let root = if version.contains('/') { "apis" } else { "api" };
    let kind = text(&object["kind"]).to_lowercase();
    let metadata = &object["metadata"];
    format!("/{root}/{version}/namespaces/{}/{kind}s/{}", text(&metadata["namespace"]), text(&metadata["name"]))
}

impl State {
    fn answer(
        &mut self,
        asked: &Asked,
        method: &Method,
        path: &str,
        query: &str,
        body: Value,
        is_apply: bool,
    ) -> Answer {
        let (path, is_status) = match path.strip_suffix("/status") {
            Some(path) => (path, true),
            None => (path, false),
        };
        let parts: Vec<_> = path.split('/').collect();
        let plural = asked.plural.as_str();
        if let Some((code, words)) = self.refused.get(&format!("{method} {plural}")) {
            let reason = match code {
                403 => "Forbidden",
                409 => "Conflict",
                422 => "Invalid",
                _ => "",
            };
            return Err((*code, reason, words.clone()));
        }
        let is_collection = path.ends_with(plural);
        let named = body["metadata"]["name"].as_str().unwrap_or_default();
        let name = if is_collection { named } else { parts[parts.len() - 1] }.to_owned();
        if method != Method::GET {
            self.writes.push(format!("{method} {plural}/{name}"));
        }
        let key = if is_collection { format!("{path}/{name}") } else { path.to_owned() };
        let found = self.objects.get(&key).cloned();
        let conflict = |why: &str| Err((409, "Conflict", format!("{plural} {name}: {why}")));
        let is_another = |wanted: &Value, found: &Value, field: &str| {
            wanted[field].is_string() && wanted[field] != found["metadata"][field]
        };
        if is_apply
            && found.is_none()
            && let Some(words) = asked.refusal_to_create()
        {
            return Err((403, "Forbidden", words));
        }
        match (method.as_str(), found) {
            ("GET", _) if is_collection => Ok(self.list(path, query)),
            ("POST", Some(_)) => Err((409, "AlreadyExists", format!("{plural} \"{name}\" already exists"))),
            ("POST", None) => Ok(self.put(&key, body)),
            ("PATCH", None) if is_apply && body["metadata"]["uid"].is_null() => Ok(self.put(&key, body)),
            ("PATCH", None) if is_apply => conflict("no object of this uid"),
            (_, None) => Err((404, "NotFound", format!("{plural} \"{name}\" not found"))),
            ("GET", Some(found)) => Ok(found),
            ("PATCH" | "PUT", Some(found))
                if is_another(&body["metadata"], &found, "uid")
                    || is_another(&body["metadata"], &found, "resourceVersion") =>
            {
                conflict("it is another version")
            }
            ("PATCH", Some(mut found)) => {
                merge(&mut found, &body);
                Ok(self.put(&key, found))
            }
            ("PUT", Some(mut found)) => {
                match is_status {
                    true => found["status"] = body["status"].clone(),
                    false => found = body,
                }
                Ok(self.put(&key, found))
            }
            ("DELETE", Some(found))
                if is_another(&body["preconditions"], &found, "uid")
                    || is_another(&body["preconditions"], &found, "resourceVersion") =>
            {
                conflict("it is another version")
            }
            ("DELETE", Some(mut found)) => {
                found["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
                self.put(&key, found);
                Ok(json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" }))
            }
            (other, _) => panic!("{other} {path} is not served here"),
        }
    }

    fn list(&self, path: &str, query: &str) -> Value {
        let selector = query.split('&').find_map(|part| part.strip_prefix("labelSelector=")).unwrap_or_default();
        let wanted: Vec<_> = selector.split(',').filter_map(|pair| pair.split_once('=')).collect();
        let items: Vec<_> = self
            .objects
            .iter()
            .filter(|(key, _)| key.rsplit_once('/').is_some_and(|(parent, _)| parent == path))
            .map(|(_, object)| object)
            .filter(|object| wanted.iter().all(|(key, value)| object["metadata"]["labels"][*key] == *value))
            .collect();
        let version = self.version.max(1).to_string();
        json!({ "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": version }, "items": items })
    }

    /// Stores an object under the next version, unless it was deleted and nothing holds it any more.
    fn put(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = json!(self.version.to_string());
        if metadata["uid"].is_null() {
            metadata["uid"] = json!(format!("uid-{}", self.version));
        }
        let is_held = metadata["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty());
        if metadata["deletionTimestamp"].is_string() && !is_held {
            self.objects.remove(path);
        } else {
            self.objects.insert(path.to_owned(), object.clone());
        }
        object
    }
}

fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                match value {
                    Value::Null => drop(into.remove(key)),
                    value => merge(into.entry(key.clone()).or_insert(Value::Null), value),
                }
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}
