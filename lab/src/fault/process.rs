//! Processes that die or stand still: by signal, and by cgroup v1's freezer.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::Scene;
use super::record::Active;
use super::target::Pod;
use crate::process::{self, Process};
use crate::state::State;
use crate::topology::{CGROUP, Node};
use crate::{cgroup, node};

/// Whose processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Victims {
    /// mysqld of the pod with this UID.
    Mysqld(String),
    /// All of the pod with this UID.
    Pod(String),
    /// All of this freezer cgroup.
    Cgroup(PathBuf),
}

impl Victims {
    /// The processes as they are now. A cgroup is frozen as a whole, so it names none.
    pub fn processes(&self) -> Vec<Process> {
        match self {
            Self::Mysqld(uid) => of_pod(uid, |name| name == "mysqld"),
            Self::Pod(uid) => of_pod(uid, |name| name != "pause"),
            Self::Cgroup(_) => Vec::new(),
        }
    }

    /// Stops or continues them.
    pub fn hold(&self, held: bool) {
        match self {
            Self::Cgroup(cgroup) => freeze_cgroup(cgroup, held).unwrap_or(()),
            _ => self.processes().iter().for_each(|p| p.signal(if held { Signal::STOP } else { Signal::CONT })),
        }
    }
}

/// Processes of a pod whose name fits, found by its cgroup. Ids are of the host's namespace.
fn of_pod(uid: &str, is_wanted: impl Fn(&str) -> bool) -> Vec<Process> {
    let mark = format!("pod{uid}");
    process::all_pids()
        .into_iter()
        .filter(|pid| fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|c| c.contains(&mark)))
        .filter(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| is_wanted(c.trim())))
        .filter_map(Process::of_pid)
        .filter(Process::is_alive)
        .collect()
}

/// mysqld of a pod; an error when none runs.
pub fn mysqld(pod: &Pod) -> Result<Vec<Process>> {
    let found = Victims::Mysqld(pod.uid.clone()).processes();
    if found.is_empty() {
        bail!("no mysqld runs in the pod {}", pod.what());
    }
    Ok(found)
}

/// All processes of a pod but the pause program; an error when none runs.
pub fn all(pod: &Pod) -> Result<Vec<Process>> {
    let found = Victims::Pod(pod.uid.clone()).processes();
    if found.is_empty() {
        bail!("nothing runs in the pod {}", pod.what());
    }
    Ok(found)
}

/// SIGKILL. There is nothing to undo: whoever started them starts them again.
pub fn kill(scene: &Scene<'_>, what: &str, processes: &[Process]) {
    for process in processes {
        process.signal(Signal::KILL);
        scene.ui.say(&format!("{what}: killed process {}", process.pid));
    }
}

/// SIGSTOP.
pub fn stop(scene: &Scene<'_>, what: String, processes: Vec<Process>) -> Result<()> {
    scene.record(Active::Continue { what, processes: processes.clone() })?;
    processes.iter().for_each(|p| p.signal(Signal::STOP));
    Ok(())
}

/// The freezer cgroup of a pod, which holds those of all its containers.
pub fn freezer_of(pod: &Pod) -> Result<PathBuf> {
    let found = cgroup::find("freezer", &pod.mark()).into_iter().next();
    found.with_context(|| format!("the pod {} has no cgroup: does it run?", pod.what()))
}

/// Freezes every process of a pod.
pub fn freeze_pod(scene: &Scene<'_>, pod: &Pod) -> Result<()> {
    let cgroup = freezer_of(pod)?;
    scene.record(Active::ThawCgroup { what: pod.what(), cgroup: cgroup.clone() })?;
    freeze_cgroup(&cgroup, true)
}

/// Freezes every process of a node, those of its pods and its own.
pub fn freeze_node(scene: &Scene<'_>, node: &Node) -> Result<()> {
    let cgroup = gather(&scene.state, node)?;
    scene.record(Active::ThawCgroup { what: node.name(), cgroup: cgroup.clone() })?;
    freeze_cgroup(&cgroup, true)?;
    // What was started between the two is frozen as it enters.
    gather(&scene.state, node).map(drop)
}

/// The freezer cgroup of a node, with the node's own processes in it; they are started outside of it, and only its pods within.
/// What they start later is in it too.
pub fn gather(state: &State, node: &Node) -> Result<PathBuf> {
    let cgroup = cgroup::of("freezer", &node.cgroup());
    let power = state.processes.get(&node::process_name(node)).filter(|p| p.is_alive());
    let power = power.with_context(|| format!("{} is down", node.name()))?;
    let wanted = fs::metadata(node.netns_path()).with_context(|| format!("{} has no network", node.name()))?;
    for pid in process::all_pids().into_iter().filter(|pid| *pid != power.pid) {
        let is_in_node = fs::metadata(format!("/proc/{pid}/ns/net"))
            .is_ok_and(|own| (own.dev(), own.ino()) == (wanted.dev(), wanted.ino()));
        let is_in_cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup"))
            .is_ok_and(|text| freezer_path(&text).is_some_and(|path| path.starts_with(&format!("/{CGROUP}/"))));
        if is_in_node && !is_in_cgroup {
            // It may have ended meanwhile.
            fs::write(cgroup.join("cgroup.procs"), pid.to_string()).ok();
        }
    }
    Ok(cgroup)
}

/// The path of a process in the freezer's hierarchy, from `/proc/PID/cgroup`. Pure.
fn freezer_path(text: &str) -> Option<&str> {
    text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|c| c == "freezer").then_some(path)
    })
}

/// Freezes a cgroup and all below it, or thaws them. Waits for a freeze, but not for a process that hangs on its disk.
pub fn freeze_cgroup(cgroup: &Path, frozen: bool) -> Result<()> {
    let (file, wanted) = (cgroup.join("freezer.state"), if frozen { "FROZEN" } else { "THAWED" });
    fs::write(&file, wanted).with_context(|| format!("cannot write {}", file.display()))?;
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end && fs::read_to_string(&file).is_ok_and(|state| state.trim() != wanted) {
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_in_the_freezers_hierarchy_wherever_that_stands() {
        let text = "8:pids:/p\n6:freezer:/understudy-lab/node-1/kubepods/podx/y\n1:name=systemd:/\n0::/\n";
        assert_eq!(freezer_path(text), Some("/understudy-lab/node-1/kubepods/podx/y"));
        assert_eq!(freezer_path("4:cpu,freezer:/a\n"), Some("/a"));
        assert_eq!(freezer_path("4:cpu,cpuacct:/a\n"), None);
    }
}
