//! What the tests need beside the product's images. Runs tar.

use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::Result;

use crate::artifacts::{self, ROOTFS};
use crate::paths::Paths;
use crate::progress::Ui;
use crate::run;

/// The unpacked root file system of the lab's MySQL, for tests that start mysqld themselves.
pub fn mysql_root(paths: &Paths, ui: &Ui) -> Result<PathBuf> {
    unpack(paths, ui, ("mysql", "sid"), "mysql-root", &[])
}

/// The folder with Debian's `prometheus` and `promtool` as programs of this machine, for tests that run them themselves.
pub fn prometheus_programs(paths: &Paths, ui: &Ui) -> Result<PathBuf> {
    artifacts::ensure(paths, ui, &artifacts::PROMETHEUS)?;
    let recipe = artifacts::PROMETHEUS;
    let programs = ["./usr/bin/prometheus", "./usr/bin/promtool"];
    let root = unpack(paths, ui, (recipe.name, recipe.version), "prometheus-programs", &programs)?;
    Ok(root.join("usr/bin"))
}

/// Unpacks an artifact's root file system, or some files of it, once.
fn unpack(paths: &Paths, ui: &Ui, (name, version): (&str, &str), into: &str, members: &[&str]) -> Result<PathBuf> {
    let root = paths.artifact(into, version);
    if !root.is_dir() {
        let step = ui.step(&format!("unpack {name} for the tests"), None);
        let half = paths.cache.join(format!("{into}.unpacking"));
        std::fs::remove_dir_all(&half).or_else(|e| if e.kind() == ErrorKind::NotFound { Ok(()) } else { Err(e) })?;
        std::fs::create_dir_all(&half)?;
        let archive = paths.artifact(name, version).join(ROOTFS);
        let mut command = run::sh("tar --extract --numeric-owner --file");
        run::output(command.arg(&archive).arg("--directory").arg(&half).args(members))?;
        std::fs::rename(&half, &root)?;
        step.done();
    }
    Ok(root)
}
