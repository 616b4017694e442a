//! How the ingest services speak to a shard's MySQL: opened in named stages, each statement under a deadline, many rows in one statement.
//!
//! - [`open`]: a connection over TLS, and which stage failed when there is none (I/O)
//! - [`db`]: statements under a deadline (I/O)
//! - [`insert`]: multi-row statements within the limits of packets and parameters (pure)
//! - [`error`]: what went wrong and in which stage (pure)

pub mod db;
pub mod error;
pub mod insert;
pub mod open;

pub use db::{Db, Outcome};
pub use error::StepError;
pub use insert::{Insert, Limits, Statement};
pub use mysql_async::{Conn, Row, Value};
pub use open::{Login, Tls, open};
