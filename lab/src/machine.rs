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

/// Programs that the lab does not install by itself, and how to get them.
const PROGRAMS: [(&str, &str); 3] = [
    (
        "go",
        "install Go 1.24 or newer (https://go.dev/dl; Debian's own is too old) and put its bin directory on the PATH",
    ),
    ("mvn", "run `apt-get install maven`"),
    ("java", "run `apt-get install openjdk-17-jdk-headless`"),
];

/// What the lab asks of the machine, as it was found.
#[derive(Debug, Clone)]
struct Machine {
    /// As cargo names it.
    architecture: &'static str,
    /// Text of /etc/os-release.
    os_release: String,
    is_root: bool,
    /// Those of [`PROGRAMS`] that are not on the PATH.
    absent: Vec<&'static str>,
    /// As `go env GOVERSION` prints it; empty without Go.
    go: String,
    has_loop_devices: bool,
    /// The table of mounts.
    mounts: String,
}

/// One clear sentence for the first thing that is missing.
///
/// Rust is not asked for: this program was compiled, and cargo says by itself when it is too old.
pub fn check() -> Result<()> {
    let absent: Vec<_> = PROGRAMS.into_iter().map(|(name, _)| name).filter(|name| which(name).is_none()).collect();
    let machine = Machine {
        architecture: std::env::consts::ARCH,
        os_release: fs::read_to_string("/etc/os-release").unwrap_or_default(),
        is_root: rustix::process::geteuid().is_root(),
        go: if absent.contains(&"go") { String::new() } else { run::output(&mut run::sh("go env GOVERSION"))? },
        absent,
        has_loop_devices: Path::new("/dev/loop-control").exists(),
        mounts: cgroup::mount_table(),
    };
    match lack(&machine) {
        Some(lack) => bail!(lack),
        None => Ok(()),
    }
}

/// What the machine lacks first, and what to do about it. Pure.
fn lack(machine: &Machine) -> Option<String> {
    if machine.architecture != "x86_64" {
        return Some(format!("the lab needs x86_64, and this machine is {}", machine.architecture));
    }
    if !is_debian_12(&machine.os_release) {
        let name = os_field(&machine.os_release, "PRETTY_NAME").unwrap_or("something else");
        return Some(format!(
            "the lab takes its packages and the base of its images from Debian 12, and this is {name}"
        ));
    }
    if !machine.is_root {
        return Some("the lab makes namespaces, mounts and loop devices: run it as root".to_owned());
    }
    if let Some((program, hint)) = PROGRAMS.into_iter().find(|(name, _)| machine.absent.contains(name)) {
        return Some(format!("`{program}` is not on the PATH: {hint}"));
    }
    if !go_is_new_enough(&machine.go) {
        let version = machine.go.trim();
        return Some(format!(
            "Kubernetes needs Go 1.24 or newer, and this is {version}: install it from https://go.dev/dl"
        ));
    }
    if !machine.has_loop_devices {
        return Some("there is no /dev/loop-control: load the kernel module `loop`".to_owned());
    }
    cgroup::lack(&machine.mounts)
}

fn is_debian_12(os_release: &str) -> bool {
    os_field(os_release, "ID") == Some("debian") && os_field(os_release, "VERSION_ID") == Some("12")
}

/// The value of a field, with or without quotes.
fn os_field<'a>(os_release: &'a str, name: &str) -> Option<&'a str> {
    let value = os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim().trim_matches('"'))
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

    const BOOKWORM: &str = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n";
    const V1: &str = "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n\
                      cgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0\ncgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
                      cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\ncgroup /sys/fs/cgroup/blkio cgroup rw,blkio 0 0\n\
                      cgroup /sys/fs/cgroup/freezer cgroup rw,freezer 0 0\n";

    fn machine() -> Machine {
        Machine {
            architecture: "x86_64",
            os_release: BOOKWORM.to_owned(),
            is_root: true,
            absent: Vec::new(),
            go: "go1.24.0\n".to_owned(),
            has_loop_devices: true,
            mounts: V1.to_owned(),
        }
    }

    #[test]
    fn what_a_machine_lacks_is_said_in_one_sentence_that_names_it() {
        let trixie = BOOKWORM.replace("12", "13").replace("bookworm", "trixie");
        let v2 = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        for (case, machine, says) in [
            ("nothing", machine(), None),
            ("another processor", Machine { architecture: "aarch64", ..machine() }, Some("this machine is aarch64")),
            ("a newer Debian", Machine { os_release: trixie, ..machine() }, Some("Debian GNU/Linux 13 (trixie)")),
            ("no os-release", Machine { os_release: String::new(), ..machine() }, Some("Debian 12")),
            ("a user", Machine { is_root: false, ..machine() }, Some("run it as root")),
            (
                "no Go",
                Machine { absent: vec!["go"], go: String::new(), ..machine() },
                Some("`go` is not on the PATH: install Go 1.24"),
            ),
            ("Debian's Go", Machine { go: "go1.19.8\n".to_owned(), ..machine() }, Some("this is go1.19.8:")),
            ("no Maven", Machine { absent: vec!["mvn"], ..machine() }, Some("`apt-get install maven`")),
            (
                "no JDK",
                Machine { absent: vec!["java"], ..machine() },
                Some("`apt-get install openjdk-17-jdk-headless`"),
            ),
            ("no loop devices", Machine { has_loop_devices: false, ..machine() }, Some("/dev/loop-control")),
            (
                "cgroup v2 alone",
                Machine { mounts: v2.to_owned(), ..machine() },
                Some("systemd.unified_cgroup_hierarchy=0"),
            ),
        ] {
            let lack = lack(&machine);
            match says {
                None => assert_eq!(lack, None, "{case}"),
                Some(says) => {
                    let lack = lack.unwrap_or_default();
                    assert!(lack.contains(says) && !lack.contains('\n'), "{case}: {lack}");
                }
            }
        }
    }

    #[test]
    fn an_old_go_is_refused() {
        for (version, want) in [("go1.24.0\n", true), ("go1.26.8", true), ("go1.19.8", false), ("", false)] {
            assert_eq!(go_is_new_enough(version), want, "{version}");
        }
    }

    #[test]
    fn only_debian_12_is_taken_for_it() {
        for (case, os_release, want) in [
            ("bookworm", BOOKWORM, true),
            ("without quotes", "ID=debian\nVERSION_ID=12\n", true),
            ("trixie", "ID=debian\nVERSION_ID=\"13\"\n", false),
            ("another of that number", "ID=other\nID_LIKE=debian\nVERSION_ID=\"12\"\n", false),
            ("unstable has no number", "ID=debian\n", false),
            ("nothing", "", false),
        ] {
            assert_eq!(is_debian_12(os_release), want, "{case}");
        }
    }
}
