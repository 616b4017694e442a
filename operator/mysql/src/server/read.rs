//! Readings. I/O.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use understudy_wire::evidence::{Replication, StoredOffset};
use understudy_wire::{Epoch, ReplicaName};

use super::{gtids, one, rows};
use crate::error::SqlError;
use crate::instance::{EpochRow, Status};

const ER_NO_SUCH_TABLE: u16 = 1146;
const ER_BAD_DB: u16 = 1049;

pub(super) async fn status(conn: &mut Conn) -> Result<Status, SqlError> {
    const STEP: &str = "status";
    // What is on disk: the end of the log in memory moves on a volume that hangs too, with every attempt that is rolled back.
    const SQL: &str = "SELECT @@GLOBAL.server_uuid, @@GLOBAL.super_read_only, @@GLOBAL.gtid_executed, \
        (SELECT CAST(VARIABLE_VALUE AS UNSIGNED) FROM performance_schema.global_status WHERE VARIABLE_NAME = 'Innodb_redo_log_flushed_to_disk_lsn')";
    let (uuid, read_only, executed, lsn): (String, bool, String, Option<u64>) = one(conn, STEP, SQL).await?;
    Ok(Status { uuid, read_only, executed: gtids(STEP, &executed)?, lsn })
}

pub(super) async fn epoch(conn: &mut Conn) -> Result<Option<EpochRow>, SqlError> {
    const SQL: &str = "SELECT epoch, primary_replica FROM understudy.epoch WHERE id = 1";
    let found: Result<Vec<(u64, String)>, _> = rows(conn, "epoch", SQL).await;
    let found = or_empty(found)?;
    Ok(found
        .into_iter()
        .next()
        .map(|(epoch, primary)| EpochRow { epoch: Epoch(epoch), primary: ReplicaName::new(primary) }))
}

pub(super) async fn offsets(conn: &mut Conn) -> Result<Vec<StoredOffset>, SqlError> {
    const SQL: &str =
        "SELECT consumer, topic, partition_id, next_offset FROM understudy.consumer_offset ORDER BY 1, 2, 3";
    let found: Result<Vec<(String, String, i32, i64)>, _> = rows(conn, "offsets", SQL).await;
    let stored = |(consumer, topic, partition, next_offset)| StoredOffset { consumer, topic, partition, next_offset };
    Ok(or_empty(found)?.into_iter().map(stored).collect())
}

/// A server whose schema was not made yet holds no row.
fn or_empty<T>(found: Result<Vec<T>, SqlError>) -> Result<Vec<T>, SqlError> {
    match found {
        Err(SqlError::Refused { code: ER_NO_SUCH_TABLE | ER_BAD_DB, .. }) => Ok(Vec::new()),
        found => found,
    }
}

pub(super) async fn replication(conn: &mut Conn) -> Result<Option<Replication>, SqlError> {
    const STEP: &str = "replication";
    let row: Option<Row> = conn.query_first("SHOW REPLICA STATUS").await.map_err(|e| SqlError::of(STEP, &e))?;
    let Some(row) = row else { return Ok(None) };
    let text = |column: &str| -> Result<String, SqlError> {
        let missing = || SqlError::Answer { step: STEP, reason: format!("no column {column}") };
        row.get_opt::<String, _>(column).ok_or_else(missing)?.map_err(|_| missing())
    };
    let error = |number: &str, column: &str| -> Result<Option<String>, SqlError> {
        let message = text(column)?;
        (!message.is_empty()).then(|| text(number).map(|n| format!("{n}: {message}"))).transpose()
    };
    let host = text("Source_Host")?;
    if host.is_empty() {
        return Ok(None);
    }
    // With GTIDs on, the column breaks long sets by line feeds.
    let received = gtids(STEP, &text("Retrieved_Gtid_Set")?.replace('\n', ""))?;
    let executed = gtids(STEP, &text("Executed_Gtid_Set")?.replace('\n', ""))?;
    let receiving = text("Replica_IO_Running")? == "Yes";
    let behind: Option<u64> = row.get_opt("Seconds_Behind_Source").and_then(Result::ok).flatten();
    let delay = match (receiving, executed.contains(&received)) {
        (false, _) => None,
        // Connected, and nothing of this source has arrived: everything may be missing.
        (true, _) if received.is_empty() => None,
        (true, true) => Some(0),
        (true, false) => behind.map(|seconds| seconds.saturating_mul(1000)),
    };
    Ok(Some(Replication {
        source: Some(format!("{host}:{}", text("Source_Port")?)),
        receiving,
        applying: text("Replica_SQL_Running")? == "Yes",
        received,
        delay,
        receive_error: error("Last_IO_Errno", "Last_IO_Error")?,
        apply_error: error("Last_SQL_Errno", "Last_SQL_Error")?,
    }))
}
