//! Who holds the lock that somebody waits for. I/O.
//!
//! The tables of the performance schema look at every lock of the server, so they are asked rarely, with a deadline, and never twice where
//! they did not answer. What is locked is told by its name, a statement by its digest, which holds no values.

use mysql_async::Conn;
use understudy_wire::evidence::{LockHolder, MAX_DIGEST};

use super::rows;
use crate::error::SqlError;
use crate::schema::{ADMIN, CONSUMER, PROBE};

const STEP: &str = "lock holder";

/// Connection, account, host, milliseconds, what is locked, digest.
type Held = (Option<u64>, Option<String>, Option<String>, Option<u64>, Option<String>, Option<String>);

pub(super) async fn holder(conn: &mut Conn) -> Result<Option<LockHolder>, SqlError> {
    let held = match first(conn, &of_a_row()).await? {
        Some(held) => Some(held),
        None => first(conn, &of_an_object()).await?,
    };
    Ok(held.map(named))
}

async fn first(conn: &mut Conn, sql: &str) -> Result<Option<Held>, SqlError> {
    let found: Vec<Held> = rows(conn, STEP, sql).await?;
    Ok(found.into_iter().next())
}

/// What is said of a session. The server gives up by itself as well, so that what was asked does not go on there for nobody.
fn columns(locked: &str) -> String {
    format!(
        "/*+ MAX_EXECUTION_TIME(1000) */ t.PROCESSLIST_ID, t.PROCESSLIST_USER, t.PROCESSLIST_HOST, \
         CAST(COALESCE(x.TIMER_WAIT DIV 1000000000, t.PROCESSLIST_TIME * 1000, 0) AS UNSIGNED) AS held, \
         {locked}, LEFT(s.DIGEST_TEXT, {MAX_DIGEST})"
    )
}

/// Where that is read of the session whose thread is `holder`.
fn session(holder: &str) -> String {
    format!(
        "JOIN performance_schema.threads t ON t.THREAD_ID = {holder} \
         LEFT JOIN performance_schema.events_transactions_current x ON x.THREAD_ID = {holder} AND x.STATE = 'ACTIVE' \
         LEFT JOIN performance_schema.events_statements_current s ON s.THREAD_ID = {holder} AND s.NESTING_EVENT_LEVEL = 0"
    )
}

/// Only those for whom the server is there: a person who waits for another person is nobody's affair.
fn of_ours(waiting: &str) -> String {
    format!(
        "JOIN performance_schema.threads w ON w.THREAD_ID = {waiting} \
         AND w.PROCESSLIST_USER IN ('{ADMIN}', '{PROBE}', '{CONSUMER}')"
    )
}

/// InnoDB's locks. Which table it is in is not asked: that would go through every lock there is.
fn of_a_row() -> String {
    format!(
        "SELECT {} FROM performance_schema.data_lock_waits l {} {} \
         WHERE l.BLOCKING_THREAD_ID <> l.REQUESTING_THREAD_ID ORDER BY held DESC LIMIT 1",
        columns("'row'"),
        of_ours("l.REQUESTING_THREAD_ID"),
        session("l.BLOCKING_THREAD_ID"),
    )
}

/// Locks of the server's own. Whoever has the strongest is named, as the weak ones that many hold stand in nobody's way; a long statement
/// that holds a weak one is named when a strong one is only asked for behind it.
fn of_an_object() -> String {
    format!(
        "SELECT {} FROM performance_schema.metadata_locks p {} \
         JOIN performance_schema.metadata_locks g ON g.OBJECT_TYPE = p.OBJECT_TYPE AND g.OBJECT_SCHEMA <=> p.OBJECT_SCHEMA \
         AND g.OBJECT_NAME <=> p.OBJECT_NAME AND g.LOCK_STATUS = 'GRANTED' AND g.OWNER_THREAD_ID <> p.OWNER_THREAD_ID {} \
         WHERE p.LOCK_STATUS = 'PENDING' \
         ORDER BY g.LOCK_TYPE IN ('EXCLUSIVE', 'SHARED_NO_READ_WRITE', 'SHARED_NO_WRITE', 'SHARED_READ_ONLY', 'SHARED') DESC, \
         held DESC LIMIT 1",
        columns("CONCAT_WS(' ', p.OBJECT_TYPE, NULLIF(CONCAT_WS('.', p.OBJECT_SCHEMA, p.OBJECT_NAME), ''))"),
        of_ours("p.OWNER_THREAD_ID"),
        session("g.OWNER_THREAD_ID"),
    )
}

fn named((connection, user, host, held, locked, statement): Held) -> LockHolder {
    let host = host.filter(|host| !host.is_empty());
    let user = user.unwrap_or_default();
    LockHolder {
        connection,
        user: host.map_or(user.clone(), |host| format!("{user}@{host}")),
        held: held.unwrap_or(0),
        locked: locked.unwrap_or_default(),
        // A multi-byte character may be one for the server and several here.
        statement: statement.unwrap_or_default().chars().take(MAX_DIGEST).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_named_by_what_is_known_of_it() {
        let digest = "x".repeat(MAX_DIGEST + 5);
        let known = named((
            Some(7),
            Some("someone".to_owned()),
            Some("10.0.0.9".to_owned()),
            Some(61_000),
            Some("TABLE store.series".to_owned()),
            Some(digest),
        ));
        assert_eq!((known.user.as_str(), known.held), ("someone@10.0.0.9", 61_000));
        assert_eq!(known.statement.len(), MAX_DIGEST);
        assert_eq!(named((None, None, None, None, None, None)), LockHolder::default());
    }
}
