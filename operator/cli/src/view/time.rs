//! Times for people. Pure: now is an argument.

use jiff::Timestamp;

/// Seconds from then to now; never less than none, as clocks differ a little.
pub fn seconds_since(then: Timestamp, now: Timestamp) -> i64 {
    now.as_second().saturating_sub(then.as_second()).max(0)
}

/// `12s`, `4m10s`, `3h20m`, `12d`: two units at most, as kubectl writes it.
pub fn span(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (days, hours, minutes, rest) = (seconds / 86_400, seconds % 86_400 / 3_600, seconds % 3_600 / 60, seconds % 60);
    let two = |large: i64, large_unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{large}{large_unit}"),
        small => format!("{large}{large_unit}{small}{small_unit}"),
    };
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, minutes) => two(minutes, "m", rest, "s"),
        (0, hours, minutes) => two(hours, "h", minutes, "m"),
        (days @ 1..=7, hours, _) => two(days, "d", hours, "h"),
        (days, ..) => format!("{days}d"),
    }
}

/// How long ago, without the word.
pub fn ago(then: Option<Timestamp>, now: Timestamp) -> Option<String> {
    Some(span(seconds_since(then?, now)))
}

/// Seconds that were measured, such as a gap: `0.3 s`, `12.0 s`, then as [`span`].
pub fn measured(seconds: f64) -> String {
    if !seconds.is_finite() {
        return "unknown".into();
    }
    if seconds.abs() < 120.0 {
        return format!("{seconds:.1} s");
    }
    #[allow(clippy::cast_possible_truncation, reason = "a float that is out of range becomes the nearest number")]
    let whole = seconds.round() as i64;
    span(whole)
}

/// A point in time, to the second, as everybody reads it alike.
pub fn point(at: Timestamp) -> String {
    format!("{at:.0}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_two_units_at_most() {
        for (seconds, expected) in [
            (-5, "0s"),
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (250, "4m10s"),
            (3_600, "1h"),
            (12_000, "3h20m"),
            (86_400, "1d"),
            (90_000, "1d1h"),
            (12 * 86_400 + 5, "12d"),
        ] {
            assert_eq!(span(seconds), expected);
        }
        for (seconds, expected) in [(0.26, "0.3 s"), (12.0, "12.0 s"), (250.4, "4m10s"), (f64::NAN, "unknown")] {
            assert_eq!(measured(seconds), expected);
        }
    }

    #[test]
    fn nothing_is_ago_in_the_future() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(ago(Some(at(10)), at(15)).as_deref(), Some("5s"));
        assert_eq!(ago(Some(at(20)), at(15)).as_deref(), Some("0s"));
        assert_eq!(ago(None, at(15)), None);
        assert_eq!(point(at(0)), "1970-01-01T00:00:00Z");
    }
}
