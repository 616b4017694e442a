//! The longest time without progress. Pure.
//!
//! Progress is a list of moments: an acknowledgement, a commit seen, a newer sample seen. A gap is the time between two
//! neighbouring ones. Time in which the observer itself did not run is taken out of a gap, and told beside it: such a
//! gap was at least as long as the one and at most as long as the other. The longest is the one that may have been the
//! longest: whoever stood still through an outage must not tell of a shorter gap in its place.

use serde::Serialize;

/// From when to when gaps are looked for, in microseconds of the ledger's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// When progress was first possible.
    pub from: u64,
    /// When progress was last asked for. That asking must still lead to a moment of progress afterwards.
    pub until: u64,
    /// When nobody looked any longer.
    pub end: u64,
}

/// A stretch without progress.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// Its length without the observer's own pauses.
    pub seconds: f64,
    /// Its length with them.
    pub at_most_seconds: f64,
    /// When it began, in seconds since the ledger began.
    pub from: f64,
    /// Whether it had not ended when nobody looked any longer.
    pub open: bool,
}

/// Whether the time before the first moment counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It counts from the window's begin.
    AtWindow,
    /// It begins with the first moment, since data takes a while to come through the first time. Without any moment the
    /// whole window is a gap.
    AtFirstMoment,
}

/// The longest gap. `moments` in any order; `pauses` as (from, to), not overlapping.
pub fn longest(moments: &[u64], window: Window, start: Start, pauses: &[(u64, u64)]) -> Gap {
    let mut moments: Vec<u64> = moments.iter().copied().filter(|moment| *moment >= window.from).collect();
    moments.sort_unstable();
    let mut points = Vec::with_capacity(moments.len() + 2);
    if start == Start::AtWindow || moments.is_empty() {
        points.push(window.from);
    }
    // What comes later than the first moment after the last asking is not owed any more.
    let owed = moments.partition_point(|moment| *moment <= window.until) + 1;
    let ended = moments.len() >= owed;
    points.extend(moments.into_iter().take(owed));
    if !ended {
        points.push(window.end);
    }
    let pairs = points.windows(2).enumerate();
    let gaps = pairs.map(|(index, pair)| gap(pair[0], pair[1], pauses, !ended && index + 2 == points.len()));
    worst(gaps).unwrap_or(Gap { seconds: 0.0, at_most_seconds: 0.0, from: seconds(window.from), open: false })
}

/// The longest of several, with the observer's own pauses; of equally long ones the first.
pub fn worst(gaps: impl Iterator<Item = Gap>) -> Option<Gap> {
    gaps.reduce(|longest, gap| if gap.at_most_seconds > longest.at_most_seconds { gap } else { longest })
}

fn gap(from: u64, to: u64, pauses: &[(u64, u64)], open: bool) -> Gap {
    let to = to.max(from);
    let paused: u64 = pauses.iter().map(|pause| pause.1.min(to).saturating_sub(pause.0.max(from))).sum();
    Gap {
        seconds: seconds(to - from - paused.min(to - from)),
        at_most_seconds: seconds(to - from),
        from: seconds(from),
        open,
    }
}

/// Of microseconds.
pub fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// The `share` (0 to 1) of values that is not above the answer; None for no values.
pub fn quantile(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    values.get((share * last as f64).ceil() as usize).copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const S: u64 = 1_000_000;
    const WINDOW: Window = Window { from: 0, until: 10 * S, end: 40 * S };

    #[rstest]
    #[case::steady_progress(&[0, S, 2 * S, 3 * S, 4 * S, 5 * S, 6 * S, 7 * S, 8 * S, 9 * S, 10 * S, 11 * S], &[], 1.0, 1.0, false)]
    #[case::a_hole(&[0, S, 5 * S, 9 * S, 11 * S], &[], 4.0, 4.0, false)]
    #[case::out_of_order(&[11 * S, 5 * S, 0, 9 * S, S], &[], 4.0, 4.0, false)]
    #[case::a_pause_inside_a_hole(&[0, S, 5 * S, 8 * S, 11 * S], &[(2 * S, 4 * S)], 2.0, 4.0, false)]
    #[case::a_hole_longer_than_its_pause(&[0, S, 9 * S, 11 * S], &[(2 * S, 4 * S)], 6.0, 8.0, false)]
    #[case::a_pause_that_is_the_hole(&[0, S, 2 * S, 8 * S, 9 * S, 11 * S], &[(2 * S, 8 * S)], 0.0, 6.0, false)]
    #[case::a_pause_that_reaches_over_both_ends(&[0, 3 * S, 6 * S, 11 * S], &[(2 * S, 12 * S)], 0.0, 5.0, false)]
    #[case::an_outage_over_the_end_of_sending(&[0, 5 * S, 9 * S, 17 * S], &[], 8.0, 8.0, false)]
    #[case::an_outage_that_never_ended(&[0, 5 * S, 9 * S], &[], 31.0, 31.0, true)]
    #[case::later_moments_owe_nothing(&[0, 5 * S, 10 * S, 11 * S, 39 * S], &[], 5.0, 5.0, false)]
    #[case::no_progress_at_all(&[], &[], 40.0, 40.0, true)]
    fn the_longest_gap_is_found(
        #[case] moments: &[u64],
        #[case] pauses: &[(u64, u64)],
        #[case] shortest: f64,
        #[case] at_most: f64,
        #[case] open: bool,
    ) {
        let gap = longest(moments, WINDOW, Start::AtWindow, pauses);
        assert_eq!((gap.seconds, gap.at_most_seconds, gap.open), (shortest, at_most, open));
    }

    #[test]
    fn the_way_of_the_first_sample_is_not_a_gap_unless_none_arrives() {
        let late = [4 * S, 5 * S, 6 * S, 8 * S, 10 * S, 11 * S];
        assert_eq!(longest(&late, WINDOW, Start::AtFirstMoment, &[]).seconds, 2.0);
        assert_eq!(longest(&late, WINDOW, Start::AtWindow, &[]).seconds, 4.0);
        assert_eq!(longest(&[], WINDOW, Start::AtFirstMoment, &[]).seconds, 40.0);
    }

    #[rstest]
    #[case::nothing(&[], 0.5, None)]
    #[case::one(&[3.0], 0.99, Some(3.0))]
    #[case::median(&[3.0, 1.0, 2.0], 0.5, Some(2.0))]
    #[case::highest(&[3.0, 1.0, 2.0], 1.0, Some(3.0))]
    #[case::p99_of_few_is_the_highest(&[1.0, 2.0, 3.0, 4.0], 0.99, Some(4.0))]
    fn quantiles_round_up(#[case] values: &[f64], #[case] share: f64, #[case] expected: Option<f64>) {
        assert_eq!(quantile(&mut values.to_vec(), share), expected);
    }

    proptest! {
        #[test]
        fn more_moments_or_pauses_never_lengthen_a_gap(
            moments in prop::collection::vec(0_u64..1000, 0..20), extra in 0_u64..1000, pause in (0_u64..1000, 1_u64..100),
        ) {
            let window = Window { from: 0, until: 900, end: 1000 };
            let gap = longest(&moments, window, Start::AtWindow, &[]).seconds;
            let more: Vec<u64> = moments.iter().copied().chain([extra]).collect();
            prop_assert!(longest(&more, window, Start::AtWindow, &[]).seconds <= gap);
            prop_assert!(longest(&moments, window, Start::AtWindow, &[(pause.0, pause.0 + pause.1)]).seconds <= gap);
        }
    }
}
