//! What the threads of a server are doing: the answer of `GET /v1/stacks`. Pure.

use serde::{Deserialize, Serialize};

use crate::evidence::Millis;

/// The threads of mysqld as `/proc` shows them, taken within a bound: a thread that could not be read in time is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stacks {
    /// How long the taking took.
    pub took: Millis,
    /// Whether every thread is here.
    pub complete: bool,
    /// One entry per thread.
    pub threads: Vec<Thread>,
}

/// One thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Thread {
    /// Thread id in the pod's own namespace.
    pub id: u32,
    /// Name of the thread.
    pub name: String,
    /// One letter of `/proc/PID/task/TID/stat` (R, S, D, T, Z ...).
    pub state: char,
    /// The kernel function it sleeps in; empty when unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub waits_in: String,
    /// Its kernel stack, where the manager may read it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stack: String,
}
