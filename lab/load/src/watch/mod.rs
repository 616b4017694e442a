//! The watcher beside the load: what a person outside would see of each shard, recorded as it was seen. I/O.
//!
//! [`routes`] follows each Shard's status, [`stored`] reads the stored offsets through the primary that it names,
//! [`visible`] reads the newest samples through the query API, [`direct`] is a client that stays with the first primary.
//! None of them judges: gaps are computed from the ledger.

pub mod direct;
pub mod routes;
pub mod stored;
pub mod visible;
