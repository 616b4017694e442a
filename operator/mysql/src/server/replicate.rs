//! Following a source, and ceasing to. I/O.

use std::time::Duration;

use mysql_async::Conn;
use understudy_wire::GtidSet;

use super::{execute, one, read, rows};
use crate::error::SqlError;
use crate::instance::Source;
use crate::schema::quote;

/// mysqld's answer to STOP REPLICA when the applier has not ended within [`ROUND`].
const STILL_BUSY: u16 = 1875;
/// For how many seconds STOP REPLICA waits at a time: the least that mysqld takes.
const ROUND: u8 = 2;
/// mysqld's answer to KILL when the thread has ended meanwhile.
const NO_SUCH_THREAD: u16 = 1094;
/// Between two looks at whether a thread that was killed has ended.
const KILL_PAUSE: Duration = Duration::from_millis(20);

pub(super) async fn follow(conn: &mut Conn, source: &Source) -> Result<(), SqlError> {
    const STEP: &str = "follow";
    let present = read::replication(conn).await?;
    let is_same = present.as_ref().is_some_and(|r| r.source.as_deref() == Some(source.address.to_string().as_str()));
    if is_same && present.is_some_and(|r| r.receiving && r.applying) {
        return Ok(());
    }
    stop(conn, STEP).await?;
    if !is_same {
        let (host, port) = (quote(&source.address.ip().to_string()), source.address.port());
        let ca = quote(&source.ca_file);
        // The name in the certificate is the shard's and the host is an address, so mysqld can check only who signed it.
        let sql = format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST = {host}, SOURCE_PORT = {port}, SOURCE_AUTO_POSITION = 1, \
             SOURCE_SSL = 1, SOURCE_SSL_CA = {ca}, SOURCE_SSL_VERIFY_SERVER_CERT = 0, \
             SOURCE_CONNECT_RETRY = 1, SOURCE_RETRY_COUNT = 0, SOURCE_HEARTBEAT_PERIOD = 1"
        );
        execute(conn, STEP, &sql).await?;
    }
    // Given here, the password is never stored on the volume.
    let (user, password) = (quote(&source.account.user), quote(&source.account.password));
    execute(conn, STEP, &format!("START REPLICA USER = {user} PASSWORD = {password}")).await
}

pub(super) async fn stop_receiving(conn: &mut Conn) -> Result<(), SqlError> {
    execute(conn, "stop receiving", "STOP REPLICA IO_THREAD").await
}

pub(super) async fn stop_replicating(conn: &mut Conn) -> Result<(), SqlError> {
    stop(conn, "stop replicating").await
}

/// Ends both threads.
///
/// A source that dies within a transaction leaves the beginning of it in the relay log, and an applier that is told to stop waits a
/// minute for its end (`SLAVE_WAIT_GROUP_DONE` in MySQL's `rpl_replica.cc`). Ended by KILL it rolls that beginning back at once. Nothing is
/// lost: it was never whole here, and whoever has the whole of it sends it again.
async fn stop(conn: &mut Conn, step: &'static str) -> Result<(), SqlError> {
    execute(conn, step, &format!("SET GLOBAL rpl_stop_replica_timeout = {ROUND}")).await?;
    execute(conn, step, "STOP REPLICA IO_THREAD").await?;
    loop {
        give_up_beginning(conn, step).await?;
        match execute(conn, step, "STOP REPLICA").await {
            // It still reads what was received, or applies a transaction that is whole: the deadline of the step says for how long it may.
            Err(e) if e.code() == Some(STILL_BUSY) => {}
            outcome => return outcome,
        }
    }
}

/// Kills the applier if what was received ends within a transaction, and returns when it has ended.
async fn give_up_beginning(conn: &mut Conn, step: &'static str) -> Result<(), SqlError> {
    // The receiver has stopped, so what it was within has no end. It forgets that when it connects anew; the applier then tells.
    let sql = "SELECT t.PROCESSLIST_ID FROM performance_schema.replication_applier_status_by_coordinator c \
               JOIN performance_schema.threads t USING (THREAD_ID) \
               JOIN performance_schema.replication_connection_status r USING (CHANNEL_NAME) \
               WHERE r.QUEUEING_TRANSACTION <> '' \
               OR (c.PROCESSING_TRANSACTION <> '' AND t.PROCESSLIST_STATE LIKE 'Replica has read all relay log%')";
    for thread in rows::<u64>(conn, step, sql).await? {
        tracing::warn!(thread, "the source left the beginning of a transaction: it is rolled back");
        // STOP REPLICA takes a KILL back that the thread has not noticed yet, so it has to be gone before.
        loop {
            match execute(conn, step, &format!("KILL {thread}")).await {
                Err(e) if e.code() == Some(NO_SUCH_THREAD) => break,
                outcome => outcome?,
            }
            tokio::time::sleep(KILL_PAUSE).await;
        }
    }
    Ok(())
}

pub(super) async fn wait_executed(conn: &mut Conn, gtids: &GtidSet, within: Duration) -> Result<bool, SqlError> {
    const STEP: &str = "wait for execution";
    // Zero would mean for ever.
    let seconds = within.max(Duration::from_millis(1)).as_secs_f64();
    let sql = format!("SELECT WAIT_FOR_EXECUTED_GTID_SET({}, {seconds:.3})", quote(&gtids.to_string()));
    let timed_out: u8 = one(conn, STEP, &sql).await?;
    Ok(timed_out == 0)
}

pub(super) async fn forget_source(conn: &mut Conn) -> Result<(), SqlError> {
    const STEP: &str = "forget source";
    stop(conn, STEP).await?;
    execute(conn, STEP, "RESET REPLICA ALL").await
}
