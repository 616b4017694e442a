//! The nodes' cgroups, in every hierarchy of cgroup v1, and what runc adds to a unified one beside them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::topology::CGROUP;

const ROOT: &str = "/sys/fs/cgroup";

/// All v1 hierarchies that are mounted, by their mount points.
pub fn hierarchies() -> Vec<PathBuf> {
    mounts_of(&mount_table(), "cgroup")
}

/// The v1 hierarchies and a unified one.
fn everywhere() -> Vec<PathBuf> {
    let mut all = hierarchies();
    all.extend(mounts_of(&mount_table(), "cgroup2"));
    all
}

/// The table of mounts; empty when it cannot be read.
pub fn mount_table() -> String {
    fs::read_to_string("/proc/self/mounts").unwrap_or_default()
}

fn mounts_of(mounts: &str, kind: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = mounts
        .lines()
        .filter_map(|line| {
            let fields: Vec<_> = line.split(' ').collect();
            (fields.get(2) == Some(&kind)).then(|| PathBuf::from(fields[1]))
        })
        .filter(|path| path.starts_with(ROOT))
        .collect();
    found.sort();
    found.dedup();
    found
}

/// What the kubelets and the faults need of cgroup v1.
const CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "memory", "pids", "blkio", "freezer"];

/// One clear sentence when this table of mounts lacks a hierarchy of cgroup v1. Pure.
pub fn lack(mounts: &str) -> Option<String> {
    let has = |controller: &str| {
        mounts.lines().any(|line| {
            let fields: Vec<_> = line.split(' ').collect();
            let options = fields.get(3).into_iter().flat_map(|options| options.split(','));
            fields.get(2) == Some(&"cgroup") && options.into_iter().any(|option| option == controller)
        })
    };
    let missing: Vec<_> = CONTROLLERS.into_iter().filter(|controller| !has(controller)).collect();
    (!missing.is_empty()).then(|| {
        format!(
            "this machine has no cgroup v1 hierarchy for {} under {ROOT} (Debian 12 boots with cgroup v2 alone); boot it with \
             `systemd.unified_cgroup_hierarchy=0 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1` on the kernel's command line",
            missing.join(", ")
        )
    })
}

/// Makes the cgroup in every hierarchy. cpuset needs its two lists before a process may enter.
pub fn ensure(cgroup: &str) -> Result<()> {
    for root in hierarchies() {
        let mut dir = root.clone();
        for part in Path::new(cgroup) {
            let parent = dir.clone();
            dir.push(part);
            fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let Ok(own) = fs::read_to_string(dir.join(file)) else { continue };
                if own.trim().is_empty() {
                    fs::write(dir.join(file), fs::read_to_string(parent.join(file))?)
                        .with_context(|| format!("cannot fill {file} of {}", dir.display()))?;
                }
            }
        }
    }
    Ok(())
}

/// Removes the lab's cgroups everywhere, as [`remove`] does.
pub fn remove_all() -> Result<()> {
    remove(CGROUP)
}

/// Removes a cgroup and all below it in every hierarchy; its processes must be gone. Waits a little for the kernel to notice that they are.
pub fn remove(cgroup: &str) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    for root in everywhere() {
        let dir = root.join(cgroup);
        while dir.exists() {
            match remove_tree(&dir) {
                Ok(()) => break,
                Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(50)),
                Err(error) => return Err(error).with_context(|| format!("cannot remove {}", dir.display())),
            }
        }
    }
    Ok(())
}

fn remove_tree(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(dir)
}

/// Directories of one hierarchy below the lab's cgroup whose name contains `part`.
pub fn find(controller: &str, part: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![Path::new(ROOT).join(controller).join(CGROUP)];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|t| t.is_dir()) {
                continue;
            }
            if entry.file_name().to_string_lossy().contains(part) {
                found.push(entry.path());
            } else {
                open.push(entry.path());
            }
        }
    }
    found
}

/// A cgroup of one hierarchy.
pub fn of(controller: &str, cgroup: &str) -> PathBuf {
    Path::new(ROOT).join(controller).join(cgroup)
}

/// The root of one hierarchy, and all of the lab's cgroups in it.
pub fn all(controller: &str) -> Vec<PathBuf> {
    let mut found = vec![Path::new(ROOT).join(controller)];
    let mut open = vec![of(controller, CGROUP)];
    while let Some(dir) = open.pop() {
        if dir.is_dir() {
            open.extend(fs::read_dir(&dir).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.is_dir()));
            found.push(dir);
        }
    }
    found
}

/// Ids of the processes in the lab's cgroups.
pub fn processes() -> Vec<i32> {
    let mut found = Vec::new();
    let mut open: Vec<_> = everywhere().into_iter().map(|h| h.join(CGROUP)).collect();
    while let Some(dir) = open.pop() {
        let list = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        found.extend(list.split_whitespace().filter_map(|p| p.parse::<i32>().ok()));
        open.extend(fs::read_dir(&dir).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.is_dir()));
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Sets every frozen cgroup of the lab going again.
pub fn thaw_all() {
    let mut open = vec![Path::new(ROOT).join("freezer").join(CGROUP)];
    while let Some(dir) = open.pop() {
        let file = dir.join("freezer.state");
        if fs::read_to_string(&file).is_ok_and(|s| s.trim() != "THAWED") {
            // A cgroup that vanished meanwhile is not frozen.
            fs::write(&file, "THAWED").ok();
        }
        open.extend(fs::read_dir(&dir).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.is_dir()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_v1_hierarchies_count() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n";
        assert_eq!(mounts_of(mounts, "cgroup"), [PathBuf::from("/sys/fs/cgroup/cpu")]);
    }

    #[test]
    fn a_machine_needs_every_v1_hierarchy_that_the_lab_uses() {
        let v1 = |controllers: &[&str]| -> String {
            controllers.iter().map(|c| format!("cgroup /sys/fs/cgroup/{c} cgroup rw,relatime,{c} 0 0\n")).collect()
        };
        for (case, mounts, says) in [
            ("each by itself", v1(&CONTROLLERS), None),
            ("two in one", v1(&["cpuset", "memory", "pids", "blkio", "freezer", "cpu,cpuacct"]), None),
            ("nothing", String::new(), Some("for cpu, cpuset, memory, pids, blkio, freezer under")),
            ("v2 alone", "cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n".to_owned(), Some("for cpu, cpuset, ")),
            (
                "systemd's own beside v2",
                "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\ncgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\n"
                    .to_owned(),
                Some("for cpu, cpuset, "),
            ),
            ("no freezer", v1(&CONTROLLERS[..5]), Some("for freezer under")),
            (
                "no cpu, though others begin like it",
                v1(&["cpuset", "cpuacct", "memory", "pids", "blkio", "freezer"]),
                Some("for cpu under"),
            ),
        ] {
            let lack = lack(&mounts);
            match says {
                None => assert_eq!(lack, None, "{case}"),
                Some(says) => assert!(lack.as_deref().unwrap_or_default().contains(says), "{case}: {lack:?}"),
            }
        }
    }
}
