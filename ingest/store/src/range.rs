//! Two hours of samples and the landing table that holds them. Pure.
//!
//! The name of a table is its whole definition: kind, version of its columns, start. Another version is another table.

use std::fmt;

/// The schema of the store in each shard's MySQL.
pub const SCHEMA: &str = "store";
/// Length of a range in milliseconds.
pub const RANGE_MS: i64 = 2 * 3600 * 1000;
/// The rows of a landing table hold samples of less than this many milliseconds each, so that a read knows how far before its first
/// timestamp a row may begin.
pub const ROW_SPAN_MS: i64 = 5 * 60 * 1000;

const PREFIX: &str = "landing_v1_";

/// Samples of `start <= t < start + 2 h`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    index: i64,
}

impl Range {
    /// The range a timestamp lies in; milliseconds since 1970.
    pub fn of(timestamp_ms: i64) -> Self {
        Self { index: timestamp_ms.div_euclid(RANGE_MS) }
    }

    /// The first timestamp in it.
    pub fn start_ms(self) -> i64 {
        self.index.saturating_mul(RANGE_MS)
    }

    /// The first timestamp after it.
    pub fn end_ms(self) -> i64 {
        self.index.saturating_add(1).saturating_mul(RANGE_MS)
    }

    /// The landing table, without its schema.
    pub fn table(self) -> String {
        format!("{PREFIX}{}", self.start_ms() / 1000)
    }

    /// The landing table with its schema, quoted.
    pub fn quoted_table(self) -> String {
        format!("`{SCHEMA}`.`{}`", self.table())
    }

    /// The range of a landing table; None for any other table.
    pub fn from_table(table: &str) -> Option<Self> {
        let seconds: i64 = table.strip_prefix(PREFIX)?.parse().ok()?;
        let range = Self::of(seconds.checked_mul(1000)?);
        (range.table() == table).then_some(range)
    }

    /// Whether it holds any timestamp of `from..=to`.
    pub fn overlaps(self, from_ms: i64, to_ms: i64) -> bool {
        self.start_ms() <= to_ms && self.end_ms() > from_ms
    }
}

impl fmt::Debug for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.table())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::start_of_time(0, "landing_v1_0")]
    #[case::its_last_millisecond(7_199_999, "landing_v1_0")]
    #[case::the_next(7_200_000, "landing_v1_7200")]
    #[case::before_1970(-1, "landing_v1_-7200")]
    #[case::now(1_763_900_000_000, "landing_v1_1763899200")]
    fn a_timestamp_lies_in_the_table_that_starts_before_it(#[case] at: i64, #[case] table: &str) {
        assert_eq!(Range::of(at).table(), table);
    }

    #[rstest]
    #[case::another_table("series")]
    #[case::another_version("landing_v2_7200")]
    #[case::not_a_start("landing_v1_7201")]
    #[case::spelled_otherwise("landing_v1_07200")]
    #[case::no_number("landing_v1_")]
    #[case::too_large("landing_v1_9223372036854775807")]
    fn other_tables_are_no_ranges(#[case] table: &str) {
        assert_eq!(Range::from_table(table), None);
    }

    proptest! {
        #[test]
        fn a_table_name_gives_its_range_back(at in -4_000_000_000_000_i64..40_000_000_000_000) {
            let range = Range::of(at);
            prop_assert!(range.start_ms() <= at && at < range.end_ms());
            prop_assert_eq!(Range::from_table(&range.table()), Some(range));
            prop_assert!(range.overlaps(at, at));
            prop_assert!(!range.overlaps(range.end_ms(), i64::MAX));
            prop_assert!(!range.overlaps(i64::MIN, range.start_ms() - 1));
        }
    }
}
