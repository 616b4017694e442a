//! Following a source, and ceasing to. I/O.

use std::time::Duration;

use mysql_async::Conn;
use understudy_wire::GtidSet;

use super::{execute, one, read, rows};
use crate::error::SqlError;
use crate::instance::Source;
use crate::schema::quote;

/// mysqld's answers to STOP REPLICA when the applier, or the receiver, has not ended within [`ROUND`].
const STILL_BUSY: [u16; 2] = [1875, 1876];
/// For how many seconds STOP REPLICA waits at a time: the least that mysqld takes.
const ROUND: u8 = 2;
/// mysqld's answer to KILL when the thread has ended meanwhile.
const NO_SUCH_THREAD: u16 = 1094;
/// Between two looks at an applier.
const PAUSE: Duration = Duration::from_millis(20);
/// After how many attempts in a row the receiver gives up: never. Zero would mean so only while it connects, not where connections end at once.
const ATTEMPTS: u32 = u32::MAX;

pub(super) async fn follow(conn: &mut Conn, source: &Source) -> Result<(), SqlError> {
    const STEP: &str = "follow";
    let present = read::replication(conn).await?;
    let is_same = present.as_ref().is_some_and(|r| r.source.as_deref() == Some(source.address.to_string().as_str()));
    if let Some(present) = present.filter(|r| is_same && r.applying) {
        // One that is on its way goes on trying by itself, and to end it may take as long as an attempt: a promotion would have to wait for that.
        if present.receiving || (present.receive_error.is_none() && is_on_its_way(conn, STEP).await?) {
            return Ok(());
        }
    }
    stop(conn, STEP).await?;
    if !is_same {
        let (host, port) = (quote(&source.address.ip().to_string()), source.address.port());
        let ca = quote(&source.ca_file);
        // The name in the certificate is the shard's and the host is an address, so mysqld can check only who signed it.
        let sql = format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST = {host}, SOURCE_PORT = {port}, SOURCE_AUTO_POSITION = 1, \
             SOURCE_SSL = 1, SOURCE_SSL_CA = {ca}, SOURCE_SSL_VERIFY_SERVER_CERT = 0, \
             SOURCE_CONNECT_RETRY = 1, SOURCE_RETRY_COUNT = {ATTEMPTS}, SOURCE_HEARTBEAT_PERIOD = 1"
        );
        execute(conn, STEP, &sql).await?;
    }
    // Given here, the password is never stored on the volume.
    let (user, password) = (quote(&source.account.user), quote(&source.account.password));
    execute(conn, STEP, &format!("START REPLICA USER = {user} PASSWORD = {password}")).await
}

pub(super) async fn stop_receiving(conn: &mut Conn) -> Result<(), SqlError> {
    stop_receiver(conn, "stop receiving").await
}

pub(super) async fn stop_applying(conn: &mut Conn) -> Result<(), SqlError> {
    const STEP: &str = "stop applying";
    set_round(conn, STEP).await?;
    stop_applier(conn, STEP).await
}

/// Whether the receiver runs and has no connection.
async fn is_on_its_way(conn: &mut Conn, step: &'static str) -> Result<bool, SqlError> {
    let sql =
        "SELECT COUNT(*) > 0 FROM performance_schema.replication_connection_status WHERE SERVICE_STATE = 'CONNECTING'";
    one(conn, step, sql).await
}

/// Ends both threads, the receiver first.
async fn stop(conn: &mut Conn, step: &'static str) -> Result<(), SqlError> {
    set_round(conn, step).await?;
    stop_receiver(conn, step).await?;
    stop_applier(conn, step).await
}

/// STOP REPLICA is to come back, and not to wait for as long as a thread takes.
async fn set_round(conn: &mut Conn, step: &'static str) -> Result<(), SqlError> {
    execute(conn, step, &format!("SET GLOBAL rpl_stop_replica_timeout = {ROUND}")).await
}

/// Ends the receiver.
///
/// What it waits for decides how long that takes (`terminate_slave_thread` and `connect_to_master` in MySQL's `rpl_replica.cc`, `vio_io_wait` in its
/// `viosocket.cc`). STOP REPLICA shuts the socket of one that is connected, which then ends at once, also where the source is gone without a word.
/// The socket of an attempt to connect it does not know, and an attempt takes up with its waiting again after a signal: it lasts for 2 s more,
/// or until it fails, after `replica_net_timeout` at the latest. All that while the statement keeps any other from starting or stopping the
/// applier.
async fn stop_receiver(conn: &mut Conn, step: &'static str) -> Result<(), SqlError> {
    while is_busy(execute(conn, step, "STOP REPLICA IO_THREAD").await)? {}
    Ok(())
}

/// Ends the applier. The receiver may still be on its way to its source: what it has is nothing more than is in the relay log.
///
/// A source that dies within a transaction leaves the beginning of it in the relay log, and an applier that is told to stop waits a
/// minute for its end (`SLAVE_WAIT_GROUP_DONE` in MySQL's `rpl_replica.cc`). Ended by KILL it rolls that beginning back at once. Nothing is
/// lost: it was never whole here, and whoever has the whole of it sends it again.
async fn stop_applier(conn: &mut Conn, step: &'static str) -> Result<(), SqlError> {
    loop {
        match applier(conn, step).await? {
            Applier::Within(thread) => kill(conn, step, thread).await?,
            Applier::OnTheWay => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Applier::Stoppable => {}
        }
        // It applies a transaction that is whole: the deadline of the step says for how long it may.
        if !is_busy(execute(conn, step, "STOP REPLICA SQL_THREAD").await)? {
            return Ok(());
        }
    }
}

fn is_busy(outcome: Result<(), SqlError>) -> Result<bool, SqlError> {
    match outcome {
        Err(e) if e.code().is_some_and(|code| STILL_BUSY.contains(&code)) => Ok(true),
        outcome => outcome.map(|()| false),
    }
}

/// The applier of a server that receives nothing any more.
enum Applier {
    /// It is within a transaction of which there is only the beginning; its thread, for KILL.
    Within(u64),
    /// What was received ends with such a beginning, and it has not come to it. Told to stop now it would wait there.
    OnTheWay,
    /// It stands still, or is within a transaction that is whole.
    Stoppable,
}

async fn applier(conn: &mut Conn, step: &'static str) -> Result<Applier, SqlError> {
    // The set holds what was received whole. What the receiver was within it forgets when it connects anew, and keeps when it has another
    // source: then the applier has read everything and is within nothing.
    let sql = "SELECT t.PROCESSLIST_ID, c.PROCESSING_TRANSACTION <> '' \
                      AND NOT GTID_SUBSET(c.PROCESSING_TRANSACTION, r.RECEIVED_TRANSACTION_SET), \
                      r.QUEUEING_TRANSACTION <> '' AND COALESCE(t.PROCESSLIST_STATE, '') NOT LIKE 'Replica has read all relay log%' \
               FROM performance_schema.replication_applier_status_by_coordinator c \
               JOIN performance_schema.threads t USING (THREAD_ID) \
               JOIN performance_schema.replication_connection_status r USING (CHANNEL_NAME) \
               WHERE t.PROCESSLIST_ID IS NOT NULL";
    Ok(match rows::<(u64, bool, bool)>(conn, step, sql).await?.first() {
        Some((thread, true, _)) => Applier::Within(*thread),
        Some((_, false, true)) => Applier::OnTheWay,
        Some((_, false, false)) | None => Applier::Stoppable,
    })
}

/// Ends an applier, and returns when it has ended: STOP REPLICA takes a KILL back that the thread has not noticed yet.
async fn kill(conn: &mut Conn, step: &'static str, thread: u64) -> Result<(), SqlError> {
    tracing::warn!(thread, "the source left the beginning of a transaction: it is rolled back");
    loop {
        match execute(conn, step, &format!("KILL {thread}")).await {
            Err(e) if e.code() == Some(NO_SUCH_THREAD) => return Ok(()),
            outcome => outcome?,
        }
        tokio::time::sleep(PAUSE).await;
    }
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
