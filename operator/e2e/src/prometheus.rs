//! The real Prometheus of `lab/manifests`: one that scrapes the cluster and sends to a stage's gateway, one that reads back. I/O.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::ListParams;
use serde_json::Value;

use crate::manifest::folder;
use crate::see;
use crate::stage::Stage;
use crate::wait::{Seen, until};

/// The longest time between two scrapes of one job, as the manifest has it.
pub const SCRAPE: Duration = Duration::from_secs(15);

/// Both of them, in the namespace of a stage.
#[derive(Debug)]
pub struct Prometheus {
    /// `http://IP:PORT` of the one that scrapes and sends.
    pub sender: String,
    /// `http://IP:PORT` of the one without data, which reads from the query service.
    pub reader: String,
}

impl Prometheus {
    /// Starts both and waits until they are ready.
    pub async fn start(stage: &Stage) -> Result<Self> {
        let image = std::env::var("UNDERSTUDY_PROMETHEUS_IMAGE")
            .context("UNDERSTUDY_PROMETHEUS_IMAGE must name an image of Prometheus that the nodes have; `cargo lab test` sets it")?;
        stage.namespace.secret("prometheus-token", &[("token", stage.token.clone())]).await?;
        let template = std::fs::read_to_string(folder("lab/manifests/prometheus.yaml"))?;
        let manifest = fill(&template, stage.namespace.name(), &stage.datastore, &image, &kubelets(stage).await?);
        stage.cluster.kubectl(&["apply", "--server-side", "-f", "-"], &manifest).await?;
        Ok(Self { sender: address(stage, "prometheus").await?, reader: address(stage, "prometheus-reader").await? })
    }

    /// Removes both, and what they may read of the cluster.
    pub async fn stop(self, stage: &Stage) -> Result<()> {
        let rights = format!("understudy-prometheus-{}", stage.namespace.name());
        stage.cluster.kubectl(&["delete", "clusterrole,clusterrolebinding", &rights], "").await?;
        let namespace = stage.namespace.name();
        stage
            .cluster
            .kubectl(&["delete", "-n", namespace, "deployment", "prometheus", "prometheus-reader"], "")
            .await?;
        Ok(())
    }

    /// The answer of the reader to an instant query, as `(labels, value)` in JSON.
    pub async fn ask(&self, query: &str) -> Result<Vec<Value>> {
        instant(&self.reader, query).await
    }

    /// How often the sender has scraped each job within the last `seconds`: of a job's targets, the one that was scraped most.
    pub async fn scrapes(&self, seconds: u64) -> Result<BTreeMap<String, u64>> {
        let query = format!("max by (job) (count_over_time(up[{}s]))", seconds.max(1));
        Ok(by_job(&instant(&self.sender, &query).await?))
    }
}

async fn instant(prometheus: &str, query: &str) -> Result<Vec<Value>> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build()?;
    let url = reqwest::Url::parse_with_params(&format!("{prometheus}/api/v1/query"), [("query", query)])?;
    let text = client.get(url).send().await?.error_for_status()?.text().await?;
    let mut answer: Value = serde_json::from_str(&text)?;
    serde_json::from_value(answer["data"]["result"].take())
        .with_context(|| format!("{prometheus} answers without a result"))
}

fn by_job(answer: &[Value]) -> BTreeMap<String, u64> {
    let one = |series: &Value| {
        let job = series["metric"]["job"].as_str()?.to_owned();
        Some((job, series["value"][1].as_str()?.parse().ok()?))
    };
    answer.iter().filter_map(one).collect()
}

fn fill(template: &str, namespace: &str, datastore: &str, image: &str, kubelets: &str) -> String {
    let of_store = template.replace("@NAMESPACE@", namespace).replace("@DATASTORE@", datastore);
    of_store.replace("@IMAGE@", image).replace("@KUBELETS@", kubelets)
}

/// `ADDRESS:PORT` of every kubelet.
async fn kubelets(stage: &Stage) -> Result<String> {
    let nodes = Api::<Node>::all(stage.cluster.client.clone()).list(&ListParams::default()).await?;
    let one = |node: Node| {
        let status = node.status?;
        let address = status.addresses?.into_iter().find(|a| a.type_ == "InternalIP")?.address;
        Some(format!("{address}:{}", status.daemon_endpoints?.kubelet_endpoint?.port))
    };
    Ok(nodes.items.into_iter().filter_map(one).collect::<Vec<_>>().join(", "))
}

async fn address(stage: &Stage, app: &str) -> Result<String> {
    until(format!("{app} is ready"), Duration::from_secs(90), async || {
        let pods = stage.namespace.list::<Pod>(&format!("app={app}")).await?;
        let address = see::addresses(pods.values(), 9090).into_iter().next();
        Ok(address.map_or_else(|| Seen::NotYet(format!("pods: {:?}", pods.keys())), Seen::Done))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scrapes_are_counted_by_job() {
        let answer = serde_json::json!([
            {"metric": {"job": "kubelet"}, "value": [1_700_000_000.1, "4"]},
            {"metric": {}, "value": [1_700_000_000.1, "9"]},
        ]);
        assert_eq!(by_job(answer.as_array().unwrap()), [("kubelet".to_owned(), 4)].into());
    }

    #[test]
    fn no_job_is_scraped_less_often_than_the_constant_says() {
        let text = std::fs::read_to_string(folder("lab/manifests/prometheus.yaml")).unwrap();
        let intervals =
            text.lines().filter_map(|line| line.trim().strip_prefix("scrape_interval: ")?.strip_suffix('s'));
        let longest: Option<u64> = intervals.map(|seconds| seconds.parse().unwrap()).max();
        assert_eq!(longest, Some(SCRAPE.as_secs()));
    }

    #[test]
    fn the_manifest_leaves_nothing_to_fill_in() {
        let template = std::fs::read_to_string(folder("lab/manifests/prometheus.yaml")).unwrap();
        let filled = fill(&template, "ns", "store", "prometheus:1", "10.0.0.1:10250");
        assert!(!filled.split_once("apiVersion").unwrap().1.contains('@'));
        assert!(filled.contains("http://store-gateway.ns.svc:8080/api/v1/write"));
    }
}
