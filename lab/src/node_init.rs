//! The first process of a node, inside its namespaces: mounts the node's disk over the host's directories, then runs containerd,
//! kube-proxy and kubelet and starts again what ends, as an init system would.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{WaitOptions, wait};

use crate::artifacts::KUBERNETES;
use crate::node::{self, COVERED};
use crate::paths::Paths;
use crate::topology::Node;
use crate::{process, run};

/// Where the node's configuration appears inside it.
pub const CONFIG: &str = "/run/understudy-node";

/// Never returns while the node lives.
pub fn run(paths: &Paths, index: u8) -> Result<()> {
    let node = Node::new(index);
    mounts(paths, &node).context("cannot mount the node's disk")?;
    let services =
        [("containerd", containerd()), ("kube-proxy", kube_proxy(paths)), ("kubelet", node::kubelet(paths, &node))];
    let mut running = BTreeMap::new();
    let mut due: Vec<(Instant, usize)> = (0..services.len()).map(|i| (Instant::now(), i)).collect();
    loop {
        let now = Instant::now();
        let (start, later): (Vec<_>, Vec<_>) = due.into_iter().partition(|(at, _)| *at <= now);
        due = later;
        for (_, i) in start {
            let (name, command) = &services[i];
            let log = paths.logs().join(format!("{}-{name}.log", node.name()));
            let process = process::spawn(command, &paths.state, &log, "")?;
            running.insert(process.pid, i);
            if *name == "containerd" {
                wait_for(Path::new("/run/containerd/containerd.sock"));
            }
        }
        // Orphans of the whole node end up here and are reaped with the rest.
        while let Ok(Some((pid, _status))) = wait(WaitOptions::NOHANG) {
            if let Some(i) = running.remove(&pid.as_raw_nonzero().get()) {
                println!("{} ended", services[i].0);
                due.push((Instant::now() + Duration::from_secs(1), i));
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn mounts(paths: &Paths, node: &Node) -> Result<()> {
    let dir = paths.node(&node.name());
    for (own, path) in COVERED {
        run::output(run::sh("mount --bind").arg(dir.join(own)).arg(path))?;
    }
    std::fs::create_dir_all("/run/netns")?;
    std::fs::create_dir_all(CONFIG)?;
    run::output(&mut run::sh("mount -t tmpfs -o mode=755 tmpfs /run/netns"))?;
    // The lock file of iptables guards a network namespace, and this node has its own.
    std::fs::OpenOptions::new().create(true).append(true).open("/run/xtables.lock")?;
    run::output(run::sh("mount --bind").arg(dir.join("config/xtables.lock")).arg("/run/xtables.lock"))?;
    run::output(run::sh("mount --bind").arg(dir.join("config")).arg(CONFIG))?;
    run::output(&mut run::sh("mount --make-rshared /"))?;
    Ok(())
}

fn containerd() -> Command {
    run::sh(&format!("containerd --config {CONFIG}/containerd.toml --log-level warn"))
}

fn kube_proxy(paths: &Paths) -> Command {
    let mut command = run::cmd([paths.binary("kubernetes", KUBERNETES, "kube-proxy")]);
    command.arg(format!("--config={CONFIG}/kube-proxy.json")).arg("--v=1");
    command
}

fn wait_for(path: &Path) {
    let end = Instant::now() + Duration::from_secs(10);
    while !path.exists() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
}
