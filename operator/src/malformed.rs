//! Objects that do not parse say so in their own status: what it said before would otherwise stand for ever. I/O.
//!
//! Such an object cannot be written as what it is, so only the fields that matter are applied, as JSON. Instances that do not
//! lead remember what they saw, and write it when they begin to, of objects that were not changed since.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use understudy_api::conditions::{self, Claim};
use understudy_api::{Consumer, Datastore, Drill, Replica, Shard};

use crate::cache::{Kind, Malformed, OnMalformed};
use crate::events::{Events, Reason};
use crate::lease::Leading;
use crate::metrics::{Metrics, OfKind};

/// Owns what it writes; whoever understands the object later takes it over.
const MANAGER: &str = "understudy-malformed";
/// The reason of the conditions.
pub const REASON: &str = "Malformed";
const QUEUE: usize = 256;
const CALL: Duration = Duration::from_secs(5);
/// After a write that failed.
const AGAIN: Duration = Duration::from_secs(10);

/// What the caches tell of malformed objects, and the task that writes it down until stopped.
pub fn start(
    client: Client,
    events: Events,
    metrics: Arc<Metrics>,
    leading: Leading,
    stop: CancellationToken,
) -> (OnMalformed, impl Future<Output = ()> + Send) {
    let (queue, seen) = mpsc::channel(QUEUE);
    let tell: OnMalformed = Arc::new(move |kind, malformed: Malformed| {
        metrics.malformed.get_or_create(&OfKind { kind: kind.into() }).inc();
        tracing::warn!(%kind, name = malformed.reference.name, error = malformed.error, "object does not parse");
        if let Err(error) = queue.try_send((kind, malformed)) {
            tracing::warn!(%error, "a malformed object is not told that it is");
        }
    });
    let writer = Writer { client, events, leading, open: HashMap::new(), done: HashMap::new() };
    (tell, writer.run(seen, stop))
}

/// What became of an object's status.
enum Written {
    /// It says that the object does not parse, if it can.
    Done,
    /// The object is another by now: if it does not parse either, that is told anew.
    Changed,
}

struct Writer {
    client: Client,
    events: Events,
    leading: Leading,
    /// Not written yet, by UID.
    open: HashMap<String, (Kind, Malformed)>,
    /// The generation that was written of, by UID: writing the status makes another version that does not parse either.
    done: HashMap<String, Option<i64>>,
}

impl Writer {
    async fn run(mut self, mut seen: mpsc::Receiver<(Kind, Malformed)>, stop: CancellationToken) {
        loop {
            let again = if self.open.is_empty() { Duration::from_secs(3600) } else { AGAIN };
            tokio::select! {
                () = stop.cancelled() => return,
                told = seen.recv() => match told {
                    Some((kind, malformed)) => self.note(kind, malformed),
                    None => return,
                },
                going_on = self.leading.changed() => if !going_on { return },
                () = tokio::time::sleep(again) => {}
            }
            if self.leading.is_leading() {
                self.write_all().await;
            }
        }
    }

    fn note(&mut self, kind: Kind, malformed: Malformed) {
        let uid = malformed.reference.uid.clone().unwrap_or_default();
        if self.done.get(&uid) != Some(&malformed.generation) {
            self.open.insert(uid, (kind, malformed));
        }
    }

    async fn write_all(&mut self) {
        for (uid, (kind, malformed)) in std::mem::take(&mut self.open) {
            match self.write(kind, &malformed).await {
                Ok(Written::Done) => drop(self.done.insert(uid, malformed.generation)),
                Ok(Written::Changed) => {}
                // It is gone.
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                Err(error) => {
                    tracing::warn!(%kind, name = malformed.reference.name, %error, "status of a malformed object not written");
                    self.open.insert(uid, (kind, malformed));
                }
            }
        }
    }

    async fn write(&self, kind: Kind, malformed: &Malformed) -> Result<Written, kube::Error> {
        let words = words(&malformed.error);
        let say = || self.events.say_on(malformed.reference.clone(), Reason::Malformed, words.clone());
        let Some((resource, status)) = status(kind, malformed.generation, &words, Timestamp::now()) else {
            say();
            return Ok(Written::Done);
        };
        let (namespace, name) = (&malformed.reference.namespace, &malformed.reference.name);
        let (namespace, name) = (namespace.clone().unwrap_or_default(), name.clone().unwrap_or_default());
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &namespace, &resource);
        // It may have been put right since, and nobody tells that of an object that parses.
        let live = soon(api.get_metadata(&name)).await?.metadata;
        if live.uid != malformed.reference.uid || live.generation != malformed.generation {
            return Ok(Written::Changed);
        }
        say();
        let patch = json!({
            "apiVersion": resource.api_version, "kind": resource.kind,
            "metadata": { "name": name, "uid": malformed.reference.uid },
            "status": status,
        });
        let params = PatchParams::apply(MANAGER).force();
        let patch = Patch::Apply(&patch);
        soon(api.patch_status(&name, &params, &patch)).await.map(|_| Written::Done)
    }
}

async fn soon<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    let late = |_| Err(kube::Error::Service("no answer in time".into()));
    tokio::time::timeout(CALL, call).await.unwrap_or_else(late)
}

fn words(error: &str) -> String {
    format!("this object does not parse, and nothing is done for it until it does: {error}")
}

/// What the status of an object of this kind is to say, if it can say it.
fn status(kind: Kind, generation: Option<i64>, words: &str, now: Timestamp) -> Option<(ApiResource, Value)> {
    let claims = |claims: Vec<Claim>| {
        let mut all = Vec::new();
        for claim in claims {
            conditions::set(&mut all, claim, generation, &Time(now));
        }
        json!({ "conditions": all })
    };
    let not = |kind| Claim::no(kind, REASON, words);
    Some(match kind {
        Kind::Shard => {
            let unknown = Claim::unknown(conditions::PRIMARY_HEALTHY, REASON, words);
            let mut status = claims(vec![not(conditions::READY), not(conditions::PROGRESSING), unknown]);
            status["verdict"] = json!({ "state": "Unknown", "cause": REASON, "since": Time(now), "message": words });
            status["doing"] = json!("nothing: the object does not parse");
            (ApiResource::erase::<Shard>(&()), status)
        }
        Kind::Datastore => {
            (ApiResource::erase::<Datastore>(&()), claims(vec![not(conditions::READY), not(conditions::PROGRESSING)]))
        }
        Kind::Consumer => (ApiResource::erase::<Consumer>(&()), claims(vec![not(conditions::READY)])),
        Kind::Replica => (ApiResource::erase::<Replica>(&()), claims(vec![not(conditions::READY)])),
        Kind::Drill => {
            (ApiResource::erase::<Drill>(&()), claims(vec![not(conditions::READY), not(conditions::PROGRESSING)]))
        }
        // A request that cannot be read cannot be changed either; its event says so.
        Kind::Failover
        | Kind::Pod
        | Kind::PersistentVolumeClaim
        | Kind::Deployment
        | Kind::Service
        | Kind::PodDisruptionBudget
        | Kind::Node => return None,
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ObjectReference;

    use super::*;
    use crate::fake::FakeApi;

    fn healthy() -> Value {
        let condition = |kind: &str| json!({ "type": kind, "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" });
        json!({
            "apiVersion": "understudy.dev/v1alpha1", "kind": "Shard",
            "metadata": { "name": "m", "namespace": "prod", "uid": "u1", "generation": 2 },
            "spec": { "replicas": "three" },
            "status": {
                "primary": "m-a", "verdict": { "state": "Healthy" },
                "conditions": [condition("Ready"), condition("PrimaryHealthy")],
            },
        })
    }

    fn malformed(generation: i64) -> Malformed {
        let reference = ObjectReference {
            namespace: Some("prod".to_owned()),
            name: Some("m".to_owned()),
            uid: Some("u1".to_owned()),
            ..ObjectReference::default()
        };
        Malformed { reference, generation: Some(generation), error: "invalid type: string \"three\"".to_owned() }
    }

    fn writer(api: &FakeApi, leading: bool) -> Writer {
        Writer {
            client: api.applier().client(),
            events: Events::to_nobody(),
            leading: Leading::fixed(leading),
            open: HashMap::new(),
            done: HashMap::new(),
        }
    }

    #[tokio::test]
    async fn a_shard_that_does_not_parse_any_more_stops_saying_that_it_is_healthy() {
        let api = FakeApi::with([healthy()]);
        let mut writer = writer(&api, true);
        writer.note(Kind::Shard, malformed(2));
        writer.write_all().await;
        let status = api.object("shards/m").unwrap()["status"].clone();
        assert_eq!((&status["verdict"]["state"], &status["primary"]), (&json!("Unknown"), &json!("m-a")));
        let conditions = status["conditions"].as_array().unwrap();
        let ready = conditions.iter().find(|condition| condition["type"] == "Ready").unwrap();
        assert_eq!((&ready["status"], &ready["reason"]), (&json!("False"), &json!(REASON)));
        assert!(ready["message"].as_str().unwrap().contains("invalid type: string \"three\""), "{ready}");
        assert!(conditions.iter().all(|condition| condition["status"] != "True"), "{conditions:?}");
    }

    #[tokio::test]
    async fn one_that_was_put_right_before_this_instance_led_is_left_alone() {
        let api = FakeApi::with([healthy()]);
        let mut writer = writer(&api, false);
        writer.note(Kind::Shard, malformed(2));
        api.change("shards/m", |shard| {
            shard["spec"]["replicas"] = json!(3);
            shard["metadata"]["generation"] = json!(3);
        });
        writer.leading = Leading::fixed(true);
        writer.write_all().await;
        assert!(api.writes().is_empty(), "{:?}", api.writes());
        assert!(writer.open.is_empty());
    }

    #[tokio::test]
    async fn a_write_of_its_own_is_no_reason_for_another() {
        let api = FakeApi::with([healthy()]);
        let mut writer = writer(&api, true);
        for generation in [2, 2, 3, 3] {
            api.change("shards/m", |shard| shard["metadata"]["generation"] = json!(generation));
            writer.note(Kind::Shard, malformed(generation));
            writer.write_all().await;
        }
        assert_eq!(api.writes().len(), 2, "once for each spec: {:?}", api.writes());
    }

    #[tokio::test]
    async fn what_could_not_be_written_is_written_later() {
        let api = FakeApi::with([healthy()]);
        api.refuse("PATCH shards", 503, "busy");
        let mut writer = writer(&api, true);
        writer.note(Kind::Shard, malformed(2));
        writer.write_all().await;
        assert_eq!(writer.open.len(), 1);
        api.allow("PATCH shards");
        writer.write_all().await;
        assert!(writer.open.is_empty());
        assert_eq!(api.object("shards/m").unwrap()["status"]["verdict"]["state"], "Unknown");
    }

    #[test]
    fn every_kind_that_has_conditions_says_so_in_them() {
        for kind in [Kind::Shard, Kind::Datastore, Kind::Consumer, Kind::Replica, Kind::Drill] {
            let (resource, status) = status(kind, Some(1), "words", Timestamp::UNIX_EPOCH).unwrap();
            assert_eq!(resource.kind, kind.to_string());
            assert_eq!(status["conditions"][0]["message"], "words", "{kind}");
        }
    }
}
