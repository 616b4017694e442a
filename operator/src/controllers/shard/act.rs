//! Carries out what was decided, one step after the other; each checks again what it rests on. I/O.
//!
//! Objects that are deleted are read past the cache first and deleted by UID and version. The status is written over exactly
//! the version that the decision was made on, so two operators never both succeed.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{ListParams, ObjectList};
use serde_json::json;
use understudy_api::v1alpha1::{
    Bootstrap, Condemned, FailoverKind, FailoverResult, LastFailover, OriginReason, ReplicaOrigin, ReplicaSpec, Role,
    ShardStatus, Transition, TransitionKind, VolumeState, VolumeStatus,
};
use understudy_api::{Replica, Shard, labels};
use understudy_decide::Step;
use understudy_decide::decision::{Claim, NewReplica, Sentence};
use understudy_decide::failover::snapshot::{Kind, Snapshot};
use understudy_wire::{Epoch, ReplicaName};

use super::observe::Objects;
use super::stage::Stage;
use super::{build, earlier};
use crate::apply::{ApplyError, Writable, manager};
use crate::controllers::failover;
use crate::events::Reason;
use crate::metrics::shards::Ended;
use crate::troubles::Trouble;

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was carried out.
    Done,
    /// What it rested on no longer holds, or it is under way already: the next pass decides anew.
    Void,
}

/// A step that could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// The API server did not do it.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The API server did not answer soon enough for a loop that has more to do.
    #[error("the API server did not answer within {CALL:?}")]
    Slow,
}

impl ActError {
    /// Whether another write came first.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Apply(error) if error.is_conflict())
    }

    /// What a person has to put right, if that is why.
    pub fn trouble(&self) -> Option<Trouble> {
        match self {
            Self::Apply(error) => Trouble::of(error),
            Self::Slow => None,
        }
    }
}

/// No call may hold up the stage for longer.
const CALL: Duration = Duration::from_secs(4);

pub(super) async fn soon<T>(call: impl Future<Output = Result<T, ApplyError>>) -> Result<T, ActError> {
    tokio::time::timeout(CALL, call).await.map_err(|_| ActError::Slow)?.map_err(ActError::Apply)
}

impl Stage {
    /// Carries out one step.
    pub(super) async fn take(&mut self, step: &Step, seen: &Snapshot, objects: &Objects) -> Result<Taken, ActError> {
        if step.is_irreversible() && !matches!(step, Step::Order { .. }) {
            let shown = match step {
                Step::Claim(_) | Step::Publish { .. } | Step::IntendBootstrap { .. } | Step::Grow { .. } => {
                    self.showing.settle_shard(&self.name).await
                }
                _ => self.showing.settle(&self.name).await,
            };
            self.take_in_own(shown);
        }
        match step {
            Step::Order { replica, order } => Ok(self.give(replica, order, seen, objects)),
            Step::Reprobe { epoch, .. } => {
                self.own.reprobe(*epoch, Instant::now());
                Ok(Taken::Done)
            }
            Step::Claim(claim) => self.claim(claim).await,
            Step::Publish { epoch, primary, address, in_a_row } => {
                self.publish(*epoch, primary, address, *in_a_row).await
            }
            Step::IntendBootstrap { replica } => self.intend(replica).await,
            Step::Grow { first, replicas } => self.grow(*first, replicas).await,
            Step::MakeVolume { replica } => self.make_volume(replica, objects).await,
            Step::MakePod { replica } => self.make_pod(replica, objects).await,
            Step::Label { replica, role } => self.label(replica, *role, objects).await,
            Step::Condemn { replica, uid, reason, message, epoch } => {
                self.condemn(replica, uid, *reason, message, *epoch).await
            }
            Step::DeletePod { replica, uid, restart } => self.delete_pod(replica, uid, *restart).await,
            Step::StartQuarantine { replica } => self.start_quarantine(replica, seen.policy.quarantine_seconds).await,
            Step::DeleteVolume { replica, uid } => self.delete_volume(replica, uid).await,
            Step::DeleteReplica { replica, uid } => self.delete_replica(replica, uid).await,
            Step::Refuse { request, message } => self.refuse(request, message, seen).await,
        }
    }

    /// Writes the Shard's status over the version that was seen.
    async fn write_status(&mut self, change: impl FnOnce(&mut ShardStatus)) -> Result<Taken, ActError> {
        let Some(mut shard) = self.shard.clone() else { return Ok(Taken::Void) };
        let status = shard.status.get_or_insert_default();
        self.reporter.show(status);
        change(status);
        match soon(self.context.applier.replace_status(&shard)).await {
            Ok(written) => {
                self.overlay.wrote_shard(written.clone());
                self.shard = Some(written);
                Ok(Taken::Done)
            }
            Err(error) => {
                // After a conflict the cache may be behind, and after a lost answer the write may have happened.
                if let Ok(Some(now)) = soon(self.context.applier.get::<Shard>(&self.namespace, &self.name)).await {
                    self.overlay.wrote_shard(now.clone());
                    self.shard = Some(now);
                }
                Err(error)
            }
        }
    }

    fn status(&self) -> ShardStatus {
        self.shard.as_ref().and_then(|shard| shard.status.clone()).unwrap_or_default()
    }

    async fn claim(&mut self, claim: &Claim) -> Result<Taken, ActError> {
        let status = self.status();
        if number(claim.after) < status.epoch {
            return Ok(Taken::Void);
        }
        let transition = Transition {
            kind: kind(claim.kind),
            epoch: number(claim.epoch()),
            from: claim.from.as_ref().map(ToString::to_string),
            to: claim.to.to_string(),
            record: claim.record.clone(),
            request: claim.request.clone(),
            cause: Some(claim.cause.clone()),
            since: Some(MicroTime(Timestamp::now())),
        };
        self.write_status(|status| {
            status.epoch = transition.epoch;
            status.target_primary = Some(transition.to.clone());
            status.transition = Some(transition);
        })
        .await
    }

    async fn publish(
        &mut self,
        epoch: Epoch,
        primary: &ReplicaName,
        address: &str,
        in_a_row: u32,
    ) -> Result<Taken, ActError> {
        let status = self.status();
        let Some(transition) = status.transition.filter(|t| t.epoch == number(epoch) && t.to == primary.as_str())
        else {
            return Ok(Taken::Void);
        };
        if transition.kind == TransitionKind::Bootstrap {
            // Another replica may have been allowed to initialise since: that is decided by the object, not by the cache.
            let target: Option<Replica> = soon(self.context.applier.get(&self.namespace, primary.as_str())).await?;
            if target.is_none_or(|target| build::is_condemned(&target)) {
                return Ok(Taken::Void);
            }
        }
        let now = Timestamp::now();
        self.write_status(|status| {
            status.primary = Some(primary.to_string());
            status.primary_address = Some(address.to_owned());
            status.transition = None;
            if let Some(bootstrap) = &mut status.bootstrap {
                bootstrap.completed = true;
            }
            if transition.kind != TransitionKind::Bootstrap {
                let last = status.last_failover.as_ref();
                let changed_at = match transition.kind {
                    TransitionKind::Confirm => last.and_then(|last| last.changed_at.clone().or(last.time.clone())),
                    _ => Some(Time(now)),
                };
                status.last_failover = Some(LastFailover {
                    name: transition.record.clone().unwrap_or_default(),
                    kind: transition.kind,
                    epoch: transition.epoch,
                    from: transition.from.clone(),
                    time: Some(Time(now)),
                    gap_seconds: None,
                    gap: None,
                    reason: transition.cause.clone(),
                    in_a_row: i32::try_from(in_a_row).unwrap_or(i32::MAX),
                    changed_at,
                });
            }
        })
        .await
    }

    async fn intend(&mut self, replica: &ReplicaName) -> Result<Taken, ActError> {
        let Some(shard) = &self.shard else { return Ok(Taken::Void) };
        let intent = Bootstrap {
            replica: replica.to_string(),
            shard_uid: shard.uid().unwrap_or_default(),
            at: Some(Time(Timestamp::now())),
            completed: false,
        };
        let taken = self.write_status(|status| status.bootstrap = Some(intent)).await?;
        if let Some(shard) = &self.shard {
            let claims = self.context.caches.claims.labelled(&self.namespace, labels::SHARD, &self.name);
            if let Some(note) = earlier::note(shard, claims.iter().map(|claim| &**claim)) {
                self.context.events.say(shard, Reason::EarlierVolumes, note);
            }
        }
        Ok(taken)
    }

    /// Takes the ids first, then makes the objects. A crash in between loses ids and nothing else.
    async fn grow(&mut self, first: u32, replicas: &[NewReplica]) -> Result<Taken, ActError> {
        let Some(shard) = self.shard.clone() else { return Ok(Taken::Void) };
        if u32::try_from(self.status().next_server_id).unwrap_or(0).max(1) != first {
            return Ok(Taken::Void);
        }
        let there = self.list_replicas().await?;
        let cast = there.iter().filter(|replica| !build::is_condemned(replica)).count();
        let now = Instant::now();
        for replica in there {
            self.overlay.wrote_replica(replica, now);
        }
        if cast + replicas.len() > usize::try_from(shard.spec.replicas).unwrap_or(0) {
            return Ok(Taken::Void);
        }
        let next = i64::from(first) + i64::try_from(replicas.len()).unwrap_or(0);
        self.write_status(|status| status.next_server_id = next).await?;
        for new in replicas {
            let replica = new_replica(&shard, new);
            match soon(self.context.applier.create(manager::SHARD, &replica)).await {
                Ok(made) => self.overlay.wrote_replica(made, Instant::now()),
                Err(ActError::Apply(error)) if error.is_already_exists() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Taken::Done)
    }

    /// Past the cache.
    async fn list_replicas(&self) -> Result<Vec<Replica>, ActError> {
        let api = self.context.applier.api::<Replica>(&self.namespace);
        let params = ListParams::default().labels(&format!("{}={}", labels::SHARD, self.name));
        let listed = tokio::time::timeout(CALL, api.list(&params)).await.map_err(|_| ActError::Slow)?;
        let list: ObjectList<Replica> = listed.map_err(|source| ApplyError::Api {
            verb: "list",
            kind: "Replica".into(),
            name: self.name.clone(),
            error: Box::new(source),
        })?;
        Ok(list.items.into_iter().filter(|replica| replica.spec.shard == self.name).collect())
    }

    async fn make_volume(&mut self, replica: &ReplicaName, objects: &Objects) -> Result<Taken, ActError> {
        let Some((shard, replica)) = self.pair(replica, objects) else { return Ok(Taken::Void) };
        if !self.overlay.take(&format!("volume {}", replica.name_any()), Instant::now()) {
            return Ok(Taken::Void);
        }
        let claim = build::claim(&shard, &replica, Role::Spare);
        self.make(&claim, |found| build::is_claim_of(found, &shard)).await
    }

    async fn make_pod(&mut self, replica: &ReplicaName, objects: &Objects) -> Result<Taken, ActError> {
        let Some((shard, replica)) = self.pair(replica, objects) else { return Ok(Taken::Void) };
        if !self.overlay.take(&format!("pod {}", replica.name_any()), Instant::now()) {
            return Ok(Taken::Void);
        }
        let pod = build::pod(&shard, &replica, Role::Spare, &build::Surroundings::of(&self.context));
        self.make(&pod, |found| build::is_pod_of(found, &replica)).await
    }

    /// Makes an object. One that is there already is only behind in the cache, if it is ours; else it is left alone.
    async fn make<K: Writable>(&self, object: &K, is_ours: impl Fn(&K) -> bool) -> Result<Taken, ActError> {
        let name = object.name_any();
        match soon(self.context.applier.create(manager::SHARD, object)).await {
            Ok(_) => Ok(Taken::Done),
            Err(ActError::Apply(error)) if error.is_already_exists() => {
                let found: Option<K> = soon(self.context.applier.get(&self.namespace, &name)).await?;
                match found.is_none_or(|found| is_ours(&found)) {
                    true => Ok(Taken::Void),
                    false => Err(ApplyError::NotOurs { kind: K::kind(&()).into_owned(), name }.into()),
                }
            }
            Err(error) => Err(error),
        }
    }

    fn pair(&self, replica: &ReplicaName, objects: &Objects) -> Option<(Shard, Replica)> {
        let replica = objects.replicas.iter().find(|found| found.name_any() == replica.as_str())?;
        Some((self.shard.clone()?, replica.clone()))
    }

    async fn condemn(
        &mut self,
        replica: &ReplicaName,
        uid: &str,
        reason: Sentence,
        message: &str,
        epoch: Option<Epoch>,
    ) -> Result<Taken, ActError> {
        let found: Option<Replica> = soon(self.context.applier.get(&self.namespace, replica.as_str())).await?;
        let Some(found) = found.filter(|found| found.uid().as_deref() == Some(uid)) else {
            self.overlay.deleted(uid, Instant::now());
            return Ok(Taken::Void);
        };
        if build::is_condemned(&found) {
            self.overlay.wrote_replica(found, Instant::now());
            return Ok(Taken::Void);
        }
        // The primary is never condemned on a cache: the status past it says who is in office.
        let shard: Option<Shard> = soon(self.context.applier.get(&self.namespace, &self.name)).await?;
        let Some(status) = shard.and_then(|shard| shard.status) else { return Ok(Taken::Void) };
        let serves = status.primary.as_deref() == Some(replica.as_str());
        let is_to_serve =
            status.transition.as_ref().is_some_and(|t| t.to == replica.as_str() && t.kind != TransitionKind::Bootstrap);
        if serves || is_to_serve {
            return Ok(Taken::Void);
        }
        let condemned = Condemned {
            at: Some(Time(Timestamp::now())),
            epoch: epoch.map_or(0, number),
            reason: reason.to_string(),
            message: Some(message.chars().take(2_000).collect()),
        };
        let patch = json!({
            "metadata": { "uid": uid, "resourceVersion": found.resource_version() },
            "spec": { "condemned": condemned },
        });
        let call = self.context.applier.merge::<Replica>(manager::SHARD, &self.namespace, replica.as_str(), patch);
        let written = soon(call).await?;
        self.overlay.wrote_replica(written, Instant::now());
        Ok(Taken::Done)
    }

    async fn delete_pod(&mut self, replica: &ReplicaName, uid: &str, restart: bool) -> Result<Taken, ActError> {
        let found: Option<Pod> = soon(self.context.applier.get(&self.namespace, replica.as_str())).await?;
        let now = Instant::now();
        let Some(found) = found.filter(|found| found.uid().as_deref() == Some(uid)) else {
            self.overlay.deleted(uid, now);
            return Ok(Taken::Void);
        };
        if !restart {
            let object: Option<Replica> = soon(self.context.applier.get(&self.namespace, replica.as_str())).await?;
            if object.is_some_and(|object| !build::is_condemned(&object)) {
                return Ok(Taken::Void);
            }
        }
        soon(self.context.applier.delete(&found, Some(0))).await?;
        self.overlay.deleted(uid, now);
        Ok(Taken::Done)
    }

    async fn start_quarantine(&mut self, replica: &ReplicaName, seconds: i64) -> Result<Taken, ActError> {
        let found: Option<Replica> = soon(self.context.applier.get(&self.namespace, replica.as_str())).await?;
        let Some(mut found) = found.filter(build::is_condemned) else { return Ok(Taken::Void) };
        let now = Timestamp::now();
        let until = now.as_second().saturating_add(seconds);
        let status = found.status.get_or_insert_default();
        status.volume = Some(VolumeStatus {
            state: VolumeState::Quarantined,
            successor_ready_at: Some(Time(now)),
            quarantined_until: Timestamp::from_second(until).ok().map(Time),
            claim: Some(replica.to_string()),
            ..status.volume.clone().unwrap_or_default()
        });
        let written = soon(self.context.applier.replace_status(&found)).await?;
        self.overlay.wrote_replica(written, Instant::now());
        Ok(Taken::Done)
    }

    async fn delete_volume(&mut self, replica: &ReplicaName, uid: &str) -> Result<Taken, ActError> {
        let object: Option<Replica> = soon(self.context.applier.get(&self.namespace, replica.as_str())).await?;
        let quarantined =
            object.as_ref().and_then(|object| object.status.as_ref()?.volume.as_ref()?.successor_ready_at.as_ref());
        let is_over = object.as_ref().is_some_and(build::is_condemned) && quarantined.is_some();
        let found: Option<PersistentVolumeClaim> =
            soon(self.context.applier.get(&self.namespace, replica.as_str())).await?;
        let Some(found) = found.filter(|found| is_over && found.uid().as_deref() == Some(uid)) else {
            return Ok(Taken::Void);
        };
        soon(self.context.applier.delete(&found, None)).await?;
        self.overlay.deleted(uid, Instant::now());
        Ok(Taken::Done)
    }

    async fn delete_replica(&mut self, replica: &ReplicaName, uid: &str) -> Result<Taken, ActError> {
        // A claim that is only missing from the cache keeps its Replica.
        let claim: Option<PersistentVolumeClaim> =
            soon(self.context.applier.get(&self.namespace, replica.as_str())).await?;
        if claim.is_some_and(|claim| claim.metadata.deletion_timestamp.is_none()) {
            return Ok(Taken::Void);
        }
        let found: Option<Replica> = soon(self.context.applier.get(&self.namespace, replica.as_str())).await?;
        let Some(found) = found.filter(|found| found.uid().as_deref() == Some(uid) && build::is_condemned(found))
        else {
            return Ok(Taken::Void);
        };
        soon(self.context.applier.delete(&found, None)).await?;
        self.overlay.deleted(uid, Instant::now());
        Ok(Taken::Done)
    }

    async fn refuse(&mut self, request: &str, message: &str, seen: &Snapshot) -> Result<Taken, ActError> {
        if !self.overlay.take(&format!("refuse {request}"), Instant::now()) {
            return Ok(Taken::Void);
        }
        if !soon(failover::refuse(&self.context.applier, &self.namespace, request, message)).await? {
            return Ok(Taken::Void);
        }
        if let Some(request) = seen.requests.iter().find(|found| found.name == request) {
            let kind = match request.kind {
                Kind::Failover => FailoverKind::Failover,
                Kind::Bootstrap | Kind::Switchover | Kind::Confirm => FailoverKind::Switchover,
            };
            let ended = Ended { kind, result: FailoverResult::Refused, cause: String::new() };
            self.context.metrics.shards.ended(&self.namespace, &self.name, ended);
        }
        Ok(Taken::Done)
    }
}

fn new_replica(shard: &Shard, new: &NewReplica) -> Replica {
    let name = new.name.to_string();
    let reason = match (&new.replaces, new.first) {
        (Some(_), _) => OriginReason::Replacement,
        (None, true) => OriginReason::Bootstrap,
        (None, false) => OriginReason::ScaleUp,
    };
    let spec = ReplicaSpec {
        shard: shard.name_any(),
        server_id: i64::from(new.server_id),
        origin: ReplicaOrigin { reason, replaces: new.replaces.as_ref().map(ToString::to_string) },
        avoid_nodes: new.avoid_nodes.iter().take(16).cloned().collect(),
        condemned: None,
    };
    let mut replica = Replica::new(&name, spec);
    replica.metadata.namespace = shard.namespace();
    replica.metadata.labels = Some(build::replica_labels(shard, &name, Role::Spare));
    // The label of the object says nothing of its role: that would be one more write at each change of primary.
    if let Some(labels) = &mut replica.metadata.labels {
        labels.remove(labels::ROLE);
    }
    replica.metadata.owner_references = build::owner_of(shard).map(|owner| vec![owner]);
    replica
}

/// The kind of change as the API has it.
pub fn kind(kind: Kind) -> TransitionKind {
    match kind {
        Kind::Bootstrap => TransitionKind::Bootstrap,
        Kind::Failover => TransitionKind::Failover,
        Kind::Switchover => TransitionKind::Switchover,
        Kind::Confirm => TransitionKind::Confirm,
    }
}

/// An epoch as the API has it.
pub fn number(epoch: Epoch) -> i64 {
    i64::try_from(epoch.0).unwrap_or(i64::MAX)
}
