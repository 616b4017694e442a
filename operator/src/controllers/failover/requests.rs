//! Requests that no shard's stage answers: for a Shard that is not there. A pass over one that was answered sees to it that no more records
//! are kept than asked for. I/O.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use understudy_api::conditions;
use understudy_api::v1alpha1::{FailoverKind, FailoverPhase, FailoverResult, FailoverStatus};
use understudy_api::{Failover, Shard};

use super::history;
use super::merge::complete_claim;
use crate::apply::{Applier, ApplyError};
use crate::cache::{Held, Kind, Touched};
use crate::context::Context;
use crate::controllers::queue::{Again, Controller, Failure, let_go};
use crate::events::Reason;

/// A Shard may be applied a moment after the request that names it.
const GRACE: Duration = Duration::from_secs(10);
/// Nothing is to be done for it.
const UNHURRIED: Duration = Duration::from_secs(600);

/// Which step of a pass failed.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
enum RequestError {
    #[error("shard of the request")]
    Shard(#[source] ApplyError),
    #[error("refusal of the request")]
    Refusal(#[source] ApplyError),
    #[error("deletion of an old record")]
    History(#[source] ApplyError),
}

impl Failure for RequestError {
    fn label(&self) -> &'static str {
        self.into()
    }

    fn unwritten(&self) -> Option<&ApplyError> {
        let (Self::Shard(error) | Self::Refusal(error) | Self::History(error)) = self;
        Some(error)
    }
}

/// Starts the controller.
pub fn start(context: &Context) {
    Controller { kind: Kind::Failover, cache: context.caches.failovers.clone(), concerns, pass, leave: let_go }
        .start(context);
}

fn concerns(touched: &Touched, _: &Context) -> Vec<(String, String)> {
    match touched.kind {
        Kind::Failover if !touched.deleted => vec![(touched.namespace.clone(), touched.name.clone())],
        _ => Vec::new(),
    }
}

/// Whether it is a person's request that nobody has taken up or answered.
pub fn is_open(failover: &Failover) -> bool {
    let pending = |status: &FailoverStatus| status.phase == FailoverPhase::Pending && status.result.is_none();
    let is_request = failover.spec.epoch.is_none() && failover.metadata.deletion_timestamp.is_none();
    is_request && failover.status.as_ref().is_none_or(pending)
}

fn pass(failover: Held<Failover>, context: &Context) -> BoxFuture<'_, Result<Again, RequestError>> {
    async move {
        if !is_open(&failover) {
            history::keep(&failover, context).await.map_err(RequestError::History)?;
            return Ok(UNHURRIED);
        }
        let namespace = failover.namespace().unwrap_or_default();
        if failover.spec.kind == FailoverKind::Unknown {
            // Whoever made the definition that allows it can say what becomes of it.
            return Ok(UNHURRIED);
        }
        let shard = &failover.spec.shard;
        if is_there(shard, &namespace, context).await? {
            return Ok(UNHURRIED);
        }
        if age(&failover) < GRACE {
            return Ok(GRACE);
        }
        let message = format!(
            "there is no Shard {shard} in namespace {namespace}: name one of `kubectl get shards`, in a new Failover"
        );
        let refused = refuse(&context.applier, &namespace, &failover.name_any(), &message).await;
        if refused.map_err(RequestError::Refusal)? {
            context.events.say(&*failover, Reason::SwitchoverRefused, message);
        }
        Ok(UNHURRIED)
    }
    .boxed()
}

fn age(failover: &Failover) -> Duration {
    let made = failover.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    Duration::try_from(Timestamp::now().duration_since(made)).unwrap_or_default()
}

/// Whether there is such a Shard, malformed or not; past the cache before it is said that there is none.
async fn is_there(shard: &str, namespace: &str, context: &Context) -> Result<bool, RequestError> {
    if context.caches.shards.is_there(namespace, shard) {
        return Ok(true);
    }
    let found = context.applier.get::<Shard>(namespace, shard).await;
    found.map(|found| found.is_some()).map_err(RequestError::Shard)
}

/// Turns a request down, for ever, unless it was taken up meanwhile. Whether it was turned down now.
pub async fn refuse(applier: &Applier, namespace: &str, name: &str, message: &str) -> Result<bool, ApplyError> {
    let Some(mut found) = applier.get::<Failover>(namespace, name).await? else { return Ok(false) };
    let generation = found.metadata.generation;
    let status = found.status.get_or_insert_default();
    if status.phase != FailoverPhase::Pending {
        return Ok(false);
    }
    let now = Timestamp::now();
    status.phase = FailoverPhase::Closed;
    status.result = Some(FailoverResult::Refused);
    status.message = Some(message.to_owned());
    status.finished_at = Some(MicroTime(now));
    status.observed_generation = generation;
    let claim = complete_claim(status);
    conditions::set(&mut status.conditions, claim, generation, &Time(now));
    applier.replace_status(&found).await.map(|_| true)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fake::FakeApi;

    fn request(status: Value) -> Value {
        json!({
            "apiVersion": "understudy.dev/v1alpha1", "kind": "Failover",
            "metadata": { "name": "please", "namespace": "prod", "uid": "f1", "generation": 1 },
            "spec": { "shard": "m", "kind": "Switchover" }, "status": status,
        })
    }

    #[tokio::test]
    async fn a_request_is_turned_down_once_and_says_why() {
        let api = FakeApi::with([request(json!({}))]);
        assert!(refuse(&api.applier(), "prod", "please", "there is no Shard m").await.unwrap());
        let answered: Failover = serde_json::from_value(api.object("failovers/please").unwrap()).unwrap();
        assert!(!is_open(&answered));
        let status = answered.status.unwrap();
        assert_eq!((status.phase, status.result), (FailoverPhase::Closed, Some(FailoverResult::Refused)));
        assert_eq!(status.message.as_deref(), Some("there is no Shard m"));
        assert!(conditions::holds(&status.conditions, conditions::COMPLETE));
        assert!(!refuse(&api.applier(), "prod", "please", "again").await.unwrap(), "it was answered");
    }

    #[test]
    fn only_a_persons_request_that_nobody_took_up_is_open() {
        let open = |change: &dyn Fn(&mut Value)| {
            let mut object = request(json!({}));
            change(&mut object);
            is_open(&serde_json::from_value(object).unwrap())
        };
        assert!(open(&|_| {}));
        assert!(!open(&|object| object["spec"]["epoch"] = json!(5)), "a record");
        assert!(!open(&|object| object["status"] = json!({ "phase": "Claimed" })), "taken up");
        assert!(!open(&|object| object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z")), "taken back");
    }
}
