//! Faults that a drill does to the own server, each over by itself after its hold. I/O.
//!
//! A fault that is held has a thread of its own, which waits for nothing but the clock, the end of the server and the word to let go. A
//! wedge is held by tracing: the threads of mysqld that write InnoDB's log are stopped by `ptrace`, which the parent of a process may do to
//! it without any privilege. The kernel lets go of them when the thread that traces ends, however it ends. A server that is frozen when its manager
//! ends is ended by the kernel with everything in the pod ([`memory`]).

mod memory;

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::unistd::Pid;
use rustix::process::Signal;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use understudy_mysql::Instance;
use understudy_wire::order::{DrillOrder, Fault, HealOrder, Refusal, Struck};

use self::memory::{Memory, Remembered};
use crate::child::Process;
use crate::config::Config;
use crate::facts::Shared;
use crate::host::Host;
use crate::proc;

/// No fault is held for longer, whatever the order says.
const MOST: Duration = Duration::from_secs(600);
/// Between two looks at whether the server still runs while a fault is held.
const LOOK: Duration = Duration::from_millis(20);
/// Within this every thread that is to be stopped stands still; one that waits for a disk stops no sooner than the disk answers.
const STOPS_WITHIN: Duration = Duration::from_secs(3);
const ASK_WITHIN: Duration = Duration::from_secs(3);
/// The scratch directory is on the node's own disk. Where that does not answer, nothing is done.
const REMEMBERS_WITHIN: Duration = Duration::from_secs(2);
/// Shorter than whoever tells it to let go waits.
const RELEASES_WITHIN: Duration = Duration::from_secs(2);
/// Names of the threads that write InnoDB's log and tell of it, as the kernel keeps them (15 bytes).
const LOG_THREADS: [&str; 4] = ["ib_log_writer", "ib_log_flush", "ib_log_wr_notif", "ib_log_fl_notif"];

/// Why a fault could not be done.
#[derive(Debug, thiserror::Error)]
enum HoldError {
    #[error("mysqld has no thread of the names {}", LOG_THREADS.join(", "))]
    NoLogThreads,
    #[error("thread {id} of mysqld cannot be stopped by ptrace: {error}")]
    Trace { id: i32, error: nix::Error },
    #[error("thread {id} of mysqld did not stop within {STOPS_WITHIN:?}")]
    Runs { id: i32 },
}

/// A fault that is held, or was.
#[derive(Debug)]
struct Hold {
    /// Dropping it lets go.
    release: Option<Sender<()>>,
    /// The limit.
    until: Instant,
    /// Cancelled when nothing is held any more.
    over: CancellationToken,
}

/// The latest run.
#[derive(Debug)]
struct Latest {
    run: String,
    fault: Fault,
    hold: Option<Hold>,
}

impl Latest {
    fn is_held(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| !hold.over.is_cancelled())
    }

    fn let_go(&mut self) {
        if let Some(hold) = &mut self.hold {
            hold.release = None;
        }
    }

    /// What is cancelled in a moment, when the hold was told to end or came to its limit.
    fn ending(&self) -> Option<CancellationToken> {
        let hold = self.hold.as_ref()?;
        (hold.release.is_none() || Instant::now() >= hold.until).then(|| hold.over.clone())
    }
}

/// What was ordered of late. An order to let go may come while its fault is only being done, or before it.
#[derive(Debug, Default)]
struct Ledger {
    latest: Option<Latest>,
    /// The latest run that was told to end without one of that name having begun.
    ended: Option<String>,
    /// Whether nothing is to be held any more.
    closed: bool,
}

impl Ledger {
    fn is_ended(&self, run: &str) -> bool {
        self.ended.as_deref() == Some(run)
    }

    /// What was told to let go while it was being done is let go of now.
    fn begun(&mut self, mut latest: Latest) {
        if self.closed || self.is_ended(&latest.run) {
            latest.let_go();
        }
        self.latest = Some(latest);
    }
}

/// How a thread that holds says that it does.
type Begun = oneshot::Sender<Result<(), HoldError>>;

/// Does what drills order. One at a time.
#[derive(Clone)]
pub struct Drills {
    shared: Arc<Shared>,
    config: Arc<Config>,
    host: Arc<Host>,
    /// A connection that only drills use.
    server: Arc<dyn Instance>,
    turn: Arc<tokio::sync::Mutex<()>>,
    ledger: Arc<Mutex<Ledger>>,
    memory: Memory,
}

impl Drills {
    /// Nothing is held. A run that an earlier manager of this pod took up is not done again. `server` is a connection that nobody else uses.
    pub fn new(shared: Arc<Shared>, config: Arc<Config>, host: Arc<Host>, server: Arc<dyn Instance>) -> Self {
        let memory = Memory::within(&config.run);
        let latest = memory.recall().map(|Remembered { run, fault }| {
            tracing::info!(run, %fault, "the last drill here; what it did to the server then is over");
            Latest { run, fault, hold: None }
        });
        let ledger = Arc::new(Mutex::new(Ledger { latest, ..Ledger::default() }));
        Self { shared, config, host, server, turn: Arc::default(), ledger, memory }
    }

    /// Does the fault of this order, unless its run was carried out before.
    pub async fn strike(&self, order: &DrillOrder) -> Result<Struck, Refusal> {
        let _turn = self.turn.lock().await;
        if !self.config.drills.contains(&order.fault) {
            let reason = format!(
                "this replica was started without the permission for {}: replicas that are made after it was put into spec.drills.faults \
                 of the Datastore have it",
                order.fault
            );
            return Err(Refusal::NotAllowed { reason });
        }
        if let Some(latest) = self.ledger().latest.as_ref().filter(|latest| latest.run == order.run) {
            return Ok(Struck { fault: latest.fault, before: true });
        }
        self.refuse_ended(order)?;
        let ending = self.ledger().latest.as_ref().and_then(Latest::ending);
        if let Some(over) = ending {
            over.cancelled().await;
        }
        self.victim(order)?;
        self.remember(order).await?;
        // Meanwhile another may have become the primary, or the run may have been told to end.
        self.refuse_ended(order)?;
        let process = self.victim(order)?;
        tracing::warn!(run = order.run, fault = %order.fault, hold_ms = order.hold, "a drill strikes");
        let hold = match order.fault {
            Fault::Kill => {
                process.signal(Signal::KILL);
                None
            }
            Fault::Freeze => {
                let freeze = move |until, release: Receiver<()>, begun: Begun| freeze(&process, until, &release, begun);
                Some(self.hold(order, freeze).await?)
            }
            Fault::Wedge => Some(self.wedge(order).await?),
        };
        self.ledger().begun(Latest { run: order.run.clone(), fault: order.fault, hold });
        Ok(Struck { fault: order.fault, before: false })
    }

    /// Ends the fault of this run, and waits until nothing of it is held any more.
    pub async fn heal(&self, order: &HealOrder) -> Result<(), Refusal> {
        self.end(order);
        let over = async {
            // What is being done at this moment lets go as soon as it has begun.
            let _turn = self.turn.lock().await;
            let its = |latest: &&Latest| latest.run == order.run;
            let over = self.ledger().latest.as_ref().filter(its).and_then(Latest::ending);
            if let Some(over) = over {
                over.cancelled().await;
            }
        };
        let failed = |_| Refusal::Failed {
            step: "heal".to_owned(),
            reason: format!("it is held after {RELEASES_WITHIN:?} yet"),
        };
        tokio::time::timeout(RELEASES_WITHIN, over).await.map_err(failed)
    }

    fn end(&self, order: &HealOrder) {
        let mut ledger = self.ledger();
        match ledger.latest.as_mut().filter(|latest| latest.run == order.run) {
            Some(latest) => {
                tracing::info!(run = order.run, held = latest.is_held(), "a drill is told to let go");
                latest.let_go();
            }
            None => ledger.ended = Some(order.run.clone()),
        }
    }

    /// Ends whatever is held, and holds nothing any more.
    pub fn let_go(&self) {
        let mut ledger = self.ledger();
        ledger.closed = true;
        if let Some(latest) = ledger.latest.as_mut() {
            latest.let_go();
        }
    }

    fn refuse_ended(&self, order: &DrillOrder) -> Result<(), Refusal> {
        if !self.ledger().is_ended(&order.run) {
            return Ok(());
        }
        Err(Refusal::WrongPhase { reason: format!("run {} was told to end before it struck", order.run) })
    }

    /// Before anything is done: a manager that is started again in the middle must not do it twice.
    async fn remember(&self, order: &DrillOrder) -> Result<(), Refusal> {
        let failed = |reason: String| Refusal::Failed { step: "remember the run".to_owned(), reason };
        let (memory, run) = (self.memory.clone(), Remembered { run: order.run.clone(), fault: order.fault });
        let writing = tokio::task::spawn_blocking(move || memory.keep(&run));
        match tokio::time::timeout(REMEMBERS_WITHIN, writing).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(e))) => Err(failed(format!("{}: {e}", self.config.run.display()))),
            Ok(Err(e)) => Err(failed(e.to_string())),
            Err(_) => Err(failed(format!("{} did not answer", self.config.run.display()))),
        }
    }

    /// The server, when it is the one that the order means.
    fn victim(&self, order: &DrillOrder) -> Result<Process, Refusal> {
        let (known, serving, stopping) =
            self.shared.read(|facts| (facts.known, facts.serving(&self.shared.me), facts.stopping));
        if order.epoch < known {
            return Err(Refusal::StaleEpoch { given: order.epoch, known });
        }
        let wrong = |reason: String| Refusal::WrongPhase { reason };
        if stopping {
            return Err(wrong("the pod is stopping".to_owned()));
        }
        if serving != Some(order.epoch) {
            return Err(wrong(format!("this replica does not take writes under epoch {}", order.epoch)));
        }
        if self.ledger().latest.as_ref().is_some_and(Latest::is_held) {
            return Err(wrong("the fault of another run is still held".to_owned()));
        }
        let process = self.host.process().filter(|process| process.exit().is_none());
        process.ok_or_else(|| wrong("mysqld does not run".to_owned()))
    }

    /// Where transactions write the log themselves, there is no thread to hold: the server is told first to have threads for that. It keeps
    /// them: most of the time it is replaced anyway, and they do it no harm.
    async fn wedge(&self, order: &DrillOrder) -> Result<Hold, Refusal> {
        let failed =
            |e: understudy_mysql::SqlError| Refusal::Failed { step: "wedge".to_owned(), reason: e.to_string() };
        self.server.use_log_writers(ASK_WITHIN).await.map_err(failed)?;
        // Meanwhile another may have become the primary.
        let process = self.victim(order)?;
        let wedge = move |until, release: Receiver<()>, begun: Begun| wedge(&process, until, &release, begun);
        self.hold(order, wedge).await
    }

    /// Runs a hold in a thread of its own, and waits until it has begun.
    async fn hold(
        &self,
        order: &DrillOrder,
        body: impl FnOnce(Instant, Receiver<()>, Begun) + Send + 'static,
    ) -> Result<Hold, Refusal> {
        let failed = |reason: String| Refusal::Failed { step: order.fault.name().to_lowercase(), reason };
        let until = Instant::now() + Duration::from_millis(order.hold).min(MOST);
        let (release, released) = channel();
        let (begun, told) = oneshot::channel();
        let over = CancellationToken::new();
        let (run, ended) = (order.run.clone(), over.clone().drop_guard());
        let thread = move || {
            let _ended = ended;
            body(until, released, begun);
            tracing::info!(run, "a drill has let go");
        };
        std::thread::Builder::new().name("drill".to_owned()).spawn(thread).map_err(|e| failed(e.to_string()))?;
        match told.await {
            Ok(Ok(())) => Ok(Hold { release: Some(release), until, over }),
            Ok(Err(e)) => Err(failed(e.to_string())),
            Err(_) => Err(failed("its thread ended before it began".to_owned())),
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A process that stands still as long as this lives, however its thread ends.
struct Stopped<'a>(&'a Process);

impl<'a> Stopped<'a> {
    fn stop(process: &'a Process) -> Self {
        process.signal(Signal::STOP);
        Self(process)
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.signal(Signal::CONT);
    }
}

/// The whole process stands still until the limit, or until it is let go.
fn freeze(process: &Process, until: Instant, release: &Receiver<()>, begun: Begun) {
    let _stopped = Stopped::stop(process);
    if begun.send(Ok(())).is_ok() {
        wait(until, release, || process.exit().is_some());
    }
}

/// The threads that write the log stand still until the limit, or until they are let go.
fn wedge(process: &Process, until: Instant, release: &Receiver<()>, begun: Begun) {
    match Grip::take(process.pid()) {
        Ok(grip) => {
            if begun.send(Ok(())).is_ok() {
                wait(until, release, || process.exit().is_some() || !grip.holds());
            }
        }
        // What was stopped runs again by now.
        Err(e) => {
            if begun.send(Err(e)).is_err() {
                tracing::debug!("nobody waits any more for a drill that could not begin");
            }
        }
    }
}

/// Until the limit, the word to let go, or the end of what is held.
fn wait(until: Instant, release: &Receiver<()>, is_over: impl Fn() -> bool) {
    while !is_over() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        match release.recv_timeout(left.min(LOOK)) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Threads that are stopped by tracing. Only the thread that took them may drop this, and it ends soon after: the kernel then lets go of
/// any that did not stop and so could not be let go of here, and takes away those that died meanwhile.
struct Grip {
    process: u32,
    threads: Vec<Pid>,
}

impl Grip {
    fn take(process: u32) -> Result<Self, HoldError> {
        let found = proc::threads_named(process, |name| LOG_THREADS.contains(&name));
        if found.is_empty() {
            return Err(HoldError::NoLogThreads);
        }
        let mut grip = Self { process, threads: Vec::new() };
        for id in found {
            let thread = Pid::from_raw(id.cast_signed());
            let trace = |error| HoldError::Trace { id: thread.as_raw(), error };
            ptrace::seize(thread, ptrace::Options::empty()).map_err(trace)?;
            grip.threads.push(thread);
            ptrace::interrupt(thread).map_err(trace)?;
        }
        let late = Instant::now() + STOPS_WITHIN;
        for thread in &grip.threads {
            while !matches!(grip.state(*thread), Some('t' | 'T')) {
                if Instant::now() >= late {
                    return Err(HoldError::Runs { id: thread.as_raw() });
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(grip)
    }

    /// A thread that died stays in the way of its process's end until it is let go of.
    fn holds(&self) -> bool {
        self.threads.iter().all(|thread| !matches!(self.state(*thread), None | Some('Z' | 'X')))
    }

    fn state(&self, thread: Pid) -> Option<char> {
        proc::thread_state(self.process, thread.as_raw().cast_unsigned())
    }
}

impl Drop for Grip {
    fn drop(&mut self) {
        for thread in &self.threads {
            match ptrace::detach(*thread, None::<nix::sys::signal::Signal>) {
                // One that is gone or has not stopped yet.
                Ok(()) | Err(nix::Error::ESRCH) => {}
                Err(error) => {
                    tracing::warn!(%thread, %error, "thread of mysqld not let go of; it will be with this thread's end")
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
