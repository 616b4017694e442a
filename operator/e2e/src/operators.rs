//! The operator's own pods: killing them, taking them away, and waiting until one leads again. I/O.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};

use crate::cluster::Cluster;
use crate::wait::{Seen, until};

/// Where `cargo lab` installs it.
pub const NAMESPACE: &str = "understudy-system";
/// Its Deployment.
pub const DEPLOYMENT: &str = "understudy";
const SELECTOR: &str = "app.kubernetes.io/name=understudy";

/// Kills every instance of the operator at once, without grace.
pub async fn kill_all(cluster: &Cluster) -> Result<()> {
    let pods = Api::<Pod>::namespaced(cluster.client.clone(), NAMESPACE);
    let list = pods.list(&ListParams::default().labels(SELECTOR)).await.context("cannot list the operator's pods")?;
    ensure!(!list.items.is_empty(), "there is no pod {SELECTOR} in {NAMESPACE}");
    let now = DeleteParams::default().grace_period(0);
    for pod in list.items {
        let name = pod.metadata.name.unwrap_or_default();
        pods.delete(&name, &now).await.with_context(|| format!("cannot kill the operator's pod {name}"))?;
    }
    Ok(())
}

/// Asks for so many instances; how many were asked for before. Whoever takes them all away must bring them back, whatever becomes of the test.
pub async fn scale(cluster: &Cluster, replicas: i32) -> Result<i32> {
    let deployments = Api::<Deployment>::namespaced(cluster.client.clone(), NAMESPACE);
    let before = deployments.get(DEPLOYMENT).await.context("cannot read the operator's Deployment")?;
    let patch = Patch::Merge(serde_json::json!({ "spec": { "replicas": replicas } }));
    deployments
        .patch(DEPLOYMENT, &PatchParams::default(), &patch)
        .await
        .with_context(|| format!("cannot scale the operator to {replicas}"))?;
    Ok(before.spec.and_then(|spec| spec.replicas).unwrap_or(1))
}

/// Waits until no instance is left.
pub async fn none(cluster: &Cluster) -> Result<()> {
    let pods = Api::<Pod>::namespaced(cluster.client.clone(), NAMESPACE);
    until("no operator runs", Duration::from_secs(60), async || {
        let list = pods.list(&ListParams::default().labels(SELECTOR)).await?;
        Ok(Seen::when(list.items.is_empty(), (), format!("{} pods", list.items.len())))
    })
    .await
}

/// Waits until the Deployment has all its pods.
pub async fn ready(cluster: &Cluster) -> Result<()> {
    let deployments = Api::<Deployment>::namespaced(cluster.client.clone(), NAMESPACE);
    until("the operator is ready", Duration::from_secs(120), async || {
        let deployment = deployments.get(DEPLOYMENT).await?;
        let wanted = deployment.spec.and_then(|s| s.replicas).unwrap_or(1);
        let available = deployment.status.and_then(|s| s.available_replicas).unwrap_or(0);
        Ok(Seen::when(available >= wanted, (), format!("{available} of {wanted} pods")))
    })
    .await
}
