//! The custom resources of `understudy.dev/v1alpha1`. Pure: types, their schemas and rules; no client, no runtime.
//!
//! The YAML under `crds/` is generated from here by `understudy crds --write crds`; a test fails when it is stale.

pub mod conditions;
pub mod crds;
pub mod labels;
pub mod names;
mod schema;
pub mod v1alpha1;

pub use v1alpha1::{Consumer, Datastore, Drill, Failover, Replica, Shard};

/// The API group of every kind.
pub const GROUP: &str = "understudy.dev";
