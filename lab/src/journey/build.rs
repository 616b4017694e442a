//! Building the heavier programs of this repository when they are needed, with progress. Runs cargo.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::artifacts::ROOTFS;
use crate::paths::Paths;
use crate::progress::Ui;
use crate::run;

/// cargo, in the checkout.
pub fn cargo(paths: &Paths) -> Command {
    let mut command = run::cmd([std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())]);
    command.current_dir(&paths.checkout);
    // This program is run by cargo itself, and what that left in the environment is about another crate.
    for name in ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_PKG_NAME"] {
        command.env_remove(name);
    }
    command
}

/// Where cargo puts what it builds.
pub fn target_dir(paths: &Paths) -> Result<PathBuf> {
    let text = run::output(cargo(paths).args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&text)?;
    Ok(metadata["target_directory"].as_str().context("cargo metadata names no target directory")?.into())
}

/// Path of the load and verification program, built if need be.
pub fn load(paths: &Paths, ui: &Ui) -> Result<PathBuf> {
    let mut command = cargo(paths);
    command.args(["build", "--release", "--locked", "--package", LOAD]);
    let step = ui.step("build the load and the verifier (release)", None);
    let log = paths.cache.join("logs").join("cargo-build-load.log");
    std::fs::create_dir_all(paths.cache.join("logs"))?;
    let mut crates = 0;
    run::watched(&command, &log, |line| {
        if line.trim_start().starts_with("Compiling ") {
            crates += 1;
        }
        step.progress(crates, 0, "crates");
    })?;
    step.done();
    let program = target_dir(paths)?.join("release").join(LOAD);
    ensure!(program.is_file(), "cargo left no {}", program.display());
    Ok(program)
}

const LOAD: &str = "understudy-lab-load";

/// The unpacked root file system of the lab's MySQL, for tests that start mysqld themselves.
pub fn mysql_root(paths: &Paths, ui: &Ui) -> Result<PathBuf> {
    let archive = paths.artifact("mysql", "sid").join(ROOTFS);
    let root = paths.artifact("mysql-root", "sid");
    if !root.is_dir() {
        let step = ui.step("unpack MySQL for the tests", None);
        let half = paths.cache.join("mysql-root.unpacking");
        std::fs::remove_dir_all(&half).or_else(|e| if e.kind() == ErrorKind::NotFound { Ok(()) } else { Err(e) })?;
        std::fs::create_dir_all(&half)?;
        run::output(run::sh("tar --extract --numeric-owner --file").arg(&archive).arg("--directory").arg(&half))?;
        std::fs::rename(&half, &root)?;
        step.done();
    }
    Ok(root)
}
