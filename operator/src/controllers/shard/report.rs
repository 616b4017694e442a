//! What is said about a shard: its status, its replicas' statuses, events. Pure; [`super::showing`] writes it.
//!
//! Written on change only. Numbers that change with every commit are written along with the next real change, or when they
//! are old; a shard at work costs no write a second.

mod accounts;
mod measures;
mod observers;
mod replica;
mod suspicion;
#[cfg(test)]
mod tests;
mod withheld;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use understudy_api::conditions;
use understudy_api::v1alpha1::{RebuildNote, ReplicaStatus, Role, ShardStatus, Verdict, VerdictState};
use understudy_api::{Replica, Shard};
use understudy_decide::Decision;
use understudy_decide::failover::record::{Phase as RecordPhase, RecordUpdate};
use understudy_decide::failover::snapshot::Snapshot;
use understudy_wire::Epoch;

use super::claims::claims;
use super::gap::Gap;
use super::notes::Noted;
use super::observe::Objects;
use super::obstacles::Seen;
use super::overlay::is_newer;
use super::rolled::Rolled;
use super::showing::{Changed, Shown};
use super::stage::Stage;
use crate::events::{Events, Reason};
use crate::metrics::shards::ShardFacts;
use crate::troubles::Trouble;

/// Numbers that always move are written again after this time.
const STALE: Duration = Duration::from_secs(300);
/// What is said of a primary that is not well is said anew this often.
const WORDS: SignedDuration = SignedDuration::from_secs(30);
/// Progress of a build is shown this often.
const PROGRESS: Duration = Duration::from_secs(5);

/// What was said last, and what is to be said next.
#[derive(Default)]
pub struct Reporter {
    next: Option<ShardStatus>,
    replicas: BTreeMap<String, ReplicaStatus>,
    noted: Noted,
    obstacles: Seen,
    verdict: Option<(&'static str, Option<String>)>,
    worded: Option<Timestamp>,
    observed: observers::Observed,
    withholding: withheld::Withholding,
    suspicions: suspicion::Suspicions,
    measures: ShardFacts,
    /// How often each event was said, by its reason.
    said: BTreeMap<&'static str, u32>,
    written: Option<Instant>,
    replica_written: HashMap<String, Instant>,
    gaps: BTreeMap<Epoch, Duration>,
}

impl Reporter {
    /// Works out what the status should show.
    pub fn prepare(&mut self, snapshot: &Snapshot, decision: &Decision, objects: &Objects, gap: Option<Gap>) {
        if let Some(gap) = gap {
            self.gaps.insert(gap.epoch, gap.length);
            while self.gaps.len() > 8 {
                self.gaps.pop_first();
            }
        }
        let present = objects.shard.status.clone().unwrap_or_default();
        let next = self.shard_status(present, snapshot, decision, objects);
        let status = |of: &Replica| {
            let name = of.name_any();
            let view = decision.view.replicas.iter().find(|view| view.name.as_str() == name);
            (name, replica::status(of, view, next.verdict.as_ref(), snapshot, objects))
        };
        self.replicas = objects.replicas.iter().map(status).collect();
        self.measures = measures::of(&next, snapshot, decision, objects, &self.said);
        self.next = Some(next);
    }

    /// What the metrics should tell.
    pub fn measures(&self) -> ShardFacts {
        self.measures.clone()
    }

    /// The objects that are to be written, as they are now but for their status.
    fn changed(&mut self, shard: Option<&Shard>, replicas: &[Replica], now: Instant) -> Changed {
        let names: Vec<_> = replicas.iter().map(ResourceExt::name_any).collect();
        self.replica_written.retain(|name, _| names.contains(name));
        let mut changed = Changed::default();
        if let (Some(shard), Some(next)) = (shard, &self.next) {
            let present = shard.status.clone().unwrap_or_default();
            let old = self.written.is_none_or(|at| now.duration_since(at) >= STALE);
            if gist(next) != gist(&present) || (old && *next != present) {
                let mut shard = shard.clone();
                self.show(shard.status.get_or_insert_default());
                changed.shard = Some(shard);
            }
        }
        for replica in replicas {
            let name = replica.name_any();
            let Some(next) = self.replicas.get(&name) else { continue };
            let present = replica.status.clone().unwrap_or_default();
            let stale = if next.rebuild.is_some() { PROGRESS } else { STALE };
            let old = self.replica_written.get(&name).is_none_or(|at| now.duration_since(*at) >= stale);
            if replica::gist(next) != replica::gist(&present) || (old && *next != present) {
                changed.replicas.push(Replica { status: Some(next.clone()), ..replica.clone() });
            }
        }
        changed
    }

    /// Puts what is to be shown into a status that is written for another reason.
    pub fn show(&self, status: &mut ShardStatus) {
        let Some(next) = &self.next else { return };
        let ShardStatus {
            observed_generation,
            verdict,
            observers,
            doing,
            withheld,
            last_suspicion,
            replicas,
            ready,
            ready_replicas,
            up_to_date,
            promotable,
            lag,
            lag_seconds,
            availability,
            availability_ledger,
            conditions,
            ..
        } = next.clone();
        status.observed_generation = observed_generation;
        status.verdict = verdict;
        status.observers = observers;
        status.doing = doing;
        status.withheld = withheld;
        status.last_suspicion = last_suspicion;
        status.replicas = replicas;
        status.ready = ready;
        status.ready_replicas = ready_replicas;
        status.up_to_date = up_to_date;
        status.promotable = promotable;
        status.lag = lag;
        status.lag_seconds = lag_seconds;
        status.availability = availability;
        status.availability_ledger = availability_ledger;
        status.conditions = conditions;
        if let (Some(last), Some(measured)) = (&mut status.last_failover, &next.last_failover)
            && last.name == measured.name
            && last.epoch == measured.epoch
        {
            last.gap_seconds = measured.gap_seconds;
            last.gap.clone_from(&measured.gap);
        }
    }

    fn shard_status(&mut self, mut status: ShardStatus, s: &Snapshot, d: &Decision, objects: &Objects) -> ShardStatus {
        let generation = objects.shard.metadata.generation;
        status.observed_generation = generation;
        let is_stale = self.worded.is_none_or(|at| s.now.duration_since(at) >= WORDS);
        let next = verdict(&status, s, d, is_stale);
        status.observers = self.observed.show(&status.observers, s, &next, is_stale);
        let before = status.verdict.replace(next);
        let message = |verdict: &Option<Verdict>| verdict.as_ref().and_then(|verdict| verdict.message.clone());
        if is_stale || message(&status.verdict) != message(&before) {
            self.worded = Some(s.now);
        }
        accounts::show(&mut status, before.as_ref(), objects, s.now);
        status.doing.clone_from(&d.view.doing);
        status.withheld = self.withholding.show(&status.withheld, &d.notes, s.now);
        status.last_suspicion = self.suspicions.show(status.last_suspicion.take(), s);
        status.replicas = objects.replicas.iter().filter_map(|of| replica::summary(of, s, d, objects)).collect();
        status.ready = Some(format!("{}/{}", d.view.ready, s.policy.replicas));
        status.ready_replicas = i32::try_from(d.view.ready).unwrap_or(i32::MAX);
        status.up_to_date = Some(Rolled::of(objects).text());
        status.promotable = i32::try_from(d.view.promotable).unwrap_or(i32::MAX);
        let best = status.replicas.iter().filter(|r| r.role == Role::Standby).filter_map(|r| r.delay_seconds);
        status.lag_seconds = best.min_by(f64::total_cmp);
        status.lag = status.lag_seconds.map(|lag| format!("{lag:.0}s"));
        let gap = status
            .last_failover
            .as_ref()
            .and_then(|last| self.gaps.get(&Epoch(u64::try_from(last.epoch).unwrap_or(0))));
        if let (Some(gap), Some(last)) = (gap, &mut status.last_failover) {
            last.gap_seconds = Some(tenths(gap.as_secs_f64()));
            last.gap = Some(format!("{:.1}s", gap.as_secs_f64()));
        }
        for claim in claims(s, d, objects) {
            conditions::set(&mut status.conditions, claim, generation, &Time(s.now));
        }
        status
    }

    /// Makes events of what holds now and did not before.
    pub fn say(&mut self, events: &Events, objects: &Objects, s: &Snapshot, d: &Decision) {
        let shard = &objects.shard;
        let verdict = shown(s, d);
        let verdict = (verdict.state(), verdict.cause().map(|cause| cause.to_string()));
        if s.status.primary.is_some() && self.verdict.as_ref() != Some(&verdict) {
            if self.verdict.is_some() {
                let cause = verdict.1.as_ref().map(|cause| format!(" ({cause})")).unwrap_or_default();
                events.say(shard, Reason::VerdictChanged, format!("{}{cause}: {}", verdict.0, d.assessment.message()));
            }
            self.verdict = Some(verdict);
        }
        for (reason, message) in self.noted.news(&d.notes, Instant::now()) {
            *self.said.entry(reason.into()).or_default() += 1;
            events.say(shard, reason, message);
        }
        for obstacle in self.obstacles.news(&objects.obstacles) {
            let Trouble { reason, message } = &obstacle.trouble;
            events.say(shard, *reason, message.as_str());
            let its = |found: &&Replica| obstacle.replica.as_deref() == Some(found.name_any().as_str());
            if let Some(replica) = objects.replicas.iter().find(its) {
                events.say(replica, *reason, message.as_str());
            }
        }
    }

    /// What was measured of the change that this update belongs to.
    pub fn measured(&self, update: &RecordUpdate, s: &Snapshot, objects: &Objects) -> super::super::failover::Measured {
        let write_gap = self.gaps.get(&update.epoch).map(|gap| tenths(gap.as_secs_f64() * 100.0) / 100.0);
        let from = update.from.as_ref().filter(|_| update.phase == RecordPhase::Closed);
        let successor = from.and_then(|from| {
            objects.replicas.iter().find(|replica| replica.spec.origin.replaces.as_deref() == Some(from.as_str()))
        });
        let rebuild = successor.map(|replica| {
            RebuildNote {
                replica: Some(replica.name_any()),
                started_at: replica.creation_timestamp().map(|time| MicroTime(time.0)),
                finished_at: Some(MicroTime(s.now)),
                // The record knows when it was lost.
                seconds: None,
            }
        });
        super::super::failover::Measured { write_gap, rebuild, stacks: None }
    }
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// A primary that was slow a moment ago is shown as slow. Where a commit takes about as long as makes it so, the verdict is another one with
/// every report.
fn shown(s: &Snapshot, d: &Decision) -> understudy_decide::Verdict {
    match d.assessment.verdict {
        understudy_decide::Verdict::Healthy if s.memory.past.was_slow => understudy_decide::Verdict::Slow,
        verdict => verdict,
    }
}

fn verdict(present: &ShardStatus, s: &Snapshot, d: &Decision, is_stale: bool) -> Verdict {
    let verdict = shown(s, d);
    let state = match verdict {
        understudy_decide::Verdict::Healthy => VerdictState::Healthy,
        understudy_decide::Verdict::Slow => VerdictState::Slow,
        understudy_decide::Verdict::Saturated => VerdictState::Saturated,
        understudy_decide::Verdict::Suspect(_) => VerdictState::Suspect,
        understudy_decide::Verdict::Stuck(_) => VerdictState::Stuck,
        understudy_decide::Verdict::Gone(_) => VerdictState::Gone,
        understudy_decide::Verdict::ObserverPartition => VerdictState::ObserverPartition,
        understudy_decide::Verdict::Unknown => VerdictState::Unknown,
    };
    let cause = verdict.cause().map(|cause| cause.to_string());
    let same = present.verdict.as_ref().filter(|before| before.state == state && before.cause == cause);
    let calm = matches!(state, VerdictState::Healthy | VerdictState::Slow);
    Verdict {
        state,
        cause,
        since: same.and_then(|before| before.since.clone()).or(Some(Time(s.now))),
        // The words change with every pass.
        message: match same.filter(|_| !is_stale) {
            Some(before) => before.message.clone(),
            None => (!calm && s.status.primary.is_some()).then(|| d.assessment.message()),
        },
    }
}

/// Without what changes with every commit.
fn gist(status: &ShardStatus) -> ShardStatus {
    let mut gist = status.clone();
    gist.lag = None;
    gist.lag_seconds = None;
    // While writes are not taken it grows all the time; the ledger changes when something is taken over.
    gist.availability = None;
    for replica in &mut gist.replicas {
        replica.executed_gtid = None;
        replica.delay_seconds = None;
    }
    gist
}

impl Stage {
    /// Starts writing what changed, unless something is on its way already.
    pub(super) fn report(&mut self, objects: &Objects) {
        if !self.showing.is_busy() {
            let changed = self.reporter.changed(self.shard.as_ref(), &objects.replicas, Instant::now());
            self.showing.start(self.context.applier.clone(), changed);
        }
    }

    /// Takes in what was written, and the Shard as it is since.
    pub(super) fn take_in(&mut self, shown: Vec<Shown>) {
        self.note_shown(shown);
        self.shard = self.overlay.shard(self.context.caches.shards.get(&self.namespace, &self.name));
    }

    /// The same between a decision and its step. The Shard goes on only by what was written here: the step names the version that was
    /// decided on, and what others wrote since is for the next pass.
    pub(super) fn take_in_own(&mut self, shown: Vec<Shown>) {
        for shown in &shown {
            if let Shown::Shard(written) = shown
                && self.shard.as_ref().is_some_and(|seen| is_newer(written, seen))
            {
                self.shard = Some(written.clone());
            }
        }
        self.note_shown(shown);
    }

    fn note_shown(&mut self, shown: Vec<Shown>) {
        let now = Instant::now();
        for shown in shown {
            match shown {
                Shown::Shard(written) => {
                    self.reporter.written = Some(now);
                    self.overlay.wrote_shard(written);
                }
                Shown::ShardOfOthers(found) => self.overlay.wrote_shard(found),
                Shown::Replica(written) => {
                    self.reporter.replica_written.insert(written.name_any(), now);
                    self.overlay.wrote_replica(written, now);
                }
            }
        }
    }
}
