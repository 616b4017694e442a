//! What a run sends: every sample of it follows from a few numbers, so that a ledger need not hold the samples and the
//! verification knows each one it should find. Pure.
//!
//! Sample `k` of a run (0, 1, 2, ...) belongs to series `k mod series` and has the timestamp `start + k / rate`, so each
//! (series, timestamp) occurs once. A series belongs to a group (label `instance`, which decides the partition), a group
//! to a lane (one connection). Each tick every lane sends one batch: its samples of that tick, and one canary sample per
//! group, by which the visible gap is measured. Values are unique too, and lead back to `k`.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use understudy_model::{Group, InvalidTenant, Tenant, partition_of};

/// Metric of the counted series.
pub const COUNTED: &str = "understudy_lab_load";
/// Metric of the canaries.
pub const CANARY: &str = "understudy_lab_canary";
/// The `job` of both.
pub const JOB: &str = "understudy-lab";

/// The numbers a run follows from. The first line of a ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Unique name, the value of the label `run`.
    pub id: String,
    /// Timestamp of the first sample, in milliseconds since 1970.
    pub start_ms: i64,
    /// Counted samples per second; canaries come on top.
    pub rate: u64,
    /// Counted series.
    pub series: u64,
    /// The `instance` of each group.
    pub instances: Vec<String>,
    /// Batches per tick.
    pub lanes: u64,
    /// Time between two batches of a lane, in milliseconds.
    pub tick_ms: u64,
}

/// One series of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Series {
    /// A counted one, by its number below [`Run::series`].
    Counted(u64),
    /// The canary of a group.
    Canary(u64),
}

/// One request: what lane `lane` sends in tick `tick`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Batch {
    /// Counted from 0.
    pub tick: u64,
    /// Below [`Run::lanes`].
    pub lane: u64,
}

/// One sample: the bits are those of its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Whose.
    pub series: Series,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// IEEE 754.
    pub bits: u64,
}

/// Numbers that no run can follow from.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// Nothing to send, or nobody to send it.
    #[error("rate, series, groups, lanes and tick must all be above 0")]
    Zero,
    /// Two samples of a series would share a millisecond.
    #[error("{rate} samples a second need at least {least} series: each (series, millisecond) may occur once")]
    TooFewSeries {
        /// As asked.
        rate: u64,
        /// The fewest.
        least: u64,
    },
    /// A group without a series, or a lane without a group.
    #[error("there may not be more lanes than groups, nor more groups than series")]
    Idle,
    /// The tenant's name is not one.
    #[error("tenant")]
    Tenant(#[from] InvalidTenant),
}

/// Names for the groups of a run. With the tenant and the number of partitions known, each partition gets as many groups
/// as any other, one more or less; otherwise chance decides.
pub fn instances(run: &str, groups: u64, spread: Option<(&str, u32)>) -> Result<Vec<String>, PlanError> {
    let spread =
        spread.map(|(tenant, partitions)| Tenant::new(tenant).map(|tenant| (tenant, partitions))).transpose()?;
    let name = |group: u64| match &spread {
        Some((tenant, partitions)) if *partitions > 0 => {
            let lands_right = |instance: &String| {
                let group_id = Group::new(tenant.clone(), JOB, instance).id();
                u64::from(partition_of(group_id, *partitions)) == group % u64::from(*partitions)
            };
            let mut candidates = (0_u64..).map(|salt| format!("{run}-{group}-{salt}"));
            candidates.find(lands_right).unwrap_or_else(|| format!("{run}-{group}"))
        }
        _ => format!("{run}-{group}"),
    };
    Ok((0..groups).map(name).collect())
}

impl Run {
    /// Refuses numbers that make no run.
    pub fn check(self) -> Result<Self, PlanError> {
        let groups = self.groups();
        if [self.rate, self.series, groups, self.lanes, self.tick_ms].contains(&0) {
            return Err(PlanError::Zero);
        }
        let least = self.rate.div_ceil(1000);
        if self.series < least {
            return Err(PlanError::TooFewSeries { rate: self.rate, least });
        }
        if self.lanes > groups || groups > self.series {
            return Err(PlanError::Idle);
        }
        Ok(self)
    }

    /// How many groups there are.
    pub fn groups(&self) -> u64 {
        self.instances.len() as u64
    }

    /// The group of a series.
    pub fn group_of(&self, series: Series) -> u64 {
        match series {
            Series::Counted(number) => number % self.groups(),
            Series::Canary(group) => group,
        }
    }

    /// The labels of a series, in order of their names.
    pub fn labels(&self, series: Series) -> [(&'static str, String); 5] {
        let instance = self.instances[self.group_of(series) as usize].clone();
        let (metric, number) = match series {
            Series::Counted(number) => (COUNTED, number),
            Series::Canary(group) => (CANARY, group),
        };
        [
            ("__name__", metric.to_owned()),
            ("instance", instance),
            ("job", JOB.to_owned()),
            ("run", self.id.clone()),
            ("series", number.to_string()),
        ]
    }

    /// The series with these labels, if the run has it and they are exactly its labels.
    pub fn series_of<'a>(&self, labels: impl Iterator<Item = (&'a str, &'a str)>) -> Option<Series> {
        let labels: Vec<(&str, &str)> = labels.collect();
        let value = |name| labels.iter().find(|(candidate, _)| *candidate == name).map(|(_, value)| *value);
        let number: u64 = value("series")?.parse().ok()?;
        let series = match value("__name__")? {
            COUNTED if number < self.series => Series::Counted(number),
            CANARY if number < self.groups() => Series::Canary(number),
            _ => return None,
        };
        let expected = self.labels(series);
        let same =
            expected.len() == labels.len() && expected.iter().zip(&labels).all(|(e, l)| e.0 == l.0 && e.1 == l.1);
        same.then_some(series)
    }

    /// When the batches of a tick are due, in milliseconds after the start: once all of its timestamps have passed.
    pub fn due_ms(&self, tick: u64) -> u64 {
        (tick + 1) * self.tick_ms
    }

    /// The batches of a tick.
    pub fn batches(&self, tick: u64) -> impl Iterator<Item = Batch> + use<> {
        (0..self.lanes).map(move |lane| Batch { tick, lane })
    }

    /// All samples of a batch, series by series, each series in order of time.
    pub fn samples(&self, batch: Batch) -> Vec<Planned> {
        let counted = self.first_of(batch.tick)..self.first_of(batch.tick + 1);
        let in_lane = |series: Series| self.group_of(series) % self.lanes == batch.lane;
        let mut samples: Vec<Planned> =
            counted.map(|k| self.counted(k)).filter(|sample| in_lane(sample.series)).collect();
        samples.sort_by_key(|sample| (sample.series, sample.timestamp_ms));
        let canaries = (0..self.groups()).map(|group| self.canary(batch.tick, group));
        samples.extend(canaries.filter(|sample| in_lane(sample.series)));
        samples
    }

    /// A checksum of the samples of a batch: the ledger keeps it, so that a later version of this module that plans
    /// otherwise is noticed instead of believed.
    pub fn checksum(samples: &[Planned]) -> u64 {
        let mut bytes = Vec::with_capacity(samples.len() * 25);
        for sample in samples {
            let (kind, number) = match sample.series {
                Series::Counted(number) => (0, number),
                Series::Canary(group) => (1, group),
            };
            bytes.push(kind);
            bytes.extend_from_slice(&number.to_le_bytes());
            bytes.extend_from_slice(&sample.timestamp_ms.to_le_bytes());
            bytes.extend_from_slice(&sample.bits.to_le_bytes());
        }
        xxhash_rust::xxh3::xxh3_64(&bytes)
    }

    /// The sample that a value was made for, whatever series it was found in.
    pub fn origin(&self, bits: u64) -> Option<Planned> {
        let sample = match decode(bits)? {
            Meaning::Counted(k) => self.counted(k),
            Meaning::Canary(n) => self.canary(n / self.groups(), n % self.groups()),
        };
        (sample.bits == bits).then_some(sample)
    }

    /// The first sample whose timestamp is not before the tick.
    fn first_of(&self, tick: u64) -> u64 {
        (tick * self.tick_ms * self.rate).div_ceil(1000)
    }

    fn counted(&self, k: u64) -> Planned {
        let series = k % self.series;
        let timestamp_ms = self.start_ms + (k * 1000 / self.rate) as i64;
        Planned { series: Series::Counted(series), timestamp_ms, bits: encode(series, k) }
    }

    fn canary(&self, tick: u64, group: u64) -> Planned {
        let timestamp_ms = self.start_ms + (tick * self.tick_ms) as i64;
        let number = tick * self.groups() + group;
        Planned { series: Series::Canary(group), timestamp_ms, bits: (-((number + 1) as f64)).to_bits() }
    }
}

#[derive(Debug, PartialEq)]
enum Meaning {
    Counted(u64),
    Canary(u64),
}

const MANTISSA: u64 = (1 << 52) - 1;
/// Sign 0, exponent of [1, 2).
const ONE: u64 = 0x3ff0_0000_0000_0000;
/// A quiet NaN; 51 bits are free for a payload.
const NAN: u64 = 0x7ff8_0000_0000_0000;
const PAYLOAD: u64 = (1 << 51) - 1;
/// Odd, hence invertible modulo 2^52, which [`UNSPREAD`] does.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
const UNSPREAD: u64 = inverse(SPREAD);

/// Of 16 series 12 are integer counters, 3 use the whole mantissa, 1 is NaNs that differ in their payload: a store that
/// goes through arithmetic or text anywhere does not give all of them back.
fn encode(series: u64, k: u64) -> u64 {
    match series % 16 {
        15 => NAN | (k & PAYLOAD),
        12..15 => ONE | (k.wrapping_mul(SPREAD) & MANTISSA),
        _ => ((k + 1) as f64).to_bits(),
    }
}

fn decode(bits: u64) -> Option<Meaning> {
    if bits & !PAYLOAD == NAN {
        return Some(Meaning::Counted(bits & PAYLOAD));
    }
    let value = f64::from_bits(bits);
    if value.fract() == 0.0 && (1.0..9e15).contains(&value) && bits != ONE {
        return Some(Meaning::Counted(value as u64 - 1));
    }
    if value.fract() == 0.0 && (-9e15..=-1.0).contains(&value) {
        return Some(Meaning::Canary(-value as u64 - 1));
    }
    (bits & !MANTISSA == ONE).then(|| Meaning::Counted((bits & MANTISSA).wrapping_mul(UNSPREAD) & MANTISSA))
}

/// The inverse of an odd number modulo 2^64, by Newton's iteration; each step doubles the bits that are right.
const fn inverse(odd: u64) -> u64 {
    let mut x = odd;
    let mut step = 0;
    while step < 6 {
        x = x.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(x)));
        step += 1;
    }
    x
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    pub(crate) fn small() -> Run {
        let run = Run {
            id: "r1".into(),
            start_ms: 1_700_000_000_000,
            rate: 500,
            series: 50,
            instances: instances("r1", 8, None).unwrap(),
            lanes: 4,
            tick_ms: 100,
        };
        run.check().unwrap()
    }

    fn run(rate: u64, series: u64, groups: u64, lanes: u64, tick_ms: u64) -> Run {
        Run { rate, series, instances: instances("r", groups, None).unwrap(), lanes, tick_ms, ..small() }
    }

    #[rstest]
    #[case::no_rate(run(0, 10, 4, 2, 100), PlanError::Zero)]
    #[case::no_groups(run(10, 10, 0, 2, 100), PlanError::Zero)]
    #[case::two_samples_in_a_millisecond(run(5000, 4, 4, 2, 100), PlanError::TooFewSeries { rate: 5000, least: 5 })]
    #[case::a_lane_without_a_group(run(10, 10, 4, 5, 100), PlanError::Idle)]
    #[case::a_group_without_a_series(run(10, 3, 4, 2, 100), PlanError::Idle)]
    fn numbers_that_make_no_run_are_refused(#[case] run: Run, #[case] expected: PlanError) {
        assert_eq!(run.check(), Err(expected));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn each_series_and_timestamp_occurs_once_and_each_value_leads_back_to_its_sample(
            rate in 1_u64..20_000, extra in 0_u64..300, groups in 1_u64..40, lanes in 1_u64..6, tick_ms in 20_u64..300,
        ) {
            let series = rate.div_ceil(1000).max(groups) + extra;
            let run = run(rate, series, groups, lanes.min(groups), tick_ms).check().unwrap();
            let mut places = HashSet::new();
            let mut values = HashSet::new();
            let mut counted = 0;
            for tick in 0..4 {
                for batch in run.batches(tick) {
                    for sample in run.samples(batch) {
                        prop_assert!(places.insert((sample.series, sample.timestamp_ms)));
                        prop_assert!(values.insert(sample.bits));
                        prop_assert_eq!(run.origin(sample.bits), Some(sample));
                        let begin = run.start_ms + (tick * tick_ms) as i64;
                        prop_assert!((begin..begin + tick_ms as i64).contains(&sample.timestamp_ms));
                        counted += u64::from(matches!(sample.series, Series::Counted(_)));
                    }
                }
            }
            prop_assert_eq!(counted, (4 * tick_ms * rate).div_ceil(1000));
        }
    }

    #[test]
    fn values_of_all_kinds_occur() {
        let run = small();
        let all: Vec<Planned> =
            (0..4).flat_map(|tick| run.batches(tick)).flat_map(|batch| run.samples(batch)).collect();
        let values: Vec<f64> = all.iter().map(|sample| f64::from_bits(sample.bits)).collect();
        assert!(values.iter().any(|value| value.is_nan()));
        assert!(values.iter().any(|value| value.fract() != 0.0));
        assert!(values.iter().any(|value| value.fract() == 0.0 && *value > 0.0));
        assert!(values.iter().any(|value| *value < 0.0));
    }

    #[test]
    fn labels_lead_back_to_the_series_and_others_do_not() {
        let run = small();
        for series in [Series::Counted(0), Series::Counted(49), Series::Canary(7)] {
            let labels = run.labels(series);
            assert!(labels.is_sorted_by_key(|(name, _)| *name));
            let pairs = || labels.iter().map(|(name, value)| (*name, value.as_str()));
            assert_eq!(run.series_of(pairs()), Some(series));
            assert_eq!(run.series_of(pairs().chain([("zone", "a")])), None, "a label too many");
            assert_eq!(run.series_of(pairs().skip(1)), None, "a label too few");
        }
        let mut foreign = run.labels(Series::Counted(49));
        foreign[4].1 = "50".into();
        assert_eq!(run.series_of(foreign.iter().map(|(name, value)| (*name, value.as_str()))), None);
    }

    #[test]
    fn groups_are_spread_evenly_over_the_partitions() {
        let names = instances("r1", 32, Some(("lab", 16))).unwrap();
        let tenant = Tenant::new("lab").unwrap();
        let mut groups: HashMap<u32, usize> = HashMap::new();
        for name in &names {
            *groups.entry(partition_of(Group::new(tenant.clone(), JOB, name).id(), 16)).or_default() += 1;
        }
        assert_eq!(groups.len(), 16);
        assert!(groups.values().all(|count| *count == 2), "{groups:?}");
    }

    #[test]
    fn a_changed_sample_changes_the_checksum() {
        let run = small();
        let mut samples = run.samples(Batch { tick: 3, lane: 1 });
        let before = Run::checksum(&samples);
        samples[0].bits ^= 1;
        assert_ne!(Run::checksum(&samples), before);
    }
}
