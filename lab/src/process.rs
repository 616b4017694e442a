//! Long-running processes of the lab: detached, logged, recorded by id and start time, so that nothing else is ever killed.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::run::MARK;

/// One process on this machine. The start time tells it from a later process with the same id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id in the host's namespace.
    pub pid: i32,
    /// Clock ticks from boot to its start, field 22 of `/proc/PID/stat`.
    pub start: u64,
    /// Hash of the command line and configuration: another hash means that the process must be started anew.
    pub recipe: String,
}

/// The parts of `/proc/PID/stat` that matter here.
#[derive(Debug, PartialEq, Eq)]
pub struct Stat {
    /// R, S, D, T, Z, ...
    pub state: char,
    /// Parent.
    pub parent: i32,
    /// Start time in clock ticks.
    pub start: u64,
}

impl Process {
    /// Whether this very process runs. A zombie does not.
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|s| s.start == self.start && s.state != 'Z' && s.state != 'X')
    }

    /// Sends a signal to this very process; nothing happens when it is gone.
    pub fn signal(&self, signal: Signal) {
        if self.is_alive()
            && let Some(pid) = Pid::from_raw(self.pid)
        {
            // It may end between the check and the signal; then there is nothing left to do.
            kill_process(pid, signal).ok();
        }
    }

    /// SIGTERM, then SIGKILL after `grace`; waits until it is gone. False when even SIGKILL did not help within 10 s.
    pub fn stop(&self, grace: Duration) -> bool {
        self.signal(Signal::TERM);
        if self.wait_gone(grace) {
            return true;
        }
        self.signal(Signal::KILL);
        self.wait_gone(Duration::from_secs(10))
    }

    /// Waits until the process is gone.
    pub fn wait_gone(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while self.is_alive() {
            if Instant::now() > end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }

    /// The process with this id as it runs now.
    pub fn of_pid(pid: i32) -> Option<Self> {
        stat(pid).map(|s| Self { pid, start: s.start, recipe: String::new() })
    }
}

/// Starts a process that outlives this one, in a session of its own, its output appended to `log`.
pub fn spawn(command: &Command, state: &Path, log: &Path, recipe: &str) -> Result<Process> {
    let out = open_log(log)?;
    let mut detached = Command::new("setsid");
    detached.arg(command.get_program()).args(command.get_args());
    detached.env(MARK, state).stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).current_dir("/");
    for (key, value) in command.get_envs() {
        if let Some(value) = value {
            detached.env(key, value);
        }
    }
    let child = detached.spawn().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    let pid = i32::try_from(child.id()).context("process id out of range")?;
    let Some(stat) = stat(pid) else { bail!("{:?} ended at once; see {}", command.get_program(), log.display()) };
    Ok(Process { pid, start: stat.start, recipe: recipe.to_owned() })
}

fn open_log(log: &Path) -> Result<File> {
    if let Some(dir) = log.parent() {
        fs::create_dir_all(dir)?;
    }
    if fs::metadata(log).is_ok_and(|m| m.len() > 64 << 20) {
        fs::rename(log, log.with_extension("log.1"))?;
    }
    OpenOptions::new().create(true).append(true).open(log).with_context(|| format!("cannot write {}", log.display()))
}

/// State of a process, or nothing when there is none.
pub fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name between the parentheses may hold anything, so fields are counted from the last closing one.
fn parse_stat(text: &str) -> Option<Stat> {
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let start = fields.nth(17)?.parse().ok()?;
    Some(Stat { state, parent, start })
}

/// Ids of all processes of this machine.
pub fn all_pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

/// Everything that carries the lab's mark, whatever its state directory and whether or not it was recorded; never this process or
/// those it descends from.
pub fn marked() -> Vec<Process> {
    let mut own = vec![i32::try_from(std::process::id()).unwrap_or(0)];
    while let Some(parent) = own.last().and_then(|p| stat(*p)).map(|s| s.parent).filter(|p| *p > 0) {
        own.push(parent);
    }
    let mark = format!("{MARK}=");
    all_pids()
        .into_iter()
        .filter(|pid| !own.contains(pid))
        .filter(|pid| fs::read(format!("/proc/{pid}/environ")).is_ok_and(|e| has_variable(&e, mark.as_bytes())))
        .filter_map(Process::of_pid)
        .collect()
}

fn has_variable(environ: &[u8], prefix: &[u8]) -> bool {
    environ.split(|b| *b == 0).any(|v| v.starts_with(prefix))
}

/// Finds a program on the path.
pub fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(program))
        .find(|file| fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_confuse_the_parser() {
        let text = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 0 0 0 3 4 0 0 20 0 1 0 98765 1000 10 184";
        assert_eq!(parse_stat(text), Some(Stat { state: 'S', parent: 7, start: 98765 }));
        assert_eq!(parse_stat("42 (cut"), None);
    }

    #[test]
    fn a_process_id_used_again_is_another_process() {
        let me = i32::try_from(std::process::id()).unwrap();
        let mut process = Process::of_pid(me).unwrap();
        assert!(process.is_alive());
        process.start += 1;
        assert!(!process.is_alive());
    }

    #[test]
    fn the_mark_is_a_whole_variable_name() {
        assert!(has_variable(b"A=1\0LAB=/x\0", b"LAB="));
        assert!(!has_variable(b"NOLAB=/x\0", b"LAB="));
    }
}
