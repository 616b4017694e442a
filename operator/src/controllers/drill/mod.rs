//! Drill: rehearsals on a schedule. [`observe`], [`status`] and [`bounds`] are pure; [`strike`] hits and heals, [`finalizer`] holds a Drill that was
//! deleted meanwhile. I/O.
//!
//! A run is written to the status before anything is done, and the moment of a fault before the fault, each time over exactly the version that
//! was decided on. Before a run is begun and before each fault everything that other operators may have written is read past the caches, so two
//! runs of one Datastore see each other: whoever comes second gives way.

mod bounds;
mod finalizer;
mod observe;
mod status;
mod strike;
#[cfg(test)]
mod tests;
mod turns;

use std::sync::PoisonError;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, ResourceExt};
use understudy_api::v1alpha1::{DrillFault, DrillResult, DrillRun, DrillStatus, DrillVictim};
use understudy_api::{Drill, conditions};
use understudy_decide::drill::{DrillDecision, DrillSnapshot, Ending, Rule, plan, rules};

use self::turns::Turns;
use super::queue::{Again, Controller, Failure};
use crate::apply::ApplyError;
use crate::cache::{Held, Kind, Touched};
use crate::context::Context;
use crate::events::Reason;
use crate::lease::Tenure;

/// Whose turn it is, of all Drills of this process.
static TURNS: Turns = Turns::new();
/// Between two looks at a run that goes on.
const BUSY: Duration = Duration::from_secs(1);
/// The longest time between two looks at a Drill of which nothing is due.
const CALM: Duration = Duration::from_secs(300);
/// The shortest.
const BREATH: Duration = Duration::from_millis(100);
/// Before the next look when it is the turn of another Drill of the namespace.
const TURN_TAKEN: Duration = Duration::from_millis(250);
/// A failover that comes so soon after a run was ended is still its doing.
const AFTERWARDS: SignedDuration = SignedDuration::from_secs(120);

/// Which step of a pass failed.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
enum DrillError {
    #[error("drills of the namespace")]
    Look(#[source] ApplyError),
    #[error("status of the drill")]
    Status(#[source] ApplyError),
    #[error("finalizer of the drill")]
    Finalizer(#[source] ApplyError),
}

impl Failure for DrillError {
    fn label(&self) -> &'static str {
        self.into()
    }

    fn unwritten(&self) -> Option<&ApplyError> {
        let (Self::Look(error) | Self::Status(error) | Self::Finalizer(error)) = self;
        Some(error)
    }

    fn is_conflict(&self) -> bool {
        // Deleted while it was looked at.
        let gone = matches!(self, Self::Status(error) | Self::Finalizer(error) if error.is_not_found());
        gone || self.unwritten().is_some_and(ApplyError::is_conflict)
    }
}

/// Starts the controller.
pub fn start(context: &Context) {
    Controller { kind: Kind::Drill, cache: context.caches.drills.clone(), concerns, pass, leave }.start(context);
}

fn concerns(touched: &Touched, context: &Context) -> Vec<(String, String)> {
    match touched.kind {
        Kind::Drill if !touched.deleted => vec![(touched.namespace.clone(), touched.name.clone())],
        // What it allows may have changed.
        Kind::Datastore => {
            let drills = context.caches.drills.within(&touched.namespace);
            let its = drills.iter().filter(|drill| drill.spec.datastore.as_ref() == Some(&touched.name));
            its.map(|drill| (touched.namespace.clone(), drill.name_any())).collect()
        }
        _ => Vec::new(),
    }
}

fn pass(drill: Held<Drill>, context: &Context) -> BoxFuture<'_, Result<Again, DrillError>> {
    let awake = awake(context);
    async move { Pass { context, awake, turns: &TURNS }.run(&drill).await }.boxed()
}

/// A Drill that was deleted goes when its run has ended.
fn leave<'a>(meta: &'a ObjectMeta, context: &'a Context) -> BoxFuture<'a, Result<Again, DrillError>> {
    let awake = awake(context);
    async move {
        if !finalizer::is_held(meta) {
            return Ok(CALM);
        }
        let (namespace, name) =
            (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
        let its = |drill: &Held<Drill>| drill.metadata.uid == meta.uid;
        match context.caches.drills.get(namespace, name).filter(its) {
            Some(drill) => Pass { context, awake, turns: &TURNS }.run(&drill).await,
            // Whom it hit cannot be read any more. What is held ends by itself.
            None => finalizer::release(&context.applier, meta).await.map(|()| CALM).map_err(DrillError::Finalizer),
        }
    }
    .boxed()
}

/// For how long this instance has led.
fn awake(context: &Context) -> SignedDuration {
    /// Passes are only made while this instance leads.
    static TENURE: std::sync::Mutex<Option<Tenure>> = std::sync::Mutex::new(None);
    let mut tenure = TENURE.lock().unwrap_or_else(PoisonError::into_inner);
    let led = tenure.get_or_insert_with(|| Tenure::new(&context.leading)).so_far();
    drop(tenure);
    SignedDuration::try_from(led).unwrap_or(SignedDuration::MAX)
}

/// The Drill that hit this primary, if one did: its run goes on, or ended a moment ago.
pub fn rehearsing<'a>(
    drills: impl IntoIterator<Item = &'a Drill>,
    shard: &str,
    primary: &str,
    at: Timestamp,
) -> Option<String> {
    let lately =
        |run: &&DrillRun| run.finished_at.as_ref().is_none_or(|ended| at.duration_since(ended.0) <= AFTERWARDS);
    // What dies while it is switched over dies by itself.
    let is_real = |run: &&DrillRun| run.fault != DrillFault::Switchover;
    let hit = |run: &DrillRun| {
        let its = |victim: &DrillVictim| victim.shard == shard && victim.replica == primary;
        run.victims.iter().any(|victim| its(victim) && victim.struck_at.is_some() && victim.error.is_none())
    };
    // One that was skipped right after it may be the last.
    let runs = |drill: &'a Drill| drill.status.iter().flat_map(|status| status.last_run.iter().chain(&status.history));
    let mut its = drills.into_iter().filter(|drill| runs(drill).filter(lately).filter(is_real).any(hit));
    its.next().map(ResourceExt::name_any)
}

struct Pass<'a> {
    context: &'a Context,
    awake: SignedDuration,
    /// One begins a run, strikes or ends, the others come again: of two Drills that are due at once one begins.
    turns: &'a Turns,
}

impl Pass<'_> {
    async fn run(&self, drill: &Drill) -> Result<Again, DrillError> {
        let caches = &self.context.caches;
        let cached = caches.drills.within(&drill.namespace().unwrap_or_default());
        let seen = observe::snapshot(drill, cached.iter().map(|drill| &**drill), caches, self.awake);
        let now = Timestamp::now();
        if seen.leaving && seen.status.run.is_none() {
            return self.release(drill).await.map(|()| CALM);
        }
        let decision = plan(&seen, now);
        let may_be_of_before =
            matches!(decision, DrillDecision::Wait { .. } | DrillDecision::Skip { .. } | DrillDecision::GoOn { .. });
        if may_be_of_before {
            return self.carry_out(drill, &seen, &decision, now).await;
        }
        let Some(_turn) = self.turns.take(&drill.namespace().unwrap_or_default()) else { return Ok(TURN_TAKEN) };
        let live = self.live(drill).await?;
        let Some(drill) = live.iter().find(|other| other.metadata.uid == drill.metadata.uid) else { return Ok(CALM) };
        if !self.context.leading.is_leading() {
            return Ok(CALM);
        }
        let seen = observe::snapshot(drill, &live, caches, self.awake);
        if seen.leaving && seen.status.run.is_none() {
            return self.release(drill).await.map(|()| CALM);
        }
        let now = Timestamp::now();
        let decision = plan(&seen, now);
        self.carry_out(drill, &seen, &decision, now).await
    }

    /// Every Drill of the namespace that parses, past the cache.
    async fn live(&self, drill: &Drill) -> Result<Vec<Drill>, DrillError> {
        let applier = &self.context.applier;
        let namespace = drill.namespace().unwrap_or_default();
        let api: Api<DeserializeGuard<Drill>> = Api::namespaced(applier.client(), &namespace);
        let listed = applier.timed::<Drill, _>("list", &drill.name_any(), api.list(&ListParams::default())).await;
        let listed = listed.map_err(DrillError::Look)?;
        Ok(listed.items.into_iter().filter_map(|guarded| guarded.0.ok()).collect())
    }

    async fn carry_out(
        &self,
        drill: &Drill,
        seen: &DrillSnapshot,
        decision: &DrillDecision,
        now: Timestamp,
    ) -> Result<Again, DrillError> {
        let held = match decision {
            DrillDecision::Start { .. } => {
                Some(finalizer::hold(&self.context.applier, drill).await.map_err(DrillError::Finalizer)?)
            }
            _ => None,
        };
        let drill = held.as_ref().unwrap_or(drill);
        let written = self.write(drill, status::after(drill, seen, decision, now)).await?;
        self.say(drill, seen, decision);
        self.count(drill, decision);
        let status = || written.status.clone().unwrap_or_default();
        match (decision, &seen.status.run) {
            (DrillDecision::Strike(places), Some(run)) => {
                let errors = strike::strike(drill, run, places, self.context).await;
                if !errors.is_empty() {
                    self.write(&written, status::with_errors(status(), &errors)).await?;
                }
            }
            (DrillDecision::LetGo { places, .. }, Some(run)) => {
                let released = strike::heal(drill, run, places, self.context).await;
                if !released.is_empty() {
                    self.write(&written, status::with_released(status(), &released, Timestamp::now())).await?;
                }
            }
            _ if observe::under_way(&written).is_none() => self.release(&written).await?,
            _ => {}
        }
        Ok(again(decision, now))
    }

    /// Nothing holds it any more.
    async fn release(&self, drill: &Drill) -> Result<(), DrillError> {
        if !finalizer::is_held(&drill.metadata) {
            return Ok(());
        }
        finalizer::release(&self.context.applier, &drill.metadata).await.map_err(DrillError::Finalizer)
    }

    /// Over exactly this version, and only when something changed.
    async fn write(&self, drill: &Drill, status: DrillStatus) -> Result<Drill, DrillError> {
        if drill.status.as_ref() == Some(&status) {
            return Ok(drill.clone());
        }
        let wanted = Drill { status: Some(status), ..drill.clone() };
        self.context.applier.replace_status(&wanted).await.map_err(DrillError::Status)
    }

    fn count(&self, drill: &Drill, decision: &DrillDecision) {
        let result = match decision {
            DrillDecision::Skip { .. } => DrillResult::Skipped,
            DrillDecision::Finish(report) => status::result(report.end.ending),
            _ => return,
        };
        self.context.metrics.drills.ended(&drill.namespace().unwrap_or_default(), &drill.name_any(), result);
    }

    fn say(&self, drill: &Drill, seen: &DrillSnapshot, decision: &DrillDecision) {
        let events = &self.context.events;
        match decision {
            DrillDecision::Wait { .. } => {
                let conditions = drill.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
                let said = conditions.iter().find(|condition| condition.type_ == conditions::READY);
                let news = rules::standing(seen).filter(|why| {
                    let rule: &'static str = why.rule.into();
                    why.rule != Rule::Suspended && said.is_none_or(|said| said.reason != rule)
                });
                if let Some(why) = news {
                    events.say(drill, Reason::DrillRefused, format!("{}: {}", why.rule, why.message));
                }
            }
            DrillDecision::Skip { due, why } => {
                let reason = match why.rule {
                    Rule::NotAllowed | Rule::NotEquipped | Rule::Absent | Rule::ScheduleUnusable => {
                        Reason::DrillRefused
                    }
                    _ => Reason::DrillSkipped,
                };
                let run = due.run_of(&seen.name);
                events.say(drill, reason, format!("{run} is not begun: {}: {}", why.rule, why.message));
            }
            DrillDecision::Start { run, .. } => {
                let (what, whom) = (run.exercise.name(), observe::words(&run.victims));
                events.say(drill, Reason::DrillStarted, format!("{} begins: {what} of {whom}", run.id));
            }
            DrillDecision::Strike(places) => {
                let Some(run) = &seen.status.run else { return };
                for victim in places.iter().filter_map(|place| run.victims.get(*place)) {
                    let (drill_name, what) = (drill.name_any(), run.exercise.name());
                    let note =
                        format!("{what} of {} of {}, a rehearsal by Drill {drill_name}", victim.replica, victim.shard);
                    events.say(drill, Reason::DrillStruck, note.clone());
                    let namespace = drill.namespace().unwrap_or_default();
                    if let Some(shard) = self.context.caches.shards.get(&namespace, victim.shard.as_str()) {
                        events.say(&*shard, Reason::DrillStruck, note);
                    }
                }
            }
            DrillDecision::GoOn { .. } | DrillDecision::LetGo { .. } => {}
            DrillDecision::Finish(report) => {
                let reason = match report.end.ending {
                    Ending::Succeeded => Reason::DrillSucceeded,
                    Ending::Aborted => Reason::DrillAborted,
                    Ending::Failed => Reason::DrillFailed,
                };
                let longest = report.gaps.iter().filter_map(|gap| gap.seconds).reduce(f64::max);
                let gap = longest.map_or_else(String::new, |seconds| format!("; longest write gap {seconds:.1} s"));
                events.say(drill, reason, format!("{}{gap}", report.end.message));
            }
        }
    }
}

fn again(decision: &DrillDecision, now: Timestamp) -> Again {
    match decision {
        DrillDecision::Wait { until, .. } => {
            let left = until.map(|until| Duration::try_from(until.duration_since(now)).unwrap_or_default());
            left.map_or(CALM, |left| left.clamp(BREATH, CALM))
        }
        DrillDecision::Start { .. } => BREATH,
        // What is due next may be a moment away.
        DrillDecision::Skip { .. } | DrillDecision::Finish(_) => BUSY,
        DrillDecision::Strike(_) | DrillDecision::GoOn { .. } | DrillDecision::LetGo { .. } => BUSY,
    }
}
