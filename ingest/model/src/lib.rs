//! What a sample is, to whom it belongs, and how it travels through Kafka. Pure: no I/O, no clock, no async.
//!
//! The words are those of the data path (`ingest/docs/data-path.md`): a **tenant** sends **series** (a label set
//! each); series that share tenant, `job` and `instance` form a **group**; a group always goes to one partition;
//! the samples of one group in one request travel as a **frame**, which is the value of one Kafka record.

pub mod frame;
pub mod identity;
pub mod labels;
pub mod rules;
pub mod sample;
pub mod tenant;
pub mod tokens;

pub use frame::{BatchId, Codec, DecodeError, Decoder, EncodeError, Encoder, Frame, FrameBuilder, SeriesView};
pub use identity::{Group, GroupId, SeriesId, partition_of};
pub use labels::{LabelError, Labels};
pub use sample::{STALE_MARKER, Sample};
pub use tenant::{InvalidTenant, Tenant};
