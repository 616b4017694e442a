//! Mutual TLS between the operator, instance managers and consumers, and what travels over it. I/O, except [`issue`] and [`gap`].
//!
//! - [`names`]: the DNS names that certificates carry; a peer is known by its name, never by its address
//! - [`issue`]: the certificate authority and the leaf certificates (no file, no socket)
//! - [`tls`]: the identity of this process, reloaded when its files change
//! - [`server`]: an axum router over mutual TLS with caps, deadlines and a graceful end
//! - [`client`]: calls with a deadline over one persistent connection; orders and their refusals
//! - [`evidence`]: the endless stream of reports: publisher and reader
//! - [`gap`]: an observer's measure of its own pauses
//!
//! Nothing here resolves a name: addresses are `ip:port`, and the name is checked against the certificate.

pub mod client;
pub mod evidence;
pub mod gap;
pub mod issue;
pub mod names;
pub mod server;
pub mod tls;

pub use client::{CallError, Client, Endpoint};
pub use issue::{Authority, Pem};
pub use tls::Identity;
