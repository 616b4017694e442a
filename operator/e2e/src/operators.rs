//! The operator's own pods: killing them, and waiting until one leads again. I/O.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams};

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
