//! The driver: executes what the [`Machine`] says, one step at a time, and drops a step when the route changes. I/O.

mod approach;
mod gather;
mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use understudy_kafka::{DeadLetter, Events};
use understudy_sql::StepError;
use understudy_wire::ReplicaName;
use understudy_wire::evidence::{Millis, ProbeError, Stage};

use crate::ahead::{Ahead, Dialler, Logins, ahead};
use crate::batch::{Batch, Limits};
use crate::facts::Facts;
use crate::guard::OwnerId;
use crate::hanging::Hanging;
use crate::lanes::{Fault, Holes, Lanes, Start};
use crate::log::{Ends, Log, now_ms};
use crate::machine::{Machine, State, Step, Times, Worked};
use crate::metrics::Metrics;
use crate::placement::Placement;
use crate::route::{Route, Transition};
use crate::session::{Deadlines, Names, Session};
use crate::status::{Delivery, Partition, PartitionState, Snapshot, delay, message, partition_state, silence};
use crate::takeover::{Milestone, Takeover};
use crate::view::View;

/// What does not change while the process lives.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whose rows.
    pub names: Names,
    /// The shard it feeds.
    pub shard: String,
    /// This process.
    pub owner: OwnerId,
    /// How much goes into a transaction.
    pub limits: Limits,
    /// How long steps may take.
    pub deadlines: Deadlines,
    /// How long the machine waits.
    pub times: Times,
    /// Whether offsets may be missing.
    pub holes: Holes,
    /// Where partitions begin of which nothing is stored.
    pub start: Start,
    /// Own, but do not read.
    pub paused: bool,
    /// Partitions that are not read.
    pub paused_partitions: Vec<i32>,
}

/// What the driver works with.
pub struct Deps<L> {
    /// Gives the login of the shard.
    pub login: Logins,
    /// The way to the primary; None while there is none.
    pub routes: watch::Receiver<Option<Route>>,
    /// The change of primary under way; None while there is none. Told after the route.
    pub transitions: watch::Receiver<Option<Transition>>,
    /// What feeds the shard; None while that is not known.
    pub placement: watch::Receiver<Option<Placement>>,
    /// Told where to read.
    pub log: L,
    /// What is read.
    pub events: Events,
    /// The ends of the topic.
    pub ends: watch::Receiver<Ends>,
    /// Where rejects go.
    pub dead: DeadLetter,
    /// What is seen of the primary.
    pub facts: Arc<Facts>,
    /// What is being done.
    pub board: watch::Sender<Snapshot>,
    /// The same in numbers.
    pub metrics: Metrics,
}

/// Runs until stopped; gives up ownership on the way out.
pub async fn run<V: View, L: Log>(config: Config, view: V, deps: Deps<L>, stop: CancellationToken) {
    let dial = Dialler {
        login: deps.login.clone(),
        owner: config.owner.clone(),
        deadlines: config.deadlines,
        hanging: Mutex::default(),
    };
    let (ahead, keeper) = ahead(dial, deps.transitions.clone(), deps.routes.clone());
    let runner = Runner::new(config, view, deps, ahead);
    tokio::select! {
        () = drive(runner, stop) => {}
        () = keeper.run() => {}
    }
}

async fn drive<V: View, L: Log>(mut runner: Runner<V, L>, stop: CancellationToken) {
    let mut routes = runner.deps.routes.clone();
    runner.follow(routes.borrow_and_update().clone());
    let mut stopping = false;
    loop {
        runner.publish();
        let step = runner.machine.step(runner.now());
        if step == Step::End {
            return runner.publish();
        }
        // When the process shall stop, what writes or reads rows is brought to its end first, so that ownership can be given up on the same
        // connection. When the route changes nothing is: its server is no longer the one to write to.
        let interruptible = !stopping && matches!(step, Step::Rest(_) | Step::Open(_) | Step::Survey);
        let interrupt = tokio::select! {
            biased;
            route = other_route(&mut routes, runner.machine.present_route().cloned()) => Some(Interrupt::Route(route)),
            () = stop.cancelled(), if interruptible => Some(Interrupt::Stop),
            () = runner.execute(step, &stop) => None,
        };
        if let Some(Interrupt::Route(route)) = interrupt {
            runner.follow(route);
        }
        if stop.is_cancelled() && !stopping {
            stopping = true;
            runner.machine.stop();
        }
    }
}

enum Interrupt {
    Route(Option<Route>),
    Stop,
}

/// Waits until the route is another than this one.
async fn other_route(routes: &mut watch::Receiver<Option<Route>>, present: Option<Route>) -> Option<Route> {
    loop {
        if routes.changed().await.is_err() {
            // Nobody will ever tell of another route: the last one is kept.
            std::future::pending::<()>().await;
        }
        let route = routes.borrow_and_update().clone();
        if route != present {
            return route;
        }
    }
}

struct Runner<V: View, L> {
    config: Config,
    view: V,
    deps: Deps<L>,
    machine: Machine,
    session: Option<Session>,
    /// Sessions at the primary that missed a deadline.
    hanging: Hanging,
    /// Where a connection to the next primary is asked for.
    ahead: Ahead<Session>,
    lanes: Lanes,
    batch: Batch<V::Item>,
    /// What the rows say about how far each partition is complete, in milliseconds since 1970.
    complete: BTreeMap<i32, i64>,
    /// How much of each partition was put aside, as the rows say.
    put_aside: BTreeMap<i32, u64>,
    /// The ends of the topic that the lanes were told of.
    heard: Ends,
    /// When each partition's offset was last moved, or read.
    moved: BTreeMap<i32, Instant>,
    /// The primary of the last connection.
    opened: Option<ReplicaName>,
    /// Whether the view has not been told of the connection yet.
    is_new_to_view: bool,
    /// How far it is on the way to what is stored first under the route; None once that is stored.
    takeover: Option<Takeover>,
    /// When the last record of each partition came out of the log.
    came: BTreeMap<i32, (Instant, SystemTime)>,
    /// The time that each partition is stored up to, in milliseconds since 1970: that of its last record, or when all of it was stored, or
    /// what its row said before this process stored anything of it.
    reached_ms: BTreeMap<i32, i64>,
    /// The generation of the log's assignment; None when it must be assigned anew.
    generation: Option<u64>,
    started: Instant,
    committed: Instant,
    refreshed: Instant,
    retried: Instant,
    /// A table that the view relied on was gone; tried again once.
    missed_table: bool,
}

impl<V: View, L: Log> Runner<V, L> {
    fn new(config: Config, view: V, deps: Deps<L>, ahead: Ahead<Session>) -> Self {
        let now = Instant::now();
        Self {
            machine: Machine::new(config.owner.clone(), config.times, config.paused),
            lanes: Lanes::new(config.start).writing(&config.names.schema),
            config,
            view,
            deps,
            session: None,
            hanging: Hanging::default(),
            ahead,
            batch: Batch::default(),
            complete: BTreeMap::new(),
            put_aside: BTreeMap::new(),
            heard: Ends::default(),
            moved: BTreeMap::new(),
            opened: None,
            is_new_to_view: false,
            takeover: None,
            came: BTreeMap::new(),
            reached_ms: BTreeMap::new(),
            generation: None,
            started: now,
            committed: now,
            refreshed: now,
            retried: now,
            missed_table: false,
        }
    }

    fn now(&self) -> Millis {
        Millis::try_from(self.started.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }

    fn follow(&mut self, route: Option<Route>) {
        tracing::info!(route = ?route, "the route is now another");
        self.deps.facts.about(route.as_ref().map(|route| &route.primary));
        self.hanging.about(route.as_ref());
        self.deps.metrics.routes.inc();
        self.takeover = route.as_ref().map(|_| Takeover::new(Instant::now()));
        let now = self.now();
        self.machine.follow(route, now);
    }

    /// Executes one step. May be dropped at any await: whatever was under way then is settled by what the rows say.
    async fn execute(&mut self, step: Step, stop: &CancellationToken) {
        match step {
            Step::Rest(until) => match until {
                Some(at) => sleep_until(self.started + Duration::from_millis(at)).await,
                None => std::future::pending().await,
            },
            Step::Open(route) => self.open(&route).await,
            Step::Survey => self.survey().await,
            Step::Claim { seen, epoch } => self.claim(&seen, epoch).await,
            Step::Load(_) => self.load().await,
            Step::Work { guard, hold } => {
                let outcome = self.work(&guard, hold, stop).await;
                let at = self.now();
                match outcome {
                    Ok(worked) => {
                        self.note(&worked);
                        self.machine.worked(worked, at);
                    }
                    Err(e) if e.error == ProbeError::ReadOnly => self.refused(e).await,
                    Err(e) => self.failed(e),
                }
            }
            Step::Close => {
                self.session = None;
                let at = self.now();
                self.machine.closed(at);
            }
            Step::Release(guard) => {
                if let Some(session) = &mut self.session
                    && let Err(e) = session.release(&self.config.names, &guard).await
                {
                    tracing::warn!(error = %e, "ownership not released; another takes over after a pause");
                }
                self.session = None;
                self.machine.released();
            }
            Step::End => {}
        }
    }

    fn failed(&mut self, error: StepError) {
        tracing::warn!(%error, stage = ?error.stage, "cut off from the primary");
        self.deps.facts.failed(&error, now());
        self.deps.metrics.failures.inc();
        if error.error == ProbeError::Timeout
            && let Some(session) = self.session.take()
        {
            self.hanging.keep(error.stage, session.unanswered());
        }
        self.machine.failed(error);
    }

    /// The server takes no writes. A new connection would find the same, and costs it most when its office changes.
    async fn refused(&mut self, error: StepError) {
        let Some(session) = &mut self.session else { return self.failed(error) };
        if let Err(lost) = session.leave().await {
            return self.failed(lost);
        }
        tracing::warn!(%error, "the primary takes no writes");
        self.deps.facts.failed(&error, now());
        self.deps.metrics.failures.inc();
        let at = self.now();
        self.machine.refused(error, at);
    }

    /// Something is reached on the way to what is stored first under the route.
    fn reach(&mut self, milestone: Milestone, at: Instant) {
        if let Some(takeover) = &mut self.takeover
            && takeover.reach(milestone, at)
        {
            // What comes before it counts once it came to a commit: a route is followed to many a server that is not promoted.
            let told: &[(Milestone, Duration)] = match milestone {
                Milestone::Connected | Milestone::Owner | Milestone::Positioned => &[],
                Milestone::Committed => takeover.reached(),
                Milestone::Stored => takeover.reached().last().map(std::slice::from_ref).unwrap_or_default(),
            };
            told.iter().for_each(|(milestone, after)| self.deps.metrics.reached(milestone.word(), *after));
        }
    }

    /// A step that needs a connection found none: the machine and the driver would disagree, which a new connection settles.
    fn gone(&mut self) {
        self.machine.failed(lost());
    }

    fn note(&mut self, worked: &Worked) {
        match worked {
            Worked::Fenced(fenced) => {
                self.deps.metrics.fenced.inc();
                tracing::warn!(%fenced, "fenced");
            }
            Worked::Held(why) => {
                self.deps.metrics.holds.inc();
                tracing::error!(why, "the batch cannot be stored now");
            }
            Worked::Batch | Worked::Canary | Worked::Reload => {}
        }
    }

    fn publish(&mut self) {
        let state = self.machine.state();
        let ends = self.deps.ends.borrow();
        let (at, now) = (now_ms(), Instant::now());
        let trouble = self.deps.log.trouble();
        let partitions = self.lanes.iter().map(|(partition, lane)| {
            let (partition_state, said) = partition_state(&state, lane);
            let came = self.came.get(&partition).copied();
            let delivery = Delivery { trouble: trouble.as_ref(), ends: &ends, came };
            let is_read = partition_state == PartitionState::Running;
            let silent = || silence(partition, lane, delivery, now).filter(|_| is_read);
            let end = ends.partitions.get(&partition).map(|end| end.end.max(lane.next().unwrap_or(0)));
            let lag_records = end.map_or(0, |end| lane.to_store(end));
            let begins = lane.stored().or(lane.next());
            let known = end.and(begins).map(|_| lag_records);
            let oldest = self.batch.first_ms(partition).or_else(|| self.reached_ms.get(&partition).copied());
            Partition {
                partition,
                state: partition_state,
                next_offset: lane.stored(),
                end,
                lag_records,
                lag_seconds: delay(known, oldest, at),
                complete_until_ms: self.complete.get(&partition).copied().unwrap_or(0),
                until: lane.promised(),
                dead_letters: self.put_aside.get(&partition).copied().unwrap_or(0),
                fault: lane.fault().map(Fault::word),
                message: said.or_else(silent),
            }
        });
        let route = self.machine.present_route();
        let snapshot = Snapshot {
            shard: self.config.shard.clone(),
            state: state.word(),
            message: message(&state),
            active: matches!(state, State::Running | State::Paused | State::Stuck(_)),
            epoch: route.map(|route| route.epoch.0),
            primary: route.map(|route| route.primary.to_string()),
            term: self.machine.term().map(|term| term.0),
            partitions: partitions.collect(),
        };
        drop(ends);
        self.deps.metrics.show(&snapshot);
        self.deps.board.send_if_modified(|present| {
            let news = *present != snapshot;
            if news {
                *present = snapshot;
            }
            news
        });
    }
}

fn now() -> std::time::Instant {
    std::time::Instant::now()
}

fn lost() -> StepError {
    let error = ProbeError::Other { message: "there is no connection".to_owned() };
    StepError { step: "connection", stage: Stage::Tcp, error }
}

fn unexpected(step: &'static str, error: &dyn std::fmt::Display) -> StepError {
    StepError { step, stage: Stage::Commit, error: ProbeError::Other { message: error.to_string() } }
}
