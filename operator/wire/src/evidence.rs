//! One observer's raw facts with their ages. Observers never report a verdict. Pure.
//!
//! A [`Report`] is the complete present state of one observer, not a delta: losing a report loses nothing but freshness.
//! Every age is a count of milliseconds on the observer's own monotonic clock at the moment of sending; the receiver adds
//! the time that has passed since it received the report, so no two clocks are ever compared.

mod strain;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use strain::{LockHolder, MAX_DIGEST, MAX_SLEEPERS, Pressure, PressureOf, Sleeper, Stall};

use crate::{Epoch, GtidSet, ReplicaName};

/// Milliseconds on a monotonic clock.
pub type Millis = u64;

/// A time as reports tell it. One that is too long for the number is the longest.
pub fn millis(time: Duration) -> Millis {
    Millis::try_from(time.as_millis()).unwrap_or(Millis::MAX)
}

/// Who saw it. The kind is the failure domain the observer watches from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Observer {
    /// The instance manager beside the server itself.
    Manager {
        /// The replica it manages.
        replica: ReplicaName,
    },
    /// The instance manager of another replica of the shard, probing over the network.
    Peer {
        /// The replica whose manager it is, not the one it probes.
        replica: ReplicaName,
    },
    /// A consumer of the shard, by the name of its pod.
    Consumer {
        /// The name of its pod.
        pod: String,
    },
    /// The operator, by the name of its pod.
    Operator {
        /// The name of its pod.
        pod: String,
    },
    /// A kind that the reader does not know.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manager { replica } => write!(f, "manager {replica}"),
            Self::Peer { replica } => write!(f, "peer {replica}"),
            Self::Consumer { pod } => write!(f, "consumer {pod}"),
            Self::Operator { pod } => write!(f, "operator {pod}"),
            Self::Unknown => f.write_str("an observer of an unknown kind"),
        }
    }
}

/// Everything one observer has to say now; one line of the evidence stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Who speaks.
    pub observer: Observer,
    /// Grows by one per report of this observer's process.
    pub seq: u64,
    /// The longest gap of the observer's own loop over the last 5 s. Above twice the interval it was paused itself and must not accuse others.
    pub own_gap: Millis,
    /// The interval at which this observer's loop means to run.
    pub interval: Millis,
    /// Its facts, one entry per replica it sees.
    pub evidence: Vec<Evidence>,
    /// What a consumer knows of the Kafka partitions that feed the shard; empty from every other observer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<LogRange>,
}

impl Report {
    /// The highest epoch that it speaks of; zero if of none.
    pub fn highest_epoch(&self) -> Epoch {
        let servers = self.evidence.iter().filter_map(|evidence| evidence.server.as_ref());
        servers.map(Server::highest_epoch).max().unwrap_or_default()
    }
}

/// The offsets that Kafka still holds of one partition, and the age of that reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogRange {
    /// Name of the topic.
    pub topic: String,
    /// Id of the topic, which no other of its name has; None from an observer, or of brokers, that do not tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
    /// Number of the partition.
    pub partition: i32,
    /// Lowest offset that can still be read (the low watermark).
    pub earliest: i64,
    /// The offset that the next record will get (the high watermark).
    pub end: i64,
    /// Age of the reading.
    pub age: Millis,
}

/// One observer's facts about one replica.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// The replica that the facts are about.
    pub subject: ReplicaName,
    /// Staged probe over a fresh connection (or, for a consumer, its own transactions). None: this observer does not probe the subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// What only the instance manager beside the server can see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<Server>,
}

/// The stages of a probe, in order; the one that fails names the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// The TCP connection.
    Tcp,
    /// The server's first packet.
    Greeting,
    /// Logging in, TLS included.
    Auth,
    /// A statement that reads nothing from disk.
    Select,
    /// A commit of one row in the heartbeat table; only on a server that is meant to take writes.
    Commit,
    /// One that the reader does not know.
    #[serde(other)]
    Unknown,
}

/// How a probe ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "how")]
pub enum ProbeError {
    /// The stage did not answer within its deadline.
    Timeout,
    /// The connection was refused or reset.
    Refused {
        /// The system's words.
        message: String,
    },
    /// The server answered that it has no connection left.
    TooManyConnections {
        /// For whom; one that does not say means everybody.
        #[serde(default)]
        whose: Limit,
    },
    /// The server is read-only (error 1290 or 1836): it does not serve as a primary.
    ReadOnly,
    /// The server answered with another error.
    Server {
        /// MySQL's error number.
        code: u16,
        /// MySQL's words.
        message: String,
    },
    /// Anything else, TLS included.
    Other {
        /// What happened.
        message: String,
    },
    /// What the reader does not know. Nothing follows from it for the server.
    #[serde(other)]
    Unknown,
}

impl ProbeError {
    /// Whether it was the server that said so: it took the connection and spoke.
    pub fn is_answer(&self) -> bool {
        match self {
            Self::TooManyConnections { .. } | Self::ReadOnly | Self::Server { .. } => true,
            Self::Timeout | Self::Refused { .. } | Self::Other { .. } | Self::Unknown => false,
        }
    }
}

/// Whose limit of connections was reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Limit {
    /// That of the server: nobody gets in but through the admin port (error 1040).
    #[default]
    Server,
    /// That of the observer's own account (errors 1203 and 1226): of others it says nothing.
    Account,
    /// One that the reader does not know: of others it says nothing.
    #[serde(other)]
    Unknown,
}

/// The last success and the present run of failures of one kind of probe against one replica.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// Age of the last complete success up to and including [`Stage::Commit`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed: Option<Millis>,
    /// Age of the first commit of the present run of successes: with [`committed`](Self::committed) of the server before, the write gap as this observer saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committing_since: Option<Millis>,
    /// Age of the last success up to and including [`Stage::Select`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selected: Option<Millis>,
    /// Duration of the last successful commit stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_took: Option<Millis>,
    /// The present run of failures; None after a success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<Failing>,
    /// The probe in flight has been in this stage for this long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<InFlight>,
}

/// A run of failures without a success between them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failing {
    /// Age of the first failure of the run.
    pub since: Millis,
    /// Age of the latest one.
    pub latest: Millis,
    /// How many failures the run has so far.
    pub count: u32,
    /// Where the latest one failed.
    pub stage: Stage,
    /// How the latest one failed.
    pub error: ProbeError,
    /// Age of the beginning of the first attempt of the run that nobody answered ([`ProbeError::Timeout`]): what it waited is part of it, so it
    /// is older than its failure by the deadline of the stage. None: all were answered, or the observer does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unanswered: Option<Millis>,
    /// Age of the latest attempt of the run that the server itself answered, with an error ([`ProbeError::is_answer`]). None: it answered none, or
    /// the observer does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<Millis>,
}

/// A probe that has not ended yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InFlight {
    /// The stage.
    pub stage: Stage,
    /// For how long.
    pub age: Millis,
}

/// What the instance manager sees of its own server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Server {
    /// Where the server is in its life.
    pub phase: Phase,
    /// `server_uuid`, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// One letter of `/proc/PID/stat` (R, S, D, T, Z ...) of mysqld's main thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process_state: Option<char>,
    /// For how long the manager has seen it stopped (T or t): from the first reading of an unbroken run of such to the latest. None: it is not
    /// stopped, or the manager does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Millis>,
    /// How many threads of mysqld are in uninterruptible sleep.
    #[serde(default)]
    pub threads_in_d: u32,
    /// The first few of those threads; at most [`MAX_SLEEPERS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sleepers: Vec<Sleeper>,
    /// Who waits for processor, memory and disk; None where the kernel does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressure>,
    /// Who holds the lock that commits of the manager's own probe wait for, as read once in the present run of such commits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_holder: Option<Aged<LockHolder>>,
    /// Highest epoch this manager has been told or has read in the epoch table.
    pub epoch: Epoch,
    /// The epoch under which this server takes writes: it is writable, and the row of its own epoch table names this replica. None otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<Epoch>,
    /// Whether the server refuses writes. None: could not be read within its deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// Probe through the admin port, which connections of clients cannot use up; the [`Evidence::probe`] of the same manager takes the way that clients take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<Probe>,
    /// Why writes are refused, when the manager refuses them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fenced: Option<Fence>,
    /// Executed GTIDs and the age of the reading. Kept from the last good reading while the server does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executed: Option<Aged<GtidSet>>,
    /// Stored consumer offsets: (consumer, topic, partition, next offset), with the age of the reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offsets: Option<Aged<Vec<StoredOffset>>>,
    /// State of replication; None on a server that has no source, or when it could not be read yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication: Option<Aged<Replication>>,
    /// Up to where InnoDB's log is on disk (`Innodb_redo_log_flushed_to_disk_lsn`), with the age of its last change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lsn: Option<Aged<u64>>,
    /// The fsync probe on the data volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fsync: Option<Fsync>,
    /// Space on the data volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<Volume>,
    /// Progress of the build, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildProgress>,
    /// The last error that mysqld wrote to its log since it was started, shortened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

impl Server {
    fn highest_epoch(&self) -> Epoch {
        let fenced_by = match &self.fenced {
            Some(Fence::Epoch { epoch, .. }) => *epoch,
            Some(Fence::Isolated { .. } | Fence::Unknown) | None => Epoch::default(),
        };
        self.epoch.max(self.serving.unwrap_or_default()).max(fenced_by)
    }
}

/// A value with the age of its reading.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Aged<T> {
    /// Age of the reading.
    pub age: Millis,
    /// What was read.
    pub value: T,
}

/// Where the server is in its life.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "is")]
pub enum Phase {
    /// The volume holds no data directory; the manager waits for a build order.
    Empty,
    /// The volume holds something that is neither empty nor a complete data directory of this replica (an interrupted build). It is never initialised over.
    Unusable {
        /// What was found.
        reason: String,
    },
    /// A build order is being carried out.
    Building,
    /// mysqld was started and does not answer yet (crash recovery included).
    Starting,
    /// mysqld answers, or did until it got stuck; the probes tell.
    Running,
    /// mysqld ended. The manager does not start it again.
    Exited {
        /// Its exit code, when it ended by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<i32>,
        /// The signal that ended it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<i32>,
        /// How long ago.
        age: Millis,
    },
    /// The pod was asked to stop: a planned end.
    Stopping,
    /// One that the reader does not know: neither does it serve for all that is known, nor has it ended.
    #[serde(other)]
    Unknown,
}

/// Why and since when the manager makes the server refuse writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "why")]
pub enum Fence {
    /// A higher epoch is known.
    Epoch {
        /// The higher one.
        epoch: Epoch,
        /// How long ago the fence fell.
        age: Millis,
    },
    /// None of the operator, the API server and any peer answered for 3 s.
    Isolated {
        /// How long ago the fence fell.
        age: Millis,
    },
    /// For a reason that the reader does not know.
    #[serde(other)]
    Unknown,
}

/// State of replication from the source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replication {
    /// `host:port` of the source; None when none is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Whether the receiver runs and is connected.
    pub receiving: bool,
    /// Whether the applier runs.
    pub applying: bool,
    /// GTIDs received but perhaps not yet applied.
    pub received: GtidSet,
    /// How far behind the source's commit time the applier is; None when unknown, as it is until something has arrived over the present connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Millis>,
    /// Last error of the receiver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive_error: Option<String>,
    /// Last error of the applier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apply_error: Option<String>,
}

/// One row of `understudy.consumer_offset`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredOffset {
    /// Name of the Consumer.
    pub consumer: String,
    /// Name of the topic.
    pub topic: String,
    /// Number of the partition.
    pub partition: i32,
    /// The offset of the first record that is not stored yet.
    pub next_offset: i64,
}

/// The fsync probe on the data volume: a thread of its own, judged from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fsync {
    /// Age of the last success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succeeded: Option<Millis>,
    /// Duration of the last success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took: Option<Millis>,
    /// The probe in flight has taken this long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<Millis>,
    /// errno name of the last failure (EIO, EROFS, ENOSPC), None after a success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Space on the data volume, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Size of the file system.
    pub total: u64,
    /// Bytes that mysqld can still use.
    pub free: u64,
}

/// How far the build of this replica is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildProgress {
    /// `initialise`, or the clone plugin's stage (`DROP DATA`, `FILE COPY`, ...).
    pub stage: String,
    /// Bytes copied; zero while unknown.
    pub done: u64,
    /// Bytes in all, estimated; zero while unknown.
    pub total: u64,
    /// Estimated time left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<Millis>,
    /// Who is being cloned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub donor: Option<ReplicaName>,
    /// Why the last try failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
