//! Version `v1alpha1`: one module a kind, and what kinds share in [`common`].

#![allow(clippy::duplicated_attributes, reason = "columns of one type are no duplicates")]

pub mod availability;
pub mod common;
pub mod consumer;
pub mod datastore;
pub mod drill;
pub mod failover;
pub mod replica;
pub mod shard;

pub use availability::*;
pub use common::*;
pub use consumer::*;
pub use datastore::*;
pub use drill::*;
pub use failover::*;
pub use replica::*;
pub use shard::*;
