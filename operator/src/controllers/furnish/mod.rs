//! What stands around the replicas of a shard: passwords, certificate, configuration, Services, disruption budget. I/O.
//!
//! None of it is on the way of a failover, so it is no business of the shard's stage: this controller makes it from the Shard
//! and looks again now and then. Pods wait for what they mount.

pub mod secrets;

use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use kube::ResourceExt;
use understudy_api::{Shard, labels, names};

use self::secrets::SecretError;
use super::queue::{Again, Controller, Failure, chain, let_go, trouble_of};
use super::shard::build;
use crate::apply::{ApplyError, Live, manager};
use crate::cache::{Held, Kind, Touched};
use crate::context::Context;
use crate::events::Reason;
use crate::troubles::Trouble;

/// Certificates are looked at this often; they live for months.
const AGAIN: Duration = Duration::from_secs(600);

/// Which step of a pass failed.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
enum FurnishError {
    #[error("credentials of the shard")]
    Credentials(#[source] SecretError),
    #[error("certificate of the shard")]
    Certificate(#[source] SecretError),
    #[error("configuration of the shard")]
    Config(#[source] ApplyError),
    #[error("services of the shard")]
    Service(#[source] ApplyError),
    #[error("disruption budget of the shard")]
    Budget(#[source] ApplyError),
}

impl Failure for FurnishError {
    fn label(&self) -> &'static str {
        self.into()
    }

    fn unwritten(&self) -> Option<&ApplyError> {
        match self {
            Self::Credentials(error) | Self::Certificate(error) => error.unwritten(),
            Self::Config(error) | Self::Service(error) | Self::Budget(error) => Some(error),
        }
    }
}

/// Starts the controller.
pub fn start(context: &Context) {
    Controller { kind: Kind::Shard, cache: context.caches.shards.clone(), concerns, pass, leave: let_go }
        .start(context);
}

fn concerns(touched: &Touched, _: &Context) -> Vec<(String, String)> {
    let name = match (touched.kind, &touched.owner) {
        (Kind::Shard, _) if !touched.deleted => &touched.name,
        (Kind::Service | Kind::PodDisruptionBudget, Some((kind, name))) if kind == "Shard" => name,
        _ => return Vec::new(),
    };
    vec![(touched.namespace.clone(), name.clone())]
}

fn pass(shard: Held<Shard>, context: &Context) -> BoxFuture<'_, Result<Again, FurnishError>> {
    async move {
        if shard.spec.paused {
            return Ok(AGAIN);
        }
        let outcome = furnish(&shard, context).await;
        let trouble = outcome.as_ref().err().and_then(|error| trouble_of(error).or_else(|| lacking(error)));
        context.troubles.set(&shard.namespace().unwrap_or_default(), &shard.name_any(), trouble);
        outcome.map(|()| AGAIN)
    }
    .boxed()
}

/// Passwords that are gone come back only by a person.
fn lacking(error: &FurnishError) -> Option<Trouble> {
    match error {
        FurnishError::Credentials(SecretError::Gone { .. } | SecretError::Incomplete { .. }) => {
            Some(Trouble { reason: Reason::ReconcileFailed, message: chain(error) })
        }
        _ => None,
    }
}

/// Both are done, whatever becomes of the first: a certificate ends, and passwords may be missing for long. The first error counts.
async fn both<E>(
    one: impl Future<Output = Result<(), E>>,
    other: impl Future<Output = Result<(), E>>,
) -> Result<(), E> {
    let one = one.await;
    let other = other.await;
    one.and(other)
}

async fn furnish(shard: &Shard, context: &Context) -> Result<(), FurnishError> {
    let name = shard.name_any();
    let namespace = shard.namespace().unwrap_or_default();
    let applier = &context.applier;
    // Secrets are not watched, so that the operator needs no right to list them; they are read now and then instead.
    let what =
        format!("secrets of {}/{}", shard.uid().unwrap_or_default(), shard.metadata.generation.unwrap_or_default());
    if context.recent.is_due(&what, AGAIN) {
        let credentials = secrets::ensure_credentials(shard, context);
        let (sans, secret, labels) =
            (names::shard_sans(&name, &namespace), names::shard_tls_secret(&name), build::shard_labels(shard));
        let certificate = secrets::ensure_certificate(shard, &secret, &sans, &labels, context);
        both(credentials.map_err(FurnishError::Credentials), certificate.map_err(FurnishError::Certificate)).await?;
        context.recent.looked(what);
    }
    applier.apply(manager::FURNISH, &build::config_map(shard), Live::Unwatched).await.map_err(FurnishError::Config)?;
    for service in [build::primary_service(shard), build::standbys_service(shard)] {
        let live = context.caches.services.get(&namespace, &service.name_any());
        let live = Live::of(live.as_ref().map(|service| &service.metadata));
        applier.apply(manager::FURNISH, &service, live).await.map_err(FurnishError::Service)?;
    }
    let budget = build::budget(shard);
    // Two budgets over one pod let nobody drain a node.
    for other in context.caches.budgets.labelled(&namespace, labels::SHARD, &name) {
        let ours = other.owner_references().iter().any(|owner| Some(&owner.uid) == shard.uid().as_ref());
        if ours && other.name_any() != budget.name_any() {
            applier.delete(&*other, None).await.map_err(FurnishError::Budget)?;
        }
    }
    let live = context.caches.budgets.get(&namespace, &budget.name_any());
    let live = Live::of(live.as_ref().map(|budget| &budget.metadata));
    applier.apply(manager::FURNISH, &budget, live).await.map_err(FurnishError::Budget)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use serde_json::json;
    use understudy_link::issue::Facts;

    use super::*;
    use crate::fake::FakeApi;

    async fn furnished(api: &FakeApi) -> Vec<String> {
        let context = api.context().await;
        pass(context.caches.shards.get("prod", "m").expect("the Shard"), &context).await.unwrap();
        let secret = api.object("secrets/m-tls").expect("a certificate");
        let secret: k8s_openapi::api::core::v1::Secret = serde_json::from_value(secret).unwrap();
        let certificate = secret.data.unwrap().remove("tls.crt").unwrap().0;
        Facts::of_pem(std::str::from_utf8(&certificate).unwrap()).unwrap().names
    }

    #[tokio::test]
    async fn a_shard_gets_all_that_stands_around_its_replicas_with_no_more_rights_than_the_chart_grants() {
        let api = FakeApi::with([json!({
            "apiVersion": "understudy.dev/v1alpha1", "kind": "Shard",
            "metadata": { "name": "m", "namespace": "prod", "uid": "u1", "generation": 1 },
            "spec": { "mysql": { "image": "mysql:9.7.4" }, "storage": { "size": "10Gi" } },
        })]);
        let names = furnished(&api).await;
        for wanted in ["m.shard.understudy.internal", "m-primary", "m-standbys.prod.svc"] {
            assert!(names.iter().any(|name| name == wanted), "{wanted}: {names:?}");
        }
        for made in [
            "secrets/m-credentials",
            "configmaps/m-mysql",
            "services/m-primary",
            "services/m-standbys",
            "poddisruptionbudgets/m-replicas",
        ] {
            assert!(api.object(made).is_some(), "{made}: {:?}", api.writes());
        }
    }

    #[tokio::test]
    async fn a_certificate_is_made_even_if_the_passwords_are_gone_and_the_first_error_is_told() {
        let (bad, worse) = (Err("no passwords"), Err("no certificate"));
        for (one, other, expected) in
            [(Ok(()), Ok(()), Ok(())), (bad, Ok(()), bad), (Ok(()), worse, worse), (bad, worse, bad)]
        {
            let done = RefCell::new(Vec::new());
            let step = |name, outcome: Result<(), &'static str>| {
                let done = &done;
                async move {
                    done.borrow_mut().push(name);
                    outcome
                }
            };
            assert_eq!(both(step("passwords", one), step("certificate", other)).await, expected);
            assert_eq!(done.into_inner(), ["passwords", "certificate"]);
        }
    }
}
