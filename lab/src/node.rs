//! A node, seen from the host: its network namespace, its disk, its configuration and the process that is its power switch.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::api::Api;
use crate::artifacts::KUBERNETES;
use crate::lab::Lab;
use crate::state::write_atomic;
use crate::topology::{DNS_SERVICE, Node, POD_CIDR};
use crate::{api, cgroup, net, pki, run};

/// Image of the pause program, by the name containerd asks for.
pub const PAUSE_IMAGE: &str = "understudy-lab/pause:1";

/// Directories of the host that a node covers with its own: the node's side, the path.
pub const COVERED: [(&str, &str); 7] = [
    ("kubelet", "/var/lib/kubelet"),
    ("containerd", "/var/lib/containerd"),
    ("run-containerd", "/run/containerd"),
    ("cni-conf", "/etc/cni/net.d"),
    ("cni", "/var/lib/cni"),
    ("log-pods", "/var/log/pods"),
    ("log-containers", "/var/log/containers"),
];

/// Name of the node's process in the state.
pub fn process_name(node: &Node) -> String {
    node.name()
}

/// Starts the node if it is down. Its network namespace is made anew, its disk is kept: the machine was switched off and on.
pub fn ensure(lab: &mut Lab<'_>, node: &Node, all: &[Node]) -> Result<bool> {
    if lab.state.is_alive(&process_name(node)) {
        return Ok(false);
    }
    pki::ensure_node(lab.paths, node)?;
    // What a reboot clears. For each cgroup of a container that is gone the kubelet asks containerd for 3 s before it starts.
    if let Err(error) = cgroup::remove(&node.cgroup()) {
        lab.ui.say(&format!("{} keeps old cgroups, and its kubelet takes longer to start: {error:#}", node.name()));
    }
    cgroup::ensure(&node.cgroup())?;
    let dir = lab.paths.node(&node.name());
    for sub in ["disks", "config"].into_iter().chain(COVERED.map(|c| c.0)) {
        // What a reboot clears: sockets of containerd, and addresses given to pods that are gone.
        if ["run-containerd", "cni"].contains(&sub) && dir.join(sub).exists() {
            fs::remove_dir_all(dir.join(sub)).with_context(|| format!("cannot clear {sub} of {}", node.name()))?;
        }
        fs::create_dir_all(dir.join(sub))?;
    }
    fs::create_dir_all(lab.paths.volumes().join(node.name()))?;
    make_host_dirs(lab)?;
    write_config(lab, node)?;
    net::make_node(node, all)?;
    let command = switch_on(lab, node);
    lab.ensure_process(&process_name(node), &command, &[])
}

/// Mount points must exist on the host; those made here are removed by `down`.
fn make_host_dirs(lab: &mut Lab<'_>) -> Result<()> {
    for (_, path) in COVERED {
        let mut missing: Vec<_> = Path::new(path).ancestors().take_while(|p| !p.exists()).collect();
        while let Some(dir) = missing.pop() {
            fs::create_dir(dir).with_context(|| format!("cannot create {}", dir.display()))?;
            lab.state.made_dirs.push(dir.display().to_string());
            lab.state.save(lab.paths)?;
        }
    }
    Ok(())
}

/// The process whose SIGKILL takes the whole node away at once: the parent of the node's first process.
fn switch_on(lab: &Lab<'_>, node: &Node) -> Command {
    let mut command = run::cmd(["nsenter", &format!("--net={}", node.netns_path())]);
    command.args(["unshare", "--mount", "--propagation", "slave", "--pid", "--fork", "--mount-proc", "--kill-child"]);
    command.arg(lab.own_program()).arg("--state-dir").arg(&lab.paths.state).args([
        "node-init",
        "--node",
        &node.index.to_string(),
    ]);
    command
}

fn write_config(lab: &Lab<'_>, node: &Node) -> Result<()> {
    let dir = lab.paths.node(&node.name());
    let config = dir.join("config");
    write_atomic(&config.join("containerd.toml"), containerd_toml().as_bytes())?;
    let pki = lab.paths.pki();
    let json = |value: serde_json::Value| serde_json::to_vec_pretty(&value);
    write_atomic(&config.join("kubelet.json"), &json(kubelet_config(&pki, node))?)?;
    write_atomic(&config.join("kube-proxy.json"), &json(proxy_config(&pki, node))?)?;
    write_atomic(&dir.join("cni-conf").join("10-lab.conflist"), &json(cni_config(node))?)?;
    write_atomic(&config.join("resolv.conf"), b"")?;
    write_atomic(&config.join("xtables.lock"), b"")
}

fn containerd_toml() -> String {
    format!(
        r#"version = 2
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"#
    )
}

fn kubelet_config(pki: &Path, node: &Node) -> serde_json::Value {
    let name = node.name();
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "0.0.0.0",
        "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true},
                           "x509": {"clientCAFile": pki.join("ca.crt")}},
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": pki.join(format!("{name}.crt")),
        "tlsPrivateKeyFile": pki.join(format!("{name}.key")),
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", node.cgroup()),
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": "cluster.local",
        "resolvConf": "/run/understudy-node/resolv.conf",
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": false,
        "failSwapOn": false,
        "oomScoreAdj": 0,
        "readOnlyPort": 0,
        "serializeImagePulls": false,
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "imageMaximumGCAge": "0s",
        "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%",
                         "imagefs.inodesFree": "0%"},
        "registryPullQPS": 0,
        "kubeAPIQPS": 50,
        "kubeAPIBurst": 100,
    })
}

fn proxy_config(pki: &Path, node: &Node) -> serde_json::Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "hostnameOverride": node.name(),
        "clusterCIDR": POD_CIDR,
        "oomScoreAdj": 0,
        "conntrack": {"maxPerCore": 0},
        "clientConnection": {"kubeconfig": pki.join("kube-proxy.kubeconfig")},
        "iptables": {"minSyncPeriod": "100ms", "syncPeriod": "30s"},
        "metricsBindAddress": "0.0.0.0:10249",
        "healthzBindAddress": "0.0.0.0:10256",
    })
}

fn cni_config(node: &Node) -> serde_json::Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "lab",
        "plugins": [
            {"type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "hairpinMode": true, "ipMasq": false,
             "ipam": {"type": "host-local", "ranges": [[{"subnet": node.pod_cidr()}]]}},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

/// Program and arguments of the kubelet; run inside the node.
pub fn kubelet(paths: &crate::paths::Paths, node: &Node) -> Command {
    let mut command = run::cmd([paths.binary("kubernetes", KUBERNETES, "kubelet")]);
    command.arg("--config=/run/understudy-node/kubelet.json");
    command.arg(format!("--kubeconfig={}", paths.pki().join(format!("{}.kubeconfig", node.name())).display()));
    command.arg(format!("--hostname-override={}", node.name())).arg(format!("--node-ip={}", node.address()));
    command.arg(format!("--node-labels=topology.kubernetes.io/zone={},topology.kubernetes.io/region=lab", node.zone));
    command.arg("--v=1");
    command
}

/// Waits until every node says that it is ready and its kubelet answers.
pub fn wait_ready(lab: &Lab<'_>, nodes: &[Node]) -> Result<()> {
    let api = lab.api();
    let ready = api::wait(Duration::from_secs(120), "the nodes are not ready", || {
        for node in nodes {
            if lab.running(&process_name(node)).is_none() {
                bail!("{} went down; {}", node.name(), lab.log_tail(&process_name(node)));
            }
            if !kubelet_healthy(lab, node) {
                return Ok(false);
            }
        }
        let ready = api.list("/api/v1/nodes")?.iter().filter(|n| is_ready(n)).count();
        Ok(ready >= nodes.len())
    });
    ready.with_context(|| {
        let tails: Vec<_> = nodes.iter().map(|n| lab.log_tail(&format!("{}-kubelet", n.name()))).collect();
        tails.join("\n")
    })
}

/// The containers that Kubernetes believes to run on a node. None while the API server does not answer.
pub fn believed_to_run(api: &Api, node: &str) -> Option<BTreeSet<String>> {
    let pods = api.list(&format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}")).ok()?;
    Some(pods.iter().flat_map(running).collect())
}

/// Waits until Kubernetes has heard that none of the containers of before runs any more. A node that was away for less than its
/// Lease never counts as lost, and its dead pods as ready, until its kubelet reports.
pub fn wait_reported(api: &Api, node: &str, before: &BTreeSet<String>) -> Result<()> {
    let what = format!("the kubelet of {node} does not report its restarted pods");
    api::wait(Duration::from_secs(120), &what, || {
        Ok(believed_to_run(api, node).is_some_and(|running| running.is_disjoint(before)))
    })
}

fn running(pod: &Value) -> impl Iterator<Item = String> + '_ {
    let statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    let running = statuses.filter(|status| !status["state"]["running"].is_null());
    running.filter_map(|status| status["containerID"].as_str()).map(str::to_owned)
}

/// Whether the kubelet answers on the node's address.
pub fn kubelet_healthy(lab: &Lab<'_>, node: &Node) -> bool {
    lab.api().healthy(&format!("https://{}:10250/healthz", node.address()))
}

/// Whether Kubernetes says that the node is ready.
pub fn is_ready(node: &Value) -> bool {
    node["status"]["conditions"]
        .as_array()
        .is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_never_collected_and_pods_never_evicted() {
        let config = kubelet_config(Path::new("/pki"), &Node::new(2));
        assert_eq!(config["imageGCHighThresholdPercent"], 100);
        assert_eq!(config["evictionHard"]["nodefs.available"], "0%");
        assert_eq!(config["cgroupRoot"], "/understudy-lab/node-2");
    }

    #[test]
    fn only_containers_that_run_count() {
        let status = |id: &str, state: &str| json!({"containerID": id, "state": {state: {}}});
        let pod = json!({"status": {"containerStatuses": [status("a", "running"), status("b", "terminated")]}});
        assert_eq!(running(&pod).collect::<Vec<_>>(), ["a"]);
        assert_eq!(running(&json!({"status": {"phase": "Pending"}})).count(), 0);
    }

    #[test]
    fn a_nodes_pods_get_addresses_of_the_nodes_range() {
        assert_eq!(cni_config(&Node::new(3))["plugins"][0]["ipam"]["ranges"][0][0]["subnet"], "10.89.3.0/24");
    }
}
