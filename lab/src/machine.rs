//! What the lab needs of the machine, and the machine's settings it changes and puts back.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::lab::Lab;
use crate::process::which;
use crate::{cgroup, run};

/// Settings: those the lab raises, and those a kubelet changes for the whole machine.
const SYSCTLS: [(&str, Option<u64>); 6] = [
    ("fs.inotify.max_user_instances", Some(8192)),
    ("fs.inotify.max_user_watches", Some(1_048_576)),
    ("fs.aio-max-nr", Some(1_048_576)),
    ("vm.overcommit_memory", None),
    ("kernel.panic", None),
    ("kernel.panic_on_oops", None),
];

/// One clear sentence for the first thing that is missing.
pub fn check() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the lab makes namespaces, mounts and loop devices: run it as root");
    }
    if which("apt-get").is_none() {
        bail!("the lab needs Debian 12: there is no apt-get here");
    }
    for (program, hint) in [
        ("go", "install Go 1.24 or newer (https://go.dev/dl) and put its bin directory on the PATH"),
        ("mvn", "run `apt-get install maven`"),
        ("java", "run `apt-get install openjdk-17-jdk-headless`"),
    ] {
        if which(program).is_none() {
            bail!("`{program}` is not on the PATH: {hint}");
        }
    }
    let go = run::output(&mut run::sh("go env GOVERSION"))?;
    if !go_is_new_enough(&go) {
        bail!("Kubernetes needs Go 1.24 or newer, and this is {}: install it from https://go.dev/dl", go.trim());
    }
    if !Path::new("/dev/loop-control").exists() {
        bail!("there is no /dev/loop-control: load the kernel module `loop`");
    }
    cgroup::check()
}

fn go_is_new_enough(version: &str) -> bool {
    let mut numbers = version.trim().trim_start_matches("go").split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (1, 24)
}

/// Raises limits; the old values are written down first.
pub fn raise_limits(lab: &mut Lab<'_>) -> Result<()> {
    for (name, wanted) in SYSCTLS {
        let path = sysctl_path(name);
        let Ok(old) = fs::read_to_string(&path) else { continue };
        if !lab.state.sysctls.contains_key(name) {
            lab.state.sysctls.insert(name.to_owned(), old.trim().to_owned());
            lab.state.save(lab.paths)?;
        }
        if let Some(wanted) = wanted
            && old.trim().parse::<u64>().is_ok_and(|old| old < wanted)
        {
            fs::write(&path, wanted.to_string()).with_context(|| format!("cannot raise {name}"))?;
        }
    }
    Ok(())
}

/// Puts the machine's settings back.
pub fn restore_limits(lab: &mut Lab<'_>) -> Result<()> {
    for (name, value) in &lab.state.sysctls {
        fs::write(sysctl_path(name), value).with_context(|| format!("cannot put {name} back"))?;
    }
    lab.state.sysctls.clear();
    lab.state.save(lab.paths)
}

fn sysctl_path(name: &str) -> String {
    format!("/proc/sys/{}", name.replace('.', "/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_go_is_refused() {
        for (version, want) in [("go1.24.0\n", true), ("go1.26.8", true), ("go1.19.8", false), ("", false)] {
            assert_eq!(go_is_new_enough(version), want, "{version}");
        }
    }
}
