//! Everything that is known of one shard at one moment: the only input of every decision. Pure.
//!
//! A fact that could not be read is [`Fact::Unknown`], never an error. All ages are milliseconds on the monotonic clock of
//! the process that made the snapshot; [`Snapshot::now`] is for records and for times to live only.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use understudy_wire::evidence::{Millis, Server, Volume};
use understudy_wire::order::Peers;
use understudy_wire::{Epoch, GtidSet, Observer, ReplicaName, Report, ShardName};

pub use super::memory::{
    Cleared, Course, Dissenter, Dissents, Memory, OrderFact, OrderOutcome, Past, Reprobe, ReprobeOutcome,
};
pub use super::thresholds::Thresholds;
use crate::decision::OrderKind;

/// Everything that is known of one shard at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The wall clock.
    pub now: Timestamp,
    /// The shard.
    pub shard: ShardName,
    /// UID of the Shard object; replicas' names are derived from it.
    pub uid: String,
    /// What a person asked for.
    pub policy: Policy,
    /// What is written in the Shard's status.
    pub status: Status,
    /// Every Replica object of the shard, condemned ones included.
    pub replicas: BTreeMap<ReplicaName, Replica>,
    /// The latest report of each observer.
    pub reports: Vec<Received>,
    /// Failover objects that a person made and nobody has taken up, oldest first.
    pub requests: Vec<Request>,
    /// Failover objects that are not closed, oldest first.
    pub records: Vec<Record>,
    /// The consumers that feed the shard; stored offsets of others are leftovers.
    pub consumers: BTreeSet<String>,
    /// The lowest offset that Kafka still holds, per topic and partition; not in the map: not known.
    pub log: BTreeMap<(String, i32), i64>,
    /// Which offsets of a partition feed this shard, in order; not in the map: not known, and then all of them may.
    pub feeds: BTreeMap<(String, i32), Vec<Span>>,
    /// The nodes of the cluster, as far as the API server says.
    pub nodes: BTreeMap<String, Node>,
    /// What the other shards look like.
    pub fleet: Fleet,
    /// What this process did and saw; empty after a restart.
    pub memory: Memory,
}

/// Offsets of one partition that feed the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first one.
    pub from: i64,
    /// The first one that feeds another shard; None: it goes on.
    pub until: Option<i64>,
}

/// A fact about the world outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fact<T> {
    /// It could not be read. Nothing destructive follows from it.
    #[default]
    Unknown,
    /// It is known not to be there.
    Absent,
    /// It is there.
    Present(T),
}

impl<T> Fact<T> {
    /// The thing, when it is there.
    pub fn present(&self) -> Option<&T> {
        match self {
            Self::Present(it) => Some(it),
            Self::Unknown | Self::Absent => None,
        }
    }

    /// Whether it is known not to be there.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

/// Who may change the primary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, strum::Display)]
pub enum Mode {
    /// The operator, and a person by a request.
    #[default]
    Automatic,
    /// A person only.
    Manual,
    /// Nobody.
    Paused,
}

/// What a person asked for.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Replicas, the primary included.
    pub replicas: usize,
    /// Nothing is done at all.
    pub paused: bool,
    /// Who may change the primary.
    pub mode: Mode,
    /// How soon what follows.
    pub thresholds: Thresholds,
    /// How long a condemned replica's volume is kept after its successor has caught up, seconds.
    pub quarantine_seconds: i64,
}

/// What is written in the Shard's status and survives every restart.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The replica in office.
    pub primary: Option<ReplicaName>,
    /// Its `ip:port` as published.
    pub primary_address: Option<String>,
    /// The highest epoch ever claimed.
    pub epoch: Epoch,
    /// The change of primary that is under way.
    pub transition: Option<Transition>,
    /// The once-only permission to initialise.
    pub bootstrap: Option<Bootstrap>,
    /// The next free `server_id`.
    pub next_server_id: u32,
    /// The last change of primary that was published.
    pub last_change: Option<LastChange>,
    /// How many failovers have followed each other before the shard had healed, the last one included; written with the last change.
    pub in_a_row: u32,
    /// When another replica took office last; written with the last change, and left alone by a confirmation.
    pub changed_at: Option<Timestamp>,
    /// Whether `spec.paused` held when it was written.
    pub paused: bool,
}

/// The last change of primary that was published; written together with the route, so that what follows from it is never forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastChange {
    /// What kind of change.
    pub kind: Kind,
    /// The epoch under which the new primary took office.
    pub epoch: Epoch,
    /// The old primary.
    pub from: Option<ReplicaName>,
    /// Name of the Failover object that records it.
    pub record: Option<String>,
    /// Why, as a stable word.
    pub cause: Option<String>,
    /// When, on the wall clock.
    pub at: Option<Timestamp>,
}

/// A change of primary that is under way. An epoch has one target for ever; another target takes another epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// What kind of change.
    pub kind: Kind,
    /// The epoch it claimed.
    pub epoch: Epoch,
    /// The primary until now.
    pub from: Option<ReplicaName>,
    /// The primary to be.
    pub to: ReplicaName,
    /// Name of the Failover object that records it.
    pub record: Option<String>,
    /// Name of the Failover object by which a person asked for it; nobody did when it is not set.
    pub request: Option<String>,
    /// Why, as a stable word.
    pub cause: Option<String>,
}

/// The kinds of change of primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The first primary.
    Bootstrap,
    /// Unplanned: the old primary is not waited for, and condemned.
    Failover,
    /// Planned: the new primary has every transaction of the old one.
    Switchover,
    /// The same primary under a new epoch.
    Confirm,
}

/// The once-only permission to initialise a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// Who may.
    pub replica: ReplicaName,
    /// Whether it has served since.
    pub completed: bool,
}

/// One Replica object and what belongs to it.
#[derive(Clone, Debug, Default)]
pub struct Replica {
    /// UID of the Replica object.
    pub uid: String,
    /// MySQL's `server_id`.
    pub server_id: u32,
    /// Set once it is to be replaced.
    pub condemned: Option<Condemned>,
    /// Nodes that its pod must not run on.
    pub avoid_nodes: Vec<String>,
    /// Which condemned replica it replaces.
    pub replaces: Option<ReplicaName>,
    /// Its pod.
    pub pod: Fact<Pod>,
    /// Its volume claim.
    pub volume: Fact<VolumeClaim>,
    /// `server_uuid` as last reported, kept in the Replica's status.
    pub server_uuid: Option<String>,
    /// Executed transactions as last written to the Replica's status; old, and better than nothing after a restart.
    pub last_executed: Option<GtidSet>,
    /// Space on its volume as last written to the Replica's status; as old.
    pub last_volume: Option<Volume>,
    /// Whether the volume was nearly full when that was written.
    pub was_low: bool,
    /// The connection to its manager.
    pub link: Link,
    /// Age of the Replica object.
    pub age: Millis,
}

/// That and since when a replica is to be replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condemned {
    /// Why.
    pub reason: String,
    /// When.
    pub at: Option<Timestamp>,
    /// When its successor had caught up: the quarantine counts from here.
    pub successor_ready_at: Option<Timestamp>,
    /// The node it ran on, as last known.
    pub node: Option<String>,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// UID of the object.
    pub uid: String,
    /// The node it was scheduled to.
    pub node: Option<String>,
    /// Its address.
    pub ip: Option<String>,
    /// Whether anything may still run in it.
    pub phase: PodPhase,
    /// Whether its deletion was asked for.
    pub terminating: bool,
    /// The value of its role label.
    pub role: Option<String>,
    /// Why the scheduler does not place it.
    pub unschedulable: Option<String>,
    /// Age of the object.
    pub age: Millis,
}

/// Whether anything may still run in a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodPhase {
    /// It waits, starts or runs, or nobody knows.
    #[default]
    Alive,
    /// Its containers ended and nobody starts them again (`Failed`, `Succeeded`): it was evicted, its node was shut down, or would not have it.
    Ended,
}

/// A volume claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeClaim {
    /// UID of the object.
    pub uid: String,
    /// Whether its deletion was asked for.
    pub terminating: bool,
    /// The value of its role label.
    pub role: Option<String>,
    /// Whether there is a volume behind it; before its first pod is placed there may be none.
    pub bound: bool,
    /// Age of the object.
    pub age: Millis,
}

/// The connection to a replica's manager.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Whether the evidence stream is open.
    pub connected: bool,
    /// The peers that the manager acknowledged on the present connection.
    pub peers: Option<Peers>,
}

/// A report and when and from where it came.
#[derive(Clone, Debug)]
pub struct Received {
    /// What the observer said.
    pub report: Report,
    /// Time since it was received.
    pub age: Millis,
    /// The node the observer runs on.
    pub node: Option<String>,
}

/// A change of primary that a person asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Name of the Failover object.
    pub name: String,
    /// Planned, or for a primary that the person knows to be dead.
    pub kind: Kind,
    /// Who is to become primary.
    pub target: Option<ReplicaName>,
    /// Age of the object.
    pub age: Millis,
}

/// A Failover object that records a change and is not closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its name.
    pub name: String,
    /// What kind of change it records.
    pub kind: Kind,
    /// The latest epoch of the incident.
    pub epoch: Epoch,
    /// The old primary.
    pub from: Option<ReplicaName>,
    /// The new primary.
    pub to: Option<ReplicaName>,
    /// The milestones of its timeline.
    pub steps: Vec<String>,
    /// The epochs of which its timeline tells that they were claimed. An incident claims several when its candidates fail.
    pub claimed: Vec<Epoch>,
}

/// A node of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its zone.
    pub zone: Option<String>,
    /// Whether a new pod could be scheduled there, as the API server says.
    pub schedulable: bool,
    /// Whether its taints or its labels keep the pods of this shard away.
    pub barred: bool,
    /// When its kubelet last told Kubernetes that it is ready; None: Kubernetes does not take it for ready.
    pub ready_at: Option<Timestamp>,
}

/// What the other shards look like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    /// Shards that have a primary.
    pub shards: usize,
    /// Shards that became Suspect or Stuck within the last minute.
    pub suspect: usize,
    /// Shards whose primaries are suspect or dead now, since whenever.
    pub doubtful: usize,
    /// Shards whose primaries are slow now, or were a moment ago.
    pub slow: usize,
    /// Shards whose primaries some do not reach and others see commit, or did a moment ago.
    pub partitioned: usize,
    /// Replicas that were heard of before.
    pub managers: usize,
    /// Those of them that are silent.
    pub silent: usize,
    /// Replicas that are not condemned.
    pub replicas: usize,
    /// Those of them that are being made in the place of others and have not joined yet.
    pub rebuilding: usize,
    /// How many volumes are being filled on each node.
    pub filling: BTreeMap<String, usize>,
}

impl Snapshot {
    /// The latest word of a replica's own manager about its server, and the time since it was received.
    pub fn own_report(&self, replica: &ReplicaName) -> Option<(&Server, Millis)> {
        self.reports.iter().find_map(|received| match &received.report.observer {
            Observer::Manager { replica: speaker } if speaker == replica => {
                let about_itself = received.report.evidence.iter().find(|e| e.subject == *replica)?;
                Some((about_itself.server.as_ref()?, received.age))
            }
            _ => None,
        })
    }

    /// The same, unless it is too old to count.
    pub fn fresh_report(&self, replica: &ReplicaName) -> Option<(&Server, Millis)> {
        self.own_report(replica).filter(|(_, age)| *age <= self.policy.thresholds.fresh)
    }

    /// How long a replica's manager has been silent; zero while its word counts.
    pub fn silent_for(&self, replica: &ReplicaName) -> Millis {
        match self.own_report(replica) {
            Some((_, age)) if age <= self.policy.thresholds.fresh => 0,
            Some((_, age)) => age.min(self.memory.awake),
            None => self.memory.awake,
        }
    }

    /// How long a replica's manager was paused lately; zero while its loop turns as it means to.
    pub fn own_pause(&self, replica: &ReplicaName) -> Millis {
        let is_its =
            |observer: &Observer| matches!(observer, Observer::Manager { replica: speaker } if speaker == replica);
        let report = self.reports.iter().map(|received| &received.report).find(|report| is_its(&report.observer));
        report.filter(|report| report.own_gap > 2 * report.interval).map_or(0, |report| report.own_gap)
    }

    /// The replicas that are not condemned.
    pub fn cast(&self) -> impl Iterator<Item = (&ReplicaName, &Replica)> {
        self.replicas.iter().filter(|(_, replica)| replica.condemned.is_none())
    }

    /// The node of a replica's pod.
    pub fn node_of(&self, replica: &ReplicaName) -> Option<&str> {
        self.replicas.get(replica)?.pod.present()?.node.as_deref()
    }

    /// Whether a replica has a pod in which nothing runs or will run, and which nobody takes away.
    pub fn pod_ended(&self, replica: &ReplicaName) -> bool {
        let pod = self.replicas.get(replica).and_then(|replica| replica.pod.present());
        pod.is_some_and(|pod| pod.phase == PodPhase::Ended && !pod.terminating)
    }

    /// The zone of a replica's pod.
    pub fn zone_of(&self, replica: &ReplicaName) -> Option<&str> {
        self.nodes.get(self.node_of(replica)?)?.zone.as_deref()
    }

    /// The address of a replica's server.
    pub fn address_of(&self, replica: &ReplicaName) -> Option<String> {
        let ip = self.replicas.get(replica)?.pod.present()?.ip.as_deref()?;
        Some(with_port(ip, MYSQL_PORT))
    }

    /// The highest epoch that anything knows: a promotion must go beyond it even if the status was lost.
    pub fn known_epoch(&self) -> Epoch {
        let told = self.replicas.keys().filter_map(|replica| Some(self.own_report(replica)?.0.epoch));
        told.fold(self.status.epoch, Epoch::max)
    }

    /// Whether the primary is being changed and that has not taken long yet. Nothing that only makes or shows something is asked of the API
    /// server meanwhile: each call may keep the change waiting. One that takes long may itself wait for what is missing, and nobody is
    /// served before the first primary.
    pub fn is_changing_primary(&self) -> bool {
        let changes = self.status.transition.as_ref().is_some_and(|change| change.kind != Kind::Bootstrap);
        changes && self.memory.transition_known <= self.policy.thresholds.promote_within
    }

    /// The order of this kind to this replica under this epoch.
    pub fn order(&self, replica: &ReplicaName, kind: OrderKind, epoch: Epoch) -> Option<&OrderFact> {
        self.memory.orders.get(&(replica.clone(), kind)).filter(|order| order.epoch == epoch)
    }
}

/// Where a replica's server listens.
pub const MYSQL_PORT: u16 = 3306;
/// Where a replica's manager listens.
pub const MANAGER_PORT: u16 = 8440;

/// `ip:port`, with brackets around an IPv6 address.
pub fn with_port(ip: &str, port: u16) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}
