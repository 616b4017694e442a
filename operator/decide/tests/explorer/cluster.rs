//! What a cluster is made of: nodes, volumes, pods with a server and its manager, letters on their way.

use understudy_decide::Order;
use understudy_decide::failover::snapshot::Condemned;
use understudy_wire::evidence::Millis;
use understudy_wire::gtid::SourceId;
use understudy_wire::order::Peers;
use understudy_wire::{Epoch, GtidSet, ReplicaName};

use super::watch::Watch;

#[derive(Clone, Debug)]
pub struct NodeW {
    pub name: String,
    pub up: bool,
    /// The operator cannot reach it, everybody else can.
    pub cut: bool,
    /// When its kubelet spoke to Kubernetes last.
    pub spoke: Millis,
}

#[derive(Clone, Debug)]
pub struct Data {
    pub executed: GtidSet,
    pub offset: i64,
    pub row: Option<(Epoch, ReplicaName)>,
}

#[derive(Clone, Debug)]
pub struct Disk {
    pub uid: String,
    pub node: Option<usize>,
    pub data: Option<Data>,
    pub unusable: bool,
    /// Since when writes to it hang.
    pub hangs: Option<Millis>,
    pub role: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Process {
    /// No data, or not started.
    None,
    Building {
        until: Millis,
        donor: ReplicaName,
    },
    Starting {
        until: Millis,
    },
    Running,
    Exited {
        at: Millis,
    },
}

#[derive(Clone, Debug)]
pub struct PodW {
    pub uid: String,
    pub ip: String,
    pub node: usize,
    pub process: Process,
    pub frozen: bool,
    /// Since when its applier stands still.
    pub lags: Option<Millis>,
    /// Its applier ended with an error.
    pub broken: bool,
    /// Evicted, or its node was shut down: it stays there, and nothing runs in it again.
    pub ended: bool,
    pub terminating_at: Option<Millis>,
    pub read_only: bool,
    pub source: Option<(ReplicaName, String)>,
    pub received: GtidSet,
    pub known: Epoch,
    pub fenced: Option<Epoch>,
    pub peers: Option<Peers>,
    pub probe: Option<(ReplicaName, Watch)>,
    pub last_read: Millis,
    pub made: Millis,
    pub role: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Rep {
    pub uid: String,
    pub server_id: u32,
    pub condemned: Option<Condemned>,
    pub replaces: Option<ReplicaName>,
    pub avoid: Vec<String>,
    pub pod: Option<PodW>,
    pub disk: Option<Disk>,
    pub made: Millis,
    /// Its status tells its `server_uuid`.
    pub is_known: bool,
}

impl Rep {
    pub fn source_id(&self) -> SourceId {
        SourceId::from_bytes([u8::try_from(self.server_id % 251).expect("small"); 16])
    }
}

/// An order on its way.
#[derive(Clone, Debug)]
pub struct Letter {
    pub arrives: Millis,
    /// How long its manager may wait before it answers.
    pub until: Millis,
    pub to: ReplicaName,
    pub pod: String,
    pub order: Order,
    /// The operator process that sent it; None: the answer gets lost.
    pub answer_to: Option<u64>,
}
