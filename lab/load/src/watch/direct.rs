//! A client that goes past everything: it connects to a shard's primary when the run begins and stays with that server,
//! whoever is primary later. What it could still do is what a fence is worth to clients that follow no route. I/O.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::routes::Route;
use super::stored::Login;
use crate::ledger::writer::{Ledger, LedgerError};
use crate::ledger::{Act, Record};

/// Time between two of its acts.
const EVERY: Duration = Duration::from_millis(200);
/// How long connecting may take, before anything has happened.
const CONNECT: Duration = Duration::from_secs(5);
/// The account that may write a row where nothing depends on it.
pub const WRITER: &str = "understudy_probe";
const READ: &str = "SELECT epoch FROM understudy.epoch WHERE id = 1";
const WRITE: &str = "INSERT INTO understudy.heartbeat (observer, seq, at_ms) VALUES ('lab-direct', 1, 0) AS new \
                     ON DUPLICATE KEY UPDATE seq = heartbeat.seq + 1, at_ms = new.at_ms";

/// Does it again and again over one connection until cancelled, or until that connection has ended. An answer is waited for as
/// long as the run lasts: a client without a deadline is the one that a server which comes back can still mislead.
pub async fn watch_direct(
    shard: String,
    act: Act,
    login: Login,
    mut routes: watch::Receiver<Option<Route>>,
    ledger: Ledger,
    cancel: CancellationToken,
) -> Result<(), LedgerError> {
    let first = tokio::select! {
        () = cancel.cancelled() => return Ok(()),
        found = routes.wait_for(Option::is_some) => found.ok().and_then(|route| route.clone()),
    };
    let Some(route) = first else { return Ok(()) };
    let record = |why: Option<String>, asked| Record::Direct {
        shard: shard.clone(),
        replica: route.primary.clone(),
        act,
        why,
        asked,
        at: ledger.clock.now(),
    };
    let asked = ledger.clock.now();
    let mut conn = match timeout(CONNECT, Conn::new(login.options(route.address))).await {
        Ok(Ok(conn)) => conn,
        Ok(Err(error)) => return ledger.record(record(Some(format!("connect: {error}")), asked)),
        Err(_) => return ledger.record(record(Some("connect: no answer in time".into()), asked)),
    };
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        let asked = ledger.clock.now();
        let outcome = tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(()),
            outcome = once(&mut conn, act) => outcome,
        };
        ledger.record(record(outcome.as_ref().err().map(ToString::to_string), asked))?;
        // A refusal is an answer, and the next may be another. A connection that ended is not made again: it would be a new client.
        if matches!(outcome, Err(ref error) if !matches!(error, Error::Server(_))) {
            return Ok(());
        }
    }
}

async fn once(conn: &mut Conn, act: Act) -> Result<(), Error> {
    match act {
        Act::Read => conn.query_first::<u64, _>(READ).await.map(drop),
        Act::Write => conn.query_drop(WRITE).await,
    }
}
