//! Reading everything back and holding it against the ledger.
//!
//! [`compare`] is pure: what a stretch of the run should hold against what an answer holds. [`passes`] does I/O: it reads
//! stretch after stretch, again and again while acknowledged samples are still missing. [`report`] and [`text`] are pure:
//! the figures, and how they read.

pub mod compare;
pub mod passes;
pub mod report;
pub mod text;
