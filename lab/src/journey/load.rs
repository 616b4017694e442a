//! `cargo lab load` and `cargo lab verify`: finds the Datastore and hands over to the program that sends and reads back.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use understudy_lab_outcome::{Outcome, Target, acknowledged};

use super::access::{Access, ClusterOptions, Reached};
use super::store::Store;
use crate::api::wait;
use crate::paths::Paths;
use crate::product::{self, Profile};
use crate::progress::Ui;

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

/// Hands over to the program; signals of the terminal reach it.
pub fn load(options: &LoadOptions, paths: &Paths, ui: &Ui) -> Result<ExitCode> {
    let program = product::build_load(paths, ui, Profile::Release)?;
    let access = Access::of(&options.store.cluster, paths)?;
    let store = options.store.store(&access);
    let at = Reachable::find(&program, &store, options.store.token(&store)?)?;
    finish(at.target.load(options.rate, &options.time, &options.ledger).args(&options.more))
}

/// As [`load`], for reading back.
pub fn verify(options: &VerifyOptions, paths: &Paths, ui: &Ui) -> Result<ExitCode> {
    let program = product::build_load(paths, ui, Profile::Release)?;
    let access = Access::of(&options.store.cluster, paths)?;
    let store = options.store.store(&access);
    let at = Reachable::find(&program, &store, options.store.token(&store)?)?;
    finish(at.target.verify(&options.ledger).args(&options.more))
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

/// The program, with what it sends to and reads from: reachable for as long as this lives.
#[derive(Debug)]
struct Reachable {
    target: Target,
    _gateway: Reached,
    _query: Reached,
}

impl Reachable {
    fn find(program: &Path, store: &Store<'_>, token: String) -> Result<Self> {
        let (gateway, query) = (store.reach("gateway", 8080)?, store.reach("query", 8090)?);
        let target = Target {
            program: program.to_owned(),
            cluster: store.access.flags(),
            namespace: store.namespace.clone(),
            datastore: store.name.clone(),
            gateways: gateway.urls.clone(),
            queries: query.urls.clone(),
            token,
        };
        Ok(Self { target, _gateway: gateway, _query: query })
    }
}

/// How long a load may take to stop: half a minute for what is unanswered, and then it derives all that it sent once more, to read its own
/// ledger.
const STOPS_WITHIN: Duration = Duration::from_secs(240);

/// A load that runs beside something else. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    program: PathBuf,
    token: String,
    ledger: PathBuf,
    _at: Reachable,
}

impl Running {
    /// Starts it; its lines go to `LEDGER.log`.
    pub fn start(program: &Path, store: &Store<'_>, token: &str, rate: u64, time: &str, ledger: &Path) -> Result<Self> {
        Self::start_with(program, store, token, rate, time, ledger, &[])
    }

    /// As [`Self::start`], with more options for the program.
    pub fn start_with(
        program: &Path,
        store: &Store<'_>,
        token: &str,
        rate: u64,
        time: &str,
        ledger: &Path,
        more: &[&str],
    ) -> Result<Self> {
        if let Some(dir) = ledger.parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::remove_file(ledger).or_else(|_| std::fs::remove_dir_all(ledger)).ok();
        let log = std::fs::File::create(ledger.with_extension("log"))?;
        let at = Reachable::find(program, store, token.to_owned())?;
        let child = at.target.load(rate, time, ledger).args(more).stdout(log.try_clone()?).stderr(log).spawn();
        let child = child.with_context(|| format!("cannot run {}", program.display()))?;
        Ok(Self { child, program: program.to_owned(), token: token.to_owned(), ledger: ledger.to_owned(), _at: at })
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

    /// Stops sending and reads everything back, from the pods that are there by then; what verification printed, and what it found.
    pub fn finish(self, store: &Store<'_>) -> Result<(String, Outcome)> {
        self.finish_with(store, &[])
    }

    /// As [`Self::finish`], with more options for the verification.
    pub fn finish_with(mut self, store: &Store<'_>, more: &[&str]) -> Result<(String, Outcome)> {
        self.check()?;
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("process id out of range")?;
        kill_process(pid, Signal::TERM)?;
        wait(STOPS_WITHIN, "the load does not stop", || Ok(self.child.try_wait()?.is_some()))?;
        let report = self.ledger.with_extension("json");
        std::fs::remove_file(&report).ok();
        let at = Reachable::find(&self.program, store, self.token.clone())?;
        let mut command = at.target.verify(&self.ledger);
        let output = command
            .arg("--json")
            .arg(&report)
            .args(more)
            .stderr(Stdio::inherit())
            .output()
            .context("cannot run the verifier")?;
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
