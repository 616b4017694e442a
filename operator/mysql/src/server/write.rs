//! Who may write, and the epoch row. I/O.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::{execute, rows};
use crate::error::SqlError;
use crate::instance::EpochRow;
use crate::schema::{ADMIN, REPLICATION, quote};

const ER_NO_SUCH_THREAD: u16 = 1094;

pub(super) async fn refuse_writes(conn: &mut Conn) -> Result<(), SqlError> {
    // Assigned from left to right: the second one waits no longer than the first one says.
    execute(conn, "refuse writes", "SET SESSION lock_wait_timeout = 1, GLOBAL super_read_only = ON").await
}

pub(super) async fn take_writes(conn: &mut Conn) -> Result<(), SqlError> {
    // Clearing `read_only` clears `super_read_only` with it.
    execute(conn, "take writes", "SET SESSION lock_wait_timeout = 1, GLOBAL read_only = OFF").await
}

pub(super) async fn cut_clients(conn: &mut Conn) -> Result<u32, SqlError> {
    const STEP: &str = "cut clients";
    let sql = format!(
        "SELECT ID FROM performance_schema.processlist WHERE ID <> CONNECTION_ID() \
         AND USER NOT IN ('system user', 'event_scheduler', '{ADMIN}', '{REPLICATION}')"
    );
    let clients: Vec<u64> = rows(conn, STEP, &sql).await?;
    let mut cut = 0;
    for client in clients {
        match execute(conn, STEP, &format!("KILL CONNECTION {client}")).await {
            Ok(()) => cut += 1,
            Err(SqlError::Refused { code: ER_NO_SUCH_THREAD, .. }) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(cut)
}

pub(super) async fn write_epoch(conn: &mut Conn, row: &EpochRow, at_ms: i64) -> Result<(), SqlError> {
    const STEP: &str = "write epoch";
    let stored: Option<(u64, String)> = conn
        .query_first("SELECT epoch, primary_replica FROM understudy.epoch WHERE id = 1")
        .await
        .map_err(|e| SqlError::of(STEP, &e))?;
    if let Some((stored, primary)) = stored {
        if stored > row.epoch.0 {
            return Err(SqlError::OlderEpoch { given: row.epoch.0, stored });
        }
        if stored == row.epoch.0 && primary == row.primary.as_str() {
            return Ok(());
        }
    }
    let (epoch, primary) = (row.epoch.0, quote(row.primary.as_str()));
    // The condition holds even if somebody wrote between the reading and here.
    let sql = format!(
        "INSERT INTO understudy.epoch (id, epoch, primary_replica, promoted_at_ms) VALUES (1, {epoch}, {primary}, {at_ms}) AS new \
         ON DUPLICATE KEY UPDATE primary_replica = IF(new.epoch >= epoch.epoch, new.primary_replica, epoch.primary_replica), \
         promoted_at_ms = IF(new.epoch >= epoch.epoch, new.promoted_at_ms, epoch.promoted_at_ms), epoch = GREATEST(new.epoch, epoch.epoch)"
    );
    execute(conn, STEP, &sql).await
}

pub(super) async fn use_log_writers(conn: &mut Conn) -> Result<(), SqlError> {
    execute(conn, "use log writers", "SET GLOBAL innodb_log_writer_threads = ON").await
}

pub(super) async fn reload_certificates(conn: &mut Conn) -> Result<(), SqlError> {
    // The admin port has no certificate of its own and takes this one.
    execute(conn, "reload certificates", "ALTER INSTANCE RELOAD TLS").await
}
