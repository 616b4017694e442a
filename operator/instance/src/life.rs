//! From what lies on the volume to a server that runs: look, fill when ordered to, serve. I/O.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use understudy_mysql::Instance;
use understudy_wire::evidence::BuildProgress;

use crate::build::{self, Plan};
use crate::config::Config;
use crate::datadir::{self, Found, Marker};
use crate::facts::{Life, Shared};
use crate::host::Host;
use crate::volume::{Watch, on_volume};

/// A volume that does not answer within this is asked again.
const LOOK_WITHIN: Duration = Duration::from_secs(5);

/// What the task needs.
pub struct Parts {
    /// What is known.
    pub shared: Arc<Shared>,
    /// The pod's settings.
    pub config: Arc<Config>,
    /// Starts mysqld.
    pub host: Arc<Host>,
    /// The volume.
    pub volume: Watch,
    /// A connection that nobody else uses.
    pub server: Arc<dyn Instance>,
}

/// Ends when mysqld has ended, or when stopped.
pub async fn run(parts: Parts, mut plans: mpsc::Receiver<Plan>, stop: CancellationToken) {
    let marker = match stop.run_until_cancelled(data(&parts, &mut plans)).await {
        Some(Some(marker)) => marker,
        Some(None) | None => return,
    };
    tracing::info!(origin = %marker.origin, "the volume holds this replica's data");
    parts.host.serve(&parts.shared, &*parts.server, stop).await;
}

/// Looks, and fills the volume when it is empty and that is ordered. After a build that failed it looks again: what was given up may
/// have been done all the same. None when there is nothing to serve.
async fn data(parts: &Parts, plans: &mut mpsc::Receiver<Plan>) -> Option<Marker> {
    loop {
        match look(parts).await {
            Found::Complete(marker) => {
                parts.shared.update(|facts| facts.build = None);
                return Some(marker);
            }
            Found::Unusable(reason) => {
                tracing::error!(%reason, "the volume is not usable");
                parts.shared.update(|facts| facts.life = Life::Unusable(reason));
                return None;
            }
            Found::Empty => {
                tracing::info!("the volume is empty, waiting for a build order");
                parts.shared.update(|facts| facts.life = Life::Empty);
                let plan = plans.recv().await?;
                if let Some(marker) = fill(parts, &plan).await {
                    return Some(marker);
                }
            }
        }
    }
}

async fn look(parts: &Parts) -> Found {
    let (replica, shard_uid) = (parts.config.replica.clone(), parts.config.shard_uid.clone());
    loop {
        let (replica, shard_uid) = (replica.clone(), shard_uid.clone());
        let look = move |volume: &std::path::Path| {
            let note = datadir::read_note(volume);
            datadir::examine(volume, &replica, &shard_uid).map(|found| (found, note))
        };
        match on_volume(&parts.config.volume, LOOK_WITHIN, look).await {
            Ok(Ok((found, note))) => {
                let note = parts.shared.update(|facts| {
                    facts.known = facts.known.max(note.known);
                    facts.fenced_under = facts.fenced_under.max(note.fenced_under);
                    facts.note()
                });
                parts.volume.keep(note);
                return found;
            }
            Ok(Err(e)) => {
                tracing::error!(error = %e, "the volume cannot be read");
                tokio::time::sleep(LOOK_WITHIN).await;
            }
            Err(e) => tracing::error!(error = %e, "the volume does not answer"),
        }
    }
}

/// Carries out a build order; None when it failed.
async fn fill(parts: &Parts, plan: &Plan) -> Option<Marker> {
    tracing::info!(?plan, "build begins");
    match build::build(&parts.config, &parts.shared, &parts.host, plan).await {
        Ok(marker) => {
            tracing::info!(origin = %marker.origin, "build done");
            parts.shared.update(|facts| {
                (facts.life, facts.build) = (Life::Starting, None);
            });
            Some(marker)
        }
        Err(e) => {
            tracing::error!(error = %e, "build failed");
            parts.shared.update(|facts| {
                let mut progress = facts.build.take().unwrap_or_else(|| progress_of(plan));
                progress.error = Some(e.to_string());
                facts.build = Some(progress);
                facts.life = Life::Looking;
            });
            None
        }
    }
}

fn progress_of(plan: &Plan) -> BuildProgress {
    BuildProgress { stage: plan.origin(), donor: None, done: 0, total: 0, eta: None, error: None }
}
