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
    /// The highest epoch that was ever claimed. While the primary is being changed its server is not at this epoch yet, and nobody writes.
    pub epoch: Epoch,
}
