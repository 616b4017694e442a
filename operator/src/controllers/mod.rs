//! One module a kind. Each takes its part of the changes and does nothing while another instance leads.

mod availability;
pub mod consumer;
pub mod datastore;
pub mod drill;
pub mod failover;
pub mod furnish;
pub mod queue;
pub mod shard;
pub mod workload;

use crate::context::Context;

/// Starts every controller.
pub fn start(context: &Context) {
    datastore::start(context);
    consumer::start(context);
    furnish::start(context);
    failover::start(context);
    drill::start(context);
    shard::start(context);
}
