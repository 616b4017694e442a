//! Debian packages of the host, and root file systems made of Debian packages.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::{Build, DEBIAN};
use crate::progress::Ui;
use crate::{image, run};

/// Name of the root file system in its artifact.
pub const ROOTFS: &str = "rootfs.tar";

/// What the host needs beside cargo, go, mvn and a JDK.
const PACKAGES: [&str; 20] = [
    "ca-certificates",
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "curl",
    "e2fsprogs",
    // librdkafka has a part in C++, and its build stops without a compiler for that.
    "g++",
    "gcc",
    "iproute2",
    "iptables",
    "kmod",
    "libc6-dev",
    "make",
    "mmdebstrap",
    "nftables",
    "openssl",
    "procps",
    "runc",
    "socat",
    "util-linux",
];

/// Installs the packages that are missing.
pub fn install_packages(ui: &Ui) -> Result<()> {
    let asked = Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Abbrev}${Package}\n"])
        .args(PACKAGES)
        .output()
        .context("dpkg-query cannot be run: the lab needs Debian 12")?;
    let missing = not_installed(&String::from_utf8_lossy(&asked.stdout));
    if missing.is_empty() {
        return Ok(());
    }
    let step = ui.step(&format!("install Debian packages: {}", missing.join(" ")), None);
    run::output_uncut(run::sh("apt-get update -q").env("DEBIAN_FRONTEND", "noninteractive"))?;
    run::output_uncut(
        run::sh("apt-get install -y -q --no-install-recommends")
            .args(&missing)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )?;
    step.done();
    Ok(())
}

fn not_installed(listing: &str) -> Vec<&'static str> {
    let installed = |package: &str| listing.lines().any(|l| l.strip_prefix("ii ").is_some_and(|p| p.trim() == package));
    PACKAGES.into_iter().filter(|p| !installed(p)).collect()
}

/// MySQL's server and clients from unstable, where Debian keeps them. The archive decides on the version; it is written beside.
pub fn mysql(build: &Build<'_>) -> Result<()> {
    // As in the well-known mysql image: a user 999, and the directories mysqld expects.
    let hook = "set -eu; echo mysql:x:999:999::/var/lib/mysql:/bin/sh >> \"$1/etc/passwd\"; echo mysql:x:999: >> \"$1/etc/group\"; \
                for d in var/lib/mysql var/lib/mysql-files run/mysqld; do install -d -m 0750 -o 999 -g 999 \"$1/$d\"; done";
    debootstrap(build, "sid", &["mysql-server-core", "mysql-client"], Some(hook))?;
    let version = package_version(build, "mysql-server-core")?;
    ensure!(is_new_enough(&version), "the archive offers MySQL {version}, and 8.4 or newer is needed");
    build.step.note(&format!("MySQL {version}"));
    Ok(fs::write(build.dir.join("VERSION"), version)?)
}

/// Base of the product's image.
pub fn base(build: &Build<'_>) -> Result<()> {
    debootstrap(build, DEBIAN, &["ca-certificates"], None)
}

/// A sender and reader that is not ours.
pub fn prometheus(build: &Build<'_>) -> Result<()> {
    debootstrap(build, DEBIAN, &["prometheus", "ca-certificates"], None)?;
    let version = package_version(build, "prometheus")?;
    Ok(fs::write(build.dir.join("VERSION"), version)?)
}

fn debootstrap(build: &Build<'_>, suite: &str, include: &[&str], hook: Option<&str>) -> Result<()> {
    let mut command = run::sh("mmdebstrap --variant=essential --format=tar");
    command.arg("--aptopt=Acquire::Check-Valid-Until \"false\"");
    for left_out in ["doc", "man", "info", "locale", "lintian", "bug"] {
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{left_out}/*"));
    }
    command.arg(format!("--include={}", include.join(",")));
    if let Some(hook) = hook {
        command.arg(format!("--customize-hook={hook}"));
    }
    // The device nodes would be refused or hidden by the container runtime anyway.
    command.arg("--skip=output/dev").arg(suite).arg(build.dir.join(ROOTFS));
    command.env("TMPDIR", build.work).env("SOURCE_DATE_EPOCH", "0");
    let mut lines = 0;
    run::watched(&command, build.log, |_| {
        lines += 1;
        build.step.progress(lines, 0, "steps of mmdebstrap");
    })?;
    image::remember_digest(&build.dir.join(ROOTFS))
}

fn package_version(build: &Build<'_>, package: &str) -> Result<String> {
    let status = run::output(run::sh("tar -xO -f").arg(build.dir.join(ROOTFS)).arg("./var/lib/dpkg/status"))?;
    match version_in(&status, package) {
        Some(version) => Ok(version),
        None => bail!("{package} is not in the root file system"),
    }
}

/// Upstream's part of a package's version in dpkg's status file.
fn version_in(status: &str, package: &str) -> Option<String> {
    let wanted = format!("Package: {package}");
    let paragraph = status.split("\n\n").find(|p| p.lines().any(|l| l == wanted))?;
    let full = paragraph.lines().find_map(|l| l.strip_prefix("Version: "))?;
    let upstream = full.rsplit_once('-').map_or(full, |(upstream, _)| upstream);
    Some(upstream.split_once(':').map_or(upstream, |(_, rest)| rest).to_owned())
}

fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (8, 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_without_epoch_and_revision() {
        let status = "Package: mysql-client\nVersion: 1\n\nPackage: mysql-server-core\nStatus: install ok installed\nVersion: 1:9.7.4-2\n";
        assert_eq!(version_in(status, "mysql-server-core").as_deref(), Some("9.7.4"));
        assert_eq!(version_in(status, "mysql-server"), None);
    }

    #[test]
    fn the_oldest_mysql_that_will_do_is_8_4() {
        for (version, want) in [("9.7.4", true), ("8.4.0", true), ("8.0.45", false), ("10.0", true), ("", false)] {
            assert_eq!(is_new_enough(version), want, "{version}");
        }
    }

    #[test]
    fn a_removed_package_counts_as_missing() {
        let listing = "ii runc\nrc containerd\n";
        let missing = not_installed(listing);
        assert!(missing.contains(&"containerd") && !missing.contains(&"runc"));
    }
}
