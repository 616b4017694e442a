//! The only crate of the operator that speaks MySQL. I/O.
//!
//! - [`probe`]: one staged attempt on a fresh connection, and the loop that makes them
//! - [`instance`]: what an instance manager needs of its own server, as a trait
//! - [`server`]: that trait over a real server
//! - [`fake`]: that trait in memory; both pass the same contract
//! - [`schema`]: accounts and tables that a new shard starts with
//! - [`error`]: which step failed, and MySQL's error codes told apart
//!
//! Everything has a deadline. A connection that missed one is dropped, never waited for.

pub mod error;
pub mod fake;
pub mod instance;
pub mod probe;
pub mod schema;
pub mod server;
mod tls;

pub use error::SqlError;
pub use instance::Instance;
pub use probe::{Deadlines, Depth, Prober, Target};
pub use server::{Connect, Server};
pub use tls::{Trust, TrustError};
