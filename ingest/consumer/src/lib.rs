//! Reads partitions of a topic into one shard, exactly once, through every failover of the shard.
//!
//! How it holds, and how to write a view: `ingest/docs/consumer.md`. A view of one's own is a type with the trait [`View`] and a `main`
//! that calls [`service::main`].
//!
//! - [`view`]: the trait that a team writes: records in, statements in the open transaction out
//! - [`guard`], [`placement`], [`lanes`], [`machine`], [`batch`], [`complete`]: what may be written, where to read, what to do next, up to when
//!   all is stored (pure)
//! - [`route`], [`facts`], [`status`], [`takeover`]: where the primary is, what was seen of it, what is being done, how long a new one took
//!   (pure)
//! - [`session`], [`log`], [`run`], [`ahead`], [`hanging`]: the transaction, the topic, the driver between them, the connection to the next
//!   primary, sessions without an answer (I/O)
//! - [`watch`], [`publish`]: Shard and Datastore by watch, the Consumer's status (I/O)
//! - [`config`], [`metrics`], [`serve`], [`service`]: the process (I/O)
//! - [`timeseries`]: the view of the time-series store

pub mod ahead;
pub mod batch;
pub mod complete;
pub mod config;
pub mod facts;
pub mod guard;
pub mod hanging;
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
pub mod takeover;
#[cfg(feature = "timeseries")]
pub mod timeseries;
pub mod view;
pub mod watch;

pub use route::{Change, Route, Transition};
pub use view::{Decoded, Placed, Record, Reject, Rows, Tx, View, ViewError};
