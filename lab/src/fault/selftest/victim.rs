//! The program that stands for mysqld, in cgroups like a pod's.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use rustix::process::Signal;

use super::super::database::{self, Greeting};
use super::super::process::Victims;
use super::super::target::Pod;
use crate::api::wait;
use crate::paths::Paths;
use crate::process::{self, Process};
use crate::topology::CGROUP;
use crate::{cgroup, run};

const SOURCE: &str = include_str!("victim.c");
/// UID of the pod that is none.
pub const UID: &str = "selftest";
/// How far ahead `clock-jump` is tried, in seconds.
pub const JUMP: i32 = 3600;

/// The program that stands for mysqld, in the cgroups of a pod that is none.
pub struct Victim<'a> {
    paths: &'a Paths,
    /// Where it takes connections.
    pub address: SocketAddr,
    /// What its cgroups say that it is.
    pub pod: Pod,
}

impl<'a> Victim<'a> {
    /// Compiles and starts it.
    pub fn make(paths: &'a Paths) -> Result<Self> {
        let dir = Self::dir(paths);
        fs::create_dir_all(&dir)?;
        let source = dir.join("victim.c");
        fs::write(&source, SOURCE)?;
        run::output(run::sh("gcc -O1 -pthread -rdynamic -o").arg(dir.join("mysqld")).arg(&source))?;
        cgroup::ensure(&Self::cgroup())?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let pod = Pod {
            namespace: "lab".to_owned(),
            name: "selftest".to_owned(),
            uid: UID.to_owned(),
            address: address.ip().to_string(),
            ..Pod::default()
        };
        let victim = Self { paths, address, pod };
        victim.ensure()?;
        Ok(victim)
    }

    /// Its directory goes with `down`, if not before.
    fn dir(paths: &Paths) -> PathBuf {
        paths.state.join("bin").join("selftest")
    }

    fn cgroup() -> String {
        format!("{CGROUP}/selftest/pod{UID}")
    }

    /// Starts it where it does not run.
    pub fn ensure(&self) -> Result<()> {
        if !self.processes().is_empty() {
            return Ok(());
        }
        let dir = Self::dir(self.paths);
        let mut command = run::cmd([dir.join("mysqld")]);
        command.arg(self.address.port().to_string()).arg(dir.join("ticks"));
        let process = process::spawn(&command, &self.paths.state, &self.paths.logs().join("selftest.log"), "")?;
        for hierarchy in cgroup::hierarchies() {
            fs::write(hierarchy.join(Self::cgroup()).join("cgroup.procs"), process.pid.to_string())?;
        }
        wait(Duration::from_secs(10), "the self-test's process does not answer", || Ok(self.greets() == "greets"))
    }

    fn processes(&self) -> Vec<Process> {
        Victims::Mysqld(UID.to_owned()).processes()
    }

    /// How often it wrote, and what time each of its three clocks showed.
    fn ticks(&self) -> [i64; 4] {
        let text = fs::read_to_string(Self::dir(self.paths).join("ticks")).unwrap_or_default();
        let mut numbers = text.split_whitespace().map(|n| n.parse().unwrap_or(0));
        std::array::from_fn(|_| numbers.next().unwrap_or(0))
    }

    /// Whether it runs, stands still, or is gone.
    pub fn life(&self) -> String {
        let states: Vec<_> = self.processes().iter().filter_map(|p| process::stat(p.pid)).map(|s| s.state).collect();
        let before = self.ticks()[0];
        std::thread::sleep(Duration::from_millis(500));
        let life = match (states.first(), self.ticks()[0] == before) {
            (None, _) => "gone",
            (Some('T'), true) => "stands still, stopped",
            (Some(_), true) => "stands still",
            (Some(_), false) => "runs",
        };
        life.to_owned()
    }

    /// How it takes a connection.
    pub fn greets(&self) -> String {
        let word = match database::connect(self.address) {
            Greeting::Taken(_) => "greets",
            Greeting::Full => "error 1040",
            Greeting::Nobody => "no word",
        };
        word.to_owned()
    }

    /// How far ahead its three clocks are.
    pub fn clocks(&self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = i64::try_from(now).unwrap_or(0);
        let words = self.ticks().map(|seen| {
            let by = seen - now;
            let is_near = |to: i64| (by - to).abs() < 5;
            match (is_near(i64::from(JUMP)), is_near(0)) {
                (true, _) => "ahead",
                (_, true) => "right",
                _ => "else",
            }
        });
        words[1..].join(", ")
    }
}

impl Drop for Victim<'_> {
    fn drop(&mut self) {
        for process in self.processes() {
            process.signal(Signal::KILL);
            process.wait_gone(Duration::from_secs(5));
        }
        if let Err(error) = cgroup::remove(&format!("{CGROUP}/selftest")) {
            println!("the cgroups of the self-test stay until `cargo lab down`: {error:#}");
        }
        fs::remove_dir_all(Self::dir(self.paths)).ok();
    }
}
