//! The trait [`Instance`] over a real server, through one connection that is made again when it was lost. I/O.

mod clone;
mod locks;
mod read;
mod replicate;
mod write;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, OptsBuilder, SslOpts};
use tokio::sync::Mutex;
use understudy_wire::GtidSet;
use understudy_wire::evidence::{LockHolder, Replication, StoredOffset};

use crate::error::SqlError;
use crate::instance::{CloneProgress, Donor, EpochRow, Instance, Source, Status};
use crate::probe::Account;
use crate::tls::Trust;

/// A connection that was not used for this long is asked whether it still is one. mysqld closes what is idle for `wait_timeout`, which
/// is a second at least, and says so only to whoever speaks next.
const IDLE: Duration = Duration::from_millis(500);

/// How to reach a server.
#[derive(Clone, Debug)]
pub enum Connect {
    /// Over its Unix socket.
    Socket(PathBuf),
    /// Over TCP with TLS; the admin port of the own server.
    Tcp(SocketAddr, Trust),
}

/// One server. Calls run one after the other; whoever must not wait behind somebody else takes a `Server` of its own.
pub struct Server {
    options: OptsBuilder,
    /// Of a server that is reached over TLS; its authority may change.
    trust: Option<Trust>,
    connection: Mutex<Option<Kept>>,
}

struct Kept {
    conn: Conn,
    used: Instant,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

impl Server {
    /// Nothing is connected before the first call.
    pub fn new(connect: &Connect, account: &Account) -> Self {
        let options = OptsBuilder::default()
            .user(Some(account.user.clone()))
            .pass(Some(account.password.clone()))
            .prefer_socket(false)
            .stmt_cache_size(0_usize)
            .max_allowed_packet(Some(16 << 20))
            .wait_timeout(Some(28_800));
        let (options, trust) = match connect {
            Connect::Socket(path) => (options.socket(Some(path.to_string_lossy().into_owned())), None),
            Connect::Tcp(address, trust) => {
                let options = options
                    .ip_or_hostname(address.ip().to_string())
                    .resolved_ips(Some(vec![address.ip()]))
                    .tcp_port(address.port())
                    .tcp_nodelay(true);
                (options, Some(trust.clone()))
            }
        };
        Self { options, trust, connection: Mutex::new(None) }
    }

    async fn connect(&self, step: &'static str) -> Result<Conn, SqlError> {
        let mut options = self.options.clone();
        if let Some(trust) = &self.trust {
            let tls = SslOpts::default()
                .with_disable_built_in_roots(true)
                .with_root_certs(vec![trust.ca().into_bytes().into()])
                .with_danger_tls_hostname_override(Some(trust.name.clone()));
            options = options.ssl_opts(Some(tls));
        }
        Conn::new(options).await.map_err(|e| SqlError::of(step, &e))
    }

    /// Runs `work` on the connection within the deadline. A connection that failed or ran out of time is not used again.
    async fn run<T>(
        &self,
        step: &'static str,
        within: Duration,
        work: impl AsyncFnOnce(&mut Conn) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        let whole = async {
            let mut connection = self.connection.lock().await;
            let mut conn = match alive(connection.take()).await {
                Some(conn) => conn,
                None => self.connect(step).await?,
            };
            let outcome = work(&mut conn).await;
            if matches!(outcome, Ok(_) | Err(SqlError::Refused { .. } | SqlError::OlderEpoch { .. })) {
                *connection = Some(Kept { conn, used: Instant::now() });
            }
            outcome
        };
        match tokio::time::timeout(within, whole).await {
            Ok(outcome) => outcome,
            Err(_) => Err(SqlError::Deadline { step, within }),
        }
    }
}

/// The connection, unless it broke while nobody used it. An order must not fail on one that did: a fence that fails kills the server.
async fn alive(kept: Option<Kept>) -> Option<Conn> {
    let Kept { mut conn, used } = kept?;
    if used.elapsed() >= IDLE
        && let Err(error) = conn.ping().await
    {
        tracing::debug!(%error, "connection was closed while it was idle");
        return None;
    }
    Some(conn)
}

/// Runs one statement and throws its rows away.
async fn execute(conn: &mut Conn, step: &'static str, sql: &str) -> Result<(), SqlError> {
    conn.query_drop(sql).await.map_err(|e| SqlError::of(step, &e))
}

/// Reads every row.
async fn rows<T: FromRow + Send + 'static>(conn: &mut Conn, step: &'static str, sql: &str) -> Result<Vec<T>, SqlError> {
    conn.query(sql).await.map_err(|e| SqlError::of(step, &e))
}

/// Reads the one row that there must be.
async fn one<T: FromRow + Send + 'static>(conn: &mut Conn, step: &'static str, sql: &str) -> Result<T, SqlError> {
    let row = conn.query_first(sql).await.map_err(|e| SqlError::of(step, &e))?;
    row.ok_or_else(|| SqlError::Answer { step, reason: "no row".to_owned() })
}

fn gtids(step: &'static str, text: &str) -> Result<GtidSet, SqlError> {
    text.parse().map_err(|e: understudy_wire::gtid::GtidError| SqlError::Answer { step, reason: e.to_string() })
}

#[async_trait]
impl Instance for Server {
    async fn status(&self, within: Duration) -> Result<Status, SqlError> {
        self.run("status", within, read::status).await
    }

    async fn epoch(&self, within: Duration) -> Result<Option<EpochRow>, SqlError> {
        self.run("epoch", within, read::epoch).await
    }

    async fn offsets(&self, within: Duration) -> Result<Vec<StoredOffset>, SqlError> {
        self.run("offsets", within, read::offsets).await
    }

    async fn replication(&self, within: Duration) -> Result<Option<Replication>, SqlError> {
        self.run("replication", within, read::replication).await
    }

    async fn lock_holder(&self, within: Duration) -> Result<Option<LockHolder>, SqlError> {
        self.run("lock holder", within, locks::holder).await
    }

    async fn refuse_writes(&self, within: Duration) -> Result<(), SqlError> {
        self.run("refuse writes", within, write::refuse_writes).await
    }

    async fn take_writes(&self, within: Duration) -> Result<(), SqlError> {
        self.run("take writes", within, write::take_writes).await
    }

    async fn cut_clients(&self, within: Duration) -> Result<u32, SqlError> {
        self.run("cut clients", within, write::cut_clients).await
    }

    async fn follow(&self, source: &Source, within: Duration) -> Result<(), SqlError> {
        self.run("follow", within, async |conn: &mut Conn| replicate::follow(conn, source).await).await
    }

    async fn stop_receiving(&self, within: Duration) -> Result<(), SqlError> {
        self.run("stop receiving", within, replicate::stop_receiving).await
    }

    async fn stop_applying(&self, within: Duration) -> Result<(), SqlError> {
        self.run("stop applying", within, replicate::stop_applying).await
    }

    async fn wait_executed(&self, gtids: &GtidSet, within: Duration) -> Result<bool, SqlError> {
        // The server's own limit comes first, so that reaching it is an answer and not a lost connection.
        let whole = within + Duration::from_secs(1);
        self.run("wait for execution", whole, async |conn: &mut Conn| {
            replicate::wait_executed(conn, gtids, within).await
        })
        .await
    }

    async fn forget_source(&self, within: Duration) -> Result<(), SqlError> {
        self.run("forget source", within, replicate::forget_source).await
    }

    async fn write_epoch(&self, row: &EpochRow, at_ms: i64, within: Duration) -> Result<(), SqlError> {
        self.run("write epoch", within, async |conn: &mut Conn| write::write_epoch(conn, row, at_ms).await).await
    }

    async fn use_log_writers(&self, within: Duration) -> Result<(), SqlError> {
        self.run("use log writers", within, write::use_log_writers).await
    }

    async fn reload_certificates(&self, within: Duration) -> Result<(), SqlError> {
        self.run("reload certificates", within, write::reload_certificates).await
    }

    async fn clone_from(&self, donor: &Donor, within: Duration) -> Result<(), SqlError> {
        self.run("clone", within, async |conn: &mut Conn| clone::clone_from(conn, donor).await).await
    }

    async fn clone_progress(&self, within: Duration) -> Result<Option<CloneProgress>, SqlError> {
        self.run("clone progress", within, clone::progress).await
    }
}
