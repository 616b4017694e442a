//! The MySQL accounts of a shard. Pure: names.
//!
//! Whoever makes them, logs in with them, keeps their passwords, or looks for them in what a server says must mean the same ones. Each is also
//! a key of the Secret with the shard's passwords, and the name of a file in a pod.

/// The manager's own, from the pod itself only.
pub const ADMIN: &str = "understudy_admin";
/// Replication and cloning.
pub const REPLICATION: &str = "understudy_repl";
/// Probes: the heartbeat table and the epoch.
pub const PROBE: &str = "understudy_probe";
/// Consumers: data, offsets and ownership.
pub const CONSUMER: &str = "understudy_consumer";
/// Queries.
pub const READER: &str = "understudy_reader";
/// Every account, in the order of their making.
pub const ALL: [&str; 5] = [ADMIN, REPLICATION, PROBE, CONSUMER, READER];
