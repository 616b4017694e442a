//! How long a shard or a store took no writes, and how often it failed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Today and the days before it that count, by the calendar in UTC.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Availability {
    /// How many days before the present one count.
    pub window_days: i32,
    /// Time in which a write would not have been taken, as far as is known, whether or not there was one: the changes of primary, what goes
    /// on now included, and primaries that were dead without a change. Of a Datastore that of its shards together.
    pub unavailable_seconds: f64,
    /// Unplanned changes of primary.
    pub failovers: i32,
    /// Planned ones.
    pub switchovers: i32,
    /// Rehearsed ones, however they were done.
    #[serde(default)]
    pub drills: i32,
    /// Mean time between failovers; unset without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtbf_seconds: Option<f64>,
    /// Mean time without writes of a failover; unset without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mttr_seconds: Option<f64>,
}

/// What was taken over from records of changes of primary, so that nothing is lost when they are deleted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AvailabilityLedger {
    /// One entry for each day on which something happened.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 31))]
    pub days: Vec<AvailabilityDay>,
    /// All records up to this epoch are in the entries,
    #[serde(default)]
    pub counted_epoch: i64,
    /// but for those of these epochs: they were not over, and may not be there at the moment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open_epochs: Vec<i64>,
}

/// What happened on one day.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AvailabilityDay {
    /// The day in UTC, such as `2026-01-31`.
    pub day: String,
    /// Time without writes.
    pub unavailable_seconds: f64,
    /// Of that, by failovers that began on the day: their whole length, also when it reaches into the next.
    #[serde(default)]
    pub repair_seconds: f64,
    /// Failovers that began.
    #[serde(default)]
    pub failovers: i32,
    /// Switchovers that began.
    #[serde(default)]
    pub switchovers: i32,
    /// Drills that began.
    #[serde(default)]
    pub drills: i32,
}
