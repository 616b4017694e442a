//! Following a source, and ceasing to. I/O.

use std::time::Duration;

use mysql_async::Conn;
use understudy_wire::GtidSet;

use super::{execute, one, read};
use crate::error::SqlError;
use crate::instance::Source;
use crate::schema::quote;

pub(super) async fn follow(conn: &mut Conn, source: &Source) -> Result<(), SqlError> {
    const STEP: &str = "follow";
    let present = read::replication(conn).await?;
    let is_same = present.as_ref().is_some_and(|r| r.source.as_deref() == Some(source.address.to_string().as_str()));
    if is_same && present.is_some_and(|r| r.receiving && r.applying) {
        return Ok(());
    }
    execute(conn, STEP, "STOP REPLICA").await?;
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
    execute(conn, "stop replicating", "STOP REPLICA").await
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
    execute(conn, STEP, "STOP REPLICA").await?;
    execute(conn, STEP, "RESET REPLICA ALL").await
}
