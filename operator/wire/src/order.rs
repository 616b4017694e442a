//! What the operator tells an instance manager to do: bodies of `POST /v1/...` of the instance API, and the answers. Pure.
//!
//! Every order is idempotent and carries the epoch under which it was given; a manager that knows a higher epoch refuses it
//! with [`Refusal::StaleEpoch`]. It also carries the replica that it is for, in the header [`ADDRESSEE`]: an address that was
//! looked up before a node restarted may be another replica's by now. An order of which the manager does not understand everything is refused
//! as a whole (HTTP 400): [`Origin`] and [`Fault`] have no unknown value.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Epoch, GtidSet, ReplicaName};

/// Header of every order and of every question about one server: the replica that it is for. Another one refuses it with
/// [`Refusal::NotMine`].
pub const ADDRESSEE: &str = "understudy-replica";

/// `POST /v1/build`: fill the empty volume. Accepted at once; progress is in the evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Build {
    /// The epoch under which the order is given.
    pub epoch: Epoch,
    /// Whom it is meant for.
    pub replica: ReplicaName,
    /// Where the data comes from.
    pub origin: Origin,
}

/// Where the data of a new replica comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "from")]
pub enum Origin {
    /// Initialise a new data directory. Only ever sent to the replica that the Shard's once-only bootstrap intent names.
    Initialise {
        /// The permission.
        intent: BootstrapIntent,
    },
    /// Clone from a donor.
    Clone {
        /// Whom to clone.
        donor: ReplicaName,
        /// Its `ip:port`.
        address: String,
    },
}

/// The once-only permission to initialise: written to the Shard's status before any replica is told to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BootstrapIntent {
    /// UID of the Shard object.
    pub shard_uid: String,
    /// The one replica that may initialise.
    pub replica: ReplicaName,
}

/// `POST /v1/follow`: replicate from this source with GTID auto-position, read-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Follow {
    /// The epoch under which the order is given.
    pub epoch: Epoch,
    /// The primary.
    pub source: ReplicaName,
    /// `ip:port`.
    pub address: String,
}

/// `POST /v1/promote`: get the rest of a source that was told to stop (switchover), stop receiving, deal with the relay log within its
/// bound, clear read-only, write the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Promote {
    /// The epoch to write: the one claimed in the Shard's status.
    pub epoch: Epoch,
    /// How long received transactions may be applied before the rest is discarded.
    ///
    /// Milliseconds.
    pub apply_relay_log_within: u64,
    /// What must have been executed first (switchover): receiving goes on until then, and when it is not there within
    /// `apply_relay_log_within` the order is refused and nothing is discarded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<GtidSet>,
}

/// Answer of a completed promotion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Promoted {
    /// The epoch that was written.
    pub epoch: Epoch,
    /// What the server had executed when it became writable.
    pub executed: GtidSet,
}

/// `POST /v1/fence`: refuse writes and cut connections. `planned` (switchover) lets running transactions end first, and leaves
/// connections, which can only read by then, to the order to follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FenceOrder {
    /// The epoch under which the order is given.
    pub epoch: Epoch,
    /// Whether running transactions may end first.
    pub planned: bool,
}

/// Answer of a completed fence: what the server had executed when it stopped taking writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fenced {
    /// None when the server could not be asked and was killed instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executed: Option<GtidSet>,
    /// Whether mysqld was killed because it did not obey.
    pub killed: bool,
}

/// `PUT /v1/peers`: who else is in the shard, and whom to probe as the primary. Sent on change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peers {
    /// The epoch under which the order is given.
    pub epoch: Epoch,
    /// The primary and its `ip:port`, None while there is none.
    pub primary: Option<(ReplicaName, String)>,
    /// Every other replica of the shard and the `ip:port` of its instance API.
    pub peers: Vec<(ReplicaName, String)>,
}

/// A fault that a manager can do to its own mysqld for a drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Fault {
    /// SIGKILL: the process is gone.
    Kill,
    /// SIGSTOP: the process is there and does nothing, for as long as the order holds it.
    Freeze,
    /// The threads that write InnoDB's log stand still, for as long as the order holds them: `SELECT` answers, and no commit comes to its end.
    Wedge,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 3] = [Self::Kill, Self::Freeze, Self::Wedge];

    /// Its name, as in specs and settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "Kill",
            Self::Freeze => "Freeze",
            Self::Wedge => "Wedge",
        }
    }

    /// Whether it ends by itself with the server as it was.
    pub fn is_held(self) -> bool {
        match self {
            Self::Kill => false,
            Self::Freeze | Self::Wedge => true,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|fault| fault.name() == text);
        found.ok_or_else(|| format!("{text:?} is none of Kill, Freeze and Wedge"))
    }
}

/// `POST /v1/drill`: do this fault to the own mysqld. A manager does it only when it was started with the permission for this fault, and only
/// while its server takes writes under exactly this epoch. A run that was ordered before is answered and not done again.
///
/// A fault that is held ends by itself after `hold`, whatever becomes of the one who ordered it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DrillOrder {
    /// The epoch under which the victim serves.
    pub epoch: Epoch,
    /// Which run of which Drill; one run does one fault to a server.
    pub run: String,
    /// What is done.
    pub fault: Fault,
    /// How long a fault that is held lasts at most.
    ///
    /// Milliseconds.
    pub hold: u64,
}

/// Answer to [`DrillOrder`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Struck {
    /// What was done.
    pub fault: Fault,
    /// Whether that was by an earlier order of the same run.
    pub before: bool,
}

/// `POST /v1/heal`: end the fault of this run now; answered when nothing of it is held any more. The epoch is that of the run; a higher one is no reason to go on holding, so it is not held
/// against what the manager knows. A run that holds nothing is a success; one that has not struck yet does not strike any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealOrder {
    /// The epoch of the run.
    pub epoch: Epoch,
    /// The run.
    pub run: String,
}

/// Why a manager did not carry out an order (HTTP 409 with this body).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase", tag = "refused")]
pub enum Refusal {
    /// A higher epoch is known.
    #[error("order under epoch {given}, but epoch {known} is known")]
    StaleEpoch {
        /// The epoch of the order.
        given: Epoch,
        /// The highest one the manager knows.
        known: Epoch,
    },
    /// The order names another replica, shard or volume than this one.
    #[error("{reason}")]
    NotMine {
        /// What does not fit.
        reason: String,
    },
    /// The manager was started without the permission for what was ordered (drill).
    #[error("{reason}")]
    NotAllowed {
        /// What would have to be set.
        reason: String,
    },
    /// The volume is not empty (build), or holds nothing yet (everything else).
    #[error("{reason}")]
    WrongPhase {
        /// What stands in the way.
        reason: String,
    },
    /// The server did not do what was asked within the deadline, or answered with an error.
    #[error("{step}: {reason}")]
    Failed {
        /// The step that failed.
        step: String,
        /// Why.
        reason: String,
    },
    /// For a reason that the reader does not know.
    #[error("refused for a reason that only a later version knows")]
    #[serde(other)]
    Unknown,
}
