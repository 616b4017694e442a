//! What a fault is aimed at, and the pods, nodes and volumes behind it. Asks the API server, and reads `/proc` while that is away.

use std::fs;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::api::Api;
use crate::paths::Paths;
use crate::process;
use crate::state::State;
use crate::topology::{CGROUP, Node};
use crate::volume::{self, Volume};

/// The operator's Deployment and its Lease carry this name; a Lease of one that watches one namespace has that appended.
const OPERATOR: &str = "understudy";

/// What a fault is aimed at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A replica: its pod, and a claim of the same name.
    Replica { name: String, namespace: Option<String> },
    /// A node.
    Node(String),
    /// A process of the lab, as `status` names it: `kafka-2`, `etcd`, `kube-apiserver`, ...
    Part(String),
    /// Any pod.
    Pod { name: String, namespace: Option<String> },
    /// Pods of the operator.
    Operator(Which),
    /// All nodes of a zone.
    Zone(String),
    /// The lab as a whole, for what has one place only.
    Lab,
}

/// Which instances of the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Which {
    /// The one that holds the Lease.
    Leader,
    /// All of them.
    All,
}

impl Target {
    /// For messages.
    pub fn describe(&self) -> String {
        match self {
            Self::Replica { name, .. } | Self::Node(name) | Self::Part(name) | Self::Pod { name, .. } => name.clone(),
            Self::Operator(Which::Leader) => "the operator's leader".to_owned(),
            Self::Operator(Which::All) => "the operator".to_owned(),
            Self::Zone(zone) => format!("zone {zone}"),
            Self::Lab => "the lab".to_owned(),
        }
    }
}

/// A pod, as far as a fault cares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID, which its cgroups carry in their names.
    pub uid: String,
    /// The node it runs on.
    pub node: String,
    /// Its address; empty before it has one.
    pub address: String,
    /// The shard whose replica it is; empty for other pods.
    pub shard: String,
    /// What it is to its shard; empty for other pods.
    pub role: String,
}

impl Pod {
    /// Reads it from the API's answer.
    pub fn of(object: &Value) -> Self {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let (meta, labels) = (&object["metadata"], &object["metadata"]["labels"]);
        Self {
            namespace: text(&meta["namespace"]),
            name: text(&meta["name"]),
            uid: text(&meta["uid"]),
            node: text(&object["spec"]["nodeName"]),
            address: text(&object["status"]["podIP"]),
            shard: text(&labels["understudy.dev/shard"]),
            role: text(&labels["understudy.dev/role"]),
        }
    }

    /// `namespace/name`.
    pub fn what(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// What the names of its cgroups contain.
    pub fn mark(&self) -> String {
        format!("pod{}", self.uid)
    }
}

/// The one pod of that name. While the API server is away it is known by what runs in it, which is enough to kill or stop that.
pub fn pod(api: &Api, name: &str, namespace: Option<&str>) -> Result<Pod> {
    let mut found = match api.list(&format!("/api/v1/pods?fieldSelector=metadata.name={name}")) {
        Ok(found) => found,
        Err(error) => {
            let running = running(name).with_context(|| format!("{error:#}; and nothing runs in a pod `{name}`"))?;
            return Ok(Pod { namespace: namespace.unwrap_or_default().to_owned(), ..running });
        }
    };
    found.retain(|p| namespace.is_none_or(|n| p["metadata"]["namespace"] == n));
    match found.as_slice() {
        [] => bail!("there is no pod `{name}`"),
        [one] => Ok(Pod::of(one)),
        _ => bail!("several namespaces have a pod `{name}`: say which with --namespace"),
    }
}

/// A pod with its name and UID alone, by its processes: the name of a pod is their `HOSTNAME`.
fn running(name: &str) -> Option<Pod> {
    let mark = format!("HOSTNAME={name}");
    process::all_pids().into_iter().find_map(|pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
        environment.split(|byte| *byte == 0).find(|entry| *entry == mark.as_bytes())?;
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        Some(Pod { name: name.to_owned(), uid: uid_in(&cgroups)?.to_owned(), ..Pod::default() })
    })
}

/// The UID of the lab's pod to which a process belongs that is in these cgroups. Pure.
fn uid_in(cgroups: &str) -> Option<&str> {
    let of_lab = |line: &&str| line.split('/').any(|part| part == CGROUP);
    cgroups.lines().filter(of_lab).find_map(|line| line.split_once("/pod")?.1.split('/').next())
}

/// All pods with these labels, `name%3Dvalue` joined by `%2C`.
pub fn pods_with(api: &Api, selector: &str) -> Result<Vec<Pod>> {
    let found = api.list(&format!("/api/v1/pods?labelSelector={selector}"))?;
    Ok(found.iter().filter(|p| p["metadata"]["deletionTimestamp"].is_null()).map(Pod::of).collect())
}

/// The operator's pods.
pub fn operators(api: &Api, which: Which) -> Result<Vec<Pod>> {
    let mut pods = pods_with(api, &format!("app.kubernetes.io%2Fname%3D{OPERATOR}"))?;
    if which == Which::Leader {
        let leases = api.list("/apis/coordination.k8s.io/v1/leases")?;
        pods.retain(|pod| leases.iter().any(|lease| is_held_by(lease, pod)));
    }
    if pods.is_empty() {
        bail!("no operator runs, or none holds the Lease `{OPERATOR}`: run `cargo lab demo`");
    }
    Ok(pods)
}

fn is_held_by(lease: &Value, pod: &Pod) -> bool {
    let (meta, holder) = (&lease["metadata"], &lease["spec"]["holderIdentity"]);
    let is_ours = meta["name"]
        .as_str()
        .is_some_and(|name| name.strip_prefix(OPERATOR).is_some_and(|rest| rest.is_empty() || rest.starts_with('-')));
    is_ours && meta["namespace"] == pod.namespace.as_str() && *holder == *pod.name.as_str()
}

/// The node of that name.
pub fn node<'a>(state: &'a State, name: &str) -> Result<&'a Node> {
    let found = state.nodes.iter().find(|n| n.name() == name);
    found.with_context(|| format!("there is no node `{name}`; `cargo lab status` names them"))
}

/// The nodes of a zone.
pub fn zone<'a>(state: &'a State, name: &str) -> Result<Vec<&'a Node>> {
    let found: Vec<_> = state.nodes.iter().filter(|n| n.zone == name).collect();
    if found.is_empty() {
        bail!("there is no zone `{name}`; `cargo lab status` names them");
    }
    Ok(found)
}

/// The volume of a replica, which must be mounted.
pub fn volume_of(api: &Api, paths: &Paths, pod: &Pod) -> Result<Volume> {
    let path = format!("/api/v1/namespaces/{}/persistentvolumeclaims/{}", pod.namespace, pod.name);
    let claim = api.get(&path)?.with_context(|| format!("there is no claim {}: is it a replica?", pod.what()))?;
    let name = claim["spec"]["volumeName"].as_str().unwrap_or_default().to_owned();
    let volume = Volume { node: pod.node.clone(), name };
    if volume.name.is_empty() || !volume::is_mounted(&volume.mount_point(paths))? {
        bail!("the volume of {} is not mounted", pod.what());
    }
    Ok(volume)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_leader_is_the_pod_that_its_namespaces_lease_names() {
        let pod = Pod { namespace: "system".into(), name: "understudy-1".into(), ..Pod::default() };
        let lease = |name: &str, namespace: &str, holder: &str| json!({"metadata": {"name": name, "namespace": namespace}, "spec": {"holderIdentity": holder}});
        for (case, lease, want) in [
            ("the holder", lease("understudy", "system", "understudy-1"), true),
            ("of one namespace only", lease("understudy-prod", "system", "understudy-1"), true),
            ("another instance", lease("understudy", "system", "understudy-2"), false),
            ("another installation", lease("understudy", "other", "understudy-1"), false),
            ("another program's Lease", lease("understudying", "system", "understudy-1"), false),
            ("nobody", json!({"metadata": {"name": "understudy", "namespace": "system"}, "spec": {}}), false),
        ] {
            assert_eq!(is_held_by(&lease, &pod), want, "{case}");
        }
    }

    #[test]
    fn a_pod_is_known_by_the_cgroups_of_its_processes() {
        let line = |path: &str| format!("11:pids:{path}\n0::/\n");
        for (case, path, want) in [
            ("a pod's", "/understudy-lab/node-1/kubepods/burstable/pod0a-1b/c0ffee", Some("0a-1b")),
            ("a guaranteed pod's", "/understudy-lab/node-1/kubepods/pod0a-1b/c0ffee", Some("0a-1b")),
            ("a node's own", "/understudy-lab/node-1/kubepods", None),
            ("of another cluster", "/kubepods/burstable/pod0a-1b/c0ffee", None),
        ] {
            assert_eq!(uid_in(&line(path)), want, "{case}");
        }
    }

    #[test]
    fn a_node_or_zone_that_is_not_there_is_named() {
        let state = State { nodes: vec![Node::new(1), Node::new(3), Node::new(4)], ..State::default() };
        assert_eq!(zone(&state, "c").unwrap().len(), 2);
        assert!(zone(&state, "x").unwrap_err().to_string().contains("no zone `x`"));
        assert!(node(&state, "node-2").unwrap_err().to_string().contains("no node `node-2`"));
    }
}
