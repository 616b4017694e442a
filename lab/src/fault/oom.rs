//! Out of memory, again and again: the limit of the container's cgroup is lowered to what the others in it need, and where mysqld is
//! there already and the kernel therefore refuses so low a limit, to just what is used, with a moment's hunger beside it. mysqld is
//! marked as the first to be killed, so that the kernel never chooses the instance manager.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::Scene;
use super::holder::{self, Work};
use super::process::{self, Victims};
use super::record::Active;
use super::target::Pod;
use crate::run;
use crate::{cgroup, topology};

const LIMIT: &str = "memory.limit_in_bytes";
const USAGE: &str = "memory.usage_in_bytes";
/// Enough for the instance manager, and far too little for any mysqld.
const FOR_OTHERS: u64 = 96 << 20;
/// What is left free when the limit cannot be that low.
const SLACK: u64 = 1 << 20;

/// Puts it in.
pub fn starve(scene: &Scene<'_>, pod: &Pod) -> Result<()> {
    let mysqld = process::mysqld(pod)?;
    let first = mysqld.first().with_context(|| format!("no mysqld runs in the pod {}", pod.what()))?;
    let table = fs::read_to_string(format!("/proc/{}/cgroup", first.pid))?;
    let path = memory_path(&table).context("mysqld is in no memory cgroup")?;
    if !path.starts_with(topology::CGROUP) {
        bail!("mysqld of {} is not in a cgroup of the lab", pod.what());
    }
    let cgroup = cgroup::of("memory", path);
    let limit = fs::read_to_string(cgroup.join(LIMIT))?.trim().to_owned();
    scene.record(Active::ResetMemory { what: pod.what(), cgroup, limit })?;
    holder::start(scene, pod.what(), Work::Oom { uid: pod.uid.clone() })
}

/// The path in the memory hierarchy, from `/proc/PID/cgroup`, without its leading slash. Pure.
fn memory_path(table: &str) -> Option<&str> {
    table.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|c| c == "memory").then(|| path.trim_start_matches('/'))
    })
}

/// One more look at a pod that is to run out of memory.
pub fn press(uid: &str) {
    for process in Victims::Mysqld(uid.to_owned()).processes() {
        let Ok(table) = fs::read_to_string(format!("/proc/{}/cgroup", process.pid)) else { continue };
        let Some(cgroup) = memory_path(&table).map(|path| cgroup::of("memory", path)) else { continue };
        // It may have been killed meanwhile, which is what this is for.
        fs::write(format!("/proc/{}/oom_score_adj", process.pid), "1000").ok();
        if fs::write(cgroup.join(LIMIT), FOR_OTHERS.to_string()).is_err() {
            let used: Option<u64> = fs::read_to_string(cgroup.join(USAGE)).ok().and_then(|u| u.trim().parse().ok());
            if let Some(used) = used {
                fs::write(cgroup.join(LIMIT), (used + SLACK).to_string()).ok();
            }
        }
        hunger(&cgroup);
    }
}

/// Uses 32 MiB in the cgroup, for a moment.
fn hunger(cgroup: &Path) {
    let mut command = run::sh("sh -c");
    command.arg("echo $$ > \"$1\" && exec dd if=/dev/zero of=/dev/null bs=32M count=1 iflag=fullblock").arg("sh");
    command.arg(cgroup.join("cgroup.procs"));
    run::succeeds(&mut command);
}

/// Puts the limit back, and a mysqld that is there in line with who started it. A cgroup that is gone has none.
pub fn reset(cgroup: &Path, limit: &str) -> Result<()> {
    let file = cgroup.join(LIMIT);
    if !file.exists() {
        return Ok(());
    }
    let inside = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    for pid in inside.lines().filter_map(|line| line.parse::<i32>().ok()) {
        let is_mysqld = fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "mysqld");
        let parent = crate::process::stat(pid).filter(|_| is_mysqld).map(|stat| stat.parent);
        if let Some(of_parent) = parent.and_then(|p| fs::read_to_string(format!("/proc/{p}/oom_score_adj")).ok()) {
            fs::write(format!("/proc/{pid}/oom_score_adj"), of_parent.trim()).ok();
        }
    }
    fs::write(&file, limit).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_of_a_process_is_that_of_the_memory_hierarchy() {
        let table = "4:memory:/understudy-lab/node-1/podx/y\n3:cpuset:/other\n1:name=systemd:/\n0::/\n";
        assert_eq!(memory_path(table), Some("understudy-lab/node-1/podx/y"));
        assert_eq!(memory_path("3:cpuset:/other\n"), None);
    }
}
