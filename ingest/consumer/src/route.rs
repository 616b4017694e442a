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

/// A change of primary to another replica that is claimed and not published yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The way to the target, as it will be when it is in office; None while its address is not known. Until then nothing is read or
    /// written there.
    pub to: Option<Route>,
    /// How it began.
    pub change: Change,
}

/// How a change of primary begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The primary serves until it is told to stop.
    Planned,
    /// Nobody knows what became of the primary: nothing is written there any more.
    Sudden,
}
