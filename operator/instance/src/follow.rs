//! Following a source, read-only. I/O.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use understudy_mysql::instance::Source;
use understudy_mysql::probe::Account;
use understudy_mysql::schema::REPLICATION;
use understudy_mysql::{Instance, SqlError};
use understudy_wire::order::{Follow, Refusal};

use crate::config::Config;
use crate::facts::Shared;

const READ_WITHIN: Duration = Duration::from_secs(2);
const STEP_WITHIN: Duration = Duration::from_secs(5);

/// Makes this server a standby of the order's source. A server that took writes until now refuses them first.
pub async fn follow(shared: &Shared, config: &Config, server: &dyn Instance, order: &Follow) -> Result<(), Refusal> {
    if order.source == shared.me {
        return Err(Refusal::NotMine { reason: "a replica cannot follow itself".to_owned() });
    }
    let address: SocketAddr =
        order.address.parse().map_err(|_| Refusal::NotMine { reason: format!("{:?} is no ip:port", order.address) })?;
    let status = step("read status", server.status(READ_WITHIN).await)?;
    if !status.read_only {
        step("refuse writes", server.refuse_writes(STEP_WITHIN).await)?;
    }
    // Those of a primary until now belong elsewhere.
    if !status.read_only || shared.read(|facts| facts.fence.is_some()) {
        step("cut clients", server.cut_clients(STEP_WITHIN).await)?;
    }
    let account = Account { user: REPLICATION.to_owned(), password: config.passwords.of(REPLICATION).to_owned() };
    let source = Source { address, account, ca_file: config.ca_file() };
    step("follow", server.follow(&source, STEP_WITHIN).await)?;

    let status = step("read status", server.status(READ_WITHIN).await)?;
    let replication = step("read replication", server.replication(READ_WITHIN).await)?;
    shared.update(|facts| {
        let now = Instant::now();
        facts.take_status(status, now);
        facts.take_replication(replication, now);
        facts.fence = None;
    });
    Ok(())
}

fn step<T>(step: &str, outcome: Result<T, SqlError>) -> Result<T, Refusal> {
    outcome.map_err(|e| Refusal::Failed { step: step.to_owned(), reason: e.to_string() })
}
