//! Asking one MySQL server. I/O, behind the traits [`Servers`] and [`Session`].
//!
//! A session is asked within one read-only transaction on a consistent snapshot, which begins by saying its epoch: what
//! is read afterwards is of the same moment.

use std::collections::{BTreeSet, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use thiserror::Error;
use tokio::time::Instant;
use understudy_model::{SeriesId, Tenant};
use understudy_sql::{Login, Tls};
use understudy_store::{
    Kept, Matcher, Merger, ReadError, Series, label_names, label_values, matching_series, read_blocks,
};
use understudy_wire::{Epoch, ShardName};

use crate::budget::{Exhausted, Held, Load};
use crate::idle::Idle;
use crate::limits::Limits;
use crate::merge::Selected;
use crate::topology::Server;
use crate::work::{Found, Results, Selection, Standing, Work};

/// The account that may only read.
const ACCOUNT: &str = understudy_wire::account::READER;

/// The statement ran longer than `max_execution_time`.
const TOO_SLOW: u16 = 3024;
/// The table was made after the snapshot.
const TABLE_CHANGED: u16 = 1412;
/// The server ends the connection: it shuts down, somebody ended the connection or its session, or it was idle for too long.
const ENDED: [u16; 4] = [1053, 1927, 3169, 4031];

/// Why a server has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ServerError {
    /// No connection, none in time, or lost.
    #[error("not reachable: {0}")]
    Unreachable(String),
    /// It answered with an error.
    #[error("answered with an error: {0}")]
    Failed(String),
    /// It stands under an epoch that is over.
    #[error("it is at epoch {has}, the shard is at {known}")]
    OldEpoch {
        /// Its own.
        has: Epoch,
        /// The shard's.
        known: Epoch,
    },
    /// A standby that is too far behind to answer.
    #[error("it is {0:?} behind")]
    Behind(Duration),
    /// A standby that cannot say how far behind it is, because a partition was never read into it.
    #[error("how far behind it is cannot be known")]
    NotKnown,
    /// It took longer than a query may.
    #[error("the query took longer than allowed")]
    TooSlow,
    /// It found more than a query may.
    #[error("the query found more than {most} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        most: usize,
    },
    /// Others hold the memory.
    #[error("other queries use all the memory")]
    Memory,
    /// What is stored cannot be read.
    #[error("{0}")]
    Damaged(String),
}

impl ServerError {
    /// Whether another server of the shard may do better.
    pub fn is_of_the_server(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Failed(_) | Self::Damaged(_) => true,
            Self::OldEpoch { .. } | Self::Behind(_) | Self::NotKnown => true,
            Self::TooSlow | Self::TooMany { .. } | Self::Memory => false,
        }
    }
}

impl From<Exhausted> for ServerError {
    fn from(exhausted: Exhausted) -> Self {
        match exhausted {
            Exhausted::Now => Self::Memory,
            Exhausted::Ever(most) => Self::TooMany { what: "bytes of series and samples", most },
        }
    }
}

/// The servers of all shards.
#[async_trait]
pub trait Servers: Send + Sync + 'static {
    /// A connection.
    type Session: Session;

    /// A connection that is idle or, where there is none or `fresh` is asked for, a new one.
    async fn connect(&self, shard: &ShardName, server: &Server, fresh: bool) -> Result<Self::Session, ServerError>;

    /// Takes back a connection whose last answer was complete.
    async fn give_back(&self, session: Self::Session);

    /// Closes connections that were idle for too long, and those to servers that are not among these.
    fn tidy(&self, servers: &BTreeSet<SocketAddr>);
}

/// A connection to one server.
#[async_trait]
pub trait Session: Send + 'static {
    /// Whether it was idle before: then a failure says nothing about the server.
    fn is_reused(&self) -> bool;

    /// Begins, and says where the server stands.
    async fn begin(&mut self) -> Result<Standing, ServerError>;

    /// What the tenant has.
    async fn run(&mut self, tenant: &Tenant, work: &Work, held: &mut Held) -> Result<Found, ServerError>;
}

/// Servers over MySQL.
#[derive(Debug)]
pub struct MysqlServers {
    credentials: PathBuf,
    authority: Option<PathBuf>,
    consumer: String,
    limits: Limits,
    idle: Mutex<Idle<Conn>>,
}

/// A connection to a MySQL server.
#[derive(Debug)]
pub struct MysqlSession {
    conn: Conn,
    address: SocketAddr,
    is_reused: bool,
    consumer: String,
    limits: Limits,
}

impl MysqlServers {
    /// `credentials` is a directory of `SHARD/understudy_reader` password files, `authority` the certificate of the
    /// authority that signed the servers' (None: no encryption, for tests), `consumer` the name under which the store's
    /// consumer keeps its offsets.
    pub fn new(credentials: PathBuf, authority: Option<PathBuf>, consumer: String, limits: Limits) -> Self {
        let idle = Mutex::new(Idle::new(limits.idle));
        Self { credentials, authority, consumer, limits, idle }
    }

    fn login(&self, shard: &ShardName) -> Result<Login, ServerError> {
        let path = self.credentials.join(shard.as_str()).join(ACCOUNT);
        let password = std::fs::read_to_string(&path)
            .map_err(|e| ServerError::Unreachable(format!("no password for it at {}: {e}", path.display())))?;
        let tls = self.authority.clone().map(|ca| Tls { ca, name: understudy_api::names::shard_san(shard.as_str()) });
        Ok(Login { user: ACCOUNT.to_owned(), password: password.trim_end().to_owned(), tls })
    }

    fn idle(&self) -> MutexGuard<'_, Idle<Conn>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, address: SocketAddr, fresh: bool) -> Option<Conn> {
        let mut idle = self.idle();
        if fresh {
            idle.forget(address);
        }
        idle.take(address, Instant::now())
    }
}

#[async_trait]
impl Servers for MysqlServers {
    type Session = MysqlSession;

    async fn connect(&self, shard: &ShardName, server: &Server, fresh: bool) -> Result<MysqlSession, ServerError> {
        let address = server.address;
        let session = |conn, is_reused| {
            let (consumer, limits) = (self.consumer.clone(), self.limits.clone());
            MysqlSession { conn, address, is_reused, consumer, limits }
        };
        if let Some(conn) = self.take(address, fresh) {
            return Ok(session(conn, true));
        }
        let login = self.login(shard)?;
        let settings = format!(
            "SET SESSION max_execution_time = {}, SESSION transaction_isolation = 'REPEATABLE-READ'",
            self.limits.statement.as_millis()
        );
        let opened = understudy_sql::open(address, &login, &settings, self.limits.begin).await;
        opened.map(|conn| session(conn, false)).map_err(|e| ServerError::Unreachable(e.to_string()))
    }

    async fn give_back(&self, mut session: MysqlSession) {
        // Ends the snapshot; a server that does not even do that is not asked again on this connection.
        let ended = tokio::time::timeout(self.limits.begin, session.conn.query_drop("COMMIT")).await;
        if !matches!(ended, Ok(Ok(()))) {
            return;
        }
        self.idle().keep(session.address, session.conn, Instant::now());
    }

    fn tidy(&self, servers: &BTreeSet<SocketAddr>) {
        self.idle().tidy(servers, Instant::now());
    }
}

#[async_trait]
impl Session for MysqlSession {
    fn is_reused(&self) -> bool {
        self.is_reused
    }

    async fn begin(&mut self) -> Result<Standing, ServerError> {
        let begin = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";
        self.conn.query_drop(begin).await.map_err(|e| of_mysql("begin", &e))?;
        let epoch: Option<u64> = self
            .conn
            .query_first("SELECT epoch FROM understudy.epoch WHERE id = 1")
            .await
            .map_err(|e| of_mysql("read the epoch", &e))?;
        let Some(epoch) = epoch else { return Err(ServerError::Failed("it has no epoch".into())) };
        let freshness = understudy_store::read::freshness(&mut self.conn, &self.consumer).await.map_err(of_store)?;
        Ok(Standing { epoch: Epoch(epoch), freshness })
    }

    async fn run(&mut self, tenant: &Tenant, work: &Work, held: &mut Held) -> Result<Found, ServerError> {
        let conn = &mut self.conn;
        let most = self.limits.series;
        let mut left = Allowance { limits: &self.limits, load: Load::default(), held, refusal: None };
        let mut found = work.nothing();
        match (work, &mut found.results) {
            (Work::Samples(selections), Results::Samples(results)) => {
                for (selection, result) in selections.iter().zip(results) {
                    found.duplicates += read(conn, tenant, selection, &mut left, result).await?;
                }
            }
            (Work::Series(selectors), Results::Series(series)) => {
                for matchers in selectors {
                    series.extend(find(conn, tenant, matchers, &mut left).await?.into_iter().map(|one| one.labels));
                    check("series", series.len(), most)?;
                }
            }
            (Work::LabelNames(selectors), Results::Texts(texts)) => {
                for matchers in or_all(selectors) {
                    let names = label_names(conn, tenant, matchers, most, &mut |kept| left.keep(kept)).await;
                    texts.extend(left.outcome(names)?);
                }
            }
            (Work::LabelValues(name, selectors), Results::Texts(texts)) => {
                for matchers in or_all(selectors) {
                    let values = label_values(conn, tenant, name, matchers, most, &mut |kept| left.keep(kept)).await;
                    texts.extend(left.outcome(values)?);
                }
            }
            // `nothing` gives results of the work's own kind.
            _ => {}
        }
        Ok(found)
    }
}

/// What one request may keep here.
struct Allowance<'a> {
    limits: &'a Limits,
    load: Load,
    held: &'a mut Held,
    /// Why something was not kept.
    refusal: Option<ServerError>,
}

impl Allowance<'_> {
    /// One thing more is found.
    fn keep(&mut self, kept: Kept<'_>) -> Result<(), ReadError> {
        match kept {
            Kept::Series(labels) => self.load.add_series(labels),
            Kept::Text(text) => self.load.add_text(text.len()),
        }
        self.hold()
    }

    /// So many samples are found in all.
    fn keep_samples(&mut self, samples: usize) -> Result<(), ReadError> {
        let most = self.limits.samples;
        if samples > most {
            return Err(ReadError::TooMany { what: "samples", most });
        }
        self.load.samples = samples;
        self.hold()
    }

    fn hold(&mut self) -> Result<(), ReadError> {
        self.held.grow_to(self.load.bytes()).map_err(|exhausted| {
            self.refusal = Some(exhausted.into());
            ReadError::TooMany { what: "bytes", most: self.limits.memory_bytes }
        })
    }

    /// What came of a search, which does not know why it was ended from here.
    fn outcome<T: Default>(&mut self, outcome: Result<T, ReadError>) -> Result<T, ServerError> {
        self.refusal.take().map_or_else(|| or_none(outcome), Err)
    }
}

async fn read(
    conn: &mut Conn,
    tenant: &Tenant,
    selection: &Selection,
    left: &mut Allowance<'_>,
    result: &mut Selected,
) -> Result<u64, ServerError> {
    let series = find(conn, tenant, &selection.matchers, left).await?;
    let groups: BTreeSet<_> = series.iter().map(|series| series.group).collect();
    let wanted: HashSet<SeriesId> = series.iter().map(|series| series.id).collect();
    let (times, before) = (selection.times_ms, left.load.samples);
    let mut merger = Merger::default();
    let reading = read_blocks(conn, tenant, &groups, times, |block, offset| {
        merger.add(&block, |id| wanted.contains(&id), times, offset);
        left.keep_samples(before + merger.samples_len())
    })
    .await;
    left.outcome(reading)?;
    let mut merged = merger.finish();
    for series in series {
        if let Some(samples) = merged.series.remove(&series.id) {
            result.insert(series.labels, samples);
        }
    }
    Ok(merged.duplicates)
}

async fn find(
    conn: &mut Conn,
    tenant: &Tenant,
    matchers: &[Matcher],
    left: &mut Allowance<'_>,
) -> Result<Vec<Series>, ServerError> {
    let found = matching_series(conn, tenant, matchers, left.limits.series, &mut |kept| left.keep(kept)).await;
    left.outcome(found)
}

/// Without a selector all series are meant.
fn or_all(selectors: &[Vec<Matcher>]) -> Vec<&[Matcher]> {
    if selectors.is_empty() { vec![&[]] } else { selectors.iter().map(Vec::as_slice).collect() }
}

/// A table that is not there holds nothing: nothing was stored yet.
fn or_none<T: Default>(outcome: Result<T, ReadError>) -> Result<T, ServerError> {
    match outcome {
        Err(ReadError::NotThere) => Ok(T::default()),
        outcome => outcome.map_err(of_store),
    }
}

fn check(what: &'static str, count: usize, most: usize) -> Result<(), ServerError> {
    if count > most { Err(ServerError::TooMany { what, most }) } else { Ok(()) }
}

fn of_store(error: ReadError) -> ServerError {
    match error {
        ReadError::Sql { step, source } => of_mysql(step, &source),
        ReadError::NotThere => ServerError::Failed("a table is not there".into()),
        ReadError::TooMany { what, most } => ServerError::TooMany { what, most },
        ReadError::Damaged(text) => ServerError::Damaged(text),
    }
}

fn of_mysql(step: &str, error: &mysql_async::Error) -> ServerError {
    match error {
        mysql_async::Error::Server(e) if e.code == TOO_SLOW => ServerError::TooSlow,
        mysql_async::Error::Server(e) if e.code == TABLE_CHANGED => {
            ServerError::Unreachable(format!("{step}: a table was made meanwhile"))
        }
        mysql_async::Error::Server(e) if ENDED.contains(&e.code) => {
            ServerError::Unreachable(format!("{step}: the connection was ended: error {}: {}", e.code, e.message))
        }
        mysql_async::Error::Server(e) => ServerError::Failed(format!("{step}: error {}: {}", e.code, e.message)),
        other => ServerError::Unreachable(format!("{step}: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::the_server_shuts_down(1053, true)]
    #[case::the_connection_was_killed(1927, true)]
    #[case::the_session_was_killed(3169, true)]
    #[case::it_was_idle_for_too_long(4031, true)]
    #[case::a_table_was_made_meanwhile(1412, true)]
    #[case::a_right_is_missing(1142, false)]
    #[case::the_statement_alone_was_killed(1317, false)]
    fn a_connection_that_was_ended_says_nothing_about_the_server(#[case] code: u16, #[case] is_lost: bool) {
        let error = mysql_async::ServerError { code, message: "why".to_owned(), state: "HY000".to_owned() };
        let error = of_mysql("begin", &mysql_async::Error::Server(error));
        assert_eq!(matches!(error, ServerError::Unreachable(_)), is_lost, "{error}");
    }

    #[test]
    fn labels_count_in_the_memory_of_a_request_before_any_sample_does() {
        use crate::budget::Budget;
        let limits = Limits { memory_bytes: 64 << 10, ..Limits::default() };
        let budget = Budget::new(limits.memory_bytes);
        let long = "x".repeat(10_000);
        let labels = understudy_model::Labels::from_pairs([("job", long.as_str())]).unwrap();
        let find = |held: &mut Held, series: usize| {
            let mut left = Allowance { limits: &limits, load: Load::default(), held, refusal: None };
            let found = (0..series).try_for_each(|_| left.keep(Kept::Series(&labels)));
            left.outcome(found)
        };
        let (mut first, mut second) = (budget.hold_nothing(), budget.hold_nothing());
        assert_eq!(find(&mut first, 2), Ok(()));
        assert_eq!(find(&mut second, 1), Err(ServerError::Memory), "they are there: another request holds the memory");
        drop(first);
        assert_eq!(find(&mut second, 2), Ok(()));
        let too_many = ServerError::TooMany { what: "bytes of series and samples", most: 64 << 10 };
        assert_eq!(find(&mut second, 3), Err(too_many), "a request that does not fit alone need not come again");
    }
}
