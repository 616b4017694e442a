//! The view: what a consumer makes of records. The one trait a team writes.
//!
//! The core promises that [`View::apply`] takes effect exactly once for each record, in order per partition, through every failover of the
//! shard. For that a view must keep to a few rules:
//! - all that it writes, it writes through the [`Tx`] it is given, into its own schema;
//! - what it writes follows from the records and from what it reads in the same transaction: no clock, no random number, no counter of the
//!   server. The same records may have to be applied again on a server that never saw the first time;
//! - what it remembers between calls is either certain (told by [`View::committed`]) or checked, and forgotten in [`View::route_changed`]
//!   as far as [`Rows`] says;
//! - tables are made in [`View::prepare`], never in `apply`: DDL would end the transaction;
//! - a statement that failed in `apply` is the end of this attempt: see [`Tx`].

use async_trait::async_trait;
use bytes::Bytes;
pub use understudy_kafka::RawRecord as Record;
use understudy_sql::db::Outcome;
use understudy_sql::{Db, Insert, StepError, Value};
use understudy_wire::evidence::{ProbeError, Stage};

/// What a consumer makes of records.
#[async_trait]
pub trait View: Send + 'static {
    /// A record once it is understood.
    type Item: Send + Sync + 'static;

    /// Understands a record, or says why nobody can. Without I/O; the same record must always give the same answer.
    fn decode(&mut self, record: &Record) -> Decoded<Self::Item>;

    /// Ahead of the transaction and outside of it: makes the tables that these items need, looks things up. What it makes must be
    /// harmless if the items are never applied here, and the call must be repeatable.
    async fn prepare(&mut self, db: &mut Db<'_>, items: &[Placed<Self::Item>]) -> Result<(), ViewError>;

    /// Writes the items in the open transaction. Either all of it is committed together with the offsets, or nothing.
    async fn apply(&mut self, tx: &mut Tx<'_>, items: &[Placed<Self::Item>]) -> Result<(), ViewError>;

    /// The transaction of the last [`View::apply`] is committed. Not told when the outcome is unknown, nor of a transaction without items.
    fn committed(&mut self) {}

    /// Another connection, perhaps to another server: what was remembered of the database's content may not be so there. Called before
    /// [`View::prepare`] on each connection, and when a table turns out to be gone.
    fn route_changed(&mut self, _rows: Rows) {}
}

/// What the rows of a server are, compared with those that this process left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// By the stored offsets every transaction that [`View::committed`] told of is there, and every one before it. What [`View::prepare`] made
    /// outside of a transaction may be missing.
    Kept,
    /// Some may be missing.
    Unknown,
}

/// An item and where it came from.
#[derive(Clone, Debug)]
pub struct Placed<I> {
    /// The record.
    pub record: Record,
    /// What it holds.
    pub item: I,
}

/// What became of a record.
#[derive(Clone, Debug)]
pub struct Decoded<I> {
    /// What is to be applied; None when nothing of it can be.
    pub item: Option<I>,
    /// About how many rows applying it will write: bounds the transaction.
    pub weight: usize,
    /// About how many bytes the item takes in memory beside its record: they count in the byte limit of the batch. 0 will do for an item that
    /// is about as large as its record.
    pub memory: usize,
    /// What is to be put aside: the record, or parts of it.
    pub rejects: Vec<Reject>,
}

/// Something that cannot be applied, and goes to the dead-letter topic before the offset passes over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// A word from a closed set: it labels metrics.
    pub reason: &'static str,
    /// For a person.
    pub detail: String,
    /// The part that is put aside; None for the whole value.
    pub value: Option<Bytes>,
}

impl<I> Decoded<I> {
    /// All of it can be applied, and it is about as large as its record.
    pub fn item(item: I, weight: usize) -> Self {
        Self { item: Some(item), weight, memory: 0, rejects: Vec::new() }
    }

    /// Nothing of it can be applied.
    pub fn reject(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { item: None, weight: 0, memory: 0, rejects: vec![Reject { reason, detail: detail.into(), value: None }] }
    }
}

/// Why a view could not do its part.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ViewError {
    /// A statement failed.
    #[error(transparent)]
    Step(#[from] StepError),
    /// One record cannot be applied, whatever is tried: it is put aside and the others are applied.
    #[error("record {index} of the batch: {reason}: {detail}")]
    Reject {
        /// Which of the items.
        index: usize,
        /// A word from a closed set.
        reason: &'static str,
        /// For a person.
        detail: String,
    },
    /// A statement that may not be in a transaction of the core's.
    #[error("not within a transaction: {0}")]
    Statement(String),
    /// Anything else; tried again later.
    #[error("{0}")]
    Other(String),
}

/// The open transaction, for reading and writing rows. It cannot be ended from here.
///
/// A statement that failed spoils it: nothing more runs in it and nothing of it is committed, whatever the view makes of the error. The
/// server may have rolled back all of it (a deadlock) or only that statement (a lock that was not given in time), so what is there is no
/// longer what the view believes.
#[derive(Debug)]
pub struct Tx<'a> {
    db: Db<'a>,
    spoilt: Option<ViewError>,
}

/// What a statement in the transaction may begin with.
const ALLOWED: [&str; 6] = ["SELECT", "INSERT", "UPDATE", "DELETE", "REPLACE", "WITH"];

impl<'a> Tx<'a> {
    pub(crate) fn new(db: Db<'a>) -> Self {
        Self { db, spoilt: None }
    }

    /// A statement that returns no rows; how many rows it changed.
    pub async fn exec(&mut self, step: &'static str, sql: &str, params: Vec<Value>) -> Result<u64, ViewError> {
        self.begin(step, sql)?;
        let outcome = self.db.exec(step, sql, params).await;
        self.end(outcome.map_err(ViewError::Step).and_then(|outcome| still_open(outcome, sql)))
    }

    /// A statement that returns rows; all of them are held in memory.
    pub async fn rows<T: mysql_async::prelude::FromRow + Send + 'static>(
        &mut self,
        step: &'static str,
        sql: &str,
        params: Vec<Value>,
    ) -> Result<Vec<T>, ViewError> {
        self.begin(step, sql)?;
        let rows = self.db.rows(step, sql, params).await;
        self.end(rows.map_err(ViewError::Step))
    }

    /// Many rows in few statements; how many rows were changed.
    pub async fn insert(
        &mut self,
        step: &'static str,
        insert: &Insert<'_>,
        rows: Vec<Vec<Value>>,
    ) -> Result<u64, ViewError> {
        self.begin(step, insert.head)?;
        if rows.is_empty() {
            return self.end(Ok(0));
        }
        let outcome = self.db.insert(step, insert, rows).await;
        self.end(outcome.map_err(ViewError::Step).and_then(|outcome| still_open(outcome, insert.head)))
    }

    /// What came of it: what the view says, unless it says less than the statements did.
    pub(crate) fn outcome(self, applied: Result<(), ViewError>) -> Result<(), ViewError> {
        match self.spoilt {
            // The connection is of no more use, whatever record the view blames.
            Some(ViewError::Step(lost)) if !lost.is_answer() => Err(ViewError::Step(lost)),
            Some(spoilt) => applied.and(Err(spoilt)),
            None => applied,
        }
    }

    fn begin(&mut self, step: &'static str, sql: &str) -> Result<(), ViewError> {
        if let Some(spoilt) = &self.spoilt {
            return Err(spoilt.clone());
        }
        if let Err(refused) = allowed(sql) {
            return self.end(Err(refused));
        }
        // Until its answer is here: a view that drops the call leaves the connection in the middle of it.
        let error = ProbeError::Other { message: "the view gave it up half way".to_owned() };
        self.spoilt = Some(ViewError::Step(StepError { step, stage: Stage::Commit, error }));
        Ok(())
    }

    fn end<T>(&mut self, outcome: Result<T, ViewError>) -> Result<T, ViewError> {
        self.spoilt = outcome.as_ref().err().cloned();
        outcome
    }
}

fn allowed(sql: &str) -> Result<(), ViewError> {
    let first = sql.trim_start().split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    if ALLOWED.iter().any(|word| word.eq_ignore_ascii_case(first)) {
        return Ok(());
    }
    Err(ViewError::Statement(sql.chars().take(80).collect()))
}

fn still_open(outcome: Outcome, sql: &str) -> Result<u64, ViewError> {
    if outcome.in_transaction {
        return Ok(outcome.affected);
    }
    Err(ViewError::Statement(format!("it ended the transaction: {}", sql.chars().take(80).collect::<String>())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_cannot_end_the_transaction() {
        for (sql, passes) in [
            ("INSERT INTO a VALUES (?)", true),
            ("  select 1", true),
            ("WITH x AS (SELECT 1) SELECT * FROM x", true),
            ("COMMIT", false),
            ("/* hi */ COMMIT", false),
            ("create table a (b int)", false),
            ("SET autocommit = 1", false),
            ("", false),
        ] {
            assert_eq!(allowed(sql).is_ok(), passes, "{sql}");
        }
    }
}
