//! From a compressed body to records: the part of a request that computes. Pure but for the clock; runs on a thread for
//! blocking work.
//!
//! The memory and the turn that a request holds move in here and out again: when a client leaves in the middle, this
//! part still runs to its end, and what it uses must stay counted until then.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use understudy_model::Tenant;
use understudy_model::rules::TimeWindow;

use crate::admission::{Denied, Reservation};
use crate::batch::{self, Batch, BatchError, BatchRules};
use crate::limits::Limits;
use crate::quota::Quota;
use crate::write::Outcome;
use crate::{snappy, wire};

/// A body and all that is needed to make records of it.
pub struct Work {
    /// Whose it is.
    pub tenant: Tenant,
    /// As it was sent.
    pub body: Bytes,
    /// What is set aside for it so far.
    pub reservation: Reservation,
    /// The turn to compute; given back at the end.
    pub turn: OwnedSemaphorePermit,
    /// What it may cost.
    pub limits: Arc<Limits>,
    /// How much its tenant may send.
    pub quota: Arc<Quota>,
    /// Partitions of the topic.
    pub partitions: u32,
}

/// What became of it.
pub struct Prepared {
    /// The records and what was refused.
    pub batch: Batch,
    /// Metadata that is not kept.
    pub metadata: u64,
    /// What the records take.
    pub reservation: Reservation,
}

/// Decompresses, counts, reserves, checks and encodes.
pub fn prepare(work: Work) -> Result<Prepared, Outcome> {
    let Work { tenant, body, mut reservation, turn, limits, quota, partitions } = work;
    let declared = snappy::declared_length(&body, limits.decompressed_bytes).map_err(refused)?;
    reservation.grow(declared).map_err(denied)?;
    let body = Bytes::from(snappy::decompress(&body, declared).map_err(refused)?);
    let survey = wire::survey(&body, limits.labels.labels).map_err(|error| malformed(&error.into()))?;
    for (what, found, most) in
        [("series", survey.series, limits.series), ("samples", survey.total.samples, limits.samples)]
    {
        if found > most {
            return Err(Outcome::TooLarge(format!("the request has {found} {what}, at most {most} are allowed")));
        }
    }
    reservation.grow(batch::working_memory(body.len(), &survey)).map_err(denied)?;
    quota.take(&tenant, survey.total.samples, Instant::now()).map_err(Outcome::OverQuota)?;
    let rules = BatchRules { labels: limits.labels, window: window(&limits), partitions };
    let batch = batch::make(&tenant, &body, &rules).map_err(|error| malformed(&error))?;
    drop(body);
    reservation.shrink_to(batch.bytes());
    drop(turn);
    Ok(Prepared { batch, metadata: survey.metadata as u64, reservation })
}

fn window(limits: &Limits) -> TimeWindow {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    TimeWindow {
        earliest_ms: ms(now).saturating_sub(ms(limits.sample_age)),
        latest_ms: ms(now).saturating_add(ms(limits.sample_ahead)),
    }
}

/// The answer to a request that does not get its memory.
pub fn denied(denied: Denied) -> Outcome {
    match denied {
        Denied::Now => Outcome::Overloaded,
        Denied::Ever { .. } => Outcome::TooLarge(denied.to_string()),
    }
}

fn refused(refused: snappy::Refused) -> Outcome {
    match refused {
        snappy::Refused::TooLarge { .. } => Outcome::TooLarge(refused.to_string()),
        snappy::Refused::Malformed(_) => Outcome::Malformed(refused.to_string()),
    }
}

fn malformed(error: &BatchError) -> Outcome {
    match error {
        BatchError::Malformed(_) => Outcome::Malformed(error.to_string()),
        BatchError::Encode(source) => Outcome::Failed(format!("{error}: {source}")),
    }
}
