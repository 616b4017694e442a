//! What has become too old: whole tables of samples, never rows, so the catalogue keeps every series. Pure.

use std::collections::BTreeSet;

use crate::range::Range;

/// The tables that hold nothing of `oldest_ms` or later, oldest first.
pub fn expired(tables: &BTreeSet<Range>, oldest_ms: i64) -> Vec<Range> {
    tables.iter().copied().filter(|range| range.end_ms() <= oldest_ms).collect()
}

/// Takes such a table away; on the primary only. It waits for readers of the table, and holds up those that come after it, for up to the
/// session's `lock_wait_timeout`: set that low.
pub fn drop_table(range: Range) -> String {
    format!("DROP TABLE IF EXISTS {}", range.quoted_table())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::range::RANGE_MS;

    #[test]
    fn a_table_is_dropped_only_when_all_of_it_is_too_old() {
        let tables: BTreeSet<Range> = (0..4).map(|i| Range::of(i * RANGE_MS)).collect();
        for (oldest, dropped) in [(0, 0), (RANGE_MS - 1, 0), (RANGE_MS, 1), (3 * RANGE_MS + 1, 3), (i64::MAX, 4)] {
            assert_eq!(expired(&tables, oldest).len(), dropped, "{oldest}");
        }
    }
}
