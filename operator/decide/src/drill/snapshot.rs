//! Everything that is known of one Drill at one moment: with the time, the only input of its decisions. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::{Time, Weekday};
use jiff::{SignedDuration, Timestamp};
use understudy_wire::order::Fault;
use understudy_wire::{Epoch, ReplicaName, ShardName};

use super::decision::End;
use crate::failover::record::Outcome;
use crate::failover::snapshot::Mode;

/// Everything that is known of one Drill at one moment.
#[derive(Clone, Debug)]
pub struct DrillSnapshot {
    /// The Drill.
    pub name: String,
    /// UID of the Drill object; what is left to chance follows from it.
    pub uid: String,
    /// What a person asked for.
    pub policy: Policy,
    /// What is written in the Drill's status.
    pub status: Status,
    /// Why nobody can be hit at all: what the spec names is not there.
    pub absent: Option<String>,
    /// Every shard of the Datastore, or the one Shard that was made by hand.
    pub shards: BTreeMap<ShardName, Shard>,
    /// Other Drills of the same shards that have a run which goes on.
    pub others: Vec<String>,
    /// Changes of primary of these shards that are on record.
    pub changes: Vec<Change>,
    /// For how long this operator has looked after the shards.
    pub awake: SignedDuration,
    /// Whether the Drill was deleted, and is only there until its run has ended.
    pub leaving: bool,
    /// How often the manager of each of these replicas was restarted in its pod: those of the primaries, and of who was hit. A replica that is not
    /// here has no pod any more, and so nothing in it is held.
    pub pods: BTreeMap<ReplicaName, u32>,
}

/// What a person asked for.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Five fields of cron; None: only when asked for.
    pub schedule: Option<String>,
    /// Name of the time zone; None is UTC.
    pub zone: Option<String>,
    /// Whose primaries are changed.
    pub scope: Scope,
    /// What is done to them.
    pub exercise: Exercise,
    /// How long a fault that is held lasts.
    pub hold: SignedDuration,
    /// Whether every shard must be Healthy, not only those that are hit.
    pub require_healthy: bool,
    /// Whether every shard must have all its copies.
    pub require_redundancy: bool,
    /// Seconds without a commit over 30 days that a shard may have had.
    pub max_unavailable: f64,
    /// When a run may begin; at any time when there is none.
    pub windows: Vec<Window>,
    /// Whether nothing is begun, and what is held is let go.
    pub suspended: bool,
    /// When a run was asked for.
    pub requested: Option<Timestamp>,
    /// The faults that are allowed.
    pub allowed: BTreeSet<Fault>,
    /// The object whose `spec.drills.faults` says so, for a person: `Datastore metrics`.
    pub allowed_by: String,
}

/// Whose primaries are changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Of this shard.
    Shard(ShardName),
    /// Those on this node; on any that holds one when it has no name.
    Node(Option<String>),
    /// Those in this zone; in any that holds one when it has no name.
    Zone(Option<String>),
    /// Of any one shard.
    Random,
}

/// What is done to a primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exercise {
    /// Another one takes over as planned.
    Switchover,
    /// Harm.
    Fault(Fault),
}

impl Exercise {
    /// Whether it lasts for a while and can be ended sooner.
    pub fn is_held(self) -> bool {
        matches!(self, Self::Fault(fault) if fault.is_held())
    }

    /// As in specs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Switchover => "Switchover",
            Self::Fault(fault) => fault.name(),
        }
    }
}

/// Hours in which a run may begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The days on which it opens; every day when there is none.
    pub days: Vec<Weekday>,
    /// When it opens and closes; None: they could not be read, and it never opens.
    pub hours: Option<(Time, Time)>,
}

/// What is written in the Drill's status and survives every restart.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The run that the schedule asks for next, as was announced under the present spec. No other one is begun.
    pub next_run: Option<Timestamp>,
    /// The last request that was taken up or turned down.
    pub last_requested: Option<Timestamp>,
    /// The run that goes on.
    pub run: Option<Run>,
}

/// A run that was begun and has not ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Its name.
    pub id: String,
    /// When it was begun.
    pub started_at: Timestamp,
    /// What it does.
    pub exercise: Exercise,
    /// How long a fault that is held lasts in this run.
    pub hold: SignedDuration,
    /// To whom.
    pub victims: Vec<Victim>,
    /// How it ends, once that is decided; it has ended when nobody is held any more.
    pub ending: Option<End>,
}

/// A primary that is hit, or is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Victim {
    /// Its shard.
    pub shard: ShardName,
    /// The replica.
    pub replica: ReplicaName,
    /// The epoch under which it served.
    pub epoch: Epoch,
    /// The node it ran on.
    pub node: Option<String>,
    /// When it was hit, or was just about to be when the operator ended.
    pub struck_at: Option<Timestamp>,
    /// Why it could not be hit.
    pub error: Option<String>,
    /// When its manager said that nothing is held any more.
    pub released_at: Option<Timestamp>,
    /// How often its manager had been restarted when it was chosen; None: nobody knows.
    pub restarts: Option<u32>,
}

/// One shard.
#[derive(Clone, Debug)]
pub struct Shard {
    /// The replica in office.
    pub primary: Option<ReplicaName>,
    /// The highest epoch ever claimed.
    pub epoch: Epoch,
    /// Whether the primary is being changed.
    pub changing: bool,
    /// What its status says of the primary.
    pub health: Health,
    /// Whether it has as many intact copies as its spec asks for.
    pub redundant: bool,
    /// Standbys that could take over now.
    pub promotable: usize,
    /// Nothing is done to it at all.
    pub paused: bool,
    /// Who may change the primary.
    pub mode: Mode,
    /// The primary's node.
    pub node: Option<String>,
    /// The primary's zone.
    pub zone: Option<String>,
    /// The faults that the primary's manager was started with the permission for.
    pub equipped: BTreeSet<Fault>,
    /// Until then only hard evidence causes a failover.
    pub cooling_until: Option<Timestamp>,
    /// Seconds over 30 days in which it took no writes, as its status has it: records that were deleted and outages without one are in it.
    pub unavailable: f64,
}

/// What a status says of a primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Commits succeed.
    Healthy,
    /// Anything else, in the words of the verdict.
    Unwell(String),
    /// Nobody says.
    Unknown,
}

/// A change of primary that is on record, or was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Name of the Failover object.
    pub name: String,
    /// The shard.
    pub shard: ShardName,
    /// The old primary.
    pub from: Option<ReplicaName>,
    /// The epoch that it claimed last; None: it has not claimed one.
    pub epoch: Option<Epoch>,
    /// When the object was made, in whole seconds.
    pub made: Timestamp,
    /// When the route was moved; None: it was not.
    pub moved_at: Option<Timestamp>,
    /// How it ended; None: it has not.
    pub outcome: Option<Outcome>,
    /// Seconds without a commit.
    pub gap: Option<f64>,
    /// For a person.
    pub message: Option<String>,
}
