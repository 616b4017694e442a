//! What is said about one replica: its line in the Shard's status, and its own status. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::SignedDuration;
use kube::ResourceExt;
use understudy_api::Replica;
use understudy_api::conditions;
use understudy_api::v1alpha1::{
    RebuildProgress, ReplicaPhase, ReplicaStatus, ReplicaSummary, Role, Verdict, VolumeState, VolumeStatus,
};
use understudy_decide::decision::ReplicaView;
use understudy_decide::failover::snapshot::Snapshot;
use understudy_decide::{Decision, Role as DecidedRole};
use understudy_wire::ReplicaName;
use understudy_wire::evidence::{Phase, Server};

use super::super::build;
use super::super::claims::{Facts, of_replica};
use super::super::observe::Objects;
use super::super::obstacles::{self, Obstacle};
use super::super::rolled;
use super::tenths;

fn role(role: DecidedRole) -> Role {
    match role {
        DecidedRole::Primary => Role::Primary,
        DecidedRole::Standby => Role::Standby,
        DecidedRole::Spare => Role::Spare,
        DecidedRole::Condemned => Role::Condemned,
    }
}

fn phase(replica: &Replica, s: &Snapshot, name: &ReplicaName) -> ReplicaPhase {
    // One in office has its life before it until another has taken over.
    if build::is_condemned(replica) && s.status.primary.as_ref() != Some(name) {
        return match successor_ready_at(replica) {
            Some(_) => ReplicaPhase::Quarantined,
            None => ReplicaPhase::Condemned,
        };
    }
    match s.own_report(name) {
        None => ReplicaPhase::Pending,
        Some((_, age)) if age > s.policy.thresholds.lost_standby_after / 4 => ReplicaPhase::Unknown,
        Some((server, _)) => match server.phase {
            Phase::Empty => ReplicaPhase::Empty,
            Phase::Unusable { .. } => ReplicaPhase::Unusable,
            Phase::Building => ReplicaPhase::Building,
            Phase::Starting => ReplicaPhase::Starting,
            Phase::Running => ReplicaPhase::Running,
            Phase::Exited { .. } => ReplicaPhase::Exited,
            Phase::Stopping => ReplicaPhase::Stopping,
            Phase::Unknown => ReplicaPhase::Unknown,
        },
    }
}

fn successor_ready_at(replica: &Replica) -> Option<&Time> {
    replica.status.as_ref()?.volume.as_ref()?.successor_ready_at.as_ref()
}

fn delay(server: &Server) -> Option<f64> {
    let delay = server.replication.as_ref()?.value.delay?;
    #[allow(clippy::cast_precision_loss, reason = "milliseconds of years are exact")]
    let seconds = delay as f64 / 1_000.0;
    Some(tenths(seconds))
}

fn volume_state(replica: &Replica, objects: &Objects) -> VolumeState {
    let there = objects.claims.contains_key(&replica.name_any());
    match (there, build::is_condemned(replica)) {
        (true, true) => VolumeState::Quarantined,
        (true, false) => VolumeState::Bound,
        (false, true) if successor_ready_at(replica).is_some() => VolumeState::Deleted,
        (false, _) => VolumeState::Pending,
    }
}

/// Its line in the Shard's status.
pub fn summary(replica: &Replica, s: &Snapshot, d: &Decision, objects: &Objects) -> Option<ReplicaSummary> {
    let name = ReplicaName::new(replica.name_any());
    let view = d.view.replicas.iter().find(|view| view.name == name)?;
    let server = s.own_report(&name).map(|(server, _)| server);
    let pod = s.replicas.get(&name).and_then(|replica| replica.pod.present());
    let before = replica.status.as_ref();
    Some(ReplicaSummary {
        role: role(view.role),
        server_id: replica.spec.server_id,
        node: pod.and_then(|pod| pod.node.clone()).or_else(|| before.and_then(|b| b.node.clone())),
        zone: s.zone_of(&name).map(ToOwned::to_owned),
        address: pod.and_then(|pod| pod.ip.clone()),
        executed_gtid: server.and_then(|server| Some(server.executed.as_ref()?.value.to_string())),
        delay_seconds: server.filter(|_| view.role != DecidedRole::Primary).and_then(delay),
        ready: view.ready,
        promotable: view.promotable,
        phase: Some(phase(replica, s, &name).to_string()),
        volume: Some(volume_state(replica, objects).to_string()),
        message: obstacles::message(of(objects, &name)).or_else(|| view.message.clone()),
        name: name.to_string(),
    })
}

/// What keeps a replica from being made or started.
fn of<'a>(objects: &'a Objects, name: &ReplicaName) -> impl Iterator<Item = &'a Obstacle> {
    objects.obstacles.iter().filter(move |obstacle| obstacle.replica.as_deref() == Some(name.as_str()))
}

/// Its own status; `verdict` is that on the shard's primary.
pub fn status(
    replica: &Replica,
    view: Option<&ReplicaView>,
    verdict: Option<&Verdict>,
    s: &Snapshot,
    objects: &Objects,
) -> ReplicaStatus {
    let name = ReplicaName::new(replica.name_any());
    let mut status = replica.status.clone().unwrap_or_default();
    let server = s.own_report(&name).map(|(server, _)| server);
    let pod = s.replicas.get(&name).and_then(|replica| replica.pod.present());
    status.observed_generation = replica.metadata.generation;
    status.role = view.map_or(Role::Spare, |view| role(view.role));
    status.phase = phase(replica, s, &name);
    status.verdict = verdict.filter(|_| s.status.primary.as_ref() == Some(&name)).cloned();
    if let Some(pod) = pod {
        // What is gone keeps the place where it was: its successor avoids it.
        status.node = pod.node.clone().or(status.node);
        status.zone = s.zone_of(&name).map(ToOwned::to_owned).or(status.zone);
        status.address.clone_from(&pod.ip);
        status.pod_uid = Some(pod.uid.clone());
    }
    if let Some(server) = server {
        status.server_uuid = server.uuid.clone().or(status.server_uuid);
        status.executed_gtid = server.executed.as_ref().map(|read| read.value.to_string()).or(status.executed_gtid);
        let replicates = server.replication.as_ref().filter(|_| status.role != Role::Primary);
        let source = replicates.and_then(|read| read.value.source.clone());
        let named = |address: &String| s.replicas.keys().find(|other| s.address_of(other).as_ref() == Some(address));
        status.source = source.map(|address| named(&address).map_or(address.clone(), ToString::to_string));
        status.delay_seconds = replicates.and_then(|_| delay(server));
        status.delay = status.delay_seconds.map(|delay| format!("{delay:.0}s"));
        status.rebuild = server.build.as_ref().filter(|_| server.phase == Phase::Building).map(progress);
    }
    if matches!(status.phase, ReplicaPhase::Condemned | ReplicaPhase::Quarantined) {
        // Its last words on these stood still when it did.
        (status.source, status.delay, status.delay_seconds, status.rebuild) = (None, None, None, None);
    }
    let volume = volume(status.volume.take().unwrap_or_default(), replica, view, s, objects);
    let its: Vec<_> = of(objects, &name).cloned().collect();
    let message = obstacles::message(&its).or_else(|| view?.message.clone()).unwrap_or_default();
    let facts = Facts {
        phase: status.phase,
        ready: view.is_some_and(|view| view.ready),
        paused: s.policy.paused,
        message: &message,
        broken: server.filter(|_| status.role != Role::Primary).and_then(broken),
        low_volume: view.and_then(|view| view.low_volume.as_deref()),
        condemned: replica.spec.condemned.as_ref(),
        kept_until: volume.quarantined_until.as_ref(),
    };
    let up_to_date = rolled::of_replica(rolled::standing(objects, name.as_str()));
    for claim in of_replica(&facts).into_iter().chain([obstacles::provisioned(&its), up_to_date]) {
        conditions::set(&mut status.conditions, claim, replica.metadata.generation, &Time(s.now));
    }
    status.volume = Some(volume);
    status
}

fn volume(
    mut volume: VolumeStatus,
    replica: &Replica,
    view: Option<&ReplicaView>,
    s: &Snapshot,
    objects: &Objects,
) -> VolumeStatus {
    let name = ReplicaName::new(replica.name_any());
    volume.claim = Some(name.to_string());
    volume.state = volume_state(replica, objects);
    volume.low = view.is_some_and(|view| view.low_volume.is_some());
    if let Some(space) = s.own_report(&name).and_then(|(server, _)| server.volume) {
        volume.total_bytes = i64::try_from(space.total).ok();
        volume.free_bytes = i64::try_from(space.free).ok();
    }
    // The spec as it is now decides, not as it was when the quarantine began.
    let ttl = SignedDuration::from_secs(s.policy.quarantine_seconds);
    volume.quarantined_until =
        volume.successor_ready_at.as_ref().and_then(|since| since.0.checked_add(ttl).ok()).map(Time);
    volume
}

/// Why its applier stands. A receiver that cannot connect says more of its source, and other words with each try.
fn broken(server: &Server) -> Option<&str> {
    let replication = &server.replication.as_ref()?.value;
    replication.apply_error.as_deref().filter(|_| !replication.applying)
}

fn progress(build: &understudy_wire::evidence::BuildProgress) -> RebuildProgress {
    let percent = (build.done * 100).checked_div(build.total).map(|percent| format!("{percent}%"));
    let left = build.eta.map(|eta| format!("{}s left", eta.div_ceil(1_000)));
    let summary: Vec<_> = percent.into_iter().chain(left).collect();
    RebuildProgress {
        stage: build.stage.clone(),
        done_bytes: i64::try_from(build.done).unwrap_or(i64::MAX),
        total_bytes: i64::try_from(build.total).unwrap_or(i64::MAX),
        eta_seconds: build.eta.and_then(|eta| i64::try_from(eta.div_ceil(1_000)).ok()),
        error: build.error.clone(),
        summary: Some(if summary.is_empty() { build.stage.clone() } else { summary.join(", ") }),
    }
}

/// Without what changes with every commit.
pub fn gist(status: &ReplicaStatus) -> ReplicaStatus {
    let mut gist = status.clone();
    gist.executed_gtid = None;
    gist.delay = None;
    gist.delay_seconds = None;
    if let Some(rebuild) = &mut gist.rebuild {
        *rebuild = RebuildProgress {
            stage: rebuild.stage.clone(),
            error: rebuild.error.clone(),
            ..RebuildProgress::default()
        };
    }
    if let Some(volume) = &mut gist.volume {
        volume.free_bytes = None;
        volume.total_bytes = None;
    }
    gist
}
