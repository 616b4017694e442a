//! Faults, put in from outside and taken out again. What must be undone is written to disk before it is done.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::Api;
use crate::paths::Paths;
use crate::process::{self, Process};
use crate::progress::Ui;
use crate::state::{Lock, State, read_json, write_json};
use crate::topology::Node;
use crate::volume::{self, Volume};
use crate::{cgroup, net, node};

/// What can be done to a replica, a node or a part of the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// SIGKILL of mysqld, or of a part.
    Kill,
    /// SIGSTOP of mysqld, or of a part.
    Freeze,
    /// Every process of the replica's pod stands still (cgroup freezer).
    PodFreeze,
    /// The replica's volume takes no writes (fsfreeze): reads answer, commits hang.
    Wedge,
    /// The replica's node vanishes (SIGKILL of everything on it).
    NodeLoss,
    /// The replica's node loses its network.
    Isolate,
}

/// What a fault is aimed at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A replica: its pod, and a claim of the same name.
    Replica { name: String, namespace: Option<String> },
    /// A node.
    Node(String),
    /// A process of the lab, as `status` names it: `kafka-2`, `etcd`, `kube-apiserver`, ...
    Part(String),
}

/// A fault in force and how to undo it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "undo", rename_all = "kebab-case")]
pub enum Active {
    /// Continue these processes.
    Continue { what: String, processes: Vec<Process> },
    /// Thaw this cgroup.
    ThawCgroup { what: String, cgroup: PathBuf },
    /// Thaw this volume.
    ThawVolume { what: String, node: String, volume: String },
    /// Switch the node on.
    StartNode { node: String },
    /// Plug the node's cable in.
    PlugCable { node: String },
    /// Start the part again.
    StartPart { part: String },
}

impl Active {
    /// One line for `status`.
    pub fn describe(&self) -> String {
        match self {
            Self::Continue { what, .. } => format!("{what}: stopped"),
            Self::ThawCgroup { what, .. } => format!("{what}: pod frozen"),
            Self::ThawVolume { what, volume, .. } => format!("{what}: volume {volume} frozen"),
            Self::StartNode { node } => format!("{node}: lost"),
            Self::PlugCable { node } => format!("{node}: without network"),
            Self::StartPart { part } => format!("{part}: killed"),
        }
    }
}

fn file(paths: &Paths) -> PathBuf {
    paths.state.join("faults.json")
}

/// Faults in force.
pub fn active(paths: &Paths) -> Result<Vec<Active>> {
    Ok(read_json(&file(paths))?.unwrap_or_default())
}

/// Whether this volume is frozen by a fault. A file that cannot be read counts as frozen.
pub fn is_frozen(paths: &Paths, wanted: &Volume) -> bool {
    let is_it = |a: &Active| matches!(a, Active::ThawVolume { node, volume, .. } if *node == wanted.node && *volume == wanted.name);
    !active(paths).is_ok_and(|all| !all.iter().any(is_it))
}

fn record(paths: &Paths, fault: Active) -> Result<()> {
    let mut all = active(paths)?;
    if !all.contains(&fault) {
        all.push(fault);
    }
    write_json(&file(paths), &all)
}

fn forget(paths: &Paths, fault: &Active) -> Result<()> {
    let mut all = active(paths)?;
    all.retain(|a| a != fault);
    write_json(&file(paths), &all)
}

/// Puts a fault in, and takes it out again after `limit` where one is given.
pub fn inject(paths: &Paths, ui: &Ui, kind: Kind, target: &Target, limit: Option<Duration>) -> Result<()> {
    let fault = {
        let _lock = Lock::take(&paths.state, "faults.lock", |text| ui.say(text))?;
        let state = State::load(paths)?;
        match target {
            Target::Replica { name, namespace } => on_replica(paths, &state, kind, name, namespace.as_deref())?,
            Target::Node(name) => on_node(paths, &state, kind, name)?,
            Target::Part(name) => on_part(paths, &state, kind, name)?,
        }
    };
    ui.say(&format!("{kind:?} of {}: in force", target.describe()));
    if let (Some(limit), Some(fault)) = (limit, fault) {
        std::thread::sleep(limit);
        undo(paths, ui, &fault)?;
        ui.say(&format!("{kind:?} of {}: undone", target.describe()));
    }
    Ok(())
}

impl Target {
    fn describe(&self) -> &str {
        match self {
            Self::Replica { name, .. } | Self::Node(name) | Self::Part(name) => name,
        }
    }
}

fn on_replica(paths: &Paths, state: &State, kind: Kind, name: &str, namespace: Option<&str>) -> Result<Option<Active>> {
    let api = Api::new(paths);
    let pod = find_pod(&api, name, namespace)?;
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let (uid, host) = (text(&pod["metadata"]["uid"]), text(&pod["spec"]["nodeName"]));
    let namespace = text(&pod["metadata"]["namespace"]);
    let what = format!("{namespace}/{name}");
    match kind {
        Kind::Kill => {
            for process in mysqld(&uid, name)? {
                process.signal(Signal::KILL);
            }
            Ok(None)
        }
        Kind::Freeze => {
            let processes = mysqld(&uid, name)?;
            let fault = Active::Continue { what, processes: processes.clone() };
            record(paths, fault.clone())?;
            processes.iter().for_each(|p| p.signal(Signal::STOP));
            Ok(Some(fault))
        }
        Kind::PodFreeze => {
            let found = cgroup::find("freezer", &format!("pod{uid}")).into_iter().next();
            let cgroup = found.with_context(|| format!("the pod {what} has no cgroup: does it run?"))?;
            let fault = Active::ThawCgroup { what, cgroup: cgroup.clone() };
            record(paths, fault.clone())?;
            fs::write(cgroup.join("freezer.state"), "FROZEN")?;
            Ok(Some(fault))
        }
        Kind::Wedge => {
            let claim = api
                .get(&format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}"))?
                .with_context(|| format!("there is no claim {what}"))?;
            let volume = Volume { node: host, name: text(&claim["spec"]["volumeName"]) };
            let mount_point = volume.mount_point(paths);
            if volume.name.is_empty() || !volume::is_mounted(&mount_point)? {
                bail!("the volume of {what} is not mounted");
            }
            let fault = Active::ThawVolume { what, node: volume.node, volume: volume.name };
            record(paths, fault.clone())?;
            volume::freeze(&mount_point, true)?;
            Ok(Some(fault))
        }
        Kind::NodeLoss | Kind::Isolate => on_node(paths, state, kind, &host),
    }
}

fn on_node(paths: &Paths, state: &State, kind: Kind, name: &str) -> Result<Option<Active>> {
    let node = find_node(state, name)?;
    match kind {
        Kind::NodeLoss | Kind::Kill => {
            let power = state.processes.get(&node::process_name(node)).filter(|p| p.is_alive());
            let power = power.with_context(|| format!("{name} is down already"))?;
            let fault = Active::StartNode { node: name.to_owned() };
            record(paths, fault.clone())?;
            power.signal(Signal::KILL);
            Ok(Some(fault))
        }
        Kind::Isolate => {
            let fault = Active::PlugCable { node: name.to_owned() };
            record(paths, fault.clone())?;
            net::set_cable(node, false)?;
            Ok(Some(fault))
        }
        _ => bail!("a node can be hit by node-loss or isolate"),
    }
}

fn on_part(paths: &Paths, state: &State, kind: Kind, name: &str) -> Result<Option<Active>> {
    let running = state.processes.get(name).filter(|p| p.is_alive());
    let process = running.with_context(|| format!("no part `{name}` runs; `cargo lab status` names them"))?;
    let (fault, signal) = match kind {
        Kind::Kill => (Active::StartPart { part: name.to_owned() }, Signal::KILL),
        Kind::Freeze => (Active::Continue { what: name.to_owned(), processes: vec![process.clone()] }, Signal::STOP),
        _ => bail!("a part can be hit by kill or freeze"),
    };
    record(paths, fault.clone())?;
    process.signal(signal);
    Ok(Some(fault))
}

fn find_node<'a>(state: &'a State, name: &str) -> Result<&'a Node> {
    state.nodes.iter().find(|n| n.name() == name).with_context(|| format!("there is no node `{name}`"))
}

fn find_pod(api: &Api, name: &str, namespace: Option<&str>) -> Result<Value> {
    let mut found = api.list(&format!("/api/v1/pods?fieldSelector=metadata.name={name}"))?;
    found.retain(|p| namespace.is_none_or(|n| p["metadata"]["namespace"] == n));
    match found.len() {
        0 => bail!("there is no pod `{name}`"),
        1 => Ok(found.remove(0)),
        _ => bail!("several namespaces have a pod `{name}`: say which with --namespace"),
    }
}

/// mysqld of a pod, found by its cgroup. Ids are of the host's namespace.
fn mysqld(uid: &str, pod: &str) -> Result<Vec<Process>> {
    let mark = format!("pod{uid}");
    let found: Vec<_> = process::all_pids()
        .into_iter()
        .filter(|pid| fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|c| c.contains(&mark)))
        .filter(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c.trim() == "mysqld"))
        .filter_map(Process::of_pid)
        .filter(Process::is_alive)
        .collect();
    if found.is_empty() {
        bail!("no mysqld runs in the pod `{pod}`");
    }
    Ok(found)
}

/// Takes one fault out.
fn undo(paths: &Paths, ui: &Ui, fault: &Active) -> Result<()> {
    match fault {
        Active::StartNode { .. } | Active::StartPart { .. } => crate::up::repair(paths, ui)?,
        other => {
            let _lock = Lock::take(&paths.state, "faults.lock", |text| ui.say(text))?;
            undo_in_place(paths, &State::load(paths)?, other)?;
        }
    }
    let _lock = Lock::take(&paths.state, "faults.lock", |text| ui.say(text))?;
    forget(paths, fault)
}

/// Takes out what needs no part to be started.
fn undo_in_place(paths: &Paths, state: &State, fault: &Active) -> Result<()> {
    match fault {
        Active::Continue { processes, .. } => processes.iter().for_each(|p| p.signal(Signal::CONT)),
        Active::ThawCgroup { cgroup, .. } => {
            // The pod may be gone, and its cgroup with it.
            fs::write(cgroup.join("freezer.state"), "THAWED").ok();
        }
        Active::ThawVolume { node, volume, .. } => {
            let volume = Volume { node: node.clone(), name: volume.clone() };
            let mount_point = volume.mount_point(paths);
            if volume::is_mounted(&mount_point)? {
                // The record comes before the freeze, so it may never have been frozen.
                volume::freeze(&mount_point, false).ok();
            }
        }
        Active::PlugCable { node } => {
            if state.is_alive(node) {
                net::set_cable(find_node(state, node)?, true)?;
            }
        }
        Active::StartNode { .. } | Active::StartPart { .. } => {}
    }
    Ok(())
}

/// Takes all faults out that keep something standing still, recorded or not. Needs nothing of the cluster to work; `down` begins so.
pub fn release_all(paths: &Paths, state: &State) -> Result<usize> {
    let recorded = active(paths).unwrap_or_default();
    for fault in &recorded {
        undo_in_place(paths, state, fault)?;
    }
    cgroup::thaw_all();
    let thawed = volume::thaw_all(paths)?;
    let mark = format!("/{}/", crate::topology::CGROUP);
    for pid in process::all_pids() {
        let stopped = process::stat(pid).is_some_and(|s| s.state == 'T');
        if stopped && fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|c| c.contains(&mark)) {
            Process::of_pid(pid).inspect(|p| p.signal(Signal::CONT));
        }
    }
    Ok(recorded.len() + thawed)
}

/// `cargo lab heal`: takes out everything that is in force and starts what was killed.
pub fn heal(paths: &Paths, ui: &Ui) -> Result<()> {
    let faults = active(paths)?;
    let api = Api::new(paths);
    let lost = faults.iter().filter_map(|fault| match fault {
        Active::StartNode { node } => Some((node.as_str(), node::believed_to_run(&api, node)?)),
        _ => None,
    });
    let lost: Vec<_> = lost.collect();
    {
        let _lock = Lock::take(&paths.state, "faults.lock", |text| ui.say(text))?;
        release_all(paths, &State::load(paths)?)?;
    }
    crate::up::repair(paths, ui)?;
    for (node, before) in &lost {
        node::wait_reported(&api, node, before)?;
    }
    let _lock = Lock::take(&paths.state, "faults.lock", |text| ui.say(text))?;
    for fault in &faults {
        ui.say(&format!("healed {}", fault.describe()));
        forget(paths, fault)?;
    }
    if faults.is_empty() {
        ui.say("no fault was in force");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn paths(dir: &Path) -> Paths {
        Paths { state: dir.to_owned(), cache: dir.join("cache"), checkout: dir.to_owned() }
    }

    #[test]
    fn a_fault_is_recorded_once_and_forgotten_alone() {
        let dir = tempfile::tempdir().unwrap();
        let paths = paths(dir.path());
        let wedge = Active::ThawVolume { what: "r".into(), node: "node-1".into(), volume: "pvc-1".into() };
        let lost = Active::StartNode { node: "node-2".into() };
        for fault in [&wedge, &lost, &wedge] {
            record(&paths, fault.clone()).unwrap();
        }
        assert_eq!(active(&paths).unwrap().len(), 2);
        assert!(is_frozen(&paths, &Volume { node: "node-1".into(), name: "pvc-1".into() }));
        assert!(!is_frozen(&paths, &Volume { node: "node-2".into(), name: "pvc-1".into() }));
        forget(&paths, &wedge).unwrap();
        assert_eq!(active(&paths).unwrap(), [lost]);
    }

    #[test]
    fn an_unreadable_record_counts_as_frozen_because_a_volume_must_not_lose_its_thaw_handle() {
        let dir = tempfile::tempdir().unwrap();
        let paths = paths(dir.path());
        fs::write(file(&paths), "{").unwrap();
        assert!(is_frozen(&paths, &Volume { node: "node-1".into(), name: "pvc-1".into() }));
    }
}
