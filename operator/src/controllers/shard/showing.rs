//! Statuses on their way to the API server, on a task of their own: a write that hangs delays no decision. I/O.

use std::time::Duration;

use kube::ResourceExt;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;
use understudy_api::{Replica, Shard};

use super::act::{ActError, soon};
use crate::apply::Applier;
use crate::errors::chain;

/// A step that writes the same objects waits this long for what is on its way, lest one of the two find another version. A write
/// takes a tenth of a second; one that takes longer than this is not waited for, as the step may be a claim.
const PATIENCE: Duration = Duration::from_millis(500);
/// After a write that failed.
const BREATH: Duration = Duration::from_millis(250);

/// What is to be written.
#[derive(Default)]
pub struct Changed {
    /// The Shard, if its status changed.
    pub shard: Option<Shard>,
    /// The Replicas whose status changed.
    pub replicas: Vec<Replica>,
}

/// An object as it is now.
pub enum Shown {
    /// Its status was written.
    Shard(Shard),
    /// Its status was not written, as this came first.
    ShardOfOthers(Shard),
    /// Its status was written.
    Replica(Replica),
}

/// What is being written; dropping it gives that up.
#[derive(Default)]
pub struct Showing {
    underway: Option<Underway>,
    not_before: Option<Instant>,
}

struct Underway {
    heard: Receiver<Result<Shown, ActError>>,
    /// Whether the Shard's status, which is written first, may still be on its way.
    has_shard: bool,
    _task: AbortOnDropHandle<()>,
}

impl Showing {
    /// Whether nothing more is taken on for now.
    pub fn is_busy(&self) -> bool {
        self.underway.is_some() || self.not_before.is_some_and(|at| Instant::now() < at)
    }

    /// Starts writing.
    pub fn start(&mut self, applier: Applier, changed: Changed) {
        if changed.shard.is_none() && changed.replicas.is_empty() {
            return;
        }
        let (said, heard) = mpsc::channel(changed.replicas.len() + 1);
        let has_shard = changed.shard.is_some();
        let task = tokio::spawn(async move {
            if let Err(error) = write(&applier, changed, &said).await {
                said.send(Err(error)).await.ok();
            }
        });
        self.underway = Some(Underway { heard, has_shard, _task: AbortOnDropHandle::new(task) });
    }

    /// What was written since it was asked last.
    pub fn written(&mut self, shard: &str) -> Vec<Shown> {
        let mut all = Vec::new();
        while let Some(underway) = &mut self.underway {
            match underway.heard.try_recv() {
                Ok(said) => self.hear(shard, said, &mut all),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => self.underway = None,
            }
        }
        all
    }

    /// The same once all is written; what takes too long is given up.
    pub async fn settle(&mut self, shard: &str) -> Vec<Shown> {
        self.settled(shard, |_| false).await
    }

    /// The same for a step that writes the Shard only: what is on its way to Replicas is not waited for, and goes on.
    pub async fn settle_shard(&mut self, shard: &str) -> Vec<Shown> {
        self.settled(shard, |underway| !underway.has_shard).await
    }

    async fn settled(&mut self, shard: &str, is_enough: fn(&Underway) -> bool) -> Vec<Shown> {
        let mut all = Vec::new();
        let until = Instant::now() + PATIENCE;
        while let Some(underway) = &mut self.underway {
            if is_enough(underway) {
                break;
            }
            match timeout_at(until, underway.heard.recv()).await {
                Ok(Some(said)) => self.hear(shard, said, &mut all),
                Ok(None) => self.underway = None,
                Err(_) => {
                    tracing::warn!(
                        shard,
                        "a status was not written within {PATIENCE:?}, and a step does not wait for it"
                    );
                    self.underway = None;
                }
            }
        }
        all
    }

    fn hear(&mut self, shard: &str, said: Result<Shown, ActError>, all: &mut Vec<Shown>) {
        if let Some(underway) = &mut self.underway {
            // What comes of the Shard is said first, an error too.
            underway.has_shard = false;
        }
        match said {
            Ok(shown) => all.push(shown),
            Err(error) => {
                tracing::warn!(shard, error = %chain(&error), "status not written");
                self.not_before = Some(Instant::now() + BREATH);
            }
        }
    }
}

async fn write(applier: &Applier, changed: Changed, said: &Sender<Result<Shown, ActError>>) -> Result<(), ActError> {
    if let Some(shard) = changed.shard {
        said.send(Ok(write_shard(applier, &shard).await?)).await.ok();
    }
    for replica in changed.replicas {
        match soon(applier.replace_status(&replica)).await {
            Ok(written) => drop(said.send(Ok(Shown::Replica(written))).await),
            // The next pass sees what came first.
            Err(ActError::Apply(error)) if error.is_conflict() || error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn write_shard(applier: &Applier, shard: &Shard) -> Result<Shown, ActError> {
    match soon(applier.replace_status(shard)).await {
        Ok(written) => Ok(Shown::Shard(written)),
        Err(error) => {
            // After a conflict the cache may be behind, and after a lost answer the write may have happened.
            let (namespace, name) = (shard.namespace().unwrap_or_default(), shard.name_any());
            match soon(applier.get::<Shard>(&namespace, &name)).await {
                Ok(Some(now)) if error.is_conflict() => Ok(Shown::ShardOfOthers(now)),
                _ => Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    use crate::fake::FakeApi;

    fn api() -> FakeApi {
        FakeApi::with([json!({
            "apiVersion": "understudy.dev/v1alpha1", "kind": "Shard",
            "metadata": { "name": "m", "namespace": "prod", "uid": "u" },
            "spec": { "replicas": 2, "mysql": { "image": "mysql:9" }, "storage": { "size": "2Gi" } },
        })])
    }

    fn shard(api: &FakeApi) -> Shard {
        serde_json::from_value(api.object("shards/m").unwrap()).unwrap()
    }

    fn replica() -> Replica {
        let spec = json!({ "shard": "m", "serverId": 1 });
        let metadata = json!({ "name": "m-a", "namespace": "prod", "uid": "a", "resourceVersion": "1" });
        let object = json!({
            "apiVersion": "understudy.dev/v1alpha1", "kind": "Replica", "metadata": metadata, "spec": spec,
        });
        serde_json::from_value(object).unwrap()
    }

    fn told(shown: &[Shown]) -> Vec<(&'static str, Option<String>)> {
        let tell = |shown: &Shown| match shown {
            Shown::Shard(shard) => ("written", shard.resource_version()),
            Shown::ShardOfOthers(shard) => ("of others", shard.resource_version()),
            Shown::Replica(replica) => ("replica", replica.resource_version()),
        };
        shown.iter().map(tell).collect()
    }

    fn started(api: &FakeApi, shard: Shard) -> Showing {
        let mut showing = Showing::default();
        showing.start(api.applier(), Changed { shard: Some(shard), replicas: vec![replica()] });
        showing
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_written_is_told_once_and_a_replica_that_is_gone_is_none_of_it() {
        let api = api();
        let mut showing = started(&api, shard(&api));
        assert!(showing.is_busy());
        assert_eq!(told(&showing.settle("m").await), [("written", Some("2".to_owned()))]);
        assert!(!showing.is_busy());
        assert_eq!(told(&showing.written("m")), []);
        assert_eq!(api.writes(), ["PUT shards/m", "PUT replicas/m-a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_somebody_else_wrote_first_is_told_instead() {
        let api = api();
        let mine = shard(&api);
        api.change("shards/m", |shard| shard["status"] = json!({ "epoch": 7 }));
        let mut showing = started(&api, mine);
        assert_eq!(told(&showing.settle("m").await), [("of others", Some("2".to_owned()))]);
        assert_eq!(api.object("shards/m").unwrap()["status"]["epoch"], 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_without_an_answer_is_given_up_for_a_step_and_the_step_may_write() {
        let api = api();
        api.hang("PUT shards");
        let mut showing = started(&api, shard(&api));
        assert_eq!(told(&showing.written("m")), [], "asked, but not waited for");
        let began = Instant::now();
        assert_eq!(told(&showing.settle("m").await), []);
        assert_eq!(began.elapsed(), PATIENCE);
        api.allow("PUT shards");
        let mut showing = started(&api, shard(&api));
        assert_eq!(told(&showing.settle("m").await), [("written", Some("2".to_owned()))]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_that_writes_the_shard_waits_for_that_alone_and_the_rest_goes_on() {
        for (case, shard_too) in [("the Shard is written first", true), ("only Replicas are written", false)] {
            let api = api();
            api.hang("PUT replicas");
            let mut showing = Showing::default();
            let changed = Changed { shard: shard_too.then(|| shard(&api)), replicas: vec![replica()] };
            showing.start(api.applier(), changed);
            let began = Instant::now();
            let written: Vec<_> = shard_too.then(|| ("written", Some("2".to_owned()))).into_iter().collect();
            assert_eq!(told(&showing.settle_shard("m").await), written, "{case}");
            assert!(began.elapsed() < PATIENCE, "{case}");
            assert!(showing.is_busy(), "{case}: a Replica is still on its way");
            let began = Instant::now();
            assert_eq!(told(&showing.settle("m").await), [], "{case}");
            assert_eq!(began.elapsed(), PATIENCE, "{case}: a step that may write that Replica waits for it");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_refusal_nothing_is_written_for_a_while() {
        let api = api();
        api.refuse("PUT shards", 500, "etcd is full");
        let mut showing = started(&api, shard(&api));
        assert_eq!(told(&showing.settle("m").await), []);
        assert_eq!(api.writes(), [] as [&str; 0], "nor the rest");
        assert!(showing.is_busy());
        tokio::time::advance(BREATH).await;
        assert!(!showing.is_busy());
    }
}
