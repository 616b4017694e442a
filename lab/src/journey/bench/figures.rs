//! Percentiles and bounds of what was measured. Pure.

/// A distribution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// How many values.
    pub n: usize,
    /// Median.
    pub p50: f64,
    /// 90 of 100 are not above it.
    pub p90: f64,
    /// 99 of 100 are not above it.
    pub p99: f64,
    /// The highest.
    pub max: f64,
}

impl Spread {
    /// By the nearest rank: the smallest value that so many of 100 are not above. It is always one that was measured; of fewer than
    /// 100 values the p99 is the highest. None for no values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let rank = |percent: usize| values.get((percent * values.len()).div_ceil(100).checked_sub(1)?).copied();
        Some(Self { n: values.len(), p50: rank(50)?, p90: rank(90)?, p99: rank(99)?, max: *values.last()? })
    }
}

/// The highest rate that is not refuted, at 95 %, by no event in so many trials: 3 / n.
pub fn rule_of_three(trials: u64) -> Option<f64> {
    (trials > 0).then(|| (3.0 / trials as f64).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_of_the_nearest_rank() {
        let of = |n: i32| Spread::of((1..=n).rev().map(f64::from)).unwrap();
        for (n, p50, p90, p99) in [
            (1, 1.0, 1.0, 1.0),
            (2, 1.0, 2.0, 2.0),
            (4, 2.0, 4.0, 4.0),
            (30, 15.0, 27.0, 30.0),
            (99, 50.0, 90.0, 99.0),
            (100, 50.0, 90.0, 99.0),
            (101, 51.0, 91.0, 100.0),
            (200, 100.0, 180.0, 198.0),
        ] {
            let spread = of(n);
            assert_eq!((spread.p50, spread.p90, spread.p99, spread.max), (p50, p90, p99, f64::from(n)), "{n}");
        }
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn no_event_bounds_a_rate_by_three_in_the_number_of_trials() {
        assert_eq!(rule_of_three(1000), Some(0.003));
        assert_eq!(rule_of_three(2), Some(1.0));
        assert_eq!(rule_of_three(0), None);
    }
}
