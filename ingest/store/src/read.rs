//! Samples out of MySQL, and how fresh they are. I/O.
//!
//! For one answer use one connection, and `START TRANSACTION READ ONLY` with a consistent snapshot when it must not change under the
//! reads. Set `max_execution_time` on the session; nothing here has a deadline of its own.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params, Value};
use understudy_model::{GroupId, SeriesId, Tenant};

use crate::block::Block;
use crate::catalogue::tenant_value;
use crate::merge::{Merged, Merger};
use crate::range::{ROW_SPAN_MS, Range};
use crate::schema;
use crate::select::Series;

/// The most groups that a statement lists.
const GROUPS: usize = 256;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The server did not answer, or with an error.
    #[error("{step}")]
    Sql {
        /// What was being done.
        step: &'static str,
        /// What went wrong.
        #[source]
        source: mysql_async::Error,
    },
    /// A table is not there: nothing was stored yet, or it was dropped under the read.
    #[error("the table is not there")]
    NotThere,
    /// The answer would be larger than the caller allows.
    #[error("more than {most} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        most: usize,
    },
    /// A row is not what this version writes.
    #[error("a stored row is damaged: {0}")]
    Damaged(String),
}

/// Maps errors of a step, with missing tables told apart.
pub(crate) fn failed(step: &'static str) -> impl Fn(mysql_async::Error) -> ReadError {
    move |source| match &source {
        // No such table, no such schema.
        mysql_async::Error::Server(e) if e.code == 1146 || e.code == 1049 => ReadError::NotThere,
        _ => ReadError::Sql { step, source },
    }
}

/// The landing tables there are, in order.
pub async fn ranges(conn: &mut Conn) -> Result<BTreeSet<Range>, ReadError> {
    let names: Vec<String> = conn.query(schema::TABLES).await.map_err(failed("list tables"))?;
    Ok(names.iter().filter_map(|name| Range::from_table(name)).collect())
}

/// Gives each row that may hold samples of the groups and times to `block`, with the offset of its first record. Rows come table by table.
pub async fn read_blocks(
    conn: &mut Conn,
    tenant: &Tenant,
    groups: &BTreeSet<GroupId>,
    times: (i64, i64),
    mut block: impl FnMut(Block, i64) -> Result<(), ReadError> + Send,
) -> Result<(), ReadError> {
    let ranges = ranges(conn).await?;
    let groups: Vec<GroupId> = groups.iter().copied().collect();
    for range in ranges.into_iter().filter(|range| range.overlaps(times.0, times.1)) {
        for groups in groups.chunks(GROUPS) {
            let (sql, params) = rows_of(range, tenant, groups, times);
            let mut rows = match conn.exec_iter(sql, Params::Positional(params)).await.map_err(failed("read rows")) {
                Ok(rows) => rows,
                // Retention dropped the table since it was listed.
                Err(ReadError::NotThere) => break,
                Err(e) => return Err(e),
            };
            while let Some(row) = rows.next().await.map_err(failed("read rows"))? {
                let (offset, t_min, codec, body): (i64, i64, u8, Vec<u8>) =
                    mysql_async::from_row_opt(row).map_err(|e| ReadError::Damaged(e.to_string()))?;
                let decoded =
                    Block::decode(codec, &body, t_min).map_err(|e| ReadError::Damaged(format!("{range:?}: {e}")))?;
                block(decoded, offset)?;
            }
        }
    }
    Ok(())
}

/// The samples of the series in `times` (both ends included), each time once; an error when they are more than `most`.
pub async fn read_samples(
    conn: &mut Conn,
    tenant: &Tenant,
    series: &[Series],
    times: (i64, i64),
    most: usize,
) -> Result<Merged, ReadError> {
    let groups: BTreeSet<GroupId> = series.iter().map(|s| s.group).collect();
    let wanted: HashSet<SeriesId> = series.iter().map(|s| s.id).collect();
    let mut merger = Merger::default();
    read_blocks(conn, tenant, &groups, times, |block, offset| {
        merger.add(&block, |id| wanted.contains(&id), times, offset);
        if merger.samples_len() > most { Err(ReadError::TooMany { what: "samples", most }) } else { Ok(()) }
    })
    .await?;
    Ok(merger.finish())
}

fn rows_of(range: Range, tenant: &Tenant, groups: &[GroupId], times: (i64, i64)) -> (String, Vec<Value>) {
    // A power of two of marks, so that few distinct statements are prepared; the last group is listed again.
    let marks = groups.len().next_power_of_two();
    let sql = format!(
        "SELECT kafka_offset, t_min, codec, body FROM {} \
         WHERE group_id IN ({}) AND tenant = ? AND t_min BETWEEN ? AND ? AND t_max >= ?",
        range.quoted_table(),
        vec!["?"; marks].join(",")
    );
    let listed = groups.iter().chain(std::iter::repeat(&groups[groups.len() - 1])).take(marks);
    let mut params: Vec<Value> = listed.map(|group| Value::Bytes(group.0.to_vec())).collect();
    params.push(tenant_value(tenant));
    params.extend([times.0.saturating_sub(ROW_SPAN_MS), times.1, times.0].map(Value::Int));
    (sql, params)
}

/// How far the data of a shard is complete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freshness {
    /// Each partition that the consumer has ever read for this shard.
    pub partitions: BTreeMap<(String, i32), PartitionFreshness>,
}

/// How far the data of one partition is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionFreshness {
    /// Every record below is applied.
    pub next_offset: i64,
    /// Every record that was acknowledged before this time is applied; milliseconds since 1970, by the clocks of broker and consumer.
    pub complete_until_ms: i64,
    /// The epoch under which it was written last.
    pub epoch: u64,
}

impl Freshness {
    /// The time up to which all partitions are complete; None when nothing was ever read.
    pub fn complete_until_ms(&self) -> Option<i64> {
        self.partitions.values().map(|partition| partition.complete_until_ms).min()
    }
}

/// How far the data that `consumer` applied is complete on this server.
pub async fn freshness(conn: &mut Conn, consumer: &str) -> Result<Freshness, ReadError> {
    let sql =
        "SELECT topic, partition_id, next_offset, updated_ms, epoch FROM understudy.consumer_offset WHERE consumer = ?";
    let rows: Vec<(String, i32, i64, i64, u64)> = conn.exec(sql, (consumer,)).await.map_err(failed("read offsets"))?;
    let partitions = rows
        .into_iter()
        .map(|(topic, partition, next_offset, complete_until_ms, epoch)| {
            ((topic, partition), PartitionFreshness { next_offset, complete_until_ms, epoch })
        })
        .collect();
    Ok(Freshness { partitions })
}

/// The time of the newest sample stored for anybody, or close to it: that of the latest row begun. None when there is no sample.
pub async fn newest_sample_ms(conn: &mut Conn) -> Result<Option<i64>, ReadError> {
    for range in ranges(conn).await?.into_iter().rev() {
        let sql = format!("SELECT t_max FROM {} ORDER BY t_min DESC LIMIT 1", range.quoted_table());
        match conn.query_first(sql).await.map_err(failed("read newest row")) {
            Ok(Some(newest)) => return Ok(Some(newest)),
            Ok(None) | Err(ReadError::NotThere) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}
