//! What a cluster is made of: nodes, volumes, pods with a server and its manager, letters on their way.

use understudy_decide::Order;
use understudy_decide::failover::snapshot::Condemned;
use understudy_wire::evidence::Millis;
use understudy_wire::gtid::SourceId;
use understudy_wire::order::Peers;
use understudy_wire::{Epoch, GtidSet, ReplicaName};

use super::pauses::Rhythm;
use super::watch::Watch;

/// Thousandths of a volume that are free as a rule.
pub const ROOMY: u64 = 500;

#[derive(Clone, Debug)]
pub struct NodeW {
    pub name: String,
    pub up: bool,
    /// Until when everything on it stands still.
    pub stalls: Option<Millis>,
    /// The operator cannot reach it, everybody else can.
    pub cut: bool,
    /// When its kubelet spoke to Kubernetes last.
    pub spoke: Millis,
}

impl NodeW {
    /// Whether anything moves on it.
    pub fn runs(&self) -> bool {
        self.up && self.stalls.is_none()
    }
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
    /// It answers writes with EIO.
    pub fails: bool,
    /// How long an fsync takes; 0: as long as one on a healthy volume.
    pub slow: Millis,
    /// Thousandths of it that are free.
    pub free: u64,
    /// When room was taken on it last.
    pub filled: Option<Millis>,
    pub role: Option<String>,
}

impl Disk {
    pub fn new(uid: String) -> Self {
        Self {
            uid,
            node: None,
            data: None,
            unusable: false,
            hangs: None,
            fails: false,
            slow: 0,
            free: ROOMY,
            filled: None,
            role: None,
        }
    }

    /// Whether a commit comes to an end on it.
    pub fn takes_writes(&self) -> bool {
        self.hangs.is_none() && !self.fails && self.free > 0
    }
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
    /// When it goes on by itself; None: somebody has to thaw it.
    pub frozen_until: Option<Millis>,
    /// It accepts work, and nothing moves in it.
    pub deadlocked: bool,
    /// Until when a session of somebody else holds the lock that every commit needs.
    pub locked_until: Option<Millis>,
    /// When its log moved last.
    pub moved: Millis,
    /// The loop of its manager.
    pub rhythm: Rhythm,
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

impl PodW {
    pub fn new(uid: String, ip: String, node: usize, process: Process, known: Epoch, now: Millis) -> Self {
        Self {
            uid,
            ip,
            node,
            process,
            frozen: false,
            frozen_until: None,
            deadlocked: false,
            locked_until: None,
            moved: now,
            rhythm: Rhythm::default(),
            lags: None,
            broken: false,
            ended: false,
            terminating_at: None,
            read_only: true,
            source: None,
            received: GtidSet::new(),
            known,
            fenced: None,
            peers: None,
            probe: None,
            last_read: now,
            made: now,
            role: None,
        }
    }

    /// Whether its server does what it is told.
    pub fn answers(&self) -> bool {
        self.process == Process::Running && !self.frozen && !self.deadlocked
    }
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
