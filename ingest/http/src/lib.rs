//! The plain HTTP ports of the ingest services, and how a service that has them stops. I/O.
//!
//! - [`serve`]: listening, connections and their limits, and stopping without cutting anybody off
//! - [`sending`]: a connection whose other side must take what it is sent in time
//! - [`metrics`]: what was counted, as text and as an answer
//! - [`stop`]: the signal to stop, and the order in which things end then
//!
//! Routes are the services' own. What goes over mutual TLS is in `understudy-link`.

pub mod metrics;
pub mod sending;
pub mod serve;
pub mod stop;

pub use serve::{Connections, serve};
pub use stop::{Running, stop_signal};
