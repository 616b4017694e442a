//! What a consumer is doing, for metrics, for `GET /v1/status` and for the Consumer's status. Pure.

use serde::Serialize;

use crate::lanes::{Fault, Lane};
use crate::machine::State;

/// One moment of one consumer process.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// The shard it feeds.
    pub shard: String,
    /// The word of its [`State`].
    pub state: &'static str,
    /// For a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Whether it applies records, or would if there were any.
    pub active: bool,
    /// The epoch of the route it follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// The primary it follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// The term it took, the last time it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub term: Option<u64>,
    /// Each partition that feeds the shard.
    pub partitions: Vec<Partition>,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Partition {
    /// Its number.
    pub partition: i32,
    /// What it is doing.
    pub state: PartitionState,
    /// The offset of the next record to store; None when nothing was ever stored.
    pub next_offset: Option<i64>,
    /// The end of the log, as last heard.
    pub end: Option<i64>,
    /// Records in the log that are not stored.
    pub lag_records: i64,
    /// Age of the oldest of them, in seconds.
    pub lag_seconds: f64,
    /// Everything acknowledged before this time is stored; milliseconds since 1970.
    pub complete_until_ms: i64,
    /// The offset that it does not pass, because another shard is fed from there on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    /// Records, or parts of records, that were put aside since the shard was made.
    pub dead_letters: u64,
    /// The word of the [`Fault`] that keeps it from going on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<&'static str>,
    /// For a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// As the Consumer's status has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum PartitionState {
    /// It advances, or there is nothing to read.
    Running,
    /// It is told not to read it.
    Paused,
    /// It may not write where it is, or cannot reach the primary.
    Fenced,
    /// It cannot advance.
    Stuck,
}

impl Snapshot {
    /// Nothing known yet.
    pub fn idle(shard: &str) -> Self {
        Self {
            shard: shard.to_owned(),
            state: State::Idle.word(),
            message: None,
            active: false,
            epoch: None,
            primary: None,
            term: None,
            partitions: Vec::new(),
        }
    }
}

/// What there is to say about a state; None for the good ones.
pub fn message(state: &State) -> Option<String> {
    match state {
        State::Idle => Some("there is no primary to follow".to_owned()),
        State::Claiming { owner: Some(owner) } => Some(format!("{owner} owns the data")),
        State::Fenced(why) => Some(why.to_string()),
        State::Cut(why) => Some(why.to_string()),
        State::Stuck(why) => Some(why.clone()),
        State::Claiming { owner: None } | State::Running | State::Paused | State::Stopped => None,
    }
}

/// What a partition is doing, by what its consumer is doing and what its lane says.
pub fn partition_state(state: &State, lane: &Lane) -> (PartitionState, Option<String>) {
    match (state, lane.fault()) {
        (State::Fenced(_) | State::Cut(_) | State::Idle | State::Claiming { .. } | State::Stopped, _) => {
            (PartitionState::Fenced, message(state))
        }
        (_, Some(fault)) => (PartitionState::Stuck, Some(advice(fault))),
        (State::Stuck(_), None) => (PartitionState::Stuck, message(state)),
        (State::Paused, None) => (PartitionState::Paused, None),
        (State::Running, None) if lane.is_paused() => (PartitionState::Paused, None),
        (State::Running, None) => (PartitionState::Running, None),
    }
}

fn advice(fault: &Fault) -> String {
    format!("{fault}; {}; other partitions go on", fault.remedy())
}

/// How many records of the log are not stored, counted from where the lane reads.
pub fn lag_records(lane: &Lane, end: Option<i64>) -> i64 {
    match (lane.stored().or(lane.next()), end) {
        (Some(stored), Some(end)) => (end - stored).max(0),
        _ => 0,
    }
}
