//! What a server waits for: the kernel, the machine, a lock. Pure.

use serde::{Deserialize, Serialize};

use super::Millis;

/// How many threads in uninterruptible sleep a report names.
pub const MAX_SLEEPERS: usize = 4;

/// A thread of mysqld in uninterruptible sleep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sleeper {
    /// Thread id in the pod's own namespace.
    pub id: u32,
    /// Name of the thread.
    pub name: String,
    /// The kernel function it sleeps in; empty when the manager may not know it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub waits_in: String,
}

/// Pressure stall information of the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pressure {
    /// Whose it is.
    #[serde(default)]
    pub of: PressureOf,
    /// Waiting for a processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Stall>,
    /// Waiting for memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Stall>,
    /// Waiting for a disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io: Option<Stall>,
}

/// Whose pressure was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PressureOf {
    /// The container's own cgroup (version 2).
    Container,
    /// The node's, where cgroups do not tell.
    #[default]
    Node,
    /// One that the reader does not know.
    #[serde(other)]
    Unknown,
}

/// Shares of the last ten seconds, in per cent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stall {
    /// In which some task waited.
    pub some: f64,
    /// In which all tasks waited.
    pub full: f64,
}

/// How many characters of a statement's digest are told.
pub const MAX_DIGEST: usize = 200;

/// A session of the server that holds a lock which others wait for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LockHolder {
    /// Its number, as `KILL` takes it; None for a thread of the server itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<u64>,
    /// `account@host`; empty for a thread of the server itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// For how long its transaction has been open; without one, for how long it has been in its present state.
    pub held: Millis,
    /// What it holds: `row`, or the kind and name of an object such as `TABLE store.series`.
    pub locked: String,
    /// The digest of its latest statement, without values, shortened to [`MAX_DIGEST`] characters; empty when unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub statement: String,
}
