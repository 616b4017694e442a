//! What was decided: steps to take, things to tell, what the status should show. Pure.

mod sentence;
mod step;

use std::collections::BTreeSet;

use strum::{Display, EnumIter, IntoStaticStr};
use understudy_wire::evidence::Millis;
use understudy_wire::order::{Build, FenceOrder, Follow, Peers, Promote};
use understudy_wire::{Epoch, ReplicaName};

use crate::failover::assess::Assessment;
use crate::failover::record::RecordUpdate;
use crate::failover::snapshot::Kind;

pub use self::sentence::Sentence;
pub use self::step::Subject;

/// What is to be done now, in order, and what is to be said.
#[derive(Clone, Debug)]
pub struct Decision {
    /// What the evidence says of the primary.
    pub assessment: Assessment,
    /// Steps in order. At most one of them cannot be taken back; when it is a call to the API server, no other call comes after it.
    pub steps: Vec<Step>,
    /// Steps that are due and wait, because they could not be taken a moment ago.
    pub held: Vec<Step>,
    /// What holds now and is worth an event when it begins to hold, decisions not to act included.
    pub notes: Vec<Note>,
    /// What the records of changes of primary should say.
    pub records: Vec<RecordUpdate>,
    /// What the status should show.
    pub view: View,
    /// When to look again even if nothing happens.
    pub requeue: Millis,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, IntoStaticStr)]
pub enum Step {
    /// Status: take the next `server_id`s, then make replicas with them. Ids of a try that was cut off are lost, never reused.
    Grow {
        /// The first id; the value of `nextServerId` that was read.
        first: u32,
        /// The replicas, by name, with consecutive ids.
        replicas: Vec<NewReplica>,
    },
    /// Status: name the one replica that may initialise.
    IntendBootstrap {
        /// Who may.
        replica: ReplicaName,
    },
    /// Status, compare-and-set: take the next epoch for this target. Everything irreversible of a change of primary comes after.
    Claim(Claim),
    /// Status, compare-and-set: the target of the transition serves; the route points at it.
    Publish {
        /// The epoch it serves under.
        epoch: Epoch,
        /// The primary.
        primary: ReplicaName,
        /// Its `ip:port`.
        address: String,
        /// How many failovers have followed each other with it.
        in_a_row: u32,
    },
    /// Make the volume claim of a replica that has none.
    MakeVolume {
        /// Whose.
        replica: ReplicaName,
    },
    /// Make the pod of a replica that has none.
    MakePod {
        /// Whose.
        replica: ReplicaName,
    },
    /// Move the role label of a replica's pod and volume, so that Services follow.
    Label {
        /// Whose.
        replica: ReplicaName,
        /// The role.
        role: Role,
    },
    /// Mark a replica as one to be replaced, for ever.
    Condemn {
        /// Who.
        replica: ReplicaName,
        /// UID of the Replica object.
        uid: String,
        /// Why.
        reason: Sentence,
        /// For a person.
        message: String,
        /// The epoch that took the office from it; none when it was not the primary.
        epoch: Option<Epoch>,
    },
    /// Delete a pod with grace 0.
    DeletePod {
        /// Whose.
        replica: ReplicaName,
        /// UID of the pod.
        uid: String,
        /// Whether the replica is made a new pod on the same volume (the last copy is started again), or condemned.
        restart: bool,
    },
    /// Status of a condemned replica: redundancy is back, the quarantine counts from now.
    StartQuarantine {
        /// Whose volume.
        replica: ReplicaName,
    },
    /// Delete the volume of a condemned replica.
    DeleteVolume {
        /// Whose.
        replica: ReplicaName,
        /// UID of the claim.
        uid: String,
    },
    /// Delete the Replica object, of which nothing is left.
    DeleteReplica {
        /// Who.
        replica: ReplicaName,
        /// UID of the object.
        uid: String,
    },
    /// Probe the old primary once, up to a commit, after the claim.
    Reprobe {
        /// Whom.
        replica: ReplicaName,
        /// The claim.
        epoch: Epoch,
    },
    /// Give an order to a manager. Sent beside everything else; nothing waits for the answer.
    Order {
        /// To whom.
        replica: ReplicaName,
        /// What.
        order: Order,
    },
    /// Turn a person's request down.
    Refuse {
        /// Name of the Failover object.
        request: String,
        /// For a person.
        message: String,
    },
}

/// Taking the next epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// The epoch that the claim replaces: the highest that anything knows.
    pub after: Epoch,
    /// What kind of change.
    pub kind: Kind,
    /// The primary until now.
    pub from: Option<ReplicaName>,
    /// The primary to be.
    pub to: ReplicaName,
    /// The record: an existing one (a request, the same incident), or one that is named after the new epoch.
    pub record: Option<String>,
    /// The request, where a person asked for the change.
    pub request: Option<String>,
    /// Why, as a stable word.
    pub cause: String,
}

impl Claim {
    /// The epoch that is taken.
    pub fn epoch(&self) -> Epoch {
        self.after.next()
    }
}

/// A replica to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewReplica {
    /// Its name, derived from the shard's UID and the id.
    pub name: ReplicaName,
    /// Its `server_id`.
    pub server_id: u32,
    /// The condemned replica it replaces.
    pub replaces: Option<ReplicaName>,
    /// Whether it is one of the shard's first.
    pub first: bool,
    /// Nodes its pod must not run on.
    pub avoid_nodes: Vec<String>,
}

/// An order to a manager.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// Fill the volume.
    Build(Build),
    /// Replicate from the primary.
    Follow(Follow),
    /// Become primary.
    Promote(Promote),
    /// Refuse writes.
    Fence(FenceOrder),
    /// Know the others.
    Peers(Peers),
}

/// The kinds of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Display, IntoStaticStr)]
pub enum OrderKind {
    /// [`Order::Build`].
    Build,
    /// [`Order::Follow`].
    Follow,
    /// [`Order::Promote`].
    Promote,
    /// [`Order::Fence`].
    Fence,
    /// [`Order::Peers`].
    Peers,
}

impl Order {
    /// Its kind.
    pub fn kind(&self) -> OrderKind {
        match self {
            Self::Build(_) => OrderKind::Build,
            Self::Follow(_) => OrderKind::Follow,
            Self::Promote(_) => OrderKind::Promote,
            Self::Fence(_) => OrderKind::Fence,
            Self::Peers(_) => OrderKind::Peers,
        }
    }

    /// The epoch it is given under.
    pub fn epoch(&self) -> Epoch {
        match self {
            Self::Build(order) => order.epoch,
            Self::Follow(order) => order.epoch,
            Self::Promote(order) => order.epoch,
            Self::Fence(order) => order.epoch,
            Self::Peers(order) => order.epoch,
        }
    }
}

/// What a replica is to its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Display, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Role {
    /// Takes writes.
    Primary,
    /// Replicates and may be promoted.
    Standby,
    /// Is still being built, or does not replicate.
    Spare,
    /// Is to be replaced.
    Condemned,
}

/// Something that holds now. The shell makes an event of it when it begins to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Stable, for tools.
    pub reason: Reason,
    /// What it is about, when one reason can hold for several things at once.
    pub about: Option<ReplicaName>,
    /// For a person. May change while the note holds; that alone is no new event.
    pub message: String,
}

/// The reasons of events, decisions not to act included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Display, EnumIter, IntoStaticStr)]
pub enum Reason {
    /// `spec.paused` stops everything.
    ShardPaused,
    /// `spec.paused` was taken away, and the status still says that everything is stopped.
    ShardResumed,
    /// The primary is dead and `failover.mode` leaves it to a person.
    FailoverLeftToPerson,
    /// The primary is dead and no replica may be promoted.
    NoCandidate,
    /// A candidate would need offsets that Kafka no longer has.
    RetentionViolated,
    /// Too many shards are suspect at once for evidence that is not HARD.
    FleetBreaker,
    /// The last failover was a moment ago and the evidence is not HARD.
    Cooldown,
    /// Several failovers followed each other before the shard had healed: the next one comes later.
    FailoverPaced,
    /// An epoch was claimed for another primary, and the old one is not waited for.
    FailoverBegun,
    /// An epoch was claimed for another primary, which takes over from the old one.
    SwitchoverBegun,
    /// An epoch was claimed for the primary that is in office.
    ConfirmBegun,
    /// The old primary's manager made it refuse writes.
    PrimaryFenced,
    /// The old primary's manager could not be told, or did not do it.
    PrimaryUnreachable,
    /// The probe after the claim committed: the primary is confirmed.
    NearMiss,
    /// The primary was suspect or dead by the evidence, and commits again before anything was done about it.
    SuspicionCleared,
    /// The candidate failed: the next one is taken.
    CandidateFailed,
    /// Nobody is left but replicas with transactions of their own: the best of them takes over.
    LastResort,
    /// A replica is told to become primary.
    Promoting,
    /// The first primary is published.
    Bootstrapped,
    /// The new primary of a failover is published.
    FailoverDone,
    /// The new primary of a switchover is published.
    SwitchoverDone,
    /// The same primary is published under the next epoch.
    PrimaryConfirmed,
    /// A switchover's target did not catch up in time.
    SwitchoverAborted,
    /// A primary that commits had better hand over, and does not.
    SwitchoverWithheld,
    /// A request was turned down.
    RequestRefused,
    /// The replica that may initialise was named.
    BootstrapIntended,
    /// The replica that may initialise was lost before it served, and another was named.
    BootstrapAgain,
    /// A replica may hold data of a shard that has no primary: nobody initialises.
    BootstrapHeld,
    /// A replica is told to initialise.
    Initialising,
    /// A replica is told to clone.
    Cloning,
    /// A replica waits for a donor.
    WaitingForDonor,
    /// A build failed.
    BuildFailed,
    /// A replica that is filled or starts has come no further for long: nobody waits for it.
    BuildStalled,
    /// Replicas are made.
    ReplicasAdded,
    /// A replica was built and replicates: it may be promoted from now on.
    ReplicaJoined,
    /// A replica is condemned, and another is made in its place.
    ReplicaCondemned,
    /// A replica is condemned because fewer are asked for.
    ReplicaRemoved,
    /// A condemned replica is not replaced yet, because several in a row were condemned soon after they were made.
    ReplacementWaits,
    /// A replica should be replaced and is not, because so many volumes of replaced ones are kept already.
    QuarantineFull,
    /// A replica should be replaced and is kept, because it may be the last good copy.
    LastCopyKept,
    /// The last copy's pod is started again on its volume.
    LastCopyRestarted,
    /// A volume's quarantine began.
    VolumeQuarantined,
    /// A volume is deleted.
    VolumeDeleted,
    /// A volume is nearly full.
    VolumeLow,
    /// A pod cannot be placed.
    Unschedulable,
    /// The status was lost and the epoch was read from the servers.
    StatusLost,
    /// So many managers are silent that the operator rather suspects itself, or an observer contradicts the others.
    ObserverSuspect,
    /// The shard has all replicas it asked for.
    RedundancyBack,
}

/// What the status should show.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// Each replica, condemned ones included.
    pub replicas: Vec<ReplicaView>,
    /// Replicas that serve or replicate.
    pub ready: usize,
    /// Standbys that could take over now.
    pub promotable: usize,
    /// Whether there are as many intact copies as asked for.
    pub redundant: bool,
    /// The one node that all replicas are on, when pods could be on another as well.
    pub one_node: Option<String>,
    /// What is being done, in a few words; None: nothing.
    pub doing: Option<String>,
}

/// What the status should show of one replica.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaView {
    /// Who.
    pub name: ReplicaName,
    /// What it is to the shard.
    pub role: Role,
    /// Whether it serves or replicates.
    pub ready: bool,
    /// Whether it could take over now.
    pub promotable: bool,
    /// What is wrong with it.
    pub message: Option<String>,
    /// Of a standby that replicates and is not known to keep up: `is more than 1 h behind`.
    pub behind: Option<&'static str>,
    /// What is said of its volume, when that is nearly full; the words do not change while it is.
    pub low_volume: Option<String>,
}

/// A decision while it is made: keeps the promises of [`Decision::steps`].
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) steps: Vec<Step>,
    pub(crate) held: Vec<Step>,
    pub(crate) notes: Vec<Note>,
    pub(crate) records: Vec<RecordUpdate>,
    pub(crate) doing: Option<String>,
    held_back: BTreeSet<Subject>,
    taken: bool,
    /// An irreversible step that is a call to the API server was added.
    called: bool,
}

impl Draft {
    /// Nothing decided yet; these are not to be tried now.
    pub(crate) fn new(held_back: BTreeSet<Subject>) -> Self {
        Self { held_back, ..Self::default() }
    }

    /// Adds a step; after an irreversible one no other, and after an irreversible call no call. Whether it is to be done, now or
    /// when it is not held back any more.
    pub(crate) fn step(&mut self, step: Step) -> bool {
        if step.can_wait() && self.held_back.contains(&step.subject()) {
            self.held.push(step);
            return true;
        }
        if (self.taken && step.is_irreversible()) || (self.called && step.can_wait()) {
            return false;
        }
        self.taken |= step.is_irreversible();
        self.called |= step.is_irreversible() && !matches!(step, Step::Order { .. });
        self.steps.push(step);
        true
    }

    /// Whether an irreversible step was decided.
    pub(crate) fn is_taken(&self) -> bool {
        self.taken
    }

    pub(crate) fn note(&mut self, reason: Reason, message: impl Into<String>) {
        self.notes.push(Note { reason, about: None, message: message.into() });
    }

    pub(crate) fn note_about(&mut self, reason: Reason, about: &ReplicaName, message: impl Into<String>) {
        self.notes.push(Note { reason, about: Some(about.clone()), message: message.into() });
    }

    /// What is being done; the first one to say so is the most important.
    pub(crate) fn doing(&mut self, what: impl Into<String>) {
        self.doing.get_or_insert_with(|| what.into());
    }
}
