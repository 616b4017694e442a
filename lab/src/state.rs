//! The state file and the lock: what runs, on which boot, and what of the machine was changed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::paths::Paths;
use crate::process::Process;
use crate::topology::Node;

/// Tells where the state of the machine's one lab is, whoever started it.
pub const POINTER: &str = "/run/understudy-lab.state-dir";

/// What `up` wrote down.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Boot the process ids belong to.
    pub boot: String,
    /// Nodes of this lab.
    pub nodes: Vec<Node>,
    /// Long-running processes by name.
    pub processes: BTreeMap<String, Process>,
    /// Values of the machine's settings before the lab changed them.
    pub sysctls: BTreeMap<String, String>,
    /// Directories on the host that exist only as mount points for the nodes.
    pub made_dirs: Vec<String>,
    /// `.lab` directories that point at this lab.
    pub dot_labs: Vec<String>,
}

impl State {
    /// Reads the state; processes of an earlier boot are forgotten.
    pub fn load(paths: &Paths) -> Result<Self> {
        let mut state: Self = read_json(&file(paths))?.unwrap_or_default();
        let boot = boot_id();
        if state.boot != boot {
            state.processes.clear();
            state.boot = boot;
        }
        Ok(state)
    }

    /// Writes the state so that a crash leaves the old or the new one.
    pub fn save(&self, paths: &Paths) -> Result<()> {
        write_json(&file(paths), self)
    }

    /// Whether the named process runs.
    pub fn is_alive(&self, name: &str) -> bool {
        self.processes.get(name).is_some_and(Process::is_alive)
    }
}

fn file(paths: &Paths) -> std::path::PathBuf {
    paths.state.join("state.json")
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Reads a JSON file; a missing one is `None`.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => {
            Ok(Some(serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Writes a JSON file by rename, durable before this returns.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    write_atomic(path, &text)
}

/// Replaces a file in one step.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Held while a command changes the lab; the kernel gives it back however the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock `name`, waiting for another command with a line that says so.
    pub fn take(dir: &Path, name: &str, say: impl Fn(&str)) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let path = dir.join(name);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .read(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            say("another lab command is at work; waiting for it");
            flock(&file, FlockOperation::LockExclusive).context("cannot lock")?;
        }
        Ok(Self { _file: file })
    }
}

/// The state directory of the lab that exists, or none.
pub fn active() -> Option<std::path::PathBuf> {
    let text = fs::read_to_string(POINTER).ok()?;
    let dir = std::path::PathBuf::from(text.trim());
    dir.is_absolute().then_some(dir)
}

/// Claims the machine for this state directory; another one must be taken down first.
pub fn claim(paths: &Paths) -> Result<()> {
    if let Some(other) = active().filter(|dir| *dir != paths.state) {
        bail!(
            "this machine already has a lab with its state in {}; run `cargo lab --state-dir {} down` first",
            other.display(),
            other.display()
        );
    }
    write_atomic(Path::new(POINTER), format!("{}\n", paths.state.display()).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(dir: &Path) -> Paths {
        Paths { state: dir.join("state"), cache: dir.join("cache"), checkout: dir.to_owned() }
    }

    #[test]
    fn what_was_saved_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let paths = paths(dir.path());
        let mut state = State::load(&paths).unwrap();
        state.nodes = vec![Node::new(1)];
        state.processes.insert("etcd".into(), Process { pid: 1, start: 2, recipe: "r".into() });
        state.save(&paths).unwrap();
        assert_eq!(State::load(&paths).unwrap(), state);
    }

    #[test]
    fn processes_of_an_earlier_boot_are_forgotten_but_not_what_was_changed() {
        let dir = tempfile::tempdir().unwrap();
        let paths = paths(dir.path());
        let mut state = State { boot: "earlier".into(), ..State::default() };
        state.processes.insert("etcd".into(), Process { pid: 1, start: 2, recipe: String::new() });
        state.made_dirs.push("/x".into());
        state.save(&paths).unwrap();
        let loaded = State::load(&paths).unwrap();
        assert!(loaded.processes.is_empty());
        assert_eq!(loaded.made_dirs, ["/x"]);
    }

    #[test]
    fn a_damaged_state_file_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let paths = paths(dir.path());
        write_atomic(&paths.state.join("state.json"), b"{").unwrap();
        assert!(State::load(&paths).unwrap_err().to_string().contains("state.json"));
    }

    #[test]
    fn the_lock_is_free_again_when_its_holder_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        drop(Lock::take(dir.path(), "lock", |_| {}).unwrap());
        Lock::take(dir.path(), "lock", |_| panic!("nobody holds it")).unwrap();
    }
}
