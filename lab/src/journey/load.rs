//! `cargo lab load` and `cargo lab verify`: finds the Datastore and hands over to the program that sends and reads back.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use super::access::{Access, ClusterOptions, Reached};
use super::store::Store;
use crate::api::wait;
use crate::paths::Paths;
use crate::product::{self, Profile};
use crate::progress::Ui;
use crate::run;

/// Which Datastore, and with which token.
#[derive(Debug, Clone, Args)]
pub struct StoreOptions {
    #[command(flatten)]
    cluster: ClusterOptions,
    /// Namespace of the Datastore.
    #[arg(long, default_value = "default")]
    namespace: String,
    /// Its name.
    #[arg(long, default_value = "metrics")]
    datastore: String,
    /// `ID.SECRET`; by default the one that `cargo lab demo` made.
    #[arg(long, env = "UNDERSTUDY_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// What `cargo lab load` takes.
#[derive(Debug, Args)]
pub struct LoadOptions {
    #[command(flatten)]
    store: StoreOptions,
    /// Samples per second.
    #[arg(long, default_value = "1000")]
    rate: u64,
    /// How long: 30s, 5m.
    #[arg(long = "for", default_value = "60s")]
    time: String,
    /// Where to write down what was sent and acknowledged.
    #[arg(long)]
    ledger: PathBuf,
    /// More options for the program itself; `-- --help` lists them.
    #[arg(last = true)]
    more: Vec<String>,
}

/// What `cargo lab verify` takes.
#[derive(Debug, Args)]
pub struct VerifyOptions {
    #[command(flatten)]
    store: StoreOptions,
    /// The ledger of a `cargo lab load`.
    #[arg(long)]
    ledger: PathBuf,
    /// More options for the program itself; `-- --help` lists them.
    #[arg(last = true)]
    more: Vec<String>,
}

/// What verification found. Gaps in seconds.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Samples whose send was acknowledged.
    pub acknowledged: u64,
    /// Samples whose send was not answered.
    pub unknown: u64,
    /// Acknowledged samples that cannot be read.
    pub lost: u64,
    /// Samples stored more than once.
    pub doubled: u64,
    /// Samples that can be read and were never sent.
    pub alien: u64,
    /// Longest time in which no send was acknowledged.
    pub ack_gap_seconds: Option<f64>,
    /// Longest time between two commits.
    pub write_gap_seconds: Option<f64>,
    /// Longest time in which the newest readable sample did not advance.
    pub visible_gap_seconds: Option<f64>,
}

impl Outcome {
    /// Nothing acknowledged is missing, nothing is there twice.
    pub fn is_exact(&self) -> bool {
        self.acknowledged > 0 && self.lost == 0 && self.doubled == 0 && self.alien == 0
    }
}

/// Hands over to the program; signals of the terminal reach it.
pub fn load(options: &LoadOptions, paths: &Paths, ui: &Ui) -> Result<ExitCode> {
    let program = product::build_load(paths, ui, Profile::Release)?;
    let access = Access::of(&options.store.cluster, paths)?;
    let store = options.store.store(&access);
    let target = Target::find(&program, &store, options.store.token(&store)?)?;
    finish(target.load(options.rate, &options.time, &options.ledger).args(&options.more))
}

/// As [`load`], for reading back.
pub fn verify(options: &VerifyOptions, paths: &Paths, ui: &Ui) -> Result<ExitCode> {
    let program = product::build_load(paths, ui, Profile::Release)?;
    let access = Access::of(&options.store.cluster, paths)?;
    let store = options.store.store(&access);
    let target = Target::find(&program, &store, options.store.token(&store)?)?;
    finish(target.verify(&options.ledger).args(&options.more))
}

fn finish(command: &mut Command) -> Result<ExitCode> {
    let status = command.status().with_context(|| format!("cannot run {:?}", command.get_program()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl StoreOptions {
    fn store<'a>(&self, access: &'a Access) -> Store<'a> {
        Store { access, namespace: self.namespace.clone(), name: self.datastore.clone() }
    }

    fn token(&self, store: &Store<'_>) -> Result<String> {
        match &self.token {
            Some(token) => Ok(token.clone()),
            None => store
                .known_token()?
                .context("no token: give one with --token, or run `cargo lab demo`, which makes one"),
        }
    }
}

/// The program and where it sends to and reads from.
#[derive(Debug)]
struct Target {
    program: PathBuf,
    of_store: Vec<String>,
    gateway: Reached,
    query: Reached,
    token: String,
}

impl Target {
    fn find(program: &Path, store: &Store<'_>, token: String) -> Result<Self> {
        let mut of_store = store.access.flags();
        of_store.extend(["--namespace", &store.namespace, "--datastore", &store.name].map(str::to_owned));
        let (gateway, query) = (store.reach("gateway", 8080)?, store.reach("query", 8090)?);
        Ok(Self { program: program.to_owned(), of_store, gateway, query, token })
    }

    fn load(&self, rate: u64, time: &str, ledger: &Path) -> Command {
        let mut command = run::cmd([&self.program]);
        command.arg("load").args(&self.of_store).args(["--rate", &rate.to_string(), "--for", time]);
        for url in &self.gateway.urls {
            command.args(["--gateway", url]);
        }
        self.common(command, ledger)
    }

    fn verify(&self, ledger: &Path) -> Command {
        let mut command = run::cmd([&self.program]);
        command.arg("verify");
        self.common(command, ledger)
    }

    fn common(&self, mut command: Command, ledger: &Path) -> Command {
        for url in &self.query.urls {
            command.args(["--query", url]);
        }
        command.arg("--ledger").arg(ledger);
        // Not as an argument, which everybody on the machine can read.
        command.env("UNDERSTUDY_TOKEN", &self.token);
        command
    }
}

/// A load that runs beside something else. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    target: Target,
    ledger: PathBuf,
}

impl Running {
    /// Starts it; its lines go to `LEDGER.log`.
    pub fn start(program: &Path, store: &Store<'_>, token: &str, rate: u64, time: &str, ledger: &Path) -> Result<Self> {
        if let Some(dir) = ledger.parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::remove_file(ledger).or_else(|_| std::fs::remove_dir_all(ledger)).ok();
        let log = std::fs::File::create(ledger.with_extension("log"))?;
        let target = Target::find(program, store, token.to_owned())?;
        let child = target.load(rate, time, ledger).stdout(log.try_clone()?).stderr(log).spawn();
        let child = child.with_context(|| format!("cannot run {}", program.display()))?;
        Ok(Self { child, target, ledger: ledger.to_owned() })
    }

    /// Waits until samples are acknowledged.
    pub fn wait_flowing(&mut self) -> Result<()> {
        let log = self.ledger.with_extension("log");
        wait(Duration::from_secs(30), &format!("no sample is acknowledged; see {}", log.display()), || {
            self.check()?;
            let text = std::fs::read_to_string(&log)?;
            Ok(text.lines().rev().find_map(acknowledged).is_some_and(|n| n > 0))
        })
    }

    /// An error when it has ended by itself.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("the load ended ({status}); see {}", self.ledger.with_extension("log").display()),
            None => Ok(()),
        }
    }

    /// Stops sending and reads everything back; what verification printed, and what it found.
    pub fn finish(mut self) -> Result<(String, Outcome)> {
        self.check()?;
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("process id out of range")?;
        kill_process(pid, Signal::TERM)?;
        wait(Duration::from_secs(60), "the load does not stop", || Ok(self.child.try_wait()?.is_some()))?;
        let report = self.ledger.with_extension("json");
        std::fs::remove_file(&report).ok();
        let mut command = self.target.verify(&self.ledger);
        let output =
            command.arg("--json").arg(&report).stderr(Stdio::inherit()).output().context("cannot run the verifier")?;
        let text =
            std::fs::read(&report).with_context(|| format!("the verifier ({}) left no report", output.status))?;
        let outcome = serde_json::from_slice(&text).with_context(|| format!("{} is malformed", report.display()))?;
        Ok((String::from_utf8_lossy(&output.stdout).into_owned(), outcome))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has ended, which is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The number before `samples acknowledged` in a line of progress.
fn acknowledged(line: &str) -> Option<u64> {
    line.split_once(" samples acknowledged")?.0.split_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read_from_a_line_of_progress() {
        for (line, want) in [
            ("    12 s  59500 samples acknowledged, 0 batches unanswered", Some(59_500)),
            ("sending 1000 samples a second", None),
        ] {
            assert_eq!(acknowledged(line), want, "{line}");
        }
    }
}
