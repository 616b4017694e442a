//! A view that takes no notice of an error in the middle of its transaction.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::oneshot;
use understudy_consumer::{Decoded, Placed, Record, Rows, Tx, View, ViewError};
use understudy_sql::Db;

use super::Lines;

/// Where a [`Careless`] view asks for the locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    BeforeLines,
    AfterLines,
}

/// Somebody is told, and waited for.
pub type Meeting = (oneshot::Sender<()>, oneshot::Receiver<()>);

/// Writes lines, adds one to each of two rows of `view_test.pair`, and goes on as if nothing were when the second is not given to it.
pub struct Careless {
    pub lines: Lines,
    pub ask: Ask,
    /// Told once, between the two rows; then the view waits until it may go on.
    pub between: Arc<Mutex<Option<Meeting>>>,
    /// The codes of the errors that it took no notice of.
    pub swallowed: Arc<Mutex<Vec<Option<u16>>>>,
}

impl Careless {
    async fn add(&mut self, tx: &mut Tx<'_>) {
        for id in 1..=2 {
            let added = tx.exec("add", &format!("UPDATE view_test.pair SET n = n + 1 WHERE id = {id}"), vec![]).await;
            if let Err(error) = added {
                let code = if let ViewError::Step(step) = error { step.code() } else { None };
                self.swallowed.lock().unwrap().push(code);
            }
            let between = if id == 1 { self.between.lock().unwrap().take() } else { None };
            if let Some((told, go)) = between {
                told.send(()).unwrap();
                go.await.unwrap();
            }
        }
    }
}

#[async_trait]
impl View for Careless {
    type Item = String;

    fn decode(&mut self, record: &Record) -> Decoded<String> {
        self.lines.decode(record)
    }

    async fn prepare(&mut self, db: &mut Db<'_>, items: &[Placed<String>]) -> Result<(), ViewError> {
        self.lines.prepare(db, items).await
    }

    async fn apply(&mut self, tx: &mut Tx<'_>, items: &[Placed<String>]) -> Result<(), ViewError> {
        if self.ask == Ask::BeforeLines {
            self.add(tx).await;
        }
        self.lines.apply(tx, items).await?;
        if self.ask == Ask::AfterLines {
            self.add(tx).await;
        }
        Ok(())
    }

    fn route_changed(&mut self, rows: Rows) {
        self.lines.route_changed(rows);
    }
}
