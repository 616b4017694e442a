//! `cargo lab down`: takes everything away, whoever started it and however that ended. Finds things by mark, by name and by place,
//! not only by what the state file says.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::lab::Lab;
use crate::paths::Paths;
use crate::progress::{Ui, clock};
use crate::state::{self, State};
use crate::topology::{MAX_NODES, Node};
use crate::{cgroup, fault, machine, net, node, node_init, process, run, volume};

/// What the lab keeps in its state directory; nothing else there is ever deleted.
const OWN: [&str; 13] = [
    "bin",
    "nodes",
    "volumes",
    "etcd",
    "kafka",
    "s3",
    "pki",
    "config",
    "logs",
    "faults.json",
    "faults.lock",
    "images.lock",
    "state.json",
];

/// Takes the lab down.
pub fn down(paths: &Paths, ui: &Ui) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the lab belongs to root: run this as root");
    }
    let mut lab = Lab::open(paths, ui)?;
    let nothing = is_nothing(paths, &lab.state);
    // Something that stands still in the kernel cannot be killed, so it is set going first.
    fault::release_all(paths, &lab.state)?;
    kill_all(&lab)?;
    ui.say("processes: gone");
    take_mounts_away(paths)?;
    take_loop_devices_away(paths)?;
    for index in 1..=MAX_NODES {
        net::remove_node(&Node::new(index))?;
    }
    net::remove_bridge()?;
    clear_netns_dir();
    cgroup::remove_all()?;
    machine::restore_limits(&mut lab)?;
    for dir in lab.state.made_dirs.iter().rev().map(String::as_str).chain([node_init::CONFIG]) {
        // Somebody else may use it by now; then it is not the lab's any more.
        fs::remove_dir(dir).ok();
    }
    for dir in &lab.state.dot_labs {
        remove(&PathBuf::from(dir))?;
    }
    ui.say("mounts, devices, network, cgroups: gone");
    for name in OWN {
        remove(&paths.state.join(name))?;
    }
    remove(Path::new(state::POINTER))?;
    ui.say(&if nothing {
        "there was no lab".to_owned()
    } else {
        format!("the lab is gone, after {}", clock(ui.elapsed()))
    });
    Ok(())
}

fn is_nothing(paths: &Paths, state: &State) -> bool {
    state.processes.is_empty() && state.nodes.is_empty() && !paths.pki().exists() && process::marked().is_empty()
}

/// The nodes first: with the parent of a node's first process all that runs on it dies.
fn kill_all(lab: &Lab<'_>) -> Result<()> {
    let nodes: BTreeSet<_> = lab.state.nodes.iter().map(node::process_name).collect();
    for (_, process) in lab.state.processes.iter().filter(|(name, _)| nodes.contains(*name)) {
        process.signal(Signal::KILL);
    }
    lab.state.processes.values().for_each(|p| p.signal(Signal::KILL));
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let left = process::marked();
        left.iter().for_each(|p| p.signal(Signal::KILL));
        let in_cgroups = cgroup::processes();
        if left.is_empty() && in_cgroups.is_empty() {
            return Ok(());
        }
        if Instant::now() > end {
            let ids: Vec<_> = left.iter().map(|p| p.pid).chain(in_cgroups).map(|p| p.to_string()).collect();
            bail!("these processes do not die: {}; a volume may hang in the kernel", ids.join(" "));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn take_mounts_away(paths: &Paths) -> Result<()> {
    for mount in volume::mounts_under(&paths.state)? {
        run::output(run::sh("umount").arg(&mount)).with_context(|| format!("cannot unmount {}", mount.display()))?;
    }
    Ok(())
}

fn take_loop_devices_away(paths: &Paths) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let ours: Vec<_> =
            volume::all_loop_devices().into_iter().filter(|(_, backing)| backing.starts_with(&paths.state)).collect();
        if ours.is_empty() {
            return Ok(());
        }
        for (device, _) in &ours {
            // Busy ones are detached by the kernel with their last user; they are looked at again below.
            run::output(run::sh("losetup --detach").arg(device)).ok();
        }
        if Instant::now() > end {
            let names: Vec<_> = ours.iter().map(|(d, _)| d.display().to_string()).collect();
            bail!("these loop devices are still in use: {}", names.join(" "));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// `ip netns` mounts its directory on itself and leaves that behind.
fn clear_netns_dir() {
    let dir = Path::new("/run/netns");
    if fs::read_dir(dir).is_ok_and(|mut d| d.next().is_none()) {
        run::succeeds(run::sh("umount").arg(dir));
        fs::remove_dir(dir).ok();
    }
}

/// A helper of a killed command may still be writing for a moment, so a directory that fills up again gets another try.
fn remove(path: &Path) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let result = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        match result {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) if e.kind() == ErrorKind::DirectoryNotEmpty && Instant::now() < end => {}
            other => return other.with_context(|| format!("cannot remove {}", path.display())),
        }
    }
}
