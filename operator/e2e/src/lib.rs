//! What the end-to-end tests share: a namespace of their own, waiting for a condition, faults from outside, the ledger.
//!
//! The tests see the product as a user does: through its resources, its HTTP ports and the faults of the lab. They need a cluster
//! with both charts installed; `cargo lab test --tier e2e` gives them one and sets the environment that [`cluster`] reads.

pub mod calm;
pub mod chance;
pub mod changes;
pub mod cluster;
pub mod crowd;
pub mod failures;
pub mod fault;
pub mod ledger;
pub mod manifest;
pub mod namespace;
pub mod operators;
pub mod plugin;
pub mod prometheus;
pub mod record;
pub mod rehearsal;
pub mod remote_read;
pub mod runbook;
pub mod see;
pub mod sql;
pub mod stage;
pub mod wait;

use std::sync::LazyLock;

use anyhow::Result;

/// Runs one test to its end, and keeps what it failed with. All tests share one runtime, because a client dies with the runtime that made
/// it.
pub fn run<T>(test: impl Future<Output = Result<T>>) -> Result<T> {
    static RUNTIME: LazyLock<tokio::runtime::Runtime> =
        LazyLock::new(|| tokio::runtime::Runtime::new().expect("threads can be started"));
    failures::watch_panics();
    let outcome = RUNTIME.block_on(test);
    if let Err(error) = &outcome {
        failures::keep(format_args!("{error:#}"));
    }
    outcome
}
