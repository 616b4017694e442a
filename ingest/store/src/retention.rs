//! Dropping what has become too old: whole tables, never rows. I/O, but for the choice.

use std::collections::BTreeSet;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::range::Range;
use crate::read::{ReadError, failed, ranges};

/// The tables that hold nothing of `oldest_ms` or later. Pure.
pub fn expired(tables: &BTreeSet<Range>, oldest_ms: i64) -> Vec<Range> {
    tables.iter().copied().filter(|range| range.end_ms() <= oldest_ms).collect()
}

/// Drops the tables that hold nothing of `oldest_ms` or later, oldest first; which ones. On the primary only. A reader that holds a table
/// makes the drop wait for the session's `lock_wait_timeout`: set it low, and try again later.
pub async fn drop_before(conn: &mut Conn, oldest_ms: i64) -> Result<Vec<Range>, ReadError> {
    let expired = expired(&ranges(conn).await?, oldest_ms);
    for range in &expired {
        conn.query_drop(format!("DROP TABLE IF EXISTS {}", range.quoted_table()))
            .await
            .map_err(failed("drop table"))?;
    }
    Ok(expired)
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
