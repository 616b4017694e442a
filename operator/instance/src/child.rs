//! Processes: starting them, reaping everything that ends (the manager is PID 1), signalling without hitting a stranger. I/O.

use std::collections::HashMap;
use std::io;
use std::process::{ChildStderr, ChildStdout, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_child_subreaper, wait};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code, when it ended by itself.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// When it was reaped.
    pub at: Instant,
}

type Children = HashMap<i32, watch::Sender<Option<Exit>>>;

/// Reaps every child of this process, its own and orphans that fell to it.
#[derive(Clone, Debug, Default)]
pub struct Reaper {
    /// Held while a process is started and while one is reaped, so that no process ends unknown and none is signalled once reaped.
    children: Arc<Mutex<Children>>,
}

/// A process that was started here.
#[derive(Clone, Debug)]
pub struct Process {
    pid: Pid,
    exit: watch::Receiver<Option<Exit>>,
    children: Arc<Mutex<Children>>,
}

/// The ends of the pipes that a process was started with.
#[derive(Debug, Default)]
pub struct Pipes {
    /// Where it writes.
    pub stdout: Option<ChildStdout>,
    /// Where it complains.
    pub stderr: Option<ChildStderr>,
}

impl Reaper {
    /// Orphans below this process fall to it even where it is not PID 1.
    pub fn new() -> Self {
        if let Err(e) = set_child_subreaper(Some(rustix::process::getpid())) {
            tracing::warn!(error = %e, "orphans will not be reaped");
        }
        Self::default()
    }

    /// Starts a process.
    pub fn spawn(&self, command: &mut Command) -> io::Result<(Process, Pipes)> {
        let mut children = lock(&self.children);
        let mut child = command.spawn()?;
        let pid = Pid::from_child(&child);
        let (ended, exit) = watch::channel(None);
        children.insert(pid.as_raw_nonzero().get(), ended);
        let pipes = Pipes { stdout: child.stdout.take(), stderr: child.stderr.take() };
        Ok((Process { pid, exit, children: self.children.clone() }, pipes))
    }

    /// Reaps until stopped.
    pub async fn run(self, stop: CancellationToken) {
        let mut signals = match signal(SignalKind::child()) {
            Ok(signals) => Some(signals),
            Err(e) => {
                tracing::warn!(error = %e, "ends of processes are noticed by looking");
                None
            }
        };
        loop {
            self.reap();
            let signalled = async {
                match &mut signals {
                    Some(signals) => signals.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                _ = signalled => {}
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
            }
        }
    }

    fn reap(&self) {
        let mut children = lock(&self.children);
        // An error is that there is no child at all.
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            // A thread that a drill holds was stopped; nothing has ended.
            if status.stopped() {
                continue;
            }
            let exit = Exit { code: status.exit_status(), signal: status.terminating_signal(), at: Instant::now() };
            match children.remove(&pid.as_raw_nonzero().get()) {
                Some(ended) => {
                    ended.send_replace(Some(exit));
                }
                None => tracing::debug!(pid = pid.as_raw_nonzero(), "orphan reaped"),
            }
        }
    }
}

impl Process {
    /// Its id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// How it ended; None while it runs.
    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Waits for its end.
    pub async fn ended(&self) -> Exit {
        let mut exit = self.exit.clone();
        let ended = exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        ended.unwrap_or(Exit { code: None, signal: None, at: Instant::now() })
    }

    /// Sends a signal, unless it has ended: its number may then be another's.
    pub fn signal(&self, signal: Signal) {
        let children = lock(&self.children);
        if !children.contains_key(&self.pid.as_raw_nonzero().get()) {
            return;
        }
        if let Err(e) = kill_process(self.pid, signal) {
            tracing::warn!(pid = self.pid(), ?signal, error = %e, "signal not sent");
        }
    }
}

fn lock(children: &Mutex<Children>) -> MutexGuard<'_, Children> {
    children.lock().unwrap_or_else(PoisonError::into_inner)
}
