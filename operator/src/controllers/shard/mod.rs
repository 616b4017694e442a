//! Shard: its replicas, and who of them is primary.

pub mod build;
