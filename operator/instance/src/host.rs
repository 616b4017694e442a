//! The life of mysqld: started once, watched, never started again. I/O.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use understudy_mysql::Instance;

use crate::child::{Exit, Process, Reaper};
use crate::config::Config;
use crate::facts::{Life, Shared};
use crate::{logs, mycnf};

/// Name of the generated configuration file in the scratch directory.
const CONFIG_FILE: &str = "my.cnf";
const ASK_EVERY: Duration = Duration::from_millis(100);
const ASK_WITHIN: Duration = Duration::from_secs(1);

/// Why mysqld could not be started.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The configuration file could not be written.
    #[error("{} could not be written", path.display())]
    Config {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The program could not be run.
    #[error("{} could not be started", program.display())]
    Spawn {
        /// Which.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Starts mysqld and keeps the one that serves.
#[derive(Debug)]
pub struct Host {
    config: Arc<Config>,
    shared: Arc<Shared>,
    reaper: Reaper,
    tasks: TaskTracker,
    /// The mysqld that runs now, the one of a build included.
    process: Mutex<Option<Process>>,
}

impl Host {
    /// Nothing runs yet.
    pub fn new(config: Arc<Config>, shared: Arc<Shared>, reaper: Reaper, tasks: TaskTracker) -> Self {
        Self { config, shared, reaper, tasks, process: Mutex::new(None) }
    }

    /// The mysqld that was started last.
    pub fn process(&self) -> Option<Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// As if this one had been started here.
    #[cfg(test)]
    pub(crate) fn take_in(&self, process: Process) {
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
    }

    /// Sends a signal to the mysqld that runs, if one does.
    pub fn signal(&self, signal: Signal) {
        if let Some(process) = self.process() {
            process.signal(signal);
        }
    }

    /// Starts mysqld with the generated configuration and these options more.
    pub fn start(&self, options: &[String]) -> Result<Process, HostError> {
        let file = self.config.run.join(CONFIG_FILE);
        fs::write(&file, mycnf::render(&self.config))
            .map_err(|source| HostError::Config { path: file.clone(), source })?;
        let spawned = self.reaper.spawn(&mut self.command(&file, options));
        let (process, pipes) =
            spawned.map_err(|source| HostError::Spawn { program: self.config.mysqld.clone(), source })?;
        tracing::info!(pid = process.pid(), ?options, "mysqld started");
        self.shared.update(|facts| facts.last_error = None);
        if let Some(stderr) = pipes.stderr {
            self.tasks.spawn(logs::pass_on(stderr, self.shared.clone()));
        }
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(process.clone());
        Ok(process)
    }

    fn command(&self, file: &Path, options: &[String]) -> Command {
        let mut command = Command::new(&self.config.mysqld);
        command
            .arg(format!("--defaults-file={}", file.display()))
            .args(options)
            .env("TZ", "UTC")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// Starts the server on its data and follows its life to the end. `server` is a connection that nobody else uses.
    pub async fn serve(&self, shared: &Shared, server: &dyn Instance, stop: CancellationToken) {
        let process = match self.start(&[]) {
            Ok(process) => process,
            Err(e) => {
                tracing::error!(error = %e, source = ?std::error::Error::source(&e), "mysqld not started");
                let exit = Exit { code: None, signal: None, at: Instant::now() };
                return shared.update(|facts| facts.life = Life::Exited(exit));
            }
        };
        shared.update(|facts| facts.life = Life::Starting);
        let ready = async {
            while server.status(ASK_WITHIN).await.is_err() {
                tokio::time::sleep(ASK_EVERY).await;
            }
            shared.update(|facts| facts.life = Life::Running);
            tracing::info!("mysqld answers");
            std::future::pending::<()>().await;
        };
        let exit = tokio::select! {
            exit = process.ended() => exit,
            () = ready => return,
            () = stop.cancelled() => return,
        };
        tracing::error!(code = exit.code, signal = exit.signal, "mysqld ended");
        shared.update(|facts| {
            facts.life = Life::Exited(exit);
            facts.process = None;
        });
    }
}
