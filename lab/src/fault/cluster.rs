//! Faults of the cluster around the databases: nodes and zones that vanish, parts that stand still, a node that is drained.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::record::Active;
use super::target::{self, Pod};
use super::{Scene, process};
use crate::api::Api;
use crate::kafka;
use crate::node;
use crate::topology::Node;

/// Longest time for the pods of a drained node to go.
const DRAINED_WITHIN: Duration = Duration::from_secs(300);
/// Parts of the control plane, in the order in which they are killed: who would report the end of the others goes first.
const CONTROL_PLANE: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// SIGKILL of everything on these nodes, as near to each other as can be.
pub fn lose(scene: &Scene<'_>, nodes: &[&Node]) -> Result<()> {
    let running = |n: &&Node| scene.state.is_alive(&node::process_name(n));
    let nodes: Vec<_> = nodes.iter().copied().filter(running).collect();
    if nodes.is_empty() {
        bail!("it is down already");
    }
    for node in &nodes {
        scene.record(Active::StartNode { node: node.name() })?;
    }
    for power in nodes.iter().filter_map(|n| scene.state.processes.get(&node::process_name(n))) {
        power.signal(Signal::KILL);
    }
    Ok(())
}

/// SIGKILL of a part.
pub fn kill_part(scene: &Scene<'_>, name: &str) -> Result<()> {
    let process = scene.state.processes.get(name).filter(|p| p.is_alive());
    let process = process.with_context(|| format!("no part `{name}` runs; `cargo lab status` names them"))?;
    scene.record(Active::StartPart { part: name.to_owned() })?;
    process.signal(Signal::KILL);
    Ok(())
}

/// SIGSTOP of parts.
pub fn stop_parts(scene: &Scene<'_>, names: &[String]) -> Result<()> {
    for name in names {
        let process = scene.state.processes.get(name).filter(|p| p.is_alive());
        let process = process.with_context(|| format!("no part `{name}` runs; `cargo lab status` names them"))?;
        process::stop(scene, name.clone(), vec![process.clone()])?;
    }
    Ok(())
}

/// Every broker stands still: who connects waits.
pub fn stop_kafka(scene: &Scene<'_>) -> Result<()> {
    stop_parts(scene, &kafka::BROKERS.map(kafka::process_name))
}

/// The control plane is gone: who connects is refused. etcd stays, so that nothing is forgotten.
pub fn kill_control_plane(scene: &Scene<'_>) -> Result<()> {
    let running: Vec<_> = CONTROL_PLANE.into_iter().filter(|name| scene.state.is_alive(name)).collect();
    if running.is_empty() {
        bail!("the control plane is down already");
    }
    running.into_iter().try_for_each(|name| kill_part(scene, name))
}

/// The cluster's DNS stands still on every node.
pub fn freeze_dns(scene: &Scene<'_>) -> Result<()> {
    let pods = target::pods_with(&scene.api, "k8s-app%3Dkube-dns")?;
    if pods.is_empty() {
        bail!("there is no pod of the cluster's DNS: run `cargo lab up`");
    }
    pods.iter().try_for_each(|pod| process::freeze_pod(scene, pod))
}

/// Takes no more pods, and evicts those that are there, as `kubectl drain --ignore-daemonsets` does.
pub fn drain(scene: &Scene<'_>, node: &Node) -> Result<()> {
    scene.record(Active::Uncordon { node: node.name() })?;
    set_cordon(&scene.api, &node.name(), true)?;
    // What comes of it begins now, and not when the last pod is gone.
    scene.ui.say(&format!("drain of {}: in force, its pods are being evicted", node.name()));
    let step = scene.ui.step(&format!("drain {}", node.name()), None);
    let end = Instant::now() + DRAINED_WITHIN;
    loop {
        let path = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{}", node.name());
        let left: Vec<_> = scene.api.list(&path)?.iter().filter(|pod| is_drained(pod)).map(Pod::of).collect();
        if left.is_empty() {
            step.done();
            return Ok(());
        }
        let mut refused = None;
        for pod in &left {
            refused = evict(&scene.api, pod)?.or(refused);
        }
        if Instant::now() > end {
            let names: Vec<_> = left.iter().map(Pod::what).collect();
            let why = refused.unwrap_or_else(|| "they do not end".to_owned());
            scene.ui.say(&format!("{} stays cordoned with {}: {why}", node.name(), names.join(", ")));
            return Ok(());
        }
        step.progress(left.len(), 0, "pods left");
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Whether a drain takes this pod away. Pure.
fn is_drained(pod: &Value) -> bool {
    let owners = pod["metadata"]["ownerReferences"].as_array();
    let is_of_node = owners.into_iter().flatten().any(|o| o["kind"] == "DaemonSet" || o["kind"] == "Node");
    let is_over = ["Succeeded", "Failed"].iter().any(|phase| pod["status"]["phase"] == *phase);
    !is_of_node && !is_over
}

/// Why a pod may not go yet, if so.
fn evict(api: &Api, pod: &Pod) -> Result<Option<String>> {
    let path = format!("/api/v1/namespaces/{}/pods/{}/eviction", pod.namespace, pod.name);
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": pod.name, "namespace": pod.namespace},
        "deleteOptions": {"preconditions": {"uid": pod.uid}},
    });
    let answer = api.request("POST", &path, "application/json", Some(&eviction))?;
    let message = answer.body["message"].as_str().unwrap_or_default().to_owned();
    match answer.code {
        // Gone, or another of the same name.
        200..=299 | 404 | 409 => Ok(None),
        429 => Ok(Some(message)),
        code => bail!("the pod {} is not evicted: HTTP {code}: {message}", pod.what()),
    }
}

/// Whether a node takes pods.
pub fn set_cordon(api: &Api, node: &str, cordoned: bool) -> Result<()> {
    let unschedulable = if cordoned { Value::Bool(true) } else { Value::Null };
    api.merge(&format!("/api/v1/nodes/{node}"), &json!({"spec": {"unschedulable": unschedulable}})).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_leaves_those_that_belong_to_the_node_or_are_over() {
        for (case, pod, want) in [
            (
                "a replica",
                json!({"metadata": {"ownerReferences": [{"kind": "Replica"}]}, "status": {"phase": "Running"}}),
                true,
            ),
            ("nobody's", json!({"metadata": {}, "status": {"phase": "Pending"}}), true),
            (
                "of a DaemonSet",
                json!({"metadata": {"ownerReferences": [{"kind": "DaemonSet"}]}, "status": {"phase": "Running"}}),
                false,
            ),
            (
                "the kubelet's own",
                json!({"metadata": {"ownerReferences": [{"kind": "Node"}]}, "status": {"phase": "Running"}}),
                false,
            ),
            ("over", json!({"metadata": {}, "status": {"phase": "Succeeded"}}), false),
        ] {
            assert_eq!(is_drained(&pod), want, "{case}");
        }
    }
}
