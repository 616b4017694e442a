//! The driver: executes what the [`Machine`] says, one step at a time, and drops a step when the route changes. I/O.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use understudy_kafka::{Broken, DeadLetter, Event, Position};
use understudy_sql::{Login, StepError};
use understudy_wire::evidence::{Millis, ProbeError, Stage};

use crate::batch::{Batch, Limits};
use crate::facts::{Facts, INTERVAL};
use crate::guard::{Guard, OwnerId};
use crate::lanes::{Fault, Holes, Lanes, Offer, Resume};
use crate::log::{Ends, Log, now_ms};
use crate::machine::{Machine, State, Step, Times, Worked};
use crate::metrics::Metrics;
use crate::placement::Placement;
use crate::route::Route;
use crate::session::{Deadlines, Names, Progress, Session, Stored, TxError};
use crate::status::{Partition, Snapshot, lag_records, message, partition_state};
use crate::view::{View, ViewError};

/// How often partitions whose records went missing are tried again.
const RETRY_FAULTS: Duration = Duration::from_secs(5);
/// How often rows are written only to say how far idle partitions are complete.
const REFRESH: Duration = Duration::from_secs(1);
/// How long putting one batch's rejects aside may take.
const PUT_ASIDE: Duration = Duration::from_secs(5);
/// How long the log may take to be brought to other positions.
const ASSIGN: Duration = Duration::from_secs(10);

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
    /// Own, but do not read.
    pub paused: bool,
    /// Partitions that are not read.
    pub paused_partitions: Vec<i32>,
}

/// What the driver works with.
pub struct Deps<L> {
    /// Gives the login of the shard; read for each connection, so that passwords can be changed.
    pub login: Box<dyn Fn() -> Result<Login, String> + Send + Sync>,
    /// The way to the primary; None while there is none.
    pub routes: watch::Receiver<Option<Route>>,
    /// What feeds the shard; None while that is not known.
    pub placement: watch::Receiver<Option<Placement>>,
    /// Told where to read.
    pub log: L,
    /// What is read.
    pub events: mpsc::Receiver<Event>,
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
    let mut routes = deps.routes.clone();
    let mut runner = Runner::new(config, view, deps);
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
    lanes: Lanes,
    batch: Batch<V::Item>,
    /// What the rows say about how far each partition is complete, in milliseconds since 1970.
    complete: BTreeMap<i32, i64>,
    /// The time of the last stored record of each partition, in milliseconds since 1970.
    stored_ms: BTreeMap<i32, i64>,
    /// The generation of the log's assignment; None when it must be assigned anew.
    generation: Option<u64>,
    started: Instant,
    committed: Instant,
    refreshed: Instant,
    retried: Instant,
    /// A table that the view relied on was gone; tried again once.
    missed_table: bool,
}

/// What ended gathering.
enum Gathered {
    /// The batch is to be committed.
    Batch,
    /// It is time for a canary.
    Canary,
    /// The placement changed.
    Reload,
    /// Something else comes first: the log must be told anew, or the process shall stop.
    Nothing,
}

impl<V: View, L: Log> Runner<V, L> {
    fn new(config: Config, view: V, deps: Deps<L>) -> Self {
        let now = Instant::now();
        Self {
            machine: Machine::new(config.owner.clone(), config.times, config.paused),
            config,
            view,
            deps,
            session: None,
            lanes: Lanes::default(),
            batch: Batch::default(),
            complete: BTreeMap::new(),
            stored_ms: BTreeMap::new(),
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
        self.deps.metrics.routes.inc();
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
            Step::Claim { seen, epoch } => {
                let Some(session) = &mut self.session else { return self.gone() };
                self.deps.facts.began(Stage::Commit, now());
                let claim = session.claim(&self.config.names, self.config.owner.as_str(), &seen, epoch).await;
                let at = self.now();
                match claim {
                    Ok(term) => {
                        self.deps.facts.idle();
                        tracing::info!(?term, ?seen, "claimed");
                        self.machine.claimed(Ok(term), at);
                    }
                    Err(TxError::Fenced(fenced)) => self.machine.claimed(Err(fenced), at),
                    Err(TxError::Step(e)) => self.failed(e),
                    Err(other) => self.failed(unexpected("claim", &other)),
                }
            }
            Step::Load(_) => self.load().await,
            Step::Work { guard, hold } => {
                let outcome = self.work(&guard, hold, stop).await;
                let at = self.now();
                match outcome {
                    Ok(worked) => {
                        self.note(&worked);
                        self.machine.worked(worked, at);
                    }
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

    async fn open(&mut self, route: &Route) {
        let login = match (self.deps.login)() {
            Ok(login) => login,
            Err(message) => {
                let error = ProbeError::Other { message };
                return self.machine.failed(StepError { step: "read login", stage: Stage::Tcp, error });
            }
        };
        self.deps.facts.began(Stage::Tcp, now());
        match Session::open(route, &login, self.config.deadlines).await {
            Ok(session) => {
                self.deps.facts.selected(now());
                self.deps.metrics.connections.inc();
                self.session = Some(session);
                self.view.route_changed();
                let at = self.now();
                self.machine.opened(at);
            }
            Err(e) => self.failed(e),
        }
    }

    async fn survey(&mut self) {
        let Some(session) = &mut self.session else { return self.gone() };
        self.deps.facts.began(Stage::Select, now());
        match session.survey(&self.config.names).await {
            Ok(survey) => {
                self.deps.facts.selected(now());
                let at = self.now();
                self.machine.surveyed(survey.epoch, survey.owner, at);
            }
            Err(e) => self.failed(e),
        }
    }

    /// Brings lanes, batch and log to where the rows say.
    async fn load(&mut self) {
        let Some(session) = &mut self.session else { return self.gone() };
        let placement = self.deps.placement.borrow_and_update().clone().unwrap_or_default();
        let stored = match session.offsets(&self.config.names).await {
            Ok(stored) => stored,
            Err(e) => return self.failed(e),
        };
        let offsets = stored.iter().map(|(p, stored)| (*p, stored.next_offset)).collect();
        let paused: Vec<i32> = match self.config.paused {
            true => placement.keys().copied().collect(),
            false => self.config.paused_partitions.clone(),
        };
        let resume = self.lanes.load(&placement, &paused, &offsets);
        self.complete = stored.iter().map(|(p, stored)| (*p, stored.complete_until_ms)).collect();
        tracing::info!(?resume, positions = ?self.lanes.positions(), "read the stored offsets");
        if resume != Resume::KeepBatch {
            self.batch = Batch::default();
        }
        if resume == Resume::Rewind {
            self.generation = None;
            self.deps.metrics.rewinds.inc();
        }
        self.listen_to_ends();
        let outcome = self.assign().await;
        let at = self.now();
        self.machine.loaded(outcome, at);
    }

    /// Tells the log where to read, unless it knows.
    async fn assign(&mut self) -> Result<(), String> {
        if self.generation.is_some() {
            return Ok(());
        }
        let positions = self.lanes.positions();
        let positions = positions.into_iter().map(|(partition, offset)| Position { partition, offset }).collect();
        match timeout_at(Instant::now() + ASSIGN, self.deps.log.assign(positions)).await {
            Ok(Ok(generation)) => {
                self.generation = Some(generation);
                Ok(())
            }
            Ok(Err(e)) => Err(format!("the topic cannot be read: {e}")),
            Err(_) => Err("the topic cannot be read: no answer from the client".to_owned()),
        }
    }

    /// Lanes learn where the log begins and ends.
    fn listen_to_ends(&mut self) {
        let ends = self.deps.ends.borrow_and_update().clone();
        for (partition, end) in ends {
            if self.lanes.heard(partition, end.earliest, end.end) {
                self.generation = None;
            }
        }
    }

    async fn work(
        &mut self,
        guard: &Guard,
        hold: Option<Millis>,
        stop: &CancellationToken,
    ) -> Result<Worked, StepError> {
        let canary_at = self.committed + INTERVAL;
        if let Some(hold) = hold {
            let until = (self.started + Duration::from_millis(hold)).min(canary_at);
            if stop.run_until_cancelled(sleep_until(until)).await.is_none() || until < canary_at {
                return Ok(Worked::Canary);
            }
            return self.canary(guard).await;
        }
        if let Err(why) = self.assign().await {
            return Ok(Worked::Held(why));
        }
        match self.gather(canary_at, stop).await {
            Gathered::Nothing => Ok(Worked::Canary),
            Gathered::Reload => Ok(Worked::Reload),
            Gathered::Canary => self.canary(guard).await,
            Gathered::Batch => {
                if let Err(why) = self.put_aside().await {
                    return Ok(Worked::Held(why));
                }
                self.store(guard).await
            }
        }
    }

    /// Takes records until the batch is complete, or until it is time for a canary.
    async fn gather(&mut self, canary_at: Instant, stop: &CancellationToken) -> Gathered {
        while !self.batch.is_full(self.config.limits) {
            let now = Instant::now();
            let due = self.batch.due(self.config.limits);
            match due {
                Some(due) if due <= now => break,
                _ if canary_at <= now => return Gathered::Canary,
                _ => {}
            }
            let until = due.map_or(canary_at, |due| due.min(canary_at));
            tokio::select! {
                biased;
                () = stop.cancelled() => return Gathered::Nothing,
                Ok(()) = self.deps.placement.changed() => return Gathered::Reload,
                Ok(()) = self.deps.ends.changed() => self.listen_to_ends(),
                () = sleep_until(until) => {}
                () = sleep_until(self.retried + RETRY_FAULTS) => {
                    self.retried = now;
                    if self.lanes.try_again() {
                        self.generation = None;
                    }
                }
                Some(event) = self.deps.events.recv() => {
                    self.take(event);
                    self.take_waiting();
                }
            }
            if self.generation.is_none() {
                return Gathered::Nothing;
            }
        }
        Gathered::Batch
    }

    /// Takes what is in the channel already, as long as the batch has room.
    fn take_waiting(&mut self) {
        while !self.batch.is_full(self.config.limits) {
            match self.deps.events.try_recv() {
                Ok(event) => self.take(event),
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Record(record) if Some(record.generation) == self.generation => {
                match self.lanes.offer(record.partition, record.offset, self.config.holes) {
                    Offer::Take => {
                        let decoded = self.view.decode(&record);
                        self.batch.push(record, decoded, Instant::now());
                    }
                    Offer::Drop => {}
                    Offer::Fault => self.complain(record.partition),
                }
            }
            Event::Broken { generation, partition, why } if Some(generation) == self.generation => {
                let fault = match why {
                    Broken::Gap { expected, got } => Fault::Gap { expected, got },
                    Broken::BelowEarliest { expected, earliest } => Fault::Deleted { wanted: expected, earliest },
                    Broken::BeyondEnd { expected, end } => Fault::Ended { wanted: expected, end },
                };
                self.lanes.broke(partition, fault);
                self.complain(partition);
            }
            // Of an assignment that was given up: what it says was read under other positions.
            Event::Record(_) | Event::Broken { .. } => {}
        }
    }

    fn complain(&self, partition: i32) {
        let fault = self.lanes.get(partition).and_then(|lane| lane.fault().cloned());
        if let Some(fault) = fault {
            self.deps.metrics.faults.inc();
            tracing::error!(partition, error = %fault, "the partition cannot go on, the others do");
        }
    }

    /// What cannot be applied must be in the dead-letter topic before the offset passes over it.
    async fn put_aside(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + PUT_ASIDE;
        for letter in self.batch.letters().iter_mut().filter(|letter| !letter.delivered) {
            let (partition, offset, reason) = (letter.record.partition, letter.record.offset, letter.reason);
            match self.deps.dead.put(&letter.record, reason, &letter.detail, deadline).await {
                Ok(()) => {
                    letter.delivered = true;
                    self.deps.metrics.put_aside(reason);
                    tracing::warn!(partition, offset, reason, detail = letter.detail, "put aside");
                }
                Err(e) => {
                    return Err(format!(
                        "the record at offset {offset} of partition {partition} cannot be put aside: {e}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Prepares and commits the batch.
    async fn store(&mut self, guard: &Guard) -> Result<Worked, StepError> {
        let Some(session) = &mut self.session else { return Err(lost()) };
        self.deps.facts.began(Stage::Commit, now());
        if !self.batch.items().is_empty()
            && let Err(e) = session.prepare(&mut self.view, self.batch.items()).await
        {
            return self.view_failed(e);
        }
        let refresh = self.refreshed.elapsed() >= REFRESH;
        let progress = self.progress(refresh);
        let Some(session) = &mut self.session else { return Err(lost()) };
        let began = Instant::now();
        self.deps.facts.began(Stage::Commit, now());
        let committed = session.commit(&self.config.names, guard, &progress, &mut self.view, self.batch.items()).await;
        match committed {
            Ok(()) => {
                self.batch_stored(began, &progress, refresh);
                Ok(Worked::Batch)
            }
            Err(e) => self.tx_failed(e),
        }
    }

    /// A transaction with nothing in it but the beat, and now and then how far idle partitions are complete.
    async fn canary(&mut self, guard: &Guard) -> Result<Worked, StepError> {
        let refresh = self.refreshed.elapsed() >= REFRESH;
        // While the view is on hold the batch stays in hand, and the rows must not run ahead of it.
        let progress: BTreeMap<_, _> = match refresh {
            true => self.progress(true).into_iter().filter(|(p, _)| !self.is_taken(*p)).collect(),
            false => BTreeMap::new(),
        };
        let Some(session) = &mut self.session else { return Err(lost()) };
        let began = Instant::now();
        self.deps.facts.began(Stage::Commit, now());
        match session.commit(&self.config.names, guard, &progress, &mut self.view, &[]).await {
            Ok(()) => {
                self.note_commit(began, &progress, refresh);
                self.deps.metrics.canaries.inc();
                Ok(Worked::Canary)
            }
            Err(e) => self.tx_failed(e),
        }
    }

    fn is_taken(&self, partition: i32) -> bool {
        self.lanes.get(partition).is_some_and(|lane| lane.is_taken())
    }

    /// The rows to write: of partitions with records in the batch, and of others that are complete further than their rows say.
    fn progress(&self, refresh: bool) -> BTreeMap<i32, Progress> {
        let ends = self.deps.ends.borrow();
        let mut progress = BTreeMap::new();
        for (partition, lane) in self.lanes.iter() {
            let Some(next_offset) = lane.next() else { continue };
            let known = self.complete.get(&partition).copied();
            let finished = lane.position().is_none() && lane.fault().is_none() && !lane.is_paused();
            let caught_up = ends.get(&partition).filter(|end| finished || next_offset >= end.end);
            let reached = caught_up.map(|end| end.asked_ms).or_else(|| self.batch.last_ms(partition));
            let complete_until_ms = known.max(reached).unwrap_or(0);
            let news = known != Some(complete_until_ms) || lane.stored() != Some(next_offset);
            if lane.is_taken() || (refresh && news) {
                let stored = Stored { next_offset, complete_until_ms };
                progress.insert(partition, Progress { expected: lane.stored(), stored });
            }
        }
        progress
    }

    fn batch_stored(&mut self, began: Instant, progress: &BTreeMap<i32, Progress>, refresh: bool) {
        self.note_commit(began, progress, refresh);
        for partition in progress.keys() {
            if let Some(at) = self.batch.last_ms(*partition) {
                self.stored_ms.insert(*partition, at);
            }
        }
        self.deps.metrics.stored(self.batch.records(), self.batch.bytes());
        self.batch = Batch::default();
        self.view.committed();
        self.missed_table = false;
    }

    fn note_commit(&mut self, began: Instant, progress: &BTreeMap<i32, Progress>, refresh: bool) {
        let at = Instant::now();
        self.deps.facts.committed(at - began, at.into_std());
        self.deps.metrics.commit_seconds.observe((at - began).as_secs_f64());
        self.committed = at;
        if refresh {
            self.refreshed = at;
        }
        self.lanes.committed(progress.keys().copied());
        for (partition, progress) in progress {
            self.complete.insert(*partition, progress.stored.complete_until_ms);
        }
    }

    fn tx_failed(&mut self, error: TxError) -> Result<Worked, StepError> {
        match error {
            TxError::Fenced(fenced) => {
                self.deps.facts.idle();
                Ok(Worked::Fenced(fenced))
            }
            TxError::Diverged(diverged) => {
                tracing::warn!(%diverged, "what is stored is not what this process left");
                self.deps.facts.idle();
                Ok(Worked::Reload)
            }
            TxError::View(e) => self.view_failed(e),
            // Somebody holds the rows that decide: the server is well and so is the connection.
            TxError::Step(e) if e.is_lock() => {
                self.deps.facts.failed(&e, now());
                tracing::warn!(error = %e, "the rows that decide are locked");
                Ok(Worked::Canary)
            }
            TxError::Step(e) => Err(e),
        }
    }

    fn view_failed(&mut self, error: ViewError) -> Result<Worked, StepError> {
        self.deps.facts.idle();
        match error {
            ViewError::Step(e) if e.is_missing_table() && !self.missed_table => {
                tracing::warn!(error = %e, "a table is gone; the view looks anew");
                self.missed_table = true;
                self.view.route_changed();
                Ok(Worked::Canary)
            }
            ViewError::Step(e) if e.error == ProbeError::ReadOnly || !e.is_answer() => Err(e),
            ViewError::Reject { index, reason, detail } => {
                self.batch.reject(index, reason, detail);
                Ok(Worked::Canary)
            }
            other => {
                self.missed_table = false;
                Ok(Worked::Held(other.to_string()))
            }
        }
    }

    fn failed(&mut self, error: StepError) {
        tracing::warn!(%error, stage = ?error.stage, "cut off from the primary");
        self.deps.facts.failed(&error, now());
        self.deps.metrics.failures.inc();
        self.machine.failed(error);
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
        let at = now_ms();
        let partitions = self.lanes.iter().map(|(partition, lane)| {
            let (partition_state, said) = partition_state(&state, lane);
            let end = ends.get(&partition).map(|end| end.end.max(lane.next().unwrap_or(0)));
            let lag_records = lag_records(lane, end);
            let oldest = self.batch.first_ms(partition).or_else(|| self.stored_ms.get(&partition).copied());
            let age = oldest.filter(|_| lag_records > 0).map_or(0, |oldest| (at - oldest).max(0));
            Partition {
                partition,
                state: partition_state,
                next_offset: lane.stored(),
                end,
                lag_records,
                lag_seconds: age as f64 / 1000.0,
                complete_until_ms: self.complete.get(&partition).copied().unwrap_or(0),
                message: said,
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
