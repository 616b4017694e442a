//! The planned end: stop taking writes, stop mysqld within its bound, go. I/O.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use understudy_mysql::Instance;

use crate::config::Config;
use crate::facts::{Life, Shared, Why};
use crate::fence::{Body, fence};
use crate::host::Host;

const KILLED_WITHIN: Duration = Duration::from_secs(2);

/// Waits for SIGTERM or SIGINT.
pub async fn asked() -> std::io::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

/// Ends mysqld. What it does is in the evidence as [`Life`] with `stopping`; a thread that hangs in the kernel does not hold this up for longer than its bounds.
pub async fn stop(shared: &Shared, config: &Config, host: &Arc<Host>, server: &dyn Instance) {
    shared.update(|facts| facts.stopping = true);
    let Some(process) = host.process().filter(|p| p.exit().is_none()) else { return };
    if shared.read(|facts| facts.life == Life::Building) {
        tracing::info!("a build is under way; what it made so far is cleared at the next start");
        process.signal(Signal::KILL);
    } else {
        if let Some(epoch) = shared.serving() {
            let body: Arc<dyn Body> = host.clone();
            let fenced = fence(shared, server, &body, Why::Epoch(epoch), true).await;
            tracing::info!(?fenced, "writes refused before the end");
        }
        process.signal(Signal::TERM);
        if tokio::time::timeout(config.stop_within, process.ended()).await.is_err() {
            tracing::warn!(within = ?config.stop_within, "mysqld does not stop and is killed");
            process.signal(Signal::KILL);
        }
    }
    if tokio::time::timeout(KILLED_WITHIN, process.ended()).await.is_err() {
        tracing::warn!("mysqld does not end; it hangs in the kernel");
    }
}
