//! What the tests and the demonstration need beside the product's images. Runs cargo and tar.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::artifacts::ROOTFS;
use crate::paths::Paths;
use crate::progress::Ui;
use crate::run;

/// cargo, in the checkout.
pub fn cargo(paths: &Paths) -> Command {
    let mut command = run::cmd([std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())]);
    command.current_dir(&paths.checkout);
    command
}

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
