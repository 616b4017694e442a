//! What an instance manager needs of its own server. The trait only; no I/O here.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use understudy_wire::evidence::{LockHolder, Replication, StoredOffset};
use understudy_wire::{Epoch, GtidSet, ReplicaName};

use crate::error::SqlError;
use crate::probe::Account;

/// What is read of a server again and again.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// `server_uuid`.
    pub uuid: String,
    /// Whether the server refuses writes of everybody (`super_read_only`).
    pub read_only: bool,
    /// Executed transactions.
    pub executed: GtidSet,
    /// InnoDB's log sequence number; None when the server does not say.
    pub lsn: Option<u64>,
}

/// The one row of `understudy.epoch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochRow {
    /// The epoch.
    pub epoch: Epoch,
    /// The replica that was promoted under it.
    pub primary: ReplicaName,
}

/// Where to replicate from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// `ip:port`.
    pub address: SocketAddr,
    /// Account with the right to replicate.
    pub account: Account,
    /// PEM file of the authority that signs servers' certificates, as mysqld sees it.
    pub ca_file: String,
}

/// Where to clone from, and how much it may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Donor {
    /// `ip:port`.
    pub address: SocketAddr,
    /// Account with the right to clone.
    pub account: Account,
    /// PEM file of the authority that signs servers' certificates, as mysqld sees it.
    pub ca_file: String,
    /// Network bandwidth, MiB per second.
    pub mib_per_second: u32,
}

/// How far a clone is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloneProgress {
    /// The stage that runs, as the plugin names it (`DROP DATA`, `FILE COPY`, ...).
    pub stage: String,
    /// Bytes moved so far, all stages.
    pub done: u64,
    /// Bytes estimated, all stages.
    pub total: u64,
    /// Why it failed, when it did.
    pub error: Option<String>,
}

/// One server, as its own manager sees it. Each call has a deadline and leaves nothing waiting behind when it is missed.
///
/// Everything is idempotent: doing twice what has been done changes nothing.
#[async_trait]
pub trait Instance: Send + Sync {
    /// Identity, read-only state, executed transactions, log sequence number.
    async fn status(&self, within: Duration) -> Result<Status, SqlError>;

    /// The epoch row; None when there is none yet.
    async fn epoch(&self, within: Duration) -> Result<Option<EpochRow>, SqlError>;

    /// Every stored consumer offset.
    async fn offsets(&self, within: Duration) -> Result<Vec<StoredOffset>, SqlError>;

    /// State of replication; None when the server has no source.
    async fn replication(&self, within: Duration) -> Result<Option<Replication>, SqlError>;

    /// Who holds a lock that a session of a probe or of a consumer waits for now: of several the one that holds the most of the server, and
    /// of those the one that has held it for longest. None when nobody waits.
    async fn lock_holder(&self, within: Duration) -> Result<Option<LockHolder>, SqlError>;

    /// Makes the server refuse writes of everybody. Waits for commits under way, at most a second.
    async fn refuse_writes(&self, within: Duration) -> Result<(), SqlError>;

    /// Lets the server take writes.
    async fn take_writes(&self, within: Duration) -> Result<(), SqlError>;

    /// Cuts every connection of clients; the manager's own and those of replicas stay. How many were cut.
    async fn cut_clients(&self, within: Duration) -> Result<u32, SqlError>;

    /// Replicates from this source with GTID auto-position. Does not disturb a receiver that already does, or is on its way to it without an error.
    async fn follow(&self, source: &Source, within: Duration) -> Result<(), SqlError>;

    /// Stops receiving and leaves the applier running. Returns when the receiver has ended: at once when it is connected, whatever became of its
    /// source. One that is on its way to a source that does not answer takes as long as its attempt, up to `replica_net_timeout`.
    async fn stop_receiving(&self, within: Duration) -> Result<(), SqlError>;

    /// Stops applying, whatever the receiver does. What was received stays until [`Instance::forget_source`], and nothing of it is applied before
    /// the next [`Instance::follow`].
    async fn stop_applying(&self, within: Duration) -> Result<(), SqlError>;

    /// Waits until these transactions are executed; whether they are.
    async fn wait_executed(&self, gtids: &GtidSet, within: Duration) -> Result<bool, SqlError>;

    /// Stops replication, throws away what was received and not applied, and forgets the source.
    async fn forget_source(&self, within: Duration) -> Result<(), SqlError>;

    /// Writes the epoch row, unless it already holds a higher epoch ([`SqlError::OlderEpoch`]). Writing the row that is there is a success.
    async fn write_epoch(&self, row: &EpochRow, at_ms: i64, within: Duration) -> Result<(), SqlError>;

    /// Lets threads of their own write InnoDB's log (`innodb_log_writer_threads`) from now on, instead of each transaction its own part.
    async fn use_log_writers(&self, within: Duration) -> Result<(), SqlError>;

    /// Reads the server's certificate files again.
    async fn reload_certificates(&self, within: Duration) -> Result<(), SqlError>;

    /// Replaces all data by the donor's. On success the server shuts itself down.
    async fn clone_from(&self, donor: &Donor, within: Duration) -> Result<(), SqlError>;

    /// How far the clone is; None when there was none.
    async fn clone_progress(&self, within: Duration) -> Result<Option<CloneProgress>, SqlError>;
}
