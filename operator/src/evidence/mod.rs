//! What observers say, kept per shard with the instant at which it came. I/O.
//!
//! Every instance of the operator, leading or not, dials every observer: so a change of leader costs nothing, and no
//! observer has to find the operator.
//!
//! - [`observers`]: one stream per replica's manager and per consumer's pod
//! - [`own`]: the operator's own probe of the primary
//! - [`pulse`]: the operator's own pauses, so that it accuses nobody after one
//! - [`stacks`]: what the threads of a sick primary do

pub mod observers;
pub mod own;
pub mod pulse;
pub mod stacks;

pub use observers::{Heard, Observers, Speaker, Wanted};
pub use own::OwnObserver;
pub use pulse::Pulse;
pub use stacks::StackTaker;
