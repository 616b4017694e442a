//! The operator's shell: it watches, holds the lease, and carries out what the pure core decides.
//!
//! - [`settings`], [`telemetry`], [`runtime`]: how it starts and stops
//! - [`cache`]: what is known of the cluster, by watching
//! - [`lease`]: which instance acts
//! - [`apply`]: how objects are written, [`ownership`]: and which are left alone; [`backoff`], [`recent`]: when one is tried or looked at again
//! - [`events`], [`troubles`], [`malformed`], [`metrics`], [`admin`], [`errors`]: what it says about itself
//! - [`farewell`]: what becomes of data when a Datastore or a Shard is deleted
//! - [`authority`]: the certificate authority of the installation
//! - [`topics`]: the Kafka topics of Datastores
//! - [`evidence`]: what observers say of replicas
//! - [`controllers`]: one module a kind

pub mod admin;
pub mod apply;
pub mod authority;
pub mod backoff;
pub mod cache;
pub mod context;
pub mod controllers;
pub mod errors;
pub mod events;
pub mod evidence;
#[cfg(test)]
mod fake;
pub mod farewell;
pub mod lease;
pub mod malformed;
pub mod metrics;
pub mod ownership;
pub mod recent;
pub mod runtime;
pub mod settings;
pub mod telemetry;
pub mod topics;
pub mod troubles;

pub use context::Context;
