//! Making the server refuse writes, whatever it takes. I/O.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use understudy_mysql::{Instance, SqlError};
use understudy_wire::GtidSet;
use understudy_wire::order::Fenced;
use understudy_wire::stacks::Stacks;

use crate::facts::{Life, Shared, Why};
use crate::host::Host;
use crate::proc;

/// A server that does not obey within this is killed.
pub const OBEYS_WITHIN: Duration = Duration::from_secs(1);
/// A planned end lets transactions under way finish first, for this long.
pub const PLANNED_WITHIN: Duration = Duration::from_secs(3);
/// How long taking stacks before the kill may last.
const STACKS_WITHIN: Duration = Duration::from_millis(300);
const READ_WITHIN: Duration = Duration::from_millis(500);

/// mysqld's process, for when the server does not obey.
pub trait Body: Send + Sync {
    /// What its threads do, as far as can be read within the bound.
    fn stacks(&self, within: Duration) -> Stacks;
    /// Ends it without asking.
    fn kill(&self);
}

impl Body for Host {
    fn stacks(&self, within: Duration) -> Stacks {
        self.process().filter(|p| p.exit().is_none()).map_or_else(Stacks::default, |p| proc::stacks(p.pid(), within))
    }

    fn kill(&self) {
        self.signal(Signal::KILL);
    }
}

/// What mysqld's threads do, read in a thread of its own: the kernel may keep a reader of /proc waiting, which is given up then. None
/// when nothing came in twice the bound.
pub async fn stacks_of(body: &Arc<dyn Body>, within: Duration) -> Option<Stacks> {
    let (done, taken) = tokio::sync::oneshot::channel();
    let body = body.clone();
    let reading = move || drop(done.send(body.stacks(within)));
    if let Err(e) = std::thread::Builder::new().name("stacks".to_owned()).spawn(reading) {
        tracing::warn!(error = %e, "no thread to read stacks in");
        return None;
    }
    tokio::time::timeout(2 * within, taken).await.ok()?.ok()
}

/// Refuses writes and cuts connections; a planned one leaves the cutting to the order to follow: until then clients can only read,
/// and all of them coming back at once would hold up the change. Never takes longer than the bounds above together.
pub async fn fence(shared: &Shared, server: &dyn Instance, body: &Arc<dyn Body>, why: Why, planned: bool) -> Fenced {
    shared.update(|facts| {
        if facts.fence.is_none_or(|(present, _)| present != why) {
            facts.fence = Some((why, Instant::now()));
        }
    });
    // A server that has not come up yet starts read-only, and one that has ended takes nothing.
    if shared.read(|facts| facts.life != Life::Running) {
        return Fenced { executed: None, killed: false };
    }
    let begun = Instant::now();
    match obey(server, planned).await {
        Ok(()) => {
            tracing::info!(?why, planned, took = ?begun.elapsed(), "refuses writes");
            Fenced { executed: executed(shared, server).await, killed: false }
        }
        Err(e) => {
            let stacks = stacks_of(body, STACKS_WITHIN).await.unwrap_or_default();
            body.kill();
            tracing::error!(error = %e, stacks = %serde_json::to_string(&stacks).unwrap_or_default(), "server did not obey the fence and was killed");
            Fenced { executed: None, killed: true }
        }
    }
}

async fn obey(server: &dyn Instance, planned: bool) -> Result<(), SqlError> {
    if planned {
        // Stops new writes, waits for those that are committing. What holds on longer is cut below like in any fence.
        match server.refuse_writes(PLANNED_WITHIN).await {
            Ok(()) => return Ok(()),
            Err(e) => tracing::warn!(error = %e, "transactions under way do not end, they are cut"),
        }
    }
    let cut_and_refuse = async {
        let first = server.cut_clients(OBEYS_WITHIN).await?;
        server.refuse_writes(OBEYS_WITHIN).await?;
        // Whoever came in between the two could only read.
        let second = server.cut_clients(OBEYS_WITHIN).await?;
        tracing::info!(connections = first + second, "clients cut");
        Ok(())
    };
    let step = "fence";
    tokio::time::timeout(OBEYS_WITHIN, cut_and_refuse)
        .await
        .unwrap_or(Err(SqlError::Deadline { step, within: OBEYS_WITHIN }))
}

async fn executed(shared: &Shared, server: &dyn Instance) -> Option<GtidSet> {
    let status = server.status(READ_WITHIN).await.ok()?;
    let executed = status.executed.clone();
    shared.update(|facts| facts.take_status(status, Instant::now()));
    shared.tell();
    Some(executed)
}
