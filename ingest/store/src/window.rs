//! Which timestamps are taken, and what becomes of the rest. Pure.
//!
//! Each distinct range costs a table, so a sender's broken clock must not decide how many there are. The bounds count from the time of
//! the record in Kafka, never from the clock of whoever applies it: a record applied again after a failover meets the same decision.

use std::time::Duration;

use understudy_model::rules::TimeWindow;
use understudy_model::{Frame, FrameBuilder, Sample};

use crate::range::RANGE_MS;

/// How far from its record's time a sample may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acceptance {
    /// How much older; no more than the store keeps.
    pub past: Duration,
    /// How much newer.
    pub future: Duration,
}

impl Default for Acceptance {
    fn default() -> Self {
        // A little more than the gateway lets through, so that what was acknowledged is stored and not put aside.
        Self { past: Duration::from_secs(32 * 24 * 3600), future: Duration::from_secs(25 * 3600) }
    }
}

impl Acceptance {
    /// What is taken from a record of this time.
    pub fn window(&self, record_ms: i64) -> TimeWindow {
        let millis = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        TimeWindow {
            earliest_ms: record_ms.saturating_sub(millis(self.past)),
            latest_ms: record_ms.saturating_add(millis(self.future)),
        }
    }

    /// The most landing tables that records of one moment can ask for.
    pub fn tables(&self) -> u64 {
        ((self.past.as_millis() + self.future.as_millis()) / RANGE_MS as u128 + 2) as u64
    }
}

/// Whether all of a frame lies within.
pub fn is_within(frame: &Frame, window: TimeWindow) -> bool {
    let (first, last) = frame.time_range_ms();
    window.check(first).is_ok() && window.check(last).is_ok()
}

/// The samples outside, as frames of their own, so that they can be put aside and taken in again later; and how many they are. None when
/// they cannot be made into frames.
pub fn outside(frame: &Frame, window: TimeWindow) -> Option<(Vec<Frame>, usize)> {
    let mut frames = Vec::new();
    let mut builder = FrameBuilder::new(frame.group().clone());
    let mut count = 0;
    for series in frame.series() {
        let samples: Vec<Sample> = series.samples().filter(|s| window.check(s.timestamp_ms).is_err()).collect();
        count += samples.len();
        let mut rest = &samples[..];
        loop {
            match builder.push(series.labels, rest) {
                understudy_model::frame::Full::No => break,
                understudy_model::frame::Full::From(taken) => {
                    rest = &rest[taken..];
                    let full = std::mem::replace(&mut builder, FrameBuilder::new(frame.group().clone()));
                    frames.extend(full.finish(frame.batch().cloned()));
                }
                understudy_model::frame::Full::Never => return None,
            }
        }
    }
    frames.extend(builder.finish(frame.batch().cloned()));
    Some((frames, count))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use understudy_model::{Group, Labels, Tenant};

    use super::*;

    const HOUR: i64 = 3_600_000;

    fn acceptance() -> Acceptance {
        Acceptance { past: Duration::from_secs(24 * 3600), future: Duration::from_secs(3600) }
    }

    fn frame(series: &[(&str, &[i64])]) -> Frame {
        let group = Group::new(Tenant::new("acme").unwrap(), "node", "a");
        let mut builder = FrameBuilder::new(group);
        for (name, times) in series {
            let labels = Labels::from_pairs([("__name__", *name), ("job", "node"), ("instance", "a")]).unwrap();
            let samples: Vec<Sample> = times.iter().map(|&t| Sample::new(t, 1.5)).collect();
            assert_eq!(builder.push(&labels, &samples), understudy_model::frame::Full::No);
        }
        builder.finish(None).unwrap()
    }

    #[rstest]
    #[case::now(0, true)]
    #[case::as_old_as_allowed(-24 * HOUR, true)]
    #[case::too_old(-24 * HOUR - 1, false)]
    #[case::as_new_as_allowed(HOUR, true)]
    #[case::too_new(HOUR + 1, false)]
    #[case::the_end_of_time(i64::MAX / 2, false)]
    fn bounds_count_from_the_time_of_the_record(#[case] after: i64, #[case] taken: bool) {
        let record = 1_763_900_000_000;
        let window = acceptance().window(record);
        assert_eq!(is_within(&frame(&[("up", &[record + after])]), window), taken);
    }

    #[test]
    fn what_is_outside_is_a_frame_of_its_own() {
        let window = acceptance().window(100 * 24 * HOUR);
        let now = 100 * 24 * HOUR;
        let whole = frame(&[("in", &[now]), ("mixed", &[0, now, now + 9 * HOUR]), ("out", &[-5])]);
        let (frames, count) = outside(&whole, window).unwrap();
        assert_eq!(count, 3);
        assert_eq!(frames, [frame(&[("mixed", &[0, now + 9 * HOUR]), ("out", &[-5])])]);
    }

    #[test]
    fn a_record_from_the_edge_of_time_has_a_window_too() {
        let window = Acceptance { past: Duration::MAX, future: Duration::MAX }.window(i64::MIN);
        assert_eq!(window.earliest_ms, i64::MIN);
        assert_eq!(window.latest_ms, -1);
    }
}
