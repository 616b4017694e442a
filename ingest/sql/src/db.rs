//! Statements on one connection, each under a deadline. I/O.

use std::time::Duration;

use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, Params, Value};
use tokio::time::timeout;
use understudy_wire::evidence::Stage;

use crate::error::StepError;
use crate::insert::{Insert, Limits};

/// `SERVER_STATUS_IN_TRANS`.
const IN_TRANSACTION: u16 = 1;

/// What a statement that returns no rows did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Rows that it changed.
    pub affected: u64,
    /// Whether a transaction is open after it.
    pub in_transaction: bool,
}

/// A borrowed connection with a deadline for each statement. After an error that is no answer of the server the connection is of no
/// more use; so it is after dropping a call half way.
#[derive(Debug)]
pub struct Db<'a> {
    conn: &'a mut Conn,
    deadline: Duration,
    stage: Stage,
    limits: Limits,
}

impl<'a> Db<'a> {
    /// Failures are told as failures of `stage`.
    pub fn new(conn: &'a mut Conn, deadline: Duration, stage: Stage, limits: Limits) -> Self {
        Self { conn, deadline, stage, limits }
    }

    /// A statement without parameters, in the text protocol: transaction control and DDL.
    pub async fn text(&mut self, step: &'static str, sql: &str) -> Result<Outcome, StepError> {
        let run = self.conn.query_drop(sql);
        within(step, self.stage, self.deadline, run).await?;
        Ok(self.outcome())
    }

    /// A statement that returns no rows.
    pub async fn exec(
        &mut self,
        step: &'static str,
        sql: &str,
        params: impl Into<Params> + Send,
    ) -> Result<Outcome, StepError> {
        let run = self.conn.exec_drop(sql, params.into());
        within(step, self.stage, self.deadline, run).await?;
        Ok(self.outcome())
    }

    /// A statement that returns rows; all of them are held in memory.
    pub async fn rows<T: FromRow + Send + 'static>(
        &mut self,
        step: &'static str,
        sql: &str,
        params: impl Into<Params> + Send,
    ) -> Result<Vec<T>, StepError> {
        let run = self.conn.exec::<T, _, _>(sql, params.into());
        within(step, self.stage, self.deadline, run).await
    }

    /// The first row.
    pub async fn first<T: FromRow + Send + 'static>(
        &mut self,
        step: &'static str,
        sql: &str,
        params: impl Into<Params> + Send,
    ) -> Result<Option<T>, StepError> {
        let run = self.conn.exec_first::<T, _, _>(sql, params.into());
        within(step, self.stage, self.deadline, run).await
    }

    /// Many rows in as few statements as the limits allow; the deadline is for each of them. How many rows were affected.
    pub async fn insert(
        &mut self,
        step: &'static str,
        insert: &Insert<'_>,
        rows: Vec<Vec<Value>>,
    ) -> Result<Outcome, StepError> {
        let mut affected = 0;
        for statement in insert.statements(rows, self.limits) {
            let statement = statement.map_err(|e| StepError {
                step,
                stage: self.stage,
                error: understudy_wire::evidence::ProbeError::Other { message: e.to_string() },
            })?;
            affected += self.exec(step, &statement.sql, Params::Positional(statement.params)).await?.affected;
        }
        Ok(Outcome { affected, ..self.outcome() })
    }

    /// How large statements may be.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    fn outcome(&self) -> Outcome {
        let status = self.conn.last_ok_packet().map_or(0, |ok| ok.status_flags().bits());
        Outcome { affected: self.conn.affected_rows(), in_transaction: status & IN_TRANSACTION != 0 }
    }
}

async fn within<T>(
    step: &'static str,
    stage: Stage,
    deadline: Duration,
    run: impl Future<Output = mysql_async::Result<T>>,
) -> Result<T, StepError> {
    match timeout(deadline, run).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(StepError::of(step, stage, &e)),
        Err(_) => Err(StepError::timeout(step, stage)),
    }
}
