//! Reads partitions of a topic into one shard, exactly once, through every failover of the shard.
//!
//! How it holds, and how to write a view: `ingest/docs/consumer.md`. A view of one's own is a type with the trait [`View`] and a `main`
//! that calls [`service::main`].
//!
//! - [`view`]: the trait that a team writes: records in, statements in the open transaction out
//! - [`guard`], [`placement`], [`lanes`], [`machine`], [`batch`], [`complete`]: what may be written, where to read, what to do next, up to when
//!   all is stored (pure)
//! - [`route`], [`facts`], [`status`]: where the primary is, what was seen of it, what is being done (pure)
//! - [`session`], [`log`], [`run`]: the transaction, the topic, and the driver between them (I/O)
//! - [`watch`], [`publish`]: Shard and Datastore by watch, the Consumer's status (I/O)
//! - [`config`], [`metrics`], [`serve`], [`service`]: the process (I/O)
//! - [`timeseries`]: the view of the time-series store

pub mod batch;
pub mod complete;
pub mod config;
pub mod facts;
pub mod guard;
pub mod lanes;
pub mod log;
pub mod machine;
pub mod metrics;
pub mod placement;
pub mod publish;
pub mod route;
pub mod run;
pub mod serve;
pub mod service;
pub mod session;
pub mod status;
#[cfg(feature = "timeseries")]
pub mod timeseries;
pub mod view;
pub mod watch;

pub use route::Route;
pub use view::{Decoded, Placed, Record, Reject, Rows, Tx, View, ViewError};
