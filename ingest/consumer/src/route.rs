//! The way to a shard's primary. Pure.

use std::net::SocketAddr;

use understudy_wire::{Epoch, ReplicaName};

/// Who takes writes, where, and under which epoch. Followed by watch; the last one known is kept while the API server is away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The primary.
    pub primary: ReplicaName,
    /// Its MySQL.
    pub address: SocketAddr,
    /// The highest epoch that was ever claimed: while the primary is being changed its server is not at this epoch yet, and nobody writes.
    /// Only while a planned change is claimed, the one before, under which the primary goes on until it refuses writes.
    pub epoch: Epoch,
}
