//! The stored offsets of one shard, read through its current primary every 50 ms. I/O.
//!
//! A server that hangs must not blind the watcher: every step has a hard deadline, a change of the route ends whatever is
//! under way, and each new primary gets a fresh connection.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, SslOpts};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::routes::Route;
use crate::ledger::Record;
use crate::ledger::writer::{Ledger, LedgerError};

/// Time between two reads.
const EVERY: Duration = Duration::from_millis(50);
/// How long connecting may take.
const CONNECT: Duration = Duration::from_millis(400);
/// How long a read may take.
const READ: Duration = Duration::from_millis(250);
/// The account that may read.
pub const READER: &str = "understudy_reader";
/// One statement, so that offsets and epoch are of one moment.
const OFFSETS: &str = "SELECT (SELECT epoch FROM understudy.epoch WHERE id = 1), \
                       CONCAT_WS('/', o.consumer, o.topic, o.partition_id), o.next_offset \
                       FROM understudy.consumer_offset o";

/// How to log in to the servers of a shard.
#[derive(Clone)]
pub struct Login {
    account: &'static str,
    password: String,
    ca: Vec<u8>,
    name: String,
}

impl Login {
    /// As this account, from the shard's Secrets.
    pub async fn of(client: Client, namespace: &str, shard: &str, account: &'static str) -> anyhow::Result<Self> {
        let secrets: Api<Secret> = Api::namespaced(client, namespace);
        let value = async |secret: &str, key: &str| {
            let found = secrets.get(secret).await.with_context(|| format!("read the Secret {secret}"))?;
            let data = found.data.unwrap_or_default().remove(key);
            data.map(|value| value.0).ok_or_else(|| anyhow!("the Secret {secret} has no key {key}"))
        };
        let password = String::from_utf8(value(&format!("{shard}-credentials"), account).await?)?;
        let ca = value(&format!("{shard}-tls"), "ca.crt").await?;
        Ok(Self { account, password, ca, name: format!("{shard}.shard.understudy.internal") })
    }

    /// A connection by TLS to this address, which must show the shard's certificate.
    pub fn options(&self, address: SocketAddr) -> Opts {
        let tls = SslOpts::default()
            .with_root_certs(vec![self.ca.clone().into()])
            .with_disable_built_in_roots(true)
            .with_danger_tls_hostname_override(Some(self.name.clone()));
        OptsBuilder::default()
            .ip_or_hostname(address.ip().to_string())
            .resolved_ips(Some(vec![address.ip()]))
            .tcp_port(address.port())
            .user(Some(self.account))
            .pass(Some(self.password.clone()))
            .ssl_opts(tls)
            .tcp_nodelay(true)
            .prefer_socket(false)
            .wait_timeout(Some(60))
            .into()
    }
}

/// Reads and records until cancelled.
pub async fn watch_offsets(
    shard: String,
    login: Login,
    mut routes: watch::Receiver<Option<Route>>,
    ledger: Ledger,
    cancel: CancellationToken,
) -> Result<(), LedgerError> {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut session: Option<(Route, Conn)> = None;
    loop {
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        let Some(route) = routes.borrow_and_update().clone() else { continue };
        let open = session.take().filter(|(known, _)| *known == route).map(|(_, conn)| conn);
        let asked = ledger.clock.now();
        let outcome = tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(()),
            // Its sender lives as long as the watch does; when that ends, this ends by its own token.
            Ok(()) = routes.changed() => continue,
            outcome = observe(open, &route, &login) => outcome,
        };
        let at = ledger.clock.now();
        let replica = route.primary.clone();
        let record = match outcome {
            Ok((conn, epoch, offsets)) => {
                session = Some((route, conn));
                Record::Stored { shard: shard.clone(), replica, epoch, offsets, asked, at }
            }
            Err(failure) => Record::StoredFailed { shard: shard.clone(), replica, why: format!("{failure:#}"), at },
        };
        ledger.record(record)?;
    }
}

type Observation = (Conn, u64, BTreeMap<String, i64>);

async fn observe(open: Option<Conn>, route: &Route, login: &Login) -> anyhow::Result<Observation> {
    let mut conn = match open {
        Some(conn) => conn,
        None => {
            let connecting = timeout(CONNECT, Conn::new(login.options(route.address))).await;
            connecting.context("connect: no answer in time")?.context("connect")?
        }
    };
    type Row = (Option<u64>, String, i64);
    let rows: Vec<Row> =
        timeout(READ, conn.query(OFFSETS)).await.context("read: no answer in time")?.context("read")?;
    let epoch = match rows.first() {
        Some((Some(epoch), ..)) => *epoch,
        Some((None, ..)) => bail!("no epoch is stored"),
        // No offset yet: there is no row to carry the epoch.
        None => route.epoch,
    };
    let offsets = rows.into_iter().map(|(_, partition, next)| (partition, next)).collect();
    Ok((conn, epoch, offsets))
}
