//! What every command of the lab works with: paths, progress, the state file and the processes in it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::api::Api;
use crate::image::hex;
use crate::paths::Paths;
use crate::process::{self, Process};
use crate::progress::Ui;
use crate::state::{Lock, State, write_atomic};

/// An open lab, held by one command at a time.
#[derive(Debug)]
pub struct Lab<'a> {
    /// Where things are.
    pub paths: &'a Paths,
    /// Progress.
    pub ui: &'a Ui,
    /// The state as on disk.
    pub state: State,
    /// What this command did to bring the lab into shape; empty means that there was nothing to do.
    pub repairs: Vec<String>,
    _lock: Lock,
}

impl<'a> Lab<'a> {
    /// Waits for the lock and reads the state.
    pub fn open(paths: &'a Paths, ui: &'a Ui) -> Result<Self> {
        let lock = Lock::take(&paths.state, "lock", |text| ui.say(text))?;
        Ok(Self { paths, ui, state: State::load(paths)?, repairs: Vec::new(), _lock: lock })
    }

    /// The API as administrator.
    pub fn api(&self) -> Api {
        Api::new(self.paths)
    }

    /// Starts the process unless this very one runs already, made by the same recipe: command line plus `config`, the contents of
    /// its files. True when it was started.
    pub fn ensure_process(&mut self, name: &str, command: &Command, config: &[&str]) -> Result<bool> {
        let recipe = recipe(command, config);
        if let Some(old) = self.state.processes.get(name).cloned()
            && old.is_alive()
        {
            if old.recipe == recipe {
                return Ok(false);
            }
            old.stop(Duration::from_secs(10));
        }
        let again = self.state.processes.contains_key(name);
        let log = self.paths.logs().join(format!("{name}.log"));
        let process = process::spawn(command, &self.paths.state, &log, &recipe)?;
        self.state.processes.insert(name.to_owned(), process);
        self.state.save(self.paths)?;
        self.repairs.push(format!("{} {name}", if again { "restarted" } else { "started" }));
        Ok(true)
    }

    /// This program, where the lab's long-running parts run it from: a checkout may be rebuilt or deleted under them.
    pub fn own_program(&self) -> PathBuf {
        self.paths.state.join("bin").join("lab")
    }

    /// Puts this program where [`Self::own_program`] says.
    pub fn install_own_program(&self) -> Result<()> {
        let (own, target) = (fs::read("/proc/self/exe").context("cannot read this program")?, self.own_program());
        if fs::read(&target).is_ok_and(|old| old == own) {
            return Ok(());
        }
        write_atomic(&target, &own)?;
        Ok(fs::set_permissions(&target, fs::Permissions::from_mode(0o755))?)
    }

    /// The process, if it runs.
    pub fn running(&self, name: &str) -> Option<&Process> {
        self.state.processes.get(name).filter(|p| p.is_alive())
    }

    /// The end of a process's log, for a message about its failure.
    pub fn log_tail(&self, name: &str) -> String {
        tail(&self.paths.logs().join(format!("{name}.log")), 12)
    }
}

/// The last lines of a file.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let all: Vec<_> = text.lines().collect();
    format!("(end of {})\n{}", path.display(), all[all.len().saturating_sub(lines)..].join("\n"))
}

fn recipe(command: &Command, config: &[&str]) -> String {
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    add(command.get_program().as_encoded_bytes());
    command.get_args().for_each(|a| add(a.as_encoded_bytes()));
    for (key, value) in command.get_envs() {
        add(key.as_encoded_bytes());
        add(value.unwrap_or_default().as_encoded_bytes());
    }
    for file in config {
        add(b"file");
        add(file.as_bytes());
    }
    hex(&hash.finalize()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::sh;

    #[test]
    fn a_recipe_changes_with_its_words_its_environment_and_its_files() {
        let base = recipe(&sh("a b"), &["c"]);
        assert_eq!(base, recipe(&sh("a b"), &["c"]));
        for (name, other) in [
            ("word", recipe(&sh("a c"), &["c"])),
            ("file", recipe(&sh("a b"), &["d"])),
            ("environment", recipe(sh("a b").env("X", "1"), &["c"])),
            ("word boundary", recipe(&sh("a b c"), &[])),
        ] {
            assert_ne!(base, other, "{name}");
        }
    }
}
