//! The clone plugin. I/O.

use mysql_async::Conn;

use super::{execute, rows};
use crate::error::SqlError;
use crate::instance::{CloneProgress, Donor};
use crate::schema::quote;

/// "Restart server failed (mysqld is not managed by supervisor process)": the clone is complete and the server is shutting down.
const ER_RESTART_SERVER_FAILED: u16 = 3707;

pub(super) async fn clone_from(conn: &mut Conn, donor: &Donor) -> Result<(), SqlError> {
    const STEP: &str = "clone";
    let address = quote(&donor.address.to_string());
    execute(conn, STEP, &format!("SET GLOBAL clone_valid_donor_list = {address}")).await?;
    execute(conn, STEP, &format!("SET GLOBAL clone_ssl_ca = {}", quote(&donor.ca_file))).await?;
    execute(conn, STEP, &format!("SET GLOBAL clone_max_network_bandwidth = {}", donor.mib_per_second)).await?;
    let (user, password) = (quote(&donor.account.user), quote(&donor.account.password));
    let (host, port) = (quote(&donor.address.ip().to_string()), donor.address.port());
    let sql = format!("CLONE INSTANCE FROM {user}@{host}:{port} IDENTIFIED BY {password} REQUIRE SSL");
    match execute(conn, STEP, &sql).await {
        Err(SqlError::Refused { code: ER_RESTART_SERVER_FAILED, .. }) => Ok(()),
        outcome => outcome,
    }
}

pub(super) async fn progress(conn: &mut Conn) -> Result<Option<CloneProgress>, SqlError> {
    const STEP: &str = "clone progress";
    const STAGES: &str = "SELECT STAGE, STATE, CAST(ESTIMATE AS UNSIGNED), CAST(DATA AS UNSIGNED) FROM performance_schema.clone_progress ORDER BY ID, BEGIN_TIME";
    const STATUS: &str = "SELECT STATE, ERROR_NO, ERROR_MESSAGE FROM performance_schema.clone_status";
    let stages: Vec<(String, String, u64, u64)> = rows(conn, STEP, STAGES).await?;
    if stages.is_empty() {
        return Ok(None);
    }
    let running = stages
        .iter()
        .find(|(_, state, ..)| state == "In Progress")
        .or_else(|| stages.iter().rfind(|(_, state, ..)| state == "Completed"));
    let stage = running.map_or_else(String::new, |(stage, ..)| stage.clone());
    let (done, total) = stages
        .iter()
        .fold((0, 0), |(done, total), (_, _, estimate, data)| (done + data, total + (*estimate).max(*data)));
    let status: Vec<(String, i64, String)> = rows(conn, STEP, STATUS).await?;
    let error =
        status.into_iter().find(|(state, ..)| state == "Failed").map(|(_, code, message)| format!("{code}: {message}"));
    Ok(Some(CloneProgress { stage, done, total, error }))
}
