//! What every controller has at hand. Pure: handles only.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use understudy_link::{Authority, Identity};

use crate::apply::Applier;
use crate::cache::Caches;
use crate::events::Events;
use crate::lease::Leading;
use crate::metrics::Metrics;
use crate::recent::Recent;
use crate::settings::Settings;
use crate::topics::Topics;
use crate::troubles::Troubles;

/// The handles that controllers and stages share.
#[derive(Clone)]
pub struct Context {
    /// What the operator was told at start.
    pub settings: Arc<Settings>,
    /// Writes objects, each call with a deadline.
    pub applier: Applier,
    /// What was looked at lately.
    pub recent: Recent,
    /// What is known of the cluster.
    pub caches: Caches,
    /// Whether this instance may act; ask before each step.
    pub leading: Leading,
    /// Says things on objects.
    pub events: Events,
    /// What stands in the way of Shards.
    pub troubles: Troubles,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Who the operator is to managers and consumers; kept fresh.
    pub identity: Identity,
    /// Signs the certificates of shards and consumers.
    pub authority: Arc<Authority>,
    /// The Kafka topics of Datastores.
    pub topics: Arc<dyn Topics>,
    /// `ip:port` of the API server as pods reach it.
    pub api_server: Option<String>,
    /// Where tasks run; the process ends when all have.
    pub tasks: TaskTracker,
    /// Asks every task to end.
    pub stop: CancellationToken,
}
