//! What observers, instance managers and the operator say to each other. Pure: types and their algebra, no I/O.
//!
//! Both sides may be of different versions. A field that the reader does not know is passed over, and one that is missing has a default. Of a
//! few words one that the reader does not know is `Unknown`, so that the rest of what was said still counts: that holds for all that is
//! reported and answered. An order is the exception: who does not understand all of it refuses it.
//!
//! - [`account`]: the MySQL accounts that all of them use
//! - [`identity`]: names and the epoch
//! - [`gtid`]: GTID sets and their algebra, so that comparing candidates needs no server
//! - [`evidence`]: one observer's raw facts with their ages; never a verdict
//! - [`order`]: what the operator tells an instance manager to do
//! - [`stacks`]: what the threads of a server are doing

pub mod account;
pub mod evidence;
pub mod gtid;
pub mod identity;
pub mod order;
pub mod stacks;

pub use evidence::{Evidence, LogRange, Observer, Report};
pub use gtid::GtidSet;
pub use identity::{Epoch, ReplicaName, ShardName};
