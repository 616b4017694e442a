//! One snapshot of a shard: from the caches and the observers, without a call to the API server. Pure, but for the clock.

mod nodes;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node as KubeNode, PersistentVolumeClaim, Pod as KubePod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use understudy_api::v1alpha1::{self as api, FailoverKind, FailoverMode, FailoverPhase, TransitionKind};
use understudy_api::{Consumer, Datastore, Failover, Replica as KubeReplica, Shard, conditions, labels, names};
use understudy_decide::failover::record::Milestone;
use understudy_decide::failover::snapshot::*;
use understudy_link::client::Endpoint;
use understudy_mysql::Deadlines;
use understudy_wire::evidence::{Millis, Volume as Space, millis};
use understudy_wire::{Epoch, GtidSet, Observer, ReplicaName, ShardName};

use super::build;
use super::feeds::feeds;
use super::obstacles::Obstacle;
use crate::cache::{Caches, Held};
use crate::controllers::consumer::{group_of, is_told};
use crate::controllers::failover::{is_leftover, is_open, step_epoch};
use crate::evidence::own::{Pace, Subject};
use crate::evidence::{Heard, Speaker, Wanted};

/// Where consumers serve their evidence.
const CONSUMER_EVIDENCE_PORT: u16 = 8450;

/// For how long after a change of primary its record is made when it is not there, in seconds: whoever led before may have stopped
/// in between.
const MISSING_RECORD: i64 = 600;

/// The objects of one shard as they are known now.
pub struct Objects {
    /// The Shard.
    pub shard: Shard,
    /// Its replicas.
    pub replicas: Vec<KubeReplica>,
    /// Pods of its replicas, by name.
    pub pods: HashMap<String, Held<KubePod>>,
    /// Volume claims of its replicas, by name.
    pub claims: HashMap<String, Held<PersistentVolumeClaim>>,
    /// Pods of its consumers.
    pub consumer_pods: Vec<Held<KubePod>>,
    /// The consumers that feed it.
    pub consumers: Vec<Held<Consumer>>,
    /// Which offsets feed it, as far as its Datastore says.
    pub feeds: BTreeMap<(String, i32), Vec<Span>>,
    /// Failover objects that name it.
    pub failovers: Vec<Held<Failover>>,
    /// All nodes.
    pub nodes: Vec<Held<KubeNode>>,
    /// What keeps replicas from being made or started.
    pub obstacles: Vec<Obstacle>,
    /// The mark of a pod that is as it would be made now.
    pub fingerprint: String,
}

impl Objects {
    /// Reads the caches; what was written here and is not in them yet is given by the caller.
    pub fn read(
        caches: &Caches,
        shard: Shard,
        replicas: Vec<KubeReplica>,
        is_gone: impl Fn(Option<&str>) -> bool,
    ) -> Self {
        let namespace = shard.namespace().unwrap_or_default();
        let name = shard.name_any();
        let pods = replicas.iter().filter_map(|replica| {
            let name = replica.name_any();
            let pod = caches.pods.get(&namespace, &name).filter(|pod| build::is_pod_of(pod, replica))?;
            (!is_gone(pod.metadata.uid.as_deref())).then_some((name, pod))
        });
        let claims = replicas.iter().filter_map(|replica| {
            let name = replica.name_any();
            let claim = caches.claims.get(&namespace, &name).filter(|claim| build::is_claim_of(claim, &shard))?;
            (!is_gone(claim.metadata.uid.as_deref())).then_some((name, claim))
        });
        let store = names::datastore_of(&shard).and_then(|store| caches.datastores.get(&namespace, store));
        let reads = |consumer: &Held<Consumer>| {
            let spec = &consumer.spec;
            let by_datastore =
                spec.datastore.as_deref().is_some_and(|store| names::datastore_of(&shard) == Some(store));
            by_datastore || spec.shards.as_ref().is_some_and(|shards| shards.contains(&name))
        };
        Self {
            pods: pods.collect(),
            claims: claims.collect(),
            consumer_pods: {
                let mut all = caches.pods.labelled(&namespace, labels::SHARD, &name);
                all.retain(|pod| pod.labels().contains_key(labels::CONSUMER));
                all
            },
            consumers: caches.consumers.within(&namespace).into_iter().filter(reads).collect(),
            feeds: store.map(|store| placed(&store, &name)).unwrap_or_default(),
            failovers: {
                let mut all = caches.failovers.within(&namespace);
                all.retain(|failover| failover.spec.shard == name && !is_leftover(failover, &shard));
                all
            },
            nodes: caches.nodes.all(),
            obstacles: Vec::new(),
            fingerprint: String::new(),
            shard,
            replicas,
        }
    }

    /// Whom to hear, each by the name under which it reports: a manager by that of its replica, which is that of its pod too, and a consumer's
    /// pod by its own.
    pub fn endpoints(&self) -> Wanted {
        let shard = names::shard_san(&self.shard.name_any());
        let managers = self.pods.iter().filter_map(|(name, pod)| {
            let endpoint = Endpoint { address: address(pod, MANAGER_PORT)?, name: shard.clone() };
            let observer = Observer::Manager { replica: ReplicaName::new(name) };
            Some((name.clone(), Speaker { endpoint, observer }))
        });
        let consumers = self.consumer_pods.iter().filter_map(|pod| {
            let consumer = pod.labels().get(labels::CONSUMER)?;
            let address = address(pod, CONSUMER_EVIDENCE_PORT)?;
            let endpoint = Endpoint { address, name: names::consumer_san(consumer) };
            let observer = Observer::Consumer { pod: pod.name_any() };
            Some((pod.name_any(), Speaker { endpoint, observer }))
        });
        let known = self.shard.status.as_ref().map_or(0, |status| status.epoch);
        Wanted { speakers: managers.chain(consumers).collect(), epoch: epoch(known) }
    }

    /// The manager of a replica.
    pub fn manager(&self, replica: &str) -> Option<Endpoint> {
        let address = address(self.pods.get(replica)?, MANAGER_PORT)?;
        Some(Endpoint { address, name: names::shard_san(&self.shard.name_any()) })
    }

    /// Whom the operator probes itself.
    pub fn subject(&self) -> Option<Subject> {
        let status = self.shard.status.as_ref()?;
        let replica = ReplicaName::new(status.primary.as_ref()?);
        Some(Subject { replica, address: status.primary_address.as_ref()?.parse().ok()? })
    }

    /// Partitions that feed it: those that a pod tells of, and those of which only the last words are known.
    pub fn partitions(&self) -> (Vec<&api::PartitionStatus>, Vec<&api::PartitionStatus>) {
        let shard = self.shard.metadata.name.as_deref().unwrap_or_default();
        let all = self.consumers.iter().filter_map(|consumer| consumer.status.as_ref()).flat_map(|status| {
            let workload = status.workloads.iter().find(|workload| workload.shard == shard);
            let its = status.partitions.iter().filter(move |partition| partition.shard == shard);
            its.map(move |partition| (partition, workload))
        });
        let (told, silent): (Vec<_>, Vec<_>) = all.partition(|(partition, workload)| {
            workload.is_some_and(|workload| is_told(partition, workload.ready, workload.desired))
        });
        let told = told.into_iter().map(|(partition, _)| partition).collect();
        (told, silent.into_iter().map(|(partition, _)| partition).collect())
    }

    /// How it probes.
    pub fn pace(&self) -> Pace {
        let detection = &self.shard.spec.failover.detection;
        let ms = |ms: i32| Duration::from_millis(u64::try_from(ms).unwrap_or(250));
        Pace {
            interval: ms(detection.probe_interval_ms),
            deadlines: Deadlines::new(ms(detection.stage_deadline_ms), ms(detection.commit_deadline_ms)),
        }
    }

    fn node_of(&self, pod: &str) -> Option<String> {
        let consumer = || self.consumer_pods.iter().find(|held| held.name_any() == pod);
        self.pods.get(pod).or_else(consumer)?.spec.as_ref()?.node_name.clone()
    }
}

fn placed(store: &Datastore, shard: &str) -> BTreeMap<(String, i32), Vec<Span>> {
    let placements = store.status.as_ref().map_or(&[][..], |status| &status.placements);
    feeds(shard, &store.spec.kafka.topic, placements)
}

fn address(pod: &KubePod, port: u16) -> Option<SocketAddr> {
    with_port(pod.status.as_ref()?.pod_ip.as_ref()?, port).parse().ok()
}

/// What else goes into a snapshot.
pub struct Beside {
    /// The last word of each observer, and the operator's own.
    pub heard: Vec<(String, Heard)>,
    /// What the stage remembers.
    pub memory: Memory,
    /// The connection to each replica's manager.
    pub links: BTreeMap<ReplicaName, Link>,
    /// The lowest offsets that Kafka holds.
    pub log: BTreeMap<(String, i32), i64>,
    /// What the other shards look like.
    pub fleet: Fleet,
    /// The node that the operator runs on.
    pub own_node: Option<String>,
}

/// The snapshot.
pub fn snapshot(objects: &Objects, beside: Beside, now: Instant, wall: Timestamp) -> Snapshot {
    let shard = &objects.shard;
    let status = status(shard);
    let Beside { heard, memory, links, log, fleet, own_node } = beside;
    let reports = heard.into_iter().map(|(name, heard)| Received {
        age: millis(now.saturating_duration_since(heard.at)),
        node: match &heard.report.observer {
            Observer::Operator { .. } => own_node.clone(),
            _ => objects.node_of(&name),
        },
        report: (*heard.report).clone(),
    });
    let reports = reports.collect();
    let replicas = objects.replicas.iter().map(|replica| {
        let name = ReplicaName::new(replica.name_any());
        let link = links.get(&name).cloned().unwrap_or_default();
        (name, self::replica(objects, replica, link, wall))
    });
    let groups = objects.consumers.iter().map(|consumer| group_of(consumer));
    Snapshot {
        now: wall,
        shard: ShardName::new(shard.name_any()),
        uid: shard.uid().unwrap_or_default(),
        policy: policy(&shard.spec),
        replicas: replicas.collect(),
        reports,
        requests: requests(objects, &status, wall),
        records: records(objects, &status, wall),
        consumers: groups.collect(),
        log,
        feeds: objects.feeds.clone(),
        nodes: objects.nodes.iter().map(|node| (node.name_any(), self::node(node, &shard.spec.pod_template))).collect(),
        fleet,
        memory,
        status,
    }
}

fn policy(spec: &api::ShardSpec) -> Policy {
    let detection = &spec.failover.detection;
    let ms = |ms: i32| Millis::try_from(ms).unwrap_or(0);
    Policy {
        replicas: usize::try_from(spec.replicas).unwrap_or(1).max(1),
        paused: spec.paused,
        mode: match spec.failover.mode {
            FailoverMode::Automatic => Mode::Automatic,
            FailoverMode::Manual => Mode::Manual,
            FailoverMode::Paused => Mode::Paused,
        },
        thresholds: Thresholds {
            fresh: ms(detection.evidence_max_age_ms),
            suspect_after: ms(detection.suspect_after_ms),
            gone_after: ms(detection.gone_after_ms),
            stuck_after: ms(detection.stuck_after_ms),
            reprobe_within: ms(detection.stage_deadline_ms),
            apply_relay_log_within: ms(spec.failover.apply_relay_log_within_seconds) * 1_000,
            cooldown: ms(spec.failover.cooldown_seconds) * 1_000,
            ..Thresholds::default()
        },
        quarantine_seconds: spec.failover.quarantine.ttl_seconds,
    }
}

fn epoch(number: i64) -> Epoch {
    Epoch(u64::try_from(number).unwrap_or(0))
}

/// The kind of change as decisions know it; None of one that only a later version knows.
fn kind(kind: TransitionKind) -> Option<Kind> {
    match kind {
        TransitionKind::Bootstrap => Some(Kind::Bootstrap),
        TransitionKind::Failover => Some(Kind::Failover),
        TransitionKind::Switchover => Some(Kind::Switchover),
        TransitionKind::Confirm => Some(Kind::Confirm),
        TransitionKind::Unknown => None,
    }
}

/// The kind of a change that is under way. One that nobody here knows is brought to its end nevertheless, as what waits for nobody: until then
/// the shard may have no primary.
fn kind_of(transition: &api::Transition) -> Kind {
    let stays = transition.from.as_ref() == Some(&transition.to);
    kind(transition.kind).unwrap_or(if stays { Kind::Confirm } else { Kind::Failover })
}

fn status(shard: &Shard) -> Status {
    let Some(status) = &shard.status else { return Status::default() };
    let name = |name: &Option<String>| name.as_ref().map(ReplicaName::new);
    Status {
        primary: name(&status.primary),
        primary_address: status.primary_address.clone(),
        epoch: epoch(status.epoch),
        transition: status.transition.as_ref().map(|t| Transition {
            kind: kind_of(t),
            epoch: epoch(t.epoch),
            from: name(&t.from),
            to: ReplicaName::new(&t.to),
            record: t.record.clone(),
            request: t.request.clone(),
            cause: t.cause.clone(),
        }),
        bootstrap: status
            .bootstrap
            .as_ref()
            .map(|b| Bootstrap { replica: ReplicaName::new(&b.replica), completed: b.completed }),
        next_server_id: u32::try_from(status.next_server_id).unwrap_or(0),
        last_change: status.last_failover.as_ref().map(|last| LastChange {
            // Of one that nobody here knows nothing is concluded against the old primary.
            kind: kind(last.kind).unwrap_or(Kind::Switchover),
            epoch: epoch(last.epoch),
            from: name(&last.from),
            record: Some(last.name.clone()).filter(|name| !name.is_empty()),
            cause: last.reason.clone(),
            at: last.time.as_ref().map(|time| time.0),
        }),
        in_a_row: status.last_failover.as_ref().map_or(0, |last| u32::try_from(last.in_a_row).unwrap_or(0)),
        changed_at: status.last_failover.as_ref().and_then(|last| last.changed_at.as_ref()).map(|time| time.0),
        paused: conditions::is_paused(&status.conditions),
    }
}

fn age(of: &impl ResourceExt, wall: Timestamp) -> Millis {
    let made = of.creation_timestamp().map_or(wall, |time| time.0);
    u64::try_from(wall.as_millisecond().saturating_sub(made.as_millisecond())).unwrap_or(0)
}

fn replica(objects: &Objects, replica: &KubeReplica, link: Link, wall: Timestamp) -> Replica {
    let name = replica.name_any();
    let pod = objects.pods.get(&name).map_or(Fact::Absent, |pod| {
        let scheduled = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        let unschedulable = scheduled.into_iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "False");
        Fact::Present(Pod {
            uid: pod.uid().unwrap_or_default(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            ip: pod.status.as_ref().and_then(|status| status.pod_ip.clone()),
            phase: phase(pod),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            role: pod.labels().get(labels::ROLE).cloned(),
            unschedulable: unschedulable.map(|c| c.message.clone().unwrap_or_default()),
            age: age(&**pod, wall),
        })
    });
    let volume = objects.claims.get(&name).map_or(Fact::Absent, |claim| {
        Fact::Present(VolumeClaim {
            uid: claim.uid().unwrap_or_default(),
            terminating: claim.metadata.deletion_timestamp.is_some(),
            role: claim.labels().get(labels::ROLE).cloned(),
            bound: claim
                .spec
                .as_ref()
                .is_some_and(|spec| spec.volume_name.as_ref().is_some_and(|name| !name.is_empty())),
            age: age(&**claim, wall),
        })
    });
    let status = replica.status.as_ref();
    Replica {
        uid: replica.uid().unwrap_or_default(),
        server_id: u32::try_from(replica.spec.server_id).unwrap_or(0),
        condemned: replica.spec.condemned.as_ref().map(|condemned| Condemned {
            reason: condemned.reason.clone(),
            at: condemned.at.as_ref().map(|time| time.0),
            successor_ready_at: status.and_then(|s| Some(s.volume.as_ref()?.successor_ready_at.as_ref()?.0)),
            node: status.and_then(|s| s.node.clone()),
        }),
        avoid_nodes: replica.spec.avoid_nodes.clone(),
        replaces: replica.spec.origin.replaces.as_ref().map(ReplicaName::new),
        pod,
        volume,
        server_uuid: status.and_then(|s| s.server_uuid.clone()),
        last_executed: status.and_then(|s| s.executed_gtid.as_ref()?.parse::<GtidSet>().ok()),
        last_volume: status.and_then(|s| {
            let volume = s.volume.as_ref()?;
            let bytes = |bytes: Option<i64>| u64::try_from(bytes?).ok();
            Some(Space { total: bytes(volume.total_bytes)?, free: bytes(volume.free_bytes)? })
        }),
        was_low: status.and_then(|s| s.volume.as_ref()).is_some_and(|volume| volume.low),
        link,
        age: age(replica, wall),
    }
}

/// Nothing runs in a pod that failed or succeeded, and the kubelet starts nothing in it again.
fn phase(pod: &KubePod) -> PodPhase {
    match pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
        Some("Failed" | "Succeeded") => PodPhase::Ended,
        Some(_) | None => PodPhase::Alive,
    }
}

fn node(node: &KubeNode, template: &api::PodTemplate) -> Node {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().find(|c| c.type_ == "Ready" && c.status == "True");
    let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
    Node {
        zone: node.labels().get("topology.kubernetes.io/zone").cloned(),
        schedulable: ready.is_some() && !cordoned,
        barred: nodes::is_barred(node, template),
        ready_at: ready.and_then(|ready| {
            [&ready.last_heartbeat_time, &ready.last_transition_time].into_iter().flatten().map(|time| time.0).max()
        }),
    }
}

/// Failover objects of a person that nobody has taken up. One that the status names already is taken up, whatever it says.
fn requests(objects: &Objects, status: &Status, wall: Timestamp) -> Vec<Request> {
    let named: BTreeSet<_> = [
        status.transition.as_ref().and_then(|t| t.record.clone()),
        status.last_change.as_ref().and_then(|last| last.record.clone()),
    ]
    .into_iter()
    .flatten()
    .collect();
    let open = objects.failovers.iter().filter(|failover| is_open(failover));
    let open = open.filter(|failover| !named.contains(&failover.name_any()));
    let request = |failover: &Held<Failover>| {
        let kind = match failover.spec.kind {
            FailoverKind::Failover => Kind::Failover,
            FailoverKind::Switchover => Kind::Switchover,
            // What is asked of a later version waits for that.
            FailoverKind::Unknown => return None,
        };
        let target = failover.spec.target.as_ref().map(ReplicaName::new);
        Some(Request { name: failover.name_any(), kind, target, age: age(&**failover, wall) })
    };
    let mut requests: Vec<_> = open.filter_map(request).collect();
    requests.sort_by(|a, b| b.age.cmp(&a.age).then_with(|| a.name.cmp(&b.name)));
    requests
}

/// Records that are not closed, and that of the last change if it is still to be made.
fn records(objects: &Objects, status: &Status, wall: Timestamp) -> Vec<Record> {
    let last = status.last_change.as_ref().and_then(|last| last.record.as_deref());
    let open = objects.failovers.iter().filter(|failover| {
        let phase = failover.status.as_ref().map_or(FailoverPhase::Pending, |status| status.phase);
        let begun = phase != FailoverPhase::Pending || last == Some(failover.name_any().as_str());
        begun && phase != FailoverPhase::Closed
    });
    let mut records: Vec<_> = open.map(|failover| record(failover)).collect();
    records.extend(missing(objects, status, wall));
    records.sort_by_key(|record| record.epoch);
    records
}

/// The record of the last change when there is no such object: nothing is in it yet.
fn missing(objects: &Objects, status: &Status, wall: Timestamp) -> Option<Record> {
    let last = status.last_change.as_ref()?;
    let name = last.record.clone()?;
    let is_there = objects.failovers.iter().any(|failover| failover.name_any() == name);
    let is_late = wall.as_second().saturating_sub(last.at?.as_second()) >= MISSING_RECORD;
    (!is_there && !is_late).then(|| Record {
        name,
        kind: last.kind,
        epoch: last.epoch,
        from: last.from.clone(),
        to: status.primary.clone(),
        steps: Vec::new(),
        claimed: Vec::new(),
    })
}

fn record(failover: &Failover) -> Record {
    let status = failover.status.clone().unwrap_or_default();
    let same = status.from.is_some() && status.from == status.to;
    let claimed = Milestone::Claimed.to_string();
    Record {
        name: failover.name_any(),
        kind: match failover.spec.kind {
            _ if same => Kind::Confirm,
            FailoverKind::Failover => Kind::Failover,
            FailoverKind::Switchover | FailoverKind::Unknown => Kind::Switchover,
        },
        epoch: epoch(status.epoch.or(failover.spec.epoch).unwrap_or(0)),
        from: status.from.as_ref().map(ReplicaName::new),
        to: status.to.as_ref().map(ReplicaName::new),
        steps: status.timeline.iter().map(|entry| entry.step.clone()).collect(),
        claimed: status.timeline.iter().filter(|entry| entry.step == claimed).filter_map(step_epoch).collect(),
    }
}
