//! The loop of one shard: observe, decide, act, report. I/O.
//!
//! It looks again when somebody says something new, when an object of the shard changes, and several times a second
//! anyway. In a steady state a pass makes no call to the API server. A stage waits for nobody but the API server, each call
//! within its deadline, and holds up no other shard. While the primary is being changed only the calls of the change itself are made.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{Resource, ResourceExt};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use understudy_api::Shard;
use understudy_decide::failover::record::{Milestone, RecordUpdate};
use understudy_decide::failover::snapshot::{Link, OrderOutcome, Snapshot};
use understudy_decide::{Decision, Order, Step, plan};
use understudy_wire::ReplicaName;
use understudy_wire::evidence::Millis;

use super::act::{ActError, Taken};
use super::build;
use super::company::{Company, Standing};
use super::gap::GapWatch;
use super::kafka_log::KafkaLog;
use super::memory::Remembered;
use super::observe::{Beside, Objects, snapshot};
use super::obstacles::{self, Obstacle, Refusals};
use super::orders::{Orders, is_news};
use super::overlay::Overlay;
use super::report::Reporter;
use super::showing::Showing;
use crate::apply::ApplyError;
use crate::context::Context;
use crate::controllers::failover::{Job, Registrar};
use crate::controllers::queue::chain;
use crate::events::Reason;
use crate::evidence::{Heard, Observers, OwnObserver, Pulse, StackTaker};
use crate::farewell;
use crate::metrics::{OfKind, Outcome};
use crate::troubles::Trouble;

/// The longest time between two looks.
const TICK: Duration = Duration::from_millis(200);
/// Passes are not closer together than this, however much there is to hear.
const TOGETHER: Duration = Duration::from_millis(5);
/// Between two looks at a Shard that was deleted.
const LEAVING: Duration = Duration::from_secs(2);
/// After a write that failed.
const BREATH: Duration = Duration::from_millis(250);
/// Between a stage that panicked and the one after it.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// What a stage shares with the others.
#[derive(Clone)]
pub struct Shared {
    /// The handles of the operator.
    pub context: Context,
    /// How the process is doing.
    pub pulse: Pulse,
    /// What the other shards look like.
    pub company: Company,
    /// Writes records.
    pub registrar: Registrar,
}

/// One shard's stage.
pub struct Stage {
    pub(super) context: Context,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) shard: Option<Shard>,
    pub(super) overlay: Overlay,
    pub(super) own: OwnObserver,
    pub(super) reporter: Reporter,
    pub(super) showing: Showing,
    shared: Shared,
    news: Arc<Notify>,
    observers: Observers,
    orders: Orders,
    memory: Remembered,
    gaps: GapWatch,
    refusals: Refusals,
    log: KafkaLog,
    stacks: StackTaker,
}

/// When to look again.
enum Again {
    AtOnce,
    After(Duration),
    Never,
}

/// Runs one stage of a shard after the other until one ends by itself. After one that panicked another begins, with nothing known, though
/// nobody changes the Shard.
pub async fn keep_on<F: Future<Output = ()>>(shard: &str, stop: &CancellationToken, stage: impl Fn() -> F) {
    loop {
        // Nothing of a stage that panicked is used again.
        let run = AssertUnwindSafe(async { stage().await }).catch_unwind();
        if run.await.is_ok() {
            return;
        }
        tracing::error!(shard, "the stage panicked, and another begins after {AFTER_PANIC:?}");
        if stop.run_until_cancelled(tokio::time::sleep(AFTER_PANIC)).await.is_none() {
            return;
        }
    }
}

/// Also when it panics: what was told of the shard last must not stand for ever.
impl Drop for Stage {
    fn drop(&mut self) {
        self.exit();
    }
}

impl Stage {
    /// Nothing known yet. `news` is told by whoever watches the caches.
    pub fn new(shared: &Shared, namespace: &str, name: &str, news: Arc<Notify>) -> Self {
        let context = shared.context.clone();
        Self {
            own: OwnObserver::new(&context, namespace, name, shared.pulse.clone(), news.clone()),
            observers: Observers::new(context.identity.clone(), news.clone()),
            orders: Orders::new(context.identity.clone(), news.clone(), context.tasks.clone()),
            stacks: StackTaker::new(context.identity.clone(), news.clone()),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            shard: None,
            overlay: Overlay::default(),
            reporter: Reporter::default(),
            showing: Showing::default(),
            memory: Remembered::default(),
            gaps: GapWatch::default(),
            refusals: Refusals::default(),
            log: KafkaLog::default(),
            shared: shared.clone(),
            context,
            news,
        }
    }

    /// Runs until stopped, or until the Shard is gone.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let again = match stop.run_until_cancelled(self.pass()).await {
                None | Some(Again::Never) => break,
                Some(Again::AtOnce) => TOGETHER,
                Some(Again::After(pause)) => {
                    let news = tokio::time::timeout(pause, self.news.notified());
                    match stop.run_until_cancelled(news).await {
                        None => break,
                        Some(_) => TOGETHER,
                    }
                }
            };
            if stop.run_until_cancelled(tokio::time::sleep(again)).await.is_none() {
                break;
            }
        }
    }

    async fn pass(&mut self) -> Again {
        let started = Instant::now();
        let shards = &self.context.caches.shards;
        if let Some(uid) = shards.leaving(&self.namespace, &self.name) {
            return self.leave(&uid).await;
        }
        let shown = self.showing.written(&self.name);
        self.take_in(shown);
        let Some(shard) = self.shard.clone() else { return Again::Never };
        let objects = self.objects(shard, started);
        let snapshot = self.observe(&objects, started);
        let decision = plan(&snapshot);
        self.memory.concluded(&snapshot, &decision.assessment, started);
        self.shared.company.stand(&self.namespace, &self.name, Standing::of(&snapshot, &decision), started);
        if !self.context.leading.is_leading() {
            return Again::After(TICK);
        }
        if let Err(error) = self.hold().await {
            tracing::warn!(shard = self.name, error = %chain(&error), "finalizer not set");
            return Again::After(BREATH);
        }
        let office = snapshot.status.primary.as_ref().filter(|_| snapshot.status.transition.is_none());
        let gap = self.gaps.see(office.map(|primary| (primary, snapshot.status.epoch)), &snapshot.reports, started);
        self.reporter.prepare(&snapshot, &decision, &objects, gap);
        self.context.metrics.shards.tell(&self.namespace, &self.name, self.reporter.measures());
        self.reporter.say(&self.context.events, &objects, &snapshot, &decision);
        self.stacks.look(&snapshot, decision.assessment.verdict, |replica| objects.manager(replica));
        self.carry_out(&decision, &snapshot, &objects, started).await
    }

    /// Takes the steps, and shows what came of them.
    async fn carry_out(
        &mut self,
        decision: &Decision,
        snapshot: &Snapshot,
        objects: &Objects,
        started: Instant,
    ) -> Again {
        let outcome = self.act(decision, snapshot, objects).await;
        self.count(started, outcome);
        match outcome {
            Acted::Failed | Acted::Refused => {
                // What is refused for good must be seen, though nothing goes on. But a write of the status that is begun here may come
                // before the next try of a claim, which then finds another version; and so at every try, if writes take long.
                let is_awaited =
                    outcome == Acted::Failed && decision.steps.iter().any(|s| s.is_irreversible() && !s.can_wait());
                if !objects.obstacles.is_empty() && !snapshot.is_changing_primary() && !is_awaited {
                    self.report(objects);
                }
                return Again::After(BREATH);
            }
            Acted::Changed | Acted::Nothing => self.record(decision, snapshot, objects, started),
        }
        if outcome == Acted::Changed {
            return Again::AtOnce;
        }
        let again = Again::After(TICK.min(Duration::from_millis(decision.requeue)));
        // The claim has shown what is under way, and what becomes of it is shown when it is published.
        if !snapshot.is_changing_primary() {
            self.report(objects);
        }
        again
    }

    /// The shard counts no more, and is not told of.
    fn exit(&self) {
        self.shared.company.leave(&self.namespace, &self.name);
        self.context.metrics.shards.forget(&self.namespace, &self.name);
    }

    /// Before anything is made: what is made must not outlive the Shard by accident.
    async fn hold(&mut self) -> Result<(), ApplyError> {
        let Some(shard) = &self.shard else { return Ok(()) };
        if let Some(held) = farewell::hold(&self.context.applier, shard).await? {
            self.overlay.wrote_shard(held.clone());
            self.shard = Some(held);
        }
        Ok(())
    }

    /// The Shard was deleted: its volumes go or stay, and then it goes. Also while it is paused, as nobody could delete it else.
    async fn leave(&mut self, uid: &str) -> Again {
        self.exit();
        if !self.context.leading.is_leading() {
            return Again::After(LEAVING);
        }
        let context = &self.context;
        let farewell = farewell::of_shard(&context.applier, &context.events, &self.namespace, &self.name, uid);
        match farewell.await {
            Ok(()) => Again::After(LEAVING),
            Err(error) if error.is_conflict() => Again::After(BREATH),
            Err(error) => {
                let note = format!("the Shard is not let go yet: {}", chain(&error));
                let about = ObjectReference {
                    api_version: Some(Shard::api_version(&()).into_owned()),
                    kind: Some(Shard::kind(&()).into_owned()),
                    namespace: Some(self.namespace.clone()),
                    name: Some(self.name.clone()),
                    uid: Some(uid.to_owned()),
                    ..ObjectReference::default()
                };
                context.events.say_on(about, Reason::ReconcileFailed, note);
                Again::After(LEAVING)
            }
        }
    }

    fn objects(&mut self, shard: Shard, now: Instant) -> Objects {
        let mut cached = self.context.caches.replicas.within(&self.namespace);
        cached.retain(|replica| replica.spec.shard == self.name);
        let replicas = self.overlay.replicas(cached, now);
        let mut objects = Objects::read(&self.context.caches, shard, replicas, |uid| self.overlay.is_gone(uid));
        let around = self.context.troubles.get(&self.namespace, &self.name);
        objects.obstacles = around.into_iter().map(|trouble| Obstacle { replica: None, trouble }).collect();
        objects.obstacles.extend(self.refusals.all().cloned());
        objects.obstacles.extend(obstacles::of_pods(&objects.pods, &objects.claims));
        objects.fingerprint = build::fingerprint(&objects.shard, &build::Surroundings::of(&self.context));
        objects
    }

    /// Hears everybody and takes one snapshot.
    fn observe(&mut self, objects: &Objects, now: Instant) -> Snapshot {
        let names: BTreeSet<_> = objects.replicas.iter().map(ResourceExt::name_any).collect();
        self.observers.dial(&objects.endpoints(), |name| names.contains(name));
        self.own.look_at(objects.subject(), objects.pace(), self.context.leading.is_leading());
        for answer in self.orders.answered() {
            self.memory.answered(answer);
        }
        self.orders.forget(|replica| names.contains(replica.as_str()));
        self.memory.forget(|replica| names.contains(replica.as_str()));
        let mut heard = self.observers.heard();
        let own = Heard { report: Arc::new(self.own.report(now)), at: now };
        heard.push((self.context.settings.pod.clone(), own));
        self.log.hear(&heard);
        let link = |name: &String| {
            let replica = ReplicaName::new(name);
            let session = self.observers.session(name);
            let link = Link { connected: session.is_some(), peers: self.memory.peers(&replica, session) };
            (replica, link)
        };
        let reprobed = self.own.reprobed();
        let beside = |memory| Beside {
            links: names.iter().map(link).collect(),
            log: self.log.earliest(),
            fleet: self.shared.company.fleet(now),
            own_node: self.context.settings.node.clone(),
            heard,
            memory,
        };
        let mut snapshot = snapshot(objects, beside(Default::default()), now, Timestamp::now());
        self.memory.note(&snapshot.status, &snapshot.reports, now);
        snapshot.memory = self.memory.facts(&self.shared.pulse, reprobed.as_ref(), now);
        snapshot.memory.held_back = self.refusals.held_back(now);
        snapshot
    }

    async fn act(&mut self, decision: &Decision, snapshot: &Snapshot, objects: &Objects) -> Acted {
        let mut acted = Acted::Nothing;
        // What is to be made is not asked for during a change of primary, and no easier to make after it.
        if snapshot.status.transition.is_none() {
            self.refusals.keep(decision.steps.iter().chain(&decision.held));
        }
        for step in &decision.steps {
            if !self.context.leading.is_leading() {
                return Acted::Nothing;
            }
            let begun = Instant::now();
            match self.take(step, snapshot, objects).await {
                Ok(Taken::Done) => {
                    self.refusals.taken(step);
                    if !matches!(step, Step::Order { .. } | Step::Label { .. }) {
                        let took = begun.elapsed();
                        tracing::info!(shard = self.name, namespace = self.namespace, ?step, ?took, "done");
                        acted = Acted::Changed;
                    }
                }
                Ok(Taken::Void) if step.is_irreversible() => {
                    // The next pass may want it again, and goes on with the rest meanwhile.
                    self.refusals.note(step, None, Instant::now());
                    return Acted::Failed;
                }
                Ok(Taken::Void) => {}
                Err(error) => {
                    let conflict = error.is_conflict();
                    let refused = error.trouble().is_some();
                    // After a conflict the next pass knows better.
                    if !conflict {
                        let trouble = error.trouble().or_else(|| self.repeated(step, &error));
                        self.refusals.note(step, trouble, Instant::now());
                    }
                    tracing::warn!(shard = self.name, ?step, conflict, error = %chain(&error), "step not taken");
                    // One call that takes long is enough for a pass.
                    if step.is_irreversible() || matches!(error, ActError::Slow) {
                        return if refused { Acted::Refused } else { Acted::Failed };
                    }
                }
            }
        }
        acted
    }

    /// What passes by itself is worth a word when it happens again.
    fn repeated(&self, step: &Step, error: &ActError) -> Option<Trouble> {
        let message = format!("{}: {}", step.subject(), chain(error));
        self.refusals.again(step).then_some(Trouble { reason: Reason::ReconcileFailed, message })
    }

    /// Sends an order on its way.
    pub(super) fn give(&mut self, replica: &ReplicaName, order: &Order, seen: &Snapshot, objects: &Objects) -> Taken {
        let (kind, epoch) = (order.kind(), order.epoch());
        let number = self.memory.sent(replica, kind, epoch, Instant::now());
        let Some(to) = objects.manager(replica.as_str()) else {
            let outcome = OrderOutcome::Failed("its manager has no address".into());
            self.memory.answered(super::memory::Answer {
                replica: replica.clone(),
                kind,
                number,
                outcome,
                peers: None,
            });
            return Taken::Done;
        };
        if is_news(kind) {
            tracing::info!(shard = self.name, namespace = self.namespace, %replica, ?order, "order");
        }
        let session = self.observers.session(replica.as_str());
        self.orders.send(to, replica, order.clone(), number, session, &seen.policy.thresholds);
        Taken::Done
    }

    fn record(&mut self, decision: &Decision, snapshot: &Snapshot, objects: &Objects, started: Instant) {
        let Some(shard) = &self.shard else { return };
        for update in &decision.records {
            let mut measured = self.reporter.measured(update, snapshot, objects);
            measured.stacks = update.from.as_ref().and_then(|from| self.stacks.of(from));
            let (update, at) = told_when_routed(update.clone(), snapshot.now, started.elapsed());
            let job = Job { shard: shard.clone(), update, at, measured };
            self.shared.registrar.note(job);
        }
    }

    fn count(&self, started: Instant, acted: Acted) {
        let metrics = &self.context.metrics;
        let outcome = match acted {
            Acted::Failed | Acted::Refused => "failed",
            Acted::Changed => "acted",
            Acted::Nothing => "ok",
        };
        metrics.reconciles.get_or_create(&Outcome { kind: "Shard", outcome }).inc();
        metrics.reconcile_seconds.get_or_create(&OfKind { kind: "Shard" }).observe(started.elapsed().as_secs_f64());
    }
}

/// The route points at the new primary once that is written, and not already when it is decided: the write is a part of the gap. What came
/// before it stays where it was.
fn told_when_routed(mut update: RecordUpdate, decided: Timestamp, passed: Duration) -> (RecordUpdate, Timestamp) {
    if !update.entries.iter().any(|entry| entry.step == Milestone::Routed && entry.ago == 0) {
        return (update, decided);
    }
    let passed = Millis::try_from(passed.as_millis()).unwrap_or(Millis::MAX);
    for entry in update.entries.iter_mut().filter(|entry| entry.step != Milestone::Routed) {
        entry.ago = entry.ago.saturating_add(passed);
    }
    let passed = SignedDuration::from_millis(i64::try_from(passed).unwrap_or(i64::MAX));
    (update, decided.checked_add(passed).unwrap_or(decided))
}

/// What came of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Acted {
    /// Nothing was to be done.
    Nothing,
    /// Something was; look again at once.
    Changed,
    /// Something could not be done now.
    Failed,
    /// Something could not be done, and will not be until somebody changes something.
    Refused,
}
