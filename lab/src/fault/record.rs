//! What is in force and how to undo it: a file that is written before anything is done.

use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::clock::Patch;
use super::holder::Work;
use crate::paths::Paths;
use crate::process::Process;
use crate::state::{read_json, write_json};
use crate::volume::Volume;

/// A fault in force and how to undo it. Undoing what was never done, or was undone before, does nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "undo", rename_all = "kebab-case")]
pub enum Active {
    /// End the process that keeps the fault up; it also ends by itself when this record is gone.
    EndHolder { what: String, id: String, work: Work, process: Option<Process> },
    /// Continue these processes.
    Continue { what: String, processes: Vec<Process> },
    /// Thaw this cgroup.
    ThawCgroup { what: String, cgroup: PathBuf },
    /// Thaw this volume.
    ThawVolume { what: String, node: String, volume: String },
    /// Give the volume's device its pace back.
    Unthrottle { what: String, node: String, volume: String, device: String, pace: Pace },
    /// Give the volume's device its size back.
    Enlarge { what: String, node: String, volume: String, device: PathBuf },
    /// Unmount and mount the volume, as soon as nobody uses it.
    Remount { what: String, node: String, volume: String },
    /// Delete the file that fills a volume.
    RemoveFile { what: String, file: PathBuf },
    /// Take the rules out of the node's network namespace.
    Uncut { what: String, netns: PathBuf, chain: String, from: String },
    /// Take the rules out by which connections are refused.
    Admit { what: String, netns: PathBuf, chain: String, by: String },
    /// Give an image its name back.
    ShowImage { node: String, image: String },
    /// Give the mutexes back.
    Unlock { what: String, process: Process, mutexes: Vec<u64> },
    /// Put the code of the clock back.
    ResetClock { what: String, by: i32, patches: Vec<Patch> },
    /// Put the limit of memory back.
    ResetMemory { what: String, cgroup: PathBuf, limit: String },
    /// Switch the node on.
    StartNode { node: String },
    /// Plug the node's cable in.
    PlugCable { node: String },
    /// Start the part again.
    StartPart { part: String },
    /// Let the node take pods again.
    Uncordon { node: String },
}

/// How slow a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pace {
    /// A byte a second: nothing ends.
    Stalled,
    /// So many reads a second, and as many writes.
    Operations(u32),
}

/// What became of an undo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undone {
    /// Nothing is left of it.
    Whole,
    /// It cannot be undone yet, for this reason; the record stays.
    Later(String),
    /// It needs the lab to be repaired first.
    ByRepair,
}

impl Active {
    /// One line for `status`: what was done, to what.
    pub fn describe(&self) -> String {
        match self {
            Self::EndHolder { what, work, process, .. } => {
                let pid = process.as_ref().map_or_else(String::new, |p| format!(" (process {} of the lab)", p.pid));
                format!("{what}: {}{pid}", work.describe())
            }
            Self::Continue { what, processes } => format!("{what}: stopped {}", pids(processes)),
            Self::ThawCgroup { what, cgroup } => format!("{what}: frozen, cgroup {}", cgroup.display()),
            Self::ThawVolume { what, volume, .. } => format!("{what}: volume {volume} frozen"),
            Self::Unthrottle { what, volume, device, pace: Pace::Stalled, .. } => {
                format!("{what}: device {device} of volume {volume} stalled, a byte a second")
            }
            Self::Unthrottle { what, volume, device, pace: Pace::Operations(n), .. } => {
                format!("{what}: device {device} of volume {volume} slow, {n} reads and {n} writes a second")
            }
            Self::Enlarge { what, volume, device, .. } => {
                format!("{what}: {} of volume {volume} answers EIO behind its first 4 KiB", device.display())
            }
            Self::Remount { what, volume, .. } => format!("{what}: volume {volume} read-only after an error"),
            Self::RemoveFile { what, file } => format!("{what}: volume full, by {}", file.display()),
            Self::Uncut { what, netns, chain, from } => {
                format!("{what}: cut off from {from}, chain {chain} in {}", netns.display())
            }
            Self::Admit { what, netns, chain, by } => {
                format!("{what}: refused by {by}, chain {chain} in {}", netns.display())
            }
            Self::ShowImage { node, image } => format!("{node}: without the image {image}"),
            Self::Unlock { what, process, mutexes } => {
                format!("{what}: {} mutexes of process {} taken", mutexes.len(), process.pid)
            }
            Self::ResetClock { what, by, patches } => {
                format!("{what}: clock of {} processes {by:+} s", distinct(patches))
            }
            Self::ResetMemory { what, cgroup, .. } => format!("{what}: out of memory, cgroup {}", cgroup.display()),
            Self::StartNode { node } => format!("{node}: lost"),
            Self::PlugCable { node } => format!("{node}: without network"),
            Self::StartPart { part } => format!("{part}: killed"),
            Self::Uncordon { node } => format!("{node}: cordoned"),
        }
    }

    /// Whether it is undone by starting what is dead.
    pub fn needs_repair(&self) -> bool {
        matches!(self, Self::StartNode { .. } | Self::StartPart { .. } | Self::Uncordon { .. })
    }

    /// The volume that must stay mounted until this is undone.
    fn volume(&self) -> Option<(&str, &str)> {
        match self {
            Self::ThawVolume { node, volume, .. }
            | Self::Unthrottle { node, volume, .. }
            | Self::Enlarge { node, volume, .. } => Some((node.as_str(), volume.as_str())),
            _ => None,
        }
    }

    /// Place in the order of undoing. What keeps a fault up goes first, or it would put it in again; then what stands still is
    /// set going from the ground up (disks, then locks, then processes), for nothing above works while that below hangs. What needs
    /// the lab as a whole comes last.
    fn rank(&self) -> u8 {
        match self {
            Self::EndHolder { .. } => 0,
            Self::ThawVolume { .. }
            | Self::Unthrottle { .. }
            | Self::Enlarge { .. }
            | Self::Remount { .. }
            | Self::RemoveFile { .. } => 1,
            Self::ResetMemory { .. } => 2,
            Self::ThawCgroup { .. } => 3,
            // A process is stopped for a moment while its memory is changed, and must have been thawed for that.
            Self::Unlock { .. } | Self::ResetClock { .. } => 4,
            Self::Continue { .. } => 5,
            Self::Uncut { .. } | Self::Admit { .. } | Self::PlugCable { .. } | Self::ShowImage { .. } => 6,
            Self::StartNode { .. } | Self::StartPart { .. } => 7,
            Self::Uncordon { .. } => 8,
        }
    }
}

fn pids(processes: &[Process]) -> String {
    let ids: Vec<_> = processes.iter().map(|p| p.pid.to_string()).collect();
    format!("process {}", ids.join(", "))
}

fn distinct(patches: &[Patch]) -> usize {
    patches.iter().map(|p| p.process.pid).collect::<std::collections::BTreeSet<_>>().len()
}

/// The faults in the order in which they are undone; of one rank, what came last goes first.
pub fn undo_order(faults: &[Active]) -> Vec<Active> {
    let mut ordered: Vec<_> = faults.iter().rev().cloned().collect();
    ordered.sort_by_key(Active::rank);
    ordered
}

fn file(paths: &Paths) -> PathBuf {
    paths.state.join("faults.json")
}

/// Faults in force.
pub fn active(paths: &Paths) -> Result<Vec<Active>> {
    Ok(read_json(&file(paths))?.unwrap_or_default())
}

/// Whether a fault in force needs this volume to stay mounted, for a device that hangs cannot be unmounted, and a frozen file
/// system cannot be thawed when it is. A file that cannot be read counts as yes.
pub fn is_held(paths: &Paths, wanted: &Volume) -> bool {
    let is_it = |a: &Active| a.volume() == Some((wanted.node.as_str(), wanted.name.as_str()));
    !active(paths).is_ok_and(|all| !all.iter().any(is_it))
}

/// Writes down that a fault is about to be put in.
pub fn record(paths: &Paths, fault: &Active) -> Result<()> {
    let mut all = active(paths)?;
    if !all.contains(fault) {
        all.push(fault.clone());
    }
    write_json(&file(paths), &all)
}

/// Writes down that a fault is over. A holder is known by its id, whatever else was learnt of it.
pub fn forget(paths: &Paths, fault: &Active) -> Result<()> {
    let mut all = active(paths)?;
    let before = all.len();
    all.retain(|a| !is_same(a, fault));
    if all.len() == before { Ok(()) } else { write_json(&file(paths), &all) }
}

fn is_same(one: &Active, other: &Active) -> bool {
    match (one, other) {
        (Active::EndHolder { id: a, .. }, Active::EndHolder { id: b, .. }) => a == b,
        _ => one == other,
    }
}

/// Writes down which process keeps a fault up.
pub fn record_process(paths: &Paths, wanted: &str, holder: Process) -> Result<()> {
    let mut all = active(paths)?;
    for fault in &mut all {
        if let Active::EndHolder { id, process, .. } = fault
            && *id == wanted
        {
            *process = Some(holder.clone());
        }
    }
    write_json(&file(paths), &all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    fn paths(dir: &Path) -> Paths {
        Paths { state: dir.to_owned(), cache: dir.join("cache"), checkout: dir.to_owned() }
    }

    fn process() -> Process {
        Process { pid: 7, start: 8, recipe: String::new() }
    }

    fn one_of_each() -> Vec<Active> {
        let (what, node, volume) = ("ns/r".to_owned(), "node-1".to_owned(), "pvc-1".to_owned());
        vec![
            Active::Uncordon { node: node.clone() },
            Active::StartPart { part: "etcd".into() },
            Active::StartNode { node: node.clone() },
            Active::ShowImage { node: node.clone(), image: "docker.io/library/understudy:1".into() },
            Active::PlugCable { node: node.clone() },
            Active::Admit {
                what: what.clone(),
                netns: "/run/netns/x".into(),
                chain: "C".into(),
                by: "10.0.0.1".into(),
            },
            Active::Uncut { what: what.clone(), netns: "/run/netns/x".into(), chain: "C".into(), from: "kafka".into() },
            Active::Continue { what: what.clone(), processes: vec![process()] },
            Active::ResetClock {
                what: what.clone(),
                by: -300,
                patches: vec![Patch { process: process(), at: 1 << 40, was: vec![0x55, 0x48] }],
            },
            Active::Unlock { what: what.clone(), process: process(), mutexes: vec![1, u64::MAX] },
            Active::ThawCgroup { what: what.clone(), cgroup: "/c".into() },
            Active::ResetMemory { what: what.clone(), cgroup: "/m".into(), limit: "9223372036854771712".into() },
            Active::RemoveFile { what: what.clone(), file: "/f".into() },
            Active::Remount { what: what.clone(), node: node.clone(), volume: volume.clone() },
            Active::Enlarge {
                what: what.clone(),
                node: node.clone(),
                volume: volume.clone(),
                device: "/dev/loop1".into(),
            },
            Active::Unthrottle {
                what: what.clone(),
                node: node.clone(),
                volume: volume.clone(),
                device: "7:1".into(),
                pace: Pace::Operations(20),
            },
            Active::ThawVolume { what: what.clone(), node, volume },
            Active::EndHolder { what, id: "1".into(), work: Work::Oom { uid: "u".into() }, process: Some(process()) },
        ]
    }

    #[test]
    fn a_fault_is_recorded_once_and_forgotten_alone() {
        let dir = tempfile::tempdir().unwrap();
        let paths = paths(dir.path());
        let wedge = Active::ThawVolume { what: "r".into(), node: "node-1".into(), volume: "pvc-1".into() };
        let lost = Active::StartNode { node: "node-2".into() };
        for fault in [&wedge, &lost, &wedge] {
            record(&paths, fault).unwrap();
        }
        assert_eq!(active(&paths).unwrap().len(), 2);
        forget(&paths, &wedge).unwrap();
        assert_eq!(active(&paths).unwrap(), [lost]);
    }

    #[test]
    fn what_was_recorded_is_read_back_and_says_whom_it_hit() {
        let dir = tempfile::tempdir().unwrap();
        let paths = paths(dir.path());
        for fault in one_of_each() {
            record(&paths, &fault).unwrap();
            let line = fault.describe();
            assert!(["ns/r", "node-1", "etcd"].iter().any(|name| line.starts_with(name)), "{line}");
        }
        assert_eq!(active(&paths).unwrap(), one_of_each());
    }

    #[test]
    fn holders_end_first_then_disks_go_and_processes_and_what_needs_the_cluster_comes_last() {
        let faults = one_of_each();
        let mut wanted = faults.clone();
        wanted.reverse();
        let ranks = |all: &[Active]| all.iter().map(Active::rank).collect::<Vec<_>>();
        assert_eq!(ranks(&undo_order(&faults)), ranks(&wanted));
        assert!(ranks(&wanted).is_sorted(), "the test's own list is in order");
    }

    #[test]
    fn of_two_faults_of_one_kind_the_later_is_undone_first() {
        let limit = |n: &str| Active::ResetMemory { what: "r".into(), cgroup: "/m".into(), limit: n.into() };
        assert_eq!(undo_order(&[limit("first"), limit("second")]), [limit("second"), limit("first")]);
    }

    #[test]
    fn a_holder_is_the_same_when_its_process_became_known() {
        let dir = tempfile::tempdir().unwrap();
        let paths = paths(dir.path());
        let holder = |process| Active::EndHolder {
            what: "r".into(),
            id: "1".into(),
            work: Work::Oom { uid: "u".into() },
            process,
        };
        record(&paths, &holder(None)).unwrap();
        record_process(&paths, "1", process()).unwrap();
        assert_eq!(active(&paths).unwrap(), [holder(Some(process()))]);
        forget(&paths, &holder(None)).unwrap();
        assert_eq!(active(&paths).unwrap(), []);
    }

    #[test]
    fn a_volume_that_hangs_is_held_and_another_or_a_full_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let paths = paths(dir.path());
        let volume = |node: &str| Volume { node: node.into(), name: "pvc-1".into() };
        for fault in one_of_each() {
            record(&paths, &fault).unwrap();
            assert_eq!(is_held(&paths, &volume("node-1")), fault.volume().is_some(), "{fault:?}");
            assert!(!is_held(&paths, &volume("node-2")), "{fault:?}");
            forget(&paths, &fault).unwrap();
        }
    }

    #[test]
    fn an_unreadable_record_counts_as_held_because_a_volume_must_not_lose_its_thaw_handle() {
        let dir = tempfile::tempdir().unwrap();
        let paths = paths(dir.path());
        fs::write(file(&paths), "{").unwrap();
        assert!(is_held(&paths, &Volume { node: "node-1".into(), name: "pvc-1".into() }));
    }
}
