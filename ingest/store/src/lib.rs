//! The time-series store in a shard's MySQL: what its tables look like, how frames become rows, and how rows become samples again.
//!
//! Writing is pure: frames in, rows out; whoever holds the transaction executes them. Reading does I/O on a connection of the caller.
//! Why it looks like this: `ingest/docs/store.md`.
//!
//! - [`range`]: two hours of samples, the table that holds them (pure)
//! - [`block`]: the samples of one row, packed bit-exactly in columns (pure)
//! - [`window`]: which timestamps are taken, and what becomes of the rest (pure)
//! - [`pack`]: frames to rows (pure)
//! - [`place`]: rows beside those that are under their key already (pure)
//! - [`catalogue`]: rows of the series catalogue, and which series need none (pure)
//! - [`schema`]: table definitions (pure)
//! - [`merge`]: blocks to series without duplicates (pure)
//! - [`matcher`]: which series a query means (pure)
//! - [`read`], [`select`]: samples, series and labels out of MySQL, and how fresh they are (I/O)
//! - [`retention`]: what has become too old (pure)

mod bytes;

pub mod block;
pub mod catalogue;
pub mod matcher;
pub mod merge;
pub mod pack;
pub mod place;
pub mod range;
pub mod read;
pub mod retention;
pub mod schema;
pub mod select;
pub mod window;

pub use block::{Block, BlockError};
pub use catalogue::{KnownSeries, SeriesRow};
pub use matcher::{Matcher, Op};
pub use merge::{Merged, Merger};
pub use pack::{LandingRow, Packed, Placed};
pub use range::Range;
pub use read::{Freshness, ReadError, read_blocks, read_samples};
pub use select::{Keep, Kept, Series, label_names, label_values, matching_series};
pub use window::Acceptance;
