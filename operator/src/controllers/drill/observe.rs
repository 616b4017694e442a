//! What is known of a Drill, from the caches. Pure: it reads and writes nothing else.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::civil::{Time, Weekday};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use understudy_api::v1alpha1::{
    DrillDay, DrillFault, DrillPermission, DrillResult, DrillRun, DrillScope, DrillScopeKind, DrillStatus, DrillVictim,
    DrillWindow, FailoverMode, FailoverPhase, FailoverResult, RealFault, VerdictState,
};
use understudy_api::{Datastore, Drill, Failover, Shard, conditions, names};
use understudy_decide::drill::snapshot as facts;
use understudy_decide::drill::snapshot::Exercise;
use understudy_decide::drill::{DrillSnapshot, End, Ending};
use understudy_decide::failover::record::Outcome;
use understudy_decide::failover::snapshot::Mode;
use understudy_wire::order::Fault;
use understudy_wire::{Epoch, ReplicaName, ShardName};

use crate::cache::{Caches, Held};
use crate::controllers::failover::is_leftover;
use crate::controllers::shard::build::DRILLS;

/// The container of a replica's pod that its manager is the first process of.
const CONTAINER: &str = "mysql";

/// The shards that a Drill rehearses on are those of one Datastore, or one Shard that was made by hand.
enum Ground {
    Datastore(Held<Datastore>),
    Shard(Held<Shard>),
}

impl Ground {
    fn of(drill: &Drill, caches: &Caches) -> Result<Self, String> {
        let namespace = drill.namespace().unwrap_or_default();
        let store = |name: &str| {
            let found = caches.datastores.get(&namespace, name).map(Self::Datastore);
            found.ok_or_else(|| format!("there is no Datastore {name} in namespace {namespace}"))
        };
        if let Some(name) = &drill.spec.datastore {
            return store(name);
        }
        let name = drill.spec.scope.name.clone().unwrap_or_default();
        let shard = caches.shards.get(&namespace, &name);
        let shard = shard.ok_or_else(|| format!("there is no Shard {name} in namespace {namespace}"))?;
        match names::datastore_of(&shard) {
            Some(name) => store(name),
            None => Ok(Self::Shard(shard)),
        }
    }

    /// The same for two Drills that must not run at once.
    fn name(&self) -> String {
        match self {
            Self::Datastore(datastore) => format!("Datastore {}", datastore.name_any()),
            Self::Shard(shard) => format!("Shard {}", shard.name_any()),
        }
    }

    fn permission(&self) -> &DrillPermission {
        match self {
            Self::Datastore(datastore) => &datastore.spec.drills,
            Self::Shard(shard) => &shard.spec.drills,
        }
    }

    fn is_paused(&self) -> bool {
        matches!(self, Self::Datastore(datastore) if datastore.spec.paused)
    }

    fn shards(&self, caches: &Caches) -> Vec<Held<Shard>> {
        match self {
            Self::Datastore(datastore) => {
                let name = datastore.name_any();
                let mut all = caches.shards.within(&datastore.namespace().unwrap_or_default());
                all.retain(|shard| names::datastore_of(shard) == Some(name.as_str()));
                all
            }
            Self::Shard(shard) => vec![shard.clone()],
        }
    }
}

/// The snapshot. `drills` are all of the namespace, this one among them.
pub fn snapshot<'a>(
    drill: &Drill,
    drills: impl IntoIterator<Item = &'a Drill>,
    caches: &Caches,
    awake: SignedDuration,
) -> DrillSnapshot {
    let namespace = drill.namespace().unwrap_or_default();
    let ground = Ground::of(drill, caches);
    let (absent, ground) = match ground {
        Ok(ground) => (None, Some(ground)),
        Err(words) => (Some(words), None),
    };
    let is_paused = ground.as_ref().is_some_and(Ground::is_paused);
    let shards = ground.as_ref().map(|ground| ground.shards(caches)).unwrap_or_default();
    let changes = caches.failovers.within(&namespace);
    let changes = changes.iter().filter_map(|failover| {
        let shard = shards.iter().find(|shard| shard.name_any() == failover.spec.shard)?;
        (!is_leftover(failover, shard)).then(|| change(failover))
    });
    let runs_beside = |other: &&Drill| {
        let same = || Ground::of(other, caches).ok().map(|other| other.name()) == ground.as_ref().map(Ground::name);
        other.name_any() != drill.name_any() && under_way(other).is_some() && same()
    };
    let others = drills.into_iter().filter(runs_beside).map(ResourceExt::name_any).collect();
    let status = status(drill);
    let hit = status.run.iter().flat_map(|run| &run.victims).map(|victim| victim.replica.to_string());
    let primaries = shards.iter().filter_map(|shard| shard.status.as_ref()?.primary.clone());
    let pods = hit.chain(primaries).filter_map(|replica| {
        let pod = caches.pods.get(&namespace, &replica)?;
        Some((ReplicaName::new(replica), restarts(&pod)))
    });
    DrillSnapshot {
        name: drill.name_any(),
        uid: drill.uid().unwrap_or_default(),
        policy: policy(drill, ground.as_ref()),
        pods: pods.collect(),
        leaving: drill.metadata.deletion_timestamp.is_some(),
        status,
        absent,
        changes: changes.collect(),
        shards: shards
            .iter()
            .map(|shard| (ShardName::new(shard.name_any()), self::shard(shard, is_paused, caches)))
            .collect(),
        others,
        awake,
    }
}

fn policy(drill: &Drill, ground: Option<&Ground>) -> facts::Policy {
    let spec = &drill.spec;
    let allowed = ground.map(|ground| faults(&ground.permission().faults)).unwrap_or_default();
    facts::Policy {
        schedule: spec.schedule.clone(),
        zone: spec.time_zone.clone(),
        scope: scope(&spec.scope),
        exercise: exercise(spec.fault),
        hold: SignedDuration::from_secs(i64::from(spec.hold_seconds)),
        require_healthy: spec.abort.require_healthy,
        require_redundancy: spec.abort.require_redundancy,
        max_unavailable: f64::from(spec.abort.max_unavailable_seconds),
        windows: spec.abort.windows.iter().map(window).collect(),
        suspended: spec.suspend,
        requested: spec.requested_at.as_ref().map(|at| at.0),
        allowed,
        allowed_by: ground.map(Ground::name).unwrap_or_default(),
    }
}

fn scope(scope: &DrillScope) -> facts::Scope {
    match scope.kind {
        DrillScopeKind::Shard => facts::Scope::Shard(ShardName::new(scope.name.clone().unwrap_or_default())),
        DrillScopeKind::Node => facts::Scope::Node(scope.name.clone()),
        DrillScopeKind::Zone => facts::Scope::Zone(scope.name.clone()),
        DrillScopeKind::Random => facts::Scope::Random,
    }
}

/// What is done, as decisions know it.
pub fn exercise(fault: DrillFault) -> Exercise {
    match fault {
        DrillFault::Switchover => Exercise::Switchover,
        DrillFault::Kill => Exercise::Fault(Fault::Kill),
        DrillFault::Freeze => Exercise::Fault(Fault::Freeze),
        DrillFault::Wedge => Exercise::Fault(Fault::Wedge),
    }
}

/// The same, as specs know it.
pub fn fault(exercise: Exercise) -> DrillFault {
    match exercise {
        Exercise::Switchover => DrillFault::Switchover,
        Exercise::Fault(Fault::Kill) => DrillFault::Kill,
        Exercise::Fault(Fault::Freeze) => DrillFault::Freeze,
        Exercise::Fault(Fault::Wedge) => DrillFault::Wedge,
    }
}

fn faults(allowed: &[RealFault]) -> BTreeSet<Fault> {
    let fault = |allowed: &RealFault| match allowed {
        RealFault::Kill => Fault::Kill,
        RealFault::Freeze => Fault::Freeze,
        RealFault::Wedge => Fault::Wedge,
    };
    allowed.iter().map(fault).collect()
}

fn window(window: &DrillWindow) -> facts::Window {
    let day = |day: &DrillDay| match day {
        DrillDay::Monday => Weekday::Monday,
        DrillDay::Tuesday => Weekday::Tuesday,
        DrillDay::Wednesday => Weekday::Wednesday,
        DrillDay::Thursday => Weekday::Thursday,
        DrillDay::Friday => Weekday::Friday,
        DrillDay::Saturday => Weekday::Saturday,
        DrillDay::Sunday => Weekday::Sunday,
    };
    let time = |text: &str| text.parse::<Time>().ok();
    facts::Window { days: window.days.iter().map(day).collect(), hours: time(&window.from).zip(time(&window.to)) }
}

/// The run that goes on.
pub fn under_way(drill: &Drill) -> Option<&DrillRun> {
    drill.status.as_ref()?.last_run.as_ref().filter(|run| run.result.is_none())
}

fn status(drill: &Drill) -> facts::Status {
    let Some(status) = &drill.status else { return facts::Status::default() };
    // What was announced under another spec may not be what this one asks for.
    let announced = |status: &DrillStatus| status.next_run.as_ref().map(|at| at.0);
    let is_present = status.observed_generation == drill.metadata.generation;
    facts::Status {
        next_run: announced(status).filter(|_| is_present),
        last_requested: status.last_requested_at.as_ref().map(|at| at.0),
        run: under_way(drill).map(|run| self::run(run, drill.spec.hold_seconds)),
    }
}

/// `hold` is that of the spec, for a run that does not say.
fn run(run: &DrillRun, hold: i32) -> facts::Run {
    let ending = run.ending.map(|ending| End {
        ending: match ending {
            DrillResult::Succeeded => Ending::Succeeded,
            DrillResult::Aborted | DrillResult::Skipped => Ending::Aborted,
            DrillResult::Failed => Ending::Failed,
        },
        rule: run.reason.as_ref().and_then(|reason| reason.parse().ok()),
        message: run.message.clone().unwrap_or_default(),
    });
    facts::Run {
        id: run.id.clone(),
        started_at: run.started_at.0,
        exercise: exercise(run.fault),
        hold: SignedDuration::from_secs(i64::from(run.hold_seconds.unwrap_or(hold))),
        victims: run.victims.iter().map(victim).collect(),
        ending,
    }
}

fn victim(victim: &DrillVictim) -> facts::Victim {
    facts::Victim {
        shard: ShardName::new(&victim.shard),
        replica: ReplicaName::new(&victim.replica),
        epoch: epoch(victim.epoch),
        node: victim.node.clone(),
        struck_at: victim.struck_at.as_ref().map(|at| at.0),
        error: victim.error.clone(),
        released_at: victim.released_at.as_ref().map(|at| at.0),
        restarts: victim.restarts.and_then(|restarts| u32::try_from(restarts).ok()),
    }
}

fn epoch(number: i64) -> Epoch {
    Epoch(u64::try_from(number).unwrap_or(0))
}

fn shard(shard: &Shard, is_paused: bool, caches: &Caches) -> facts::Shard {
    let status = shard.status.clone().unwrap_or_default();
    let summary = status.replicas.iter().find(|replica| Some(&replica.name) == status.primary.as_ref());
    let namespace = shard.namespace().unwrap_or_default();
    let pod = status.primary.as_ref().and_then(|primary| caches.pods.get(&namespace, primary));
    let cooldown = SignedDuration::from_secs(i64::from(shard.spec.failover.cooldown_seconds));
    let changed = status.last_failover.as_ref().and_then(|last| last.time.as_ref()).map(|time| time.0);
    facts::Shard {
        primary: status.primary.as_ref().map(ReplicaName::new),
        epoch: epoch(status.epoch),
        changing: status.transition.is_some(),
        health: match status.verdict.as_ref().map(|verdict| verdict.state) {
            Some(VerdictState::Healthy) => facts::Health::Healthy,
            Some(VerdictState::Unknown) | None => facts::Health::Unknown,
            Some(state) => facts::Health::Unwell(state.to_string()),
        },
        redundant: conditions::holds(&status.conditions, conditions::REDUNDANT),
        promotable: usize::try_from(status.promotable).unwrap_or(0),
        paused: is_paused || shard.spec.paused,
        mode: match shard.spec.failover.mode {
            FailoverMode::Automatic => Mode::Automatic,
            FailoverMode::Manual => Mode::Manual,
            FailoverMode::Paused => Mode::Paused,
        },
        node: summary.and_then(|replica| replica.node.clone()),
        zone: summary.and_then(|replica| replica.zone.clone()),
        equipped: pod.map(|pod| equipped(&pod)).unwrap_or_default(),
        cooling_until: changed.and_then(|at| at.checked_add(cooldown).ok()),
        unavailable: status.availability.as_ref().map_or(0.0, |known| known.unavailable_seconds),
    }
}

/// How often the manager of a pod was restarted, as the kubelet has it.
fn restarts(pod: &Pod) -> u32 {
    let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let managers = containers.filter(|status| status.name == CONTAINER);
    managers.filter_map(|status| u32::try_from(status.restart_count).ok()).max().unwrap_or(0)
}

/// What the manager in a pod was told when it was started.
fn equipped(pod: &Pod) -> BTreeSet<Fault> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let variables = containers.flat_map(|container| container.env.iter().flatten());
    let told = variables.filter(|variable| variable.name == DRILLS).filter_map(|variable| variable.value.as_deref());
    told.flat_map(|value| value.split(',')).filter_map(|word| word.parse().ok()).collect()
}

fn change(failover: &Failover) -> facts::Change {
    let status = failover.status.clone().unwrap_or_default();
    let made = failover.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let outcome = status.result.and_then(|result| match result {
        FailoverResult::Succeeded => Some(Outcome::Succeeded),
        FailoverResult::Confirmed => Some(Outcome::Confirmed),
        FailoverResult::Refused => Some(Outcome::Refused),
        FailoverResult::Failed => Some(Outcome::Failed),
        FailoverResult::Unknown => None,
    });
    let is_moved = matches!(status.phase, FailoverPhase::Rebuilding | FailoverPhase::Closed)
        && outcome.is_none_or(|o| o == Outcome::Succeeded);
    let moved_at = status.promoted_at.as_ref().map_or(made, |at| at.0);
    facts::Change {
        name: failover.name_any(),
        shard: ShardName::new(&failover.spec.shard),
        from: status.from.as_ref().map(ReplicaName::new),
        epoch: status.epoch.map(epoch),
        made,
        moved_at: is_moved.then_some(moved_at),
        outcome,
        gap: status.write_gap_seconds,
        message: status.message,
    }
}

/// How the shards that a run names are called, for a person: `m-0-a of m-0`.
pub fn words(victims: &[facts::Victim]) -> String {
    let each = victims.iter().map(|victim| format!("{} of {}", victim.replica, victim.shard));
    each.collect::<Vec<_>>().join(", ")
}

/// The labels of a Shard that its Failovers have too.
pub fn labels_of(shard: &ShardName, namespace: &str, caches: &Caches) -> BTreeMap<String, String> {
    let shard = caches.shards.get(namespace, shard.as_str());
    shard.map(|shard| crate::controllers::shard::build::shard_labels(&shard)).unwrap_or_default()
}
