//! A real Prometheus in the cluster: its image, its manifest, and waiting until what it scraped can be read back. Runs kubectl.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::store::Store;
use crate::artifacts::DEBIAN;
use crate::import::{self, Base};
use crate::paths::Paths;
use crate::progress::Ui;

/// What it scrapes, by the names in the manifest.
const JOBS: [&str; 4] = ["apiserver", "kubelet", "cadvisor", "understudy"];

/// Name of the lab's image.
pub fn image_name() -> String {
    format!("prometheus:{DEBIAN}")
}

/// Puts Debian's Prometheus into every node.
pub fn build_image(paths: &Paths, ui: &Ui) -> Result<()> {
    let nodes = import::need_nodes(paths)?;
    let image = import::image(paths, ui, &image_name(), Base::Prometheus, Vec::new())?.prepare()?;
    import::import(paths, ui, &image, &nodes).map(drop)
}

/// Starts one that scrapes this cluster and writes to the Datastore's gateway, and an empty one that reads from its query service.
pub fn install(store: &Store<'_>, paths: &Paths, ui: &Ui, image: &str) -> Result<()> {
    let step = ui.step("start a real Prometheus that scrapes this cluster", None);
    let file = paths.checkout.join("lab/manifests/prometheus.yaml");
    let template = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    store.access.apply_all(&fill(&template, store, image, &store.access.kubelets()?))?;
    for deployment in ["prometheus", "prometheus-reader"] {
        store.access.rollout(&store.namespace, deployment, Duration::from_secs(120))?;
    }
    step.done();
    Ok(())
}

fn fill(template: &str, store: &Store<'_>, image: &str, kubelets: &str) -> String {
    let of_store = template.replace("@NAMESPACE@", &store.namespace).replace("@DATASTORE@", &store.name);
    of_store.replace("@IMAGE@", image).replace("@KUBELETS@", kubelets)
}

/// Waits until PromQL over what is stored sees a fresh sample of every job; how many series it sees.
pub fn wait_readable(store: &Store<'_>, ui: &Ui) -> Result<u64> {
    let step = ui.step("wait until its samples are read back through the query API", None);
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        let seen = match targets(store) {
            Ok(jobs) if JOBS.iter().all(|j| jobs.iter().any(|(job, _)| job == j)) => {
                let list: Vec<_> = jobs.iter().map(|(job, up)| format!("{job} {up}")).collect();
                step.note(&format!(
                    "targets up, by job, as PromQL over the stored samples counts them: {}",
                    list.join(", ")
                ));
                let series = jobs.iter().map(|(job, _)| count(store, job)).sum::<Result<u64>>()?;
                step.done();
                return Ok(series);
            }
            Ok(jobs) => format!("jobs {jobs:?}"),
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() > end {
            bail!("the samples of Prometheus cannot be read back; last seen: {seen}");
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn targets(store: &Store<'_>) -> Result<Vec<(String, u64)>> {
    let result = ask(store, "count%20by%20(job)%20(up%20%3D%3D%201)")?;
    Ok(result.iter().filter_map(|r| Some((r["metric"]["job"].as_str()?.to_owned(), number(r)?))).collect())
}

fn count(store: &Store<'_>, job: &str) -> Result<u64> {
    let result = ask(store, &format!("count(%7Bjob%3D%22{job}%22%7D)"))?;
    Ok(result.first().and_then(number).unwrap_or(0))
}

fn ask(store: &Store<'_>, query: &str) -> Result<Vec<serde_json::Value>> {
    let path = format!("/api/v1/query?query={query}");
    let mut answer = store.access.proxy(&store.namespace, "prometheus-reader", 9090, &path)?;
    serde_json::from_value(answer["data"]["result"].take()).context("the answer has no result")
}

fn number(row: &serde_json::Value) -> Option<u64> {
    row["value"][1].as_str()?.parse().ok()
}
